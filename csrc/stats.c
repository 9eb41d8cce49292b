/* stats.c -- what a store consists of, and whether it is whole. */
#include <stdlib.h>
#include <string.h>

#include "store.h"

/* ---- Figures ---- */

struct sizes { struct pykv_store *store; uint64_t disk_bytes; };

static int add_size(void *context, const char *name)
{
    struct sizes *sizes = context;
    const struct os *os = sizes->store->os;
    struct os_stat stat;
    uint64_t number;
    int fd;
    if (store_classify(name, &number) == 0 || os->file_open(os, sizes->store->dir, name, OS_READ_LINKED, 0, &fd) != 0)
        return 0;   /* not ours, or removed meanwhile */
    if (os->file_stat(os, fd, &stat) == 0)
        sizes->disk_bytes += stat.disk_size;
    (void)os->file_close(os, fd);
    return 0;
}

static void count_log(const struct shared *shared, struct pykv_stats *out)
{
    uint64_t active = position_segment(atomic_load(&shared->tail));
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        uint64_t id = atomic_load(&shared->segments[i].id);
        if (id == 0)
            continue;
        uint64_t length = id == active ? position_offset(atomic_load(&shared->tail)) : atomic_load(&shared->segments[i].length);
        out->segments++;
        out->log_bytes += length > SEGMENT_HEADER_SIZE ? length - SEGMENT_HEADER_SIZE : 0;
    }
}

static void count_pins(struct pykv_store *store, struct pykv_stats *out)
{
    struct shared *shared = store->shared;
    const struct pin_entry *oldest = NULL;
    uint64_t sequence = UINT64_MAX, now_ms = store->os->monotonic_ns(store->os) / 1000000;
    if (store->space.writable)
        shared_unpin_dead(shared, &store->process);
    for (size_t i = 0; i < PIN_COUNT; i++) {
        uint64_t owner = atomic_load(&shared->pins[i].owner);
        out->snapshots += owner != 0;
        if (owner != 0 && (owner & SEQUENCE_MAX) < sequence) {
            oldest = &shared->pins[i];
            sequence = owner & SEQUENCE_MAX;
        }
    }
    if (oldest == NULL)
        return;
    uint64_t since_ms = atomic_load(&oldest->since_ms);
    out->snapshot_versions = out->version > sequence ? out->version - sequence : 0;
    out->snapshot_bytes = shared_bytes_since(shared, atomic_load(&oldest->position));
    out->snapshot_ms = now_ms > since_ms ? now_ms - since_ms : 0;
}

int pykv_stats(struct pykv_store *store, struct pykv_stats *out)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    const struct shared *shared = store->shared;
    struct sizes sizes = { .store = store };
    int error = store->os->dir_list(store->os, store->dir, add_size, &sizes);
    if (error != 0) {
        store_leave(store);
        return error_os(error, store->path, 0, "list");
    }
    memset(out, 0, sizeof *out);
    count_log(shared, out);
    struct shared_counters counters = shared_counters(shared);
    out->keys = counters.keys;
    out->version = counters.sequence;
    out->live_bytes = counters.live_bytes;
    out->dead_bytes = out->log_bytes > counters.live_bytes ? out->log_bytes - counters.live_bytes : 0;
    out->disk_bytes = sizes.disk_bytes;
    out->keydir_bytes = keydir_memory_size(store->keydir);
    out->keydir_buckets = atomic_load(&shared->keydir.bucket_count);
    out->keydir_nodes = atomic_load(&shared->keydir.node_count) - atomic_load(&shared->keydir.node_free_count);
    out->unsynced_bytes = shared_bytes_since(shared, atomic_load(&shared->durable));
    out->checkpoint_version = atomic_load(&shared->checkpoint_sequence);
    out->processes = process_count(&store->process);
    out->syncs = atomic_load(&shared->sync_count);
    out->recovered_records = atomic_load(&store->recovered_records);
    out->damaged_records = atomic_load(&store->damaged_records);
    out->open_us = store->open_us;
    count_pins(store, out);
    compact_stats(store, out);
    store_leave(store);
    return PYKV_OK;
}

int pykv_count(struct pykv_store *store, uint64_t *out)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    *out = shared_counters(store->shared).keys;
    store_leave(store);
    return PYKV_OK;
}

/* ---- Verification ----
 *
 * First the keydir: which slots lead to a place that cannot be read? Then the segments: a place that
 * does not verify is damage if such a slot leads there, or if a recovery would read it. */

struct verification {
    struct pykv_store *store;
    struct pykv_report *report;
    struct pykv_damage *places;     /* that are told, `place_count` at most */
    size_t place_count;
    uint64_t *lost;             /* locations that slots lead to in vain; in order, once all are known */
    size_t lost_count, lost_capacity, told;
    uint64_t *slots;            /* of a bucket */
    size_t slot_count, slot_capacity;
    uint64_t live;
};

