/* Faults that other stores of this design have shipped, each as a test with its name. They run on
 * the simulated machine; tests/crash looks for the same kinds of fault everywhere. */
#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#define PATH "/store"

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;

static void start(void)
{
    sim = sim_new(1);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .segment_size = 65536 };
}

static int open_status(void)
{
    store = NULL;
    return pykv_open_with(sim_os(sim), PATH, &options, &store);
}

static void open_store(void)
{
    int status = open_status();
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
}

static void close_store(void)
{
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    store = NULL;
}

static void end(void)
{
    pykv_free(store);
    struct sim_usage usage = sim_usage(sim);
    CHECK_EQUAL(usage.descriptors + usage.mappings + usage.allocations + usage.locks, 0);
    sim_free(sim);
}

/* The machine starts anew with these files; what ran there is gone. */
static void restart(const struct image *image, uint64_t boot)
{
    pykv_free(store);
    store = NULL;
    sim_free(sim);
    sim = sim_new(2);
    sim_set_boot(sim, boot);
    sim_load(sim, PATH, image);
}

static int put(const char *key, const char *value)
{
    return pykv_put(store, (const uint8_t *)key, strlen(key), (const uint8_t *)value,
                    strlen(value), 0, PYKV_DURABILITY_DEFAULT, NULL);
}

static int delete(const char *key)
{
    return pykv_delete(store, (const uint8_t *)key, strlen(key), PYKV_DURABILITY_DEFAULT);
}

/* The value, "" if it is absent, "!" if the read fails. */
static const char *get(const char *key)
{
    static char value[100000];
    int64_t size = pykv_get(store, (const uint8_t *)key, strlen(key), (uint8_t *)value,
                            sizeof value - 1, NULL);
    if (size < 0)
        return size == -1000 + PYKV_NOT_FOUND ? "" : "!";
    value[size] = 0;
    return value;
}

