/* Files that do not belong to the store, under names that could: whatever their numbers, the store
 * opens as fast as without them, and what is written goes on from where it was. */
#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

#define PATH "/store"
enum { SECONDS_MAX = 20 };      /* where it should be a moment, and would be hours */

static struct pykv_store *open_store(struct sim *sim)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = 65536 };
    struct pykv_store *store = NULL;
    int status = pykv_open_with(sim_os(sim), PATH, &options, &store);
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
    return store;
}

static int put(struct pykv_store *store, uint8_t key)
{
    return pykv_put(store, &key, 1, &key, 1, 0, PYKV_DURABILITY_COMMIT, NULL);
}

static void check_keys(struct pykv_store *store, uint8_t count)
{
    uint8_t value;
    for (uint8_t key = 0; key < count; key++) {
        CHECK_EQUAL(pykv_get(store, &key, 1, &value, 1, NULL), 1);
        CHECK_EQUAL(value, key);
    }
}

/* A store with an empty file of that name beside it, opened after a reboot, written to, and so on. */
static void live_beside(const char *name)
{
    struct image image = { 0 };
    struct sim *sim = sim_new(1);
    struct pykv_store *store = open_store(sim);
    alarm(SECONDS_MAX);
    CHECK_EQUAL(put(store, 0), PYKV_OK);
    pykv_free(store);
    sim_save(sim, PATH, &image);
    image_add(&image, name, 5000, 0600, 0);
    sim_load(sim, PATH, &image);
    for (uint8_t boot = 2; boot < 6; boot++) {
        sim_set_boot(sim, boot);
        store = open_store(sim);
        check_keys(store, boot - 1);
        CHECK_EQUAL(put(store, boot - 1), PYKV_OK);
        check_keys(store, boot);
        pykv_free(store);
    }
    alarm(0);
    sim_free(sim);
    image_release(&image);
}

static void a_segment_far_ahead(void) { live_beside("segment-4294967290"); }
static void a_segment_with_a_number_that_none_can_have(void) { live_beside("segment-8589934592"); }
static void a_segment_with_the_greatest_number(void) { live_beside("segment-18446744073709551615"); }
static void a_segment_with_a_zero_too_many(void) { live_beside("segment-00000000001"); }
static void a_checkpoint_far_ahead(void) { live_beside("checkpoint-18446744073709551615"); }

TEST_MAIN(CASE(a_segment_far_ahead), CASE(a_segment_with_a_number_that_none_can_have),
          CASE(a_segment_with_the_greatest_number), CASE(a_segment_with_a_zero_too_many),
          CASE(a_checkpoint_far_ahead))
