/* Snapshots, and what a batch may expect of the time since one: on the simulated machine, whose clock
 * and memory obey. */
#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#include <stdio.h>

#define PATH "/store"

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;

static struct pykv_store *open_store(void)
{
    struct pykv_store *opened = NULL;
    int status = pykv_open_with(sim_os(sim), PATH, &options, &opened);
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
    return opened;
}

static void start(int io)
{
    sim = sim_new(1);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .io = io, .segment_size = 65536 };
    store = open_store();
}

static void end(void)
{
    pykv_free(store);
    struct sim_usage usage = sim_usage(sim);
    CHECK_EQUAL(usage.descriptors + usage.mappings + usage.allocations + usage.locks, 0);
    sim_free(sim);
}

static void put(const char *key, const char *value)
{
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)key, strlen(key), (const uint8_t *)value, strlen(value), 0, PYKV_DURABILITY_DEFAULT, NULL),
                PYKV_OK);
}

static void delete(const char *key)
{
    CHECK_EQUAL(pykv_delete(store, (const uint8_t *)key, strlen(key), PYKV_DURABILITY_DEFAULT), PYKV_OK);
}

static struct pykv_snapshot *take(void)
{
    struct pykv_snapshot *snapshot = NULL;
    CHECK_EQUAL(pykv_snapshot_open(store, &snapshot), PYKV_OK);
    return snapshot;
}

/* The value, "" if it is absent, "!" if the read fails. */
static const char *get(struct pykv_snapshot *snapshot, const char *key)
{
    static char value[100];
    int64_t size = pykv_snapshot_get(snapshot, (const uint8_t *)key, strlen(key), (uint8_t *)value, 99, NULL);
    CHECK_EQUAL(pykv_snapshot_contains(snapshot, (const uint8_t *)key, strlen(key), NULL), size >= 0 ? 0 : size + 1000);
    value[size < 0 ? 0 : size] = 0;
    return size >= 0 || size == -1000 + PYKV_NOT_FOUND ? value : "!";
}

static uint64_t position(struct pykv_snapshot *snapshot)
{
    struct pykv_instant instant;
    pykv_snapshot_instant(snapshot, &instant);
    return instant.position;
}

/* Enough to begin new segments: single records, a batch, a MARK, one long record. */
static void fill(void)
{
    static uint8_t value[200000];
    const uint32_t key_sizes[] = { 5, 5 }, value_sizes[] = { 20000, 10 };
    for (int i = 0; i < 5; i++) {
        CHECK_EQUAL(pykv_put(store, (const uint8_t *)"fill", 4, value, 30000, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
        CHECK_EQUAL(pykv_write(store, 2, NULL, (const uint8_t *)"fill1fill2", key_sizes, value, value_sizes, NULL,
                               PYKV_DURABILITY_COMMIT, NULL, NULL, NULL), PYKV_OK);
    }
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)"fill", 4, value, sizeof value, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

static void an_instant_stays(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io);
        put("written", "1");
        put("deleted", "2");
        put("back", "3");
        CHECK_EQUAL(pykv_put(store, (const uint8_t *)"short", 5, (const uint8_t *)"4", 1,
                             sim_os(sim)->wall_ms(sim_os(sim)) + 1000, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
        struct pykv_snapshot *snapshot = take();
        for (int i = 0; i < 500; i++)
            put("written", i % 2 ? "odd" : "even");
        delete("deleted");
        for (int i = 0; i < 3; i++) {
            delete("back");
            put("back", "again");
        }
        put("new", "5");
        fill();
        sim_advance_ms(sim, 2000);
        for (int round = 0; round < 2; round++) {
            CHECK_TEXT(get(snapshot, "written"), "1");
            CHECK_TEXT(get(snapshot, "deleted"), "2");
            CHECK_TEXT(get(snapshot, "back"), "3");
            CHECK_TEXT(get(snapshot, "short"), "4");
            CHECK_TEXT(get(snapshot, "new"), "");
            CHECK_EQUAL(pykv_clear(store, PYKV_DURABILITY_DEFAULT), PYKV_OK);
        }
        struct pykv_instant instant;
        pykv_snapshot_instant(snapshot, &instant);
        CHECK_EQUAL(instant.version, 4);
        CHECK_EQUAL(instant.keys, 4);
        CHECK_EQUAL(pykv_snapshot_renew(snapshot), PYKV_OK);
        CHECK_TEXT(get(snapshot, "written"), "");
        put("written", "2");
        CHECK_TEXT(get(snapshot, "written"), "");
        pykv_snapshot_free(snapshot);
        end();
    }
}

static uint64_t count(struct pykv_scan *scan)
{
    struct pykv_rows *rows = pykv_rows_new();
    uint64_t sum = 0;
    int status;
    while ((status = pykv_scan_next(scan, rows)) == PYKV_OK)
        sum += pykv_rows_count(rows);
    CHECK_EQUAL(status, PYKV_NOT_FOUND);
    pykv_rows_free(rows);
    pykv_scan_close(scan);
    return sum;
}

static void scans_outlive_their_snapshot(void)
{
    struct pykv_scan *first = NULL, *second = NULL;
    struct pykv_stats stats;
    char key[16];
    start(PYKV_IO_MMAP);
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(key, "v");
    }
    struct pykv_snapshot *snapshot = take();
    CHECK_EQUAL(pykv_clear(store, PYKV_DURABILITY_DEFAULT), PYKV_OK);
    CHECK_EQUAL(pykv_scan_open(store, snapshot, NULL, 0, 1, &first), PYKV_OK);
    CHECK_EQUAL(pykv_scan_open(store, snapshot, (const uint8_t *)"29", 2, 1, &second), PYKV_OK);
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.snapshots, 3);
    CHECK_EQUAL(stats.snapshot_versions, 1);
    pykv_snapshot_close(snapshot);
    pykv_snapshot_close(snapshot);
    CHECK_EQUAL(pykv_snapshot_closed(snapshot), 1);
    CHECK_TEXT(get(snapshot, "1"), "!");
    struct pykv_scan *third = NULL;
    CHECK_EQUAL(pykv_scan_open(store, snapshot, NULL, 0, 1, &third), PYKV_CLOSED);
    pykv_snapshot_free(snapshot);
    CHECK_EQUAL(count(first), 3000);
    CHECK_EQUAL(count(second), 111);        /* 29, 290 to 299, 2900 to 2999 */
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.snapshots, 0);
    CHECK_EQUAL(pykv_verify(store, &(struct pykv_report){ 0 }), PYKV_OK);
    end();
}

