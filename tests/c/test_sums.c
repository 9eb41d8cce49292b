/* sums.h and the search behind damage that asks it: checksums of ranges are those that reading gives, and
 * what cannot be read, or remembered, is a failure and never passed over. */
#include "checksum.h"
#include "error.h"
#include "log.h"
#include "test.h"

#include <errno.h>

/* One segment, as memory and as a file of `file_size` bytes; call number `failing` fails. */
static uint8_t bytes[300000];
static uint64_t file_size, bytes_read;
static int calls, failing, allocations;
static size_t asked;

static bool fails(void) { return calls++ == failing; }

static int read_bytes(const struct os *os, int fd, void *out, size_t size, uint64_t offset, size_t *done)
{
    (void)os, (void)fd;
    if (fails())
        return EIO;
    *done = offset >= file_size ? 0 : size < file_size - offset ? size : (size_t)(file_size - offset);
    memcpy(out, bytes + offset, *done);
    bytes_read += *done;
    return 0;
}

static void *alloc_bytes(const struct os *os, size_t size)
{
    asked = size;
    allocations++;
    return fails() || size > 1u << 20 ? NULL : os_posix.alloc(os, size);
}

static struct log test_log;
static struct os os;
static struct segment segment = { .id = 7, .base = bytes, .fd = 3 };

static void start(bool pread, size_t size)
{
    uint64_t state = 1;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)test_random(&state);
    os = os_posix;
    os.file_read = read_bytes;
    os.alloc = alloc_bytes;
    test_log.os = segment.os = &os;
    test_log.pread = pread;
    file_size = segment.map_size = size;
    calls = allocations = 0;
    bytes_read = 0;
    failing = -1;
}

static void ranges(bool pread)
{
    enum { START = 48, END = START + 5 * SUMS_STEP + 1000 };
    struct sums sums;
    uint64_t state = 2;
    uint32_t sum;
    start(pread, END);
    CHECK_EQUAL(sums_init(&sums, &test_log, &segment, START, END), PYKV_OK);
    for (int i = 0; i < 3000; i++) {
        /* around the borders of steps, at both ends, and anywhere */
        uint64_t from = START + test_random(&state) % (END - START + 1), to = START + test_random(&state) % (END - START + 1);
        if (i % 3 == 0)
            from = START + test_random(&state) % 6 * SUMS_STEP + (i % 2 ? test_random(&state) % 3 : 0);
        if (i % 5 == 0)
            to = END - test_random(&state) % 3;
        if (i % 7 == 0)
            to = START + test_random(&state) % 6 * SUMS_STEP;
        if (from > to)
            continue;
        uint32_t seed = (uint32_t)test_random(&state);
        CHECK_EQUAL(sums_range(&sums, seed, from, to, &sum), PYKV_OK);
        CHECK_EQUAL(sum, crc32c(seed, bytes + from, (size_t)(to - from)));
    }
    sums_release(&sums);
    sums_release(&sums);
}

static void ranges_of_a_mapping(void) { ranges(false); }
static void ranges_of_a_file(void) { ranges(true); }

/* A file that ends early, or cannot be read: so much is told, and what was read before stays. */
static void a_file_that_ends_early(void)
{
    enum { END = 10 * SUMS_STEP };
    struct sums sums;
    uint32_t sum;
    start(true, END);
    file_size = 5 * SUMS_STEP + 100;
    CHECK_EQUAL(sums_init(&sums, &test_log, &segment, 0, END), PYKV_OK);
    CHECK_EQUAL(sums_range(&sums, 1, 16, END, &sum), PYKV_CORRUPT);
    CHECK_EQUAL(sums_range(&sums, 1, 16, file_size + 1, &sum), PYKV_CORRUPT);
    calls = 0;
    CHECK_EQUAL(sums_range(&sums, 1, 16, file_size, &sum), PYKV_OK);
    CHECK_EQUAL(sum, crc32c(1, bytes + 16, (size_t)file_size - 16));
    CHECK_EQUAL(calls, 2);                      /* the two ends of the range */
    file_size = END;
    failing = calls + 3;
    CHECK_EQUAL(sums_range(&sums, 1, 16, END, &sum), PYKV_IO);
    CHECK_EQUAL(sums_range(&sums, 1, 16, END, &sum), PYKV_OK);
    CHECK_EQUAL(sum, crc32c(1, bytes + 16, END - 16));
    sums_release(&sums);

    test_log.pread = false;
    segment.map_size = file_size = 5 * SUMS_STEP + 100;
    CHECK_EQUAL(sums_init(&sums, &test_log, &segment, 0, END), PYKV_OK);
    CHECK_EQUAL(sums_range(&sums, 1, 16, END, &sum), PYKV_CORRUPT);
    CHECK_EQUAL(sums_range(&sums, 1, 16, file_size, &sum), PYKV_OK);
    sums_release(&sums);
}