/* Enough to begin a new segment. */
static void fill_segment(void)
{
    static uint8_t value[30000];
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(pykv_put(store, (const uint8_t *)"filler", 6, value, sizeof value, 0,
                             PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    }
}

/* Only the segments are left, as when everything else was lost: open builds the rest from them. */
static void keep_segments_only(struct image *image)
{
    for (size_t i = image->count; i-- > 0;) {
        if (strncmp(image->files[i].name, "segment-", 8) != 0)
            image_remove(image, &image->files[i]);
    }
}

/* bitcask #82: deleted keys came back when the tombstone's file was handled before the value's. */
static void deletes_stay_deleted(void)
{
    struct image image = { 0 };
    start();
    open_store();
    CHECK_EQUAL(put("gone", "1"), PYKV_OK);
    CHECK_EQUAL(put("back", "1"), PYKV_OK);
    fill_segment();
    CHECK_EQUAL(delete("gone"), PYKV_OK);
    CHECK_EQUAL(delete("back"), PYKV_OK);
    fill_segment();
    CHECK_EQUAL(put("back", "2"), PYKV_OK);
    fill_segment();
    close_store();
    sim_save(sim, PATH, &image);
    keep_segments_only(&image);
    for (uint64_t boot = 1; boot <= 2; boot++) {
        restart(&image, boot);
        open_store();
        CHECK_TEXT(get("gone"), "");
        CHECK_TEXT(get("back"), "2");
        close_store();
    }
    image_release(&image);
    end();
}

static struct image_file *segment_with(struct image *image, const char *text, uint64_t *offset)
{
    for (size_t i = 0; i < image->count; i++) {
        struct image_file *file = &image->files[i];
        for (uint64_t at = 0; at + strlen(text) <= file->size; at++) {
            if (strncmp(file->name, "segment-", 8) == 0 &&
                memcmp(file->bytes + at, text, strlen(text)) == 0) {
                *offset = at;
                return file;
            }
        }
    }
    test_fail(__FILE__, __LINE__, "no segment holds '%s'", text);
}

/* bitcask #212, #213: the index was loaded from records that failed their checksum. */
static void damaged_records_do_not_enter_the_index(void)
{
    struct image image = { 0 };
    uint64_t offset = 0;
    start();
    open_store();
    CHECK_EQUAL(put("first", "one"), PYKV_OK);
    CHECK_EQUAL(put("second", "damaged value"), PYKV_OK);
    CHECK_EQUAL(put("third", "three"), PYKV_OK);
    close_store();
    sim_save(sim, PATH, &image);
    struct image_file *file = segment_with(&image, "damaged value", &offset);
    file->bytes[offset] ^= 1;
    char name[64];
    snprintf(name, sizeof name, "%s", file->name);
    keep_segments_only(&image);         /* moves the files in the image */

    restart(&image, 2);
    int status = open_status();
    if (status == PYKV_OK) {        /* then the read must say it */
        CHECK_TEXT(get("second"), "!");
        CHECK_TEXT(get("third"), "three");
    } else {
        CHECK_EQUAL(status, PYKV_CORRUPT);
        CHECK_TEXT(pykv_last_error()->path, name);
        CHECK(pykv_last_error()->offset <= offset && offset - pykv_last_error()->offset < 64);
    }
    restart(&image, 2);
    options.repair = 1;
    open_store();
    CHECK_TEXT(get("first"), "one");
    CHECK(strcmp(get("second"), "damaged value") != 0);
    CHECK_TEXT(get("third"), "three");
    close_store();
    image_release(&image);
    end();
}

/* riak_kv#1120: a damaged store was recovered over and over, each time anew. */
static void a_repair_is_done_once(void)
{
    struct image image = { 0 };
    struct pykv_stats stats;
    uint64_t offset = 0, size = 0;
    start();
    open_store();
    CHECK_EQUAL(put("first", "one"), PYKV_OK);
    CHECK_EQUAL(put("second", "damaged value"), PYKV_OK);
    CHECK_EQUAL(put("third", "three"), PYKV_OK);
    close_store();
    sim_save(sim, PATH, &image);
    struct image_file *file = segment_with(&image, "damaged value", &offset);
    file->bytes[offset] ^= 1;
    restart(&image, 2);
    options.repair = 1;
    open_store();
    close_store();
    options.repair = 0;
    for (int i = 0; i < 20; i++) {
        open_store();
        CHECK_TEXT(get("third"), "three");
        CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
        CHECK_EQUAL(stats.recovered_records, 0);
        if (i == 0)
            size = stats.disk_bytes;
        CHECK(stats.disk_bytes <= size);
        close_store();
    }
    image_release(&image);
    end();
}

/* bitcask: which write is newer must not hang on the wall clock. */
static void the_clock_may_go_back(void)
{
    struct image image = { 0 };
    start();
    open_store();
    CHECK_EQUAL(put("k", "old"), PYKV_OK);
    uint64_t now = sim_os(sim)->wall_ms(sim_os(sim));
    sim_set_wall_ms(sim, now - 3600000);
    CHECK_EQUAL(put("k", "new"), PYKV_OK);
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)"t", 1, (const uint8_t *)"x", 1, now - 1000,
                         PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    CHECK_TEXT(get("t"), "x");
    sim_set_wall_ms(sim, now);
    CHECK_TEXT(get("t"), "");
    CHECK_TEXT(get("k"), "new");
    close_store();
    sim_save(sim, PATH, &image);
    keep_segments_only(&image);
    restart(&image, 2);
    open_store();
    CHECK_TEXT(get("k"), "new");
    CHECK_TEXT(get("t"), "");
    close_store();
    image_release(&image);
    end();
}

/* A directory that was copied, its keydir included, has the right boot id and the wrong inodes; one
 * that was copied while the store was in use has a keydir of another moment, too. */
