/* reseal.c -- see reseal.h. The layouts are those of format.md. */
#include "reseal.h"

#include <string.h>

#include "checksum.h"
#include "format.h"
#include "pykv.h"
#include "shared.h"

static uint32_t seed_of(const uint8_t *segment) { return segment_seed(segment + 24, get_u64(segment + 16)); }

void reseal_segment(uint8_t *bytes, uint64_t size)
{
    struct record record;
    if (size < SEGMENT_HEADER_SIZE)
        return;
    put_u32(bytes + 124, crc32c(0, bytes, 124));
    for (uint64_t at = SEGMENT_HEADER_SIZE; at < size;) {
        if (record_decode(bytes + at, size - at, &record) != PYKV_OK) {
            at += RECORD_ALIGNMENT;
            continue;
        }
        put_u32(bytes + at, crc32c(record_seed(seed_of(bytes), at), bytes + at + 4, (size_t)record.size - 4));
        at += record.size;
    }
}

void reseal_manifest(uint8_t *bytes, uint64_t size)
{
    if (size >= 4)
        put_u32(bytes + size - 4, crc32c(0, bytes, (size_t)size - 4));
}

void reseal_checkpoint(uint8_t *bytes, uint64_t size)
{
    uint64_t at = 128;
    if (size < at)
        return;
    put_u32(bytes + 124, crc32c(0, bytes, 124));
    for (unsigned shard = 0; shard < 1024 && size - at >= 16; shard++) {
        uint64_t slots = (uint64_t)get_u32(bytes + at + 4) * 8;
        if (slots > size - at - 16)
            return;
        put_u32(bytes + at + 12, crc32c(crc32c(0, bytes + at, 12), bytes + at + 16, (size_t)slots));
        at += 16 + slots;
    }
    if (size - at >= 4)
        put_u32(bytes + size - 4, crc32c(0, bytes + at, (size_t)(size - at) - 4));
}

void reseal_keydir(uint8_t *bytes, uint64_t size)
{
    struct shared_identity identity;
    if (size < sizeof identity)
        return;
    memcpy(&identity, bytes, sizeof identity);
    shared_identity_seal(&identity);
    memcpy(bytes, &identity, sizeof identity);
}

bool segment_is_forged(const uint8_t *bytes, uint64_t size, const uint8_t *pristine, uint64_t pristine_size)
{
    struct record record;
    struct segment_header header;
    uint64_t shared = size < pristine_size ? size : pristine_size;
    if (size < SEGMENT_HEADER_SIZE)
        return false;
    if (segment_header_decode(bytes, &header) == PYKV_OK && memcmp(bytes, pristine, SEGMENT_HEADER_SIZE) != 0)
        return true;
    for (uint64_t at = SEGMENT_HEADER_SIZE; at < size; at += RECORD_ALIGNMENT) {
        if (record_decode(bytes + at, size - at, &record) != PYKV_OK ||
            (at + record.size <= shared && memcmp(bytes + at, pristine + at, (size_t)record.size) == 0))
            continue;
        if (record_verify(bytes + at, &record, record_seed(seed_of(pristine), at)))
            return true;
    }
    return false;
}
