/* Compaction beside what may come between: another process's segments that go, and a power cut where the
 * manifest could not be written. tests/crash and tests/python have the rest. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "sim_os.h"
#include "store.h"
#include "test.h"
#include "usage.h"

#define SEGMENT_SIZE (64u << 10)
#define DEFAULT PYKV_DURABILITY_DEFAULT

static void put(struct pykv_store *store, const char *key, size_t size, char fill)
{
    static uint8_t value[SEGMENT_SIZE];
    memset(value, fill, size);
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)key, strlen(key), value, size, 0, DEFAULT, NULL), PYKV_OK);
}

static void check_value(struct pykv_store *store, const char *key, size_t size, char fill)
{
    static uint8_t value[SEGMENT_SIZE];
    CHECK_EQUAL(pykv_get(store, (const uint8_t *)key, strlen(key), value, sizeof value, NULL), size);
    for (size_t i = 0; i < size; i++)
        CHECK_EQUAL(value[i], (uint8_t)fill);
}

static int compact_all(struct pykv_store *store)
{
    struct pykv_progress progress = { .left = 1 };
    int status = PYKV_OK;
    while (status == PYKV_OK && progress.left != 0)
        status = pykv_compact(store, &progress);
    return status;
}

/* ---- Memory that comes back at once: what was released is given to the next who wants as much ---- */

static void *watched, *stash;
static size_t stash_size;
static _Atomic bool giving, given;
static pthread_mutex_t stash_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *stashing_alloc(const struct os *os, size_t size)
{
    pthread_mutex_lock(&stash_mutex);
    void *memory = atomic_load(&giving) && stash != NULL && size == stash_size ? stash : NULL;
    if (memory != NULL) {
        stash = NULL;
        memset(memory, 0, size);
        atomic_store(&given, true);
    }
    pthread_mutex_unlock(&stash_mutex);
    return memory != NULL ? memory : os_posix.alloc(os, size);
}

static void stashing_release(const struct os *os, void *memory)
{
    pthread_mutex_lock(&stash_mutex);
    bool keep = memory != NULL && memory == watched;
    if (keep)
        stash = memory;
    pthread_mutex_unlock(&stash_mutex);
    if (!keep)
        os_posix.release(os, memory);
}

/* The segment that a handle wrote to last is removed, and what it knew of it given up. The next write must
 * not take the new one for it, though it may lie at the same address. */
static void the_segment_last_written_to_is_gone(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = SEGMENT_SIZE };
    struct os stashing = os_posix;
    struct pykv_store *quiet, *busy;
    const uint32_t never = 0;
    char path[512], name[16];
    alarm(120);
    stashing.alloc = stashing_alloc;
    stashing.release = stashing_release;
    stash_size = sizeof(struct segment);
    snprintf(path, sizeof path, "%s/store", test_dir());
    CHECK_EQUAL(pykv_open_with(&stashing, path, &options, &quiet), PYKV_OK);
    CHECK_EQUAL(pykv_open(path, &options, &busy), PYKV_OK);
    for (int i = 0; i < 50 && !atomic_load(&given); i++) {
        atomic_store(&giving, false);
        put(quiet, "a", 100, 'a');
        watched = quiet->log.append;
        uint64_t id = quiet->log.append->id;
        for (int j = 0; j < 4; j++)
            put(busy, "b", 40000, (char)j);
        while (atomic_load(&busy->shared->segments[id % SEGMENT_SLOT_COUNT].id) == id)
            CHECK_EQUAL(compact_all(busy), PYKV_OK);
        for (bool gone = false; !gone;) {   /* its keeper looks by itself, now and then */
            os_posix.wait(&os_posix, &never, 0, 1);
            atomic_store(&quiet->keeper.word, 1);
            os_posix.wake(&os_posix, (const uint32_t *)&quiet->keeper.word, true);
            pthread_mutex_lock(&stash_mutex);
            gone = stash != NULL;
            pthread_mutex_unlock(&stash_mutex);
        }
        for (int j = 0; j < 2; j++)         /* one that the quiet one has not seen */
            put(busy, "b", 40000, 'b');
        snprintf(name, sizeof name, "new%d", i);        /* nothing but the active one is looked at for it */
        atomic_store(&giving, true);
        put(quiet, name, 100, 'c');
        check_value(busy, name, 100, 'c');
    }
    CHECK(atomic_load(&given));
    check_value(busy, "b", 40000, 'b');
    pykv_free(quiet);
    pykv_free(busy);
}

/* ---- A checkpoint that knows of copies which no manifest lists ---- */

