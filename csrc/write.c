/* write.c -- every write is a batch, and a batch is one frame of the log. The story of one:
 *
 *     hash the keys; of operations that name one key, the last counts        (no lock yet)
 *     take the writer lock; find what each key has now; judge the preconditions
 *     make room in the keydir and in the log: whatever can fail, fails here, with nothing changed
 *     write the frame behind the tail, and publish the tail: now the batch counts
 *     move the slots; publish the sequence: now everybody sees it, all at once
 *     release the lock; wait for the disk, if that was asked for
 *
 * shared.h tells what a successor finds if the writer dies in between. */
#include <errno.h>
#include <string.h>

#include "stage.h"
#include "store.h"

#define GROUP 32u           /* keys whose cache misses overlap */

/* ---- The lock ---- */

static bool needs_repair(const struct shared *shared)
{
    uint64_t tail = atomic_load_explicit(&shared->tail, memory_order_relaxed);
    return atomic_load_explicit(&shared->counters[atomic_load_explicit(&shared->published, memory_order_relaxed) & 1][0],
                                memory_order_relaxed) != tail ||
           atomic_load_explicit(&shared->writing_end, memory_order_relaxed) != tail ||
           atomic_load_explicit(&shared->keydir.moving, memory_order_relaxed) != 0;
}

int store_lock(struct pykv_store *store)
{
    bool died;
    shared_lock_acquire(&store->shared->writer, &store->process, &died);
    if (__builtin_expect(!died && !needs_repair(store->shared), 1))
        return PYKV_OK;
    int status = store_repair(store);
    if (status != PYKV_OK)
        store_unlock(store);
    return status;
}

void store_unlock(struct pykv_store *store)
{
    shared_lock_release(&store->shared->writer, &store->process);
}

/* ---- Slots and counters ---- */

void store_count_live(struct pykv_store *store, uint64_t location, uint64_t size, bool more)
{
    _Atomic uint64_t *live = &store->shared->segments[location_slot(location)].live_bytes;
    uint64_t now = atomic_load_explicit(live, memory_order_relaxed);
    uint64_t next = more ? now + size : now > size ? now - size : 0;
    atomic_store_explicit(live, next, memory_order_relaxed);
}

static void count_tombstone(struct pykv_store *store, uint64_t location, const struct record *record)
{
    struct segment_entry *entry = &store->shared->segments[location_slot(location)];
    uint64_t bytes = atomic_load_explicit(&entry->tombstone_bytes, memory_order_relaxed);
    atomic_store_explicit(&entry->tombstone_bytes, bytes + record->size, memory_order_relaxed);
    if (record->sequence > atomic_load_explicit(&entry->tombstone_newest, memory_order_relaxed))
        atomic_store_explicit(&entry->tombstone_newest, record->sequence, memory_order_relaxed);
}

bool store_apply(struct pykv_store *store, struct shared_counters *counters, uint64_t hash,
                 uint64_t location, const struct record *record, const struct present *present)
{
    bool dead = (record->flags & RECORD_TOMBSTONE) != 0;
    uint64_t slot = location_short(location);
    if (record->flags & RECORD_EXPIRY) {
        expiry_note(&store->shared->segments[location_slot(location)].expiry_next, record->expiry);
        expiry_note(&store->shared->expiry_since, record->expiry);
    }
    if (present->slot != slot &&
        (present->slot == 0 || !keydir_replace(store->keydir, hash, present->place, present->slot, slot, dead)) &&
        !keydir_insert(store->keydir, hash, slot, dead))
        return false;
    if (present->live) {
        counters->keys--;
        counters->live_bytes -= present->size;
        store_count_live(store, present->location, present->size, false);
    }
    if (present->slot != 0 && present->slot != slot && !present->live &&
        atomic_load_explicit(&store->shared->dead_slots, memory_order_relaxed) != 0)
        atomic_fetch_sub_explicit(&store->shared->dead_slots, 1, memory_order_relaxed);
    if (dead) {
        atomic_fetch_add_explicit(&store->shared->dead_slots, 1, memory_order_relaxed);
        count_tombstone(store, location, record);
    } else {
        counters->keys++;
        counters->live_bytes += record->size;
        store_count_live(store, location, record->size, true);
    }
    return true;
}

/* ---- Looking up what is there ---- */

static bool is_key(const struct record *record, const uint8_t *key, size_t key_size)
{
    return (record->flags & ~(RECORD_TOMBSTONE | RECORD_EXPIRY | RECORD_MEMBER)) == 0 &&
           record->key_size == key_size && memcmp(record->key, key, key_size) == 0;
}

/* A lookup in the keydir that has begun: it holds as long as the writer lock does. */
struct begun {
    struct keydir_probe probe;
    uint64_t location;          /* its first candidate */
};

