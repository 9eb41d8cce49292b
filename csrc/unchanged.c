/* unchanged.c -- whether anything happened to the keys that begin with a prefix since some position of
 * the log: the log itself tells, as every write and delete is a record behind that position. It costs
 * a look at each record since, whosever it is, and nothing while nobody asks. Turned down: a version
 * for each of some thousand hashed prefixes, which every write would have to count up.
 *
 * The delete of what had expired before the position is no change: it was absent then, and is absent now.
 * Expired records are removed in the background (expire.c), and that is to disturb nobody. */
#include <string.h>

#include "store.h"

#define LITTLE_SIZE (UINT64_C(64) << 10)    /* may be left to do under the writer lock */
#define ROUNDS_MAX 8                        /* then it is done there, however much it is */

struct unchanged {
    struct pykv_store *store;
    struct operation *operations;
    size_t count;
};

/* Whether a record is the delete of one that had expired. What cannot be read had not. */
static bool removes_expired(struct pykv_store *store, const struct record *record, uint64_t then_ms)
{
    struct log_reader reader;
    struct record before;
    if ((record->flags & RECORD_TOMBSTONE) == 0 || record->previous == 0)
        return false;
    log_reader_init(&reader, store->os);
    bool expired = log_read(&store->log, record->previous, &reader, &before) == PYKV_OK && before.flags & RECORD_EXPIRY &&
                   before.expiry <= then_ms && before.sequence < record->sequence && before.key_size == record->key_size &&
                   (record->key_size == 0 || memcmp(before.key, record->key, record->key_size) == 0);
    log_reader_release(&reader);
    return expired;
}

/* Records older than an operation's own position are none of its business. */
static int look(void *context, const struct record *record, uint64_t location)
{
    struct unchanged *unchanged = context;
    if (record->flags & (RECORD_MARK | RECORD_SEAL | RECORD_FRAME))
        return PYKV_OK;
    for (size_t i = 0; i < unchanged->count; i++) {
        struct operation *operation = &unchanged->operations[i];
        if (operation->kind != PYKV_EXPECT_PREFIX_UNCHANGED || operation->key_size > record->key_size ||
            (operation->key_size != 0 && memcmp(operation->key, record->key, operation->key_size) != 0))
            continue;
        if (removes_expired(unchanged->store, record, operation->then_ms))
            continue;
        /* Of the segment's id a location has the low 20 bits, as many as we need to compare. */
        uint64_t id = position_segment(operation->number), offset = position_offset(operation->number);
        uint64_t ahead = ((location >> LOCATION_OFFSET_BITS) - id) & 0xFFFFFu;
        operation->broken |= ahead == 0 ? location_offset(location) >= offset : ahead < 1u << 19;
    }
    return PYKV_OK;
}

/* Walk from one position to another. */
static int walk(struct pykv_store *store, uint64_t from, uint64_t to, struct unchanged *unchanged)
{
    struct log_walk walk = { .log = &store->log, .each = look, .context = unchanged };
    uint64_t id = position_segment(from);
    walk.offset = position_offset(from);
    for (;;) {
        bool last = id == position_segment(to);
        int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
        if (status != PYKV_OK)
            return status;
        walk.limit = last ? position_offset(to) : log_limit(&store->log, walk.segment);
        status = log_walk(&walk);
        if (status == PYKV_OK && last)
            return PYKV_OK;
        if (status == PYKV_CORRUPT || (status == PYKV_OK && walk.sealed <= id)) {
            char name[32];
            log_segment_name(id, name);
            return error_corrupt(name, walk.offset, "a record does not verify, or no snapshot had this position");
        }
        if (status != PYKV_OK)
            return status;
        id = walk.sealed;
        walk.offset = SEGMENT_HEADER_SIZE;
    }
}

/* Where the first of them is to be looked from; `tail` if all are done. */
static int first_position(struct pykv_store *store, const struct operation *operations, size_t count, uint64_t tail,
                          uint64_t *out)
{
    *out = tail;
    for (size_t i = 0; i < count; i++) {
        uint64_t position = operations[i].number;
        if (operations[i].kind != PYKV_EXPECT_PREFIX_UNCHANGED || operations[i].broken)
            continue;
        uint64_t id = position_segment(position);
        if (position > tail || position_offset(position) < SEGMENT_HEADER_SIZE ||
            atomic_load(&store->shared->segments[id % SEGMENT_SLOT_COUNT].id) != id)
            return error_set(PYKV_INVALID, 0, NULL, 0, "operation %zu of the batch has a position that no snapshot had", i);
        *out = position < *out ? position : *out;
    }
    return PYKV_OK;
}

int store_unchanged(struct pykv_store *store, struct operation *operations, size_t count)
{
    struct unchanged unchanged = { store, operations, count };
    uint64_t tail = atomic_load(&store->shared->tail), from;
    int status = first_position(store, operations, count, tail, &from);
    if (status == PYKV_OK && from != tail)
        status = walk(store, from, tail, &unchanged);
    for (size_t i = 0; i < count && status == PYKV_OK; i++)
        if (operations[i].kind == PYKV_EXPECT_PREFIX_UNCHANGED)
            operations[i].number = tail;
    return status;
}

int store_unchanged_ahead(struct pykv_store *store, struct operation *operations, size_t count)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        uint64_t tail = atomic_load(&store->shared->tail), from;
        int status = first_position(store, operations, count, tail, &from);
        bool near = position_segment(from) == position_segment(tail) &&
                    position_offset(tail) - position_offset(from) <= LITTLE_SIZE;
        if (status != PYKV_OK || near)
            return status;
        if ((status = store_unchanged(store, operations, count)) != PYKV_OK)
            return status;
    }
    return PYKV_OK;
}