static void a_checkpoint_waits_for_the_manifest(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = SEGMENT_SIZE };
    struct sim_fault fault = { .call = SIM_FILE_RENAME };
    struct image image = { 0 };
    struct pykv_store *store;
    struct sim *sim = sim_new(1);
    bool died;
    alarm(120);
    CHECK_EQUAL(pykv_open_with(sim_os(sim), "/store", &options, &store), PYKV_OK);
    put(store, "kept", 5000, 'k');
    for (int i = 0; i < 3; i++)
        put(store, "other", 40000, 'o');
    sim_fail(sim, &fault);                  /* the manifest that would list the copies */
    CHECK(compact_all(store) < 0);
    fault.at = 1;                           /* the second rename: whichever of the two comes later */
    sim_fail(sim, &fault);
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    (void)checkpoint_write(store);
    shared_lock_release(&store->shared->maintain, &store->process);
    sim_fail(sim, NULL);

    sim_save(sim, "/store", &image);
    pykv_free(store);
    sim_load(sim, "/store", &image);
    sim_set_boot(sim, 2);
    CHECK_EQUAL(pykv_open_with(sim_os(sim), "/store", &options, &store), PYKV_OK);
    check_value(store, "kept", 5000, 'k');
    check_value(store, "other", 40000, 'o');
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    image_release(&image);
    sim_free(sim);
}

/* ---- A disk that tells another byte when it is asked again ---- */

static _Atomic int reads_of_chunks;     /* -1: all is well */

static int changing_read(const struct os *os, int fd, void *bytes, size_t size, uint64_t offset, size_t *done)
{
    int error = os_posix.file_read(os, fd, bytes, size, offset, done);
    if (size >= RECORD_CHUNK_SIZE && atomic_load(&reads_of_chunks) >= 0 && atomic_fetch_add(&reads_of_chunks, 1) >= 20)
        ((uint8_t *)bytes)[100] ^= 1;
    return error;
}

/* Compaction reads a long value twice where it is not mapped: to verify it, and to copy it. What it copies is what
 * was verified, or nothing is: else wrong bytes would get a checksum that holds. */
static void what_is_copied_is_what_was_verified(void)
{
    static uint8_t value[20 * RECORD_CHUNK_SIZE], found[sizeof value];
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = SEGMENT_SIZE, .io = PYKV_IO_PREAD };
    struct os changing = os_posix;
    struct pykv_store *store;
    char path[512];
    alarm(120);
    changing.file_read = changing_read;
    atomic_store(&reads_of_chunks, -1);
    snprintf(path, sizeof path, "%s/store", test_dir());
    memset(value, 7, sizeof value);
    CHECK_EQUAL(pykv_open_with(&changing, path, &options, &store), PYKV_OK);
    CHECK_EQUAL(pykv_compaction_pause(store, 1), PYKV_OK);
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)"long", 4, value, sizeof value, 0, DEFAULT, NULL), PYKV_OK);
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)"dead", 4, value, sizeof value / 2, 0, DEFAULT, NULL), PYKV_OK);
    put(store, "dead", 1, 'd');
    put(store, "end", 60000, 'e');
    CHECK_EQUAL(pykv_sync(store), PYKV_OK);
    atomic_store(&reads_of_chunks, 0);
    struct segment_entry *entry = NULL;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT && entry == NULL; i++)
        if (atomic_load(&store->shared->segments[i].live_bytes) > sizeof value)
            entry = &store->shared->segments[i];
    CHECK(entry != NULL);
    atomic_store(&entry->live_bytes, sizeof value / 2);     /* worth compacting */
    (void)compact_all(store);
    CHECK(atomic_load(&reads_of_chunks) > 20);
    atomic_store(&reads_of_chunks, -1);
    CHECK_EQUAL(pykv_get(store, (const uint8_t *)"long", 4, found, sizeof found, NULL), sizeof value);
    CHECK(memcmp(found, value, sizeof value) == 0);
    pykv_free(store);
}

/* ---- What is told while files go ---- */

static struct pykv_store *told_of;
static uint64_t told_most;

static int telling_remove(const struct os *os, int dir, const char *name)
{
    struct pykv_stats stats;
    CHECK_EQUAL(pykv_stats(told_of, &stats), PYKV_OK);
    if (stats.disk_bytes - stats.held_bytes > told_most)
        told_most = stats.disk_bytes - stats.held_bytes;
    return os_posix.file_remove(os, dir, name);
}

/* Of many segments that waited for a snapshot one after the other is removed: those that are still to go are
 * told as held, as they were before. */
