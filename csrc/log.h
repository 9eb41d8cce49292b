/* log.h -- the segments of the log: open, read, append, seal. Appends go to one active segment, in
 * memory that is mapped, zeroed and has its blocks ahead of the tail; all others are sealed and
 * never change. Functions marked (W) need the writer lock. */
#ifndef PYKV_LOG_H
#define PYKV_LOG_H

#include <pthread.h>

#include "pykv.h"
#include "shared.h"
#include "sums.h"

#define LOG_SEAL_ROOM RECORD_BARE_SIZE          /* kept free behind every frame */
#define LOG_DIRECT_SIZE (UINT64_C(1) << 20)     /* longer frames are always written, not copied to the map */
#define LOG_CAPACITY_MAX (UINT64_C(1) << 34)
#define LOG_RECORD_OFFSET_MAX ((UINT64_C(1) << 32) - RECORD_ALIGNMENT)  /* what a location can say */

struct segment {                /* one process's view of a segment */
    uint64_t id;
    int fd;                     /* -1 where the mapping is all that reading needs: see segment.c */
    uint8_t *base;              /* mapping of `map_size` bytes, or NULL */
    size_t map_size;
    uint64_t capacity;
    uint32_t seed;
    _Atomic bool writable;      /* the mapping is */
    _Atomic uint32_t references;
    const struct os *os;
    struct segment *retired;    /* next in the list of those whose slot has a new owner */
};

struct log {
    const struct os *os;
    int dir;
    struct shared *shared;
    const struct process *process;
    uint8_t store_id[16], hash_key[16];
    uint64_t segment_size_min, segment_size_max;    /* of a new one, unless a frame needs more: log_capacity() */
    uint64_t disk_size_max;     /* of all segments; 0: none. An eighth of it is kept for deletes, and for the
                                 * copies of compaction: only puts are refused */
    uint32_t file_mode;
    bool writable, pread;
    bool salvage;               /* of a repair aside: a segment's header may be damaged */
    _Atomic(struct segment *) segments[SEGMENT_SLOT_COUNT];
    struct segment *append;     /* (W) the one that we wrote to last; it may be gone by now, unless it is
                                 * the active one still, */
    uint64_t append_id;         /* (W) as its number tells, */
    uint8_t *append_base;       /* (W) mapped writable; its own mapping, or with `pread` one of ours, */
    size_t append_size;         /* (W) of this size */
    struct segment *retired;    /* no longer in `segments`, but calls may be reading them; */
    struct segment *leaving;    /* of these, the ones that log_retire() told of */
    pthread_mutex_t mutex;      /* of `segments`, `retired` and `leaving` */
    uint8_t *zeros;             /* LOG_DIRECT_SIZE bytes */
};

int log_init(struct log *log);              /* the fields above `segments` have been set */
void log_release(struct log *log);
void log_segment_name(uint64_t id, char out[32]);   /* "segment-0000000001" */

/* The segment in `slot`, opened and mapped on first use. PYKV_CORRUPT if it is missing, shorter
 * than it should be, or not this store's. */
int log_segment(struct log *log, uint32_t slot, struct segment **out);
/* (W) Let go of the active one. In this order, so that a fork on the way leaves nothing to undo. */
static inline void log_detach(struct log *log)
{
    uint8_t *base = log->append_base;
    log->append = NULL;
    log->append_base = NULL;
    if (log->pread && base != NULL)
        log->os->unmap(log->os, base, log->append_size);
}
/* The file of a segment, for as long as a call takes: the caller closes it. An errno value. */
int log_open_file(const struct log *log, uint64_t id, int *fd);
/* Read from it, of the mapping where there is one. PYKV_CORRUPT, without a message, beyond its end. */
int segment_read(const struct log *log, const struct segment *segment, void *bytes, size_t size, uint64_t offset);
/* Open it anew at the next use: its file has changed. Only while nobody else reads the log. */
void log_forget(struct log *log, uint64_t id);
void log_drop(struct log *log);             /* the same with all of them */
void segment_release(struct segment *segment);      /* drop a reference */
/* Give up what this process has of segments that were removed, so that the disk gets their space back.
 * True if there is some: once every call that had begun by now has ended, log_retire_end() lets go of it. */
bool log_retire(struct log *log);
void log_retire_end(struct log *log);
bool log_retiring(struct log *log);         /* there is still some */
/* Bytes of the segment that hold records: up to the tail, or to where it was sealed. */
uint64_t log_limit(const struct log *log, const struct segment *segment);

/* Where the bytes of a record are put when segments are not mapped. */
struct log_reader {
    const struct os *os;
    struct segment *segment;    /* that the last record was read from, */
    uint64_t offset;            /* and where it begins, if lazy */
    bool lazy;                  /* of a value with chunks nothing is read: log_read_value() does that */
    uint8_t *large;
    size_t large_size;
    uint8_t small[2048];
};
static inline void log_reader_init(struct log_reader *reader, const struct os *os)
{
    reader->os = os;
    reader->lazy = false;
    reader->large = NULL;
    reader->large_size = 0;
}
void log_reader_release(struct log_reader *reader);