static void memory_for_the_longest_segment(void)
{
    struct sums sums;
    start(false, 0);
    CHECK_EQUAL(sums_init(&sums, &test_log, &segment, SEGMENT_HEADER_SIZE, LOG_CAPACITY_MAX), PYKV_NO_MEMORY);
    CHECK(asked <= (16u << 20) + 4);
    sums_release(&sums);
    CHECK_EQUAL(sums_init(&sums, &test_log, &segment, SEGMENT_HEADER_SIZE, LOG_CAPACITY_MAX + 16), PYKV_CORRUPT);
    CHECK_EQUAL(sums_init(&sums, &test_log, &segment, SEGMENT_HEADER_SIZE, UINT64_MAX - 15), PYKV_CORRUPT);
}

/* ---- The search ---- */

enum { PLACES = 3, PLACE_SIZE = 36000 };
static uint64_t records[PLACES], record_count;

static int each(void *context, const struct record *record, uint64_t location)
{
    (void)context, (void)record;
    CHECK(record_count < PLACES);
    records[record_count++] = location_offset(location);
    return PYKV_OK;
}

/* Damaged places full of headers of long records, with a whole record, long as well, behind each. */
static uint64_t damage(void)
{
    uint64_t offset = SEGMENT_HEADER_SIZE;
    uint32_t seed = segment.seed = segment_seed((const uint8_t *)"sixteen of bytes", segment.id);
    static uint8_t value[17000];
    for (int place = 0; place < PLACES; place++) {
        for (uint64_t end = offset + PLACE_SIZE; offset < end; offset += 16) {
            memset(bytes + offset, 0, 16);
            put_u32(bytes + offset + 8, PLACE_SIZE / 2);
            bytes[offset + 12] = 1;
        }
        struct record record = { .key = value, .key_size = 3, .value = value, .value_size = sizeof value, .sequence = 1 };
        record_encode(bytes + offset, &record, record_seed(seed, offset));
        offset += record_size(3, sizeof value, false);
    }
    return offset;
}

static int search(uint64_t limit)
{
    struct log_walk walk = { .log = &test_log, .segment = &segment, .offset = SEGMENT_HEADER_SIZE, .limit = limit, .each = each };
    int status;
    record_count = 0;
    while ((status = log_walk(&walk)) == PYKV_CORRUPT && (status = log_walk_resync(&walk)) == PYKV_OK)
        ;
    log_walk_release(&walk);
    return status;
}

static void a_search_reads_the_segment_once(void)
{
    uint64_t limit;
    start(false, sizeof bytes);
    limit = damage();
    CHECK_EQUAL(search(limit), PYKV_OK);
    CHECK_EQUAL(record_count, PLACES);
    CHECK_EQUAL(allocations, 1);
}

/* Whichever read or allocation fails, the caller hears of it. */
static void a_search_passes_over_nothing_unread(void)
{
    uint64_t limit;
    start(true, sizeof bytes);
    limit = damage();
    CHECK_EQUAL(search(limit), PYKV_OK);
    CHECK_EQUAL(record_count, PLACES);
    int all = calls, heard = 0;
    for (int n = 0; n < all; n += n < 40 ? 1 : 79) {
        calls = 0;
        failing = n;
        int status = search(limit);
        CHECK(status == PYKV_IO || status == PYKV_NO_MEMORY);
        heard++;
    }
    CHECK(heard > 50);
}

/* Each 32 bytes are the head, with a checksum that holds, of a record with chunks that do not: by the first
 * the search passes over what all of them claim. */
static void a_head_that_verifies_is_passed_over_at_once(void)
{
    enum { AREA = 150000, VALUE_SIZE = 100000 };
    for (int pread = 0; pread < 2; pread++) {
        start(pread, sizeof bytes);
        uint32_t seed = segment.seed = segment_seed((const uint8_t *)"sixteen of bytes", segment.id);
        struct record record = { .value_size = VALUE_SIZE, .sequence = 1, .size = record_size(0, VALUE_SIZE, false) };
        CHECK_EQUAL(record_head_size(&record), 32);
        for (uint64_t offset = SEGMENT_HEADER_SIZE; offset < AREA; offset += 32)
            record_encode_head(bytes + offset, &record, record_seed(seed, offset));
        uint64_t end = SEGMENT_HEADER_SIZE + 2 * record.size;
        struct record whole = { .key = bytes, .key_size = 3, .value = bytes + 500, .value_size = 70000, .sequence = 1 };
        record_encode(bytes + end, &whole, record_seed(seed, end));
        CHECK_EQUAL(search(end + record_size(3, 70000, false)), PYKV_OK);
        CHECK_EQUAL(record_count, 1);
        CHECK_EQUAL(records[0], end);
        CHECK(bytes_read < 4 * sizeof bytes);
    }
}

TEST_MAIN(CASE(ranges_of_a_mapping), CASE(ranges_of_a_file), CASE(a_file_that_ends_early),
          CASE(memory_for_the_longest_segment), CASE(a_search_reads_the_segment_once),
          CASE(a_search_passes_over_nothing_unread), CASE(a_head_that_verifies_is_passed_over_at_once))
