/* Keys that expire: exact on read, and gone from count and disk without anyone asking. On the simulated
 * machine, whose clocks obey and whose writers do the keeper's rounds; and with real threads. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim_os.h"
#include "store.h"
#include "test.h"

#define PATH "/store"
#define DEFAULT PYKV_DURABILITY_DEFAULT

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;
static struct pykv_report report;
static uint64_t boot;

static void open_store(void)
{
    sim_set_boot(sim, boot);
    if (pykv_open_with(sim_os(sim), PATH, &options, &store) != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %s", pykv_last_error()->message);
}

static void close_store(void)
{
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    store = NULL;
}

static void start(int io, uint64_t segment_size)
{
    alarm(120);
    sim = sim_new(1);
    boot = 1;
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .io = io, .segment_size = segment_size };
    open_store();
}

static void end(void)
{
    CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
    close_store();
    struct sim_usage usage = sim_usage(sim);
    CHECK_EQUAL(usage.descriptors + usage.mappings + usage.allocations + usage.locks, 0);
    sim_free(sim);
}

static uint64_t now_ms(void) { return sim_os(sim)->wall_ms(sim_os(sim)); }

static void put_sized(const char *key, const void *value, size_t size, uint64_t expiry)
{
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)key, strlen(key), value, size, expiry, DEFAULT, NULL), PYKV_OK);
}

static void put(const char *key, uint64_t expiry) { put_sized(key, "value", 5, expiry); }

/* `count` keys "<kind><number>", to expire at first, first + step, ... */
static void put_many(char kind, unsigned count, uint64_t first, uint64_t step)
{
    char key[16];
    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof key, "%c%06u", kind, i);
        put(key, first == 0 ? 0 : first + i * step);
    }
}

static int expire_at(const char *key, uint64_t expiry, int later)
{
    return pykv_expire(store, (const uint8_t *)key, strlen(key), expiry, later, DEFAULT);
}

/* When it expires; 1: it is absent. */
static uint64_t expiry_of(const char *key)
{
    uint64_t expiry;
    int status = pykv_contains(store, (const uint8_t *)key, strlen(key), &expiry);
    CHECK(status >= 0);
    return status == PYKV_OK ? expiry : 1;
}

static bool has(const char *key) { return expiry_of(key) != 1; }

static uint64_t key_count(void)
{
    uint64_t count = 0;
    CHECK_EQUAL(pykv_count(store, &count), PYKV_OK);
    return count;
}

static uint64_t version_of(void)
{
    struct pykv_stats stats;
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    return stats.version;
}

/* Rounds of the keeper, as writers do them where there is none: one a second. */
static void rounds(unsigned count)
{
    while (count-- > 0) {
        sim_advance_ms(sim, 1000);
        put("tick", 0);
    }
}

static struct segment_entry *active_entry(void)
{
    return &store->shared->segments[position_segment(atomic_load(&store->shared->tail)) % SEGMENT_SLOT_COUNT];
}

static void checkpoint(void)
{
    bool died;
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    CHECK_EQUAL(checkpoint_write(store), PYKV_OK);
    shared_lock_release(&store->shared->maintain, &store->process);
}

static void seal(void)
{
    CHECK_EQUAL(store_lock(store), PYKV_OK);
    CHECK_EQUAL(log_roll(&store->log, 0), PYKV_OK);
    struct shared_counters counters = shared_counters(store->shared);
    counters.position = atomic_load(&store->shared->tail);
    shared_counters_publish(store->shared, &counters);
    store_unlock(store);
    CHECK_EQUAL(pykv_sync(store), PYKV_OK);
}

/* One walk, as the keeper does it. */
static int go_on(struct pykv_store *of) { return of == store ? PYKV_OK : PYKV_INVALID; }
static int walk_once(int (*between)(struct pykv_store *))
{
    bool died;
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    int status = expire(store, between);
    shared_lock_release(&store->shared->maintain, &store->process);
    return status;
}

/* ---- Reading, and setting the time ---- */

static void exact_to_the_millisecond(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io, 65536);
        uint64_t expiry = now_ms() + 500;
        put("k", expiry);
        sim_advance_ms(sim, 499);
        CHECK_EQUAL(expiry_of("k"), expiry);
        sim_advance_ms(sim, 1);
        CHECK(!has("k"));
        CHECK_EQUAL(expire_at("k", expiry + 1000, 0), PYKV_NOT_FOUND);
        CHECK(!has("k"));
        end();
    }
}

