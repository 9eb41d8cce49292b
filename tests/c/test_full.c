/* A random history on a disk that is full now and then, or with a limit: a write that is refused has changed
 * nothing, deletes are not refused as long as there is a reserve, and all goes on when there is room. And
 * each write waits for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#define PATH "/store"
#define KEYS 300u
#define VALUE_MAX 4000u
#define DEFAULT PYKV_DURABILITY_DEFAULT

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;
static uint64_t random_state, boot, refused, deleted;
static struct { uint32_t size; uint8_t fill; bool there; } model[KEYS];
static uint8_t value[VALUE_MAX], found[VALUE_MAX];

static uint64_t random_below(uint64_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (random_state >> 33) % limit;
}

static void open_store(void)
{
    int status = pykv_open_with(sim_os(sim), PATH, &options, &store);
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
}

static void check(void)
{
    char key[16];
    uint64_t count = 0, there = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "%u", i);
        int64_t size = pykv_get(store, (uint8_t *)key, strlen(key), found, sizeof found, NULL);
        CHECK_EQUAL(size, model[i].there ? (int64_t)model[i].size : -1000 + PYKV_NOT_FOUND);
        for (int64_t at = 0; at < size; at += 97)
            CHECK_EQUAL(found[at], model[i].fill);
        there += model[i].there;
    }
    CHECK_EQUAL(pykv_count(store, &count), PYKV_OK);
    CHECK_EQUAL(count, there);
}

static int put(uint32_t i, uint32_t size, uint8_t fill)
{
    char key[16];
    snprintf(key, sizeof key, "%u", i);
    memset(value, fill, size);
    int status = pykv_put(store, (uint8_t *)key, strlen(key), value, size, 0, DEFAULT, NULL);
    CHECK(status == PYKV_OK || status == PYKV_FULL);
    refused += status == PYKV_FULL;
    if (status == PYKV_OK) {
        model[i].there = true;
        model[i].size = size;
        model[i].fill = fill;
    }
    return status;
}

static void delete(uint32_t i, bool must)
{
    char key[16];
    snprintf(key, sizeof key, "%u", i);
    int status = pykv_delete(store, (uint8_t *)key, strlen(key), DEFAULT);
    if (status == PYKV_FULL && !must)
        return;
    CHECK_EQUAL(status, model[i].there ? PYKV_OK : PYKV_NOT_FOUND);
    model[i].there = false;
    deleted++;
}

static void reopen(bool reboot)
{
    struct image image = { 0 };
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    if (reboot) {
        sim_save(sim, PATH, &image);
        sim_set_boot(sim, ++boot);
        sim_load(sim, PATH, &image);
        image_release(&image);
    }
    open_store();
}

static void begin(uint64_t seed, uint64_t limit)
{
    sim = sim_new(seed);
    random_state = seed;
    refused = deleted = 0;
    boot = 1;
    memset(model, 0, sizeof model);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .segment_size = 65536, .disk_size_max = limit };
    open_store();
}

static void end(void)
{
    check();
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    struct sim_usage usage = sim_usage(sim);
    CHECK_EQUAL(usage.descriptors + usage.mappings + usage.allocations + usage.locks, 0);
    sim_free(sim);
}

/* Puts until they are refused, then deletes; and the disk grows and shrinks under them. */
static void a_disk_that_is_full_now_and_then(void)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        begin(seed, 0);
        options.io = seed % 2 == 0 ? PYKV_IO_PREAD : PYKV_IO_MMAP;
        reopen(false);
        for (unsigned round = 0; round < 12; round++) {
            uint64_t size = (UINT64_C(500) + random_below(500)) << 10;
            for (uint32_t i = 0; i < 40; i++)       /* the reserve is made while there is room */
                (void)put((uint32_t)random_below(KEYS), (uint32_t)random_below(VALUE_MAX), (uint8_t)i);
            sim_advance_ms(sim, 2000);
            sim_set_disk_size(sim, size);
            for (uint32_t i = 0; i < 400; i++) {
                if (random_below(4) != 0)
                    (void)put((uint32_t)random_below(KEYS), (uint32_t)random_below(VALUE_MAX), (uint8_t)i);
                else
                    delete((uint32_t)random_below(KEYS), false);
                if (i % 50 == 0)
                    sim_advance_ms(sim, 2000);
            }
            check();
            if (random_below(3) == 0) {
                sim_set_disk_size(sim, 0);
                reopen(random_below(2) == 0);
                check();
            }
            sim_set_disk_size(sim, 0);
            for (uint32_t i = 0; i < 20; i++)
                CHECK_EQUAL(put(i, 100, (uint8_t)i), PYKV_OK);
        }
        CHECK(refused > 100);
        end();
    }
}