static int begin(struct pykv_store *store, uint64_t hash, struct begun *out)
{
    int status = keydir_probe(store->keydir, hash, &out->probe);
    out->location = status == PYKV_OK ? keydir_probe_next(store->keydir, &out->probe) : 0;
    return status;
}

static int find_present(struct pykv_store *store, struct begun *begun, const uint8_t *key, size_t key_size,
                        struct log_reader *reader, struct present *out, struct record *record)
{
    int status, damaged = PYKV_OK;
    *out = (struct present){ .slot = 0 };
    for (uint64_t location = begun->location; location != 0; location = keydir_probe_next(store->keydir, &begun->probe)) {
        status = log_peek(&store->log, location, reader, record);
        if (status == PYKV_OK && is_key(record, key, key_size)) {
            uint64_t id = atomic_load(&store->shared->segments[location_slot(location)].id);
            *out = (struct present){ .slot = location, .place = keydir_probe_place(&begun->probe),
                                     .location = location_make(id, location_offset(location)), .size = record->size,
                                     .live = (record->flags & RECORD_TOMBSTONE) == 0 };
            return PYKV_OK;
        }
        /* Another key with the same tag, or a record whose key is damaged: its checksum tells. */
        if (status == PYKV_OK)
            status = log_read(&store->log, location, reader, record);
        if (status == PYKV_CORRUPT)
            damaged = status;
        else if (status != PYKV_OK)
            return status;
    }
    if (begun->probe.status != PYKV_OK)
        return begun->probe.status;
    return damaged != PYKV_OK ? damaged : PYKV_NOT_FOUND;
}

int store_present(struct pykv_store *store, uint64_t hash, const uint8_t *key, size_t key_size,
                  struct log_reader *reader, struct present *out, struct record *record)
{
    struct begun begun;
    *out = (struct present){ .slot = 0 };
    int status = begin(store, hash, &begun);
    return status == PYKV_OK ? find_present(store, &begun, key, key_size, reader, out, record) : status;
}

static int begin_group(struct pykv_store *store, const struct operation *group, size_t count, struct begun *begun)
{
    int status = PYKV_OK;
    if (count == 1)
        return begin(store, group[0].hash, begun);
    for (size_t i = 0; i < count && status == PYKV_OK; i++)
        if ((status = keydir_probe(store->keydir, group[i].hash, &begun[i].probe)) == PYKV_OK)
            keydir_probe_prefetch(&begun[i].probe);
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        begun[i].location = keydir_probe_next(store->keydir, &begun[i].probe);
        if (begun[i].location != 0)
            log_prefetch(&store->log, begun[i].location);
    }
    return status;
}

/* Whether a precondition holds for the record that is there (NULL: the key is absent). */
static bool holds(const struct operation *operation, const struct record *record)
{
    switch (operation->kind) {
    case PYKV_EXPECT_PRESENT:
        return record != NULL;
    case PYKV_EXPECT_ABSENT:
        return record == NULL;
    case PYKV_EXPECT_VALUE:
        return record != NULL && record->value_size == operation->value_size &&
               memcmp(record->value, operation->value, record->value_size) == 0;
    case PYKV_EXPECT_UNCHANGED:
        return record != NULL && record->sequence <= operation->number;
    default:
        return operation->number == (record == NULL ? 0 : record->sequence);
    }
}

static int judge(struct pykv_store *store, const struct operation *operation, struct log_reader *reader)
{
    struct record record;
    reader->lazy = operation->kind != PYKV_EXPECT_VALUE;
    int status = store_find(store, shared_sequence(store->shared), operation->hash, operation->key,
                            operation->key_size, reader, &record);
    reader->lazy = false;
    if (status != PYKV_OK && status != PYKV_NOT_FOUND)
        return status;
    bool present = status == PYKV_OK && !record_expired(store, &record);
    return holds(operation, present ? &record : NULL) ? PYKV_OK : PYKV_CONFLICT;
}

/* What the batch comes to, once every key has been looked up. */
struct plan {
    size_t records;             /* to write */
    size_t puts;                /* of these, no deletes, */
    size_t inserts;             /* and of keys without a slot */
    uint64_t size;              /* bytes of the frame */
    uint64_t last;              /* where its last record begins */
    uint64_t deleted;
    /* set by the caller: */
    bool durable;               /* a sync will follow at once */
    bool at_once;               /* not if room must be made first */
};

