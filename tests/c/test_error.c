/* error.h: what a thread is told about its last failure. */
#include "error.h"

#include <errno.h>
#include <pthread.h>

#include "test.h"

static void keeps_what_it_is_given(void)
{
    CHECK_EQUAL(error_set(PYKV_BUSY, 0, "lock", 64, "%d of %d", 3, 4), PYKV_BUSY);
    const struct pykv_error *error = pykv_last_error();
    CHECK_EQUAL(error->status, PYKV_BUSY);
    CHECK_EQUAL(error->os_errno, 0);
    CHECK_EQUAL(error->offset, 64);
    CHECK_TEXT(error->path, "lock");
    CHECK_TEXT(error->message, "3 of 4");
}

static void knows_the_status_of_an_errno(void)
{
    static const struct { int os_errno, status; } known[] = {
        { ENOSPC, PYKV_FULL }, { EDQUOT, PYKV_FULL }, { EFBIG, PYKV_FULL },
        { ENOMEM, PYKV_NO_MEMORY }, { EACCES, PYKV_DENIED }, { EPERM, PYKV_DENIED },
        { EROFS, PYKV_DENIED }, { EIO, PYKV_IO }, { EINVAL, PYKV_IO }, { 54321, PYKV_IO },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        CHECK_EQUAL(error_os(known[i].os_errno, "f", 9, "read"), known[i].status);
        CHECK_EQUAL(pykv_last_error()->os_errno, known[i].os_errno);
        CHECK_EQUAL(pykv_last_error()->offset, 9);
    }
    (void)error_os(ENOENT, "segment-0000000001", 0, "open");
    CHECK_TEXT(pykv_last_error()->message,
               "cannot open segment-0000000001: No such file or directory");
    (void)error_os(ENOENT, NULL, 0, "map memory");
    CHECK_TEXT(pykv_last_error()->message, "cannot map memory: No such file or directory");
    CHECK_TEXT(pykv_last_error()->path, "");
}

static void shorthands_say_what_happened(void)
{
    CHECK_EQUAL(error_no_memory(4096), PYKV_NO_MEMORY);
    CHECK_TEXT(pykv_last_error()->message, "no memory for 4096 bytes");
    CHECK_EQUAL(error_corrupt("f", 48, "the checksum does not hold"), PYKV_CORRUPT);
    CHECK_TEXT(pykv_last_error()->message, "f is damaged at offset 48: the checksum does not hold");
    CHECK_EQUAL(pykv_last_error()->offset, 48);
}

static void cuts_what_is_too_long(void)
{
    char path[2000];
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    (void)error_os(EIO, path, 0, "read");
    CHECK_EQUAL(strlen(pykv_last_error()->path), 511);
    CHECK_EQUAL(strlen(pykv_last_error()->message), 511);
}

static void may_quote_the_error_before(void)
{
    (void)error_corrupt("f", 1, "first");
    (void)error_set(PYKV_IO, 0, pykv_last_error()->path, 2, "second, after: %s",
                    pykv_last_error()->message);
    CHECK_TEXT(pykv_last_error()->message, "second, after: f is damaged at offset 1: first");
    CHECK_TEXT(pykv_last_error()->path, "f");
}

static void *fail_elsewhere(void *context)
{
    (void)context;
    CHECK_TEXT(pykv_last_error()->message, "");
    (void)error_no_memory(1);
    return NULL;
}

static void is_each_threads_own(void)
{
    pthread_t thread;
    (void)error_corrupt("f", 0, "here");
    CHECK_EQUAL(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(pykv_last_error()->status, PYKV_CORRUPT);
}

TEST_MAIN(CASE(keeps_what_it_is_given), CASE(knows_the_status_of_an_errno),
          CASE(shorthands_say_what_happened), CASE(cuts_what_is_too_long),
          CASE(may_quote_the_error_before), CASE(is_each_threads_own))
