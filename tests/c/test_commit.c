/* What is to be durable when the call returns: how it gets into the file, and that it has got there. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "format.h"
#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#define PATH "/store"
#define COMMIT PYKV_DURABILITY_COMMIT
#define PROCESS PYKV_DURABILITY_PROCESS
#define DEFAULT PYKV_DURABILITY_DEFAULT

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;
static uint8_t value[100000];

static void begin(int durability, int io)
{
    sim = sim_new(1);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .durability = durability, .io = io,
                                     .segment_size = 1 << 20 };
    CHECK_EQUAL(pykv_open_with(sim_os(sim), PATH, &options, &store), PYKV_OK);
}

static void end(void)
{
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    struct sim_usage usage = sim_usage(sim);
    CHECK_EQUAL(usage.descriptors + usage.mappings + usage.allocations + usage.locks, 0);
    sim_free(sim);
}

static int put(size_t size, int durability)
{
    return pykv_put(store, (const uint8_t *)"k", 1, value, size, 0, durability, NULL);
}

/* ---- How it gets there ----
 *
 * A store into the mapping makes a whole folio dirty, which the sync writes; file_write() makes only the
 * blocks dirty that it touches. */

enum { WRITTEN, STORED, SYNCS, WAYS };

/* Bytes that got into files with file_write, those that were stored in the mapping, and syncs after all
 * of them, since recording began. */
static void count_ways(const struct trace *trace, uint64_t ways[WAYS])
{
    memset(ways, 0, WAYS * sizeof ways[0]);
    for (size_t i = 0; i < trace->count; i++) {
        const struct effect *effect = &trace->effects[i];
        if (effect->kind == EFFECT_WRITE || effect->kind == EFFECT_STORE) {
            ways[effect->kind == EFFECT_WRITE ? WRITTEN : STORED] += effect->size;
            ways[SYNCS] = 0;
        }
        ways[SYNCS] += effect->kind == EFFECT_FILE_SYNC;
    }
}

static void put_one(int durability) { CHECK_EQUAL(put(100, durability), PYKV_OK); }
static void put_long(int durability) { CHECK_EQUAL(put(5000, durability), PYKV_OK); }
static void expire(int durability)
{
    CHECK_EQUAL(pykv_expire(store, (const uint8_t *)"k", 1, UINT64_C(1) << 50, 0, durability), PYKV_OK);
}
static void delete(int durability) { CHECK_EQUAL(pykv_delete(store, (const uint8_t *)"k", 1, durability), PYKV_OK); }
static void count(int durability)
{
    int64_t sum;
    CHECK_EQUAL(pykv_incr(store, (const uint8_t *)"n", 1, 1, 0, 0, durability, &sum), PYKV_OK);
}
static void put_two(int durability)
{
    const uint32_t sizes[2] = { 1, 1 };
    CHECK_EQUAL(pykv_write(store, 2, NULL, (const uint8_t *)"ab", sizes, (const uint8_t *)"vw", sizes, NULL, durability,
                           NULL, NULL, NULL), PYKV_OK);
}
static void clear(int durability) { CHECK_EQUAL(pykv_clear(store, durability), PYKV_OK); }

static void (*const writes[])(int durability) = { put_one, put_long, expire, delete, count, put_two, clear };

static void each_write(int opened, int durability, int io)
{
    bool commits = (durability == DEFAULT ? opened : durability) == COMMIT;
    begin(opened, io);
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        struct trace trace = { .count = 0 };
        struct pykv_stats before, after;
        uint64_t ways[WAYS];
        CHECK_EQUAL(pykv_stats(store, &before), PYKV_OK);
        sim_record(sim, PATH, &trace);
        writes[i](durability);
        sim_record(sim, PATH, NULL);
        CHECK_EQUAL(pykv_stats(store, &after), PYKV_OK);
        count_ways(&trace, ways);
        CHECK(after.written_bytes > before.written_bytes);
        CHECK_EQUAL(ways[commits ? WRITTEN : STORED], after.written_bytes - before.written_bytes);
        CHECK_EQUAL(ways[commits ? STORED : WRITTEN], 0);
        CHECK(opened == PYKV_DURABILITY_INTERVAL || ways[SYNCS] == commits);
        trace_release(&trace);
    }
    end();
}

