/* The keydir against a plain array, under growth, threads, failures, kill -9 and damage. The order
 * of its single stores is test_keydir_steps.c's business. */
#include "keydir.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "pykv.h"
#include "test.h"

/* A table in a file, as the engine has it, or in private memory. The shared part lies at the start
 * of the file, and room for what a test wants to share lies behind it. */
struct table {
    struct os os;
    struct space space;
    struct keydir_shared *shared;
    _Atomic uint64_t *notes;
    struct keydir *keydir;
};

#define NOTES_OFFSET 4096u

static struct table table_open(bool in_file)
{
    struct table table = { .os = os_posix };
    void *page;
    int fd = -1;
    if (in_file) {
        int dir;
        CHECK_EQUAL(os_posix.dir_open(&os_posix, test_dir(), false, 0, &dir), 0);
        CHECK_EQUAL(os_posix.file_open(&os_posix, dir, "keydir", OS_CREATE, 0600, &fd), 0);
        CHECK_EQUAL(os_posix.file_reserve(&os_posix, fd, 0, SPACE_ALIGNMENT), 0);
        close(dir);
    }
    CHECK_EQUAL(os_posix.map(&os_posix, fd, 0, SPACE_ALIGNMENT, true, &page), 0);
    table.space = (struct space){ .os = &os_posix, .fd = fd, .writable = true, .name = "keydir" };
    table.shared = page;
    table.notes = (void *)((unsigned char *)page + NOTES_OFFSET);
    atomic_store(&table.shared->space_end, SPACE_ALIGNMENT);
    CHECK_EQUAL(keydir_open(&os_posix, &table.space, table.shared, &table.keydir), PYKV_OK);
    return table;
}

static void table_close(struct table *table)
{
    keydir_close(table->keydir);
    os_posix.unmap(&os_posix, table->shared, SPACE_ALIGNMENT);
    if (table->space.fd >= 0)
        close(table->space.fd);
}

static uint64_t hash_of(uint64_t key) { return test_random(&key); }

static uint64_t location_of(uint64_t key) { return key + 1; }

/* How often a lookup comes upon `location`, and whether it is dead there. */
static unsigned find(struct keydir *keydir, uint64_t hash, uint64_t location, bool *dead)
{
    struct keydir_probe probe;
    unsigned times;
    do {
        uint64_t found;
        times = 0;
        CHECK_EQUAL(keydir_probe(keydir, hash, &probe), PYKV_OK);
        while ((found = keydir_probe_next(keydir, &probe)) != 0)
            if (found == location) {
                times++;
                *dead = probe.dead;
            }
    } while (times == 0 && keydir_probe_moved(keydir, &probe));
    return times;
}

static bool has(struct keydir *keydir, uint64_t key)
{
    bool dead;
    return find(keydir, hash_of(key), location_of(key), &dead) == 1;
}

static void put(struct keydir *keydir, uint64_t key)
{
    CHECK_EQUAL(keydir_reserve(keydir, 1), PYKV_OK);
    CHECK(keydir_insert(keydir, hash_of(key), location_of(key), false));
}

static void a_new_table_is_empty_and_small(void)
{
    struct table table = table_open(false);
    CHECK(!has(table.keydir, 7));
    CHECK(!keydir_remove(table.keydir, hash_of(7), location_of(7)));
    CHECK_EQUAL(keydir_memory_size(table.keydir), 65536);
    table_close(&table);
}

/* Where a lookup finds the slot of `location`. */
static struct keydir_place place_of(struct keydir *keydir, uint64_t hash, uint64_t location)
{
    struct keydir_probe probe;
    uint64_t found;
    CHECK_EQUAL(keydir_probe(keydir, hash, &probe), PYKV_OK);
    while ((found = keydir_probe_next(keydir, &probe)) != location)
        CHECK(found != 0);
    return keydir_probe_place(&probe);
}

/* Goal: every call does what it would do to an array of (hash, location, dead).
 * Method: random calls; few distinct hashes, so that many slots share one and chains grow long. The
 * places that replacements are told are of any age: slots have moved since, and places are others'. */
