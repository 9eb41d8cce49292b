/* fuzz_manifest.c -- any bytes as a manifest.
 *
 * Input: a byte of flags, then the file. With the first flag its checksum is made right.
 * Checked: it is read or refused; what was read is written as the same bytes again. */
#include "checksum.h"
#include "error.h"
#include "format.h"
#include "fuzz.h"
#include "manifest.h"
#include "memory_os.h"

#include <stdlib.h>
#include <string.h>

enum { FLAG_RESEAL = 1 };
enum { ZERO_START = 64, ZERO_END = 80 };    /* not read, so not kept */

int LLVMFuzzerTestOneInput(const uint8_t *input_start, size_t input_size)
{
    struct input input = { input_start, input_size };
    uint64_t flags = input_number(&input, 1);
    size_t size = input.size;
    const uint8_t *bytes = input_bytes(&input, &size);
    struct buffer before = { 0 };

    memory_os_clear();
    struct buffer *file = memory_os_file(MANIFEST_NAME);
    buffer_append(file, bytes, size);
    if ((flags & FLAG_RESEAL) != 0 && size >= 4)
        put_u32(file->bytes + size - 4, crc32c(0, file->bytes, size - 4));
    buffer_append(&before, file->bytes, size);

    struct manifest manifest;
    int status = manifest_read(&memory_os, 0, &manifest);
    FUZZ_CHECK(status == PYKV_OK || status == PYKV_CORRUPT || status == PYKV_NEWER_FORMAT, "read: %d", status);
    if (status == PYKV_OK) {
        FUZZ_CHECK(manifest_write(&memory_os, 0, 0600, &manifest) == PYKV_OK, "write");
        file = memory_os_file(MANIFEST_NAME);
        bool same = file->size == size && memcmp(file->bytes, before.bytes, ZERO_START) == 0 &&
                    memcmp(file->bytes + ZERO_END, before.bytes + ZERO_END, size - ZERO_END - 4) == 0;
        FUZZ_CHECK(same, "it is written as other bytes than it was read from");
        manifest_release(&memory_os, &manifest);
    }
    free(before.bytes);
    return 0;
}

size_t fuzz_seed(unsigned number, uint8_t out[FUZZ_SEED_SIZE_MAX])
{
    struct manifest_segment segments[3] = { { 1, 65536 }, { 2, 4096 }, { 5, 0 } };
    struct manifest manifest = { .store_id = "a store", .durable = 1u << 30, .segment_id_next = 6,
                                 .count = number, .segments = segments };
    if (number > 3)
        return 0;
    memory_os_clear();
    FUZZ_CHECK(manifest_write(&memory_os, 0, 0600, &manifest) == PYKV_OK, "write");
    struct buffer *file = memory_os_file(MANIFEST_NAME);
    out[0] = (uint8_t)(number % 2);
    memcpy(out + 1, file->bytes, file->size);
    return 1 + file->size;
}