static void a_copied_directory_opens(void)
{
    struct image image = { 0 }, later = { 0 };
    start();
    open_store();
    CHECK_EQUAL(put("k", "1"), PYKV_OK);
    sim_save(sim, PATH, &image);
    CHECK_EQUAL(put("k", "2"), PYKV_OK);
    CHECK_EQUAL(put("l", "3"), PYKV_OK);
    CHECK_EQUAL(pykv_sync(store), PYKV_OK);
    sim_save(sim, PATH, &later);
    for (size_t i = 0; i < image.count; i++) {      /* the keydir early, all else late */
        struct image_file *file = &image.files[i];
        struct image_file *newer = image_find(&later, file->name);
        file->inode += 1000;
        if (strcmp(file->name, "keydir") != 0 && newer != NULL) {
            image_set_size(file, newer->size);
            if (newer->size > 0)
                memcpy(file->bytes, newer->bytes, newer->size);
        }
    }
    restart(&image, 1);
    open_store();
    CHECK_TEXT(get("k"), "2");
    CHECK_TEXT(get("l"), "3");
    CHECK_EQUAL(put("k", "4"), PYKV_OK);
    CHECK_TEXT(get("k"), "4");
    close_store();
    image_release(&image);
    image_release(&later);
    end();
}

/* redb: a failed sync was followed by a commit that was believed. */
static void nothing_is_acknowledged_behind_a_failed_sync(void)
{
    start();
    options.durability = PYKV_DURABILITY_COMMIT;
    open_store();
    CHECK_EQUAL(put("k", "1"), PYKV_OK);
    sim_fail(sim, &(struct sim_fault){ .call = SIM_FILE_SYNC });
    CHECK(put("k", "2") < 0);
    CHECK_EQUAL(sim_failed(sim, SIM_FILE_SYNC), 1);
    CHECK_EQUAL(put("k", "3"), PYKV_SYNC_FAILED);
    CHECK_EQUAL(pykv_sync(store), PYKV_SYNC_FAILED);
    CHECK_EQUAL(delete("k"), PYKV_SYNC_FAILED);
    const char *value = get("k");
    CHECK(strcmp(value, "1") == 0 || strcmp(value, "2") == 0);
    (void)pykv_close(store);
    pykv_free(store);
    open_store();
    value = get("k");
    CHECK(strcmp(value, "1") == 0 || strcmp(value, "2") == 0);
    CHECK_EQUAL(put("k", "4"), PYKV_OK);
    CHECK_TEXT(get("k"), "4");
    close_store();
    end();
}

/* Every file system that fills up: nothing is lost, reading goes on, the store opens and closes
 * while there is no room, and writing goes on when there is. */
static void a_full_disk_locks_nobody_out(void)
{
    static uint8_t value[5000];
    struct image image = { 0 };
    char key[16];
    int status = PYKV_OK, count = 0;
    start();
    open_store();
    CHECK_EQUAL(put("k", "1"), PYKV_OK);
    sim_set_disk_size(sim, UINT64_C(2) << 20);
    while (status == PYKV_OK && count < 10000) {
        snprintf(key, sizeof key, "%d", count);
        status = pykv_put(store, (uint8_t *)key, strlen(key), value, sizeof value, 0,
                          PYKV_DURABILITY_DEFAULT, NULL);
        count += status == PYKV_OK;
    }
    CHECK_EQUAL(status, PYKV_FULL);
    CHECK(count > 50);
    CHECK_TEXT(get("k"), "1");
    close_store();
    open_store();                           /* full, in the same boot */
    CHECK_TEXT(get("k"), "1");
    close_store();
    sim_save(sim, PATH, &image);
    restart(&image, 2);
    sim_set_disk_size(sim, UINT64_C(2) << 20);
    options.flag = PYKV_FLAG_READ;
    open_store();                           /* full, after a reboot */
    uint64_t keys = 0;
    CHECK_EQUAL(pykv_count(store, &keys), PYKV_OK);
    CHECK_EQUAL(keys, (uint64_t)count + 1);
    close_store();
    sim_set_disk_size(sim, 0);
    options.flag = PYKV_FLAG_WRITE;
    open_store();
    CHECK_EQUAL(put("k", "2"), PYKV_OK);
    CHECK_TEXT(get("k"), "2");
    close_store();
    image_release(&image);
    end();
}