static void what_is_to_be_durable_is_written(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        each_write(COMMIT, DEFAULT, io);
        each_write(PROCESS, COMMIT, io);
    }
}

static void what_is_not_is_stored_in_the_mapping(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        each_write(PROCESS, DEFAULT, io);
        each_write(PYKV_DURABILITY_INTERVAL, DEFAULT, io);
        each_write(COMMIT, PROCESS, io);
    }
}

/* ---- A write that fails ---- */

static void check_value(uint8_t fill, size_t size)
{
    static uint8_t found[sizeof value];
    CHECK_EQUAL(pykv_get(store, (const uint8_t *)"k", 1, found, sizeof found, NULL), size);
    for (size_t i = 0; i < size; i++)
        CHECK_EQUAL(found[i], fill);
}

/* Half of it may be in the file. It counts for nothing, and a shorter one takes its place. ENOSPC comes
 * again and again, since one who meets it makes room and tries again. */
static void a_write_that_fails_leaves_the_log_as_it_was(void)
{
    for (unsigned variant = 0; variant < 6; variant++) {
        struct image image = { 0 };
        begin(COMMIT, variant % 2 == 0 ? PYKV_IO_MMAP : PYKV_IO_PREAD);
        memset(value, 1, sizeof value);
        CHECK_EQUAL(put(10, DEFAULT), PYKV_OK);
        memset(value, 2, sizeof value);
        bool full = variant >= 4;
        sim_fail(sim, &(struct sim_fault){ .call = SIM_FILE_WRITE, .variant = variant, .onwards = full,
                                           .os_errno = full ? ENOSPC : EIO });
        CHECK_EQUAL(put(20000, DEFAULT), full ? PYKV_FULL : PYKV_IO);
        CHECK(sim_failed(sim, SIM_FILE_WRITE) >= 1);
        sim_fail(sim, NULL);
        check_value(1, 10);
        memset(value, 3, sizeof value);
        CHECK_EQUAL(put(100, DEFAULT), PYKV_OK);
        check_value(3, 100);
        sim_save(sim, PATH, &image);        /* as if the power went now */
        end();
        sim = sim_new(2);
        sim_set_boot(sim, 2);
        sim_load(sim, PATH, &image);
        CHECK_EQUAL(pykv_open_with(sim_os(sim), PATH, &options, &store), PYKV_OK);
        check_value(3, 100);
        CHECK_EQUAL(pykv_verify(store, &(struct pykv_report){ 0 }), PYKV_OK);
        end();
        image_release(&image);
    }
}

/* ---- Sixteen at once ----
 *
 * In memory that they share is what the disk holds for certain: with each sync, what the file held when it
 * began. Whose call has returned finds its value there. */

#define COMMITTERS 16u
#define PUTS 40u
#define DISK_SIZE (1u << 20)

static struct disk_copy {
    pthread_mutex_t mutex;
    size_t size;
    uint8_t bytes[DISK_SIZE];
} *copy;
static const char *path;
static struct os os;
static unsigned threads;

static int sync_and_copy(const struct os *table, int fd)
{
    uint8_t *bytes = malloc(DISK_SIZE);
    size_t size = 0;
    (void)table;
    CHECK(bytes != NULL);
    CHECK_EQUAL(os_posix.file_read(&os_posix, fd, bytes, DISK_SIZE, 0, &size), 0);
    CHECK(size < DISK_SIZE);
    int error = os_posix.file_sync(&os_posix, fd);
    pthread_mutex_lock(&copy->mutex);
    memcpy(copy->bytes, bytes, size);       /* the caller has the sync lock: no older one comes after it */
    copy->size = size;
    pthread_mutex_unlock(&copy->mutex);
    free(bytes);
    return error;
}

