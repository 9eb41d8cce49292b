/* Parts of long values: what is read for one, and what becomes of calls that fail. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "format.h"
#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#define PATH "/store"

enum { VALUE_SIZE = 2500003 };

static struct sim *sim;
static struct os os;
static uint64_t bytes_read;
static struct pykv_store *store;
static uint8_t value[VALUE_SIZE], part[VALUE_SIZE];
static const uint8_t key[3] = "key";

static int counting_read(const struct os *self, int fd, void *bytes, size_t size, uint64_t offset, size_t *done)
{
    bytes_read += size;
    return sim_os(sim)->file_read(self, fd, bytes, size, offset, done);
}

static void start(int io)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = 65536, .io = io };
    uint64_t state = 1;
    alarm(60);
    sim = sim_new(1);
    os = *sim_os(sim);
    os.file_read = counting_read;
    for (size_t i = 0; i < VALUE_SIZE; i++)
        value[i] = (uint8_t)test_random(&state);
    CHECK_EQUAL(pykv_open_with(&os, PATH, &options, &store), PYKV_OK);
    CHECK_EQUAL(pykv_put(store, key, 3, value, VALUE_SIZE, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

static void end(void)
{
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    struct sim_usage usage = sim_usage(sim);
    CHECK_EQUAL(usage.descriptors + usage.mappings + usage.allocations + usage.locks, 0);
    sim_free(sim);
}

static int open_dir(void)
{
    int dir;
    CHECK_EQUAL(os.dir_open(&os, PATH, false, 0, &dir), 0);
    return dir;
}

static int64_t get(uint64_t offset, uint64_t length, size_t capacity, uint64_t *size)
{
    return pykv_get_range(store, key, 3, offset, length, part, capacity, size);
}

static void parts_are_cut_at_the_end(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        uint64_t size = 0;
        start(io);
        CHECK_EQUAL(get(0, 0, 0, &size), 0);
        CHECK_EQUAL(size, VALUE_SIZE);
        CHECK_EQUAL(get(VALUE_SIZE - 5, 100, 100, NULL), 5);
        CHECK_BYTES(part, value + VALUE_SIZE - 5, 5);
        CHECK_EQUAL(get(VALUE_SIZE, 100, 100, NULL), 0);
        CHECK_EQUAL(get(UINT64_MAX, UINT64_MAX, 100, NULL), 0);
        CHECK_EQUAL(get(1, UINT64_MAX, VALUE_SIZE, NULL), VALUE_SIZE - 1);
        CHECK_BYTES(part, value + 1, VALUE_SIZE - 1);
        memset(part, 7, 200);
        CHECK_EQUAL(get(0, 200, 199, NULL), 200);       /* no room: nothing is copied */
        CHECK_EQUAL(part[0], 7);
        CHECK_EQUAL(pykv_get_range(store, key, 2, 0, 1, part, 1, NULL), -1000 + PYKV_NOT_FOUND);
        CHECK_EQUAL(pykv_get_range(store, key, 65536, 0, 1, part, 1, NULL), -1000 + PYKV_INVALID);
        end();
    }
}

/* Of 2.5 MB those that are asked for, the chunks they lie in and the head. */
static void little_is_read_for_a_part(void)
{
    start(PYKV_IO_PREAD);
    for (uint64_t offset = 0; offset < VALUE_SIZE; offset += 50000) {
        bytes_read = 0;
        int64_t size = get(offset, 100, 100, NULL);
        CHECK(size > 0 && bytes_read <= 2 * (RECORD_CHUNK_SIZE + 16) + 4096);
        CHECK_BYTES(part, value + offset, (size_t)size);
    }
    bytes_read = 0;
    CHECK_EQUAL(pykv_contains(store, key, 3, NULL), PYKV_OK);
    CHECK(bytes_read <= 4096);
    end();
}

