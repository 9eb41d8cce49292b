/* log.c -- appending: reserve ahead, publish, seal, sync (log.h). */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "log.h"

/* Small stores stay small: reserve a quarter of what is there, within these bounds. */
#define EXTEND_MIN (UINT64_C(64) << 10)
#define FORGET_MARGIN (UINT64_C(512) << 10)
#define EXTEND_MAX (UINT64_C(4) << 20)

/* ---- Blocks ahead of the tail ---- */

/* Give the active segment blocks up to `end`, and zeros in the page cache where `zero`: pages that
 * are there cost the append a tenth of what a hole costs it, and no conversion at the sync. The
 * caller holds the extend lock, without which the zeros could fall on records. */
static int extend(struct log *log, struct segment *segment, uint64_t from, uint64_t end, bool zero)
{
    char name[32];
    int error = log->os->file_reserve(log->os, segment->fd, from, end - from);
    for (uint64_t at = from; error == 0 && zero && at < end;) {
        uint64_t size = end - at < LOG_DIRECT_SIZE ? end - at : LOG_DIRECT_SIZE;
        error = log->os->file_write(log->os, segment->fd, log->zeros, (size_t)size, at);
        at += size;
    }
    if (error == 0) {
        atomic_store(&log->shared->reserved, position_make(segment->id, end));
        return PYKV_OK;
    }
    (void)log->os->file_truncate(log->os, segment->fd, from);  /* blocks that were had before it failed */
    log_segment_name(segment->id, name);
    return error_os(error, name, from, "extend");
}

/* Bytes that puts may still add before the limit, all that is reserved counted. */
static uint64_t put_room(const struct log *log)
{
    uint64_t sum = position_offset(atomic_load(&log->shared->reserved));
    uint64_t most = log->disk_size_max - log->disk_size_max / 8;
    if (log->disk_size_max == 0)
        return LOG_CAPACITY_MAX;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        sum += atomic_load_explicit(&log->shared->segments[i].length, memory_order_relaxed);
    return sum < most ? most - sum : 0;
}

static uint64_t extend_target(uint64_t need, uint64_t capacity)
{
    uint64_t step = need / 4;
    step = step < EXTEND_MIN ? EXTEND_MIN : step > EXTEND_MAX ? EXTEND_MAX : step;
    uint64_t target = (need + step + 4095) & ~UINT64_C(4095);
    return target < capacity ? target : capacity;
}

/* (W) Blocks up to `end` of the active segment; `direct`: the caller writes them itself. */
static int ensure(struct log *log, uint64_t end, bool direct)
{
    int status = PYKV_OK;
    bool died;
    if (position_offset(atomic_load(&log->shared->reserved)) >= end)
        return PYKV_OK;
    shared_lock_acquire(&log->shared->extend, log->process, &died);
    uint64_t from = position_offset(atomic_load(&log->shared->reserved));
    if (from < end) {
        uint64_t target = direct ? end : extend_target(end, log->append->capacity), room = put_room(log);
        if (target - from > room)       /* not a byte more than is asked for */
            target = end - from > room ? end : from + room;
        status = extend(log, log->append, from, target, !direct);
        if (status != PYKV_OK && target > end)      /* the disk is nearly full: just what we need */
            status = extend(log, log->append, from, end, true);
    }
    shared_lock_release(&log->shared->extend, log->process);
    return status;
}

void log_extend_ahead(struct log *log)
{
    struct shared *shared = log->shared;
    struct segment *segment;
    bool died;
    shared_lock_acquire(&shared->extend, log->process, &died);
    uint64_t reserved = atomic_load(&shared->reserved), tail = atomic_load(&shared->tail);
    uint64_t id = position_segment(tail), from = position_offset(reserved);
    bool full = atomic_load(&shared->reserve_lent) != 0;    /* what is freed is for the reserve */
    if (!full && position_segment(reserved) == id && log_segment(log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &segment) == PYKV_OK) {
        uint64_t target = extend_target(position_offset(tail), segment->capacity), room = put_room(log);
        if (target > from && target - from > room)      /* whoever writes then meets the limit */
            target = from + room;
        if (target > from && extend(log, segment, from, target, true) == PYKV_OK && !log->pread &&
            segment->base != NULL && segment->writable)
            log->os->advise(log->os, segment->base + from, (size_t)(target - from), OS_POPULATE_WRITE);
    }
    shared_lock_release(&shared->extend, log->process);
}