static void setting_the_time(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io, 65536);
        uint64_t now = now_ms(), version;
        put("k", 0);
        CHECK_EQUAL(expire_at("absent", now + 100, 0), PYKV_NOT_FOUND);
        CHECK_EQUAL(expire_at("absent", 0, 0), PYKV_NOT_FOUND);
        version = version_of();
        CHECK_EQUAL(expire_at("k", 0, 0), PYKV_OK);             /* as it is: nothing is written */
        CHECK_EQUAL(expire_at("k", now + 500, 1), PYKV_OK);     /* never is later */
        CHECK_EQUAL(version_of(), version);
        CHECK_EQUAL(expire_at("k", now + 500, 0), PYKV_OK);
        CHECK_EQUAL(version_of(), version + 1);
        CHECK_EQUAL(expiry_of("k"), now + 500);
        CHECK_EQUAL(expire_at("k", now + 400, 1), PYKV_OK);
        CHECK_EQUAL(expire_at("k", now + 500, 0), PYKV_OK);
        CHECK_EQUAL(expiry_of("k"), now + 500);
        CHECK_EQUAL(version_of(), version + 1);
        CHECK_EQUAL(expire_at("k", now + 600, 1), PYKV_OK);
        CHECK_EQUAL(expiry_of("k"), now + 600);
        CHECK_EQUAL(expire_at("k", now + 300, 0), PYKV_OK);
        CHECK_EQUAL(expiry_of("k"), now + 300);
        CHECK_EQUAL(expire_at("k", 0, 1), PYKV_OK);             /* never, again */
        CHECK_EQUAL(expiry_of("k"), 0);
        sim_advance_ms(sim, 1000);
        CHECK(has("k"));
        CHECK_EQUAL(expire_at("k", now, 0), PYKV_OK);           /* a time that is over */
        CHECK(!has("k"));
        CHECK_EQUAL(expire_at("k", 0, 0), PYKV_NOT_FOUND);
        end();
    }
}

/* Of values of any size: they are copied, from one segment to another if need be. */
static void values_stay(void)
{
    static uint8_t value[3 << 20], got[3 << 20];
    static const size_t sizes[] = { 0, 1, 2000, 2100, 60000, 70000, (1 << 20) - 100, 3 << 20 };
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)(i * 7 + i / 251);
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io, 65536);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            put_sized("k", value, sizes[i], 0);
            for (int round = 1; round < 4; round++) {
                uint64_t version = 0;
                CHECK_EQUAL(expire_at("k", now_ms() + 1000u * (unsigned)round, 0), PYKV_OK);
                CHECK_EQUAL(pykv_get(store, (const uint8_t *)"k", 1, got, sizeof got, &version), sizes[i]);
                CHECK_BYTES(got, value, sizes[i]);
                CHECK_EQUAL(version, version_of());
            }
        }
        end();
    }
}

static void refusals(void)
{
    start(PYKV_IO_MMAP, 65536);
    put("k", 0);
    CHECK_EQUAL(pykv_expire(store, (const uint8_t *)"", PYKV_KEY_SIZE_MAX + 1u, 0, 0, DEFAULT), PYKV_INVALID);
    CHECK_EQUAL(pykv_expire(NULL, (const uint8_t *)"k", 1, 0, 0, DEFAULT), PYKV_CLOSED);
    close_store();
    options.flag = PYKV_FLAG_READ;
    open_store();
    CHECK_EQUAL(expire_at("k", now_ms() + 1000, 0), PYKV_READ_ONLY);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    CHECK_EQUAL(expire_at("k", now_ms() + 1000, 0), PYKV_CLOSED);
    pykv_free(store);
    options.flag = PYKV_FLAG_WRITE;
    open_store();
    sim_fail(sim, &(struct sim_fault){ .call = SIM_FILE_SYNC });
    CHECK(pykv_expire(store, (const uint8_t *)"k", 1, now_ms() + 1000, 0, PYKV_DURABILITY_COMMIT) < 0);
    sim_fail(sim, NULL);
    CHECK_EQUAL(expire_at("k", now_ms() + 2000, 0), PYKV_SYNC_FAILED);
    CHECK(has("k"));
    pykv_free(store);
    open_store();
    end();
}

