/* read.c -- lookups. A reader takes no lock: it notes the published sequence, follows a slot of the
 * keydir into the log, and checks what it finds there. Three things can be in its way:
 *
 *   a record newer than the sequence it noted: the batch is not wholly visible yet, or became so
 *       meanwhile; the record names the one it replaces, and the reader steps back to it;
 *   a slot that moved while it looked: keydir_probe_moved() tells, and it looks again;
 *   a record that does not verify, or is not there: damage, if the slot still points there; else the
 *       reader was overtaken, and looks again. A segment on the way back may have been removed too,
 *       unless the instant is pinned: then a present read takes a newer instant. */
#include <string.h>

#include "rows.h"
#include "store.h"

#define GROUP 32u       /* keys whose cache misses overlap in a call for many */

static bool key_equal(const struct record *record, const uint8_t *key, size_t key_size)
{
    return record->key_size == key_size && memcmp(record->key, key, key_size) == 0;
}

int store_step_back(struct pykv_store *store, uint64_t sequence, struct log_reader *reader,
                    struct record *record)
{
    uint8_t small[256], *key = small;
    uint32_t key_size = record->key_size;
    int status = PYKV_OK;
    if (record->sequence <= sequence)
        return PYKV_OK;
    if (key_size > sizeof small && (key = store->os->alloc(store->os, key_size)) == NULL)
        return error_no_memory(key_size);
    memcpy(key, record->key, key_size);     /* the reader's memory is about to be used again */
    while (status == PYKV_OK && record->sequence > sequence) {
        uint64_t newer = record->sequence;
        if (record->previous == 0)
            status = PYKV_NOT_FOUND;
        else if ((status = log_read(&store->log, record->previous, reader, record)) == PYKV_OK &&
                 (!key_equal(record, key, key_size) || record->sequence >= newer))
            status = error_corrupt("keydir", 0, "a version chain leads to another key");
    }
    if (key != small)
        store->os->release(store->os, key);
    return status;
}

/* What a candidate location holds for `key`: PYKV_OK and the record, PYKV_NOT_FOUND if it is
 * another key's or the key did not exist then, or a failure. */
static int read_candidate(struct pykv_store *store, uint64_t sequence, uint64_t location,
                          const uint8_t *key, size_t key_size, struct log_reader *reader,
                          struct record *out, bool *ours)
{
    int status = log_read(&store->log, location, reader, out);
    *ours = false;
    if (status != PYKV_OK)
        return status;
    if (out->flags & ~(RECORD_TOMBSTONE | RECORD_EXPIRY | RECORD_MEMBER) || !key_equal(out, key, key_size))
        return PYKV_NOT_FOUND;
    *ours = true;
    if (__builtin_expect(out->sequence > sequence, 0))
        status = store_step_back(store, sequence, reader, out);
    if (status == PYKV_OK && out->flags & RECORD_TOMBSTONE)
        status = PYKV_NOT_FOUND;
    return status;
}

/* One pass over the candidates, of which `location` is the first. *again: overtaken, look once more. */
static int find_once(struct pykv_store *store, uint64_t sequence, struct keydir_probe *probe, uint64_t location,
                     const uint8_t *key, size_t key_size, struct log_reader *reader, struct record *out, bool *again)
{
    bool ours;
    int status, damaged = PYKV_OK;
    *again = false;
    for (; location != 0; location = keydir_probe_next(store->keydir, probe)) {
        status = read_candidate(store, sequence, location, key, key_size, reader, out, &ours);
        if (ours ? status == PYKV_OK || status == PYKV_NOT_FOUND : status == PYKV_NO_MEMORY || status == PYKV_IO)
            return status;
        /* Another key's, or one that cannot be read: perhaps ours was there, and its segment's place in the table has
         * been given to another since. */
        if (!keydir_holds(store->keydir, probe->hash, location)) {
            *again = true;
            return PYKV_NOT_FOUND;
        }
        /* A record that cannot be read may be the key's: go on, another may prove to be it. */
        if (status != PYKV_NOT_FOUND)
            damaged = status;
    }
    if (probe->status != PYKV_OK)
        return probe->status;
    if (keydir_probe_moved(store->keydir, probe)) {
        *again = true;
        return PYKV_NOT_FOUND;
    }
    return damaged != PYKV_OK ? damaged : PYKV_NOT_FOUND;
}

int store_find(struct pykv_store *store, uint64_t sequence, uint64_t hash, const uint8_t *key,
               size_t key_size, struct log_reader *reader, struct record *out)
{
    struct keydir_probe probe;
    bool again = false;
    int status;
    do {
        if ((status = keydir_probe(store->keydir, hash, &probe)) == PYKV_OK)
            status = find_once(store, sequence, &probe, keydir_probe_next(store->keydir, &probe), key, key_size, reader,
                               out, &again);
    } while (__builtin_expect(again, 0));
    return status;
}