static void note_damage(const struct verification *verification, const char *path, uint64_t offset, uint64_t size)
{
    struct pykv_report *report = verification->report;
    if (report->damage_count < verification->place_count) {
        struct pykv_damage *damage = &verification->places[report->damage_count];
        memset(damage, 0, sizeof *damage);
        damage->offset = offset;
        damage->size = size;
        strncpy(damage->path, path, sizeof damage->path - 1);
    }
    report->damage_count++;
}

/* The bucket of a hash in the geometry of `bucket_count` buckets. */
static uint64_t bucket_of(uint64_t hash, uint64_t bucket_count)
{
    uint64_t mask = (UINT64_C(2) << (63 - __builtin_clzll(bucket_count))) - 1, bucket = hash & mask;
    return bucket < bucket_count ? bucket : hash & mask >> 1;
}

static int note_lost(struct verification *verification, uint64_t location)
{
    const struct os *os = verification->store->os;
    if (verification->lost_count == verification->lost_capacity) {
        size_t capacity = verification->lost_capacity * 2 + 64, count = verification->lost_count;
        uint64_t *grown = os->grow(os, verification->lost, count * sizeof *grown, capacity * sizeof *grown);
        if (grown == NULL)
            return error_no_memory(capacity * sizeof *grown);
        verification->lost = grown;
        verification->lost_capacity = capacity;
    }
    verification->lost[verification->lost_count++] = location;
    return PYKV_OK;
}

/* The slots of a bucket; of the geometry at the start, which may by now be thousands. */
static int collect(struct verification *verification, uint64_t bucket_count, uint64_t bucket)
{
    struct pykv_store *store = verification->store;
    for (;;) {
        int status = keydir_collect(store->keydir, bucket_count, bucket, verification->slots,
                                    verification->slot_capacity, &verification->slot_count);
        if (status != PYKV_NO_MEMORY || verification->slot_count <= verification->slot_capacity)
            return status;
        size_t capacity = verification->slot_count * 2;
        store->os->release(store->os, verification->slots);
        verification->slot_capacity = 0;
        verification->slots = store->os->alloc(store->os, capacity * sizeof *verification->slots);
        if (verification->slots == NULL)
            return error_no_memory(capacity * sizeof *verification->slots);
        verification->slot_capacity = capacity;
    }
}

/* A slot must lead to a record that verifies and whose key hashes to the slot's place. */
static int verify_slot(struct verification *verification, struct log_reader *reader, uint64_t bucket_count,
                       uint64_t bucket, uint64_t slot)
{
    struct pykv_store *store = verification->store;
    uint64_t location = keydir_slot_location(slot);
    struct record record;
    verification->live += !keydir_slot_dead(slot);
    int status = log_read(&store->log, location, reader, &record);
    if (status == PYKV_OK)
        status = log_read_value(&store->log, reader, &record, 0, record.value_size, NULL);
    if (status == PYKV_OK && (record.flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL)) == 0) {
        uint64_t hash = hash_bytes(&store->hash_key, record.key, record.key_size);
        if (bucket_of(hash, bucket_count) == bucket && keydir_holds(store->keydir, hash, location))
            return PYKV_OK;
    } else if (status != PYKV_OK && status != PYKV_CORRUPT) {
        return status;
    }
    if (!keydir_holds(store->keydir, keydir_slot_hash(slot, bucket), location))
        return PYKV_OK;         /* a writer has overtaken us */
    return note_lost(verification, location);
}

