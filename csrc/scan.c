/* scan.c -- iteration over one instant: the keydir, bucket by bucket, in the geometry it had when
 * the scan began; of each key the version that was current then. A pin keeps deleted keys' slots in
 * place while the scan is open, so that their past can still be found. */
#include <string.h>

#include "rows.h"
#include "store.h"

#define COLLECT_MAX 1024u           /* slots of one bucket and its descendants */
#define ROWS_PER_CALL 256u
#define BYTES_PER_CALL (256u << 10)
#define PENDING_MIN 512u            /* slots to collect at a time */
#define PENDING_MAX 2048u
#define AHEAD 12u                   /* records being fetched while one is told */
#define SWEEP_BUCKETS 1024u         /* under one hold of the writer lock: half a millisecond */
#define SWEEP_WORTH 64u             /* buckets looked at for each slot that is removed */

struct pykv_scan {
    struct pykv_store *store;
    struct pykv_snapshot snapshot;  /* the instant, with a pin of the scan's own */
    uint64_t bucket_count, bucket;  /* the geometry; the next bucket to collect */
    int mode;
    size_t prefix_size;
    uint8_t *prefix;
    size_t pending, next;           /* slots collected and not yet told */
    size_t capacity;
    uint64_t *slots;                /* `few`, or more where the table has grown a lot since */
    uint64_t few[PENDING_MAX];
};

int pykv_scan_open(struct pykv_store *store, struct pykv_snapshot *snapshot, const uint8_t *prefix,
                   size_t prefix_size, int mode, struct pykv_scan **out)
{
    if (snapshot != NULL && snapshot->store != store)
        return error_set(PYKV_INVALID, 0, NULL, 0, "the snapshot is of another store");
    if (mode < 1 || mode > 7)
        return error_set(PYKV_INVALID, 0, NULL, 0, "a scan has a mode from 1 to 7, not %d", mode);
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    struct pykv_scan *scan = store->os->alloc(store->os, sizeof *scan + prefix_size);
    if (scan == NULL) {
        status = error_no_memory(sizeof *scan + prefix_size);
    } else {
        *scan = (struct pykv_scan){ .store = store, .mode = mode, .prefix_size = prefix_size };
        scan->prefix = (uint8_t *)(scan + 1);
        scan->slots = scan->few;
        scan->capacity = PENDING_MAX;
        if (prefix_size != 0)
            memcpy(scan->prefix, prefix, prefix_size);
        status = snapshot_take(&scan->snapshot, store, snapshot);
        scan->bucket_count = atomic_load(&store->shared->keydir.bucket_count);
        if (status == PYKV_OK) {
            atomic_fetch_add(&store->references, 1);
            *out = scan;
        } else {
            store->os->release(store->os, scan);
        }
    }
    store_leave(store);
    return status;
}

/* A bucket of the geometry at the start may by now be thousands. */
static int make_room(struct pykv_scan *scan, size_t count)
{
    const struct os *os = scan->store->os;
    size_t capacity = (scan->pending + count) * 2;
    uint64_t *slots = os->alloc(os, capacity * sizeof *slots);
    if (slots == NULL)
        return error_no_memory(capacity * sizeof *slots);
    memcpy(slots, scan->slots, scan->pending * sizeof *slots);
    if (scan->slots != scan->few)
        os->release(os, scan->slots);
    scan->slots = slots;
    scan->capacity = capacity;
    return PYKV_OK;
}

/* Collect the slots of some buckets. */
static int collect(struct pykv_scan *scan)
{
    struct pykv_store *store = scan->store;
    scan->pending = scan->next = 0;
    while (scan->bucket < scan->bucket_count && scan->pending < PENDING_MIN) {
        size_t count = 0, room = scan->capacity - scan->pending;
        int status = keydir_collect(store->keydir, scan->bucket_count, scan->bucket, scan->slots + scan->pending, room,
                                    &count);
        if (status == PYKV_NO_MEMORY && count > room) {
            if ((status = make_room(scan, count)) != PYKV_OK)
                return status;
            continue;
        }
        if (status != PYKV_OK)
            return status;
        scan->pending += count;
        scan->bucket++;
    }
    for (size_t i = 0; i < AHEAD && i < scan->pending; i++)
        log_prefetch(&store->log, keydir_slot_location(scan->slots[i]));
    return scan->pending == 0 ? PYKV_NOT_FOUND : PYKV_OK;
}

/* And make sure that no slot which the instant needs had gone before. */
static int collect_whole(struct pykv_scan *scan)
{
    int status = collect(scan);
    return status == PYKV_OK || status == PYKV_NOT_FOUND ? snapshot_check(&scan->snapshot, status) : status;
}

