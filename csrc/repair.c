/* repair.c -- what the next writer does when one has died with the lock, or failed halfway: the
 * frames that are in the log but not yet in the keydir are applied as their writer would have. */
#include "store.h"

struct repair {
    struct pykv_store *store;
    struct shared_counters counters;
    struct log_reader reader;
};

/* The slot may point at this very record already. Then what it replaced is told by the record. */
static int present_before(struct repair *repair, const struct record *record, uint64_t location,
                          uint64_t hash, struct present *present)
{
    struct record old;
    int status = store_present(repair->store, hash, record->key, record->key_size, &repair->reader, present, &old);
    if (status == PYKV_NOT_FOUND || status == PYKV_CORRUPT)
        return PYKV_OK;
    if (status != PYKV_OK || present->slot != location_short(location))
        return status;
    present->live = false;
    present->size = 0;
    if (record->previous == 0 || log_peek(&repair->store->log, record->previous, &repair->reader, &old) != PYKV_OK)
        return PYKV_OK;
    present->location = record->previous;
    present->size = old.size;
    present->live = (old.flags & RECORD_TOMBSTONE) == 0;
    return PYKV_OK;
}

static int repair_record(void *context, const struct record *record, uint64_t location)
{
    struct repair *repair = context;
    struct pykv_store *store = repair->store;
    struct present present;
    if (record->flags & (RECORD_MARK | RECORD_SEAL))
        return PYKV_OK;
    uint64_t hash = hash_bytes(&store->hash_key, record->key, record->key_size);
    int status = present_before(repair, record, location, hash, &present);
    if (status == PYKV_OK && present.slot == 0)
        status = keydir_reserve(store->keydir, 1);
    if (status != PYKV_OK)
        return status;
    if (!store_apply(store, &repair->counters, hash, location, record, &present))
        return error_corrupt(KEYDIR_NAME, 0, "the keydir in shared memory is damaged");
    repair->counters.sequence = record->sequence;
    return PYKV_OK;
}

int store_repair(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    struct repair repair = { .store = store };
    int status = keydir_repair(store->keydir);
    if (status == PYKV_OK)
        status = log_repair(&store->log);
    if (status != PYKV_OK)
        return status;
    uint64_t tail = atomic_load(&shared->tail);
    repair.counters = shared_counters(shared);
    log_reader_init(&repair.reader, store->os);
    struct log_walk walk = { .log = &store->log, .each = repair_record, .context = &repair };
    uint64_t id = position_segment(repair.counters.position), offset = position_offset(repair.counters.position);
    while (status == PYKV_OK) {
        bool last = id == position_segment(tail);
        status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
        if (status != PYKV_OK)
            break;
        walk.offset = offset;
        walk.limit = last ? position_offset(tail) : log_limit(&store->log, walk.segment);
        status = log_walk(&walk);
        if (status == PYKV_OK && !last && walk.sealed == 0)
            status = PYKV_CORRUPT;
        if (status == PYKV_CORRUPT) {
            char name[32];
            log_segment_name(id, name);
            status = error_corrupt(name, walk.offset, "a record that is not yet in the keydir does not verify");
        }
        if (last)
            break;
        id = walk.sealed;
        offset = SEGMENT_HEADER_SIZE;
    }
    log_reader_release(&repair.reader);
    if (status == PYKV_OK) {
        repair.counters.position = tail;
        shared_counters_publish(shared, &repair.counters);
    }
    return status;
}