/* The record at `location`, verified. Its bytes are valid until the reader's next use (the mapped
 * ones: until the call ends, in which store_enter() keeps segments from going). PYKV_CORRUPT if it does not verify. */
int log_read(struct log *log, uint64_t location, struct log_reader *reader, struct record *out);
/* Copy `size` bytes from `from` on of the value of a record that a lazy reader has just read; of a long
 * value, read and verify the chunks that they lie in. PYKV_CORRUPT if one does not verify. `out` NULL: only
 * verify. */
int log_read_value(struct log *log, struct log_reader *reader, const struct record *record, uint64_t from,
                   size_t size, uint8_t *out);
/* Its header and key alone, not verified: enough for a writer to tell whose record it replaces,
 * even where the value is damaged. value is NULL. */
int log_peek(struct log *log, uint64_t location, struct log_reader *reader, struct record *out);
/* Start fetching a record of a mapped segment into the cache. */
void log_prefetch(struct log *log, uint64_t location);

/* (W) Make room for a frame of `size` bytes whose last record begins `last` bytes from its start:
 * seals the active segment and begins another if need be, reserves blocks. *position is where the
 * frame goes. On failure (PYKV_FULL...) the log is as it was. */
enum log_need {
    LOG_PUTS,                   /* may have what is left below the limit, */
    LOG_DELETES,                /* of the disk, */
    LOG_NO_BLOCKS,              /* of what is reserved for the active segment: else PYKV_FULL with ENOSPC */
};
int log_prepare(struct log *log, enum log_need need, uint64_t size, uint64_t last, uint64_t *position);
/* (W) Where a frame of at most LOG_DIRECT_SIZE that was prepared at `position` is in memory. */
static inline uint8_t *log_memory(const struct log *log, uint64_t position)
{
    return log->append_base + position_offset(position);
}
/* (W) Put the frame into the log: the point from which it counts. */
void log_publish(struct log *log, uint64_t position, uint64_t size);
/* (W) After a death: zero what the dead writer may have left behind the tail, and undo a half-made
 * segment. */
int log_repair(struct log *log);
/* The capacity that a new segment has as of now: a sixteenth of the log, rounded down to a power of two, within the
 * bounds above; and as segments grow in number they grow in size, so that 4,095 of them hold whatever there is.
 * *size, where not NULL, gets the bytes of the log: of all segments but those that only wait for snapshots, and the
 * copies that compaction has not made durable. Looks at every segment: not for each write. */
uint64_t log_capacity(const struct log *log, uint64_t *size);
/* (W) Begin a new active segment of `least` bytes or more, with no predecessor (`tail` 0) or after
 * sealing the present one. */
int log_roll(struct log *log, uint64_t least);
/* (W) Seal the active segment, whatever is left in it, and begin a new one. */
int log_end_active(struct log *log);
/* (W) Make and register a segment of `least` bytes or more that nothing refers to yet. */
int log_begin(struct log *log, enum segment_kind kind, uint64_t least, struct segment **out);

/* Reserve and zero ahead of the tail, and protect mappings of sealed segments: the helper's work. */
void log_extend_ahead(struct log *log);
/* Make the log durable up to `target` at least: one fdatasync for each segment not yet synced; not
 * for the one that `target` is the very beginning of, unless `header`. The caller holds the sync
 * lock. */
int log_sync(struct log *log, uint64_t target, bool header);

/* Walk over the frames of a segment from `offset` to `limit`. `each` gets every record in order,
 * members of frames only once their whole frame has verified (where segments are not mapped, value is NULL
 * of one longer than LOG_DIRECT_SIZE); a nonzero result stops the walk and
 * is returned. PYKV_CORRUPT: the frame at `offset` does not verify. Marks are told by `each` too. */
struct log_walk {
    struct log *log;
    struct segment *segment;
    uint64_t offset, limit;
    uint64_t sealed;            /* id of the next segment, 0: no SEAL met */
    uint64_t loose_end;         /* before this offset all frames are known to have been whole: of one
                                 * that damage has hit, the members that verify are told all the same */
    struct sums sums;           /* of the search, for this segment: log_walk_release() */
    int (*each)(void *context, const struct record *record, uint64_t location);
    void *context;
};
int log_walk(struct log_walk *walk);
/* Whether a segment's last record is its SEAL: then it was ended on purpose, and trimmed after its sync.
 * *next, where not NULL, gets the id that the SEAL names. */
int log_ends_in_seal(struct log *log, uint64_t id, bool *out, uint64_t *next);
/* Move walk->offset from a damaged place to the next frame that verifies, or to the limit. The time it
 * takes is in proportion to the bytes it passes over, whatever they are, and to those of the segment once.
 * Another result than PYKV_OK: not all could be read. */
int log_walk_resync(struct log_walk *walk);
/* After a search, before the walk goes to another segment or ends. */
void log_walk_release(struct log_walk *walk);

#endif
