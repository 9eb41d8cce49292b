/* How large segments are where the user does not say, and the bound on the disk that follows from it. */
#include <stdio.h>

#include "sim_os.h"
#include "store.h"
#include "test.h"
#include "usage.h"

#define MIB (UINT64_C(1) << 20)
#define KEYS 500u
#define VALUE_SIZE 4000u
#define DEFAULT PYKV_DURABILITY_DEFAULT

static struct pykv_store *open_store(struct sim *sim, uint64_t segment_size, uint64_t disk_size_max)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = segment_size, .disk_size_max = disk_size_max };
    struct pykv_store *store;
    int status = pykv_open_with(sim_os(sim), "/store", &options, &store);
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
    return store;
}

/* Let the table tell of one more sealed segment. */
static struct segment_entry *pretend(struct pykv_store *store, uint64_t id, enum segment_kind kind, uint64_t length)
{
    struct segment_entry *entry = segment_of(store->shared, id);
    segment_enter(entry, kind, length, 1);
    atomic_store(&entry->id, id);
    atomic_store(&entry->length, length);
    atomic_store(&entry->synced, 2);
    return entry;
}

/* Then forget them, and close. */
static void end(struct sim *sim, struct pykv_store *store)
{
    for (uint64_t id = 2; id < SEGMENT_SLOT_COUNT; id++)
        atomic_store(&segment_of(store->shared, id)->id, 0);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    sim_free(sim);
}

static uint64_t capacity_beside(uint64_t segment_size, uint64_t disk_size_max, uint64_t length)
{
    struct sim *sim = sim_new(1);
    struct pykv_store *store = open_store(sim, segment_size, disk_size_max);
    uint64_t size;
    pretend(store, 2, SEGMENT_LOG, length);
    uint64_t capacity = log_capacity(&store->log, &size);
    CHECK_EQUAL(size, length + position_offset(atomic_load(&store->shared->reserved)));
    end(sim, store);
    return capacity;
}