static void agrees_with_an_array(void)
{
    enum { SLOTS = 9000, HASHES = 3000 };
    struct { uint64_t hash, location; bool dead; struct keydir_place place; } *model = calloc(SLOTS, sizeof *model);
    struct table table = table_open(false);
    uint64_t random = 1, next_location = 1, used = 0;
    bool dead = false;
    for (unsigned step = 0; step < 60000; step++) {
        size_t i = test_random(&random) % SLOTS;
        uint64_t hash = model[i].hash, location = model[i].location, to = next_location++;
        bool new_dead = test_random(&random) % 4 == 0;
        if (location == 0) {
            CHECK_EQUAL(keydir_reserve(table.keydir, 1), PYKV_OK);
            hash = hash_of(test_random(&random) % HASHES);
            CHECK(keydir_insert(table.keydir, hash, to, new_dead));
            model[i].hash = hash, model[i].location = to, model[i].dead = new_dead;
            used++;
        } else if (test_random(&random) % 2 == 0) {
            CHECK(keydir_replace(table.keydir, hash, model[i].place, location, to, new_dead));
            CHECK(!keydir_replace(table.keydir, hash, model[i].place, location, to, new_dead));
            model[i].location = to, model[i].dead = new_dead;
            if (test_random(&random) % 2 == 0)
                model[i].place = place_of(table.keydir, hash, to);
        } else {
            CHECK_EQUAL(find(table.keydir, hash, location, &dead), 1);
            CHECK_EQUAL(dead, model[i].dead);
            CHECK(keydir_remove(table.keydir, hash, location));
            CHECK(!keydir_holds(table.keydir, hash, location));
            model[i].location = 0;
            used--;
        }
        CHECK_EQUAL(atomic_load(&table.shared->slot_count), used);
    }
    for (size_t i = 0; i < SLOTS; i++)
        if (model[i].location != 0) {
            CHECK_EQUAL(find(table.keydir, model[i].hash, model[i].location, &dead), 1);
            CHECK_EQUAL(dead, model[i].dead);
            CHECK(keydir_holds(table.keydir, model[i].hash, model[i].location));
        }
    free(model);
    table_close(&table);
}

static void costs_at_most_12_bytes_a_key(void)
{
    struct table table = table_open(false);
    for (uint64_t key = 0; key < 1500000; key++) {
        put(table.keydir, key);
        if (key >= 1000000)
            CHECK(keydir_memory_size(table.keydir) <= 12 * key);
    }
    for (uint64_t key = 0; key < 1500000; key += 7)
        CHECK(has(table.keydir, key));
    table_close(&table);
}

static void a_reserve_covers_all_inserts(void)
{
    static const uint64_t counts[] = { 1, 10, 1000, 5000, 300000 };
    struct table table = table_open(true);
    uint64_t key = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        CHECK_EQUAL(keydir_reserve(table.keydir, counts[i]), PYKV_OK);
        uint64_t size = keydir_memory_size(table.keydir), end = key + counts[i];
        for (; key < end; key++)
            CHECK(keydir_insert(table.keydir, hash_of(key), location_of(key), false));
        CHECK_EQUAL(keydir_memory_size(table.keydir), size);
    }
    CHECK(keydir_memory_size(table.keydir) < 13 * key);
    CHECK_EQUAL(keydir_reserve(table.keydir, UINT64_MAX), PYKV_FULL);
    table_close(&table);
}

/* Slots and nodes that were let go are used again: a table whose keys come and go does not grow. */
static void room_is_used_again(void)
{
    struct table table = table_open(false);
    uint64_t key = 0, size = 0;
    for (; key < 50000; key++)
        put(table.keydir, key);
    for (; key < 500000; key++) {
        CHECK(keydir_remove(table.keydir, hash_of(key - 50000), location_of(key - 50000)));
        put(table.keydir, key);
        if (key == 150000)
            size = keydir_memory_size(table.keydir);
    }
    CHECK(keydir_memory_size(table.keydir) <= size + 65536);
    table_close(&table);
}

