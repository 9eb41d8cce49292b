/* format.h -- records and segment headers <-> bytes, and nothing else. format.md is its long form,
 * with worked examples, and changes with it. All integers are little-endian.
 *
 *     offset  size  field        of a record
 *     0       4     crc          CRC-32C of the rest of the head, begun at a seed that names the
 *                                store, the segment and the offset
 *     4       2     key_size     bytes
 *     6       2     flags        enum record_flag
 *     8       4     value_size   bytes (of a FRAME: units of 16 bytes that its members occupy)
 *     12      6     sequence     version of the batch
 *     18      6     previous     where the record that this one replaces lies, 0 for none
 *                                (of a FRAME: the number of its members)
 *     24      8     expiry       milliseconds since 1970, only with RECORD_EXPIRY
 *     24/32   ...   key
 *     ...     4 n   chunks       of a value longer than RECORD_CHUNK_SIZE: the CRC-32C of each chunk
 *     ...     ...   value, zero bytes up to a multiple of 16
 *
 * The head is the whole record; of one with chunks, what precedes its value. The last chunk includes the
 * zero bytes. So a part of a long value is verified without the rest.
 *
 * A record stands at an offset that is a multiple of 16. A batch of one operation is one record. A
 * longer batch is a FRAME, a record of 32 bytes without key or value, and behind it its members. */
#ifndef PYKV_FORMAT_H
#define PYKV_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FORMAT_VERSION 1u
#define RECORD_ALIGNMENT 16u
#define RECORD_HEADER_SIZE 24u
#define RECORD_BARE_SIZE 32u            /* a FRAME, MARK or SEAL: the header, padded */
#define SEGMENT_HEADER_SIZE 128u
#define RECORD_CHUNK_SIZE 65536u        /* bytes */
#define SEQUENCE_MAX ((UINT64_C(1) << 48) - 1)

enum record_flag {
    RECORD_TOMBSTONE = 1,   /* the key is deleted; no value */
    RECORD_EXPIRY = 2,      /* the field expiry is there */
    RECORD_FRAME = 4,       /* announces the members of a batch */
    RECORD_MEMBER = 8,      /* belongs to the FRAME before it */
    RECORD_MARK = 16,       /* value_size: all before this offset (units of 16 bytes) of this
                             * segment, and every earlier segment, was durable when this was written */
    RECORD_SEAL = 32,       /* the segment ends here: the one whose id `previous` tells goes on */
};

/* A place in the log as a keydir slot holds it, 40 bits: bits 28..39 the segment's slot, which is
 * segment_id % 4096; bits 0..27 the offset in units of 16 bytes. 0 is "nowhere": no record lies at
 * offset 0. On disk `previous` has 8 more bits of the segment's id above. */
#define LOCATION_OFFSET_BITS 28u
#define LOCATION_SLOT_BITS 12u
#define LOCATION_BITS 40u
#define SEGMENT_SLOT_COUNT (1u << LOCATION_SLOT_BITS)

static inline uint64_t location_make(uint64_t segment_id, uint64_t offset)
{
    return (segment_id & 0xFFFFFu) << LOCATION_OFFSET_BITS | offset / RECORD_ALIGNMENT;
}
static inline uint64_t location_short(uint64_t location)    /* 48 bits -> the 40 of a slot */
{
    return location & ((UINT64_C(1) << LOCATION_BITS) - 1);
}
static inline uint32_t location_slot(uint64_t location)
{
    return (uint32_t)(location >> LOCATION_OFFSET_BITS) & (SEGMENT_SLOT_COUNT - 1);
}
static inline uint64_t location_offset(uint64_t location)   /* bytes from the segment's start */
{
    return (location & ((UINT64_C(1) << LOCATION_OFFSET_BITS) - 1)) * RECORD_ALIGNMENT;
}

struct record {
    uint32_t key_size, value_size;
    uint16_t flags;
    uint64_t sequence, previous, expiry;
    const uint8_t *key, *value;     /* of a decoded record: into the bytes given */
    uint64_t size;                  /* on disk, padding included */
};

/* Chunks of a value: none of one that is no longer than one would be. */
static inline uint32_t value_chunks(uint32_t value_size)
{
    return __builtin_expect(value_size <= RECORD_CHUNK_SIZE, 1) ? 0 : (value_size - 1) / RECORD_CHUNK_SIZE + 1;
}

/* Bytes that a record of this shape occupies. Never overflows for sizes of 16 and 32 bits. */
static inline uint64_t record_size(uint32_t key_size, uint32_t value_size, bool expiry)
{
    uint64_t size = RECORD_HEADER_SIZE + (expiry ? 8u : 0u) + (uint64_t)key_size + value_size;
    size += (uint64_t)4 * value_chunks(value_size);
    return (size + RECORD_ALIGNMENT - 1) & ~(uint64_t)(RECORD_ALIGNMENT - 1);
}

static inline uint32_t record_chunks(const struct record *record)
{
    return record->flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL) ? 0 : value_chunks(record->value_size);
}