/* ---- Segments ---- */

/* The next id whose slot is free. Slot 4095 marks links in the keydir. */
static int next_id(const struct log *log, uint64_t *out)
{
    uint64_t id = log->shared->segment_id_next;
    for (uint32_t tries = 0; tries < SEGMENT_SLOT_COUNT; tries++, id++) {
        if (id % SEGMENT_SLOT_COUNT == KEYDIR_SEGMENT_SLOT_LINK || id == 0)
            continue;
        if (id > SEGMENT_ID_MAX)
            return error_set(PYKV_FULL, 0, NULL, 0, "the store has used up the numbers of its segments");
        if (atomic_load(&segment_of(log->shared, id)->id) == 0) {
            *out = id;
            return PYKV_OK;
        }
    }
    return error_set(PYKV_FULL, 0, NULL, 0, "the store has %u segments, which is the most it can have",
                     SEGMENT_SLOT_COUNT - 1);
}

/* Create the file of segment `id`: header and, of one that is appended to in memory, first zeros, and blocks for the
 * `least` bytes that it is begun for: where the disk has none, nothing has changed. */
static int segment_create(struct log *log, uint64_t id, enum segment_kind kind, uint64_t least, uint64_t capacity,
                          uint64_t birth)
{
    const struct os *os = log->os;
    struct segment_header header = { .kind = kind, .id = id, .capacity = capacity, .birth = birth };
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    char name[32];
    int fd = -1, error;

    log_segment_name(id, name);
    if ((error = os->random(os, &header.nonce, sizeof header.nonce)) != 0)
        return error_os(error, NULL, 0, "get random bytes for");
    memcpy(header.store_id, log->store_id, sizeof header.store_id);
    memcpy(header.hash_key, log->hash_key, sizeof header.hash_key);
    segment_header_encode(bytes, &header);
    error = os->file_open(os, log->dir, name, OS_CREATE, log->file_mode, &fd);
    if (error != 0)
        return error_set(error == EEXIST ? PYKV_CONFLICT : error_os(error, name, 0, "create"), error,
                         name, 0, "cannot create %s: %s", name, strerror(error));
    uint64_t size = capacity < EXTEND_MIN ? capacity : EXTEND_MIN;
    if (kind == SEGMENT_LOG)
        error = os->file_reserve(os, fd, 0, least > size ? least : size);
    if (error == 0)
        error = os->file_write(os, fd, bytes, sizeof bytes, 0);
    if (error == 0 && kind == SEGMENT_LOG)
        error = os->file_write(os, fd, log->zeros, (size_t)(size - sizeof bytes), sizeof bytes);
    (void)os->file_close(os, fd);
    if (error == 0)
        return PYKV_OK;
    (void)os->file_remove(os, log->dir, name);
    return error_os(error, name, 0, "extend");
}

uint64_t log_capacity(const struct log *log, uint64_t *size)
{
    uint64_t used = 0, sum = 0, capacity = log->segment_size_min, reserved = atomic_load(&log->shared->reserved);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        const struct segment_entry *entry = &log->shared->segments[i];
        uint64_t id = atomic_load_explicit(&entry->id, memory_order_relaxed);
        if (id == 0)
            continue;
        used++;
        if (id == position_segment(reserved))
            sum += position_offset(reserved);
        else if (!segment_retired(entry) && (atomic_load(&entry->kind) != SEGMENT_COMPACTED || atomic_load(&entry->synced) != 0))
            sum += atomic_load_explicit(&entry->length, memory_order_relaxed);
    }
    while (capacity < log->segment_size_max && capacity * 2 <= sum / 16)
        capacity *= 2;
    capacity = capacity < log->segment_size_max ? capacity : log->segment_size_max;
    for (; used > SEGMENT_SLOT_COUNT / 4 && capacity < (UINT64_C(1) << 30); used -= SEGMENT_SLOT_COUNT / 8)
        capacity *= 2;
    if (size != NULL)
        *size = sum;
    return capacity;
}