/* What `key` has now. Damage is none if a segment was removed while we looked. */
static int find_now(struct pykv_store *store, uint64_t hash, const uint8_t *key, size_t key_size,
                    struct log_reader *reader, struct record *out)
{
    for (;;) {
        uint64_t removals = atomic_load(&store->shared->removals);
        int status = store_find(store, shared_sequence(store->shared), hash, key, key_size, reader, out);
        if (__builtin_expect(status != PYKV_CORRUPT, 1) || atomic_load(&store->shared->removals) == removals)
            return status;
    }
}

/* Of what was found: whether it has expired, and whether the snapshot (NULL: none) still holds it. */
static int judge(struct pykv_store *store, const struct pykv_snapshot *snapshot, int status, struct record *out)
{
    if (status == PYKV_NOT_FOUND)
        out->flags = 0;
    if ((status == PYKV_NOT_FOUND || status == PYKV_CORRUPT) && snapshot != NULL)
        return snapshot_check(snapshot, status);
    if (status != PYKV_OK || (out->flags & RECORD_EXPIRY) == 0)
        return status;
    uint64_t now_ms = snapshot == NULL ? store->os->wall_ms(store->os) : snapshot->now_ms;
    return out->expiry <= now_ms ? PYKV_NOT_FOUND : PYKV_OK;
}

/* The record that `key` had at the snapshot's instant (NULL: has now), not expired. With PYKV_NOT_FOUND:
 * of one that has expired and is not yet removed the flags and the time, else no flags. */
static int find_live(struct pykv_store *store, const struct pykv_snapshot *snapshot, uint64_t hash, const uint8_t *key,
                     size_t key_size, struct log_reader *reader, struct record *out)
{
    int status = snapshot == NULL
                     ? find_now(store, hash, key, key_size, reader, out)
                     : store_find(store, snapshot->instant.sequence, hash, key, key_size, reader, out);
    return judge(store, snapshot, status, out);
}

static int check_key(size_t key_size)
{
    if (key_size <= PYKV_KEY_SIZE_MAX)
        return PYKV_OK;
    return error_set(PYKV_INVALID, 0, NULL, 0, "a key of %zu bytes is longer than %u", key_size, PYKV_KEY_SIZE_MAX);
}

/* Of a call on a store, or on a snapshot of it where that is not NULL. */
static int enter(struct pykv_store *store, const struct pykv_snapshot *snapshot)
{
    return snapshot == NULL ? store_enter(store) : snapshot_enter(snapshot);
}

static struct pykv_store *store_of(struct pykv_snapshot *snapshot) { return snapshot == NULL ? NULL : snapshot->store; }

/* ---- One key ---- */

static int64_t get_at(struct pykv_store *store, const struct pykv_snapshot *snapshot, const uint8_t *key,
                      size_t key_size, uint8_t *buffer, size_t capacity, uint64_t *version)
{
    struct log_reader reader;
    struct record record;
    int64_t size = 0;
    int status = check_key(key_size);
    if (status != PYKV_OK || (status = enter(store, snapshot)) != PYKV_OK)
        return -1000 + status;
    log_reader_init(&reader, store->os);
    reader.lazy = true;         /* a long value is looked at only if there is room for it */
    status = find_live(store, snapshot, hash_bytes(&store->hash_key, key, key_size), key, key_size, &reader, &record);
    if (status == PYKV_OK) {
        size = record.value_size;
        if (version != NULL)
            *version = record.sequence;
        if (record.value_size > RECORD_CHUNK_SIZE && record.value_size <= capacity)
            status = log_read_value(&store->log, &reader, &record, 0, record.value_size, buffer);
        else if (record.value_size <= capacity && record.value_size != 0)
            memcpy(buffer, record.value, record.value_size);
    }
    log_reader_release(&reader);
    store_leave(store);
    return status == PYKV_OK ? size : -1000 + status;
}

int64_t pykv_get(struct pykv_store *store, const uint8_t *key, size_t key_size, uint8_t *buffer, size_t capacity,
                 uint64_t *version)
{
    return get_at(store, NULL, key, key_size, buffer, capacity, version);
}

int64_t pykv_snapshot_get(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size, uint8_t *buffer,
                          size_t capacity, uint64_t *version)
{
    return get_at(store_of(snapshot), snapshot, key, key_size, buffer, capacity, version);
}

