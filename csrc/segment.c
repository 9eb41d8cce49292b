/* segment.c -- opening segments and reading records from them (log.h).
 *
 * A process may have 4,095 segments open and no more than 256 descriptors. So where segments are
 * mapped, only those that are being written or not yet durable have one: a sealed one is closed as
 * soon as it is mapped, the others when they have become sealed and durable and another is opened.
 * The next sync of a file that was opened anew still tells of a failed write before (Linux 4.16). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "log.h"

void log_segment_name(uint64_t id, char out[32])
{
    (void)snprintf(out, 32, "segment-%010" PRIu64, id);
}

int log_init(struct log *log)
{
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        atomic_init(&log->segments[i], NULL);
    log->append = NULL;
    log->append_base = NULL;
    log->retired = log->leaving = NULL;
    log->zeros = NULL;
    if (pthread_mutex_init(&log->mutex, NULL) != 0)
        return error_no_memory(sizeof log->mutex);
    void *zeros;
    int error = log->os->map(log->os, -1, 0, LOG_DIRECT_SIZE, true, &zeros);
    if (error != 0) {
        pthread_mutex_destroy(&log->mutex);
        return error_os(error, NULL, 0, "map memory for");
    }
    log->zeros = zeros;
    return PYKV_OK;
}

static void close_file(struct segment *segment)
{
    if (segment->fd >= 0)
        (void)segment->os->file_close(segment->os, segment->fd);
    segment->fd = -1;
}

void segment_release(struct segment *segment)
{
    if (segment == NULL || atomic_fetch_sub(&segment->references, 1) != 1)
        return;
    if (segment->base != NULL)
        segment->os->unmap(segment->os, segment->base, segment->map_size);
    close_file(segment);
    segment->os->release(segment->os, segment);
}

static void release_all(struct segment *segment)
{
    while (segment != NULL) {
        struct segment *next = segment->retired;
        segment_release(segment);
        segment = next;
    }
}

void log_drop(struct log *log)
{
    log_detach(log);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        if (atomic_load(&log->segments[i]) != NULL)
            segment_release(atomic_exchange(&log->segments[i], NULL));
    release_all(log->retired);
    release_all(log->leaving);
    log->retired = log->leaving = NULL;
}

void log_release(struct log *log)
{
    if (log->zeros == NULL)
        return;
    log_drop(log);
    log->os->unmap(log->os, log->zeros, LOG_DIRECT_SIZE);
    log->zeros = NULL;
    pthread_mutex_destroy(&log->mutex);
}

static uint64_t entry_limit(const struct shared *shared, uint64_t id)
{
    const struct segment_entry *entry = &shared->segments[id % SEGMENT_SLOT_COUNT];
    uint64_t tail = atomic_load_explicit(&shared->tail, memory_order_acquire);
    /* A seal stores the length before the tail moves on: so where the tail is elsewhere, it holds. */
    if (position_segment(tail) == id)
        return position_offset(tail);
    return atomic_load_explicit(&entry->length, memory_order_acquire);
}

uint64_t log_limit(const struct log *log, const struct segment *segment)
{
    return entry_limit(log->shared, segment->id);
}

/* Whether records may yet be added to it. A roll stores the length before it moves the tail, and may die or fail in
 * between. */
static bool segment_grows(const struct log *log, uint64_t id)
{
    const struct segment_entry *entry = &log->shared->segments[id % SEGMENT_SLOT_COUNT];
    return atomic_load(&entry->length) == 0 || position_segment(atomic_load(&log->shared->tail)) == id ||
           (atomic_load(&entry->kind) == SEGMENT_COMPACTED && atomic_load(&entry->synced) == 0);
}