static void handles_outlive_the_store(void)
{
    start(PYKV_IO_MMAP);
    put("k", "v");
    struct pykv_snapshot *snapshot = take(), *other = take();
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    CHECK_TEXT(get(snapshot, "k"), "!");
    CHECK_EQUAL(pykv_last_error()->status, PYKV_CLOSED);
    CHECK_EQUAL(pykv_snapshot_renew(snapshot), PYKV_CLOSED);
    CHECK_EQUAL(pykv_snapshot_commit(snapshot, 0, 1, (const uint8_t *)"", (const uint8_t *)"",
                                     (const uint8_t[8]){ 0 }, NULL, 0), -1000 + PYKV_CLOSED);
    pykv_snapshot_free(snapshot);
    pykv_free(store);
    store = NULL;
    CHECK_EQUAL(pykv_snapshot_closed(other), 1);
    pykv_snapshot_free(other);
    pykv_snapshot_free(NULL);
    CHECK_TEXT(get(NULL, "k"), "!");
    end();
}

static void no_memory_is_no_leak(void)
{
    struct pykv_snapshot *snapshot = NULL;
    start(PYKV_IO_MMAP);
    sim_fail(sim, &(struct sim_fault){ .call = SIM_ALLOC });
    CHECK_EQUAL(pykv_snapshot_open(store, &snapshot), PYKV_NO_MEMORY);
    sim_fail(sim, NULL);
    CHECK(snapshot == NULL);
    struct pykv_stats stats;
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.snapshots, 0);
    end();
}

/* Write "mark" if what is expected of `key` holds. */
static int expect(int op, const char *key, uint64_t number)
{
    uint8_t keys[100];
    const uint8_t ops[] = { (uint8_t)op, PYKV_PUT };
    const uint32_t key_sizes[] = { (uint32_t)strlen(key), 4 };
    const uint64_t numbers[] = { number, 0 };
    size_t failed = 9;
    memcpy(keys, key, strlen(key));
    memcpy(keys + strlen(key), "mark", 4);
    int status = pykv_write(store, 2, ops, keys, key_sizes, NULL, NULL, numbers, PYKV_DURABILITY_DEFAULT, &failed, NULL, NULL);
    CHECK_EQUAL(failed, status == PYKV_CONFLICT ? 0 : 9);
    return status;
}

static int expect_prefix(const char *prefix, uint64_t from)
{
    return expect(PYKV_EXPECT_PREFIX_UNCHANGED, prefix, from);
}