static void what_is_about_to_go_is_told_as_held(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = SEGMENT_SIZE };
    struct os telling = os_posix;
    struct pykv_snapshot *snapshot;
    struct pykv_stats stats;
    char path[512], name[16];
    alarm(120);
    snprintf(path, sizeof path, "%s/store", test_dir());
    CHECK_EQUAL(pykv_open_with(&telling, path, &options, &told_of), PYKV_OK);
    maintain_stop(told_of);
    CHECK_EQUAL(pykv_compaction_pause(told_of, 1), PYKV_OK);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%d", i);
        put(told_of, name, 60000, (char)i);
    }
    CHECK_EQUAL(pykv_snapshot_open(told_of, &snapshot), PYKV_OK);
    CHECK_EQUAL(pykv_clear(told_of, DEFAULT), PYKV_OK);
    CHECK_EQUAL(compact_all(told_of), PYKV_OK);
    CHECK_EQUAL(pykv_stats(told_of, &stats), PYKV_OK);
    CHECK(stats.held_bytes > 5 << 20);
    telling.file_remove = telling_remove;
    pykv_snapshot_free(snapshot);
    CHECK_EQUAL(compact_all(told_of), PYKV_OK);
    telling.file_remove = os_posix.file_remove;
    CHECK(told_most != 0);
    CHECK(told_most < 2 << 20);
    CHECK_EQUAL(pykv_stats(told_of, &stats), PYKV_OK);
    CHECK_EQUAL(stats.held_bytes, 0);
    pykv_free(told_of);
}

/* ---- An idle store on a full disk ---- */

/* The active segment is worth ending, but its successor finds no room: what others have comes back all the same. */
static void what_cannot_be_ended_stops_nothing(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = 4 << 20 };
    struct pykv_store *store;
    struct pykv_stats stats;
    struct sim *sim = sim_new(1);
    CHECK_EQUAL(pykv_open_with(sim_os(sim), "/store", &options, &store), PYKV_OK);
    CHECK_EQUAL(pykv_compaction_pause(store, 1), PYKV_OK);
    for (int i = 0; i < 150; i++)       /* one segment and a half, of which all is dead but the last */
        put(store, "key", 40000, (char)i);
    sim_advance_ms(sim, 2000);
    put(store, "key", 100, 'k');        /* makes the reserve, and whatever else is due */
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    sim_set_disk_size(sim, stats.disk_bytes);
    CHECK_EQUAL(pykv_compaction_pause(store, 0), PYKV_OK);
    atomic_store(&store->idle, true);
    CHECK(usage_active_dead(store, LITTLE, 2));
    for (int i = 0; i < 3; i++)
        maintain_keeper(store);
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK(stats.freed_bytes > 3 << 20);
    check_value(store, "key", 100, 'k');
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    sim_free(sim);
}

/* ---- Behind 4 GiB of a segment no record can begin ---- */

static void no_record_begins_where_no_location_leads(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = SEGMENT_SIZE };
    const uint64_t size = UINT64_C(5) << 30, end = (UINT64_C(1) << 32) + 64;
    struct pykv_store *store;
    struct segment *segment;
    uint64_t position;
    char path[512];
    if (sizeof(size_t) < 8)
        return;             /* such a program cannot map such a segment */
    snprintf(path, sizeof path, "%s/store", test_dir());
    CHECK_EQUAL(pykv_open(path, &options, &store), PYKV_OK);
    maintain_stop(store);
    CHECK_EQUAL(store_lock(store), PYKV_OK);
    CHECK_EQUAL(log_roll(&store->log, size), PYKV_OK);
    uint64_t id = position_segment(atomic_load(&store->shared->tail));
    CHECK_EQUAL(log_segment(&store->log, (uint32_t)id, &segment), PYKV_OK);
    CHECK_EQUAL(os_posix.file_truncate(&os_posix, segment->fd, end + 4096), 0);     /* a hole: no disk */
    atomic_store(&store->shared->reserved, position_make(id, end + 4096));
    for (uint64_t tail = end - 64; tail <= end; tail += 16) {
        atomic_store(&store->shared->tail, position_make(id, tail));
        atomic_store(&store->shared->writing_end, position_make(id, tail));
        CHECK_EQUAL(log_prepare(&store->log, LOG_PUTS, 32, 0, &position), PYKV_OK);
        CHECK(position_segment(position) != id);
        CHECK_EQUAL(position_offset(position), SEGMENT_HEADER_SIZE);
        if (tail < end)     /* back, for the next */
            store->log.append = NULL;
    }
    _exit(0);               /* such a store cannot be closed */
}

/* Keys deleted while a snapshot was open have slots until none is. But where all that are open by now are newer than
 * the deletes, nobody looks at the past of these keys: their tombstones go with what they hid, and are not copied again
 * and again, without an end, for their slots. */