/* ---- Removing ---- */

static void expired_keys_leave_the_count(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io, 65536);
        uint64_t base = now_ms();
        put_many('e', 2000, base + 5000, 0);
        put_many('l', 2000, base + 3600000, 0);
        put_many('n', 2000, 0, 0);
        put("tick", 0);
        CHECK_EQUAL(key_count(), 6001);
        rounds(4);
        CHECK_EQUAL(key_count(), 6001);
        rounds(12);             /* one segment a round, of some six that are due */
        CHECK_EQUAL(key_count(), 4001);
        CHECK(!has("e000000") && has("l000000") && has("n000000"));
        sim_advance_ms(sim, 3600000);
        rounds(12);
        CHECK_EQUAL(key_count(), 2001);
        CHECK(!has("l000000") && has("n000000"));
        rounds(5);
        uint64_t version = version_of();
        rounds(5);
        CHECK_EQUAL(version_of(), version + 5);     /* nothing is left to do */
        for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
            CHECK_EQUAL(store->shared->segments[i].expiry_next, 0);
        end();
    }
}

/* At most about a quarter of what expires is expired and still there; and few walks are needed for it. */
static void a_quarter_at_most(void)
{
    start(PYKV_IO_MMAP, 1 << 20);
    uint64_t base = now_ms(), walks = 0, before = 0;
    const unsigned count = 10000;
    put_many('e', count, base + 10000, 10);     /* over 100 seconds */
    CHECK_EQUAL(active_entry()->id, 1);
    while (now_ms() < base + 120000) {
        rounds(1);
        uint64_t past = now_ms() < base + 10000 ? 0 : (now_ms() - base - 10000) / 10 + 1;
        uint64_t alive = past < count ? count - past : 0;
        uint64_t dead = key_count() - 1 - alive;
        /* A quarter of those that expire, sampled; and what two seconds bring. */
        CHECK(dead <= (alive + dead) * 2 / 5 + 200);
        if (active_entry()->expiry_next != before)
            walks++;
        before = active_entry()->expiry_next;
    }
    CHECK_EQUAL(key_count(), 1);
    CHECK(walks < 40);
    end();
}

/* What is written behind the walk, or during it, is not forgotten: it has no part in the sample. */
static uint64_t written_expiry;
static int write_between(struct pykv_store *of)
{
    CHECK(of == store);
    if (written_expiry != 0)
        put("between", written_expiry);
    written_expiry = 0;
    return PYKV_OK;
}

static void a_record_written_during_a_walk(void)
{
    static uint8_t filler[600 << 10];
    start(PYKV_IO_MMAP, 4 << 20);
    uint64_t base = now_ms();
    put("first", base + 10);
    put_sized("filler", filler, sizeof filler, 0);
    put("far", base + 1000000);
    sim_advance_ms(sim, 20);
    written_expiry = base + 50000;
    CHECK_EQUAL(walk_once(write_between), PYKV_OK);
    CHECK_EQUAL(written_expiry, 0);
    CHECK_EQUAL(key_count(), 3);
    CHECK_EQUAL(active_entry()->expiry_next, base + 50000);
    sim_advance_ms(sim, 60000);
    CHECK_EQUAL(walk_once(go_on), PYKV_OK);
    CHECK_EQUAL(key_count(), 2);
    CHECK_EQUAL(active_entry()->expiry_next, base + 1000000);
    CHECK_EQUAL(walk_once(go_on), PYKV_NOT_FOUND);
    end();
}

/* A key that is written anew between its judgement and its removal stays. Without mappings the walk reads
 * record by record, and judges each: so a read further on is such a moment. */
static struct os hooked;
static unsigned reads_left;

static int read_and_renew(const struct os *os, int fd, void *bytes, size_t size, uint64_t offset, size_t *done)
{
    if (reads_left != 0 && --reads_left == 0)
        put("e000000", written_expiry);
    return sim_os(sim)->file_read(os, fd, bytes, size, offset, done);
}

