/* format.h: what is encoded decodes to the same, in the bytes that format.md shows; whatever else
 * the bytes are, decoding says so and reads nothing beyond them. */
#include "format.h"

#include <stdio.h>
#include <stdlib.h>

#include "pykv.h"
#include "test.h"

static const uint8_t store_id[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

static struct record put_record(const char *key, const char *value)
{
    return (struct record){
        .key_size = (uint32_t)strlen(key), .value_size = (uint32_t)strlen(value),
        .sequence = 7, .key = (const uint8_t *)key, .value = (const uint8_t *)value,
    };
}

/* Bytes that end where the memory ends, so that a read beyond them is found. */
static uint8_t *exact_copy(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, bytes, size);
    return copy;
}

static void check_same(const struct record *got, const struct record *want)
{
    CHECK_EQUAL(got->key_size, want->key_size);
    CHECK_EQUAL(got->value_size, want->value_size);
    CHECK_EQUAL(got->flags, want->flags);
    CHECK_EQUAL(got->sequence, want->sequence);
    CHECK_EQUAL(got->previous, want->previous);
    CHECK_EQUAL(got->expiry, want->expiry);
}

static void check_round_trip(const struct record *record)
{
    bool bare = (record->flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL)) != 0;
    uint64_t size = bare ? RECORD_BARE_SIZE
                         : record_size(record->key_size, record->value_size,
                                       (record->flags & RECORD_EXPIRY) != 0);
    uint8_t *bytes = malloc(size + 16);
    CHECK(bytes != NULL);
    memset(bytes, 0xAA, size + 16);
    record_encode(bytes, record, 99);
    for (uint64_t i = 0; i < 16; i++)
        CHECK_EQUAL(bytes[size + i], 0xAA);

    struct record decoded, header;
    CHECK_EQUAL(record_decode(bytes, size, &decoded), PYKV_OK);
    CHECK(record_verify(bytes, &decoded, 99));
    CHECK(!record_verify(bytes, &decoded, 98));
    CHECK_EQUAL(record_decode(bytes, UINT64_MAX, &decoded), PYKV_OK);
    CHECK_EQUAL(decoded.size, size);
    check_same(&decoded, record);
    CHECK_EQUAL(record_decode_header(bytes, &header), PYKV_OK);
    check_same(&header, record);
    CHECK_EQUAL(header.size, size);
    CHECK(header.key == NULL && header.value == NULL);
    if (bare) {
        CHECK(decoded.key == NULL && decoded.value == NULL);
    } else {
        CHECK_BYTES(decoded.key, record->key, record->key_size);
        CHECK_BYTES(decoded.value, record->value, record->value_size);
        for (const uint8_t *p = decoded.value + decoded.value_size; p < bytes + size; p++)
            CHECK_EQUAL(*p, 0);
    }

    uint8_t alone[32] = { 0 };
    size_t alone_size = record_encode_header(alone, record);
    CHECK_EQUAL(alone_size, (record->flags & RECORD_EXPIRY) != 0 ? 32 : 24);
    CHECK_BYTES(alone + 4, bytes + 4, alone_size - 4);
    CHECK_EQUAL(get_u32(alone), 0);
    for (uint64_t shorter = 0; shorter < size; shorter += shorter + 100 < size ? 97 : 1) {
        uint8_t *torn = exact_copy(bytes, (size_t)shorter);
        CHECK_EQUAL(record_decode(torn, shorter, &header), PYKV_CORRUPT);
        free(torn);
    }
    free(bytes);
}

static void round_trips_every_small_size(void)
{
    static const uint8_t noise[80] = { 1, 2, 3, 0xFF, 5, 0, 7 };
    for (uint32_t key_size = 0; key_size < 40; key_size++)
        for (uint32_t value_size = 0; value_size < 40; value_size++) {
            struct record record = { .key_size = key_size, .value_size = value_size,
                                     .sequence = SEQUENCE_MAX, .previous = SEQUENCE_MAX - 1,
                                     .key = noise, .value = noise + 40 };
            check_round_trip(&record);
            record.flags = RECORD_EXPIRY | RECORD_MEMBER;
            record.expiry = UINT64_MAX - 3;
            check_round_trip(&record);
            if (value_size == 0) {
                record.expiry = 0;
                record.flags = RECORD_TOMBSTONE;
                check_round_trip(&record);
            }
        }
}