static void a_sixteenth_of_the_log(void)
{
    static const struct { uint64_t log, capacity; } cases[] = {
        { 0, 4 }, { 127, 4 }, { 128, 8 }, { 255, 8 }, { 256, 16 }, { 1023, 32 }, { 1024, 64 }, { 2047, 64 }, { 2048, 128 },
        { 1 << 20, 128 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_EQUAL(capacity_beside(0, 0, cases[i].log * MIB), cases[i].capacity * MIB);
}

/* Of the user's own size, and of the limit of the disk. */
static void what_the_user_says_holds(void)
{
    for (uint64_t log = 1; log <= 1 << 20; log *= 32) {
        CHECK_EQUAL(capacity_beside(64 << 10, 0, log * MIB), 64 << 10);
        CHECK_EQUAL(capacity_beside(100000, 0, log * MIB), 100000);
        CHECK_EQUAL(capacity_beside(8 * MIB, 0, log * MIB), 8 * MIB);
        CHECK_EQUAL(capacity_beside(8 * MIB, 16 * MIB, log * MIB), 8 * MIB);
        CHECK_EQUAL(capacity_beside(0, MIB, log * MIB), 64 << 10);
        CHECK_EQUAL(capacity_beside(0, 16 * MIB, log * MIB), MIB);
    }
    CHECK_EQUAL(capacity_beside(0, 160 * MIB, 1 * MIB), 4 * MIB);
    CHECK_EQUAL(capacity_beside(0, 160 * MIB, 128 * MIB), 8 * MIB);
    CHECK_EQUAL(capacity_beside(0, 160 * MIB, 1024 * MIB), 10 * MIB);
    CHECK_EQUAL(capacity_beside(0, 100 * 1024 * MIB, 4096 * MIB), 128 * MIB);
}

/* What only waits for snapshots will go, and what compaction is about to copy has its room elsewhere. */
static void what_is_no_part_of_the_log(void)
{
    struct sim *sim = sim_new(1);
    struct pykv_store *store = open_store(sim, 0, 0);
    uint64_t before, after;
    CHECK_EQUAL(log_capacity(&store->log, &before), 4 * MIB);
    atomic_store(&pretend(store, 2, SEGMENT_LOG, 1024 * MIB)->retired, 5);
    atomic_store(&pretend(store, 3, SEGMENT_COMPACTED, 1024 * MIB)->synced, 0);
    CHECK_EQUAL(log_capacity(&store->log, &after), 4 * MIB);
    CHECK_EQUAL(after, before);
    atomic_store(&segment_of(store->shared, 2)->retired, SEGMENT_EMPTIED);
    CHECK_EQUAL(log_capacity(&store->log, NULL), 64 * MIB);
    atomic_store(&segment_of(store->shared, 3)->synced, 2);
    CHECK_EQUAL(log_capacity(&store->log, &after), 128 * MIB);
    CHECK_EQUAL(after, before + 2048 * MIB);
    end(sim, store);
}

static void many_segments_are_larger_ones(void)
{
    struct sim *sim = sim_new(1);
    struct pykv_store *store = open_store(sim, 64 << 10, 0);
    for (uint64_t id = 2; id <= SEGMENT_SLOT_COUNT / 4; id++)
        pretend(store, id, SEGMENT_LOG, 64 << 10);
    CHECK_EQUAL(log_capacity(&store->log, NULL), 64 << 10);
    pretend(store, SEGMENT_SLOT_COUNT / 4 + 1, SEGMENT_LOG, 64 << 10);
    CHECK_EQUAL(log_capacity(&store->log, NULL), 128 << 10);
    for (uint64_t id = 2; id < SEGMENT_SLOT_COUNT - 1; id++)
        pretend(store, id, SEGMENT_LOG, 64 << 10);
    CHECK_EQUAL(log_capacity(&store->log, NULL), 4 * MIB);
    end(sim, store);
}

/* ---- The bound ---- */

static void overwrite(struct pykv_store *store, uint64_t *random)
{
    static uint8_t value[VALUE_SIZE];
    uint32_t key = (uint32_t)(test_random(random) % KEYS);
    CHECK_EQUAL(pykv_put(store, (uint8_t *)&key, sizeof key, value, sizeof value, 0, DEFAULT, NULL), PYKV_OK);
}

static void check_bound(struct pykv_store *store)
{
    struct pykv_stats stats;
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK(stats.disk_bytes <= 2 * stats.live_bytes + 2 * 4 * MIB);
}

/* Two megabytes, written thirty times over. */
static void a_small_store_keeps_its_bound(void)
{
    struct sim *sim = sim_new(1);
    struct pykv_store *store = open_store(sim, 0, 0);
    struct pykv_stats stats;
    uint64_t random = 1;
    for (uint32_t i = 0; i < 30 * KEYS; i++) {
        overwrite(store, &random);
        check_bound(store);
    }
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK(stats.copied_bytes < stats.written_bytes / 2);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    sim_free(sim);
}

/* It was begun with larger segments, as those of older builds were: what is dead in the one that is appended to
 * is given back before that is full. */
static void a_segment_that_is_too_long_is_ended(void)
{
    uint64_t random = 1;
    if (SIM_FILE_SIZE_MAX < 48 * MIB)
        return;             /* 32 bits have no room for such a segment */
    struct sim *sim = sim_new(1);
    struct pykv_store *store = open_store(sim, 48 * MIB, 0);
    for (uint32_t i = 0; i < 2 * KEYS; i++)
        overwrite(store, &random);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    store = open_store(sim, 0, 0);
    uint64_t first = position_segment(atomic_load(&store->shared->tail));
    CHECK_EQUAL(atomic_load(&segment_of(store->shared, first)->capacity), 48 * MIB);
    for (uint32_t i = 0; i < 10 * KEYS; i++) {
        overwrite(store, &random);
        check_bound(store);
    }
    CHECK(atomic_load(&segment_of(store->shared, first)->id) != first);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    sim_free(sim);
}

TEST_MAIN(CASE(a_sixteenth_of_the_log), CASE(what_the_user_says_holds), CASE(what_is_no_part_of_the_log),
          CASE(many_segments_are_larger_ones), CASE(a_small_store_keeps_its_bound),
          CASE(a_segment_that_is_too_long_is_ended))