/* The record at a slot's location. A slot of a damaged keydir may lead to one that has no key. */
static int read_slot(struct pykv_store *store, uint64_t slot, struct log_reader *reader, struct record *out)
{
    int status = log_read(&store->log, keydir_slot_location(slot), reader, out);
    if (status == PYKV_OK && out->flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL))
        status = error_corrupt(KEYDIR_NAME, 0, "a slot leads to a record without a key");
    return status;
}

static bool wanted(const struct pykv_scan *scan, const struct record *record)
{
    return (record->flags & RECORD_TOMBSTONE) == 0 &&
           ((record->flags & RECORD_EXPIRY) == 0 || record->expiry > scan->snapshot.now_ms) &&
           record->key_size >= scan->prefix_size && memcmp(record->key, scan->prefix, scan->prefix_size) == 0;
}

static int tell(struct pykv_scan *scan, uint64_t slot, struct log_reader *reader, struct pykv_rows *rows)
{
    struct record record;
    int status = read_slot(scan->store, slot, reader, &record);
    if (status == PYKV_OK)
        status = store_step_back(scan->store, scan->snapshot.instant.sequence, reader, &record);
    if (status == PYKV_CORRUPT)
        return snapshot_check(&scan->snapshot, status);
    if (status == PYKV_NOT_FOUND || (status == PYKV_OK && !wanted(scan, &record)))
        return PYKV_OK;
    if (status == PYKV_OK && scan->mode & 1)
        status = rows_append(rows, record.key, record.key_size);
    if (status == PYKV_OK && scan->mode & 2)
        status = rows_append(rows, record.value, record.value_size);
    if (status == PYKV_OK && scan->mode & 4) {
        uint64_t numbers[2] = { record.sequence, record.flags & RECORD_EXPIRY ? record.expiry : 0 };
        status = rows_append(rows, (const uint8_t *)numbers, sizeof numbers);
    }
    return status;
}

int pykv_scan_next(struct pykv_scan *scan, struct pykv_rows *rows)
{
    struct log_reader reader;
    int status = store_enter(scan->store);
    if (status != PYKV_OK)
        return status;
    log_reader_init(&reader, scan->store->os);
    reader.lazy = (scan->mode & 2) == 0;
    rows_clear(rows);
    while (status == PYKV_OK && pykv_rows_count(rows) < ROWS_PER_CALL && rows_size(rows) < BYTES_PER_CALL) {
        if (scan->next == scan->pending)
            status = collect_whole(scan);
        if (status != PYKV_OK)
            break;
        if (scan->pending - scan->next > AHEAD)
            log_prefetch(&scan->store->log, keydir_slot_location(scan->slots[scan->next + AHEAD]));
        status = tell(scan, scan->slots[scan->next++], &reader, rows);
    }
    log_reader_release(&reader);
    store_leave(scan->store);
    return status == PYKV_NOT_FOUND && pykv_rows_count(rows) != 0 ? PYKV_OK : status;
}

void pykv_scan_close(struct pykv_scan *scan)
{
    if (scan == NULL)
        return;
    struct pykv_store *store = scan->store;
    if (store_enter(store) == PYKV_OK) {
        snapshot_release(&scan->snapshot);
        store_leave(store);
    }
    if (scan->slots != scan->few)
        store->os->release(store->os, scan->slots);
    store->os->release(store->os, scan);
    store_drop(store);
}

/* ---- Slots of the dead ---- */

/* (W) False if a scan looks at the past, which needs them. */
static bool sweep_buckets(struct pykv_store *store, uint64_t bucket, uint64_t end)
{
    struct shared *shared = store->shared;
    uint64_t slots[COLLECT_MAX], bucket_count = atomic_load(&shared->keydir.bucket_count);
    if (shared_past_pinned(shared))
        return false;
    for (; bucket < end; bucket++) {
        size_t count = 0;
        if (keydir_collect(store->keydir, bucket_count, bucket, slots, COLLECT_MAX, &count) != PYKV_OK)
            continue;
        for (size_t i = 0; i < count; i++) {
            if (!keydir_slot_dead(slots[i]))
                continue;
            atomic_store_explicit(&shared->forgotten, shared_sequence(shared), memory_order_relaxed);
            (void)keydir_remove(store->keydir, keydir_slot_hash(slots[i], bucket), keydir_slot_location(slots[i]));
        }
    }
    if (end == bucket_count)
        atomic_store(&shared->dead_slots, 0);
    return true;
}

