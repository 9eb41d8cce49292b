/* Records and segment headers as bytes. What encode asserts before the write, decode checks after
 * the read: nothing that comes from a disk is followed before it has been found sound. */
#include "format.h"

#include <assert.h>
#include <string.h>

#include "checksum.h"
#include "pykv.h"

#define RECORD_BARE (RECORD_FRAME | RECORD_MARK | RECORD_SEAL)
#define RECORD_FLAGS (RECORD_TOMBSTONE | RECORD_EXPIRY | RECORD_MEMBER | RECORD_BARE)
#define KEY_SIZE_MAX 0xFFFFu

static const uint8_t segment_magic[8] = "pykvseg\n";

/* ---- Seeds ---- */

uint32_t segment_seed(const uint8_t store_id[16], uint64_t segment_id)
{
    uint8_t id[8];
    put_u64(id, segment_id);
    return crc32c(crc32c(0, store_id, 16), id, sizeof id);
}

/* Two different seeds give two different checksums to the same bytes, always. Multiplying by an odd
 * number keeps different offsets different, up to 2^36, and spreads them over all bits, so that
 * the seeds of one segment are no small step away from those of the next. */
uint32_t record_seed(uint32_t segment_seed, uint64_t offset)
{
    return segment_seed ^ (uint32_t)(offset / RECORD_ALIGNMENT) * 0x9E3779B1u;
}

/* ---- Records ---- */

/* The rules that a record's fields obey:
 *   1. no unknown flag;
 *   2. FRAME, MARK and SEAL stand alone, and have no key;
 *   3. a tombstone has no value and no expiry;
 *   4. a record of a key has a sequence: batches count from 1. So zeros, which is what a segment
 *      holds behind its tail, never decode, whatever their checksum would be. */
static bool is_sound(unsigned flags, uint32_t key_size, uint32_t value_size, uint64_t sequence)
{
    if ((flags & ~(unsigned)RECORD_FLAGS) != 0)
        return false;
    if ((flags & RECORD_BARE) != 0)
        return (flags & (flags - 1)) == 0 && key_size == 0;
    if ((flags & RECORD_TOMBSTONE) != 0 && (value_size != 0 || (flags & RECORD_EXPIRY) != 0))
        return false;
    return sequence != 0;
}

static uint64_t size_on_disk(unsigned flags, uint32_t key_size, uint32_t value_size)
{
    if ((flags & RECORD_BARE) != 0)
        return RECORD_BARE_SIZE;
    return record_size(key_size, value_size, (flags & RECORD_EXPIRY) != 0);
}

size_t record_encode_header(uint8_t out[32], const struct record *record)
{
    assert(is_sound(record->flags, record->key_size, record->value_size, record->sequence));
    assert(record->key_size <= KEY_SIZE_MAX);
    assert(record->sequence <= SEQUENCE_MAX && record->previous <= SEQUENCE_MAX);

    /* The fields, put together to three words that are stored whole: see crc32c_x86(). */
    put_u64(out, (uint64_t)record->key_size << 32 | (uint64_t)record->flags << 48);
    put_u64(out + 8, record->value_size | record->sequence << 32);
    put_u64(out + 16, record->sequence >> 32 | record->previous << 16);
    if ((record->flags & RECORD_EXPIRY) == 0)
        return RECORD_HEADER_SIZE;
    put_u64(out + RECORD_HEADER_SIZE, record->expiry);
    return RECORD_HEADER_SIZE + 8;
}

void record_encode(uint8_t *out, const struct record *record, uint32_t seed)
{
    uint64_t size = size_on_disk(record->flags, record->key_size, record->value_size);
    uint64_t table_size = (uint64_t)4 * record_chunks(record);

    /* Zeros where the padding will be, before what may overlap them: at most 15 bytes are padding,
     * and two stores cost less than asking how many. */
    put_u64(out + size - 16, 0);
    put_u64(out + size - 8, 0);
    uint8_t *to = out + record_encode_header(out, record);
    if ((record->flags & RECORD_BARE) == 0) {
        if (record->key_size > 0)
            memcpy(to, record->key, record->key_size);
        if (record->value_size > 0)
            memcpy(to + record->key_size + table_size, record->value, record->value_size);
    }
    uint64_t head_size = size;
    if (__builtin_expect(table_size != 0, 0)) {
        const uint8_t *value = to + record->key_size + table_size;
        head_size = (uint64_t)(value - out);
        record_encode_chunks(out, record, 0, value, size - head_size);
    }
    put_u32(out, crc32c(seed, out + 4, head_size - 4));
}

/* The table of checksums ends where the value begins. A chunk needs no seed of its own: the head says which
 * checksum belongs where, and its own says that of which store, segment and offset. */
void record_encode_chunks(uint8_t *out, const struct record *record, uint64_t first, const uint8_t *bytes, uint64_t size)
{
    uint64_t chunks = record_chunks(record);
    uint8_t *table = out + RECORD_HEADER_SIZE + (record->flags & RECORD_EXPIRY ? 8 : 0) + record->key_size;
    for (uint64_t i = first; i < chunks && size > 0; i++) {
        uint64_t most = i == chunks - 1 ? size : RECORD_CHUNK_SIZE, part = size < most ? size : most;
        put_u32(table + 4 * i, crc32c(0, bytes, part));
        bytes += part;
        size -= part;
    }
}

void record_encode_head(uint8_t *out, const struct record *record, uint32_t seed)
{
    uint8_t *to = out + record_encode_header(out, record);
    if (record->key_size > 0)
        memcpy(to, record->key, record->key_size);
    put_u32(out, crc32c(seed, out + 4, record_head_size(record) - 4));
}

