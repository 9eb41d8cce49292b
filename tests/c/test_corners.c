/* Corners of the store that a review looked into: each is a fact that was not one before. */
#include <stdatomic.h>
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
static struct pykv_report report;

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

/* What a disk may hold after the power went in an open that empties: the old store, or an empty one. */
static bool emptied_in(const struct disk *disk, int choice, uint64_t seed)
{
    struct image image = { 0 };
    size_t pending = disk_pending(disk);
    struct disk_choice cut = { .keep = calloc(pending + 1, sizeof(bool)) };
    uint64_t count = 0;
    for (size_t i = 0; i < pending; i++)
        cut.keep[i] = choice == 0 || (choice > 1 && (next_random(&seed) & 1) != 0);
    disk_cut(disk, &cut, &image);
    sim = sim_new(seed);
    sim_set_boot(sim, 2);
    sim_load(sim, PATH, &image);
    options.flag = PYKV_FLAG_WRITE;
    for (int i = 0; i < 2; i++) {
        open_store();
        CHECK_EQUAL(pykv_count(store, &count), PYKV_OK);
        CHECK(count == 0 || count == 6000);
        CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
        close_store();
    }
    end();
    image_release(&image);
    free(cut.keep);
    return count == 0;
}

static void a_power_cut_while_emptying_leaves_all_or_nothing(void)
{
    struct image image = { 0 };
    struct trace trace = { .count = 0 };
    unsigned emptied = 0, trials = 0;
    start();
    open_store();
    put_many(6000);
    close_store();
    sim_save(sim, PATH, &image);
    sim_record(sim, PATH, &trace);
    options.flag = PYKV_FLAG_NEW;
    open_store();
    close_store();
    sim_record(sim, PATH, NULL);
    end();
    for (int model = DISK_POSIX; model <= DISK_EXT4; model++) {
        struct disk *disk = disk_new((enum disk_model)model, &image);
        for (size_t i = 0; i <= trace.count; i++) {
            for (int choice = 0; choice < 6; choice++, trials++)
                emptied += emptied_in(disk, choice, i * 10 + (uint64_t)choice);
            if (i < trace.count)
                disk_apply(disk, &trace.effects[i]);
        }
        disk_free(disk);
    }
    printf("%u cuts, %u of them left an empty store\n", trials, emptied);
    CHECK(emptied > 50 && trials - emptied > 50);
    trace_release(&trace);
    image_release(&image);
}

/* The newest version, after all that had one was deleted and its space given back. */
static void versions_go_on_after_a_power_cut(void)
{
    struct image image = { 0 };
    struct trace trace = { .count = 0 };
    struct pykv_progress progress = { .left = 0 };
    uint64_t before = 0, after = 0;
    start();
    open_store();
    sim_save(sim, PATH, &image);
    sim_record(sim, PATH, &trace);
    put_many(3000);
    for (unsigned n = 0; n < 3000; n++)
        CHECK_EQUAL(pykv_delete(store, key_of(n), 8, PYKV_DURABILITY_DEFAULT), PYKV_OK);
    CHECK_EQUAL(pykv_put(store, key_of(0), 8, key_of(0), 8, 0, PYKV_DURABILITY_DEFAULT, &before), PYKV_OK);
    CHECK_EQUAL(pykv_delete(store, key_of(0), 8, PYKV_DURABILITY_DEFAULT), PYKV_OK);
    do
        CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
    while (progress.left != 0);
    sim_record(sim, PATH, NULL);
    close_store();
    end();
    for (int model = DISK_POSIX; model <= DISK_EXT4; model++) {
        struct disk *disk = disk_new((enum disk_model)model, &image);
        for (size_t i = 0; i < trace.count; i++)
            disk_apply(disk, &trace.effects[i]);
        struct disk_choice cut = { .keep = calloc(disk_pending(disk) + 1, sizeof(bool)), .shared = SHARED_MISSING };
        struct image left = { 0 };
        disk_cut(disk, &cut, &left);        /* nothing but what was synced */
        sim = sim_new(2);
        sim_set_boot(sim, 2);
        sim_load(sim, PATH, &left);
        open_store();
        CHECK_EQUAL(pykv_put(store, key_of(1), 8, key_of(1), 8, 0, PYKV_DURABILITY_DEFAULT, &after), PYKV_OK);
        CHECK(after > before);
        close_store();
        end();
        image_release(&left);
        free(cut.keep);
        disk_free(disk);
    }
    trace_release(&trace);
    image_release(&image);
}

/* A table that grows a lot while it is being verified: 1,100,000 keys come when the first was read. */
#define GROWN 1100000u

static _Atomic int reads_left;      /* verification reads by several threads */