/* Check the open file against what it should be, and map it. */
static int segment_load(struct log *log, struct segment *segment, const char *name)
{
    const struct os *os = log->os;
    const struct segment_entry *entry = &log->shared->segments[segment->id % SEGMENT_SLOT_COUNT];
    struct os_stat stat;
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    struct segment_header header;
    uint64_t least;
    size_t done;
    bool grows;
    int error;

    /* How long it should be, before how long it is: another process may be appending. Blocks that
     * were reserved are part of it: the next append goes there without asking. Where it was ended
     * meanwhile it may have grown since, or what was reserved been cut off: once more, then. */
    do {
        grows = segment_grows(log, segment->id);
        least = entry_limit(log->shared, segment->id);
        uint64_t reserved = atomic_load(&log->shared->reserved);
        if (position_segment(reserved) == segment->id && position_offset(reserved) > least)
            least = position_offset(reserved);
        if ((error = os->file_stat(os, segment->fd, &stat)) != 0)
            return error_os(error, name, 0, "stat");
    } while (grows && !segment_grows(log, segment->id));
    if ((error = os->file_read(os, segment->fd, bytes, sizeof bytes, 0, &done)) != 0)
        return error_os(error, name, 0, "read");
    int status = done == sizeof bytes ? segment_header_decode(bytes, &header) : PYKV_CORRUPT;
    if (status == PYKV_NEWER_FORMAT)
        return error_set(status, 0, name, 8, "%s was written by a newer release of pykv", name);
    if (log->salvage) {
        header.id = segment->id;
        header.capacity = stat.size;
        memcpy(header.store_id, log->store_id, sizeof header.store_id);
        status = PYKV_OK;
    }
    if (status != PYKV_OK || header.id != segment->id || header.capacity > LOG_CAPACITY_MAX)
        return error_corrupt(name, 0, "the segment header does not verify");
    if (memcmp(header.store_id, log->store_id, sizeof header.store_id) != 0)
        return error_corrupt(name, 24, "the segment belongs to another store");

    if (stat.size < least)
        return error_set(PYKV_CORRUPT, 0, name, stat.size,
                         "%s is %" PRIu64 " bytes long and should be %" PRIu64, name, stat.size, least);
    segment->capacity = header.capacity;
    segment->seed = segment_seed(log->store_id, segment->id);
    /* Only now do we know that what we have read of it was its own: it may have been removed meanwhile. */
    if (atomic_load(&entry->id) != segment->id)
        return error_corrupt(name, 0, "the segment was removed");
    segment->writable = grows && log->writable && atomic_load(&entry->kind) == SEGMENT_LOG;
    segment->map_size = (size_t)(grows ? header.capacity : stat.size);
    if (log->pread || segment->map_size == 0)
        return PYKV_OK;
    void *base;
    if ((error = os->map(os, segment->fd, 0, segment->map_size, segment->writable, &base)) != 0)
        return error_os(error, name, 0, "map");
    segment->base = base;
    os->advise(os, base, segment->map_size, OS_RANDOM);
    if (!grows)
        close_file(segment);
    return PYKV_OK;
}

int log_open_file(const struct log *log, uint64_t id, int *fd)
{
    char name[32];
    log_segment_name(id, name);
    /* What is sealed and durable never changes, and a backup may have it under another name: also one that became so,
     * or was removed, while we set out to open it. */
    const struct segment_entry *entry = &log->shared->segments[id % SEGMENT_SLOT_COUNT];
    for (;;) {
        bool changes = log->writable && atomic_load(&entry->synced) == 0 && atomic_load(&entry->id) == id;
        int error = log->os->file_open(log->os, log->dir, name, changes ? OS_READ_WRITE : OS_READ_LINKED, 0, fd);
        if (error != EINVAL || !changes || (atomic_load(&entry->synced) == 0 && atomic_load(&entry->id) == id))
            return error;
    }
}

static int segment_open(struct log *log, uint64_t id, struct segment **out)
{
    char name[32];
    struct segment *segment = log->os->alloc(log->os, sizeof *segment);
    if (segment == NULL)
        return error_no_memory(sizeof *segment);
    segment->os = log->os;
    segment->id = id;
    segment->fd = -1;
    atomic_init(&segment->references, 1);

    log_segment_name(id, name);
    int error = log_open_file(log, id, &segment->fd);
    int status = error == 0      ? segment_load(log, segment, name)
                 : error == ENOENT ? error_corrupt(name, 0, "the segment is missing")
                                 : error_os(error, name, 0, "open");
    if (status != PYKV_OK) {
        segment_release(segment);
        return status;
    }
    *out = segment;
    return PYKV_OK;
}