static int plan_operation(struct pykv_store *store, struct operation *operation, struct begun *begun,
                          struct log_reader *reader, struct plan *plan)
{
    struct record record;
    int status;
    operation->skip = true;
    if (operation->superseded)
        return PYKV_OK;
    status = find_present(store, begun, operation->key, operation->key_size, reader, &operation->present, &record);
    if (operation->kind == PYKV_DELETE) {
        if (status != PYKV_OK || !operation->present.live)
            return status == PYKV_OK || status == PYKV_NOT_FOUND ? PYKV_OK : status;
        plan->deleted += !record_expired(store, &record);
    } else if (status != PYKV_OK && status != PYKV_NOT_FOUND && status != PYKV_CORRUPT) {
        return status;      /* what cannot be read can still be replaced */
    }
    bool expiry = operation->kind == PYKV_PUT && operation->number != 0;
    operation->skip = false;
    operation->size = record_size(operation->key_size, operation->value_size, expiry);
    plan->records++;
    plan->puts += operation->kind == PYKV_PUT;
    plan->inserts += operation->present.slot == 0;
    plan->last = plan->size;
    plan->size += operation->size;
    return PYKV_OK;
}

static int make_plan(struct pykv_store *store, struct operation *operations, size_t count, size_t *failed,
                     struct plan *plan)
{
    struct begun begun[GROUP];
    struct log_reader reader;
    int status = PYKV_OK;
    log_reader_init(&reader, store->os);
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        if (i % GROUP == 0)
            status = begin_group(store, operations + i, count - i < GROUP ? count - i : GROUP, begun);
        if (status != PYKV_OK)
            break;
        if (operations[i].kind == PYKV_PUT || operations[i].kind == PYKV_DELETE) {
            status = plan_operation(store, &operations[i], &begun[i % GROUP], &reader, plan);
            continue;
        }
        operations[i].skip = true;
        if (operations[i].kind == PYKV_EXPECT_PREFIX_UNCHANGED) {
            if ((status = store_unchanged(store, operations + i, count - i)) == PYKV_OK && operations[i].broken)
                status = PYKV_CONFLICT;
        } else {
            status = judge(store, &operations[i], &reader);
        }
        if (status == PYKV_CONFLICT && failed != NULL)
            *failed = i;
    }
    log_reader_release(&reader);
    if (plan->records > 1) {
        plan->size += RECORD_BARE_SIZE;
        plan->last += RECORD_BARE_SIZE;
    }
    return status;
}

/* ---- Writing the frame ---- */

static struct record record_of(const struct operation *operation, uint64_t sequence, bool member)
{
    bool put = operation->kind == PYKV_PUT;
    bool expiry = put && operation->number != 0;
    return (struct record){
        .key = operation->key, .key_size = operation->key_size, .value = operation->value,
        .value_size = put ? operation->value_size : 0, .sequence = sequence,
        .previous = operation->present.location, .expiry = operation->number, .size = operation->size,
        .flags = (uint16_t)((put ? 0 : RECORD_TOMBSTONE) | (expiry ? RECORD_EXPIRY : 0) | (member ? RECORD_MEMBER : 0)),
    };
}

/* Write MARK (if due), FRAME (if there is more than one record) and the records from `position` on. What a sync is
 * about to follow is not stored in the mapping: that would make a whole folio of the page cache dirty, up to 1 MiB,
 * and the sync would write it all; file_write() dirties only the blocks that it touches. */
static int write_frame(struct pykv_store *store, const struct operation *operations, size_t count,
                       const struct plan *plan, uint64_t sequence, uint64_t mark, uint64_t position, uint64_t total)
{
    struct log *log = &store->log;
    bool direct = plan->durable || total > LOG_DIRECT_SIZE, member = plan->records > 1;
    size_t size = (size_t)(total < LOG_DIRECT_SIZE ? total : LOG_DIRECT_SIZE);
    uint8_t small[2048];
    struct stage stage = { .log = log, .fd = log->append->fd, .id = log->append->id, .seed = log->append->seed,
                           .offset = position_offset(position) };
    struct record record;
    int status = PYKV_OK;

    stage.bytes = !direct ? log_memory(log, position)
                : size <= sizeof small ? small : store->os->alloc(store->os, size);
    if (stage.bytes == NULL)
        return error_no_memory(size);
    if (mark != 0) {
        record = (struct record){ .flags = RECORD_MARK, .sequence = sequence - 1, .value_size = (uint32_t)mark,
                                  .size = RECORD_BARE_SIZE };
        status = stage_record(&stage, &record);
    }
    if (member && status == PYKV_OK) {
        record = (struct record){ .flags = RECORD_FRAME, .sequence = sequence, .previous = plan->records,
                                  .size = RECORD_BARE_SIZE,
                                  .value_size = (uint32_t)((plan->size - RECORD_BARE_SIZE) / RECORD_ALIGNMENT) };
        status = stage_record(&stage, &record);
    }
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        if (operations[i].skip)
            continue;
        record = record_of(&operations[i], sequence, member);
        status = stage_record(&stage, &record);
    }
    if (!direct)
        store->os->stored(store->os, stage.fd, stage.offset, stage.bytes, size);
    else if (status == PYKV_OK)
        status = stage_flush(&stage);
    if (direct && stage.bytes != small)
        store->os->release(store->os, stage.bytes);
    return status;
}

