/* A put that is done at once or not at all: what makes it say no, and that nothing has changed then. */
#include "pykv.h"
#include "sim_os.h"
#include "store.h"
#include "test.h"

#define VALUE_SIZE 100u

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;

/* Nothing is known to be due until there is more of the log: so the threads leave it that the simulated machine
 * does not have. */
static void be_quiet(void)
{
    atomic_store(&store->looked_until, atomic_load(&store->shared->tail) + 4096 / RECORD_ALIGNMENT);
}

static int put(uint32_t key)
{
    static const uint8_t value[VALUE_SIZE];
    return pykv_put(store, (uint8_t *)&key, sizeof key, value, sizeof value, 0, PYKV_DURABILITY_DEFAULT, NULL);
}

static bool put_at_once(uint32_t key, size_t size)
{
    static const uint8_t value[PYKV_KEY_SIZE_MAX];
    return pykv_put_at_once(store, (uint8_t *)&key, sizeof key, value, size);
}

static bool has(uint32_t key) { return pykv_contains(store, (uint8_t *)&key, sizeof key, NULL) == PYKV_OK; }

static void open_store(void)
{
    int status = pykv_open_with(sim_os(sim), "/store", &options, &store);
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
}

static void close_store(void)
{
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
}

static void start(void)
{
    sim = sim_new(1);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .segment_size = 1 << 20 };
    open_store();
    CHECK_EQUAL(put(0), PYKV_OK);
    be_quiet();
}

static void end(void)
{
    close_store();
    sim_free(sim);
}

/* It is as if it had never been asked. */
static void check_refused(uint32_t key, size_t size)
{
    uint64_t tail = atomic_load(&store->shared->tail), sequence = shared_sequence(store->shared);
    uint64_t reserved = atomic_load(&store->shared->reserved);
    CHECK(!put_at_once(key, size));
    CHECK(!has(key));
    CHECK_EQUAL(atomic_load(&store->shared->tail), tail);
    CHECK_EQUAL(atomic_load(&store->shared->writing_end), tail);
    CHECK_EQUAL(atomic_load(&store->shared->reserved), reserved);
    CHECK_EQUAL(shared_sequence(store->shared), sequence);
}

static void most_puts_are_done_at_once(void)
{
    unsigned done = 0;
    start();
    for (uint32_t key = 1; key < 10000; key++) {
        bool at_once = put_at_once(key, VALUE_SIZE);
        CHECK_EQUAL(has(key), at_once);
        done += at_once;
        if (at_once)
            continue;
        CHECK_EQUAL(put(key), PYKV_OK);
        be_quiet();
    }
    CHECK(done > 9000);
    close_store();
    open_store();
    for (uint32_t key = 0; key < 10000; key++)
        CHECK(has(key));
    end();
}

static void it_replaces_what_is_there(void)
{
    const uint32_t key = 0;
    uint8_t value[8];
    start();
    CHECK(pykv_put_at_once(store, (const uint8_t *)&key, sizeof key, (const uint8_t *)"new", 3));
    CHECK_EQUAL(pykv_get(store, (const uint8_t *)&key, sizeof key, value, sizeof value, NULL), 3);
    CHECK_BYTES(value, "new", 3);
    end();
}

static void not_while_somebody_writes(void)
{
    bool died;
    start();
    CHECK(shared_lock_try(&store->shared->writer, &store->process, &died));
    check_refused(1, VALUE_SIZE);
    store_unlock(store);
    CHECK(put_at_once(1, VALUE_SIZE));
    end();
}

/* One who died in a write left this behind; the next pykv_put() repairs it. */
static void not_where_something_is_to_be_repaired(void)
{
    start();
    uint64_t tail = atomic_load(&store->shared->tail);
    atomic_store(&store->shared->writing_end, tail + 64 / RECORD_ALIGNMENT);
    CHECK(!put_at_once(1, VALUE_SIZE));
    CHECK(!has(1));
    CHECK_EQUAL(put(1), PYKV_OK);
    CHECK_EQUAL(atomic_load(&store->shared->writing_end), atomic_load(&store->shared->tail));
    be_quiet();
    CHECK(put_at_once(2, VALUE_SIZE));
    end();
}

static void not_where_it_would_do_the_work_of_helpers(void)
{
    start();
    atomic_store(&store->looked_until, atomic_load(&store->shared->tail));
    check_refused(1, VALUE_SIZE);
    end();
}

/* Neither blocks for the log, nor a new segment. */
static void not_where_room_must_be_made(void)
{
    start();
    uint64_t tail = atomic_load(&store->shared->tail), reserved = atomic_load(&store->shared->reserved);
    uint64_t left = position_offset(reserved) - position_offset(tail);
    CHECK(left < PYKV_KEY_SIZE_MAX);
    check_refused(1, left);
    check_refused(1, left - 24 - sizeof(uint32_t));     /* and none for the seal */
    CHECK(put_at_once(1, VALUE_SIZE));
    end();
}

static void not_where_the_disk_is_to_be_waited_for(void)
{
    start();
    close_store();
    options.durability = PYKV_DURABILITY_COMMIT;
    open_store();
    CHECK_EQUAL(put(0), PYKV_OK);
    be_quiet();
    check_refused(1, VALUE_SIZE);
    end();
}

static void not_into_what_cannot_be_written(void)
{
    const uint8_t key[PYKV_KEY_SIZE_MAX + 1] = { 0 };
    start();
    CHECK(!pykv_put_at_once(store, key, sizeof key, key, 1));
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    CHECK(!put_at_once(1, VALUE_SIZE));
    pykv_free(store);
    CHECK(!pykv_put_at_once(NULL, key, 1, key, 1));
    options.flag = PYKV_FLAG_READ;
    open_store();
    CHECK(!put_at_once(1, VALUE_SIZE));
    CHECK(!has(1));
    end();
}

TEST_MAIN(CASE(most_puts_are_done_at_once), CASE(it_replaces_what_is_there), CASE(not_while_somebody_writes),
          CASE(not_where_something_is_to_be_repaired), CASE(not_where_it_would_do_the_work_of_helpers),
          CASE(not_where_room_must_be_made), CASE(not_where_the_disk_is_to_be_waited_for),
          CASE(not_into_what_cannot_be_written))