int log_begin(struct log *log, enum segment_kind kind, uint64_t least, struct segment **out)
{
    struct shared *shared = log->shared;
    uint64_t id = 0, usual = log_capacity(log, NULL), capacity = least > usual ? least : usual;
    uint64_t birth = shared_sequence(shared);
    int status;
    do {    /* a file of that name is the leftover of one who died here: ids are never used twice */
        if ((status = next_id(log, &id)) != PYKV_OK)
            return status;
        shared->segment_id_next = id + 1;
        status = segment_create(log, id, kind, least, capacity, birth);
    } while (status == PYKV_CONFLICT);
    if (status != PYKV_OK)
        return status;

    struct segment_entry *entry = segment_of(log->shared, id);
    segment_enter(entry, kind, capacity, birth);
    atomic_store(&entry->length, kind == SEGMENT_LOG ? 0 : SEGMENT_HEADER_SIZE);
    atomic_store_explicit(&entry->id, id, memory_order_release);
    status = log_segment(log, (uint32_t)(id % SEGMENT_SLOT_COUNT), out);
    if (status != PYKV_OK) {
        char name[32];
        log_segment_name(id, name);
        atomic_store(&entry->id, 0);
        (void)log->os->file_remove(log->os, log->dir, name);
    }
    return status;
}

/* (W) Without mappings of segments the active one is still mapped, for the appends alone: readers do
 * not know of it. */
static int append_attach(struct log *log, struct segment *segment)
{
    void *base = segment->base;
    /* By its number, which is given once: another one may lie where it was in memory. */
    if (log->append != NULL && log->append_id == segment->id)
        return PYKV_OK;
    if (log->pread) {
        char name[32];
        int error = log->os->map(log->os, segment->fd, 0, (size_t)segment->capacity, true, &base);
        log_segment_name(segment->id, name);
        if (error != 0)
            return error_os(error, name, 0, "map");
    }
    log_detach(log);
    log->append_base = base;
    log->append_size = (size_t)segment->capacity;
    log->append = segment;
    log->append_id = segment->id;
    return PYKV_OK;
}

/* (W) End the active segment with a SEAL that names its successor. The room for it was kept. */
static void seal(struct log *log, uint64_t next)
{
    struct shared *shared = log->shared;
    uint64_t tail = atomic_load(&shared->tail), offset = position_offset(tail);
    struct record record = { .flags = RECORD_SEAL, .sequence = shared_sequence(shared), .previous = next };
    uint8_t *bytes = log_memory(log, tail);
    atomic_store(&shared->writing_end, tail + RECORD_BARE_SIZE / RECORD_ALIGNMENT);
    record_encode(bytes, &record, record_seed(log->append->seed, offset));
    log->os->stored(log->os, log->append->fd, offset, bytes, RECORD_BARE_SIZE);
    atomic_store_explicit(&segment_of(log->shared, log->append->id)->length, offset + RECORD_BARE_SIZE,
                          memory_order_release);
}

int log_roll(struct log *log, uint64_t least)
{
    struct shared *shared = log->shared;
    struct segment *segment, *old = log->append;
    bool died;
    /* Crash note: dirty from here on, so that whoever comes after us clears away a segment that no
     * seal leads to yet. Left in the table, it would end the log at the next recovery. */
    uint64_t before = atomic_load(&shared->tail);
    atomic_store(&shared->writing_end, before == 0 ? 0 : before + RECORD_BARE_SIZE / RECORD_ALIGNMENT);
    int status = log_begin(log, SEGMENT_LOG, least, &segment);
    if (status != PYKV_OK) {
        atomic_store(&shared->writing_end, before);
        return status;
    }
    if (before != 0)
        seal(log, segment->id);
    status = append_attach(log, segment);
    if (status != PYKV_OK) {
        if (old != NULL)
            atomic_store(&segment_of(log->shared, old->id)->length, 0);
        return status;      /* the new one stays unused: log_repair() or recovery removes it */
    }
    uint64_t first = segment->capacity < EXTEND_MIN ? segment->capacity : EXTEND_MIN;
    uint64_t tail = position_make(segment->id, SEGMENT_HEADER_SIZE);
    shared_lock_acquire(&shared->extend, log->process, &died);
    atomic_store(&shared->reserved, position_make(segment->id, first));
    atomic_store(&shared->writing_end, tail);
    atomic_store_explicit(&shared->tail, tail, memory_order_release);
    shared_lock_release(&shared->extend, log->process);
    return PYKV_OK;
}

/* ---- Appending ---- */

/* (W) Another process may have moved on since we appended last. */
static int attach_active(struct log *log)
{
    struct segment *segment;
    uint64_t active = position_segment(atomic_load(&log->shared->tail));
    int status = log_segment(log, (uint32_t)(active % SEGMENT_SLOT_COUNT), &segment);
    return status == PYKV_OK ? append_attach(log, segment) : status;
}

