/* checksum.h -- CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720, appendix B.4):
 * by the processor's instruction where there is one, else by tables. */
#ifndef PYKV_CHECKSUM_H
#define PYKV_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Continue a checksum: crc32c(crc32c(0, a), b) is that of a then b, crc32c(0, "123456789") is
 * 0xE3069283. The first call chooses the fastest way this processor has. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t size);

/* What `size` bytes behind it make of a checksum: crc32c(seed, a then b) is
 * crc32c_shift(crc32c(seed, a), size of b) ^ crc32c(0, b). So from the checksums of what begins at one
 * place those of all ranges follow, without reading them. */
uint32_t crc32c_shift(uint32_t crc, uint64_t size);

/* As crc32c(), by tables alone, for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t size);

#endif
