#include "stage.h"

#include <string.h>

#include "checksum.h"
#include "error.h"

static int write_at(const struct stage *stage, uint64_t offset, const void *bytes, size_t size)
{
    char name[32];
    int error = stage->log->os->file_write(stage->log->os, stage->fd, bytes, size, offset);
    log_segment_name(stage->id, name);
    return error == 0 ? PYKV_OK : error_os(error, name, offset, "write");
}

int stage_flush(struct stage *stage)
{
    int status = stage->used == 0 ? PYKV_OK : write_at(stage, stage->offset, stage->bytes, stage->used);
    stage->offset += stage->used;
    stage->used = 0;
    return status;
}

/* A long record: pieces are copied, added to the checksum, written; the header comes last, because
 * only then its checksum is known. */
static int stage_long(struct stage *stage, const struct record *record, uint32_t seed)
{
    uint8_t header[32];
    const uint8_t *parts[2] = { record->key, record->value };
    uint64_t sizes[2] = { record->key_size, record->value_size };
    int status = stage_flush(stage);
    uint64_t start = stage->offset;
    size_t header_size = record_encode_header(header, record);
    uint32_t crc = crc32c(seed, header + 4, header_size - 4);
    stage->offset += header_size;
    for (int part = 0; part < 2; part++) {
        for (uint64_t done = 0; done < sizes[part] && status == PYKV_OK;) {
            uint64_t size = sizes[part] - done;
            size = size < LOG_DIRECT_SIZE ? size : LOG_DIRECT_SIZE;
            memcpy(stage->bytes, parts[part] + done, (size_t)size);
            crc = crc32c(crc, stage->bytes, (size_t)size);
            stage->used = (size_t)size;
            status = stage_flush(stage);
            done += size;
        }
    }
    uint64_t padding = start + record->size - stage->offset;
    crc = crc32c(crc, stage->log->zeros, (size_t)padding);
    put_u32(header, crc);
    if (status == PYKV_OK)
        status = write_at(stage, stage->offset, stage->log->zeros, (size_t)padding);
    if (status == PYKV_OK)
        status = write_at(stage, start, header, header_size);
    stage->offset = start + record->size;
    return status;
}

int stage_record(struct stage *stage, const struct record *record)
{
    int status = PYKV_OK;
    uint32_t seed = record_seed(stage->seed, stage_end(stage));
    if (record->size > LOG_DIRECT_SIZE)
        return stage_long(stage, record, seed);
    if (stage->used + record->size > LOG_DIRECT_SIZE)
        status = stage_flush(stage);
    if (status == PYKV_OK)
        record_encode(stage->bytes + stage->used, record, seed);
    stage->used += (size_t)record->size;
    return status;
}
