/* What one process reads of a segment, and what becomes of it meanwhile in another: between two facts that are read
 * one after the other. Where no call to the system lies between them, the table of segments is made unreadable for
 * one who reads the second, of a segment whose entry lies on two pages: what is to happen then happens in the
 * handler of the signal. */
#define _GNU_SOURCE 1

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os.h"
#include "pykv.h"
#include "store.h"
#include "test.h"

#define VALUE_SIZE 4000u

static struct os os;                    /* of the keeper */
static struct pykv_store *writer, *keeper;
static char dest[512];
static void (*then)(void);              /* in the trap, */
static uint8_t *trap;                   /* this page; NULL: none is set */
static size_t page;

static void spring(int number)
{
    (void)number;
    void (*now)(void) = then;
    if (trap == NULL || mprotect(trap, page, PROT_READ | PROT_WRITE) != 0)
        _exit(3);
    trap = NULL;
    then = NULL;
    now();
}

/* Whoever next reads on that page of memory calls `what` first. */
static void set_trap_at(void *where, void (*what)(void))
{
    struct sigaction action = { .sa_handler = spring, .sa_flags = SA_NODEFER };
    CHECK_EQUAL(sigaction(SIGSEGV, &action, NULL), 0);
    CHECK_EQUAL(sigaction(SIGBUS, &action, NULL), 0);
    trap = (uint8_t *)where - (uintptr_t)where % page;
    then = what;
    CHECK_EQUAL(mprotect(trap, page, PROT_NONE), 0);
}

/* Who reads, through the table of `store`, what follows the length of a segment. */
static void set_trap(struct pykv_store *store, uint64_t id, void (*what)(void))
{
    set_trap_at(&segment_of(store->shared, id)->live_bytes, what);
}

/* A number of a segment, of which all behind its length lies on another page. Up to 16 KiB a page there is one. */
static uint64_t number_for_trap(void)
{
    uint64_t id = 10;
    while (id < 3000 && (uintptr_t)&segment_of(writer->shared, id)->live_bytes % page != 0)
        id++;
    CHECK(id < 3000);
    return id;
}

static void put(struct pykv_store *store, unsigned key, unsigned number)
{
    uint8_t value[VALUE_SIZE] = { 0 };
    memcpy(value, &number, sizeof number);
    CHECK_EQUAL(pykv_put(store, (uint8_t *)&key, sizeof key, value, sizeof value, 0, PYKV_DURABILITY_PROCESS, NULL),
                PYKV_OK);
}

static void check(struct pykv_store *store, unsigned key, unsigned number)
{
    uint8_t value[VALUE_SIZE];
    int64_t size = pykv_get(store, (uint8_t *)&key, sizeof key, value, sizeof value, NULL);
    if (size != VALUE_SIZE)
        test_fail(__FILE__, __LINE__, "get %u: %lld %s", key, (long long)size, pykv_last_error()->message);
    CHECK_BYTES(value, &number, sizeof number);
}

/* End the active segment, and begin one of that number. */
static void begin_segment(uint64_t id)
{
    CHECK_EQUAL(store_lock(writer), PYKV_OK);
    atomic_store(&writer->shared->segment_id_next, id);
    CHECK_EQUAL(log_end_active(&writer->log), PYKV_OK);
    struct shared_counters counters = shared_counters(writer->shared);
    counters.position = atomic_load(&writer->shared->tail);
    shared_counters_publish(writer->shared, &counters);
    store_unlock(writer);
    CHECK_EQUAL(position_segment(atomic_load(&writer->shared->tail)), id);
}

static int no_thread(const struct os *table, void (*run)(void *context), void *context, void **out)
{
    (void)table, (void)run, (void)context, (void)out;
    return 11;
}