static bool on_disk(const char *text)
{
    size_t size = strlen(text);
    bool found = false;
    pthread_mutex_lock(&copy->mutex);
    for (size_t at = SEGMENT_HEADER_SIZE; at + size <= copy->size && !found; at += 8)
        found = memcmp(copy->bytes + at, text, size) == 0;
    pthread_mutex_unlock(&copy->mutex);
    return found;
}

/* The value begins 8 bytes from where the key does, which is a multiple of 8: see format.md. */
static void make_pair(unsigned who, unsigned n, char key[16], char text[32])
{
    snprintf(key, 16, "%04u%04u", who % 10000, n % 10000);
    snprintf(text, 32, "value %04u of committer %04u", n % 10000, who % 10000);
}

static void *commit(void *context)
{
    unsigned who = *(const unsigned *)context;
    char key[16], text[32];
    for (unsigned n = 0; n < PUTS; n++) {
        make_pair(who, n, key, text);
        CHECK_EQUAL(pykv_put(store, (uint8_t *)key, 8, (uint8_t *)text, strlen(text), 0, DEFAULT, NULL), PYKV_OK);
        CHECK(on_disk(text));
    }
    return NULL;
}

static void run_process(void *context)
{
    unsigned first = *(const unsigned *)context, numbers[COMMITTERS];
    pthread_t ids[COMMITTERS];
    CHECK_EQUAL(pykv_open_with(&os, path, &options, &store), PYKV_OK);
    for (unsigned i = 0; i < threads; i++) {
        numbers[i] = first + i;
        CHECK_EQUAL(pthread_create(&ids[i], NULL, commit, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < threads; i++)
        CHECK_EQUAL(pthread_join(ids[i], NULL), 0);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
}

static void sixteen(unsigned processes, int io)
{
    char key[16], text[32], name[600];
    uint8_t found[32];
    pid_t pids[COMMITTERS];
    unsigned first[COMMITTERS];
    pthread_mutexattr_t shared;
    copy = mmap(NULL, sizeof *copy, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(copy != MAP_FAILED);
    CHECK_EQUAL(pthread_mutexattr_init(&shared), 0);
    CHECK_EQUAL(pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED), 0);
    CHECK_EQUAL(pthread_mutex_init(&copy->mutex, &shared), 0);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .durability = COMMIT, .io = io };
    os = os_posix;
    os.file_sync = sync_and_copy;
    path = test_dir();
    threads = COMMITTERS / processes;
    for (unsigned i = 0; i < processes; i++) {
        first[i] = i * threads;
        pids[i] = test_fork(run_process, &first[i]);
    }
    for (unsigned i = 0; i < processes; i++)
        test_join(pids[i]);

    snprintf(name, sizeof name, "%s/keydir", path);
    CHECK_EQUAL(remove(name), 0);           /* so that the files alone tell */
    CHECK_EQUAL(pykv_open(path, &options, &store), PYKV_OK);
    for (unsigned who = 0; who < COMMITTERS; who++) {
        for (unsigned n = 0; n < PUTS; n++) {
            make_pair(who, n, key, text);
            CHECK_EQUAL(pykv_get(store, (uint8_t *)key, 8, found, sizeof found, NULL), strlen(text));
            CHECK_BYTES(found, text, strlen(text));
        }
    }
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    CHECK_EQUAL(munmap(copy, sizeof *copy), 0);
}

static void sixteen_threads_lose_nothing(void)
{
    sixteen(1, PYKV_IO_MMAP);
    sixteen(1, PYKV_IO_PREAD);
}
static void sixteen_processes_lose_nothing(void) { sixteen(16, PYKV_IO_MMAP); }
static void four_processes_of_four_threads_lose_nothing(void) { sixteen(4, PYKV_IO_MMAP); }

TEST_MAIN(CASE(what_is_to_be_durable_is_written), CASE(what_is_not_is_stored_in_the_mapping),
          CASE(a_write_that_fails_leaves_the_log_as_it_was), CASE(sixteen_threads_lose_nothing),
          CASE(sixteen_processes_lose_nothing), CASE(four_processes_of_four_threads_lose_nothing))
