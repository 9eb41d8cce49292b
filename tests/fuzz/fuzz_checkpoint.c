/* fuzz_checkpoint.c -- any bytes as a checkpoint, loaded into a fresh keydir.
 *
 * Input: a byte of flags, then what to do to an empty checkpoint: put slots into its shards, patch
 * its bytes, change its length. With the first flag its checksums are made right; with the second
 * there is an older, empty checkpoint beside it.
 *
 * Checked: it is loaded or refused; once loaded, its slots are in the keydir and no more; where none
 * could be loaded, the keydir is empty, as checkpoint_load() promises. */
#include "fuzz.h"
#include "memory_os.h"
#include "reseal.h"
#include "store.h"

#include <stdlib.h>
#include <string.h>

enum { FLAG_RESEAL = 1, FLAG_OLDER = 2 };
enum { SHARDS = 1 << KEYDIR_LEVEL_MIN, HEADER = 128, BLOCK = 16, TRAILER = 68 };
enum { SEGMENTS = 3, SEGMENT_LENGTH = 1 << 20 };

static const uint8_t store_id[16] = "fuzzed store";
static struct buffer shards[SHARDS];

/* The older one as it was before there were times of expiry. */
static void encode(struct buffer *out, uint64_t id)
{
    uint64_t total = 0;
    out->size = 0;
    buffer_append(out, "pykvchk\n", 8);
    buffer_append_number(out, FORMAT_VERSION, 8);
    buffer_append_number(out, id, 8);
    buffer_append(out, store_id, 16);
    buffer_append_number(out, UINT64_C(1) << 30 | 8, 8);
    buffer_set_size(out, HEADER);
    for (unsigned i = 0; i < SHARDS; i++) {
        buffer_append_number(out, i, 4);
        buffer_append_number(out, shards[i].size / 8, 4);
        buffer_append_number(out, 0, 8);
        buffer_append(out, shards[i].bytes, shards[i].size);
        total += shards[i].size / 8;
    }
    size_t at = out->size;
    buffer_append_number(out, SEGMENTS, 4);
    buffer_append_number(out, id == 1 ? 0 : 24, 4);
    buffer_append_number(out, UINT64_C(2) << 30 | 8, 8);
    buffer_append_number(out, 100, 8);
    buffer_append_number(out, total, 8);
    buffer_append_number(out, total * 32, 8);
    buffer_append_number(out, total, 8);
    buffer_set_size(out, at + 64);
    for (unsigned i = 1; i <= SEGMENTS; i++) {
        buffer_append_number(out, i, 8);
        buffer_append_number(out, 1000, 8);
        if (id != 1)
            buffer_append_number(out, 1767225600000, 8);
    }
    buffer_append_number(out, 0, 4);
    reseal_checkpoint(out->bytes, out->size);
}

/* Some slots, of places that exist unless the input says otherwise. */
static void add_slots(struct input *input)
{
    struct buffer *shard = &shards[input_number(input, 2) % SHARDS];
    uint64_t count = 1 + input_number(input, 1), tag = input_number(input, 3), place = input_number(input, 2);
    uint64_t segment = input_number(input, 1) % (SEGMENTS + 2);
    for (uint64_t i = 0; i < count && shard->size < 8 * 4096; i++) {
        uint64_t slot = (tag & 0x7FFFFF) << 41 | location_make(segment, 128 + (place + i) * 16);
        buffer_append_number(shard, slot, 8);
    }
}

/* Slots first: what moves bytes comes behind what needs to know where they are. */
static void make(struct input *input, uint64_t flags, struct buffer *out)
{
    for (unsigned i = 0; i < SHARDS; i++)
        shards[i].size = 0;
    for (uint64_t count = input_number(input, 1) % 16; count > 0; count--)
        add_slots(input);
    encode(out, 2);
    while (input->size > 0) {
        uint64_t what = input_number(input, 1);
        uint64_t at = what % 4 == 0 ? out->size - input_number(input, 1) % out->size : input_number(input, 2);
        size_t size = 1 + what / 8;
        const uint8_t *bytes = input_bytes(input, &size);
        if (what % 4 == 3)
            buffer_set_size(out, (size_t)at + 1);
        for (size_t i = 0; i < size && what % 4 != 3; i++)
            out->bytes[(at + i) % out->size] = bytes[i];
    }
    if ((flags & FLAG_RESEAL) != 0)
        reseal_checkpoint(out->bytes, out->size);
}

