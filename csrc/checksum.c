/* CRC-32C three ways: the instruction of x86-64, that of ARMv8, and tables for all others.
 *
 * The instruction takes 8 bytes but needs 3 cycles before the next may use its result, while a new
 * independent one can start every cycle. So longer runs on x86-64 are read as three streams,
 *
 *     |<------ A ------>|<------ B ------>|<------ C ------>|    each `size` bytes
 *
 * whose checksums are then joined: appending n bytes multiplies a checksum by x^(8n), modulo the
 * polynomial, and a carry-less product followed by the instruction itself does that: given the
 * constant x^(8n - 33) it makes up for the 32 and the 1 that the two steps add. */
#define _DEFAULT_SOURCE 1           /* getauxval */

#include "checksum.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#define ARM_HWCAP_CRC32 (1ul << 7)
#endif

typedef uint32_t crc_function(uint32_t crc, const void *bytes, size_t size);

/* ---- Tables: slicing by 8 ---- */

#define POLYNOMIAL 0x82F63B78u

static uint32_t table[8][256];      /* table[n][b]: the byte b followed by n zero bytes */
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_fill(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (POLYNOMIAL & (0u - (crc & 1)));
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int n = 1; n < 8; n++)
            table[n][byte] = table[n - 1][byte] >> 8 ^ table[0][table[n - 1][byte] & 0xFF];
}

uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    pthread_once(&table_once, table_fill);
    crc = ~crc;
    for (; size >= 8; p += 8, size -= 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = table[7][crc & 0xFF] ^ table[6][crc >> 8 & 0xFF] ^ table[5][crc >> 16 & 0xFF] ^
              table[4][crc >> 24] ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^
              table[0][p[7]];
    }
    for (; size > 0; p++, size--)
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xFF];
    return ~crc;
}

/* ---- Appending without reading: a product modulo the polynomial, x^0 in the highest bit ---- */

static uint32_t power[64];          /* power[n]: x^(8 * 2^n), what 2^n bytes multiply a checksum by */
static pthread_once_t power_once = PTHREAD_ONCE_INIT;

static uint32_t product_of(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (; a != 0; a <<= 1) {
        product ^= b & (0u - (a >> 31));
        b = b >> 1 ^ (POLYNOMIAL & (0u - (b & 1)));
    }
    return product;
}

static void power_fill(void)
{
    power[0] = UINT32_C(1) << (31 - 8);
    for (int n = 1; n < 64; n++)
        power[n] = product_of(power[n - 1], power[n - 1]);
}

uint32_t crc32c_shift(uint32_t crc, uint64_t size)
{
    pthread_once(&power_once, power_fill);
    for (int n = 0; size != 0; n++, size >>= 1)
        if (size & 1)
            crc = product_of(power[n], crc);
    return crc;
}

/* ---- x86-64: SSE4.2 and the carry-less product ---- */

#if defined(__x86_64__)

#define TARGET __attribute__((target("sse4.2,pclmul")))

#define SHORT_SIZE 40u              /* of a stream: a record of 16 + 100 bytes has three of these */
#define SHORT_ONCE 0x3DA6D0CBu      /* x^(8 * 40 - 33) */
#define SHORT_TWICE 0x39D3B296u     /* x^(8 * 80 - 33) */
#define LONG_SIZE 512u
#define LONG_ONCE 0xDD7E3B0Cu       /* x^(8 * 512 - 33) */
#define LONG_TWICE 0x170076FAu      /* x^(8 * 1024 - 33) */

static inline uint64_t load_u64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

TARGET static inline uint64_t multiply(uint64_t crc, uint32_t constant)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
                                           _mm_cvtsi64_si128((long long)constant), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* Over three streams of `size` bytes each, a constant where it is called. */
TARGET static inline uint64_t three_streams(uint64_t crc, const uint8_t *p, size_t size,
                                            uint32_t once, uint32_t twice)
{
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < size; i += 8) {
        a = _mm_crc32_u64(a, load_u64(p + i));
        b = _mm_crc32_u64(b, load_u64(p + size + i));
        c = _mm_crc32_u64(c, load_u64(p + 2 * size + i));
    }
    return _mm_crc32_u64(0, multiply(a, twice) ^ multiply(b, once)) ^ c;
}

TARGET static uint32_t crc32c_x86(uint32_t start, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    uint64_t crc = ~start;
    /* A record's checksum begins 4 bytes behind a multiple of 16. Aligned from there on, the reads
     * fall into the 8-byte stores that record_encode() has just made, and need not wait for them. */
    if (size >= 4 && ((uintptr_t)p & 7) == 4) {
        uint32_t word;
        memcpy(&word, p, sizeof word);
        crc = _mm_crc32_u32((uint32_t)crc, word);
        p += 4, size -= 4;
    }
    for (; size >= 3 * LONG_SIZE; p += 3 * LONG_SIZE, size -= 3 * LONG_SIZE)
        crc = three_streams(crc, p, LONG_SIZE, LONG_ONCE, LONG_TWICE);
    for (; size >= 3 * SHORT_SIZE; p += 3 * SHORT_SIZE, size -= 3 * SHORT_SIZE)
        crc = three_streams(crc, p, SHORT_SIZE, SHORT_ONCE, SHORT_TWICE);
    for (; size >= 8; p += 8, size -= 8)
        crc = _mm_crc32_u64(crc, load_u64(p));
    for (; size > 0; p++, size--)
        crc = _mm_crc32_u8((uint32_t)crc, *p);
    return ~(uint32_t)crc;
}

static crc_function *crc32c_fastest(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") ? crc32c_x86
                                                                                : crc32c_portable;
}

/* ---- ARMv8: the CRC extension ---- */

#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))

/* Written as instructions, because compilers disagree on the spelling of the target that would let
 * them be called by name. */
static inline uint32_t crc_u64(uint32_t crc, uint64_t word)
{
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}
static inline uint32_t crc_u8(uint32_t crc, uint8_t byte)
{
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)byte));
    return crc;
}

static uint32_t crc32c_arm(uint32_t crc, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    crc = ~crc;
    for (; size > 0 && ((uintptr_t)p & 7) != 0; p++, size--)
        crc = crc_u8(crc, *p);
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
#endif
        crc = crc_u64(crc, word);
    }
    for (; size > 0; p++, size--)
        crc = crc_u8(crc, *p);
    return ~crc;
}

static crc_function *crc32c_fastest(void)
{
#if defined(__APPLE__)
    return crc32c_arm;              /* every arm64 Mac has it */
#else
    return (getauxval(AT_HWCAP) & ARM_HWCAP_CRC32) != 0 ? crc32c_arm : crc32c_portable;
#endif
}

#else

static crc_function *crc32c_fastest(void)
{
    return crc32c_portable;
}

#endif

/* ---- The choice: made at the first call, by whichever threads come first, all alike ---- */

static uint32_t crc32c_choose(uint32_t crc, const void *bytes, size_t size);

static _Atomic(crc_function *) chosen = crc32c_choose;

static uint32_t crc32c_choose(uint32_t crc, const void *bytes, size_t size)
{
    crc_function *fastest = crc32c_fastest();
    atomic_store_explicit(&chosen, fastest, memory_order_relaxed);
    return fastest(crc, bytes, size);
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t size)
{
    return atomic_load_explicit(&chosen, memory_order_relaxed)(crc, bytes, size);
}