static void grow_table(void)
{
    static uint8_t keys[1000][8];
    static uint32_t key_sizes[1000], value_sizes[1000];
    for (unsigned n = 0; n < GROWN; n += 1000) {
        for (unsigned i = 0; i < 1000; i++) {
            memcpy(keys[i], key_of(n + i), 8);
            key_sizes[i] = 8;
        }
        CHECK_EQUAL(pykv_write(store, 1000, NULL, keys[0], key_sizes, NULL, value_sizes, NULL, PYKV_DURABILITY_DEFAULT,
                               NULL, NULL, NULL), PYKV_OK);
    }
}

static int read_and_grow(const struct os *os, int fd, void *bytes, size_t size, uint64_t offset, size_t *done)
{
    if (atomic_load(&reads_left) > 0 && atomic_fetch_sub(&reads_left, 1) == 1)
        grow_table();
    return os_posix.file_read(os, fd, bytes, size, offset, done);
}

static void a_table_may_grow_while_it_is_verified(void)
{
    char path[600];
    struct os os = os_posix;
    uint64_t count = 0;
    alarm(120);
    snprintf(path, sizeof path, "%s/store", test_dir());
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .io = PYKV_IO_PREAD };
    os.file_read = read_and_grow;
    CHECK_EQUAL(pykv_open_with(&os, path, &options, &store), PYKV_OK);
    put_many(1);
    reads_left = 1000;
    CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
    reads_left = 1000 - reads_left;     /* the last one is that of the key's slot */
    int status = pykv_verify(store, &report);
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "verify: %d %s", status, pykv_last_error()->message);
    CHECK_EQUAL(reads_left, 0);
    CHECK_EQUAL(pykv_count(store, &count), PYKV_OK);
    CHECK_EQUAL(count, GROWN);
    close_store();
}

/* ---- Repair ---- */

static struct image_file *find_text(struct image *image, const char *text, uint64_t *offset)
{
    for (size_t i = 0; i < image->count; i++) {
        struct image_file *file = &image->files[i];
        for (uint64_t at = 0; at + strlen(text) <= file->size; at++) {
            if (strncmp(file->name, "segment-", 8) == 0 && memcmp(file->bytes + at, text, strlen(text)) == 0) {
                *offset = at;
                return file;
            }
        }
    }
    test_fail(__FILE__, __LINE__, "no segment holds '%s'", text);
}

static void put_text(const char *key, const char *value)
{
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)key, strlen(key), (const uint8_t *)value, strlen(value), 0,
                         PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

static void put_batch(void)
{
    const uint32_t sizes[3] = { 6, 6, 6 }, value_sizes[3] = { 8, 8, 8 };
    CHECK_EQUAL(pykv_write(store, 3, NULL, (const uint8_t *)"batch1batch2batch3", sizes,
                           (const uint8_t *)"member 1member 2member 3", value_sizes, NULL, PYKV_DURABILITY_DEFAULT, NULL,
                           NULL, NULL), PYKV_OK);
}

static bool has_text(const char *key, const char *value)
{
    uint8_t bytes[64];
    int64_t size = pykv_get(store, (const uint8_t *)key, strlen(key), bytes, sizeof bytes, NULL);
    return size == (int64_t)strlen(value) && memcmp(bytes, value, strlen(value)) == 0;
}

/* A machine that boots with these files, less the keydir. */
static void boot(const struct image *image, uint64_t number)
{
    sim = sim_new(number);
    sim_set_boot(sim, number);
    sim_load(sim, PATH, image);
}

static int verify(void) { return pykv_verify(store, &report); }

/* Damage in the first segment, once in a record of its own and once in a batch. Where: it is sealed and
 * listed, or the manifest does not yet know of its end. A repair counts two places, leaves all that can
 * be read, and lasts: what it left out is no damage any more, now and in later boots. */
static void repair_two_places(bool sealed)
{
    struct image image = { 0 };
    struct pykv_stats stats;
    uint64_t offset = 0, record, member;
    start();
    open_store();
    put_text("first", "one");
    put_text("lonely", "damaged value");
    put_batch();
    put_text("last", "two");
    if (sealed)
        put_many(3000);
    close_store();
    sim_save(sim, PATH, &image);
    end();
    struct image_file *file = find_text(&image, "damaged value", &record);
    file->bytes[record] ^= 1;
    CHECK(find_text(&image, "member 2", &member) == file);
    file->bytes[member] ^= 1;
    (void)find_text(&image, "member 1", &offset);

    boot(&image, 1);                            /* as it was, the keydir too: what is lost is told */
    open_store();
    CHECK(!has_text("lonely", "damaged value") && has_text("batch1", "member 1") && has_text("batch3", "member 3"));
    CHECK_EQUAL(verify(), PYKV_CORRUPT);
    CHECK_EQUAL(report.damage_count, 2);
    CHECK(report.damage[0].offset <= record && record < report.damage[0].offset + report.damage[0].size);
    CHECK(offset < report.damage[1].offset && report.damage[1].offset <= member);
    close_store();
    end();

    for (size_t i = image.count; i-- > 0;)      /* with a checkpoint the damage would not be met */
        if (strncmp(image.files[i].name, "checkpoint-", 11) == 0)
            image_remove(&image, &image.files[i]);
    boot(&image, 2);
    CHECK_EQUAL(pykv_open_with(sim_os(sim), PATH, &options, &store), PYKV_CORRUPT);
    options.repair = 1;
    open_store();
    options.repair = 0;
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.damaged_records, 2);
    for (uint64_t number = 3; number < 6; number++) {
        CHECK(has_text("first", "one") && has_text("last", "two") && !has_text("lonely", "damaged value"));
        CHECK(has_text("batch1", "member 1") && !has_text("batch2", "member 2") && has_text("batch3", "member 3"));
        if (verify() != PYKV_OK)
            test_fail(__FILE__, __LINE__, "boot %d: %s", (int)number, pykv_last_error()->message);
        CHECK_EQUAL(report.skipped_count, 2);
        CHECK(report.skipped_bytes >= 2 * 32 && report.skipped_bytes <= 2 * 64);
        close_store();
        sim_save(sim, PATH, &image);
        end();
        boot(&image, number);
        options.flag = number % 2 == 0 ? PYKV_FLAG_READ : PYKV_FLAG_WRITE;
        open_store();                           /* without repair */
    }
    close_store();
    end();
    image_release(&image);
}

