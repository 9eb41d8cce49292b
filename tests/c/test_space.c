/* space.h, on the real system; and with one that has no room. */
#include "space.h"

#include <errno.h>

#include "pykv.h"
#include "test.h"

static void a_shared_space_grows_under_its_mappings(void)
{
    const struct os *os = &os_posix;
    struct space space = { .os = os, .writable = true, .name = "keydir" };
    void *first = NULL, *again = NULL;
    int dir = -1;
    CHECK_EQUAL(os->dir_open(os, test_dir(), false, 0, &dir), 0);
    CHECK_EQUAL(os->file_open(os, dir, "keydir", OS_CREATE, 0600, &space.fd), 0);
    CHECK_EQUAL(space_map(&space, SPACE_ALIGNMENT, 2 * SPACE_ALIGNMENT, &first), PYKV_OK);
    CHECK_EQUAL(space_reserve(&space, SPACE_ALIGNMENT, 2 * SPACE_ALIGNMENT), PYKV_OK);
    memcpy(first, "here", 4);

    space.writable = false;
    CHECK_EQUAL(space_map(&space, SPACE_ALIGNMENT, SPACE_ALIGNMENT, &again), PYKV_OK);
    CHECK_BYTES(again, "here", 4);
    os->unmap(os, first, 2 * SPACE_ALIGNMENT);
    os->unmap(os, again, SPACE_ALIGNMENT);
    CHECK_EQUAL(os->file_close(os, space.fd), 0);
    CHECK_EQUAL(os->file_close(os, dir), 0);
}

static void a_private_space_is_fresh_memory_each_time(void)
{
    struct space space = { .os = &os_posix, .fd = -1, .name = "keydir" };
    void *first = NULL, *second = NULL;
    static const uint8_t zeros[SPACE_ALIGNMENT];
    CHECK_EQUAL(space_map(&space, 0, SPACE_ALIGNMENT, &first), PYKV_OK);
    CHECK_EQUAL(space_reserve(&space, 0, UINT64_C(1) << 40), PYKV_OK);
    memset(first, 1, SPACE_ALIGNMENT);
    CHECK_EQUAL(space_map(&space, 0, SPACE_ALIGNMENT, &second), PYKV_OK);
    CHECK_BYTES(second, zeros, SPACE_ALIGNMENT);
    os_posix.unmap(&os_posix, first, SPACE_ALIGNMENT);
    os_posix.unmap(&os_posix, second, SPACE_ALIGNMENT);
}

static int no_room(const struct os *os, int fd, uint64_t offset, uint64_t size)
{
    (void)os, (void)fd, (void)offset, (void)size;
    return ENOSPC;
}

static int no_memory(const struct os *os, int fd, uint64_t offset, size_t size, bool writable,
                     void **out)
{
    (void)os, (void)fd, (void)offset, (void)size, (void)writable, (void)out;
    return ENOMEM;
}

static void failures_name_the_file(void)
{
    struct os os = os_posix;
    os.file_reserve = no_room;
    os.map = no_memory;
    struct space space = { .os = &os, .fd = 0, .writable = true, .name = "keydir" };
    void *out = NULL;
    CHECK_EQUAL(space_reserve(&space, 65536, 65536), PYKV_FULL);
    CHECK_TEXT(pykv_last_error()->path, "keydir");
    CHECK_EQUAL(pykv_last_error()->offset, 65536);
    CHECK_EQUAL(space_map(&space, 0, 65536, &out), PYKV_NO_MEMORY);
    CHECK(out == NULL);
}

TEST_MAIN(CASE(a_shared_space_grows_under_its_mappings),
          CASE(a_private_space_is_fresh_memory_each_time), CASE(failures_name_the_file))