static int64_t get_range_at(struct pykv_store *store, const struct pykv_snapshot *snapshot, const uint8_t *key,
                            size_t key_size, uint64_t offset, uint64_t length, uint8_t *buffer, size_t capacity,
                            uint64_t *value_size)
{
    struct log_reader reader;
    struct record record;
    uint64_t size = 0;
    int status = check_key(key_size);
    if (status != PYKV_OK || (status = enter(store, snapshot)) != PYKV_OK)
        return -1000 + status;
    log_reader_init(&reader, store->os);
    reader.lazy = true;
    status = find_live(store, snapshot, hash_bytes(&store->hash_key, key, key_size), key, key_size, &reader, &record);
    if (status == PYKV_OK) {
        uint64_t left = offset < record.value_size ? record.value_size - offset : 0;
        size = length < left ? length : left;
        if (size <= capacity)
            status = log_read_value(&store->log, &reader, &record, offset, (size_t)size, buffer);
        if (status == PYKV_OK && value_size != NULL)
            *value_size = record.value_size;
    }
    log_reader_release(&reader);
    store_leave(store);
    return status == PYKV_OK ? (int64_t)size : -1000 + status;
}

int64_t pykv_get_range(struct pykv_store *store, const uint8_t *key, size_t key_size, uint64_t offset, uint64_t length,
                       uint8_t *buffer, size_t capacity, uint64_t *value_size)
{
    return get_range_at(store, NULL, key, key_size, offset, length, buffer, capacity, value_size);
}

int64_t pykv_snapshot_get_range(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size, uint64_t offset,
                                uint64_t length, uint8_t *buffer, size_t capacity, uint64_t *value_size)
{
    return get_range_at(store_of(snapshot), snapshot, key, key_size, offset, length, buffer, capacity, value_size);
}

static int contains_at(struct pykv_store *store, const struct pykv_snapshot *snapshot, const uint8_t *key,
                       size_t key_size, uint64_t *expiry_ms)
{
    struct log_reader reader;
    struct record record;
    int status = check_key(key_size);
    if (status != PYKV_OK || (status = enter(store, snapshot)) != PYKV_OK)
        return status;
    log_reader_init(&reader, store->os);
    reader.lazy = true;
    status = find_live(store, snapshot, hash_bytes(&store->hash_key, key, key_size), key, key_size, &reader, &record);
    if ((status == PYKV_OK || status == PYKV_NOT_FOUND) && expiry_ms != NULL)
        *expiry_ms = record.flags & RECORD_EXPIRY ? record.expiry : 0;
    log_reader_release(&reader);
    store_leave(store);
    return status;
}

int pykv_contains(struct pykv_store *store, const uint8_t *key, size_t key_size, uint64_t *expiry_ms)
{
    return contains_at(store, NULL, key, key_size, expiry_ms);
}

int pykv_snapshot_contains(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size, uint64_t *expiry_ms)
{
    return contains_at(store_of(snapshot), snapshot, key, key_size, expiry_ms);
}

/* A view keeps its segment mapped, or its copy allocated. */
struct pykv_pin {
    const struct os *os;
    struct segment *segment;
    uint8_t *copy;
};

/* Of what a lazy reader has found. */
static int view_take(struct pykv_store *store, const struct record *record, struct log_reader *reader,
                     struct pykv_pin *pin, const uint8_t **value)
{
    pin->os = store->os;
    if (store->log.pread && (pin->copy = store->os->alloc(store->os, (size_t)record->value_size + 1)) == NULL)
        return error_no_memory(record->value_size);
    int status = log_read_value(&store->log, reader, record, 0, record->value_size, pin->copy);
    if (status != PYKV_OK || store->log.pread) {
        *value = pin->copy;
        return status;
    }
    atomic_fetch_add(&reader->segment->references, 1);
    pin->segment = reader->segment;
    *value = record->value;
    return PYKV_OK;
}

static int view_at(struct pykv_store *store, const struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size,
                   const uint8_t **value, size_t *value_size, struct pykv_pin **out)
{
    struct log_reader reader;
    struct record record;
    int status = check_key(key_size);
    if (status != PYKV_OK || (status = enter(store, snapshot)) != PYKV_OK)
        return status;
    log_reader_init(&reader, store->os);
    reader.lazy = true;
    status = find_live(store, snapshot, hash_bytes(&store->hash_key, key, key_size), key, key_size, &reader, &record);
    if (status == PYKV_OK) {
        struct pykv_pin *pin = store->os->alloc(store->os, sizeof *pin);
        status = pin == NULL ? error_no_memory(sizeof *pin) : view_take(store, &record, &reader, pin, value);
        if (status == PYKV_OK) {
            *value_size = record.value_size;
            *out = pin;
        } else {
            pykv_view_release(pin);
        }
    }
    log_reader_release(&reader);
    store_leave(store);
    return status;
}

int pykv_view(struct pykv_store *store, const uint8_t *key, size_t key_size, const uint8_t **value,
              size_t *value_size, struct pykv_pin **out)
{
    return view_at(store, NULL, key, key_size, value, value_size, out);
}

int pykv_snapshot_view(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size, const uint8_t **value,
                       size_t *value_size, struct pykv_pin **out)
{
    return view_at(store_of(snapshot), snapshot, key, key_size, value, value_size, out);
}

