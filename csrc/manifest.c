#include "manifest.h"

#include <errno.h>
#include <string.h>

#include "checksum.h"
#include "error.h"
#include "format.h"
#include "shared.h"

#define HEADER_SIZE 80u
#define ENTRY_SIZE 16u
#define CRC_SIZE 4u

static const uint8_t magic[8] = "pykvman\n";

static size_t manifest_size(size_t count) { return HEADER_SIZE + count * ENTRY_SIZE + CRC_SIZE; }

static void encode(uint8_t *out, const struct manifest *manifest)
{
    memcpy(out, magic, sizeof magic);
    put_u32(out + 8, FORMAT_VERSION);
    put_u32(out + 12, (uint32_t)manifest->count);
    memcpy(out + 16, manifest->store_id, 16);
    memcpy(out + 32, manifest->hash_key, 16);
    put_u64(out + 48, manifest->durable);
    put_u64(out + 56, manifest->segment_id_next);
    put_u32(out + 64, manifest->kind);
    memset(out + 68, 0, HEADER_SIZE - 68);
    for (size_t i = 0; i < manifest->count; i++) {
        put_u64(out + HEADER_SIZE + i * ENTRY_SIZE, manifest->segments[i].id);
        put_u64(out + HEADER_SIZE + i * ENTRY_SIZE + 8, manifest->segments[i].length);
    }
    size_t end = manifest_size(manifest->count) - CRC_SIZE;
    put_u32(out + end, crc32c(0, out, end));
}

static int decode(const struct os *os, const uint8_t *bytes, size_t size, struct manifest *out)
{
    if (size < manifest_size(0) || memcmp(bytes, magic, sizeof magic) != 0)
        return error_corrupt(MANIFEST_NAME, 0, "it is not a manifest");
    if (crc32c(0, bytes, size - CRC_SIZE) != get_u32(bytes + size - CRC_SIZE))
        return error_corrupt(MANIFEST_NAME, 0, "the manifest fails its checksum");
    if (get_u32(bytes + 8) != FORMAT_VERSION)
        return error_set(PYKV_NEWER_FORMAT, 0, MANIFEST_NAME, 8,
                         "the store has format %u and this release reads format %u", get_u32(bytes + 8),
                         FORMAT_VERSION);
    size_t count = get_u32(bytes + 12);
    if (count > SEGMENT_SLOT_COUNT || size != manifest_size(count))
        return error_corrupt(MANIFEST_NAME, 12, "the manifest's count of segments makes no sense");

    if (get_u64(bytes + 56) > SEGMENT_ID_MAX + 1)
        return error_corrupt(MANIFEST_NAME, 56, "no segment can have the number that the manifest tells");

    if (get_u32(bytes + 64) > MANIFEST_UNFINISHED)
        return error_corrupt(MANIFEST_NAME, 64, "there is no such kind of manifest");

    memcpy(out->store_id, bytes + 16, 16);
    memcpy(out->hash_key, bytes + 32, 16);
    out->kind = get_u32(bytes + 64);
    out->durable = get_u64(bytes + 48);
    out->segment_id_next = get_u64(bytes + 56);
    out->count = count;
    out->segments = os->alloc(os, (count + 1) * sizeof *out->segments);
    if (out->segments == NULL)
        return error_no_memory((count + 1) * sizeof *out->segments);
    for (size_t i = 0; i < count; i++) {
        out->segments[i].id = get_u64(bytes + HEADER_SIZE + i * ENTRY_SIZE);
        out->segments[i].length = get_u64(bytes + HEADER_SIZE + i * ENTRY_SIZE + 8);
        if (out->segments[i].id == 0 || out->segments[i].id > SEGMENT_ID_MAX ||
            (i > 0 && out->segments[i].id <= out->segments[i - 1].id)) {
            manifest_release(os, out);
            return error_corrupt(MANIFEST_NAME, HEADER_SIZE + i * ENTRY_SIZE, "the manifest's segments are out of order");
        }
    }
    return PYKV_OK;
}

int manifest_read(const struct os *os, int dir, struct manifest *out)
{
    struct os_stat stat;
    int fd = -1;
    *out = (struct manifest){ .count = 0 };
    int error = os->file_open(os, dir, MANIFEST_NAME, OS_READ, 0, &fd);
    if (error != 0)
        return error == ENOENT ? PYKV_MISSING : error_os(error, MANIFEST_NAME, 0, "open");

    uint8_t *bytes = NULL;
    size_t done = 0;
    int status = PYKV_OK;
    if ((error = os->file_stat(os, fd, &stat)) != 0) {
        status = error_os(error, MANIFEST_NAME, 0, "stat");
    } else if (stat.size > manifest_size(SEGMENT_SLOT_COUNT)) {
        status = error_corrupt(MANIFEST_NAME, stat.size, "the manifest is too long");
    } else if ((bytes = os->alloc(os, (size_t)stat.size + 1)) == NULL) {
        status = error_no_memory((size_t)stat.size);
    } else if ((error = os->file_read(os, fd, bytes, (size_t)stat.size, 0, &done)) != 0) {
        status = error_os(error, MANIFEST_NAME, 0, "read");
    } else {
        status = decode(os, bytes, done, out);
    }
    os->release(os, bytes);
    (void)os->file_close(os, fd);
    return status;
}

/* Write beside it, sync, rename, sync the directory. If we die before the rename, the old manifest
 * still stands, and the stray file is overwritten by the next. Renaming before the sync could leave
 * the real name on an empty file. */
int manifest_write(const struct os *os, int dir, uint32_t file_mode, const struct manifest *manifest)
{
    size_t size = manifest_size(manifest->count);
    uint8_t *bytes = os->alloc(os, size);
    int fd = -1;
    if (bytes == NULL)
        return error_no_memory(size);
    encode(bytes, manifest);
    (void)os->file_remove(os, dir, MANIFEST_TEMPORARY);
    int error = os->file_open(os, dir, MANIFEST_TEMPORARY, OS_CREATE, file_mode, &fd);
    if (error == 0)
        error = os->file_write(os, fd, bytes, size, 0);
    if (error == 0)
        error = os->file_sync(os, fd);
    if (fd >= 0) {
        int closed = os->file_close(os, fd);
        error = error != 0 ? error : closed;
    }
    os->release(os, bytes);
    if (error == 0)
        error = os->file_rename(os, dir, MANIFEST_TEMPORARY, MANIFEST_NAME);
    if (error == 0)
        error = os->dir_sync(os, dir);
    return error == 0 ? PYKV_OK : error_os(error, MANIFEST_NAME, 0, "write");
}

void manifest_release(const struct os *os, struct manifest *manifest)
{
    os->release(os, manifest->segments);
    manifest->segments = NULL;
    manifest->count = 0;
}
