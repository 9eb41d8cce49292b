#include "stage.h"

#include <string.h>

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

static int copy_value(const struct stage *stage, const struct record *record, uint64_t from, uint8_t *out, size_t size)
{
    if (record->value == NULL)
        return segment_read(stage->log, stage->source, out, size, stage->source_offset + record_head_size(record) + from);
    memcpy(out, record->value + from, size);
    return PYKV_OK;
}

/* A long record, which has chunks: some at a time are copied, added to the head, written; the head comes
 * last, because only then it is complete. */
static int stage_long(struct stage *stage, const struct record *record, uint32_t seed)
{
    int status = stage_flush(stage);
    uint64_t start = stage->offset, head_size = record_head_size(record);
    uint64_t padding = record->size - head_size - record->value_size;
    uint64_t room = (LOG_DIRECT_SIZE - head_size - padding) / RECORD_CHUNK_SIZE * RECORD_CHUNK_SIZE;
    uint8_t *head = stage->bytes, *piece = head + head_size;
    for (uint64_t done = 0; done < record->value_size && status == PYKV_OK; done += room) {
        uint64_t size = record->value_size - done;
        size = size < room ? size : room;
        status = copy_value(stage, record, done, piece, (size_t)size);
        if (done + size == record->value_size) {
            memset(piece + size, 0, (size_t)padding);
            size += padding;
        }
        record_encode_chunks(head, record, done / RECORD_CHUNK_SIZE, piece, size);
        if (status == PYKV_OK)
            status = write_at(stage, start + head_size + done, piece, (size_t)size);
    }
    uint64_t table_size = (uint64_t)4 * record_chunks(record);
    if (status == PYKV_OK && stage->source != NULL &&
        memcmp(piece - table_size, record->key + record->key_size, (size_t)table_size) != 0)
        status = PYKV_CORRUPT;
    record_encode_head(head, record, seed);
    if (status == PYKV_OK)
        status = write_at(stage, start, head, (size_t)head_size);
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
