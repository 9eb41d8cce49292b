/* Verification names every damaged place, in the order of segments and offsets, however many threads share
 * the work; and what fails in one of them is told as if there were no threads. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "os.h"
#include "pykv.h"
#include "store.h"
#include "test.h"

enum { KEYS = 3000, VALUE_SIZE = 500, BROKEN_EVERY = 20, PLACES = KEYS / BROKEN_EVERY };

static const char *path;
static struct os os;
static struct pykv_options options;
static struct pykv_store *store;

static void make_value(uint32_t key, uint8_t value[VALUE_SIZE])
{
    memset(value, '.', VALUE_SIZE);
    snprintf((char *)value, VALUE_SIZE, "the value of key %u", key);
}

static void start(int io)
{
    os = os_posix;
    path = test_dir();
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .io = io, .segment_size = 64 << 10 };
    CHECK_EQUAL(pykv_open_with(&os, path, &options, &store), PYKV_OK);
    for (uint32_t key = 0; key < KEYS; key++) {
        uint8_t value[VALUE_SIZE];
        make_value(key, value);
        CHECK_EQUAL(pykv_put(store, (uint8_t *)&key, 4, value, sizeof value, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    }
}

static void end(void)
{
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
}

/* Change a byte of every so manieth value; where. */
struct place { char segment[32]; uint64_t offset; };

static void break_values(struct place places[PLACES])
{
    static uint8_t bytes[64 << 10];
    uint8_t value[VALUE_SIZE];
    size_t size, count = 0;
    int dir, fd;
    CHECK_EQUAL(os_posix.dir_open(&os_posix, path, false, 0, &dir), 0);
    for (unsigned segment = 1; count < PLACES; segment++) {
        char name[32];
        snprintf(name, sizeof name, "segment-%010u", segment);
        CHECK_EQUAL(os_posix.file_open(&os_posix, dir, name, OS_READ_WRITE, 0, &fd), 0);
        CHECK_EQUAL(os_posix.file_read(&os_posix, fd, bytes, sizeof bytes, 0, &size), 0);
        make_value((uint32_t)count * BROKEN_EVERY, value);
        for (size_t at = 0; at + VALUE_SIZE <= size && count < PLACES; at++) {
            if (memcmp(bytes + at, value, VALUE_SIZE) != 0)
                continue;
            uint8_t other = '!';
            CHECK_EQUAL(os_posix.file_write(&os_posix, fd, &other, 1, at + VALUE_SIZE - 1), 0);
            places[count].offset = at;
            strcpy(places[count++].segment, name);
            make_value((uint32_t)count * BROKEN_EVERY, value);
        }
        CHECK_EQUAL(os_posix.file_close(&os_posix, fd), 0);
    }
    CHECK_EQUAL(os_posix.file_close(&os_posix, dir), 0);
}

static void check_report(const struct pykv_report *report, const struct pykv_damage *damage, const struct place *places)
{
    CHECK_EQUAL(report->damage_count, PLACES);
    CHECK_EQUAL(report->records, KEYS - PLACES);
    for (size_t i = 0; i < PLACES; i++) {
        CHECK_TEXT(damage[i].path, places[i].segment);
        CHECK(damage[i].offset < places[i].offset && places[i].offset < damage[i].offset + damage[i].size);
        CHECK(damage[i].size < VALUE_SIZE + 64);
    }
    CHECK_EQUAL(memcmp(damage, report->damage, sizeof report->damage), 0);
}

static void all_places_in_order(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io);
        static struct place places[PLACES];
        break_values(places);
        for (int round = 0; round < 5; round++) {
            struct pykv_verification *verification;
            struct pykv_progress progress;
            struct pykv_report report;
            int status;
            CHECK_EQUAL(pykv_verify_open(store, &verification), PYKV_OK);
            while ((status = pykv_verify_step(verification, &progress)) == PYKV_OK)
                CHECK(progress.left > 0 && progress.left < progress.total);
            CHECK_EQUAL(status, PYKV_NOT_FOUND);
            CHECK_EQUAL(progress.left, 0);
            check_report(&report, pykv_verify_report(verification, &report), places);
            pykv_verify_close(verification);
            CHECK_EQUAL(pykv_verify(store, &report), PYKV_CORRUPT);
            CHECK_EQUAL(report.damage_count, PLACES);
            CHECK_TEXT(pykv_last_error()->path, places[0].segment);
        }
        end();
    }
}