/* Goal: an iteration meets each key that was there at its start exactly once, however much the
 * table grows, and gives back hashes from which the table can be built again.
 * Method: insert many keys between any two buckets. */
static void collects_each_key_once_while_growing(void)
{
    enum { KEYS_BEFORE = 20000, CAPACITY = 4096 };
    struct table table = table_open(false), copy = table_open(false);
    unsigned char *seen = calloc(1 << 20, 1);
    uint64_t slots[CAPACITY], key = 0;
    size_t count;
    for (; key < KEYS_BEFORE; key++)
        put(table.keydir, key);
    uint64_t bucket_count = atomic_load(&table.shared->bucket_count);
    CHECK(bucket_count > 2048 && bucket_count < 4096);
    for (uint64_t bucket = 0; bucket < bucket_count; bucket++) {
        CHECK_EQUAL(keydir_collect(table.keydir, bucket_count, bucket, slots, CAPACITY, &count),
                    PYKV_OK);
        for (size_t i = 0; i < count; i++) {
            uint64_t location = keydir_slot_location(slots[i]);
            CHECK(location <= key);
            seen[location]++;
            CHECK_EQUAL(keydir_reserve(copy.keydir, 1), PYKV_OK);
            CHECK(keydir_insert(copy.keydir, keydir_slot_hash(slots[i], bucket), location, false));
        }
        for (unsigned i = 0; i < 30; i++)
            put(table.keydir, key++);
    }
    CHECK(atomic_load(&table.shared->bucket_count) > 4 * bucket_count);
    for (uint64_t i = 0; i < key; i++) {
        CHECK(seen[location_of(i)] == 1 || (i >= KEYS_BEFORE && seen[location_of(i)] == 0));
        CHECK_EQUAL(has(copy.keydir, i), seen[location_of(i)]);
    }
    CHECK_EQUAL(keydir_collect(table.keydir, bucket_count, 0, slots, 1, &count), PYKV_NO_MEMORY);
    CHECK(count > 1);
    free(seen);
    table_close(&table);
    table_close(&copy);
}

/* ---- Threads ---- */

#define THREAD_KEYS 60000u
#define THREAD_WINDOW 30000u

struct reader {
    struct table *table;
    uint64_t seed;
    atomic_bool *stop;
    void *thread;
};

/* Keys [notes[0], notes[1]) are in the table all the while between two looks at the notes. */
static void read_until_stopped(void *context)
{
    struct reader *reader = context;
    struct table *table = reader->table;
    uint64_t slots[512];
    size_t count;
    bool dead;
    while (!atomic_load(reader->stop)) {
        uint64_t end = atomic_load(&table->notes[1]);
        uint64_t begin = end > THREAD_WINDOW / 2 ? end - THREAD_WINDOW / 2 : 0;
        uint64_t key = begin + test_random(&reader->seed) % (end - begin);
        unsigned times = find(table->keydir, hash_of(key), location_of(key), &dead);
        bool held = keydir_holds(table->keydir, hash_of(key), location_of(key));
        CHECK((times > 0 && held) || atomic_load(&table->notes[0]) > key);
        uint64_t bucket_count = atomic_load(&table->shared->bucket_count);
        int status = keydir_collect(table->keydir, bucket_count, key % bucket_count, slots, 512,
                                    &count);
        CHECK_EQUAL(status, PYKV_OK);
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < i; j++)
                CHECK(slots[i] != slots[j]);
    }
}

static void readers_miss_nothing_while_the_table_changes(void)
{
    struct table table = table_open(true);
    struct reader readers[3];
    atomic_bool stop = false;
    put(table.keydir, 0);
    atomic_store(&table.notes[1], 1);
    for (size_t i = 0; i < 3; i++) {
        readers[i] = (struct reader){ .table = &table, .seed = i, .stop = &stop };
        CHECK_EQUAL(os_posix.thread_start(&os_posix, read_until_stopped, &readers[i],
                                          &readers[i].thread), 0);
    }
    for (uint64_t key = 1; key < THREAD_KEYS; key++) {
        put(table.keydir, key);
        atomic_store(&table.notes[1], key + 1);
        if (key >= THREAD_WINDOW) {             /* and old ones go, which packs chains */
            uint64_t old = key - THREAD_WINDOW;
            atomic_store(&table.notes[0], old + 1);
            CHECK(keydir_remove(table.keydir, hash_of(old), location_of(old)));
        }
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 3; i++)
        os_posix.thread_join(&os_posix, readers[i].thread);
    table_close(&table);
}