static void a_repair_of_a_sealed_segment_lasts(void) { repair_two_places(true); }
static void a_repair_of_the_last_segment_lasts(void) { repair_two_places(false); }

/* Of a batch whose frame is damaged the members count, and it is one place. */
static void a_damaged_frame_is_one_place(void)
{
    struct image image = { 0 };
    struct pykv_stats stats;
    uint64_t member;
    start();
    open_store();
    put_text("first", "one");
    put_batch();
    put_text("last", "two");
    close_store();
    sim_save(sim, PATH, &image);
    end();
    struct image_file *file = find_text(&image, "member 1", &member);
    file->bytes[member - 24 - 6 - 16] ^= 1;     /* before the first member's header */
    boot(&image, 2);
    options.repair = 1;
    open_store();
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.damaged_records, 1);
    CHECK(has_text("batch1", "member 1") && has_text("batch2", "member 2") && has_text("batch3", "member 3"));
    CHECK_EQUAL(verify(), PYKV_OK);
    CHECK_EQUAL(report.skipped_count, 1);
    close_store();
    end();
    image_release(&image);
}

/* A value that looks, every 32 bytes, like the beginning of a record that reaches to the value's end: when
 * the real record's header is damaged, the search for the next one must not check them all. */
#define HOSTILE_SIZE (4u << 20)       /* a simulated file has at most 8 MiB where pointers have 32 bits */

static void a_search_in_hostile_bytes_ends(void)
{
    struct image image = { 0 };
    struct pykv_stats stats;
    uint64_t offset;
    uint8_t *value = calloc(1, HOSTILE_SIZE);
    CHECK(value != NULL);
    for (uint32_t at = 0; at + 64 <= HOSTILE_SIZE; at += 32) {
        uint32_t size = HOSTILE_SIZE - at - 24;
        memcpy(value + at + 8, &size, sizeof size);
        value[at + 12] = 1;                     /* a sequence; no key, no flags */
    }
    start();
    options.segment_size = 6u << 20;
    open_store();
    put_text("first", "one");
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)"hostile!", 8, value, HOSTILE_SIZE, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    put_text("middle", "the damaged one");
    put_text("last", "two");
    close_store();
    sim_save(sim, PATH, &image);
    end();
    struct image_file *file = find_text(&image, "hostile!", &offset);
    file->bytes[offset - 24] ^= 1;
    file = find_text(&image, "the damaged one", &offset);
    file->bytes[offset] ^= 1;
    for (size_t i = image.count; i-- > 0;)
        if (strncmp(image.files[i].name, "checkpoint-", 11) == 0)
            image_remove(&image, &image.files[i]);
    for (int io = PYKV_IO_MMAP; io <= PYKV_IO_PREAD; io++) {
        boot(&image, 2);
        options.repair = 1;
        options.io = io;
        open_store();
        CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
        CHECK_EQUAL(stats.damaged_records, 2);
        CHECK(has_text("first", "one") && has_text("last", "two"));
        CHECK_EQUAL(verify(), PYKV_OK);
        CHECK_EQUAL(report.skipped_count, 2);
        close_store();
        end();
    }
    image_release(&image);
    free(value);
}

TEST_MAIN(CASE(a_search_in_hostile_bytes_ends), CASE(a_repair_of_a_sealed_segment_lasts), CASE(a_repair_of_the_last_segment_lasts),
          CASE(a_damaged_frame_is_one_place), CASE(a_table_may_grow_while_it_is_verified), CASE(a_power_cut_while_emptying_leaves_all_or_nothing),
          CASE(versions_go_on_after_a_power_cut),
          CASE(a_keydir_that_cannot_be_mapped_is_no_endless_search))