static void only_the_very_record_is_removed(void)
{
    start(PYKV_IO_PREAD, 4 << 20);
    close_store();
    hooked = *sim_os(sim);
    hooked.file_read = read_and_renew;
    CHECK_EQUAL(pykv_open_with(&hooked, PATH, &options, &store), PYKV_OK);
    uint64_t base = now_ms();
    put_many('e', 40, base + 10, 0);
    sim_advance_ms(sim, 20);
    written_expiry = base + 50000;
    reads_left = 30;
    CHECK_EQUAL(walk_once(go_on), PYKV_OK);
    CHECK_EQUAL(reads_left, 0);
    CHECK_EQUAL(key_count(), 1);
    CHECK_EQUAL(expiry_of("e000000"), base + 50000);
    CHECK_EQUAL(active_entry()->expiry_next, base + 50000);
    end();
}

/* A walk that is stopped, or fails, is done anew, by whoever comes next. */
static int stop_between(struct pykv_store *of) { return of == store ? PYKV_CLOSED : PYKV_OK; }

static void a_walk_that_is_cut_short(void)
{
    static uint8_t filler[300 << 10];
    start(PYKV_IO_MMAP, 4 << 20);
    put_many('e', 100, now_ms() + 10, 0);
    put_sized("filler", filler, sizeof filler, 0);
    put_many('f', 100, now_ms() + 10, 0);
    sim_advance_ms(sim, 20);
    CHECK_EQUAL(walk_once(stop_between), PYKV_CLOSED);
    CHECK_EQUAL(key_count(), 100);
    CHECK(expire_due(store));
    sim_fail(sim, &(struct sim_fault){ .call = SIM_ALLOC });
    CHECK_EQUAL(walk_once(go_on), PYKV_NO_MEMORY);
    sim_fail(sim, NULL);
    CHECK(expire_due(store));
    close_store();
    open_store();
    CHECK_EQUAL(walk_once(go_on), PYKV_OK);
    CHECK_EQUAL(key_count(), 1);
    end();
}

static void a_full_disk_is_tried_again(void)
{
    start(PYKV_IO_MMAP, 65536);
    put_many('e', 1000, now_ms() + 10, 0);
    sim_advance_ms(sim, 20);
    uint64_t first = position_segment(atomic_load(&store->shared->tail));
    sim_set_disk_size(sim, 1);
    CHECK_EQUAL(walk_once(go_on), PYKV_FULL);
    CHECK(active_entry()->expiry_next > now_ms());      /* some time later */
    CHECK(position_segment(atomic_load(&store->shared->tail)) == first);
    CHECK(key_count() > 0);
    CHECK(pykv_last_error()->message[0] != 0);
    sim_set_disk_size(sim, 0);
    rounds(30);
    CHECK_EQUAL(key_count(), 1);
    end();
}

/* Keys as long as can be, more of them in one slice than there is room for. */
static void long_keys(void)
{
    static char key[65536];
    start(PYKV_IO_PREAD, 4 << 20);
    for (unsigned i = 0; i < 12; i++) {
        memset(key, 'a' + (int)i, 65535);
        put(key, now_ms() + 100);
    }
    put("", now_ms() + 100);
    sim_advance_ms(sim, 200);
    rounds(30);
    CHECK_EQUAL(key_count(), 1);
    end();
}

/* ---- Clocks ---- */

static void the_clock_goes_forward(void)
{
    start(PYKV_IO_MMAP, 65536);
    uint64_t base = now_ms();
    put("k", base + 3600000);
    put("ever", 0);
    sim_set_wall_ms(sim, base + 3600000);
    CHECK(!has("k"));
    sim_set_wall_ms(sim, base + 10);        /* nobody has removed it: it is there again */
    CHECK(has("k"));
    sim_set_wall_ms(sim, base + 3600000);
    rounds(2);
    sim_set_wall_ms(sim, base + 10);        /* what was removed stays so */
    CHECK(!has("k") && has("ever"));
    CHECK_EQUAL(key_count(), 2);
    end();
}