/* The part of the durable position that a MARK in the active segment can tell, if it is news. */
static uint64_t mark_due(const struct shared *shared, uint64_t position)
{
    uint64_t durable = atomic_load_explicit(&shared->durable, memory_order_relaxed);
    if (durable == shared->marked || position_segment(durable) != position_segment(position))
        return 0;
    return position_offset(durable) / RECORD_ALIGNMENT;
}

/* Move the slots and publish. The frame is in the log: from here on nothing may fail. */
static int publish(struct pykv_store *store, const struct operation *operations, size_t count, const struct plan *plan,
                   uint64_t sequence, uint64_t offset, uint64_t end)
{
    struct shared *shared = store->shared;
    struct shared_counters counters = shared_counters(shared);
    uint64_t id = position_segment(end), first = offset + (plan->records > 1 ? RECORD_BARE_SIZE : 0), at = first;
    for (size_t i = 0; i < count; i++) {
        if (operations[i].skip)
            continue;
        struct record record = record_of(&operations[i], sequence, false);
        if (!store_apply(store, &counters, operations[i].hash, location_make(id, at), &record, &operations[i].present))
            return error_corrupt(KEYDIR_NAME, 0, "the keydir in shared memory is damaged: close the store everywhere and reopen it");
        at += operations[i].size;
    }
    counters.position = end;
    counters.sequence = sequence;
    shared_counters_publish(shared, &counters);

    /* Readers that begin now need no tombstone: the slot can go, unless a scan looks at the past. */
    if (plan->deleted == 0 && atomic_load_explicit(&shared->dead_slots, memory_order_relaxed) == 0)
        return PYKV_OK;
    if (shared_past_pinned(shared))
        return PYKV_OK;
    at = first;
    for (size_t i = 0; i < count; i++) {
        if (operations[i].skip)
            continue;
        if (operations[i].kind == PYKV_DELETE) {
            /* For those who cannot pin: see snapshot.c. */
            atomic_store_explicit(&shared->forgotten, sequence, memory_order_relaxed);
            if (keydir_remove(store->keydir, operations[i].hash, location_short(location_make(id, at))))
                atomic_fetch_sub_explicit(&shared->dead_slots, 1, memory_order_relaxed);
        }
        at += operations[i].size;
    }
    return PYKV_OK;
}

/* (W) Room in the log for the frame, and where it is. On a full disk deletes have the reserve. */
static int prepare(struct pykv_store *store, const struct plan *plan, uint64_t mark_size, uint64_t *position)
{
    uint64_t size = plan->size + mark_size, last = plan->last + mark_size;
    bool none = __builtin_expect(atomic_load_explicit(&store->shared->reserve_lent, memory_order_relaxed) != 0, 0) &&
                reserve_refuses(store, plan->puts != 0);
    if (plan->puts != 0)
        return none ? error_os(ENOSPC, store->path, 0, "put into")
                    : log_prepare(&store->log, plan->at_once ? LOG_NO_BLOCKS : LOG_PUTS, size, last, position);
    int status = log_prepare(&store->log, none ? LOG_NO_BLOCKS : LOG_DELETES, size, last, position);
    while (status == PYKV_FULL && !none && pykv_last_error()->os_errno != 0 && reserve_spend(store, size))
        status = log_prepare(&store->log, LOG_DELETES, size, last, position);
    return status;
}

/* `sequence` is the version that the batch gets, greater than all before. */
static int write_locked(struct pykv_store *store, struct operation *operations, size_t count, uint64_t sequence,
                        struct plan *plan, size_t *failed, uint64_t *version, uint64_t *end)
{
    struct shared *shared = store->shared;
    uint64_t position = atomic_load(&shared->tail);
    *end = 0;
    int status = store_refused(store);
    if (status == PYKV_OK && sequence > SEQUENCE_MAX)
        status = error_set(PYKV_FULL, 0, store->path, 0, "the store %s has used up its versions", store->path);
    if (status == PYKV_OK)
        status = make_plan(store, operations, count, failed, plan);
    if (status != PYKV_OK)
        return status;
    if (version != NULL)
        *version = plan->records == 0 ? shared_sequence(shared) : sequence;
    if (plan->records == 0)
        return PYKV_OK;
    if (plan->inserts != 0 && (status = keydir_reserve(store->keydir, plan->inserts)) != PYKV_OK)
        return status;