static void prefixes_are_watched(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io);
        put("user:1", "a");
        put("user:2", "a");
        struct pykv_snapshot *first = take();
        CHECK_EQUAL(expect_prefix("user:", position(first)), PYKV_OK);
        CHECK_EQUAL(expect_prefix("mark", position(first)), PYKV_CONFLICT);     /* what the line before wrote */
        fill();
        CHECK_EQUAL(expect_prefix("user:", position(first)), PYKV_OK);
        CHECK_EQUAL(expect_prefix("fill2", position(first)), PYKV_CONFLICT);
        CHECK_EQUAL(expect_prefix("", position(first)), PYKV_CONFLICT);
        struct pykv_snapshot *second = take();
        CHECK_EQUAL(expect_prefix("", position(second)), PYKV_OK);
        CHECK_EQUAL(expect_prefix("fill", position(second)), PYKV_OK);
        put("user:3", "a");
        CHECK_EQUAL(expect_prefix("user:", position(first)), PYKV_CONFLICT);
        CHECK_EQUAL(expect_prefix("user:", position(second)), PYKV_CONFLICT);
        CHECK_EQUAL(expect_prefix("user:1", position(first)), PYKV_OK);
        delete("user:1");
        CHECK_EQUAL(expect_prefix("user:1", position(second)), PYKV_CONFLICT);
        struct pykv_snapshot *third = take();
        fill();
        put("user:44", "a");
        fill();
        CHECK_EQUAL(expect_prefix("user:4", position(second)), PYKV_CONFLICT);
        CHECK_EQUAL(expect_prefix("user:4", position(third)), PYKV_CONFLICT);
        CHECK_EQUAL(expect_prefix("user:444", position(third)), PYKV_OK);
        CHECK_EQUAL(expect_prefix("user:5", position(first)), PYKV_OK);

        /* Places that no snapshot had: an error, and nothing written. */
        CHECK_EQUAL(expect_prefix("", 0), PYKV_INVALID);
        CHECK_EQUAL(expect_prefix("", UINT64_C(77) << 30 | 8), PYKV_INVALID);
        CHECK_EQUAL(expect_prefix("", UINT64_MAX), PYKV_INVALID);
        CHECK_EQUAL(expect_prefix("", position(first) + 1), PYKV_CORRUPT);
        pykv_snapshot_free(first);
        pykv_snapshot_free(second);
        pykv_snapshot_free(third);
        CHECK_EQUAL(pykv_verify(store, &(struct pykv_report){ 0 }), PYKV_OK);
        end();
    }
}

static void keys_are_unchanged(void)
{
    struct pykv_instant instant;
    start(PYKV_IO_MMAP);
    put("a", "1");
    put("b", "1");
    struct pykv_snapshot *snapshot = take();
    pykv_snapshot_instant(snapshot, &instant);
    CHECK_EQUAL(expect(PYKV_EXPECT_UNCHANGED, "a", instant.version), PYKV_OK);
    CHECK_EQUAL(expect(PYKV_EXPECT_UNCHANGED, "a", instant.version - 1), PYKV_OK);
    CHECK_EQUAL(expect(PYKV_EXPECT_UNCHANGED, "b", instant.version - 1), PYKV_CONFLICT);
    CHECK_EQUAL(expect(PYKV_EXPECT_UNCHANGED, "absent", instant.version), PYKV_CONFLICT);
    put("a", "1");
    CHECK_EQUAL(expect(PYKV_EXPECT_UNCHANGED, "a", instant.version), PYKV_CONFLICT);
    delete("b");
    CHECK_EQUAL(expect(PYKV_EXPECT_UNCHANGED, "b", instant.version), PYKV_CONFLICT);
    CHECK_EQUAL(expect(8, "b", 0), PYKV_INVALID);
    pykv_snapshot_free(snapshot);
    end();
}

/* Expect of "a" what `op` says, put "b": "2", delete "c". */
static int64_t commit(struct pykv_snapshot *snapshot, int op)
{
    const uint8_t ops[] = { (uint8_t)op, PYKV_PUT, PYKV_DELETE };
    const uint32_t sizes[] = { 1, 1, 1, 1, 0 };
    uint8_t bytes[1 + sizeof sizes];
    memcpy(bytes + 1, sizes, sizeof sizes);     /* of any alignment */
    return pykv_snapshot_commit(snapshot, 1, 2, ops, (const uint8_t *)"abc2", bytes + 1, NULL,
                                PYKV_DURABILITY_DEFAULT);
}

static void commits_end_their_snapshot(void)
{
    static const int ops[] = { PYKV_EXPECT_UNCHANGED, PYKV_EXPECT_PREFIX_UNCHANGED, PYKV_EXPECT_PRESENT };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        start(PYKV_IO_MMAP);
        put("a", "1");
        put("b", "1");
        put("c", "1");
        struct pykv_snapshot *snapshot = take();
        CHECK_EQUAL(commit(snapshot, ops[i]), 4);
        CHECK_EQUAL(pykv_snapshot_closed(snapshot), 1);
        CHECK_EQUAL(commit(snapshot, ops[i]), -1000 + PYKV_CLOSED);
        CHECK_EQUAL(pykv_snapshot_renew(snapshot), PYKV_OK);
        CHECK_TEXT(get(snapshot, "a"), "1");
        CHECK_TEXT(get(snapshot, "b"), "2");
        CHECK_TEXT(get(snapshot, "c"), "");
        put("c", "3");
        delete("a");
        CHECK_EQUAL(commit(snapshot, ops[i]), -2000 - 0);
        CHECK_EQUAL(pykv_snapshot_closed(snapshot), 1);
        CHECK_EQUAL(pykv_snapshot_renew(snapshot), PYKV_OK);
        CHECK_TEXT(get(snapshot, "c"), "3");
        struct pykv_stats stats;
        CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
        CHECK_EQUAL(stats.snapshots, 1);
        pykv_snapshot_free(snapshot);
        end();
    }
}