static void the_clock_goes_back(void)
{
    start(PYKV_IO_MMAP, 65536);
    uint64_t base = now_ms();
    put("old", base + 10000);
    put("k", base + 20000);
    sim_advance_ms(sim, 11000);
    rounds(2);                              /* the next look is set for base + 20000 */
    CHECK_EQUAL(key_count(), 2);
    sim_set_wall_ms(sim, base - 86400000);
    CHECK(has("k") && !has("old"));
    put("new", now_ms() + 5000);            /* lives five seconds, whatever the clock was before */
    sim_advance_ms(sim, 4000);
    CHECK(has("new"));
    sim_advance_ms(sim, 1000);
    CHECK(!has("new"));
    rounds(2);
    CHECK_EQUAL(key_count(), 2);
    CHECK(has("k"));
    sim_set_wall_ms(sim, base + 20000);
    CHECK(!has("k"));
    rounds(2);
    CHECK_EQUAL(key_count(), 1);
    end();
}

/* ---- Beside snapshots, compaction, recovery ---- */

static void a_snapshot_keeps_what_it_has(void)
{
    uint8_t got[8];
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        struct pykv_snapshot *snapshot = NULL;
        start(io, 65536);
        put_many('e', 2000, now_ms() + 3000, 0);
        put("gone", now_ms() + 10);
        sim_advance_ms(sim, 20);
        CHECK_EQUAL(pykv_snapshot_open(store, &snapshot), PYKV_OK);
        rounds(20);
        CHECK_EQUAL(key_count(), 1);
        CHECK(!has("e001999"));
        struct pykv_progress progress = { 0 };
        do
            CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
        while (progress.left != 0);
        for (unsigned i = 0; i < 2000; i++) {
            char key[16];
            snprintf(key, sizeof key, "e%06u", i);
            CHECK_EQUAL(pykv_snapshot_get(snapshot, (const uint8_t *)key, 7, got, 8, NULL), 5);
        }
        CHECK_EQUAL(pykv_snapshot_contains(snapshot, (const uint8_t *)"gone", 4, NULL), PYKV_NOT_FOUND);
        pykv_snapshot_free(snapshot);
        end();
    }
}

static int64_t commit_prefix(struct pykv_snapshot *snapshot)
{
    const uint8_t ops[2] = { PYKV_EXPECT_PREFIX_UNCHANGED, PYKV_PUT };
    const uint32_t sizes[3] = { 1, 3, 1 };
    return pykv_snapshot_commit(snapshot, 1, 1, ops, (const uint8_t *)"esum1", (const uint8_t *)sizes, NULL, DEFAULT);
}

/* Who iterated a prefix is not disturbed by the removal of what had expired before, but by that of what it
 * saw. */
static void removing_is_no_change_of_a_prefix(void)
{
    struct pykv_snapshot *snapshot = NULL;
    start(PYKV_IO_MMAP, 65536);
    put_many('e', 10, now_ms() + 10, 0);
    put("f", now_ms() + 2000);
    sim_advance_ms(sim, 20);
    CHECK_EQUAL(pykv_snapshot_open(store, &snapshot), PYKV_OK);
    CHECK_EQUAL(walk_once(go_on), PYKV_OK);
    CHECK_EQUAL(key_count(), 1);
    CHECK(commit_prefix(snapshot) > 0);
    put("e", now_ms() + 1500);
    CHECK_EQUAL(pykv_snapshot_renew(snapshot), PYKV_OK);
    rounds(3);
    CHECK(!has("e"));
    CHECK_EQUAL(commit_prefix(snapshot), -2000);
    pykv_snapshot_free(snapshot);
    end();
}

static void after_compaction(void)
{
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        start(io, 65536);
        uint64_t base = now_ms();
        for (unsigned i = 0; i < 2; i++) {
            put_many('n', 2000, 0, 0);          /* so that much is dead */
            put_many('e', 2000, base + 60000, 0);
        }
        struct pykv_progress progress = { 0 };
        do
            CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
        while (progress.left != 0);
        CHECK_EQUAL(key_count(), 4000);
        rounds(70);
        CHECK_EQUAL(key_count(), 2001);
        end();
    }
}

