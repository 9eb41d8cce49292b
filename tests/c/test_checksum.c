/* checksum.h: the published vectors, and that every way of computing agrees with every other. */
#include "checksum.h"
#include "test.h"

/* RFC 3720, appendix B.4. */
static void agrees_with_rfc_3720(void)
{
    uint8_t bytes[32];
    memset(bytes, 0, sizeof bytes);
    CHECK_EQUAL(crc32c(0, bytes, 32), 0x8A9136AAu);
    CHECK_EQUAL(crc32c_portable(0, bytes, 32), 0x8A9136AAu);
    memset(bytes, 0xFF, sizeof bytes);
    CHECK_EQUAL(crc32c(0, bytes, 32), 0x62A8AB43u);
    CHECK_EQUAL(crc32c_portable(0, bytes, 32), 0x62A8AB43u);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    CHECK_EQUAL(crc32c(0, bytes, 32), 0x46DD794Eu);
    CHECK_EQUAL(crc32c_portable(0, bytes, 32), 0x46DD794Eu);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    CHECK_EQUAL(crc32c(0, bytes, 32), 0x113FDB5Cu);
    CHECK_EQUAL(crc32c_portable(0, bytes, 32), 0x113FDB5Cu);

    static const uint8_t command[48] = {
        0x01, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
        0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
    };
    CHECK_EQUAL(crc32c(0, command, 48), 0xD9963A56u);
    CHECK_EQUAL(crc32c_portable(0, command, 48), 0xD9963A56u);
    CHECK_EQUAL(crc32c(0, "123456789", 9), 0xE3069283u);
}

static uint32_t bit_by_bit(uint32_t crc, const uint8_t *bytes, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    }
    return ~crc;
}

static uint8_t noise[8192];

static void fill_noise(void)
{
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)test_random(&state);
}

/* Sizes around each border between the ways: 8, 3 * 40, 3 * 512, and several of those. */
static void agrees_bit_by_bit_at_every_size_and_alignment(void)
{
    fill_noise();
    for (size_t size = 0; size < 5000; size += size < 400 ? 1 : 61)
        for (size_t start = 0; start < 9; start++) {
            uint32_t seed = (uint32_t)size * 0x01000193u;
            uint32_t want = bit_by_bit(seed, noise + start, size);
            CHECK_EQUAL(crc32c(seed, noise + start, size), want);
            CHECK_EQUAL(crc32c_portable(seed, noise + start, size), want);
        }
}

static void continues_where_it_stopped(void)
{
    fill_noise();
    uint32_t whole = crc32c(7, noise, 4000);
    for (size_t first = 0; first <= 4000; first += 37)
        CHECK_EQUAL(crc32c(crc32c(7, noise, first), noise + first, 4000 - first), whole);
}

static void shifts_as_if_it_had_read(void)
{
    fill_noise();
    CHECK_EQUAL(crc32c_shift(0x12345678, 0), 0x12345678);
    for (size_t first = 0; first <= 4000; first += 37)
        CHECK_EQUAL(crc32c_shift(crc32c(7, noise, first), 4000 - first) ^ crc32c(0, noise + first, 4000 - first),
                    crc32c(7, noise, 4000));
    /* Further than any memory: in one step or in two. */
    CHECK_EQUAL(crc32c_shift(5, (UINT64_C(1) << 40) + 3), crc32c_shift(crc32c_shift(5, 3), UINT64_C(1) << 40));
}

static void takes_null_for_nothing(void)
{
    CHECK_EQUAL(crc32c(5, NULL, 0), 5);
    CHECK_EQUAL(crc32c_portable(5, NULL, 0), 5);
}

TEST_MAIN(CASE(agrees_with_rfc_3720), CASE(agrees_bit_by_bit_at_every_size_and_alignment),
          CASE(continues_where_it_stopped), CASE(shifts_as_if_it_had_read), CASE(takes_null_for_nothing))