    uint64_t mark = mark_due(shared, position), mark_size = mark != 0 ? RECORD_BARE_SIZE : 0;
    status = prepare(store, plan, mark_size, &position);
    if (status != PYKV_OK)
        return status;
    if (mark != 0 && position_segment(position) != position_segment(atomic_load(&shared->durable)))
        mark = mark_size = 0;   /* a new segment began, of which nothing is durable yet */
    status = write_frame(store, operations, count, plan, sequence, mark, position, plan->size + mark_size);
    if (status != PYKV_OK)
        return status;
    if (mark != 0)
        shared->marked = atomic_load(&shared->durable);
    log_publish(&store->log, position, plan->size + mark_size);
    *end = atomic_load(&shared->tail);
    return publish(store, operations, count, plan, sequence, position_offset(position) + mark_size, *end);
}

int store_write_locked(struct pykv_store *store, struct operation *operations, size_t count, int durability,
                       uint64_t *end)
{
    struct plan plan = { .durable = store_commits(store, durability) };
    return write_locked(store, operations, count, shared_sequence(store->shared) + 1, &plan, NULL, NULL, end);
}

/* (W) A MARK where log_prepare() made room for it, and the counter at its sequence. Written, not stored: as in
 * write_frame(). */
static int put_mark(struct pykv_store *store, uint64_t position, uint64_t mark, uint64_t sequence)
{
    struct shared *shared = store->shared;
    struct log *log = &store->log;
    struct shared_counters counters = shared_counters(shared);
    const struct record record = { .flags = RECORD_MARK, .sequence = sequence, .value_size = (uint32_t)mark,
                                   .size = RECORD_BARE_SIZE };
    uint8_t bytes[RECORD_BARE_SIZE];
    char name[32];
    record_encode(bytes, &record, record_seed(log->append->seed, position_offset(position)));
    int error = log->os->file_write(log->os, log->append->fd, bytes, sizeof bytes, position_offset(position));
    log_segment_name(log->append->id, name);
    if (error != 0)
        return error_os(error, name, position_offset(position), "write");
    shared->marked = atomic_load(&shared->durable);
    log_publish(log, position, RECORD_BARE_SIZE);
    counters.position = atomic_load(&shared->tail);
    counters.sequence = sequence;
    shared_counters_publish(shared, &counters);
    return PYKV_OK;
}

int store_mark(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    uint64_t position;
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    uint64_t tail = atomic_load(&shared->tail), mark = mark_due(shared, tail);
    bool news = mark != 0 && position_offset(tail) != SEGMENT_HEADER_SIZE &&
                tail != shared->marked + RECORD_BARE_SIZE / RECORD_ALIGNMENT;
    if (news)
        status = log_prepare(&store->log, LOG_DELETES, RECORD_BARE_SIZE, 0, &position);
    if (status == PYKV_FULL) {  /* it can be done without */
        status = PYKV_OK;
    } else if (news && status == PYKV_OK && position == tail) {
        status = put_mark(store, position, mark, shared_sequence(shared));
    }
    store_unlock(store);
    return status;
}

/* ---- Public ---- */

int store_check_writable(const struct pykv_store *store)
{
    if (store->read_only)
        return error_set(PYKV_READ_ONLY, 0, store->path, 0, "the store %s was opened for reading", store->path);
    return store_refused(store);
}

int store_check_sizes(uint64_t key_size, uint64_t value_size)
{
    if (key_size > PYKV_KEY_SIZE_MAX)
        return error_set(PYKV_INVALID, 0, NULL, 0, "a key of %llu bytes is longer than %u",
                         (unsigned long long)key_size, PYKV_KEY_SIZE_MAX);
    if (value_size > PYKV_VALUE_SIZE_MAX)
        return error_set(PYKV_INVALID, 0, NULL, 0, "a value of %llu bytes is longer than %u",
                         (unsigned long long)value_size, PYKV_VALUE_SIZE_MAX);
    return PYKV_OK;
}

/* Lock, apply, unlock, wait for the disk: what all writes have in common. `sequence`: the version to give, 0
 * for the next. Inside store_enter(). */
static int write_batch(struct pykv_store *store, struct operation *operations, size_t count, uint64_t sequence,
                       int durability, size_t *failed, uint64_t *deleted, uint64_t *version)
{
    struct plan plan = { .durable = store_commits(store, durability) };
    uint64_t end = 0;
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    uint64_t next = shared_sequence(store->shared) + 1;
    if (sequence != 0 && sequence < next)
        status = PYKV_CONFLICT;
    else
        status = write_locked(store, operations, count, sequence != 0 ? sequence : next, &plan, failed, version, &end);
    store_unlock(store);
    if (deleted != NULL)
        *deleted = plan.deleted;
    if (status == PYKV_OK)
        status = store_settle(store, end, durability);
    return status;
}