static void put_value(uint32_t key)
{
    uint8_t value[VALUE_SIZE];
    make_value(key, value);
    value[VALUE_SIZE - 1] = '?';
    CHECK_EQUAL(pykv_put(store, (uint8_t *)&key, 4, value, sizeof value, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

/* What compaction wrote before a checkpoint is not read by a recovery, whatever number its segment has. */
static void damage_that_does_not_matter(void)
{
    static uint8_t bytes[64 << 10];
    uint8_t value[VALUE_SIZE];
    struct pykv_progress progress = { .left = 1 };
    struct pykv_report report;
    bool died;
    int dir, fd;
    size_t size = 0, at = 0;
    start(PYKV_IO_MMAP);
    CHECK_EQUAL(pykv_compaction_pause(store, 1), PYKV_OK);     /* but for what is asked for below */
    for (uint32_t key = 1; key < KEYS; key++)
        CHECK_EQUAL(pykv_delete(store, (uint8_t *)&key, 4, PYKV_DURABILITY_DEFAULT), PYKV_OK);
    while (progress.left != 0)
        CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
    uint64_t id = 0;            /* of the compacted segment with key 0 */
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        if (store->shared->segments[i].kind == SEGMENT_COMPACTED && store->shared->segments[i].id > id)
            id = store->shared->segments[i].id;
    CHECK(id > position_segment(store->shared->tail));
    put_value(0);               /* elsewhere: no slot leads there any more */
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    CHECK_EQUAL(checkpoint_write(store), PYKV_OK);
    shared_lock_release(&store->shared->maintain, &store->process);
    char name[32];
    log_segment_name(id, name);
    make_value(0, value);
    CHECK_EQUAL(os_posix.dir_open(&os_posix, path, false, 0, &dir), 0);
    CHECK_EQUAL(os_posix.file_open(&os_posix, dir, name, OS_READ_WRITE, 0, &fd), 0);
    CHECK_EQUAL(os_posix.file_read(&os_posix, fd, bytes, sizeof bytes, 0, &size), 0);
    while (at + VALUE_SIZE <= size && memcmp(bytes + at, value, VALUE_SIZE) != 0)
        at++;
    CHECK(at + VALUE_SIZE <= size);
    CHECK_EQUAL(os_posix.file_write(&os_posix, fd, "!", 1, at), 0);
    CHECK_EQUAL(os_posix.file_close(&os_posix, fd), 0);
    CHECK_EQUAL(os_posix.file_close(&os_posix, dir), 0);
    CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
    CHECK_EQUAL(report.skipped_count, 1);
    end();
}

/* The handle outlives the store. */
static void a_store_that_is_closed_meanwhile(void)
{
    struct pykv_verification *verification;
    struct pykv_progress progress;
    start(PYKV_IO_MMAP);
    CHECK_EQUAL(pykv_verify_open(store, &verification), PYKV_OK);
    end();
    CHECK_EQUAL(pykv_verify_step(verification, &progress), PYKV_CLOSED);
    pykv_verify_close(verification);
    pykv_verify_close(NULL);
}

static const char *const unreadable = "segment-0000000007";
static _Atomic int unreadable_fd;

static int open_and_note(const struct os *table, int dir, const char *name, enum os_open how, uint32_t mode, int *fd)
{
    int error = os_posix.file_open(table, dir, name, how, mode, fd);
    if (error == 0 && strcmp(name, unreadable) == 0)
        atomic_store(&unreadable_fd, *fd);
    else if (error == 0 && *fd == atomic_load(&unreadable_fd))
        atomic_store(&unreadable_fd, -1);
    return error;
}

static int read_or_fail(const struct os *table, int fd, void *bytes, size_t size, uint64_t offset, size_t *done)
{
    bool fails = fd == atomic_load(&unreadable_fd) && offset > 1000;
    return fails ? EIO : os_posix.file_read(table, fd, bytes, size, offset, done);
}

static void check_error(int status)
{
    CHECK_EQUAL(status, PYKV_IO);
    CHECK_EQUAL(pykv_last_error()->status, PYKV_IO);
    CHECK_EQUAL(pykv_last_error()->os_errno, EIO);
    CHECK_TEXT(pykv_last_error()->path, unreadable);
}

static int remove_other(void *context, const char *name)
{
    if (strncmp(name, "keydir", 6) == 0 || strncmp(name, "checkpoint", 10) == 0)
        CHECK_EQUAL(os_posix.file_remove(&os_posix, *(const int *)context, name), 0);
    return 0;
}

static void remove_keydir_and_checkpoints(void)
{
    int dir;
    CHECK_EQUAL(os_posix.dir_open(&os_posix, path, false, 0, &dir), 0);
    CHECK_EQUAL(os_posix.dir_list(&os_posix, dir, remove_other, &dir), 0);
    CHECK_EQUAL(os_posix.file_close(&os_posix, dir), 0);
}

/* Of a recovery too. */
static void a_thread_tells_what_failed(void)
{
    start(PYKV_IO_PREAD);
    end();
    atomic_store(&unreadable_fd, -1);
    os.file_open = open_and_note;
    os.file_read = read_or_fail;
    options.flag = PYKV_FLAG_READ;
    CHECK_EQUAL(pykv_open_with(&os, path, &options, &store), PYKV_OK);
    struct pykv_report report;
    for (int i = 0; i < 3; i++)
        check_error(pykv_verify(store, &report));
    struct pykv_verification *verification;
    struct pykv_progress progress;
    CHECK_EQUAL(pykv_verify_open(store, &verification), PYKV_OK);
    check_error(pykv_verify_step(verification, &progress));
    CHECK_EQUAL(pykv_verify_step(verification, &progress), PYKV_IO);    /* there is no going on */
    pykv_verify_close(verification);
    end();
    remove_keydir_and_checkpoints();
    check_error(pykv_open_with(&os, path, &options, &store));
}

TEST_MAIN(CASE(all_places_in_order), CASE(damage_that_does_not_matter), CASE(a_store_that_is_closed_meanwhile), CASE(a_thread_tells_what_failed))