/* Nothing but deletes: none of them is refused, and in the end there is room. */
static void deletes_empty_a_full_disk(void)
{
    for (uint64_t seed = 1; seed <= 2; seed++) {
        begin(seed, 0);
        sim_set_disk_size(sim, UINT64_C(1) << 20);
        for (uint32_t i = 0; refused == 0; i = (i + 1) % KEYS) {
            (void)put(i, VALUE_MAX, (uint8_t)i);
            sim_advance_ms(sim, 100);
        }
        for (uint32_t i = 0; i < KEYS; i++)
            delete(seed % 2 == 0 ? i : (i * 7) % KEYS, true);
        CHECK(deleted == KEYS);
        for (uint32_t i = 0; i < KEYS / 4; i++)     /* half a mebibyte is the keydir's, a quarter the reserve's */
            CHECK_EQUAL(put(i, VALUE_MAX / 2, (uint8_t)i), PYKV_OK);
        end();
    }
}

/* A reserve that could not be made when the store was opened is no reason to refuse a delete when there is
 * room: a long key needs blocks. */
static void the_reserve_is_made_late(void)
{
    static uint8_t long_key[65535];
    struct image image = { 0 };
    unsigned opened = 0;
    begin(1, 0);
    CHECK_EQUAL(pykv_put(store, long_key, sizeof long_key, NULL, 0, 0, DEFAULT, NULL), PYKV_OK);
    for (uint32_t i = 0; i < 8; i++) {  /* some rounds, in which it is made */
        sim_advance_ms(sim, 5000);
        CHECK_EQUAL(put(i, VALUE_MAX, 1), PYKV_OK);
    }
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    sim_save(sim, PATH, &image);
    CHECK(image_find(&image, "reserve") != NULL);
    for (uint64_t at = 0; at < 12; at++) {
        sim_load(sim, PATH, &image);
        sim_set_boot(sim, ++boot);
        sim_fail(sim, &(struct sim_fault){ .call = SIM_FILE_RESERVE, .at = at, .onwards = true, .os_errno = ENOSPC });
        int status = pykv_open_with(sim_os(sim), PATH, &options, &store);
        sim_fail(sim, NULL);
        if (status != PYKV_OK)
            continue;
        opened++;
        CHECK_EQUAL(pykv_clear(store, DEFAULT), PYKV_OK);
        CHECK_EQUAL(pykv_close(store), PYKV_OK);
        pykv_free(store);
    }
    CHECK(opened > 0);
    image_release(&image);
    sim_free(sim);
}

/* At the limit a put is refused only if the live bytes leave no room, and a delete never. */
static void a_limit(void)
{
    const uint64_t limit = UINT64_C(1) << 20;
    struct pykv_stats stats;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        begin(seed, limit);
        for (uint32_t i = 0; i < 6000; i++) {
            CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
            uint32_t key = (uint32_t)random_below(KEYS);
            if (random_below(5) == 0)
                delete(key, true);
            else if (put(key, (uint32_t)random_below(VALUE_MAX), (uint8_t)i) == PYKV_FULL)
                CHECK(stats.live_bytes > limit / 2);
            CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
            CHECK(stats.log_bytes <= limit + 65536);
            if (random_below(1000) == 0)
                reopen(random_below(2) == 0);
        }
        end();
    }
}

/* The first to write after a reboot, before any helper could, on a disk with room. */
static void the_reserve_is_made_by_who_needs_it(void)
{
    static uint8_t keys[3000 * 4];
    uint32_t sizes[3000];
    begin(1, 0);
    for (uint32_t i = 0; i < 3000; i++) {
        sizes[i] = 4;
        memcpy(keys + 4 * i, &i, 4);
    }
    CHECK_EQUAL(pykv_write(store, 3000, NULL, keys, sizes, NULL, NULL, NULL, DEFAULT, NULL, NULL, NULL), PYKV_OK);
    sim_advance_ms(sim, 2000);
    for (uint32_t i = 0; i < 5; i++)        /* one of them looks what is due */
        CHECK_EQUAL(put(i, VALUE_MAX, 0), PYKV_OK);
    reopen(true);
    CHECK_EQUAL(pykv_clear(store, DEFAULT), PYKV_OK);
    memset(model, 0, sizeof model);
    end();
}

/* One batch of deletes that finds no room, time and again: the log is as it was. */
static void a_clear_that_is_refused(void)
{
    static uint8_t keys[3000 * 200];
    static uint32_t sizes[3000];
    struct pykv_stats before, after;
    begin(1, 0);
    for (uint32_t i = 0; i < 3000; i++) {
        sizes[i] = 200;
        memcpy(keys + 200 * i, &i, 4);
    }
    CHECK_EQUAL(pykv_write(store, 3000, NULL, keys, sizes, NULL, NULL, NULL, DEFAULT, NULL, NULL, NULL), PYKV_OK);
    sim_advance_ms(sim, 2000);
    for (uint32_t i = 0; i < 5; i++)        /* one of them looks what is due, and the reserve is made */
        CHECK_EQUAL(put(i, VALUE_MAX, 0), PYKV_OK);
    CHECK_EQUAL(pykv_stats(store, &before), PYKV_OK);
    sim_set_disk_size(sim, before.disk_bytes + (200 << 10));
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_EQUAL(pykv_clear(store, DEFAULT), PYKV_FULL);
        delete(i, true);
        CHECK_EQUAL(pykv_stats(store, &after), PYKV_OK);
        CHECK_EQUAL(after.segments, before.segments);
    }
    sim_set_disk_size(sim, 0);
    CHECK_EQUAL(pykv_clear(store, DEFAULT), PYKV_OK);
    memset(model, 0, sizeof model);
    end();
}