static int write_one(struct pykv_store *store, struct operation *operation, int durability, uint64_t *deleted,
                     uint64_t *version)
{
    int status = store_check_sizes(operation->key_size, operation->value_size);
    if (status != PYKV_OK || (status = store_enter(store)) != PYKV_OK)
        return status;
    struct room room = room_now(store);
    do {
        if ((status = store_check_writable(store)) == PYKV_OK) {
            operation->hash = hash_bytes(&store->hash_key, operation->key, operation->key_size);
            keydir_prefetch(store->keydir, operation->hash);    /* on its way while we lock */
            status = write_batch(store, operation, 1, 0, durability, NULL, deleted, version);
        }
    } while (room_again(store, &status, &room));
    return status;
}

int pykv_put(struct pykv_store *store, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
             uint64_t expiry_ms, int durability, uint64_t *version)
{
    int status = store_check_sizes(key_size, value_size);
    if (status != PYKV_OK)
        return status;
    struct operation operation = { .kind = PYKV_PUT, .key = key, .key_size = (uint32_t)key_size, .value = value,
                                   .value_size = (uint32_t)value_size, .number = expiry_ms };
    return write_one(store, &operation, durability, NULL, version);
}

static bool put_at_once(struct pykv_store *store, struct operation *operation)
{
    const struct shared *shared = store->shared;
    struct plan plan = { .at_once = true };
    uint64_t end;
    bool died;
    if (maintain_waits(store) || store_commits(store, PYKV_DURABILITY_DEFAULT) ||
        store_check_writable(store) != PYKV_OK)
        return false;
    operation->hash = hash_bytes(&store->hash_key, operation->key, operation->key_size);
    keydir_prefetch(store->keydir, operation->hash);
    if (!shared_lock_try(&store->shared->writer, &store->process, &died))
        return false;
    bool done = !needs_repair(shared) &&
                write_locked(store, operation, 1, shared_sequence(shared) + 1, &plan, NULL, NULL, &end) == PYKV_OK;
    store_unlock(store);
    if (done)
        maintain_wake(store);
    return done;
}

int pykv_put_at_once(struct pykv_store *store, const uint8_t *key, size_t key_size, const uint8_t *value,
                     size_t value_size)
{
    if (store_check_sizes(key_size, value_size) != PYKV_OK || store_enter(store) != PYKV_OK)
        return false;
    struct operation operation = { .kind = PYKV_PUT, .key = key, .key_size = (uint32_t)key_size, .value = value,
                                   .value_size = (uint32_t)value_size };
    bool done = put_at_once(store, &operation);
    store_leave(store);
    return done;
}

/* Its name is taken away at once. One that is there is left of somebody who died in between, or belongs to
 * another who is about to take it away. */
static int make_scratch(struct pykv_store *store, int *out)
{
    const struct os *os = store->os;
    int fd = -1, made, error;
    do {
        made = os->file_open(os, store->dir, SCRATCH_NAME, OS_CREATE, 0600, &fd);
        error = made == 0 || made == EEXIST ? os->file_remove(os, store->dir, SCRATCH_NAME) : made;
        error = error == ENOENT ? 0 : error;
    } while (made == EEXIST && error == 0);
    if (error != 0 && made == 0)
        (void)os->file_close(os, fd);
    if (error != 0)
        return error_os(error, SCRATCH_NAME, 0, "make");
    *out = fd;
    return PYKV_OK;
}

int pykv_scratch(struct pykv_store *store, int *fd)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    if ((status = store_check_writable(store)) == PYKV_OK)
        status = make_scratch(store, fd);
    store_leave(store);
    return status;
}

int pykv_delete(struct pykv_store *store, const uint8_t *key, size_t key_size, int durability)
{
    uint64_t deleted = 0;
    int status = store_check_sizes(key_size, 0);
    if (status != PYKV_OK)
        return status;
    struct operation operation = { .kind = PYKV_DELETE, .key = key, .key_size = (uint32_t)key_size };
    status = write_one(store, &operation, durability, &deleted, NULL);
    return status == PYKV_OK && deleted == 0 ? PYKV_NOT_FOUND : status;
}