int log_end_active(struct log *log)
{
    int status = attach_active(log);
    return status == PYKV_OK ? log_roll(log, 0) : status;
}

int log_prepare(struct log *log, enum log_need use, uint64_t size, uint64_t last, uint64_t *position)
{
    struct shared *shared = log->shared;
    uint64_t tail = atomic_load(&shared->tail), offset = position_offset(tail);
    uint64_t need = SEGMENT_HEADER_SIZE + size + LOG_SEAL_ROOM;
    int status = attach_active(log);
    if (status != PYKV_OK)
        return status;
    if (size > LOG_CAPACITY_MAX - SEGMENT_HEADER_SIZE - LOG_SEAL_ROOM ||
        last > LOG_RECORD_OFFSET_MAX - SEGMENT_HEADER_SIZE)
        return error_set(PYKV_INVALID, 0, NULL, 0, "a batch of %llu bytes is more than a segment can hold",
                         (unsigned long long)size);
    bool roll = offset > log->append->capacity || size + LOG_SEAL_ROOM > log->append->capacity - offset ||
                offset > LOG_RECORD_OFFSET_MAX || last > LOG_RECORD_OFFSET_MAX - offset;
    uint64_t more = roll ? (need > EXTEND_MIN ? need : EXTEND_MIN) : size;
    bool blocks = roll || offset + size + LOG_SEAL_ROOM > position_offset(atomic_load(&shared->reserved));
    if (blocks && use == LOG_NO_BLOCKS)
        return error_os(ENOSPC, "the log", 0, "extend");
    if (blocks && use == LOG_PUTS && log->disk_size_max != 0 && more > put_room(log))
        return error_set(PYKV_FULL, 0, NULL, 0, "the store's limit of %llu bytes is reached: delete keys, or open it with "
                         "a higher max_disk_bytes", (unsigned long long)log->disk_size_max);
    if (roll) {
        if ((status = log_roll(log, need)) != PYKV_OK)
            return status;
        tail = atomic_load(&shared->tail);
    }
    status = ensure(log, position_offset(tail) + size + LOG_SEAL_ROOM, size > LOG_DIRECT_SIZE);
    if (status != PYKV_OK)
        return status;
    atomic_store_explicit(&shared->writing_end, tail + size / RECORD_ALIGNMENT, memory_order_release);
    *position = tail;
    return PYKV_OK;
}

void log_publish(struct log *log, uint64_t position, uint64_t size)
{
    uint64_t tail = position + size / RECORD_ALIGNMENT;
    uint64_t written = atomic_load_explicit(&log->shared->written_bytes, memory_order_relaxed);
    atomic_store_explicit(&log->shared->written_bytes, written + size, memory_order_relaxed);
    atomic_store_explicit(&log->shared->tail, tail, memory_order_release);
    atomic_store_explicit(&log->shared->writing_end, tail, memory_order_release);
}

/* (W) Of a roll that was cut short: `reserved` and the tail tell of two segments. What the file of the
 * tail's holds behind it is reserved, and zero. */
static int repair_reserved(struct log *log, const struct segment *active)
{
    struct os_stat stat = { .size = 0 };
    char name[32];
    bool died;
    int error = 0;
    shared_lock_acquire(&log->shared->extend, log->process, &died);
    if (position_segment(atomic_load(&log->shared->reserved)) != active->id &&
        (error = log->os->file_stat(log->os, active->fd, &stat)) == 0) {
        uint64_t end = stat.size < active->capacity ? stat.size : active->capacity;
        atomic_store(&log->shared->reserved, position_make(active->id, end));
    }
    shared_lock_release(&log->shared->extend, log->process);
    log_segment_name(active->id, name);
    return error == 0 ? PYKV_OK : error_os(error, name, 0, "examine");
}