static void tombstones_do_not_wait_for_newer_snapshots(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = SEGMENT_SIZE };
    struct sim *sim = sim_new(1);
    struct pykv_snapshot *before, *now = NULL, *lost = NULL, *later = NULL;
    struct pykv_store *store, *reader;
    struct pykv_stats stats;
    char name[16];
    CHECK_EQUAL(pykv_open_with(sim_os(sim), "/store", &options, &store), PYKV_OK);
    put(store, "stays", 10, 's');
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "%d", i);
        put(store, name, 1000, 'v');
    }
    sim_set_read_only(sim, true);
    options.flag = PYKV_FLAG_READ;
    CHECK_EQUAL(pykv_open_with(sim_os(sim), "/store", &options, &reader), PYKV_OK);     /* it cannot pin */
    options.flag = PYKV_FLAG_CREATE;
    sim_set_read_only(sim, false);
    CHECK_EQUAL(pykv_snapshot_open(reader, &lost), PYKV_OK);
    CHECK_EQUAL(pykv_snapshot_open(store, &before), PYKV_OK);
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "%d", i);
        CHECK_EQUAL(pykv_delete(store, (const uint8_t *)name, strlen(name), DEFAULT), PYKV_OK);
    }
    CHECK_EQUAL(atomic_load(&store->shared->dead_slots), 400);
    CHECK_EQUAL(pykv_snapshot_open(reader, &later), PYKV_OK);
    for (size_t round = 1; round <= 4; round++) {   /* at any time there is one of the past */
        struct pykv_progress progress = { .left = 0 };
        unsigned calls = 0;
        CHECK_EQUAL(pykv_snapshot_open(store, &now), PYKV_OK);
        put(store, "stays", 10 * round, 's');
        CHECK_EQUAL(pykv_snapshot_get(before, (const uint8_t *)"399", 3, NULL, 0, NULL),
                    round == 1 ? 1000 : -1000 + PYKV_NOT_FOUND);
        pykv_snapshot_free(before);
        do {
            CHECK(calls++ < 20);
            CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
        } while (progress.left != 0);
        before = now;
    }
    CHECK_EQUAL(atomic_load(&store->shared->dead_slots), 0);
    CHECK_EQUAL(pykv_snapshot_get(lost, (const uint8_t *)"399", 3, NULL, 0, NULL), -1000 + PYKV_SNAPSHOT_LOST);
    CHECK_EQUAL(pykv_snapshot_get(later, (const uint8_t *)"399", 3, NULL, 0, NULL), -1000 + PYKV_NOT_FOUND);
    pykv_snapshot_free(lost);
    pykv_snapshot_free(later);
    pykv_free(reader);
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.keys, 1);
    CHECK(stats.log_bytes < stats.held_bytes + 4096);
    pykv_snapshot_free(before);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    CHECK_EQUAL(pykv_open_with(sim_os(sim), "/store", &options, &store), PYKV_OK);
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.keys, 1);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    sim_free(sim);
}

/* A compaction was killed, or its process closed the store, before it retired what it had emptied. Nothing else is to be
 * compacted: writers would wait for the space, and nobody would give it back. */
static void what_was_emptied_and_not_retired_is_taken_up(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = SEGMENT_SIZE };
    struct sim *sim = sim_new(1);
    struct pykv_store *store;
    struct usage usage;
    CHECK_EQUAL(pykv_open_with(sim_os(sim), "/store", &options, &store), PYKV_OK);
    CHECK_EQUAL(pykv_compaction_pause(store, 1), PYKV_OK);
    for (int i = 0; i < 200; i++)
        put(store, "key", 1000, 'v');
    CHECK_EQUAL(pykv_sync(store), PYKV_OK);
    maintain_list(store);
    unsigned emptied = 0;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        struct segment_entry *entry = &store->shared->segments[i];
        if (atomic_load(&entry->id) == 0 || atomic_load(&entry->synced) == 0)
            continue;
        CHECK_EQUAL(atomic_load(&entry->live_bytes), 0);
        atomic_store(&entry->retired, SEGMENT_EMPTIED);
        emptied++;
    }
    CHECK(emptied >= 2);
    CHECK_EQUAL(pykv_compaction_pause(store, 0), PYKV_OK);
    usage_measure(store, &usage);
    CHECK(usage.hope);
    CHECK(compact_due(store));
    for (unsigned rounds = 0; compact_due(store); rounds++) {
        CHECK(rounds <= emptied);
        maintain_keeper(store);
    }
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        CHECK(atomic_load(&store->shared->segments[i].retired) != SEGMENT_EMPTIED);
    usage_measure(store, &usage);
    CHECK(usage.log <= 2 * SEGMENT_SIZE);
    check_value(store, "key", 1000, 'v');
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    sim_free(sim);
}

TEST_MAIN(CASE(the_segment_last_written_to_is_gone), CASE(what_was_emptied_and_not_retired_is_taken_up),
          CASE(tombstones_do_not_wait_for_newer_snapshots), CASE(a_checkpoint_waits_for_the_manifest),
          CASE(what_is_copied_is_what_was_verified), CASE(what_is_about_to_go_is_told_as_held),
          CASE(what_cannot_be_ended_stops_nothing), CASE(no_record_begins_where_no_location_leads))