/* Of several puts or deletes of one key, mark all but the last: a set of positions, by hash. */
static int supersede(struct pykv_store *store, struct operation *operations, size_t count)
{
    size_t capacity = 16;
    while (capacity < count * 2)
        capacity *= 2;
    uint32_t stack[256], *table = stack;
    if (count > UINT32_MAX / 2)
        return error_set(PYKV_INVALID, 0, NULL, 0, "a batch of %zu operations is too long", count);
    if (capacity > 256 && (table = store->os->alloc(store->os, capacity * sizeof *table)) == NULL)
        return error_no_memory(capacity * sizeof *table);
    if (table == stack)
        memset(stack, 0, sizeof stack);
    for (size_t i = 0; i < count; i++) {
        struct operation *now = &operations[i];
        if (now->kind != PYKV_PUT && now->kind != PYKV_DELETE)
            continue;
        size_t at = now->hash & (capacity - 1);
        for (; table[at] != 0; at = (at + 1) & (capacity - 1)) {
            struct operation *before = &operations[table[at] - 1];
            if (before->hash == now->hash && before->key_size == now->key_size &&
                memcmp(before->key, now->key, now->key_size) == 0) {
                before->superseded = true;
                break;
            }
        }
        table[at] = (uint32_t)i + 1;
    }
    if (table != stack)
        store->os->release(store->os, table);
    return PYKV_OK;
}

/* The arrays of pykv_write(); value_sizes and numbers begin with operation `first`, the sizes have any
 * alignment. */
struct arrays {
    size_t first;
    const uint8_t *ops, *keys, *values;
    const void *key_sizes, *value_sizes;
    const uint64_t *numbers;
    uint64_t sequence;          /* the version that the batch is to get, 0: the next */
};

static uint32_t size_at(const void *sizes, size_t i)
{
    uint32_t size;
    memcpy(&size, (const uint8_t *)sizes + i * sizeof size, sizeof size);
    return size;
}

static int unpack(struct pykv_store *store, size_t count, const struct arrays *arrays, struct operation *out)
{
    const uint8_t *keys = arrays->keys, *values = arrays->values;
    for (size_t i = 0; i < count; i++) {
        uint8_t kind = arrays->ops == NULL ? PYKV_PUT : arrays->ops[i];
        uint32_t key_size = size_at(arrays->key_sizes, i), value_size = 0;
        uint64_t number = 0;
        if (i >= arrays->first && arrays->value_sizes != NULL)
            value_size = size_at(arrays->value_sizes, i - arrays->first);
        if (i >= arrays->first && arrays->numbers != NULL)
            number = arrays->numbers[i - arrays->first];
        if (kind > PYKV_EXPECT_PREFIX_UNCHANGED)
            return error_set(PYKV_INVALID, 0, NULL, 0, "operation %zu of the batch is of no known kind", i);
        if (value_size != 0 && kind != PYKV_PUT && kind != PYKV_EXPECT_VALUE)
            return error_set(PYKV_INVALID, 0, NULL, 0, "operation %zu of the batch has a value it cannot have", i);
        int status = store_check_sizes(key_size, value_size);
        if (status != PYKV_OK)
            return status;
        out[i] = (struct operation){ .kind = kind, .key = keys, .key_size = key_size, .value = values,
                                     .value_size = value_size, .number = number,
                                     .hash = hash_bytes(&store->hash_key, keys, key_size) };
        keys += key_size;
        if (value_size != 0)
            values += value_size;
    }
    return count > 1 ? supersede(store, out, count) : PYKV_OK;
}

/* With `snapshot`, its end: nothing that is judged by version needs it any more, and without the pin a
 * delete can empty its slot at once; what is judged by position is looked at from there. */
static int write_arrays(struct pykv_store *store, struct pykv_snapshot *snapshot, size_t count,
                        const struct arrays *arrays, int durability, size_t *failed, uint64_t *deleted,
                        uint64_t *version)
{
    struct operation small[8], *operations = small;
    int status = PYKV_OK;
    if (count > SIZE_MAX / sizeof *operations) {
        status = error_no_memory(SIZE_MAX);
    } else if (count > 8 && (operations = store->os->alloc(store->os, count * sizeof *operations)) == NULL) {
        status = error_no_memory(count * sizeof *operations);
    } else if ((status = store_check_writable(store)) == PYKV_OK) {
        status = unpack(store, count, arrays, operations);
        bool unchanged = arrays->ops != NULL && memchr(arrays->ops, PYKV_EXPECT_PREFIX_UNCHANGED, count) != NULL;
        for (size_t i = 0; i < arrays->first && status == PYKV_OK && snapshot != NULL; i++) {
            operations[i].number = operations[i].kind == PYKV_EXPECT_PREFIX_UNCHANGED ? snapshot->instant.position
                                                                                      : snapshot->instant.sequence;
            operations[i].then_ms = snapshot->now_ms;
        }
        if (status == PYKV_OK && unchanged)
            status = store_unchanged_ahead(store, operations, count);
        if (snapshot != NULL && !unchanged)
            snapshot_release(snapshot);
        if (status == PYKV_OK)
            status = write_batch(store, operations, count, arrays->sequence, durability, failed, deleted, version);
    }
    if (operations != small)
        store->os->release(store->os, operations);
    return status;
}