void pykv_view_release(struct pykv_pin *pin)
{
    if (pin == NULL)
        return;
    segment_release(pin->segment);
    pin->os->release(pin->os, pin->copy);
    pin->os->release(pin->os, pin);
}

/* ---- Many keys: hash all, fetch all buckets, fetch all records, then read ---- */

struct lookup {
    const uint8_t *key;
    uint32_t key_size;
    struct keydir_probe probe;
    uint64_t location;          /* its first candidate */
};

static int prefetch_group(struct pykv_store *store, struct lookup *group, size_t count)
{
    int status = PYKV_OK;
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        uint64_t hash = hash_bytes(&store->hash_key, group[i].key, group[i].key_size);
        if ((status = keydir_probe(store->keydir, hash, &group[i].probe)) == PYKV_OK)
            keydir_probe_prefetch(&group[i].probe);
    }
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        group[i].location = keydir_probe_next(store->keydir, &group[i].probe);
        if (group[i].location != 0)
            log_prefetch(&store->log, group[i].location);
    }
    return status;
}

/* Go on with a lookup that has begun, after `sequence` was noted. If it was overtaken, begin anew. */
static int find_begun(struct pykv_store *store, const struct pykv_snapshot *snapshot, uint64_t sequence,
                      struct lookup *lookup, struct log_reader *reader, struct record *out)
{
    bool again;
    int status = find_once(store, sequence, &lookup->probe, lookup->location, lookup->key, lookup->key_size, reader, out,
                           &again);
    if (__builtin_expect(again || (status != PYKV_OK && status != PYKV_NOT_FOUND), 0))
        return find_live(store, snapshot, lookup->probe.hash, lookup->key, lookup->key_size, reader, out);
    return judge(store, snapshot, status, out);
}

static int note_presence(void *context, size_t index, const struct record *record)
{
    ((uint8_t *)context)[index] = record != NULL;
    return PYKV_OK;
}

/* Call `each` with every key's record in turn, NULL where absent. */
static int lookup_many(struct pykv_store *store, const struct pykv_snapshot *snapshot, size_t count,
                       const uint8_t *keys, const uint32_t *key_sizes,
                       int (*each)(void *context, size_t index, const struct record *record), void *context)
{
    struct lookup group[GROUP];
    struct log_reader reader;
    struct record record;
    int status = enter(store, snapshot);
    if (status != PYKV_OK)
        return status;
    log_reader_init(&reader, store->os);
    reader.lazy = each == note_presence;
    for (size_t start = 0; start < count && status == PYKV_OK; start += GROUP) {
        size_t size = count - start < GROUP ? count - start : GROUP;
        for (size_t i = 0; i < size && status == PYKV_OK; i++) {
            group[i].key = keys;
            group[i].key_size = key_sizes[start + i];
            keys += key_sizes[start + i];
            status = check_key(group[i].key_size);
        }
        uint64_t sequence = snapshot == NULL ? shared_sequence(store->shared) : snapshot->instant.sequence;
        if (status == PYKV_OK)
            status = prefetch_group(store, group, size);
        for (size_t i = 0; i < size && status == PYKV_OK; i++) {
            status = find_begun(store, snapshot, sequence, &group[i], &reader, &record);
            if (status == PYKV_OK || status == PYKV_NOT_FOUND)
                status = each(context, start + i, status == PYKV_OK ? &record : NULL);
        }
    }
    log_reader_release(&reader);
    store_leave(store);
    return status;
}

static int append_value(void *context, size_t index, const struct record *record)
{
    (void)index;
    return record == NULL ? rows_append_missing(context) : rows_append(context, record->value, record->value_size);
}

int pykv_get_many(struct pykv_store *store, size_t count, const uint8_t *keys, const uint32_t *key_sizes,
                  struct pykv_rows *rows)
{
    rows_clear(rows);
    return lookup_many(store, NULL, count, keys, key_sizes, append_value, rows);
}

int pykv_snapshot_get_many(struct pykv_snapshot *snapshot, size_t count, const uint8_t *keys,
                           const uint32_t *key_sizes, struct pykv_rows *rows)
{
    rows_clear(rows);
    return lookup_many(store_of(snapshot), snapshot, count, keys, key_sizes, append_value, rows);
}

int pykv_contains_many(struct pykv_store *store, size_t count, const uint8_t *keys,
                       const uint32_t *key_sizes, uint8_t *present)
{
    return lookup_many(store, NULL, count, keys, key_sizes, note_presence, present);
}

int pykv_snapshot_contains_many(struct pykv_snapshot *snapshot, size_t count, const uint8_t *keys,
                                const uint32_t *key_sizes, uint8_t *present)
{
    return lookup_many(store_of(snapshot), snapshot, count, keys, key_sizes, note_presence, present);
}
