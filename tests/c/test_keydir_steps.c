/* The keydir store by store: the orders in which a writer and a reader can meet, and a death of the
 * writer after every single store.
 *
 * keydir.c is compiled into this program with its atomic stores and loads replaced. The stores of a
 * script of changes are recorded, each with the value that it overwrote, so that the memory can be
 * put into any of the states that the script went through. A reader then runs with the writer
 * stepping on between two of its loads. This is the order of one store after the other; that the
 * processor keeps to it is what acquire and release are for. */
#include "area.h"
#include "error.h"
#include "keydir.h"
#include "test.h"

static uint64_t hooked_load(const _Atomic uint64_t *from);
static void hooked_store(_Atomic uint64_t *to, uint64_t value);
#pragma push_macro("atomic_load_explicit")
#pragma push_macro("atomic_store_explicit")
#undef atomic_load_explicit
#undef atomic_store_explicit
#define atomic_load_explicit(from, order) hooked_load(from)
#define atomic_store_explicit(to, value, order) hooked_store(to, value)
#include "keydir.c"
#pragma pop_macro("atomic_load_explicit")
#pragma pop_macro("atomic_store_explicit")

#define RECORD_MAX 100000u

static struct { _Atomic uint64_t *word; uint64_t before, after; } record[RECORD_MAX];
static size_t record_count;             /* stores recorded */
static size_t script_count;             /* of these, the script's */
static size_t now;                      /* stores that the memory has seen */

static void (*before_load)(void);       /* what happens between two loads of the reader */

static uint64_t hooked_load(const _Atomic uint64_t *from)
{
    if (before_load != NULL)
        before_load();
    return atomic_load_explicit(from, memory_order_relaxed);
}

static void hooked_store(_Atomic uint64_t *to, uint64_t value)
{
    CHECK(record_count < RECORD_MAX);
    record[record_count].word = to;
    record[record_count].before = atomic_exchange(to, value);
    record[record_count++].after = value;
    now = record_count;
}

/* Put the memory into the state after `count` stores. */
static void go_to(size_t count)
{
    while (now < count) {
        atomic_store(record[now].word, record[now].after);
        now++;
    }
    while (now > count) {
        now--;
        atomic_store(record[now].word, record[now].before);
    }
}

static struct space space;
static struct keydir_shared shared;
static struct keydir *keydir;

/* Keys of a few buckets; `stays` while the script runs. Bit 10 of the hash decides which half of a
 * split a key goes to. */
static struct { uint64_t hash, location; bool stays; } keys[128];
static size_t key_count;

static void insert_key(uint64_t bucket, bool stays)
{
    uint64_t random = key_count, hash = test_random(&random) << 10 | bucket;
    CHECK(keydir_insert(keydir, hash, key_count + 1, false));
    keys[key_count].hash = hash;
    keys[key_count].location = key_count + 1;
    keys[key_count++].stays = stays;
}

static void insert_keys(uint64_t bucket, size_t count, bool stays)
{
    while (count-- > 0)
        insert_key(bucket, stays);
}

static void remove_key(size_t key)
{
    CHECK(keydir_remove(keydir, keys[key].hash, keys[key].location));
}

#define OTHER_LOCATION 1000u            /* where key 30 is for a moment */

/* Long chains are split, shrink by one slot after another, and their nodes go to other chains. */
static void run_script(void)
{
    CHECK_EQUAL(split(keydir), PYKV_OK);        /* bucket 0, a long chain */
    insert_keys(2, 7, false);                   /* takes nodes that bucket 0 let go */
    for (size_t key = 0; key < 24; key += 2)
        remove_key(key);
    CHECK_EQUAL(split(keydir), PYKV_OK);        /* bucket 1: one node */
    insert_keys(0, 4, false);
    insert_keys(3, 4, false);
    CHECK_EQUAL(split(keydir), PYKV_OK);        /* bucket 2 */
    insert_keys(1024, 6, false);
    for (size_t key = 24; key < 30; key += 2)
        remove_key(key);
    CHECK(keydir_replace(keydir, keys[30].hash, (struct keydir_place){ 0 }, keys[30].location, OTHER_LOCATION, true));
    CHECK(keydir_replace(keydir, keys[30].hash, (struct keydir_place){ 0 }, OTHER_LOCATION, keys[30].location, false));
}