/* Inside a call, which it ends. */
static int write_and_wait(struct pykv_store *store, struct pykv_snapshot *snapshot, size_t count,
                          const struct arrays *arrays, int durability, size_t *failed, uint64_t *deleted,
                          uint64_t *version)
{
    struct room room = room_now(store);
    int status;
    do {
        status = write_arrays(store, snapshot, count, arrays, durability, failed, deleted, version);
        room.pinned = snapshot != NULL && atomic_load(&snapshot->open);
    } while (room_again(store, &status, &room));
    return status;
}

int pykv_write(struct pykv_store *store, size_t count, const uint8_t *ops, const uint8_t *keys,
               const uint32_t *key_sizes, const uint8_t *values, const uint32_t *value_sizes, const uint64_t *numbers,
               int durability, size_t *failed, uint64_t *deleted, uint64_t *version)
{
    struct arrays arrays = { .ops = ops, .keys = keys, .values = values, .key_sizes = key_sizes,
                             .value_sizes = value_sizes, .numbers = numbers };
    int status = store_enter(store);
    return status != PYKV_OK ? status
                             : write_and_wait(store, NULL, count, &arrays, durability, failed, deleted, version);
}

/* (W) A version of which nothing is left: recovery takes the counter from the MARK. *end stays 0 if one here
 * would not be true: nothing of the segment is known to be durable. */
static int pass_version(struct pykv_store *store, uint64_t version, uint64_t *end)
{
    const struct plan plan = { .puts = 1, .size = RECORD_BARE_SIZE };
    uint64_t position, durable;
    int status = store_refused(store);
    if (status == PYKV_OK && version <= shared_sequence(store->shared))
        status = PYKV_CONFLICT;
    if (status == PYKV_OK)
        status = prepare(store, &plan, 0, &position);
    if (status != PYKV_OK)
        return status;
    durable = atomic_load(&store->shared->durable);
    if (position_segment(durable) != position_segment(position))
        return PYKV_OK;
    status = put_mark(store, position, position_offset(durable) / RECORD_ALIGNMENT, version);
    *end = status == PYKV_OK ? atomic_load(&store->shared->tail) : 0;
    return status;
}

static int load_version(struct pykv_store *store, uint64_t version, int durability)
{
    uint64_t end = 0;
    int status = store_check_writable(store);
    while (status == PYKV_OK && end == 0) {
        status = store_sync_to(store, atomic_load(&store->shared->tail));
        if (status == PYKV_OK && (status = store_lock(store)) == PYKV_OK) {
            status = pass_version(store, version, &end);
            store_unlock(store);
        }
    }
    return status == PYKV_OK ? store_settle(store, end, durability) : status;
}

int pykv_load(struct pykv_store *store, uint64_t version, size_t count, const uint8_t *keys, const uint32_t *key_sizes,
              const uint8_t *values, const uint32_t *value_sizes, const uint64_t *expiries, int durability)
{
    struct arrays arrays = { .keys = keys, .values = values, .key_sizes = key_sizes, .value_sizes = value_sizes,
                             .numbers = expiries, .sequence = version };
    if (version == 0 || version > SEQUENCE_MAX / 2)    /* versions are left for what comes after */
        return error_set(PYKV_INVALID, 0, NULL, 0, "no batch has version %llu", (unsigned long long)version);
    int status = store_enter(store);
    if (status == PYKV_OK)
        atomic_store(&store->loading, true);
    if (status != PYKV_OK || count != 0)
        return status != PYKV_OK ? status : write_and_wait(store, NULL, count, &arrays, durability, NULL, NULL, NULL);
    struct room room = room_now(store);
    do
        status = load_version(store, version, durability);
    while (room_again(store, &status, &room));
    return status;
}

int64_t pykv_snapshot_commit(struct pykv_snapshot *snapshot, size_t expect_count, size_t write_count,
                             const uint8_t *ops, const uint8_t *fields, const uint8_t *sizes,
                             const uint64_t *expiries, int durability)
{
    size_t failed = 0, count = expect_count + write_count;
    uint64_t version = 0;
    int status = snapshot_enter(snapshot);
    if (status != PYKV_OK)
        return -1000 + status;
    struct pykv_store *store = snapshot->store;
    struct arrays arrays = { .first = expect_count, .ops = ops, .keys = fields, .values = fields, .key_sizes = sizes,
                             .value_sizes = sizes + count * sizeof(uint32_t), .numbers = expiries };
    for (size_t i = 0; i < count; i++)
        arrays.values += size_at(sizes, i);
    status = write_and_wait(store, snapshot, count, &arrays, durability, &failed, NULL, &version);
    pykv_snapshot_close(snapshot);
    return status == PYKV_CONFLICT ? -2000 - (int64_t)failed : status != PYKV_OK ? -1000 + status : (int64_t)version;
}