/* Close the files of which nothing but reading is left: nobody syncs or extends one that is durable. */
static void close_durable(struct log *log)
{
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        struct segment *segment = atomic_load(&log->segments[i]);
        const struct segment_entry *entry = &log->shared->segments[i];
        if (segment != NULL && segment->fd >= 0 && segment->base != NULL &&
            atomic_load(&entry->id) == segment->id && atomic_load(&entry->synced) != 0)
            close_file(segment);
    }
}

/* Nobody finds it any more; who has found it may go on reading. */
static void retire(struct log *log, struct segment *segment)
{
    segment->retired = log->retired;
    log->retired = segment;
}

bool log_retire(struct log *log)
{
    pthread_mutex_lock(&log->mutex);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        struct segment *segment = atomic_load(&log->segments[i]);
        if (segment == NULL || segment->id == atomic_load(&log->shared->segments[i].id))
            continue;
        atomic_store(&log->segments[i], NULL);
        retire(log, segment);
    }
    if (log->leaving == NULL) {
        log->leaving = log->retired;
        log->retired = NULL;
    }
    bool some = log->leaving != NULL;
    pthread_mutex_unlock(&log->mutex);
    return some;
}

void log_retire_end(struct log *log)
{
    pthread_mutex_lock(&log->mutex);
    struct segment *leaving = log->leaving;
    log->leaving = NULL;
    pthread_mutex_unlock(&log->mutex);
    release_all(leaving);
}

bool log_retiring(struct log *log)
{
    pthread_mutex_lock(&log->mutex);
    bool some = log->retired != NULL || log->leaving != NULL;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT && !some; i++) {
        const struct segment *segment = atomic_load(&log->segments[i]);
        some = segment != NULL && segment->id != atomic_load(&log->shared->segments[i].id);
    }
    pthread_mutex_unlock(&log->mutex);
    return some;
}

static int segment_open_slot(struct log *log, uint32_t slot, struct segment **out)
{
    int status = PYKV_OK;
    pthread_mutex_lock(&log->mutex);
    uint64_t id = atomic_load(&log->shared->segments[slot].id);
    struct segment *segment = atomic_load(&log->segments[slot]);
    if (segment == NULL || segment->id != id) {
        struct segment *old = segment;
        close_durable(log);
        status = id == 0 || id % SEGMENT_SLOT_COUNT != slot
                     ? error_set(PYKV_CORRUPT, 0, "keydir", 0, "no segment in slot %u", slot)
                     : segment_open(log, id, &segment);
        if (status == PYKV_OK) {
            atomic_store_explicit(&log->segments[slot], segment, memory_order_release);
            if (old != NULL)
                retire(log, old);
        }
    }
    pthread_mutex_unlock(&log->mutex);
    if (status == PYKV_OK)
        *out = segment;
    return status;
}

int log_segment(struct log *log, uint32_t slot, struct segment **out)
{
    struct segment *segment = atomic_load_explicit(&log->segments[slot], memory_order_acquire);
    if (__builtin_expect(segment != NULL, 1) &&
        segment->id == atomic_load_explicit(&log->shared->segments[slot].id, memory_order_relaxed)) {
        *out = segment;
        return PYKV_OK;
    }
    return segment_open_slot(log, slot, out);
}

void log_forget(struct log *log, uint64_t id)
{
    segment_release(atomic_exchange(&log->segments[id % SEGMENT_SLOT_COUNT], NULL));
}

/* ---- Records ---- */

void log_reader_release(struct log_reader *reader)
{
    reader->os->release(reader->os, reader->large);
    reader->large = NULL;
}

static int damaged(const struct segment *segment, uint64_t offset, const char *what)
{
    char name[32];
    log_segment_name(segment->id, name);
    return error_corrupt(name, offset, what);
}