static bool is_of(size_t key, uint64_t location)
{
    return location == keys[key].location || (key == 30 && location == OTHER_LOCATION);
}

static void prepare(void)
{
    space = (struct space){ .os = &os_posix, .fd = -1, .writable = true, .name = "keydir" };
    atomic_store(&shared.space_end, SPACE_ALIGNMENT);
    CHECK_EQUAL(keydir_open(&os_posix, &space, &shared, &keydir), PYKV_OK);
    CHECK_EQUAL(area_reserve(&keydir->buckets, 2048), PYKV_OK);     /* so that all of them are */
    CHECK_EQUAL(area_reserve(&keydir->nodes, 2048), PYKV_OK);       /* keydir.c's own stores */
    for (size_t i = 0; i < 31; i++)
        insert_key(0, i >= 30 || i % 2 == 1);
    insert_keys(1, 10, true);
    insert_keys(2, 12, true);
    insert_keys(3, 8, true);                    /* full: the last one has to make room for a link */
    size_t stays = key_count;
    record_count = now = 0;
    run_script();
    script_count = record_count;
    CHECK(script_count > 150 && stays > 40);
}

/* ---- Readers ---- */

static size_t load_number, step_at_load, step_to;

static void step_once(void)
{
    if (load_number++ == step_at_load)
        go_to(step_to);
}

static uint64_t schedule_random;

static void step_at_random(void)
{
    if (test_random(&schedule_random) % 4 == 0 && now < script_count)
        go_to(now + 1 + test_random(&schedule_random) % (script_count - now) % 40);
}

/* One look for a key that is there all the time: found, or told to look again. Returns how many
 * loads it took. */
static size_t check_one_look(size_t key)
{
    struct keydir_probe probe;
    uint64_t found;
    load_number = 0;
    CHECK_EQUAL(keydir_probe(keydir, keys[key].hash, &probe), PYKV_OK);
    while ((found = keydir_probe_next(keydir, &probe)) != 0 && !is_of(key, found))
        ;
    CHECK(found != 0 || keydir_probe_moved(keydir, &probe));
    return load_number;
}

/* Method: for each key, each state to begin in, each load, each of the next states to find from
 * there on. */
static void a_reader_misses_nothing_whenever_the_writer_steps_on(void)
{
    prepare();
    before_load = step_once;
    for (size_t key = 0; key < key_count; key++)
        for (size_t from = 0; keys[key].stays && from < script_count; from++)
            for (step_to = from + 1; step_to <= script_count && step_to <= from + 50; step_to++) {
                size_t loads = 1;
                for (step_at_load = 0; step_at_load < loads; step_at_load++) {
                    go_to(from);
                    loads = check_one_look(key);
                }
            }
    before_load = NULL;
}

static void a_reader_misses_nothing_in_random_schedules(void)
{
    prepare();
    before_load = step_at_random;
    for (unsigned run = 0; run < 300000; run++) {
        size_t key = test_random(&schedule_random) % key_count;
        go_to(test_random(&schedule_random) % script_count);
        if (keys[key].stays)
            check_one_look(key);
    }
    before_load = NULL;
}

/* ---- Death ---- */

/* What comes after a death is recorded behind the script, and undone before the next. */
static void undo_since_death(size_t death)
{
    while (record_count > script_count) {
        record_count--;
        atomic_store(record[record_count].word, record[record_count].before);
    }
    now = death;
}

