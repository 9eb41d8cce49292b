/* Corners of the store that a review looked into: each is a fact that was not one before. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#define PATH "/store"

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;

static void start(void)
{
    alarm(60);                         /* what hangs is to fail, and soon */
    sim = sim_new(1);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .segment_size = 65536 };
}

static void open_store(void)
{
    if (pykv_open_with(sim_os(sim), PATH, &options, &store) != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %s", pykv_last_error()->message);
}

static void close_store(void)
{
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    store = NULL;
}

static void end(void)
{
    struct sim_usage usage = sim_usage(sim);
    CHECK_EQUAL(usage.descriptors + usage.mappings + usage.allocations + usage.locks, 0);
    sim_free(sim);
}

static const uint8_t *key_of(unsigned n)
{
    static char key[16];
    snprintf(key, sizeof key, "%08u", n);
    return (const uint8_t *)key;
}

static void put_many(unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        CHECK_EQUAL(pykv_put(store, key_of(n), 8, (const uint8_t *)"v", 1, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

/* A lookup that needs a piece of the keydir which cannot be mapped says so, each time, and ends. */
static void a_keydir_that_cannot_be_mapped_is_no_endless_search(void)
{
    uint8_t value[8];
    unsigned failed = 0;
    start();
    options.segment_size = 1 << 20;     /* one of them, which the first read maps */
    open_store();
    put_many(6500);                     /* so that some slots are in overflow nodes */
    close_store();
    options.flag = PYKV_FLAG_READ;
    open_store();
    CHECK(pykv_get(store, key_of(0), 8, value, 8, NULL) == 1);
    sim_fail(sim, &(struct sim_fault){ .call = SIM_MAP, .onwards = true });
    for (unsigned n = 0; n < 6500; n++) {
        int64_t size = pykv_get(store, key_of(n), 8, value, 8, NULL);
        if (size == 1)
            continue;
        failed++;
        CHECK(size < -1000 && size != -1000 + PYKV_NOT_FOUND);
        CHECK(pykv_last_error()->message[0] != 0);
    }
    CHECK(failed > 0);
    sim_fail(sim, NULL);
    for (unsigned n = 0; n < 6500; n++)
        CHECK(pykv_get(store, key_of(n), 8, value, 8, NULL) == 1);
    close_store();
    end();
}

TEST_MAIN(CASE(a_keydir_that_cannot_be_mapped_is_no_endless_search))