int log_repair(struct log *log)
{
    struct shared *shared = log->shared;
    uint64_t tail = atomic_load(&shared->tail), active = position_segment(tail);
    struct segment *segment;
    int status = log_segment(log, (uint32_t)(active % SEGMENT_SLOT_COUNT), &segment);
    if (status == PYKV_OK)
        status = append_attach(log, segment);
    if (status != PYKV_OK)
        return status;
    /* A seal without its successor: the segment goes on. */
    atomic_store(&segment_of(log->shared, active)->length, 0);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        uint64_t id = atomic_load(&shared->segments[i].id);
        if (id > active && atomic_load(&shared->segments[i].kind) == SEGMENT_LOG) {
            char name[32];
            log_segment_name(id, name);
            atomic_store(&shared->segments[i].id, 0);
            (void)log->os->file_remove(log->os, log->dir, name);
        }
    }
    if ((status = repair_reserved(log, segment)) != PYKV_OK)
        return status;
    /* What the dead one wrote behind the tail must not be there when shorter records end before it:
     * a frame, or the seal before a segment that it never got to use. */
    uint64_t from = position_offset(tail), end = position_offset(atomic_load(&shared->reserved));
    uint64_t writing = atomic_load(&shared->writing_end);
    uint64_t dirty = (position_segment(writing) == active && writing > tail ? position_offset(writing) : from + RECORD_BARE_SIZE);
    end = dirty + LOG_SEAL_ROOM < end ? dirty + LOG_SEAL_ROOM : end;
    for (uint64_t at = from; at < end;) {
        uint64_t size = end - at < LOG_DIRECT_SIZE ? end - at : LOG_DIRECT_SIZE;
        int error = log->os->file_write(log->os, segment->fd, log->zeros, (size_t)size, at);
        if (error != 0)
            return error_os(error, "segment", at, "clear");
        at += size;
    }
    atomic_store(&shared->writing_end, tail);
    return PYKV_OK;
}

/* ---- Durability ---- */

/* Sync a segment of which [from, end) is new. The kernel write-protects every page that it writes
 * back, and for each page that a mapping holds writable it interrupts all processors. Where there
 * are many we drop them from the mapping all at once before, but for the last, where the writer is;
 * readers fault them in again, sixteen at a time. */
static int sync_segment(struct log *log, uint64_t id, uint64_t from, uint64_t end)
{
    struct segment *segment;
    char name[32];
    int status = log_segment(log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &segment);
    if (status != PYKV_OK)
        return status;
    if (!log->pread && segment->base != NULL && end <= segment->map_size && end > from + 2 * FORGET_MARGIN)
        log->os->advise(log->os, segment->base + from, (size_t)(end - from - FORGET_MARGIN), OS_FORGET);
    int fd = segment->fd, error = fd < 0 ? log_open_file(log, id, &fd) : 0;
    if (error == 0)
        error = log->os->file_sync(log->os, fd);
    if (fd >= 0 && segment->fd < 0)
        (void)log->os->file_close(log->os, fd);
    log_segment_name(id, name);
    return error == 0 ? PYKV_OK : error_os(error, name, 0, "sync");
}

/* The next segment there is behind `id`. Ids may leave gaps, of any width where somebody chose a
 * file's name: to count through one could take hours. */
static uint64_t next_used(const struct log *log, uint64_t id)
{
    uint64_t next = UINT64_MAX;
    if (atomic_load(&segment_of(log->shared, id + 1)->id) == id + 1)
        return id + 1;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        uint64_t used = atomic_load(&log->shared->segments[i].id);
        if (used > id && used < next)
            next = used;
    }
    return next;
}

int log_sync(struct log *log, uint64_t target, bool header)
{
    struct shared *shared = log->shared;
    uint64_t from = position_segment(atomic_load(&shared->durable)), to = position_segment(target);
    int status;
    if (atomic_load(&shared->directory_synced) < to) {
        int error = log->os->dir_sync(log->os, log->dir);
        if (error != 0)
            return error_os(error, "", 0, "sync the directory of");
        atomic_store(&shared->directory_synced, to);
    }
    for (uint64_t id = from; id <= to; id = id < to ? next_used(log, id) : UINT64_MAX) {
        struct segment_entry *entry = segment_of(log->shared, id);
        if (atomic_load(&entry->id) != id || atomic_load(&entry->kind) != SEGMENT_LOG || atomic_load(&entry->synced) ||
            (id == to && !header && position_offset(target) == SEGMENT_HEADER_SIZE))
            continue;
        bool sealed = atomic_load(&entry->length) != 0 && id != to;
        uint64_t begin = id == from ? position_offset(atomic_load(&shared->durable)) : 0;
        uint64_t end = id == to ? position_offset(target) : atomic_load(&entry->length);
        if ((status = sync_segment(log, id, begin, end)) != PYKV_OK)
            return status;
        if (sealed)
            atomic_store(&entry->synced, 1);
    }
    atomic_fetch_add(&shared->sync_count, 1);
    return PYKV_OK;
}