static void start(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = 1 << 20 };
    char path[512];
    const char *directory = test_dir();
    page = (size_t)sysconf(_SC_PAGESIZE);
    snprintf(path, sizeof path, "%s/store", directory);
    snprintf(dest, sizeof dest, "%s/backup", directory);
    os = os_posix;
    os.thread_start = no_thread;
    static struct os plain;
    plain = os;
    CHECK_EQUAL(pykv_open_with(&plain, path, &options, &writer), PYKV_OK);
    options.flag = PYKV_FLAG_WRITE;
    CHECK_EQUAL(pykv_open_with(&os, path, &options, &keeper), PYKV_OK);
}

static void end(void)
{
    CHECK(trap == NULL);
    CHECK_EQUAL(pykv_close(keeper), PYKV_OK);
    pykv_free(keeper);
    CHECK_EQUAL(pykv_close(writer), PYKV_OK);
    pykv_free(writer);
}

/* ---- Trimming ---- */

static void end_and_sync(void)
{
    begin_segment(3000);
    CHECK_EQUAL(store_sync_sealed(writer), PYKV_OK);
}

/* It was active when its length was asked for, and sealed and durable when that was: not to be cut off at 0. */
static void a_segment_ends_while_others_are_trimmed(void)
{
    start();
    uint64_t id = number_for_trap();
    begin_segment(id);
    for (unsigned key = 0; key < 20; key++)
        put(writer, key, key);
    set_trap(keeper, id, end_and_sync);
    maintain_trim(keeper);
    for (unsigned key = 0; key < 20; key++)
        check(keeper, key, key);
    end();
}

/* ---- A backup ---- */

static sem_t reached, resume;
static pthread_t thread;

static void stop_here(void)
{
    CHECK_EQUAL(sem_post(&reached), 0);
    CHECK_EQUAL(sem_wait(&resume), 0);
}

static void *replace_first(void *context)
{
    (void)context;
    put(writer, 1, 1001);
    return NULL;
}

/* Compaction has begun: now the key that keeps its segment alive is replaced, by one who stops when the slot has been
 * moved, before the batch is published. */
static int dir_sync(const struct os *table, int dir)
{
    (void)table;
    if (then != NULL && trap == NULL) {
        void (*now)(void) = then;
        set_trap(writer, number_for_trap(), now);
        CHECK_EQUAL(pthread_create(&thread, NULL, replace_first, NULL), 0);
        CHECK_EQUAL(sem_wait(&reached), 0);
    }
    return os_posix.dir_sync(&os_posix, dir);
}

static void compact_all(struct pykv_store *store)
{
    struct pykv_progress progress = { .left = 0 };
    do
        CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
    while (progress.left != 0);
}

static uint64_t back_up(struct pykv_store *store)
{
    struct pykv_backup *backup;
    struct pykv_backup_progress progress;
    int status = pykv_backup_open(store, dest, 0, &backup);
    while (status == PYKV_OK)
        status = pykv_backup_step(backup, &progress);
    CHECK_EQUAL(status, PYKV_NOT_FOUND);
    pykv_backup_close(backup);
    return progress.linked;
}

/* A segment was emptied by a batch that is not yet published: an instant before that batch needs it. */
static void a_backup_has_what_a_batch_under_way_replaces(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_READ };
    struct pykv_snapshot *older;
    struct pykv_store *copy;
    start();
    os.dir_sync = dir_sync;
    sem_init(&reached, 0, 0);
    sem_init(&resume, 0, 0);
    begin_segment(number_for_trap());
    put(writer, 1, 1);
    put(writer, 2, 2);
    begin_segment(3000);
    CHECK_EQUAL(pykv_snapshot_open(keeper, &older), PYKV_OK);
    put(writer, 2, 1002);
    maintain_list(keeper);
    check(writer, 1, 1);
    then = stop_here;
    compact_all(keeper);
    CHECK(trap == NULL && then == NULL);
    (void)back_up(keeper);
    sem_post(&resume);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    check(writer, 1, 1001);
    CHECK_EQUAL(pykv_open(dest, &options, &copy), PYKV_OK);
    check(copy, 2, 1002);
    check(copy, 1, 1);
    pykv_free(copy);
    pykv_snapshot_free(older);
    end();
}

