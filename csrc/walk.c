/* walk.c -- reading a segment from front to back: recovery, verification, salvage (log.h). */
#include "error.h"
#include "log.h"

/* Whether the walk has the record in memory. A long one of a segment that is not mapped need not fit there:
 * its chunks are verified one by one. */
static bool in_memory(const struct log_walk *walk, const struct record *record)
{
    return !walk->log->pread || record->size <= LOG_DIRECT_SIZE;
}

static uint64_t wanted(const struct log_walk *walk, const struct record *record)
{
    return in_memory(walk, record) ? record->size : record_head_size(record);
}

/* Mapped segments are read in place. Others through the reader, a record, or its head, at a time. */
static int walk_fetch(const struct log_walk *walk, struct log_reader *reader, uint64_t offset,
                      const uint8_t **bytes, struct record *out)
{
    const struct segment *segment = walk->segment;
    uint64_t room = walk->limit - offset;
    if (room < RECORD_BARE_SIZE)
        return PYKV_CORRUPT;
    if (!walk->log->pread) {
        if (walk->limit > segment->map_size)
            return PYKV_CORRUPT;
        *bytes = segment->base + offset;
        return record_decode(*bytes, room, out);
    }
    uint64_t got = room < sizeof reader->small ? room : sizeof reader->small;
    uint8_t *buffer = reader->small;
    int status = segment_read(walk->log, segment, buffer, (size_t)got, offset);
    if (status != PYKV_OK)
        return status;
    if (record_decode_header(buffer, out) != PYKV_OK || out->size > room)
        return PYKV_CORRUPT;
    if (wanted(walk, out) > got) {
        got = wanted(walk, out);
        if (got > reader->large_size) {
            log_reader_release(reader);
            reader->large = reader->os->alloc(reader->os, (size_t)got);
            reader->large_size = reader->large == NULL ? 0 : (size_t)got;
            if (reader->large == NULL)
                return error_no_memory((size_t)got);
        }
        buffer = reader->large;
        if ((status = segment_read(walk->log, segment, buffer, (size_t)got, offset)) != PYKV_OK)
            return status;
    }
    *bytes = buffer;
    return record_decode(buffer, room, out) == PYKV_OK && wanted(walk, out) <= got ? PYKV_OK : PYKV_CORRUPT;
}

/* One verified record at `offset`. */
static int walk_record(const struct log_walk *walk, struct log_reader *reader, uint64_t offset,
                       struct record *out)
{
    const uint8_t *bytes = NULL;
    int status = walk_fetch(walk, reader, offset, &bytes, out);
    if (status != PYKV_OK)
        return status;
    uint32_t seed = record_seed(walk->segment->seed, offset);
    if (in_memory(walk, out))
        return record_verify(bytes, out, seed) ? PYKV_OK : PYKV_CORRUPT;
    if (!record_verify_head(bytes, out, seed))
        return PYKV_CORRUPT;
    reader->segment = walk->segment;
    reader->offset = offset;
    status = log_read_value(walk->log, reader, out, 0, out->value_size, NULL);
    out->value = NULL;
    return status;
}

/* The members of the frame at walk->offset, one after the other; told to `each` if `tell`. PYKV_CORRUPT
 * if one does not verify, PYKV_INVALID if all do and yet they are not what the frame says. */
static int walk_members(const struct log_walk *walk, struct log_reader *reader,
                        const struct record *frame, bool tell)
{
    uint64_t offset = walk->offset + RECORD_BARE_SIZE;
    uint64_t left = (uint64_t)frame->value_size * RECORD_ALIGNMENT;
    struct record record;
    if (left > walk->limit - offset)
        return PYKV_INVALID;
    for (uint64_t i = 0; i < frame->previous; i++) {
        int status = walk_record(walk, reader, offset, &record);
        if (status != PYKV_OK)
            return status;
        if ((record.flags & RECORD_MEMBER) == 0 || record.sequence != frame->sequence || record.size > left)
            return PYKV_INVALID;
        if (tell &&
            (status = walk->each(walk->context, &record, location_make(walk->segment->id, offset))) != PYKV_OK)
            return status;
        offset += record.size;
        left -= record.size;
    }
    return left == 0 ? PYKV_OK : PYKV_INVALID;
}

/* The frame or single record at walk->offset; `tell` it, or only see whether it verifies. */
static int walk_frame(struct log_walk *walk, struct log_reader *reader, bool tell, uint64_t *size)
{
    struct record record;
    int status = walk_record(walk, reader, walk->offset, &record);
    if (status != PYKV_OK)
        return status;
    bool loose = walk->offset < walk->loose_end;
    if (record.flags & RECORD_MEMBER && !loose)
        return PYKV_CORRUPT;    /* a frame's part without its frame */
    *size = record.size;
    if (record.flags & RECORD_SEAL) {
        walk->sealed = record.previous;
        return tell ? walk->each(walk->context, &record, location_make(walk->segment->id, walk->offset)) : PYKV_OK;
    }
    if (record.flags & RECORD_FRAME) {
        *size = RECORD_BARE_SIZE + (uint64_t)record.value_size * RECORD_ALIGNMENT;
        status = walk_members(walk, reader, &record, false);
        if (status == PYKV_CORRUPT && loose) {
            *size = RECORD_BARE_SIZE;       /* step into it */
            return PYKV_OK;
        }
        if (status != PYKV_OK || !tell)
            return status == PYKV_INVALID ? PYKV_CORRUPT : status;
        return walk_members(walk, reader, &record, true);
    }
    return tell ? walk->each(walk->context, &record, location_make(walk->segment->id, walk->offset)) : PYKV_OK;
}