/* Of segments that are not read again the checkpoint tells. */
static void after_a_recovery(void)
{
    for (int how = 0; how < 3; how++) {
        static struct image image;
        start(PYKV_IO_MMAP, 65536);
        uint64_t base = now_ms();
        put_many('e', 2000, base + 60000, 0);
        put_many('n', 100, 0, 0);
        seal();
        if (how != 1)
            checkpoint();
        put_many('f', 100, base + 60000, 0);
        close_store();
        if (how == 2) {                         /* and with nothing but segments */
            sim_save(sim, PATH, &image);
            for (size_t i = image.count; i-- > 0;)
                if (strncmp(image.files[i].name, "segment-", 8) != 0)
                    image_remove(&image, &image.files[i]);
            sim_load(sim, PATH, &image);
            image_release(&image);
        }
        boot++;
        open_store();
        CHECK_EQUAL(key_count(), 2200);
        if (how == 0)
            CHECK(atomic_load(&store->recovered_records) < 200);
        sim_advance_ms(sim, 60000);
        rounds(30);
        CHECK_EQUAL(key_count(), 101);
        /* And what was removed stays so. */
        boot++;
        close_store();
        open_store();
        CHECK_EQUAL(key_count(), 101);
        end();
    }
}

/* Behind a damaged record, too, as far as anything can be read. */
static void beside_damage(void)
{
    static struct image image;
    start(PYKV_IO_MMAP, 65536);
    put_many('e', 400, now_ms() + 60000, 0);
    put("damaged", 0);
    put_many('f', 400, now_ms() + 60000, 0);
    seal();
    close_store();
    sim_save(sim, PATH, &image);
    bool hit = false;
    for (size_t i = 0; i < image.count; i++)
        for (size_t at = 0; strncmp(image.files[i].name, "segment-", 8) == 0 && at + 12 < image.files[i].size && !hit; at++)
            if (memcmp(image.files[i].bytes + at, "damagedvalue", 12) == 0) {
                image.files[i].bytes[at + 8] ^= 1;
                hit = true;
            }
    CHECK(hit);
    sim_load(sim, PATH, &image);
    image_release(&image);
    open_store();
    CHECK_EQUAL(key_count(), 801);
    sim_advance_ms(sim, 60000);
    rounds(10);
    CHECK_EQUAL(key_count(), 2);
    CHECK_EQUAL(pykv_verify(store, &report), PYKV_CORRUPT);
    pykv_free(store);
    sim_free(sim);
}

/* ---- Real threads ---- */

#define THREADS 3
#define ROUNDS 3000u
#define KEYS 200u

static void nap(uint32_t ms)
{
    static const uint32_t word;
    os_posix.wait(&os_posix, &word, 0, ms);
}

static uint64_t real_ms(void) { return os_posix.wall_ms(&os_posix); }

/* Each thread has its own keys; the even ones end up permanent, the others in a short while gone. */
static void *short_lives(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument + 1;
    char key[16];
    for (unsigned i = 0; i < ROUNDS + KEYS; i++) {
        unsigned number = i < ROUNDS ? (unsigned)(test_random(&random) % KEYS) : i - ROUNDS;
        int size = snprintf(key, sizeof key, "%u:%u", (unsigned)(uintptr_t)argument, number);
        uint64_t soon = real_ms() + 1 + test_random(&random) % 50;
        int status = PYKV_OK;
        if (i >= ROUNDS)
            status = pykv_put(store, (const uint8_t *)key, (size_t)size, (const uint8_t *)key, (size_t)size,
                              number % 2 == 0 ? 0 : soon, DEFAULT, NULL);
        else if (test_random(&random) % 4 != 0)
            status = pykv_put(store, (const uint8_t *)key, (size_t)size, (const uint8_t *)key, (size_t)size, soon, DEFAULT, NULL);
        else
            status = pykv_expire(store, (const uint8_t *)key, (size_t)size, i % 2 == 0 ? soon : 0, i % 3 == 0, DEFAULT);
        CHECK(status == PYKV_OK || status == PYKV_NOT_FOUND);
    }
    return NULL;
}

static void beside_writers(void)
{
    alarm(120);
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        char path[600];
        pthread_t threads[THREADS];
        snprintf(path, sizeof path, "%s/store", test_dir());
        options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .io = io, .segment_size = 64 << 10 };
        CHECK_EQUAL(pykv_open(path, &options, &store), PYKV_OK);
        for (uintptr_t i = 0; i < THREADS; i++)
            CHECK_EQUAL(pthread_create(&threads[i], NULL, short_lives, (void *)i), 0);
        for (size_t i = 0; i < THREADS; i++)
            CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
        while (key_count() != THREADS * KEYS / 2)   /* alarm() ends it */
            nap(10);
        for (unsigned i = 0; i < THREADS * KEYS; i++) {
            char key[16];
            snprintf(key, sizeof key, "%u:%u", i / KEYS, i % KEYS);
            CHECK_EQUAL(has(key), i % 2 == 0);
        }
        CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
        close_store();
    }
}