/* ---- Failures ---- */

static int reserve_fails(const struct os *os, int fd, uint64_t offset, uint64_t size)
{
    (void)os, (void)fd, (void)offset, (void)size;
    return ENOSPC;
}

static int map_fails(const struct os *os, int fd, uint64_t offset, size_t size, bool writable,
                     void **out)
{
    (void)os, (void)fd, (void)offset, (void)size, (void)writable, (void)out;
    return ENOMEM;
}

static void a_full_disk_changes_nothing(void)
{
    struct table table = table_open(true);
    struct keydir *other;
    struct os os = os_posix;
    struct space space = table.space;
    uint64_t key = 0;
    int status;
    space.os = &os;
    CHECK_EQUAL(keydir_open(&os, &space, table.shared, &other), PYKV_OK);
    os.file_reserve = reserve_fails;
    while ((status = keydir_reserve(other, 1)) == PYKV_OK) {
        CHECK(keydir_insert(other, hash_of(key), location_of(key), false));
        key++;
    }
    CHECK_EQUAL(status, PYKV_FULL);
    CHECK_EQUAL(keydir_reserve(other, 1000000), PYKV_FULL);
    for (uint64_t i = 0; i < key; i++)
        CHECK(has(other, i) && has(table.keydir, i));
    for (uint64_t i = 0; i < 40000; i++)
        put(table.keydir, key + i);             /* the other one has room, so both do */
    for (uint64_t i = 0; i < key + 40000; i++)
        CHECK(has(other, i));
    keydir_close(other);
    table_close(&table);
}

/* Goal: a lookup that cannot map what it needs says so, and never "absent". */
static void a_failed_mapping_is_no_absence(void)
{
    struct table table = table_open(true);
    struct keydir *other;
    struct os os = os_posix;
    struct space space = table.space;
    struct keydir_probe probe;
    uint64_t key = 0, found, missed = 0;
    space.os = &os;
    for (; key < 6500; key++)
        put(table.keydir, key);                 /* buckets of extent 0, and nodes */
    CHECK_EQUAL(keydir_open(&os, &space, table.shared, &other), PYKV_OK);
    CHECK_EQUAL(keydir_probe(other, 0, &probe), PYKV_OK);
    os.map = map_fails;
    for (uint64_t i = 0; i < key; i++) {
        CHECK_EQUAL(keydir_probe(other, hash_of(i), &probe), PYKV_OK);
        while ((found = keydir_probe_next(other, &probe)) != 0 && found != location_of(i))
            ;
        CHECK_EQUAL(probe.status, found != 0 ? PYKV_OK : PYKV_NO_MEMORY);
        CHECK_EQUAL(keydir_holds(other, hash_of(i), location_of(i)), found != 0);   /* and ends */
        missed += found == 0;
    }
    CHECK(missed > 0);
    for (; key < 100000; key++)
        put(table.keydir, key);
    CHECK_EQUAL(keydir_probe(other, UINT64_MAX >> 31 & ~UINT64_C(0x10000), &probe), PYKV_NO_MEMORY);
    os.map = os_posix.map;
    for (uint64_t i = 0; i < key; i++)
        CHECK(has(other, i));
    keydir_close(other);
    table_close(&table);
}

/* ---- Death ---- */

#define DEATHS 25

/* Notes: keys [notes[0], notes[1]) are acknowledged. Each is moved once on the way: notes[2]. */
static uint64_t moved_location(uint64_t key) { return location_of(key) + (UINT64_C(1) << 32); }