int log_walk(struct log_walk *walk)
{
    struct log_reader reader;
    int status = PYKV_OK;
    log_reader_init(&reader, walk->log->os);
    walk->sealed = 0;
    while (status == PYKV_OK && walk->sealed == 0 && walk->offset < walk->limit) {
        uint64_t size = 0;
        status = walk_frame(walk, &reader, true, &size);
        if (status == PYKV_OK)
            walk->offset += size;
    }
    log_reader_release(&reader);
    return status;
}

/* ---- The search behind damage ---- */

#define LONG_SIZE (4 * SUMS_STEP)       /* a longer record is not read before its sum is seen to fit */

/* Whether there can be a frame at walk->offset. PYKV_CORRUPT: no. Of a long record the head's checksum is put
 * together from those of the segment, so that each place costs at most LONG_SIZE, whatever stands there. Of
 * one with chunks the head is believed: should a chunk be damaged, *step leads behind it. */
static int walk_may_begin(struct log_walk *walk, uint64_t *step)
{
    uint8_t copy[RECORD_BARE_SIZE];
    const uint8_t *bytes = copy;
    struct record record;
    uint64_t offset = walk->offset, room = walk->limit - offset;
    uint32_t sum;
    int status = PYKV_OK;
    *step = RECORD_ALIGNMENT;
    if (room < RECORD_BARE_SIZE || (!walk->log->pread && walk->limit > walk->segment->map_size))
        return PYKV_CORRUPT;
    if (!walk->log->pread)
        bytes = walk->segment->base + offset;
    else if ((status = segment_read(walk->log, walk->segment, copy, sizeof copy, offset)) != PYKV_OK)
        return status;
    if (record_decode_header(bytes, &record) != PYKV_OK || record.size > room)
        return PYKV_CORRUPT;
    if (record.size <= LONG_SIZE)
        return PYKV_OK;
    if (walk->sums.at == NULL)
        status = sums_init(&walk->sums, walk->log, walk->segment, offset, walk->limit);
    if (status == PYKV_OK)
        status = sums_range(&walk->sums, record_seed(walk->segment->seed, offset), offset + 4,
                            offset + record_head_size(&record), &sum);
    if (status != PYKV_OK || sum != get_u32(bytes))
        return status == PYKV_OK ? PYKV_CORRUPT : status;
    if (record_chunks(&record) != 0)
        *step = record.size;
    return PYKV_OK;
}

/* What cannot be read ends the search: to pass over it could be to pass over a record, or over the MARK
 * that proves a loss. */
int log_walk_resync(struct log_walk *walk)
{
    struct log_reader reader;
    uint64_t size, step;
    int status = walk_may_begin(walk, &step);
    if (status == PYKV_OK)
        status = PYKV_CORRUPT;      /* as the caller has found */
    log_reader_init(&reader, walk->log->os);
    while (status == PYKV_CORRUPT && walk->offset < walk->limit) {
        walk->offset += step;
        if (walk->offset < walk->limit && (status = walk_may_begin(walk, &step)) == PYKV_OK)
            status = walk_frame(walk, &reader, false, &size);
    }
    walk->sealed = 0;
    if (walk->offset >= walk->limit) {
        walk->offset = walk->limit;
        status = PYKV_OK;
    }
    log_reader_release(&reader);
    return status;
}

int log_ends_in_seal(struct log *log, uint64_t id, bool *out, uint64_t *next)
{
    struct segment *segment;
    uint8_t bytes[RECORD_BARE_SIZE];
    struct record record;
    *out = false;
    int status = log_segment(log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &segment);
    if (status != PYKV_OK)
        return status;
    uint64_t length = log_limit(log, segment);
    if (length < SEGMENT_HEADER_SIZE + RECORD_BARE_SIZE || length % RECORD_ALIGNMENT != 0)
        return PYKV_OK;
    uint64_t offset = length - RECORD_BARE_SIZE;
    status = segment_read(log, segment, bytes, sizeof bytes, offset);
    *out = status == PYKV_OK && record_decode(bytes, sizeof bytes, &record) == PYKV_OK &&
           record.flags & RECORD_SEAL && record_verify(bytes, &record, record_seed(segment->seed, offset));
    if (*out && next != NULL)
        *next = record.previous;
    return status == PYKV_CORRUPT ? PYKV_OK : status;
}

void log_walk_release(struct log_walk *walk)
{
    sums_release(&walk->sums);
}