int segment_read(const struct log *log, const struct segment *segment, void *bytes, size_t size, uint64_t offset)
{
    size_t done = 0;
    if (!log->pread) {
        if (offset > segment->map_size || size > segment->map_size - offset)
            return PYKV_CORRUPT;
        memcpy(bytes, segment->base + offset, size);
        return PYKV_OK;
    }
    int error = log->os->file_read(log->os, segment->fd, bytes, size, offset, &done);
    if (error == 0)
        return done == size ? PYKV_OK : PYKV_CORRUPT;
    char name[32];
    log_segment_name(segment->id, name);
    return error_os(error, name, offset, "read");
}

/* Fetch `size` bytes at `offset` into the reader's memory. */
static int fetch(const struct segment *segment, struct log_reader *reader, uint64_t offset,
                 uint64_t size, uint8_t **out)
{
    uint8_t *bytes = reader->small;
    if (size > sizeof reader->small) {
        if (size > reader->large_size) {
            reader->os->release(reader->os, reader->large);
            reader->large_size = 0;
            reader->large = reader->os->alloc(reader->os, (size_t)size);
            if (reader->large == NULL)
                return error_no_memory((size_t)size);
            reader->large_size = (size_t)size;
        }
        bytes = reader->large;
    }
    size_t done;
    int error = reader->os->file_read(reader->os, segment->fd, bytes, (size_t)size, offset, &done);
    if (error != 0) {
        char name[32];
        log_segment_name(segment->id, name);
        return error_os(error, name, offset, "read");
    }
    if (done != size)
        return damaged(segment, offset, "the segment is shorter than its records");
    *out = bytes;
    return PYKV_OK;
}

enum extent { EXTENT_KEY, EXTENT_HEAD, EXTENT_WHOLE };

/* The first guess is small; the header then tells what is missing. */
static int fetch_record(const struct segment *segment, struct log_reader *reader, uint64_t offset,
                        uint64_t limit, enum extent extent, uint8_t **bytes, uint64_t *size)
{
    uint64_t guess = limit - offset < sizeof reader->small ? limit - offset : sizeof reader->small;
    struct record record;
    int status = fetch(segment, reader, offset, guess, bytes);
    if (status != PYKV_OK)
        return status;
    if (guess < RECORD_BARE_SIZE || record_decode_header(*bytes, &record) != PYKV_OK ||
        record.size > limit - offset)
        return damaged(segment, offset, "the record's header makes no sense");
    uint64_t need = extent == EXTENT_WHOLE  ? record.size
                    : extent == EXTENT_HEAD ? record_head_size(&record)
                                            : 32u + (uint64_t)record.key_size;
    if (need > record.size)
        need = record.size;
    *size = need > guess ? need : guess;
    return need > guess ? fetch(segment, reader, offset, need, bytes) : PYKV_OK;
}

static int locate(struct log *log, uint64_t location, struct segment **segment, uint64_t *offset,
                  uint64_t *limit)
{
    int status = log_segment(log, location_slot(location), segment);
    if (status != PYKV_OK)
        return status;
    *offset = location_offset(location);
    *limit = log_limit(log, *segment);
    if (*offset < SEGMENT_HEADER_SIZE || *offset >= *limit)
        return damaged(*segment, *offset, "no record can be there");
    return PYKV_OK;
}

static int verify_chunks(const struct segment *segment, uint64_t offset, const struct record *record)
{
    uint64_t chunks = record_chunks(record), value = offset + record_head_size(record);
    for (uint64_t i = 0; i < chunks; i++)
        if (!record_verify_chunk(record, i, record->value + i * RECORD_CHUNK_SIZE))
            return damaged(segment, value + i * RECORD_CHUNK_SIZE, "a part of a value fails its checksum");
    return PYKV_OK;
}