/* Who cannot write to the store holds nothing, and is told when it may see less than there was. */
static void what_cannot_be_held_is_told(void)
{
    struct pykv_snapshot *snapshot = NULL, *pinned;
    struct pykv_scan *scan = NULL;
    struct pykv_rows *rows = pykv_rows_new();
    start(PYKV_IO_MMAP);
    put("a", "1");
    put("b", "1");
    sim_set_read_only(sim, true);
    options.flag = PYKV_FLAG_READ;
    struct pykv_store *writer = store, *reader = open_store();
    sim_set_read_only(sim, false);
    CHECK_EQUAL(pykv_snapshot_open(reader, &snapshot), PYKV_OK);
    CHECK_EQUAL(pykv_scan_open(reader, NULL, NULL, 0, 1, &scan), PYKV_OK);
    put("a", "2");
    put("c", "2");
    CHECK_TEXT(get(snapshot, "a"), "1");
    CHECK_TEXT(get(snapshot, "c"), "");
    pinned = take();
    delete("b");
    for (int i = 0; i < 100; i++) {         /* enough for a sweep */
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        put(key, "1");
        delete(key);
    }
    CHECK_TEXT(get(snapshot, "b"), "1");    /* another holds it for us */
    CHECK_TEXT(get(snapshot, "none"), "");
    pykv_snapshot_free(pinned);
    while (pykv_snapshot_contains(snapshot, (const uint8_t *)"b", 1, NULL) == PYKV_OK)
        sim_os(sim)->wait(sim_os(sim), &(uint32_t){ 0 }, 0, 1);     /* the helper sweeps */
    CHECK_EQUAL(pykv_last_error()->status, PYKV_SNAPSHOT_LOST);
    CHECK_TEXT(get(snapshot, "a"), "1");
    CHECK_EQUAL(pykv_scan_next(scan, rows), PYKV_SNAPSHOT_LOST);
    CHECK_EQUAL(pykv_snapshot_renew(snapshot), PYKV_OK);
    CHECK_TEXT(get(snapshot, "b"), "");
    CHECK_TEXT(get(snapshot, "c"), "2");
    pykv_scan_close(scan);
    pykv_snapshot_free(snapshot);
    pykv_free(reader);
    pykv_rows_free(rows);
    store = writer;
    end();
}

static void put_size(const char *key, size_t size)
{
    static const uint8_t value[1 << 20];
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)key, strlen(key), value, size, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

/* However far back a key has to be read: that is no more than was written since, of few long versions or many. */
static void a_snapshot_is_young_for_a_while(void)
{
    start(0);
    pykv_free(store);
    options.segment_size = 8 << 20;
    options.flag = PYKV_FLAG_NEW;
    store = open_store();
    put("key", "0");
    struct pykv_snapshot *snapshot = take();
    CHECK(pykv_snapshot_young(snapshot));
    for (unsigned i = 0; i < (1 << 20) / 32 - 100; i++)
        put("key", "1");
    CHECK(pykv_snapshot_young(snapshot));
    put_size("other", 100 * 32);
    CHECK(!pykv_snapshot_young(snapshot));
    CHECK_TEXT(get(snapshot, "key"), "0");
    CHECK_EQUAL(pykv_snapshot_renew(snapshot), PYKV_OK);
    put_size("key", (1 << 20) - 256);
    CHECK(pykv_snapshot_young(snapshot));
    put_size("key", 256);
    CHECK(!pykv_snapshot_young(snapshot));
    pykv_snapshot_close(snapshot);
    CHECK(!pykv_snapshot_young(snapshot));
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    CHECK(!pykv_snapshot_young(snapshot));
    pykv_snapshot_free(snapshot);
    CHECK(!pykv_snapshot_young(NULL));
    end();
}

TEST_MAIN(CASE(an_instant_stays), CASE(a_snapshot_is_young_for_a_while), CASE(scans_outlive_their_snapshot), CASE(handles_outlive_the_store),
          CASE(no_memory_is_no_leak), CASE(prefixes_are_watched), CASE(keys_are_unchanged),
          CASE(commits_end_their_snapshot), CASE(what_cannot_be_held_is_told))
