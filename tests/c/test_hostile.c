/* Numbers that no store comes to by itself, behind checksums that hold: somebody made these files.
 * They are refused, or the store has reached a limit; never does a process end because of them. */
#include "checksum.h"
#include "format.h"
#include "pykv.h"
#include "sim_os.h"
#include "store.h"
#include "test.h"

#include <unistd.h>

#define PATH "/store"

static struct sim *sim;
static struct image image;
static struct pykv_options options = { .flag = PYKV_FLAG_WRITE, .segment_size = 65536 };

static int put(struct pykv_store *store)
{
    return pykv_put(store, (const uint8_t *)"k", 1, (const uint8_t *)"v", 1, 0, PYKV_DURABILITY_DEFAULT, NULL);
}

/* A store with one key and a checkpoint, closed, as an image; only what a reboot leaves. */
static void make(void)
{
    struct pykv_options create = { .flag = PYKV_FLAG_CREATE, .segment_size = 65536 };
    struct pykv_store *store = NULL;
    bool died;
    sim = sim_new(1);
    CHECK_EQUAL(pykv_open_with(sim_os(sim), PATH, &create, &store), PYKV_OK);
    CHECK_EQUAL(put(store), PYKV_OK);
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    CHECK_EQUAL(checkpoint_write(store), PYKV_OK);
    shared_lock_release(&store->shared->maintain, &store->process);
    pykv_free(store);
    sim_save(sim, PATH, &image);
}

static struct image_file *file_of(const char *name)
{
    struct image_file *file = image_find(&image, name);
    CHECK(file != NULL);
    return file;
}

static int reopen(struct pykv_store **store)
{
    sim_load(sim, PATH, &image);
    sim_set_boot(sim, 2);
    *store = NULL;
    return pykv_open_with(sim_os(sim), PATH, &options, store);
}

static void end(void)
{
    sim_free(sim);
    image_release(&image);
}

/* It would be written into 48 bits of a SEAL, and into 33 of a position. */
static void a_manifest_with_a_segment_number_too_great(void)
{
    struct pykv_store *store;
    make();
    struct image_file *file = file_of(MANIFEST_NAME);
    put_u64(file->bytes + 56, UINT64_C(1) << 50);
    put_u32(file->bytes + file->size - 4, crc32c(0, file->bytes, (size_t)file->size - 4));
    CHECK_EQUAL(reopen(&store), PYKV_CORRUPT);
    CHECK_TEXT(pykv_last_error()->path, MANIFEST_NAME);
    end();
}

static void a_manifest_with_the_greatest_segment_number(void)
{
    struct pykv_store *store;
    make();
    struct image_file *file = file_of(MANIFEST_NAME);
    put_u64(file->bytes + 56, SEGMENT_ID_MAX + 1);
    put_u32(file->bytes + file->size - 4, crc32c(0, file->bytes, (size_t)file->size - 4));
    CHECK_EQUAL(reopen(&store), PYKV_FULL);
    end();
}

/* A checkpoint is passed over, as any other that does not verify. */
static void a_checkpoint_with_a_version_too_great(void)
{
    struct pykv_store *store;
    uint8_t value;
    make();
    struct image_file *file = file_of("checkpoint-0000000001");
    uint8_t *trailer = file->bytes + file->size - 68 - 24;
    CHECK_EQUAL(get_u32(trailer), 1);
    put_u64(trailer + 16, UINT64_C(1) << 60);
    put_u32(trailer + 88, crc32c(0, trailer, 88));
    CHECK_EQUAL(reopen(&store), PYKV_OK);
    CHECK_EQUAL(pykv_get(store, (const uint8_t *)"k", 1, &value, 1, NULL), 1);
    CHECK_EQUAL(put(store), PYKV_OK);
    pykv_free(store);
    end();
}

/* The greatest version there is has been given: the store can be read, and writes nothing more. */
static void a_record_with_the_greatest_version(void)
{
    struct pykv_store *store;
    uint8_t value;
    make();
    struct image_file *file = file_of("segment-0000000001");
    uint8_t *record = file->bytes + SEGMENT_HEADER_SIZE;
    put_u48(record + 12, SEQUENCE_MAX);
    uint32_t seed = segment_seed(file->bytes + 24, 1);
    put_u32(record, crc32c(record_seed(seed, SEGMENT_HEADER_SIZE), record + 4, 28));
    image_remove(&image, file_of("checkpoint-0000000001"));
    CHECK_EQUAL(reopen(&store), PYKV_OK);
    CHECK_EQUAL(pykv_get(store, (const uint8_t *)"k", 1, &value, 1, NULL), 1);
    CHECK_EQUAL(put(store), PYKV_FULL);
    CHECK_EQUAL(pykv_delete(store, (const uint8_t *)"k", 1, PYKV_DURABILITY_DEFAULT), PYKV_FULL);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
    end();
}

/* Each 16 bytes of a value are the header of a record half as long as all of it. To see that it is none
 * must not take reading it at each of them, which would be hours, when the search behind damage gets
 * there: anybody who may choose a value could keep a store from opening. */
enum { VALUE_SIZE = 6 << 20, SECONDS_MAX = 15 };

static void value_full_of_headers(int io)
{
    static uint8_t value[VALUE_SIZE];
    static const uint8_t key[8] = "8 bytes";        /* 24 + 8: the value stands at a multiple of 16 */
    struct pykv_options create = { .flag = PYKV_FLAG_CREATE, .segment_size = 65536, .io = io };
    struct pykv_store *store = NULL;
    uint8_t got;
    for (size_t at = 0; at < VALUE_SIZE; at += 16) {
        put_u32(value + at + 8, VALUE_SIZE / 2);
        value[at + 12] = 1;
    }
    sim = sim_new(1);
    CHECK_EQUAL(pykv_open_with(sim_os(sim), PATH, &create, &store), PYKV_OK);
    CHECK_EQUAL(pykv_put(store, key, 8, value, VALUE_SIZE, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    CHECK_EQUAL(put(store), PYKV_OK);
    pykv_free(store);
    sim_save(sim, PATH, &image);
    for (size_t i = image.count; i-- > 0;) {
        uint8_t *bytes = image.files[i].bytes;
        bool segment = strncmp(image.files[i].name, "segment-", 8) == 0;
        for (uint64_t at = SEGMENT_HEADER_SIZE + 24; segment && at < image.files[i].size; at += 16)
            if (memcmp(bytes + at, key, 8) == 0)
                bytes[at - 24 + 12] ^= 0xFF;        /* of the header of the value's record */
        if (strncmp(image.files[i].name, "checkpoint-", 11) == 0)
            image_remove(&image, &image.files[i]);
    }
    alarm(SECONDS_MAX);
    options.io = io;
    CHECK_EQUAL(reopen(&store), PYKV_CORRUPT);
    options.repair = 1;
    CHECK_EQUAL(reopen(&store), PYKV_OK);
    alarm(0);
    CHECK_EQUAL(pykv_get(store, (const uint8_t *)"k", 1, &got, 1, NULL), 1);
    pykv_free(store);
    end();
}

static void a_value_full_of_headers(void) { value_full_of_headers(PYKV_IO_MMAP); }
static void a_value_full_of_headers_by_pread(void) { value_full_of_headers(PYKV_IO_PREAD); }

TEST_MAIN(CASE(a_manifest_with_a_segment_number_too_great), CASE(a_manifest_with_the_greatest_segment_number),
          CASE(a_checkpoint_with_a_version_too_great), CASE(a_record_with_the_greatest_version),
          CASE(a_value_full_of_headers), CASE(a_value_full_of_headers_by_pread))