/* Each sweep looks at the whole table: while somebody writes it has to be worth it. */
bool store_sweep_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    uint64_t dead = atomic_load(&shared->dead_slots);
    return dead != 0 && store->space.writable && !store->read_only && !shared_pinned(shared) &&
           (atomic_load(&store->idle) || dead >= atomic_load(&shared->keydir.bucket_count) / SWEEP_WORTH);
}

void store_sweep(struct pykv_store *store)
{
    uint64_t bucket = 0, bucket_count;
    bool swept;
    do {    /* some at a time, so that no writer waits for long */
        if (store_lock(store) != PYKV_OK)
            return;
        bucket_count = atomic_load(&store->shared->keydir.bucket_count);
        uint64_t end = bucket_count - bucket < SWEEP_BUCKETS ? bucket_count : bucket + SWEEP_BUCKETS;
        swept = sweep_buckets(store, bucket, end);
        bucket = end;
        store_unlock(store);
    } while (swept && bucket < bucket_count && atomic_load(&store->helpers_stop) == 0);
}

void store_sweep_locked(struct pykv_store *store)
{
    (void)sweep_buckets(store, 0, atomic_load(&store->shared->keydir.bucket_count));
}

/* ---- Removing everything ---- */

struct keys {               /* of a batch being made: all keys end to end */
    const struct os *os;
    uint8_t *bytes;
    size_t size, capacity;
    struct operation *operations;
    size_t count, count_max;
};

static int keys_add(struct keys *keys, const struct record *record)
{
    if (keys->count == keys->count_max)
        return PYKV_OK;
    if (keys->bytes == NULL || record->key_size > keys->capacity - keys->size) {
        size_t capacity = (keys->capacity + record->key_size) * 2 + 4096;
        uint8_t *grown = keys->os->grow(keys->os, keys->bytes, keys->size, capacity);
        if (grown == NULL)
            return error_no_memory(capacity);
        keys->bytes = grown;
        keys->capacity = capacity;
    }
    if (record->key_size != 0)
        memcpy(keys->bytes + keys->size, record->key, record->key_size);
    keys->operations[keys->count++] = (struct operation){ .kind = PYKV_DELETE, .key_size = record->key_size };
    keys->size += record->key_size;
    return PYKV_OK;
}

/* (W) */
static int collect_keys(struct pykv_store *store, struct keys *keys)
{
    uint64_t slots[COLLECT_MAX], bucket_count = atomic_load(&store->shared->keydir.bucket_count);
    struct log_reader reader;
    struct record record;
    int status = PYKV_OK;
    log_reader_init(&reader, store->os);
    reader.lazy = true;
    for (uint64_t bucket = 0; bucket < bucket_count && status == PYKV_OK; bucket++) {
        size_t count = 0;
        status = keydir_collect(store->keydir, bucket_count, bucket, slots, COLLECT_MAX, &count);
        for (size_t i = 0; i < count && status == PYKV_OK; i++) {
            if (keydir_slot_dead(slots[i]))
                continue;
            status = read_slot(store, slots[i], &reader, &record);
            if (status == PYKV_OK)
                status = keys_add(keys, &record);
        }
    }
    log_reader_release(&reader);
    const uint8_t *key = keys->bytes;
    for (size_t i = 0; i < keys->count; i++) {
        keys->operations[i].key = key;
        keys->operations[i].hash = hash_bytes(&store->hash_key, key, keys->operations[i].key_size);
        key += keys->operations[i].key_size;
    }
    return status;
}

static int clear(struct pykv_store *store, int durability)
{
    struct keys keys = { .os = store->os };
    uint64_t end = 0;
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    keys.count_max = (size_t)shared_counters(store->shared).keys;
    keys.operations = store->os->alloc(store->os, (keys.count_max + 1) * sizeof *keys.operations);
    status = keys.operations == NULL ? error_no_memory(keys.count_max * sizeof *keys.operations)
                                     : collect_keys(store, &keys);
    if (status == PYKV_OK)
        status = store_write_locked(store, keys.operations, keys.count, durability, &end);
    store_unlock(store);
    store->os->release(store->os, keys.operations);
    store->os->release(store->os, keys.bytes);
    return status == PYKV_OK ? store_settle(store, end, durability) : status;
}

int pykv_clear(struct pykv_store *store, int durability)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    struct room room = room_now(store);
    do
        status = store->read_only ? error_set(PYKV_READ_ONLY, 0, store->path, 0, "the store %s was opened for reading",
                                              store->path)
                                  : clear(store, durability);
    while (room_again(store, &status, &room));
    return status;
}