/* A store that is closed while the keeper looks through it closes at once, and goes on when reopened. */
static void closing_meanwhile(void)
{
    char path[600], key[16];
    alarm(120);
    snprintf(path, sizeof path, "%s/store", test_dir());
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .segment_size = 64 << 10 };
    CHECK_EQUAL(pykv_open(path, &options, &store), PYKV_OK);
    for (unsigned i = 0; i < 20000; i++) {
        int size = snprintf(key, sizeof key, "%u", i);
        CHECK_EQUAL(pykv_put(store, (const uint8_t *)key, (size_t)size, NULL, 0, real_ms() + 5, DEFAULT, NULL), PYKV_OK);
    }
    while (key_count() == 20000)
        nap(1);
    while (key_count() != 0) {
        close_store();
        CHECK_EQUAL(pykv_open(path, &options, &store), PYKV_OK);
        CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
        nap(20);
    }
    close_store();
}

/* A process that is killed at such work does not keep the others from it. */
static char shared_path[600];
static int begun[2];

static void die_at_work(void *context)
{
    bool died;
    (void)context;
    CHECK_EQUAL(pykv_open(shared_path, &options, &store), PYKV_OK);
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    CHECK_EQUAL(write(begun[1], "", 1), 1);
    for (;;)
        nap(1000);
}

static void who_died_at_work_is_replaced(void)
{
    char byte;
    alarm(60);
    snprintf(shared_path, sizeof shared_path, "%s/store", test_dir());
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE };
    CHECK_EQUAL(pipe(begun), 0);
    pid_t child = test_fork(die_at_work, NULL);
    CHECK_EQUAL(read(begun[0], &byte, 1), 1);
    CHECK_EQUAL(pykv_open(shared_path, &options, &store), PYKV_OK);
    test_kill(child);
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)"k", 1, NULL, 0, real_ms() + 5, DEFAULT, NULL), PYKV_OK);
    while (key_count() != 0)
        nap(10);
    close_store();
}

/* Versions that are loaded follow each other: the removal of what expires meanwhile would take one of them. */
static void not_while_another_store_is_loaded(void)
{
    const uint32_t key_size = 1, value_size = 0;
    start(PYKV_IO_MMAP, 65536);
    for (uint64_t version = 1; version <= 9; version++) {
        uint64_t expiry = version < 9 ? now_ms() + 1000 : 0;
        uint8_t key = (uint8_t)version;
        CHECK_EQUAL(pykv_load(store, version, 1, &key, &key_size, NULL, &value_size, &expiry, DEFAULT), PYKV_OK);
        sim_advance_ms(sim, 10000);
    }
    CHECK_EQUAL(key_count(), 9);
    close_store();
    open_store();
    for (uint8_t key = 0; key_count() > 2; key++) {     /* the ninth, and what we write */
        put_sized("w", &key, 1, 0);
        sim_advance_ms(sim, 10000);
    }
    end();
}

TEST_MAIN(CASE(not_while_another_store_is_loaded), CASE(exact_to_the_millisecond), CASE(setting_the_time), CASE(values_stay), CASE(refusals),
          CASE(expired_keys_leave_the_count), CASE(a_quarter_at_most), CASE(a_record_written_during_a_walk),
          CASE(only_the_very_record_is_removed), CASE(a_walk_that_is_cut_short), CASE(a_full_disk_is_tried_again),
          CASE(long_keys), CASE(the_clock_goes_forward), CASE(the_clock_goes_back), CASE(a_snapshot_keeps_what_it_has),
          CASE(removing_is_no_change_of_a_prefix), CASE(after_compaction), CASE(after_a_recovery), CASE(beside_damage),
          CASE(beside_writers), CASE(closing_meanwhile),
          CASE(who_died_at_work_is_replaced))
