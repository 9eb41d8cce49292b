/* fuzz_segment.c -- any bytes as the records of a segment: the walk and the search behind damage.
 *
 * Input: a byte of flags, then what lies behind the segment's header. A record whose checksum is 0
 * gets the right one, so that the fuzzer writes valid records as easily as damaged ones. With one of
 * the flags the input is repeated, many times: of long records the search looks at sums (sums.h).
 *
 * Checked: nothing is read outside of the segment (it is as long as its allocation); the search
 * always moves on, and over nothing that verifies; what is told verifies, lies in order, and encodes to the bytes it was decoded
 * from; a mapped segment and one that is read tell the same. */
#include "checksum.h"
#include "fuzz.h"
#include "log.h"
#include "memory_os.h"

#include <stdlib.h>
#include <string.h>

enum { FLAG_LOOSE = 1, FLAG_CUT = 2, FLAG_LONG = 4 };
enum { LONG_SIZE = 50000 };     /* what is repeated up to this size can be long records */

static const uint8_t store_id[16] = "fuzzed segments";
static const uint64_t segment_id = 7;

struct told { uint64_t count, hash, offset; };

static void note(struct told *told, uint64_t number)
{
    told->hash = (told->hash ^ number) * UINT64_C(0x100000001B3);
}

static void check_encoding(const struct record *record, uint64_t offset)
{
    uint64_t head = (record->flags & RECORD_EXPIRY) != 0 ? 32 : RECORD_HEADER_SIZE;
    size_t compared = (size_t)head + record->key_size + record->value_size;
    uint8_t *bytes = calloc(1, (size_t)record->size);
    FUZZ_CHECK(bytes != NULL, "out of memory");
    record_encode(bytes, record, record_seed(segment_seed(store_id, segment_id), offset));
    FUZZ_CHECK(memcmp(bytes + 4, record->key - head + 4, compared - 4) == 0, "the record at %llu encodes to other bytes",
               (unsigned long long)offset);
    free(bytes);
}

static int each(void *context, const struct record *record, uint64_t location)
{
    struct told *told = context;
    uint64_t offset = location_offset(location);
    FUZZ_CHECK(offset >= SEGMENT_HEADER_SIZE && offset % RECORD_ALIGNMENT == 0, "a record at %llu", (unsigned long long)offset);
    FUZZ_CHECK(told->count == 0 || offset > told->offset, "a record at %llu behind one at %llu", (unsigned long long)offset,
               (unsigned long long)told->offset);
    FUZZ_CHECK((record->flags & RECORD_FRAME) == 0, "a FRAME is told");
    told->offset = offset;
    told->count++;
    note(told, offset);
    note(told, record->flags);
    note(told, record->sequence);
    note(told, record->previous);
    note(told, record->expiry);
    if ((record->flags & (RECORD_MARK | RECORD_SEAL)) != 0)
        return PYKV_OK;
    for (uint64_t i = 0; i < (uint64_t)record->key_size + record->value_size; i++)
        note(told, record->key[i]);
    check_encoding(record, offset);
    return PYKV_OK;
}

static void check_skipped(const struct segment *segment, uint64_t from, uint64_t to, uint64_t limit, bool loose)
{
    struct record record;
    for (uint64_t at = from; at < to; at += RECORD_ALIGNMENT) {
        if (record_decode(segment->base + at, limit - at, &record) != PYKV_OK || (record.flags & RECORD_FRAME) != 0 ||
            ((record.flags & RECORD_MEMBER) != 0 && !loose))
            continue;
        FUZZ_CHECK(!record_verify(segment->base + at, &record, record_seed(segment->seed, at)),
                   "the search passes a record at %llu", (unsigned long long)at);
    }
}

/* As recovery reads a segment: walk, search on behind damage, until its end or its SEAL. */
static struct told walk_all(struct segment *segment, uint64_t limit, bool pread, bool loose)
{
    static struct log log;
    log.os = &memory_os;
    log.pread = pread;
    struct told told = { .hash = limit };
    struct log_walk walk = { .log = &log, .segment = segment, .offset = SEGMENT_HEADER_SIZE, .limit = limit,
                             .loose_end = loose ? UINT64_MAX : 0, .each = each, .context = &told };
    while (walk.offset < walk.limit) {
        uint64_t before = walk.offset;
        int status = log_walk(&walk);
        note(&told, walk.offset);
        FUZZ_CHECK(walk.offset >= before && walk.offset <= limit, "the walk goes from %llu to %llu of %llu",
                   (unsigned long long)before, (unsigned long long)walk.offset, (unsigned long long)limit);
        FUZZ_CHECK(status == PYKV_OK || status == PYKV_CORRUPT, "the walk ends with %d", status);
        if (status == PYKV_OK)
            break;
        before = walk.offset;
        status = log_walk_resync(&walk);
        FUZZ_CHECK(status == PYKV_OK && walk.offset > before, "the search ends with %d at %llu", status,
                   (unsigned long long)walk.offset);
        if (!pread)
            check_skipped(segment, before + RECORD_ALIGNMENT, walk.offset, limit, loose);
    }
    log_walk_release(&walk);
    note(&told, walk.sealed);
    return told;
}