static unsigned times_found(size_t key)
{
    struct keydir_probe probe;
    uint64_t found;
    unsigned times = 0;
    CHECK_EQUAL(keydir_probe(keydir, keys[key].hash, &probe), PYKV_OK);
    while ((found = keydir_probe_next(keydir, &probe)) != 0)
        times += is_of(key, found);
    CHECK(!keydir_probe_moved(keydir, &probe));
    return times;
}

/* No slot in a bucket that is not its own, and no chain longer than it must be; but where a remove
 * or an insert died in the middle, one slot. Counts the nodes that are in chains. */
static uint64_t check_chains(void)
{
    static struct chain chain;
    uint64_t bucket_count = atomic_load(&shared.bucket_count), nodes = 0;
    for (uint64_t bucket = 0; bucket < bucket_count; bucket++) {
        size_t slots = 0;
        CHECK_EQUAL(chain_read(keydir, bucket, &chain), PYKV_OK);
        for (size_t i = 0; i < chain.place_count; i++) {
            CHECK(chain.value[i] == 0 || slot_belongs(chain.value[i], bucket, bucket_count));
            slots += chain.value[i] != 0;
        }
        CHECK(chain.group_count == 1 || slots > slots_before_link(chain.group_count - 1));
        nodes += chain.group_count - 1;
    }
    return nodes;
}

static void a_death_after_any_store_loses_nothing(void)
{
    prepare();
    for (size_t death = 0; death <= script_count; death++) {
        go_to(death);
        for (size_t key = 0; key < key_count; key++)
            CHECK(!keys[key].stays || times_found(key) > 0);
        record_count = script_count;
        CHECK_EQUAL(keydir_repair(keydir), PYKV_OK);
        for (size_t key = 0; key < key_count; key++)
            CHECK(times_found(key) <= 1 && (!keys[key].stays || times_found(key) == 1));
        uint64_t known = check_chains() + atomic_load(&shared.node_free_count);
        CHECK(known + 6 >= atomic_load(&shared.node_count));    /* the lost: of one chain at most */
        CHECK(known <= atomic_load(&shared.node_count));
        for (unsigned i = 0; i < 20; i++)
            CHECK_EQUAL(split(keydir), PYKV_OK);
        for (uint64_t i = 0; i < 60; i++)
            CHECK(keydir_insert(keydir, i << 10 | i % 3, 2000 + i, false));
        check_chains();
        for (size_t key = 0; key < key_count; key++)
            CHECK(!keys[key].stays || times_found(key) == 1);
        undo_since_death(death);
    }
}

static void die_and_repair(void)
{
    if (load_number++ != step_at_load)
        return;
    before_load = NULL;
    go_to(step_to);
    record_count = script_count;
    CHECK_EQUAL(keydir_repair(keydir), PYKV_OK);
}

/* Method: from each of the states before a death, a reader at each of whose loads the writer dies
 * and the next one repairs. */
static void a_reader_misses_nothing_while_the_dead_is_repaired(void)
{
    prepare();
    for (size_t key = 0; key < key_count; key++)
        for (step_to = 1; keys[key].stays && step_to <= script_count; step_to++)
            for (size_t from = step_to > 20 ? step_to - 20 : 0; from < step_to; from++) {
                size_t loads = 1;
                for (step_at_load = 0; step_at_load < loads; step_at_load++) {
                    go_to(from);
                    before_load = die_and_repair;
                    size_t count = check_one_look(key);
                    if (before_load == NULL) {
                        undo_since_death(step_to);
                        loads = step_at_load + 2;
                    } else {
                        loads = count;
                    }
                }
            }
    before_load = NULL;
}

TEST_MAIN(CASE(a_reader_misses_nothing_whenever_the_writer_steps_on),
          CASE(a_reader_misses_nothing_in_random_schedules),
          CASE(a_death_after_any_store_loses_nothing),
          CASE(a_reader_misses_nothing_while_the_dead_is_repaired))
