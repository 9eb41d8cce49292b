/* stage.h -- records on their way into a segment: encoded into a buffer, which goes to the file when it
 * is full. */
#ifndef PYKV_STAGE_H
#define PYKV_STAGE_H

#include "log.h"

struct stage {
    const struct log *log;
    int fd;                     /* of the segment */
    uint64_t id;
    uint32_t seed;              /* the segment's */
    uint8_t *bytes;             /* room for LOG_DIRECT_SIZE, or for all that comes */
    size_t used;
    uint64_t offset;            /* in the segment, of bytes[0] */
    struct segment *source;     /* of records whose value is NULL, though they have one, */
    uint64_t source_offset;     /* and where in it they begin */
};

/* Add one; record->size has been set. Nothing refers to it before all is flushed. */
int stage_record(struct stage *stage, const struct record *record);
int stage_flush(struct stage *stage);
/* Where the next record will begin. */
static inline uint64_t stage_end(const struct stage *stage) { return stage->offset + stage->used; }

#endif