/* ---- A file with another name ---- */

static void end_and_back_up(void)
{
    begin_segment(3000);
    CHECK(back_up(writer) != 0);
}

static int file_open(const struct os *table, int dir, const char *name, enum os_open how, uint32_t mode, int *fd)
{
    (void)table;
    void (*now)(void) = then;
    if (now != NULL && how == OS_READ_WRITE && strncmp(name, "segment-", 8) == 0) {
        then = NULL;
        now();
    }
    return os_posix.file_open(&os_posix, dir, name, how, mode, fd);
}

/* It was still to be written to when a reader set out to open it, and then became part of a backup. */
static void a_segment_is_linked_while_it_is_opened(void)
{
    start();
    os.file_open = file_open;
    begin_segment(10);
    put(writer, 1, 1);
    then = end_and_back_up;
    check(keeper, 1, 1);
    CHECK(then == NULL);
    end();
}

/* ---- A number's place, given to another ---- */

static uint64_t reused;

/* Where key 1 was there is key 3. */
static void compact_and_reuse(void)
{
    uint64_t id = reused;
    compact_all(writer);
    CHECK_EQUAL(atomic_load(&segment_of(writer->shared, id)->id), 0);
    begin_segment(id + SEGMENT_SLOT_COUNT);
    put(writer, 3, 3);
    put(writer, 2, 1003);
}

static void begin_to_be_reused(void)
{
    start();
    begin_segment(reused = number_for_trap());
    compact_all(writer);
    CHECK_EQUAL(atomic_load(&segment_of(writer->shared, 1)->id), 0);
    put(writer, 1, 1);
    put(writer, 2, 2);
    begin_segment(3000);
    put(writer, 2, 1002);
    maintain_list(writer);
}

/* A reader knows where its key is, and finds another's there: not that its own is absent. */
static void a_segment_is_replaced_while_one_reads(void)
{
    begin_to_be_reused();
    set_trap_at(&segment_of(keeper->shared, reused)->id, compact_and_reuse);
    check(keeper, 1, 1);
    check(keeper, 2, 1003);
    check(keeper, 3, 3);
    end();
}

static void compact_and_reuse_for_more(void)
{
    compact_and_reuse();
    for (unsigned key = 4; key < 20; key++)
        put(writer, key, key);
    begin_segment(reused + SEGMENT_SLOT_COUNT + 1);
}

/* Verification asks for the length of a segment: that of another is no damage. */
static void a_segment_is_replaced_while_one_verifies(void)
{
    struct pykv_verification *verification;
    struct pykv_progress progress;
    struct pykv_report report;
    begin_to_be_reused();
    check(keeper, 1, 1);
    CHECK_EQUAL(pykv_verify_open(keeper, &verification), PYKV_OK);
    set_trap_at(&keeper->shared->tail, compact_and_reuse_for_more);
    int status;
    while ((status = pykv_verify_step(verification, &progress)) == PYKV_OK)
        continue;
    CHECK_EQUAL(status, PYKV_NOT_FOUND);
    CHECK(trap == NULL);
    (void)pykv_verify_report(verification, &report);
    if (report.damage_count != 0)
        test_fail(__FILE__, __LINE__, "%s at %llu", report.damage[0].path, (unsigned long long)report.damage[0].offset);
    pykv_verify_close(verification);
    end();
}

TEST_MAIN(CASE(a_segment_ends_while_others_are_trimmed),
          CASE(a_backup_has_what_a_batch_under_way_replaces), CASE(a_segment_is_linked_while_it_is_opened),
          CASE(a_segment_is_replaced_while_one_reads), CASE(a_segment_is_replaced_while_one_verifies))