static void write_until_killed(void *context)
{
    struct table *table = context;
    for (;;) {
        uint64_t key = atomic_load(&table->notes[1]);
        put(table->keydir, key);
        atomic_store(&table->notes[1], key + 1);
        uint64_t move = atomic_load(&table->notes[2]);
        if (move + 100 < key) {
            CHECK(keydir_replace(table->keydir, hash_of(move), (struct keydir_place){ 0 }, location_of(move),
                                 moved_location(move), false));
            atomic_store(&table->notes[2], move + 1);
        }
        uint64_t old = atomic_load(&table->notes[0]);
        if (old + 20000 < move) {
            atomic_store(&table->notes[0], old + 1);
            CHECK(keydir_remove(table->keydir, hash_of(old), moved_location(old)));
        }
    }
}

static void check_acknowledged(const struct table *table, struct keydir *keydir, bool once)
{
    uint64_t begin = atomic_load(&table->notes[0]), end = atomic_load(&table->notes[1]);
    for (uint64_t key = begin; key < end; key++) {
        uint64_t moved = atomic_load(&table->notes[2]);
        bool dead;
        unsigned times = find(keydir, hash_of(key), moved_location(key), &dead);
        if (key >= moved)
            times += find(keydir, hash_of(key), location_of(key), &dead);
        CHECK(once ? times == 1 : times > 0);
    }
}

/* What the engine does by replaying its log: the call that was under way is done over. */
static void redo(struct table *table, struct keydir *keydir)
{
    uint64_t key = atomic_load(&table->notes[1]), move = atomic_load(&table->notes[2]);
    uint64_t old = atomic_load(&table->notes[0]);
    if (keydir_holds(keydir, hash_of(key), location_of(key)))
        CHECK(keydir_remove(keydir, hash_of(key), location_of(key)));
    if (keydir_holds(keydir, hash_of(move), moved_location(move)))
        atomic_store(&table->notes[2], move + 1);
    if (old > 0)
        keydir_remove(keydir, hash_of(old - 1), moved_location(old - 1));
}

static void a_killed_writer_loses_nothing(void)
{
    struct table table = table_open(true);
    uint64_t random = 3;
    uint32_t never = 0;
    for (unsigned death = 0; death < DEATHS; death++) {
        struct keydir *keydir;
        pid_t child = test_fork(write_until_killed, &table);
        os_posix.wait(&os_posix, &never, 0, 1 + (uint32_t)(test_random(&random) % 20));
        test_kill(child);
        CHECK_EQUAL(keydir_open(&os_posix, &table.space, table.shared, &keydir), PYKV_OK);
        check_acknowledged(&table, keydir, false);      /* before any repair */
        CHECK_EQUAL(keydir_repair(keydir), PYKV_OK);
        redo(&table, keydir);
        check_acknowledged(&table, keydir, true);
        uint64_t slots = atomic_load(&table.shared->slot_count);
        uint64_t keys = atomic_load(&table.notes[1]) - atomic_load(&table.notes[0]);
        CHECK(slots + death + 1 >= keys && slots <= keys + death + 1);
        keydir_close(keydir);
    }
    CHECK(atomic_load(&table.notes[1]) > 1000);
    table_close(&table);
}

/* ---- Damage ---- */