static void check_loaded(struct pykv_store *store, const struct buffer *file)
{
    size_t at = HEADER;
    uint64_t total = 0;
    for (unsigned shard = 0; shard < SHARDS; shard++) {
        size_t count = get_u32(file->bytes + at + 4);
        for (size_t i = 0; i < count; i++) {
            uint64_t slot = get_u64(file->bytes + at + BLOCK + i * 8);
            FUZZ_CHECK(keydir_holds(store->keydir, keydir_slot_hash(slot, shard), keydir_slot_location(slot)),
                       "slot %zu of shard %u was not loaded", i, shard);
        }
        at += BLOCK + count * 8;
        total += count;
    }
    FUZZ_CHECK(atomic_load(&store->shared->keydir.slot_count) == total, "not as many slots as the file has");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct buffer file;
    static struct pykv_store store;
    struct input input = { bytes, size };
    uint64_t flags = input_number(&input, 1);

    memory_os_clear();
    make(&input, flags, &file);
    buffer_append(memory_os_file("checkpoint-0000000002"), file.bytes, file.size);
    if ((flags & FLAG_OLDER) != 0) {
        for (unsigned i = 0; i < SHARDS; i++)
            shards[i].size = 0;
        encode(memory_os_file("checkpoint-0000000001"), 1);
    }

    store.os = &memory_os;
    store.space = (struct space){ .os = &memory_os, .fd = -1, .writable = true, .name = KEYDIR_NAME };
    memcpy(store.log.store_id, store_id, sizeof store_id);
    store.shared = calloc(1, SHARED_SIZE);
    FUZZ_CHECK(store.shared != NULL, "out of memory");
    atomic_store(&store.shared->keydir.space_end, SHARED_SIZE);
    for (uint64_t id = 1; id <= SEGMENTS; id++) {
        atomic_store(&store.shared->segments[id].id, id);
        atomic_store(&store.shared->segments[id].length, SEGMENT_LENGTH);
    }
    FUZZ_CHECK(keydir_open(&memory_os, &store.space, &store.shared->keydir, &store.keydir) == PYKV_OK, "keydir");

    struct checkpoint checkpoint;
    int status = checkpoint_load(&store, &checkpoint);
    FUZZ_CHECK(status == PYKV_OK || status == PYKV_NOT_FOUND, "load: %d %s", status, pykv_last_error()->message);
    if (status == PYKV_NOT_FOUND)
        FUZZ_CHECK(atomic_load(&store.shared->keydir.slot_count) == 0, "none was loaded, and the keydir has slots");
    else if (checkpoint.id == 2)
        check_loaded(&store, &file);
    else
        FUZZ_CHECK(atomic_load(&store.shared->keydir.slot_count) == 0, "the older one is empty, and the keydir has slots");
    checkpoint_release(&store, &checkpoint);
    keydir_close(store.keydir);
    free(store.shared);
    return 0;
}

size_t fuzz_seed(unsigned number, uint8_t out[FUZZ_SEED_SIZE_MAX])
{
    static const uint8_t seeds[][24] = {
        { FLAG_RESEAL },
        { FLAG_RESEAL | FLAG_OLDER, 2, 0, 0, 9, 1, 0, 0, 0, 0, 1, 5, 0, 1, 7, 7, 0, 5, 0, 2 },
        { FLAG_RESEAL, 1, 3, 0, 255, 1, 2, 3, 0, 1, 2, 9, 0, 1, 2 },
        { FLAG_OLDER, 1, 3, 0, 1, 1, 2, 3, 0, 1, 2, 3, 200, 0 },
    };
    if (number >= sizeof seeds / sizeof seeds[0])
        return 0;
    memcpy(out, seeds[number], sizeof seeds[0]);
    return sizeof seeds[0];
}