static void round_trips_the_longest_key(void)
{
    static uint8_t key[65535];
    memset(key, 'k', sizeof key);
    struct record record = { .key_size = sizeof key, .sequence = 1, .key = key };
    check_round_trip(&record);
}

/* A value of `size` bytes that differ from chunk to chunk. */
static uint8_t *long_value(uint32_t size)
{
    uint8_t *value = malloc(size);
    CHECK(value != NULL);
    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)(i * 7 + i / RECORD_CHUNK_SIZE);
    return value;
}

static void round_trips_sizes_around_chunks(void)
{
    static const uint32_t sizes[] = { 65535, 65536, 65537, 131071, 131072, 131073, 200000 };
    static const uint32_t chunks[] = { 0, 0, 2, 2, 2, 3, 4 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (uint32_t key_size = 0; key_size < 17; key_size += 4) {
            uint8_t *value = long_value(sizes[i]);
            struct record record = { .key_size = key_size, .value_size = sizes[i], .sequence = 1, .key = value, .value = value };
            CHECK_EQUAL(record_chunks(&record), chunks[i]);
            CHECK_EQUAL(record_size(key_size, sizes[i], false),
                        (24 + key_size + 4 * chunks[i] + sizes[i] + 15) / 16 * 16);
            check_round_trip(&record);
            record.flags = RECORD_EXPIRY | RECORD_MEMBER;
            record.expiry = 1;
            check_round_trip(&record);
            free(value);
        }
}

/* Written piece by piece, a record is the same as written at once. */
static void pieces_make_the_same_record(void)
{
    uint8_t *value = long_value(200000), head[64] = { 0 };
    struct record record = { .key_size = 3, .value_size = 200000, .sequence = 1, .key = value, .value = value,
                             .size = record_size(3, 200000, false) };
    uint8_t *bytes = malloc(record.size);
    CHECK(bytes != NULL);
    record_encode(bytes, &record, 5);
    uint64_t head_size = record_head_size(&record), half = 2 * RECORD_CHUNK_SIZE;
    CHECK_EQUAL(head_size, 24 + 3 + 4 * 4);
    record_encode_chunks(head, &record, 0, bytes + head_size, half);
    record_encode_chunks(head, &record, 2, bytes + head_size + half, record.size - head_size - half);
    record_encode_head(head, &record, 5);
    CHECK_BYTES(head, bytes, head_size);
    free(bytes);
    free(value);
}

/* Damage in a chunk is that of the chunk: the head and the others verify. Chunks that change places do not. */
static void chunks_verify_each_by_itself(void)
{
    uint8_t *value = long_value(200000);
    struct record record = { .key_size = 3, .value_size = 200000, .sequence = 1, .key = value, .value = value };
    uint64_t size = record_size(3, 200000, false);
    uint8_t *bytes = malloc(size), *other = malloc(RECORD_CHUNK_SIZE);
    CHECK(bytes != NULL && other != NULL);
    record_encode(bytes, &record, 5);
    CHECK_EQUAL(record_decode(bytes, size, &record), PYKV_OK);
    uint8_t *first = bytes + record_head_size(&record);
    CHECK(record.value == first);
    CHECK_EQUAL(record_chunk_size(&record, 2), RECORD_CHUNK_SIZE);
    CHECK_EQUAL(record_chunk_size(&record, 3), size - (uint64_t)(first - bytes) - 3 * RECORD_CHUNK_SIZE);
    for (uint64_t at = 0; at < size; at += at < 64 || at + 64 > size ? 1 : 997) {
        bytes[at] ^= 1;
        bool in_head = bytes + at < first;
        CHECK_EQUAL(record_verify_head(bytes, &record, 5), !in_head);
        for (uint64_t i = 0; i < 4 && !in_head; i++)
            CHECK_EQUAL(record_verify_chunk(&record, i, record.value + i * RECORD_CHUNK_SIZE),
                        i != (at - (uint64_t)(first - bytes)) / RECORD_CHUNK_SIZE);
        CHECK(!record_verify(bytes, &record, 5));
        bytes[at] ^= 1;
    }
    CHECK(record_verify(bytes, &record, 5));
    memcpy(other, first, RECORD_CHUNK_SIZE);
    memcpy(first, first + RECORD_CHUNK_SIZE, RECORD_CHUNK_SIZE);
    memcpy(first + RECORD_CHUNK_SIZE, other, RECORD_CHUNK_SIZE);
    CHECK(record_verify_head(bytes, &record, 5));
    CHECK(!record_verify_chunk(&record, 0, first));
    CHECK(!record_verify_chunk(&record, 1, first + RECORD_CHUNK_SIZE));
    CHECK(!record_verify(bytes, &record, 5));
    free(other);
    free(bytes);
    free(value);
}

static void round_trips_frames_marks_and_seals(void)
{
    static const uint16_t flags[] = { RECORD_FRAME, RECORD_MARK, RECORD_SEAL };
    for (size_t i = 0; i < 3; i++) {
        struct record record = { .flags = flags[i], .value_size = UINT32_MAX, .previous = 12 };
        check_round_trip(&record);
        record.sequence = 5;
        check_round_trip(&record);
    }
}

static void knows_the_size_of_the_largest(void)
{
    CHECK_EQUAL(record_size(65535, UINT32_MAX, true), UINT64_C(0x100050020));
    CHECK_EQUAL(record_size(0, 0, false), 32);
    CHECK_EQUAL(record_size(8, 0, false), 32);
    CHECK_EQUAL(record_size(9, 0, false), 48);
    uint8_t bytes[32] = { 0 };
    struct record out;
    put_u32(bytes + 8, UINT32_MAX);
    bytes[12] = 1;
    CHECK_EQUAL(record_decode(bytes, 32, &out), PYKV_CORRUPT);
    CHECK_EQUAL(record_decode_header(bytes, &out), PYKV_OK);
    CHECK_EQUAL(out.size, UINT64_C(0x100040020));
}

static void reads_the_fields_where_the_table_puts_them(void)
{
    struct record record = put_record("key", "value");
    uint8_t bytes[48];
    record.flags = RECORD_EXPIRY;
    record.sequence = UINT64_C(0x665544332211);
    record.previous = UINT64_C(0xCCBBAA998877);
    record.expiry = UINT64_C(0x0102030405060708);
    record_encode(bytes, &record, 0);
    static const uint8_t want[44] = {
        3, 0, 2, 0, 5, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB,
        0xCC, 8, 7, 6, 5, 4, 3, 2, 1, 'k', 'e', 'y', 'v', 'a', 'l', 'u', 'e',
    };
    CHECK_BYTES(bytes + 4, want, sizeof want);
}

/* Every combination of the 16 flags, with and without sizes: exactly those that the rules allow. */
static void refuses_flags_that_contradict(void)
{
    for (uint32_t flags = 0; flags < 0x10000; flags++)
        for (uint32_t shape = 0; shape < 8; shape++) {
            uint8_t bytes[64] = { 0 };
            struct record out;
            uint32_t key_size = shape & 1, value_size = shape >> 1 & 1, sequence = shape >> 2;
            put_u16(bytes + 4, (uint16_t)key_size);
            put_u16(bytes + 6, (uint16_t)flags);
            put_u32(bytes + 8, value_size);
            put_u48(bytes + 12, sequence);
            bool bare = flags == RECORD_FRAME || flags == RECORD_MARK || flags == RECORD_SEAL;
            bool of_key = (flags & ~(uint32_t)(RECORD_TOMBSTONE | RECORD_EXPIRY | RECORD_MEMBER)) == 0;
            bool tombstone = (flags & RECORD_TOMBSTONE) != 0, expiry = (flags & RECORD_EXPIRY) != 0;
            bool sound = bare ? key_size == 0
                              : of_key && sequence > 0 && !(tombstone && (expiry || value_size > 0));
            CHECK_EQUAL(record_decode(bytes, sizeof bytes, &out), sound ? PYKV_OK : PYKV_CORRUPT);
            CHECK_EQUAL(record_decode_header(bytes, &out), sound ? PYKV_OK : PYKV_CORRUPT);
        }
}

static void zeros_are_no_record(void)
{
    static const uint8_t zeros[64];
    struct record out;
    CHECK_EQUAL(record_decode(zeros, sizeof zeros, &out), PYKV_CORRUPT);
}

static void leaves_the_result_alone_on_failure(void)
{
    static const uint8_t zeros[32];
    struct record out = { .key_size = 77 };
    struct segment_header header = { .id = 77 };
    CHECK_EQUAL(record_decode(zeros, sizeof zeros, &out), PYKV_CORRUPT);
    CHECK_EQUAL(out.key_size, 77);
    static const uint8_t no_header[SEGMENT_HEADER_SIZE];
    CHECK_EQUAL(segment_header_decode(no_header, &header), PYKV_CORRUPT);
    CHECK_EQUAL(header.id, 77);
}

static void notices_every_flipped_bit(void)
{
    struct record record = put_record("a key", "and a value of some length");
    uint8_t bytes[64];
    uint64_t size = record_size(record.key_size, record.value_size, false);
    CHECK_EQUAL(size, sizeof bytes);
    record_encode(bytes, &record, 3);
    CHECK_EQUAL(record_decode(bytes, size, &record), PYKV_OK);
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(!record_verify(bytes, &record, 3));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(record_verify(bytes, &record, 3));
}

/* A record that lies where it was not written does not verify. */
static void knows_its_place(void)
{
    struct record record = put_record("k", "v");
    uint8_t bytes[32];
    uint32_t here = segment_seed(store_id, 5);
    record_encode(bytes, &record, record_seed(here, 4096));
    CHECK_EQUAL(record_decode(bytes, sizeof bytes, &record), PYKV_OK);
    CHECK(record_verify(bytes, &record, record_seed(here, 4096)));
    for (uint64_t offset = 0; offset < 1u << 20; offset += 16)
        CHECK(offset == 4096 || !record_verify(bytes, &record, record_seed(here, offset)));
    for (uint64_t id = 0; id < 10000; id++)
        CHECK(id == 5 || !record_verify(bytes, &record, record_seed(segment_seed(store_id, id), 4096)));
    uint8_t other_store[16] = { 1 };
    CHECK(!record_verify(bytes, &record, record_seed(segment_seed(other_store, 5), 4096)));
}

static void decodes_noise_without_harm(void)
{
    uint64_t state = 42;
    for (unsigned round = 0; round < 100000; round++) {
        uint8_t bytes[96];
        size_t size = test_random(&state) % (sizeof bytes + 1);
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)test_random(&state);
        if (round % 2 == 0) {               /* likely to be sound, so that sizes decide */
            put_u16(bytes + 4, bytes[4] % 64);
            put_u16(bytes + 6, bytes[6] % 64);
            put_u32(bytes + 8, bytes[8] % 64);
        }
        uint8_t *exact = exact_copy(bytes, size);
        struct record out;
        if (record_decode(exact, size, &out) == PYKV_OK) {
            CHECK(out.size <= size && out.size % RECORD_ALIGNMENT == 0);
            if (out.key != NULL)
                CHECK(out.key >= exact && out.value + out.value_size <= exact + out.size);
            (void)record_verify(exact, &out, 1);
        }
        free(exact);
    }
}