/* Bytes of its head; record->size has been set. */
static inline uint64_t record_head_size(const struct record *record)
{
    uint64_t chunks = record_chunks(record);
    if (__builtin_expect(chunks == 0, 1))
        return record->size;
    return RECORD_HEADER_SIZE + (record->flags & RECORD_EXPIRY ? 8u : 0u) + record->key_size + 4 * chunks;
}

/* The seed of a segment's checksums, and from it that of one record. */
uint32_t segment_seed(const uint8_t store_id[16], uint64_t segment_id);
uint32_t record_seed(uint32_t segment_seed, uint64_t offset);

/* Write the record to `out`, which has room for record_size() bytes (RECORD_BARE_SIZE for FRAME,
 * MARK and SEAL). The key and value are copied first and the checksums are those of the copy, so that
 * a caller's buffer which changes meanwhile cannot make a record that does not verify. */
void record_encode(uint8_t *out, const struct record *record, uint32_t seed);

/* Write only what precedes the key: 24 or 32 bytes (returned), the checksum left 0. */
size_t record_encode_header(uint8_t out[32], const struct record *record);

/* For a record with chunks, in pieces: note in the head at `out` the checksums of chunks from `first` on, of
 * which `size` bytes lie at `bytes`; and, when all are there, write the rest of the head. */
void record_encode_chunks(uint8_t *out, const struct record *record, uint64_t first, const uint8_t *bytes, uint64_t size);
void record_encode_head(uint8_t *out, const struct record *record, uint32_t seed);

/* Take a record's header apart and check that the whole of it lies within `size` bytes, its flags
 * are known and agree with each other, and its padding is where it should be. The checksum is not
 * looked at, and the key and value are not touched. PYKV_OK or PYKV_CORRUPT; no error is noted. */
int record_decode(const uint8_t *bytes, uint64_t size, struct record *out);

/* The sizes alone, from the first 24 (32 with expiry) bytes: for readers that fetch a record in
 * pieces. PYKV_OK or PYKV_CORRUPT; out->key and out->value are NULL. */
int record_decode_header(const uint8_t bytes[32], struct record *out);

/* Whether the checksums of the decoded record at `bytes` hold: all of them, that of the head alone, or
 * that of one chunk, which lies at `bytes`. */
bool record_verify(const uint8_t *bytes, const struct record *record, uint32_t seed);
bool record_verify_head(const uint8_t *bytes, const struct record *record, uint32_t seed);
bool record_verify_chunk(const struct record *record, uint64_t index, const uint8_t *bytes);
/* Bytes of a chunk: the last one's reach to the end of the record. */
uint64_t record_chunk_size(const struct record *record, uint64_t index);

/*     offset  size  field        of a segment header, SEGMENT_HEADER_SIZE bytes
 *     0       8     magic        "pykvseg\n"
 *     8       4     format       FORMAT_VERSION
 *     12      4     kind         enum segment_kind
 *     16      8     id           the number in the file's name
 *     24      16    store_id     random, the same in all files of a store
 *     40      16    hash_key     the secret of the keydir's hash
 *     56      8     capacity     bytes that the segment may grow to
 *     64      8     birth        version of the newest batch when the segment was begun
 *     72      8     nonce        random: two that have all else in common are told apart
 *     80      44    zero
 *     124     4     crc          CRC-32C of the 124 bytes before */
enum segment_kind { SEGMENT_LOG = 0, SEGMENT_COMPACTED = 1 };

struct segment_header {
    uint32_t kind;
    uint64_t id;
    uint8_t store_id[16];
    uint8_t hash_key[16];
    uint64_t capacity;
    uint64_t birth;             /* a key that was deleted by then has no older record here: compact.c */
    uint64_t nonce;
};

void segment_header_encode(uint8_t out[SEGMENT_HEADER_SIZE], const struct segment_header *header);
/* PYKV_OK, PYKV_CORRUPT, or PYKV_NEWER_FORMAT where magic and checksum hold but the format is not
 * ours. No error is noted. */
int segment_header_decode(const uint8_t bytes[SEGMENT_HEADER_SIZE], struct segment_header *out);

/* Little-endian fields of any alignment. */
static inline uint16_t get_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t get_u48(const uint8_t *p) { return get_u32(p) | (uint64_t)get_u16(p + 4) << 32; }
static inline uint64_t get_u64(const uint8_t *p) { return get_u32(p) | (uint64_t)get_u32(p + 4) << 32; }
static inline void put_u16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); }
static inline void put_u32(uint8_t *p, uint32_t v) { put_u16(p, (uint16_t)v); put_u16(p + 2, (uint16_t)(v >> 16)); }
static inline void put_u48(uint8_t *p, uint64_t v) { put_u32(p, (uint32_t)v); put_u16(p + 4, (uint16_t)(v >> 32)); }
static inline void put_u64(uint8_t *p, uint64_t v) { put_u32(p, (uint32_t)v); put_u32(p + 4, (uint32_t)(v >> 32)); }

#endif