/* Whichever call fails, the caller hears of it, and the next call is none the worse. */
static void a_call_that_fails_is_told(void)
{
    unsigned failed = 0;
    start(PYKV_IO_PREAD);
    for (uint64_t n = 0;; n++) {
        sim_fail(sim, &(struct sim_fault){ .call = SIM_ANY, .at = n });
        int64_t size = get(60000, 200000, 200000, NULL);
        bool met = sim_failed(sim, SIM_ANY) != 0;
        sim_fail(sim, NULL);
        if (!met)
            break;
        failed++;
        CHECK(size == -1000 + PYKV_IO || size == -1000 + PYKV_NO_MEMORY);
        CHECK_EQUAL(get(60000, 200000, 200000, NULL), 200000);
        CHECK_BYTES(part, value + 60000, 200000);
    }
    CHECK(failed >= 6);     /* the head, a buffer, four chunks */
    end();
}

/* Where segments are not mapped, a walk holds a piece of a long value at a time. */
static size_t largest;

static void *measured_alloc(const struct os *self, size_t size)
{
    largest = size > largest ? size : largest;
    return sim_os(sim)->alloc(self, size);
}

static void long_values_need_not_be_in_memory(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_WRITE, .segment_size = 65536, .io = PYKV_IO_PREAD };
    struct pykv_report report;
    start(PYKV_IO_PREAD);
    largest = 0;
    os.alloc = measured_alloc;
    CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    int dir = open_dir();
    CHECK_EQUAL(os.file_remove(&os, dir, "keydir"), 0);
    CHECK_EQUAL(os.file_close(&os, dir), 0);
    CHECK_EQUAL(pykv_open_with(&os, PATH, &options, &store), PYKV_OK);
    CHECK_EQUAL(get(0, UINT64_MAX, VALUE_SIZE, NULL), VALUE_SIZE);
    CHECK_BYTES(part, value, VALUE_SIZE);
    CHECK(largest > 0 && largest < VALUE_SIZE);
    end();
}

/* ---- A file without a name ---- */

static void a_scratch_file_has_no_name(void)
{
    int fd = -1, found;
    start(PYKV_IO_MMAP);
    int dir = open_dir();
    CHECK_EQUAL(os.file_open(&os, dir, "scratch.tmp", OS_CREATE, 0600, &found), 0);     /* a dead one's */
    CHECK_EQUAL(os.file_close(&os, found), 0);
    CHECK_EQUAL(pykv_scratch(store, &fd), PYKV_OK);
    CHECK_EQUAL(os.file_open(&os, dir, "scratch.tmp", OS_READ, 0, &found), ENOENT);
    CHECK_EQUAL(os.file_write(&os, fd, "v", 1, 0), 0);
    CHECK_EQUAL(os.file_close(&os, fd), 0);
    CHECK_EQUAL(os.file_close(&os, dir), 0);
    end();
}

static void a_scratch_file_that_cannot_be_made(void)
{
    int fd = -1, made;
    start(PYKV_IO_MMAP);
    for (uint64_t n = 0;; n++) {
        uint64_t before = sim_usage(sim).descriptors;
        sim_fail(sim, &(struct sim_fault){ .call = SIM_ANY, .at = n });
        int status = pykv_scratch(store, &fd);
        bool met = sim_failed(sim, SIM_ANY) != 0;
        sim_fail(sim, NULL);
        if (!met)
            break;
        CHECK(status < 0 && fd == -1);
        CHECK_EQUAL(sim_usage(sim).descriptors, before);
    }
    CHECK_EQUAL(os.file_close(&os, fd), 0);
    struct pykv_options options = { .flag = PYKV_FLAG_READ };
    struct pykv_store *reader;
    CHECK_EQUAL(pykv_open_with(&os, PATH, &options, &reader), PYKV_OK);
    CHECK_EQUAL(pykv_scratch(reader, &made), PYKV_READ_ONLY);
    CHECK_EQUAL(pykv_close(reader), PYKV_OK);
    CHECK_EQUAL(pykv_scratch(reader, &made), PYKV_CLOSED);
    pykv_free(reader);
    end();
}

TEST_MAIN(CASE(parts_are_cut_at_the_end), CASE(little_is_read_for_a_part), CASE(a_call_that_fails_is_told),
          CASE(long_values_need_not_be_in_memory), CASE(a_scratch_file_has_no_name),
          CASE(a_scratch_file_that_cannot_be_made))