static void refuses_a_damaged_shared_part(void)
{
    struct table table = table_open(true);
    struct keydir *keydir;
    for (uint64_t key = 0; key < 30000; key++)
        put(table.keydir, key);
    struct keydir_shared whole = *table.shared;
    struct { _Atomic uint64_t *word; uint64_t value; } damage[] = {
        { &table.shared->bucket_count, 1 },
        { &table.shared->bucket_count, atomic_load(&whole.bucket_reserved) + 1 },
        { &table.shared->bucket_reserved, UINT64_C(1) << 40 },
        { &table.shared->bucket_reserved, atomic_load(&whole.bucket_reserved) + 1 },
        { &table.shared->bucket_reserved, atomic_load(&whole.bucket_reserved) * 2 },
        { &table.shared->node_reserved, UINT64_MAX },
        { &table.shared->node_count, atomic_load(&whole.node_reserved) + 1 },
        { &table.shared->node_free, UINT64_MAX },
        { &table.shared->node_free_count, UINT64_MAX },
        { &table.shared->slot_count, UINT64_MAX },
        { &table.shared->moving, atomic_load(&whole.bucket_count) + 1 },
        { &table.shared->space_end, SPACE_ALIGNMENT },
        { &table.shared->space_end, UINT64_MAX },
        { &table.shared->bucket_extent[0], 0 },
        { &table.shared->bucket_extent[0], SPACE_ALIGNMENT + 1 },
        { &table.shared->bucket_extent[0], UINT64_MAX & ~UINT64_C(0xFFFF) },
        { &table.shared->bucket_extent[1], atomic_load(&whole.bucket_extent[0]) },
        { &table.shared->bucket_extent[0], atomic_load(&whole.node_extent[0]) },
        { &table.shared->node_extent[0], 0 },
    };
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        uint64_t value = atomic_exchange(damage[i].word, damage[i].value);
        CHECK_EQUAL(keydir_open(&os_posix, &table.space, table.shared, &keydir), PYKV_CORRUPT);
        atomic_store(damage[i].word, value);
    }
    CHECK_EQUAL(keydir_open(&os_posix, &table.space, table.shared, &keydir), PYKV_OK);
    keydir_close(keydir);
    CHECK_EQUAL(os_posix.file_truncate(&os_posix, table.space.fd, 4 * SPACE_ALIGNMENT), 0);
    CHECK_EQUAL(keydir_open(&os_posix, &table.space, table.shared, &keydir), PYKV_CORRUPT);
    table_close(&table);
}

/* Goal: whatever the slots hold, each call ends, and touches nothing outside.
 * Method: overwrite words at random, with rubbish and with links that run in circles. */
static void survives_damaged_slots(void)
{
    uint64_t random = 5, slots[64];
    for (unsigned round = 0; round < 20; round++) {
        struct table table = table_open(false);
        struct keydir_probe probe;
        size_t count;
        for (uint64_t key = 0; key < 12000; key++)
            put(table.keydir, key);
        for (unsigned i = 0; i < 2000; i++) {
            CHECK_EQUAL(keydir_probe(table.keydir, test_random(&random), &probe), PYKV_OK);
            uint64_t value = test_random(&random);
            if (i % 2 == 0)
                value = value % 3000 | UINT64_C(4095) << 28;
            atomic_store((_Atomic uint64_t *)&probe.group[7], value);
        }
        for (uint64_t key = 0; key < 12000; key++) {
            CHECK_EQUAL(keydir_probe(table.keydir, hash_of(key), &probe), PYKV_OK);
            for (count = 0; keydir_probe_next(table.keydir, &probe) != 0; count++)
                CHECK(count < 1000);
            keydir_holds(table.keydir, hash_of(key), location_of(key));
            if (key % 3 == 0)
                keydir_remove(table.keydir, hash_of(key), location_of(key));
            else if (keydir_reserve(table.keydir, 1) == PYKV_OK)
                keydir_insert(table.keydir, hash_of(key + 12000), location_of(key), false);
            keydir_collect(table.keydir, 1024, key % 1024, slots, 64, &count);
        }
        atomic_store(&table.shared->moving, 1 + round);
        keydir_repair(table.keydir);
        table_close(&table);
    }
}

TEST_MAIN(CASE(a_new_table_is_empty_and_small), CASE(agrees_with_an_array),
          CASE(costs_at_most_12_bytes_a_key), CASE(a_reserve_covers_all_inserts),
          CASE(room_is_used_again), CASE(collects_each_key_once_while_growing),
          CASE(readers_miss_nothing_while_the_table_changes), CASE(a_full_disk_changes_nothing),
          CASE(a_failed_mapping_is_no_absence), CASE(a_killed_writer_loses_nothing),
          CASE(refuses_a_damaged_shared_part), CASE(survives_damaged_slots))