/* A table that had room for all keys that there ever were. The last one out leaves it away; whatever
 * fails then, the store is all there, and the next one tries again. */
static void a_keydir_shrinks_when_its_keys_are_gone(void)
{
    struct pykv_stats stats;
    uint64_t failed = 1, tries = 0;
    start();
    for (uint64_t at = 0; failed != 0; at++, tries++) {
        struct sim_fault fault = { .call = SIM_ANY, .at = at, .variant = (unsigned)(at % 3) };
        options.expected_keys = 200000;
        open_store();
        CHECK_EQUAL(put("k", "1"), PYKV_OK);
        close_store();
        options.expected_keys = 0;
        open_store();
        CHECK_EQUAL(put("l", "2"), PYKV_OK);
        sim_fail(sim, &fault);
        int status = pykv_close(store);
        failed = sim_failed(sim, SIM_ANY);
        sim_fail(sim, NULL);
        CHECK(status == PYKV_OK || failed != 0);
        pykv_free(store);
        open_store();
        CHECK_TEXT(get("k"), "1");
        CHECK_TEXT(get("l"), "2");
        close_store();
        open_store();
        CHECK_TEXT(get("k"), "1");
        CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
        CHECK(stats.keydir_bytes < 200000);
        close_store();
    }
    CHECK(tries > 15);
    end();
}

static void put_long(const char *key, size_t size)
{
    static uint8_t value[60000];
    memset(value, 'x', sizeof value);
    memcpy(value, key, strlen(key));
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)key, strlen(key), value, size, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

/* Of two segments that were not synced the power cut took the first one, header and all: what is in the
 * second came later, and must not be there without it. Found by crash.c. */
static void a_lost_segment_takes_what_came_after_it(void)
{
    static struct pykv_report report;
    struct image before = { 0 }, after = { 0 };
    uint64_t at;
    start();
    open_store();
    put_long("first", 60000);
    put_long("middle", 30000);      /* each in a segment of its own, and too little for a checkpoint */
    sim_save(sim, PATH, &before);
    put_long("last", 40000);
    sim_save(sim, PATH, &after);
    struct image_file *last = segment_with(&after, "lastx", &at), *lost = segment_with(&before, "middlex", &at);
    memset(lost->bytes, 0, lost->size);
    memcpy(image_add(&before, last->name, last->inode, last->mode, last->size)->bytes, last->bytes, last->size);
    restart(&before, 7);
    open_store();
    CHECK(get("first")[0] == 'f');
    CHECK_TEXT(get("middle"), "");
    CHECK_EQUAL(get("last")[0], 0);
    CHECK_EQUAL(put("last", "again"), PYKV_OK);
    close_store();
    sim_save(sim, PATH, &before);
    for (uint64_t boot = 8; boot < 10; boot++) {
        restart(&before, boot);
        open_store();
        CHECK(get("first")[0] == 'f');
        CHECK_TEXT(get("last"), "again");
        CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
        close_store();
        keep_segments_only(&before);
    }
    image_release(&before);
    image_release(&after);
    end();
}

TEST_MAIN(CASE(deletes_stay_deleted), CASE(damaged_records_do_not_enter_the_index),
          CASE(a_repair_is_done_once), CASE(the_clock_may_go_back),
          CASE(a_copied_directory_opens), CASE(nothing_is_acknowledged_behind_a_failed_sync),
          CASE(a_full_disk_locks_nobody_out), CASE(a_keydir_shrinks_when_its_keys_are_gone),
          CASE(a_lost_segment_takes_what_came_after_it))