int log_read(struct log *log, uint64_t location, struct log_reader *reader, struct record *out)
{
    struct segment *segment;
    uint64_t offset, limit, size;
    uint8_t *bytes;
    int status = locate(log, location, &segment, &offset, &limit);
    if (status != PYKV_OK)
        return status;
    reader->segment = segment;
    if (!log->pread) {
        if (__builtin_expect(limit > segment->map_size, 0))
            return damaged(segment, offset, "the segment is longer than its capacity");
        bytes = segment->base + offset;
        size = limit - offset;
        __builtin_prefetch(bytes + 64);     /* most records reach beyond their first line */
        __builtin_prefetch(bytes + 128);
    } else if ((status = fetch_record(segment, reader, offset, limit, reader->lazy ? EXTENT_HEAD : EXTENT_WHOLE,
                                      &bytes, &size)) != PYKV_OK) {
        return status;
    }
    if (record_decode(bytes, limit - offset, out) != PYKV_OK ||
        (log->pread && (reader->lazy ? record_head_size(out) : out->size) > size))
        return damaged(segment, offset, "the record's header makes no sense");
    if (!record_verify_head(bytes, out, record_seed(segment->seed, offset)))
        return damaged(segment, offset, "the record fails its checksum");
    reader->offset = offset;
    return __builtin_expect(record_chunks(out) == 0, 1) || reader->lazy ? PYKV_OK : verify_chunks(segment, offset, out);
}

int log_read_value(struct log *log, struct log_reader *reader, const struct record *record, uint64_t from,
                   size_t size, uint8_t *out)
{
    uint64_t value = reader->offset + record_head_size(record), end = from + size;
    uint8_t *buffer = NULL;
    int status = PYKV_OK;
    if (size == 0)
        return PYKV_OK;
    if (record_chunks(record) == 0) {
        if (out != NULL)
            memcpy(out, record->value + from, size);
        return PYKV_OK;
    }
    if (log->pread && (buffer = log->os->alloc(log->os, RECORD_CHUNK_SIZE + RECORD_ALIGNMENT)) == NULL)
        return error_no_memory(RECORD_CHUNK_SIZE + RECORD_ALIGNMENT);
    for (uint64_t i = from / RECORD_CHUNK_SIZE; i * RECORD_CHUNK_SIZE < end && status == PYKV_OK; i++) {
        uint64_t begin = i * RECORD_CHUNK_SIZE, at = from > begin ? from : begin;
        uint64_t stop = end - begin < RECORD_CHUNK_SIZE ? end : begin + RECORD_CHUNK_SIZE;
        const uint8_t *bytes = log->pread ? buffer : record->value + begin;
        if (log->pread)
            status = segment_read(log, reader->segment, buffer, (size_t)record_chunk_size(record, i), value + begin);
        if (status == PYKV_CORRUPT || (status == PYKV_OK && !record_verify_chunk(record, i, bytes)))
            status = damaged(reader->segment, value + begin, "a part of a value fails its checksum");
        else if (status == PYKV_OK && out != NULL)
            memcpy(out + (at - from), bytes + (at - begin), (size_t)(stop - at));
    }
    log->os->release(log->os, buffer);
    return status;
}

int log_peek(struct log *log, uint64_t location, struct log_reader *reader, struct record *out)
{
    struct segment *segment;
    uint64_t offset, limit, size;
    uint8_t *bytes;
    int status = locate(log, location, &segment, &offset, &limit);
    if (status != PYKV_OK)
        return status;
    if (!log->pread) {
        if (__builtin_expect(limit > segment->map_size, 0))
            return damaged(segment, offset, "the segment is longer than its capacity");
        if (record_decode(segment->base + offset, limit - offset, out) != PYKV_OK)
            return damaged(segment, offset, "the record's header makes no sense");
    } else {
        status = fetch_record(segment, reader, offset, limit, EXTENT_KEY, &bytes, &size);
        if (status != PYKV_OK)
            return status;
        if (record_decode_header(bytes, out) != PYKV_OK)
            return damaged(segment, offset, "the record's header makes no sense");
        out->key = bytes + (out->flags & RECORD_EXPIRY ? 32 : 24);
    }
    out->value = NULL;
    return PYKV_OK;
}

void log_prefetch(struct log *log, uint64_t location)
{
    const struct segment *segment =
        atomic_load_explicit(&log->segments[location_slot(location)], memory_order_acquire);
    uint64_t offset = location_offset(location);
    if (segment == NULL || segment->base == NULL || offset + 192 > segment->map_size)
        return;
    __builtin_prefetch(segment->base + offset);
    __builtin_prefetch(segment->base + offset + 64);
    __builtin_prefetch(segment->base + offset + 128);
}