/* ---- What a full disk makes wait ---- */

static bool waited;

/* Others make room while we wait for it. */
static void wait_for_others(const struct os *os, const uint32_t *word, uint32_t number, uint32_t timeout_ms)
{
    waited = true;
    sim_set_disk_size(sim, 0);
    sim_os(sim)->wait(os, word, number, timeout_ms);
}

/* Helpers that are there, and never get to run: so that one waits for them. */
static int start_nothing(const struct os *os, void (*run)(void *context), void *context, void **out)
{
    (void)os, (void)run;
    *out = context;
    return 0;
}

static void join_nothing(const struct os *os, void *thread) { (void)os, (void)thread; }

/* Each writes more than is left of a segment, and so needs blocks. */
static uint8_t bytes[60000];
static uint64_t end_ms;

static int write_put(void) { return pykv_put(store, bytes, sizeof bytes, NULL, 0, 0, DEFAULT, NULL); }

static int write_batch(void)
{
    const uint32_t size = sizeof bytes;
    return pykv_write(store, 1, NULL, bytes, &size, NULL, NULL, NULL, DEFAULT, NULL, NULL, NULL);
}

static int write_incr(void)
{
    int64_t sum = 0;
    int status = pykv_incr(store, bytes, sizeof bytes, 7, 0, 0, DEFAULT, &sum);
    CHECK_EQUAL(sum, status == PYKV_OK ? 7 : 0);
    return status;
}

static int write_expire(void) { return pykv_expire(store, (const uint8_t *)"big", 3, 0, 0, DEFAULT); }
static int write_touch(void) { return pykv_expire(store, (const uint8_t *)"big", 3, end_ms + 1, 1, DEFAULT); }
static int write_clear(void) { return pykv_clear(store, DEFAULT); }

static int commit(uint8_t expected)
{
    struct pykv_snapshot *snapshot;
    const uint8_t ops[] = { expected, PYKV_PUT };
    const uint32_t sizes[] = { 3, sizeof bytes - 3, 0 };
    memcpy(bytes, "big", 3);
    CHECK_EQUAL(pykv_snapshot_open(store, &snapshot), PYKV_OK);
    int64_t version = pykv_snapshot_commit(snapshot, 1, 1, ops, bytes, (const uint8_t *)sizes, NULL, DEFAULT);
    CHECK(pykv_snapshot_closed(snapshot));
    pykv_snapshot_free(snapshot);
    return version > 0 ? PYKV_OK : (int)version + 1000;
}

static int write_transaction(void) { return commit(PYKV_EXPECT_UNCHANGED); }

/* Whatever is written: it waits for room before it is refused. But for who holds a snapshot to the end, since
 * compaction would give nothing back before. */
static void all_writes_wait_alike(void)
{
    int (*const writes[])(void) = { write_put, write_batch, write_incr, write_expire, write_touch, write_transaction,
                                    write_clear };
    for (size_t i = 0; i < sizeof writes / sizeof *writes; i++) {
        sim = sim_new(i);
        struct os os = *sim_os(sim);
        os.wait = wait_for_others;
        os.thread_start = start_nothing;
        os.thread_join = join_nothing;
        options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .segment_size = 65536 };
        CHECK_EQUAL(pykv_open_with(&os, PATH, &options, &store), PYKV_OK);
        end_ms = os.wall_ms(&os) + 1000000;
        for (uint32_t key = 0; key < 5000; key++)       /* whose tombstones are more than a segment */
            CHECK_EQUAL(pykv_put(store, (uint8_t *)&key, sizeof key, NULL, 0, 0, DEFAULT, NULL), PYKV_OK);
        CHECK_EQUAL(pykv_put(store, (const uint8_t *)"big", 3, bytes, sizeof bytes, end_ms, DEFAULT, NULL), PYKV_OK);
        waited = false;
        sim_set_disk_size(sim, 1);
        CHECK_EQUAL(commit(PYKV_EXPECT_PREFIX_UNCHANGED), PYKV_FULL);
        CHECK(!waited);
        CHECK_EQUAL(writes[i](), PYKV_OK);
        CHECK(waited);
        CHECK_EQUAL(pykv_close(store), PYKV_OK);
        pykv_free(store);
        sim_free(sim);
    }
}

TEST_MAIN(CASE(all_writes_wait_alike), CASE(a_clear_that_is_refused),
          CASE(a_disk_that_is_full_now_and_then), CASE(deletes_empty_a_full_disk),
          CASE(the_reserve_is_made_late), CASE(the_reserve_is_made_by_who_needs_it), CASE(a_limit))