/* Both decoders. The fields are kept apart until all have been judged, then stored one by one: a
 * struct built aside and copied would wait some 30 ns for its own stores. */
static inline int decode(const uint8_t *bytes, uint64_t size_max, bool with_key, struct record *out)
{
    uint32_t key_size = get_u16(bytes + 4);
    unsigned flags = get_u16(bytes + 6);
    uint32_t value_size = get_u32(bytes + 8);
    uint64_t sequence = get_u48(bytes + 12);
    if (!is_sound(flags, key_size, value_size, sequence))
        return PYKV_CORRUPT;

    /* The sum cannot wrap: the fields have 16 and 32 bits, and it has 64. */
    uint64_t size = size_on_disk(flags, key_size, value_size);
    if (size > size_max)
        return PYKV_CORRUPT;

    bool expiry = (flags & RECORD_EXPIRY) != 0;
    with_key = with_key && (flags & RECORD_BARE) == 0;
    const uint8_t *key = bytes + RECORD_HEADER_SIZE + (expiry ? 8 : 0);
    out->key_size = key_size;
    out->value_size = value_size;
    out->flags = (uint16_t)flags;
    out->sequence = sequence;
    out->previous = get_u48(bytes + 18);
    out->expiry = expiry ? get_u64(bytes + RECORD_HEADER_SIZE) : 0;
    out->key = with_key ? key : NULL;
    out->value = with_key ? key + key_size + (uint64_t)4 * value_chunks(value_size) : NULL;
    out->size = size;
    return PYKV_OK;
}

int record_decode_header(const uint8_t bytes[32], struct record *out)
{
    return decode(bytes, UINT64_MAX, false, out);
}

int record_decode(const uint8_t *bytes, uint64_t size, struct record *out)
{
    if (size < RECORD_BARE_SIZE)        /* the shortest record there is, whatever its kind */
        return PYKV_CORRUPT;
    return decode(bytes, size, true, out);
}

bool record_verify_head(const uint8_t *bytes, const struct record *record, uint32_t seed)
{
    assert(record->size >= RECORD_BARE_SIZE && record->size % RECORD_ALIGNMENT == 0);
    return get_u32(bytes) == crc32c(seed, bytes + 4, record_head_size(record) - 4);
}

uint64_t record_chunk_size(const struct record *record, uint64_t index)
{
    uint64_t left = record->size - record_head_size(record) - index * RECORD_CHUNK_SIZE;
    return index + 1 == record_chunks(record) ? left : RECORD_CHUNK_SIZE;
}

bool record_verify_chunk(const struct record *record, uint64_t index, const uint8_t *bytes)
{
    const uint8_t *sum = record->value - 4 * (record_chunks(record) - index);
    return get_u32(sum) == crc32c(0, bytes, record_chunk_size(record, index));
}

bool record_verify(const uint8_t *bytes, const struct record *record, uint32_t seed)
{
    bool whole = record_verify_head(bytes, record, seed);
    uint64_t chunks = record_chunks(record);
    for (uint64_t i = 0; i < chunks && whole; i++)
        whole = record_verify_chunk(record, i, record->value + i * RECORD_CHUNK_SIZE);
    return whole;
}

/* ---- Segment headers ---- */

#define SEGMENT_CRC_OFFSET 124u

void segment_header_encode(uint8_t out[SEGMENT_HEADER_SIZE], const struct segment_header *header)
{
    assert(header->kind <= SEGMENT_COMPACTED);

    memset(out, 0, SEGMENT_HEADER_SIZE);
    memcpy(out, segment_magic, sizeof segment_magic);
    put_u32(out + 8, FORMAT_VERSION);
    put_u32(out + 12, header->kind);
    put_u64(out + 16, header->id);
    memcpy(out + 24, header->store_id, sizeof header->store_id);
    memcpy(out + 40, header->hash_key, sizeof header->hash_key);
    put_u64(out + 56, header->capacity);
    put_u64(out + 64, header->birth);
    put_u64(out + 72, header->nonce);
    put_u32(out + SEGMENT_CRC_OFFSET, crc32c(0, out, SEGMENT_CRC_OFFSET));
}

int segment_header_decode(const uint8_t bytes[SEGMENT_HEADER_SIZE], struct segment_header *out)
{
    if (memcmp(bytes, segment_magic, sizeof segment_magic) != 0 ||
        get_u32(bytes + SEGMENT_CRC_OFFSET) != crc32c(0, bytes, SEGMENT_CRC_OFFSET))
        return PYKV_CORRUPT;
    if (get_u32(bytes + 8) != FORMAT_VERSION)
        return PYKV_NEWER_FORMAT;

    struct segment_header header = {
        .kind = get_u32(bytes + 12),
        .id = get_u64(bytes + 16),
        .capacity = get_u64(bytes + 56),
        .birth = get_u64(bytes + 64),
        .nonce = get_u64(bytes + 72),
    };
    memcpy(header.store_id, bytes + 24, sizeof header.store_id);
    memcpy(header.hash_key, bytes + 40, sizeof header.hash_key);
    if (header.kind > SEGMENT_COMPACTED)
        return PYKV_CORRUPT;
    for (uint32_t i = 80; i < SEGMENT_CRC_OFFSET; i++)
        if (bytes[i] != 0)
            return PYKV_CORRUPT;
    *out = header;
    return PYKV_OK;
}