static void seal_records(uint8_t *bytes, uint64_t size)
{
    uint32_t seed = segment_seed(store_id, segment_id);
    struct record record;
    uint64_t step;
    for (uint64_t at = SEGMENT_HEADER_SIZE; at < size; at += step) {
        step = RECORD_ALIGNMENT;
        if (record_decode(bytes + at, size - at, &record) != PYKV_OK)
            continue;
        if (get_u32(bytes + at) == 0)
            put_u32(bytes + at, crc32c(record_seed(seed, at), bytes + at + 4, (size_t)record.size - 4));
        if (record_verify(bytes + at, &record, record_seed(seed, at)))
            step = record.size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input_start, size_t input_size)
{
    struct input input = { input_start, input_size };
    uint64_t flags = input_number(&input, 1);
    size_t size = input.size;
    const uint8_t *body = input_bytes(&input, &size);
    size_t body_size = size;
    if ((flags & FLAG_LONG) != 0 && size > 0)
        size = LONG_SIZE / size * size;
    uint8_t *bytes = malloc(SEGMENT_HEADER_SIZE + size);
    FUZZ_CHECK(bytes != NULL, "out of memory");
    struct segment_header header = { .id = segment_id, .capacity = UINT64_C(1) << 27 };
    memcpy(header.store_id, store_id, sizeof store_id);
    segment_header_encode(bytes, &header);
    for (size_t at = 0; at < size; at += body_size)
        memcpy(bytes + SEGMENT_HEADER_SIZE + at, body, body_size);
    uint64_t limit = SEGMENT_HEADER_SIZE + size;
    seal_records(bytes, limit);
    if ((flags & FLAG_CUT) != 0 && size > 0)
        limit -= 1 + flags / 8 % size;      /* the last record may reach beyond it */

    memory_os_clear();
    struct buffer *file = memory_os_file("segment");
    buffer_append(file, bytes, (size_t)limit);
    struct segment segment = { .id = segment_id, .base = bytes, .map_size = (size_t)limit,
                               .seed = segment_seed(store_id, segment_id), .os = &memory_os };
    struct told mapped = walk_all(&segment, limit, false, (flags & FLAG_LOOSE) != 0);
    FUZZ_CHECK(memory_os.file_open(&memory_os, 0, "segment", OS_READ, 0, &segment.fd) == 0, "no file");
    struct told read = walk_all(&segment, limit, true, (flags & FLAG_LOOSE) != 0);
    FUZZ_CHECK(mapped.count == read.count && mapped.hash == read.hash, "%llu records in a mapping, %llu in the file",
               (unsigned long long)mapped.count, (unsigned long long)read.count);

    if (body_size >= SEGMENT_HEADER_SIZE && segment_header_decode(body, &header) == PYKV_OK) {
        uint8_t again[SEGMENT_HEADER_SIZE];
        segment_header_encode(again, &header);
        FUZZ_CHECK(memcmp(again, body, 64) == 0, "a segment header encodes to other bytes");
    }
    free(bytes);
    return 0;
}

/* ---- Seeds: every kind of record, their checksums left to seal_records() ---- */

static size_t add(uint8_t *out, size_t at, struct record record)
{
    record_encode(out + at, &record, 0);
    put_u32(out + at, 0);
    bool bare = (record.flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL)) != 0;
    return at + (bare ? RECORD_BARE_SIZE : (size_t)record_size(record.key_size, record.value_size, record.flags & RECORD_EXPIRY));
}

size_t fuzz_seed(unsigned number, uint8_t out[FUZZ_SEED_SIZE_MAX])
{
    static const uint8_t text[] = "key and value and more of it, longer than one record's header is";
    struct record put = { .key = text, .key_size = 3, .value = text + 8, .value_size = 40, .sequence = 1 };
    size_t at = 1;
    out[0] = (uint8_t)(number * 5);
    if (number > 5)
        return 0;
    if (number == 5) {          /* wherever one looks, it is the header of 20,000 bytes */
        static const uint8_t pattern[16] = { 1, 1, 1, 1, 0, 0, 0, 0, 0x20, 0x4E, 0, 0, 1 };
        out[0] = FLAG_LONG;
        for (size_t i = 0; i < 4; i++)
            memcpy(out + 1 + i * 16, pattern, 16);
        return 65;
    }
    if (number == 1)
        at = add(out, at, (struct record){ .key = text, .key_size = 3, .flags = RECORD_TOMBSTONE, .sequence = 2 });
    if (number == 2) {
        put.flags = RECORD_EXPIRY;
        put.expiry = 1767225600000;
    }
    if (number >= 3) {
        at = add(out, at, (struct record){ .flags = RECORD_FRAME, .sequence = 1, .previous = 2, .value_size = 2 * 80 / 16 });
        put.flags = RECORD_MEMBER;
        at = add(out, at, put);
        put.flags |= RECORD_EXPIRY;
    }
    at = add(out, at, put);
    if (number == 4)
        at = add(out, at, (struct record){ .flags = RECORD_SEAL, .sequence = 1, .previous = 8 });
    return add(out, at, (struct record){ .flags = RECORD_MARK, .sequence = 1, .value_size = 8 });
}