static void locations_hold_what_they_are_made_of(void)
{
    uint64_t location = location_make(0xABCDE, 0xFFFFFFF0u);
    CHECK(location <= SEQUENCE_MAX);
    CHECK_EQUAL(location_offset(location), 0xFFFFFFF0u);
    CHECK_EQUAL(location_slot(location), 0xCDE);
    CHECK_EQUAL(location_short(location), location & UINT64_C(0xFFFFFFFFFF));
    CHECK_EQUAL(location_slot(location_short(location)), 0xCDE);
    CHECK_EQUAL(location_slot(location_make(4096 + 3, 128)), 3);
}

static void segment_header_round_trips(void)
{
    struct segment_header header = { .kind = SEGMENT_COMPACTED, .id = 0x123456789,
                                     .capacity = UINT64_C(1) << 33 }, out;
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    memcpy(header.store_id, store_id, 16);
    memset(header.hash_key, 0x5A, 16);
    segment_header_encode(bytes, &header);
    CHECK_BYTES(bytes, "pykvseg\n\1\0\0\0\1\0\0\0", 16);
    CHECK_EQUAL(segment_header_decode(bytes, &out), PYKV_OK);
    CHECK_EQUAL(out.kind, header.kind);
    CHECK_EQUAL(out.id, header.id);
    CHECK_EQUAL(out.capacity, header.capacity);
    CHECK_BYTES(out.store_id, header.store_id, 16);
    CHECK_BYTES(out.hash_key, header.hash_key, 16);
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQUAL(segment_header_decode(bytes, &out), PYKV_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* ---- The examples of format.md, which tests/python/test_format_page.py decodes ---- */

#define PAGE_SIZE_MAX 512u

/* The hex of all fenced blocks, end to end. The page is found from this file's own path. */
static size_t read_page(uint8_t out[PAGE_SIZE_MAX])
{
    char path[1024], line[256];
    int root_size = (int)(strlen(__FILE__) - strlen("tests/c/test_format.c"));
    snprintf(path, sizeof path, "%.*scsrc/format.md", root_size, __FILE__);
    FILE *page = fopen(path, "r");
    if (page == NULL)
        test_fail(__FILE__, __LINE__, "cannot open %s", path);
    bool inside = false;
    size_t size = 0;
    while (fgets(line, sizeof line, page) != NULL) {
        if (strncmp(line, "```", 3) == 0) {
            inside = !inside && strncmp(line, "```hex ", 7) == 0;
            continue;
        }
        char *at = line + 6;                /* behind the offset */
        for (int i = 0; inside && i < 16; i++) {
            CHECK(size < PAGE_SIZE_MAX);
            out[size++] = (uint8_t)strtoul(at, &at, 16);
        }
    }
    fclose(page);
    return size;
}

static uint8_t page_bytes[PAGE_SIZE_MAX];
static uint64_t page_end;

static void append(struct record record, const char *key, const char *value)
{
    bool bare = (record.flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL)) != 0;
    record.key = (const uint8_t *)key;
    record.value = (const uint8_t *)value;
    record.key_size = (uint32_t)strlen(key);
    if (!bare)
        record.value_size = (uint32_t)strlen(value);
    record_encode(page_bytes + page_end, &record, record_seed(segment_seed(store_id, 1), page_end));
    page_end += bare ? RECORD_BARE_SIZE
                     : record_size(record.key_size, record.value_size,
                                   (record.flags & RECORD_EXPIRY) != 0);
}

static void encodes_the_examples_of_the_page(void)
{
    struct segment_header header = { .id = 1, .capacity = 128u << 20 };
    memcpy(header.store_id, store_id, 16);
    for (uint8_t i = 0; i < 16; i++)
        header.hash_key[i] = (uint8_t)(0xF0 + i);
    segment_header_encode(page_bytes, &header);
    page_end = SEGMENT_HEADER_SIZE;

    append((struct record){ .sequence = 1 }, "k", "hi");
    append((struct record){ .sequence = 2, .flags = RECORD_TOMBSTONE,
                            .previous = location_make(1, 128) }, "k", "");
    append((struct record){ .sequence = 3, .flags = RECORD_EXPIRY, .expiry = 1767225600000 },
           "session", "x");
    append((struct record){ .sequence = 4, .flags = RECORD_FRAME, .previous = 2, .value_size = 4 },
           "", "");
    append((struct record){ .sequence = 4, .flags = RECORD_MEMBER }, "a", "1");
    append((struct record){ .sequence = 4, .flags = RECORD_MEMBER | RECORD_TOMBSTONE,
                            .previous = location_make(1, 192) }, "session", "");
    append((struct record){ .sequence = 4, .flags = RECORD_MARK, .value_size = 336 / 16 }, "", "");
    append((struct record){ .sequence = 4, .flags = RECORD_SEAL, .previous = 2 }, "", "");

    uint8_t page[PAGE_SIZE_MAX];
    CHECK_EQUAL(read_page(page), page_end);
    CHECK_BYTES(page_bytes, page, page_end);
}

TEST_MAIN(CASE(round_trips_every_small_size), CASE(round_trips_the_longest_key), CASE(round_trips_sizes_around_chunks),
          CASE(pieces_make_the_same_record), CASE(chunks_verify_each_by_itself),
          CASE(round_trips_frames_marks_and_seals), CASE(knows_the_size_of_the_largest),
          CASE(reads_the_fields_where_the_table_puts_them), CASE(refuses_flags_that_contradict),
          CASE(zeros_are_no_record), CASE(leaves_the_result_alone_on_failure),
          CASE(notices_every_flipped_bit), CASE(knows_its_place),
          CASE(decodes_noise_without_harm), CASE(locations_hold_what_they_are_made_of),
          CASE(segment_header_round_trips), CASE(encodes_the_examples_of_the_page))