static int compare_locations(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static int verify_keydir(struct verification *verification)
{
    struct pykv_store *store = verification->store;
    uint64_t bucket_count = atomic_load(&store->shared->keydir.bucket_count);
    struct log_reader reader;
    int status = PYKV_OK;
    log_reader_init(&reader, store->os);
    reader.lazy = true;     /* a value need not fit into memory */
    for (uint64_t bucket = 0; bucket < bucket_count && status == PYKV_OK; bucket++) {
        status = collect(verification, bucket_count, bucket);
        for (size_t i = 0; i < verification->slot_count && status == PYKV_OK; i++)
            status = verify_slot(verification, &reader, bucket_count, bucket, verification->slots[i]);
    }
    log_reader_release(&reader);
    if (verification->lost_count > 1)
        qsort(verification->lost, verification->lost_count, sizeof *verification->lost, compare_locations);
    return status;
}

/* Whether slots lead into [start, end) of a segment; those before it lead to what is whole, and so are
 * damage of the keydir. Segments and places come in the order of locations. */
static bool leads_into(struct verification *verification, uint32_t slot, uint64_t start, uint64_t end)
{
    bool found = false;
    for (; verification->told < verification->lost_count; verification->told++) {
        uint64_t location = verification->lost[verification->told];
        if (location_slot(location) > slot || (location_slot(location) == slot && location_offset(location) >= end))
            break;
        if (location_slot(location) == slot && location_offset(location) >= start)
            found = true;
        else
            note_damage(verification, KEYDIR_NAME, location_offset(location), 0);
    }
    return found;
}

static int count_record(void *context, const struct record *record, uint64_t location)
{
    struct pykv_report *report = context;
    (void)location;
    if ((record->flags & (RECORD_MARK | RECORD_SEAL)) == 0)
        report->records++;
    return PYKV_OK;
}

static int verify_segment(struct verification *verification, uint32_t slot, uint64_t id)
{
    struct pykv_store *store = verification->store;
    struct pykv_report *report = verification->report;
    struct log_walk walk = { .log = &store->log, .each = count_record, .context = report,
                             .offset = SEGMENT_HEADER_SIZE, .loose_end = UINT64_MAX };
    struct segment_header decoded;
    uint8_t header[SEGMENT_HEADER_SIZE];
    char name[32];
    log_segment_name(id, name);
    int status = log_segment(&store->log, slot, &walk.segment);
    if (status == PYKV_CORRUPT && atomic_load(&store->shared->segments[slot].id) != id)
        return PYKV_OK;         /* compaction has removed it */
    if (status == PYKV_CORRUPT) {
        (void)leads_into(verification, slot, 0, UINT64_MAX);
        note_damage(verification, name, 0, 0);
        return PYKV_OK;
    }
    if (status != PYKV_OK)
        return status;
    status = segment_read(&store->log, walk.segment, header, sizeof header, 0);
    if (status != PYKV_OK && status != PYKV_CORRUPT)
        return status;
    if (status == PYKV_CORRUPT || segment_header_decode(header, &decoded) != PYKV_OK)
        note_damage(verification, name, 0, SEGMENT_HEADER_SIZE);
    walk.limit = log_limit(&store->log, walk.segment);
    while ((status = log_walk(&walk)) == PYKV_CORRUPT) {
        uint64_t start = walk.offset;
        if ((status = log_walk_resync(&walk)) != PYKV_OK)
            break;
        if (leads_into(verification, slot, start, walk.offset) ||
            position_make(id, start) >= atomic_load(&store->shared->checkpoint_start)) {
            note_damage(verification, name, start, walk.offset - start);
        } else {
            report->skipped_count++;
            report->skipped_bytes += walk.offset - start;
        }
    }
    log_walk_release(&walk);
    report->segments++;
    report->bytes += walk.limit;
    return status;
}

static int verify_segments(struct verification *verification)
{
    int status = PYKV_OK;
    for (uint32_t slot = 0; slot < SEGMENT_SLOT_COUNT && status == PYKV_OK; slot++) {
        uint64_t id = atomic_load(&verification->store->shared->segments[slot].id);
        if (id != 0)
            status = verify_segment(verification, slot, id);
    }
    if (status == PYKV_OK)
        (void)leads_into(verification, SEGMENT_SLOT_COUNT, 0, 0);
    return status;
}

static int verify_manifest(const struct verification *verification)
{
    const struct pykv_store *store = verification->store;
    struct manifest manifest;
    int status = manifest_read(store->os, store->dir, &manifest);
    if (status == PYKV_CORRUPT || status == PYKV_MISSING) {
        note_damage(verification, MANIFEST_NAME, 0, 0);
        return PYKV_OK;
    }
    manifest_release(store->os, &manifest);
    return status;
}

static int verify(struct verification *verification)
{
    struct pykv_store *store = verification->store;
    struct pykv_report *out = verification->report;
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    memset(out, 0, sizeof *out);
    uint64_t before = shared_sequence(store->shared);
    if (!store->log.salvage)    /* what is wrong with it was met already */
        status = verify_manifest(verification);
    if (status == PYKV_OK)
        status = verify_keydir(verification);
    struct shared_counters counters = shared_counters(store->shared);
    if (status == PYKV_OK && counters.sequence == before && counters.keys != verification->live)
        note_damage(verification, KEYDIR_NAME, 0, 0);
    if (status == PYKV_OK)
        status = verify_segments(verification);
    if (status == PYKV_OK && out->damage_count > 0) {
        const struct pykv_damage *first = verification->place_count > 0 ? verification->places : NULL;
        status = error_corrupt(first == NULL ? NULL : first->path, first == NULL ? 0 : first->offset, "verification found damage");
    }
    store->os->release(store->os, verification->lost);
    store->os->release(store->os, verification->slots);
    store_leave(store);
    return status;
}

int pykv_verify(struct pykv_store *store, struct pykv_report *out)
{
    struct verification verification = { .store = store, .report = out, .places = out->damage,
                                         .place_count = sizeof out->damage / sizeof *out->damage };
    return verify(&verification);
}

int pykv_verify_all(struct pykv_store *store, struct pykv_report *out, struct pykv_damage *places, size_t count)
{
    struct verification verification = { .store = store, .report = out, .places = places, .place_count = count };
    return verify(&verification);
}

int pykv_damage_met(struct pykv_store *store, const struct pykv_damage **out, size_t *count)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    *out = store->met;
    *count = store->met_count;
    store_leave(store);
    return PYKV_OK;
}
