/* recover.c -- from the files of a directory to a keydir: after a reboot, for a copied directory, or
 * when the keydir is lost.
 *
 * The manifest lists the segments that were sealed and durable, with their lengths: these must be
 * whole, and damage in them is reported. Behind them comes the tail: the segments that were being
 * written. A power cut may have taken any of its pages, so it counts up to its first hole, unless
 * something further on proves that what is missing had been durable: the manifest's durable
 * position, a checkpoint, or a MARK. Then it is damage, and never silently cut.
 *
 * What is cut is cut for good before anything new is written: later segments are removed first,
 * then the segment is shortened, sealed and synced, and a new one begun. If we die in between, the
 * next recovery finds the same prefix. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

struct recovery {
    struct pykv_store *store;
    struct manifest manifest;
    bool has_manifest;
    uint64_t *ids;                  /* of the segments of the log that count, ascending; behind them of those
                                     * that were never used: removed when the manifest says so */
    size_t count, all, capacity;
    uint64_t *compacted;            /* of those that compaction wrote and finished, ascending; among `ids` no more */
    size_t compacted_count;
    uint64_t id_max;                /* of all names ever seen */
    struct checkpoint checkpoint;
    bool has_checkpoint;
    struct replay replay;
    uint64_t durable;               /* the log up to here must be whole */
    uint64_t position;              /* end of the valid log */
};

/* ---- What is there ---- */

/* What repair goes on without. Of damaged records verification tells, and better. */
static int meet_damage(struct recovery *recovery, const char *name, uint64_t offset, uint64_t size)
{
    struct pykv_store *store = recovery->store;
    atomic_fetch_add(&store->damaged_records, 1);
    if (store->options.repair != PYKV_REPAIR_ASIDE)
        return PYKV_OK;
    size_t old_size = store->met_count * sizeof *store->met;
    struct pykv_damage *grown = store->os->grow(store->os, store->met, old_size, old_size + sizeof *grown);
    if (grown == NULL)
        return error_no_memory(old_size + sizeof *grown);
    store->met = grown;
    grown += store->met_count++;
    memset(grown, 0, sizeof *grown);
    grown->offset = offset;
    grown->size = size;
    strncpy(grown->path, name, sizeof grown->path - 1);
    return PYKV_OK;
}

static int note_name(void *context, const char *name)
{
    struct recovery *recovery = context;
    const struct os *os = recovery->store->os;
    uint64_t number;
    if (store_classify(name, &number) != 's')
        return 0;
    if (recovery->count == recovery->capacity) {
        size_t capacity = recovery->capacity * 2 + 64;
        uint64_t *grown = os->grow(os, recovery->ids, recovery->count * sizeof *grown, capacity * sizeof *grown);
        if (grown == NULL)
            return error_no_memory(capacity * sizeof *grown);
        recovery->ids = grown;
        recovery->capacity = capacity;
    }
    recovery->ids[recovery->count++] = number;
    recovery->id_max = number > recovery->id_max ? number : recovery->id_max;
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static const struct manifest_segment *listed(const struct recovery *recovery, uint64_t id)
{
    for (size_t i = 0; i < recovery->manifest.count; i++)
        if (recovery->manifest.segments[i].id == id)
            return &recovery->manifest.segments[i];
    return NULL;
}

static bool is_sealed(const struct recovery *recovery, uint64_t id)
{
    const struct manifest_segment *known = listed(recovery, id);
    return known != NULL && known->length != 0;
}

/* A segment that the manifest does not list, though it was written later, was already given up; in a
 * backup, any that it does not list. */
static bool given_up(const struct recovery *recovery, uint64_t id)
{
    return recovery->has_manifest && listed(recovery, id) == NULL &&
           (id < recovery->manifest.segment_id_next || recovery->manifest.kind == MANIFEST_BACKUP);
}

static int find_segments(struct recovery *recovery)
{
    struct pykv_store *store = recovery->store;
    int error = store->os->dir_list(store->os, store->dir, note_name, recovery);
    if (error != 0)
        return error < 0 ? error : error_os(error, store->path, 0, "list");
    if (recovery->count > 1)
        qsort(recovery->ids, recovery->count, sizeof *recovery->ids, compare_ids);
    size_t kept = 0;
    for (size_t i = 0; i < recovery->count; i++)
        if (!given_up(recovery, recovery->ids[i]))
            recovery->ids[kept++] = recovery->ids[i];
    recovery->count = recovery->all = kept;
    for (size_t i = 0; i < recovery->manifest.count; i++) {
        uint64_t id = recovery->manifest.segments[i].id;
        char name[32];
        if (kept != 0 && bsearch(&id, recovery->ids, kept, sizeof id, compare_ids) != NULL)
            continue;
        log_segment_name(id, name);
        if (!store->options.repair)
            return error_corrupt(name, 0, "the segment is missing");
        int status = meet_damage(recovery, name, 0, recovery->manifest.segments[i].length);
        if (status != PYKV_OK)
            return status;
    }
    return PYKV_OK;
}

/* ---- Headers ---- */

static int read_header(struct recovery *recovery, uint64_t id, struct segment_header *header, uint64_t *size)
{
    struct pykv_store *store = recovery->store;
    const struct os *os = store->os;
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    struct os_stat stat = { .size = 0 };
    char name[32];
    size_t done = 0;
    int fd = -1;
    log_segment_name(id, name);
    int error = os->file_open(os, store->dir, name, OS_READ_LINKED, 0, &fd);
    if (error != 0)
        return error_os(error, name, 0, "open");
    if ((error = os->file_stat(os, fd, &stat)) == 0)
        error = os->file_read(os, fd, bytes, sizeof bytes, 0, &done);
    (void)os->file_close(os, fd);
    if (error != 0)
        return error_os(error, name, 0, "read");
    *size = stat.size;
    int status = done == sizeof bytes ? segment_header_decode(bytes, header) : PYKV_CORRUPT;
    if (status == PYKV_NEWER_FORMAT)
        return error_set(status, 0, name, 8, "%s was written by a newer release of pykv", name);
    if (status == PYKV_OK && (header->id != id || header->capacity > LOG_CAPACITY_MAX))
        status = PYKV_CORRUPT;
    return status == PYKV_OK ? PYKV_OK : error_corrupt(name, 0, "the segment header does not verify");
}

static void set_identity(struct pykv_store *store, const uint8_t store_id[16], const uint8_t hash_key[16])
{
    memcpy(store->log.store_id, store_id, 16);
    memcpy(store->log.hash_key, hash_key, 16);
    store->hash_key = (struct hash_key){ get_u64(hash_key), get_u64(hash_key + 8) };
}

/* Enter the segment into the table, for the time being as long as its file. */
static int register_segment(struct recovery *recovery, uint64_t id, const struct segment_header *header, uint64_t size)
{
    struct segment_entry *entry = &recovery->store->shared->segments[id % SEGMENT_SLOT_COUNT];
    const struct manifest_segment *known = listed(recovery, id);
    char name[32];
    log_segment_name(id, name);
    if (atomic_load(&entry->id) != 0 || id > SEGMENT_ID_MAX || id % SEGMENT_SLOT_COUNT == KEYDIR_SEGMENT_SLOT_LINK)
        return error_corrupt(name, 0, "no segment can have this number");
    if (memcmp(header->store_id, recovery->store->log.store_id, 16) != 0)
        return error_corrupt(name, 24, "the segment belongs to another store");
    if (known != NULL && size < known->length) {
        if (!recovery->store->options.repair)
            return error_set(PYKV_CORRUPT, 0, name, size, "%s is %" PRIu64 " bytes long and should be %" PRIu64, name,
                             size, known->length);
        int status = meet_damage(recovery, name, size, known->length - size);
        if (status != PYKV_OK)
            return status;
    }
    uint64_t length = known != NULL && known->length != 0 && known->length < size ? known->length : size;
    /* What lies behind the instant of a backup is of a later one that was not finished. */
    if (recovery->manifest.kind == MANIFEST_BACKUP && id == position_segment(recovery->manifest.durable) &&
        position_offset(recovery->manifest.durable) < length)
        length = position_offset(recovery->manifest.durable);
    segment_enter(entry, header->kind, header->capacity, header->birth);
    /* The batches of that time may be lost. Their numbers are not given again: what a tombstone must hide
     * is told by comparing its version with births. */
    if (header->birth > recovery->replay.counters.sequence && header->birth < SEQUENCE_MAX)
        recovery->replay.counters.sequence = header->birth;
    atomic_store(&entry->length, length);
    atomic_store(&entry->synced, known != NULL && known->length != 0);
    atomic_store(&entry->id, id);
    return PYKV_OK;
}

/* What compaction wrote counts if the manifest lists it, as it does before anything is removed that was
 * copied from; without one, as far as it is whole. */
static bool unfinished(const struct recovery *recovery, uint64_t id)
{
    const struct manifest_segment *known = listed(recovery, id);
    return recovery->has_manifest && (known == NULL || known->length == 0);
}

/* Take ids[i] out, and keep it where it counts: 0 for what is to be forgotten. */
static void take_compacted(struct recovery *recovery, size_t *i, bool counts)
{
    uint64_t id = recovery->ids[*i];
    recovery->count--;
    recovery->all--;
    memmove(recovery->ids + *i, recovery->ids + *i + 1, (recovery->all - *i) * sizeof id);
    --*i;
    if (counts)
        recovery->compacted[recovery->compacted_count++] = id;
}

/* Move ids[i] to the front, those that do not count behind it. */
static void keep_id(struct recovery *recovery, size_t *kept, size_t i)
{
    uint64_t id = recovery->ids[i];
    recovery->ids[i] = recovery->ids[*kept];
    recovery->ids[(*kept)++] = id;
}

/* A header that does not verify is damage, unless nothing in the segment was durable: check_unused()
 * looks into those behind it for proof that something was. */
static int register_segments(struct recovery *recovery)
{
    struct pykv_store *store = recovery->store;
    bool identity = recovery->has_manifest;
    size_t kept = 0;
    if (identity)
        set_identity(store, recovery->manifest.store_id, recovery->manifest.hash_key);
    recovery->compacted = store->os->alloc(store->os, (recovery->count + 1) * sizeof *recovery->compacted);
    if (recovery->compacted == NULL)
        return error_no_memory((recovery->count + 1) * sizeof *recovery->compacted);
    for (size_t i = 0; i < recovery->count; i++) {
        struct segment_header header;
        char name[32];
        uint64_t id = recovery->ids[i], size = 0;
        int status = read_header(recovery, id, &header, &size);
        if (status == PYKV_OK && !identity) {
            set_identity(store, header.store_id, header.hash_key);
            identity = true;
        }
        /* Aside: its records tell by themselves whether they are whole. */
        if (status == PYKV_CORRUPT && store->log.salvage && identity) {
            header = (struct segment_header){ .id = id, .capacity = size };
            memcpy(header.store_id, store->log.store_id, 16);
            status = PYKV_OK;
        }
        bool compacted = status == PYKV_OK && header.kind == SEGMENT_COMPACTED;
        if (compacted && unfinished(recovery, id)) {
            take_compacted(recovery, &i, false);
            continue;
        }
        if (status == PYKV_OK)
            status = register_segment(recovery, id, &header, size);
        if (status == PYKV_OK && compacted) {
            take_compacted(recovery, &i, true);
            continue;
        }
        if (status == PYKV_OK) {
            keep_id(recovery, &kept, i);
            continue;
        }
        /* Of a number that the manifest lists as finished all was durable; of others, what lies before its
         * durable point. */
        bool durable = recovery->has_manifest && (is_sealed(recovery, id) ||
                       position_make(id, SEGMENT_HEADER_SIZE) < recovery->manifest.durable);
        if (status != PYKV_CORRUPT || (durable && !store->options.repair))
            return status;
        log_segment_name(id, name);
        if (durable && (status = meet_damage(recovery, name, 0, size)) != PYKV_OK)
            return status;
    }
    recovery->count = kept;
    return PYKV_OK;
}

/* ---- Replay ---- */

static int each_record(void *context, const struct record *record, uint64_t location)
{
    struct recovery *recovery = context;
    struct pykv_store *store = recovery->store;
    if (recovery->has_checkpoint) {
        uint64_t id = atomic_load(&store->shared->segments[location_slot(location)].id);
        /* A manifest older than the checkpoint leads to segments before its start. Their records are
         * in it; or they are not because the key was deleted, and must not come back. */
        if (position_make(id, location_offset(location)) < recovery->checkpoint.start)
            return PYKV_OK;
    }
    return replay_record(&recovery->replay, hash_bytes(&store->hash_key, record->key, record->key_size), location, record);
}

/* ---- Behind a hole: is it the torn end of the log, or damage? ---- */

/* end: the hole's segment is known to have been durable up to there, 0: not known. We look for the
 * highest, so that one look is enough for all holes of a segment; or until it is `enough`. */
struct proof { uint64_t hole_segment, hole_offset, end, enough; };

static int each_proof(void *context, const struct record *record, uint64_t location)
{
    struct proof *proof = context;
    (void)location;
    uint64_t durable = proof->hole_segment == 0 ? UINT64_MAX : (uint64_t)record->value_size * RECORD_ALIGNMENT;
    if (record->flags & RECORD_MARK && durable > proof->hole_offset && durable > proof->end)
        proof->end = durable;
    return proof->end >= proof->enough ? PYKV_CONFLICT : PYKV_OK;
}

/* Look through the rest of the segment, and those behind it, for a MARK that covers the hole. */
static int find_proof(struct recovery *recovery, size_t index, uint64_t hole, uint64_t *end)
{
    struct pykv_store *store = recovery->store;
    struct proof proof = { .hole_segment = recovery->ids[index], .hole_offset = hole, .enough = hole == 0 ? 1 : UINT64_MAX };
    struct log_walk walk = { .log = &store->log, .each = each_proof, .context = &proof, .offset = hole };
    for (size_t i = index; i < recovery->count && proof.end < proof.enough; i++) {
        int status = log_segment(&store->log, (uint32_t)(recovery->ids[i] % SEGMENT_SLOT_COUNT), &walk.segment);
        if (status != PYKV_OK)
            return status;
        walk.limit = log_limit(&store->log, walk.segment);
        if (i > index) {
            walk.offset = SEGMENT_HEADER_SIZE;
            proof.hole_segment = 0;     /* a MARK here covers all segments before */
        } else {
            status = log_walk_resync(&walk);
        }
        while (status == PYKV_OK && proof.end < proof.enough && walk.offset < walk.limit) {
            status = log_walk(&walk);
            if (status == PYKV_CORRUPT)
                status = log_walk_resync(&walk);
            else if (walk.sealed != 0)
                break;
        }
        log_walk_release(&walk);
        if (status < 0 && status != PYKV_CORRUPT)
            return status;
    }
    *end = proof.end;
    return PYKV_OK;
}

/* Segments that were left out because of their headers: does a MARK behind one tell that it was durable? */
static int check_unused(struct recovery *recovery)
{
    bool marks = true;          /* there may be some further on */
    for (size_t i = recovery->count; i < recovery->all; i++) {
        uint64_t id = recovery->ids[i];
        size_t next = 0;
        uint64_t end = 0;
        while (next < recovery->count && recovery->ids[next] < id)
            next++;
        int status = next == recovery->count || !marks ? PYKV_OK : find_proof(recovery, next, 0, &end);
        bool proven = marks = end != 0;
        for (; !recovery->has_manifest && next < recovery->count && status == PYKV_OK && !proven; next++)
            status = log_ends_in_seal(&recovery->store->log, recovery->ids[next], &proven, NULL);
        if (status == PYKV_OK && proven)
            status = replay_damage(recovery->store, id, 0, "the segment header does not verify");
        if (status != PYKV_OK)
            return status;
    }
    return PYKV_OK;
}

/* Up to where the segment is known to have been durable: beyond the hole, or it is no damage. */
static int judge_hole(struct recovery *recovery, size_t index, uint64_t hole, uint64_t *end)
{
    uint64_t id = recovery->ids[index], durable = position_segment(recovery->durable);
    *end = id < durable ? UINT64_MAX : id == durable ? position_offset(recovery->durable) : 0;
    return *end > hole ? PYKV_OK : find_proof(recovery, index, hole, end);
}

/* A segment that no seal leads to was begun by a writer that died before it used it. */
static void drop_unused(struct recovery *recovery, size_t index)
{
    struct pykv_store *store = recovery->store;
    uint64_t id = recovery->ids[index];
    struct segment_entry *entry = &store->shared->segments[id % SEGMENT_SLOT_COUNT];
    char name[32];
    log_segment_name(id, name);
    atomic_store(&entry->id, 0);
    atomic_store(&entry->length, 0);
    if (!store->private)
        (void)store->os->file_remove(store->os, store->dir, name);
    recovery->count--;
    memmove(recovery->ids + index, recovery->ids + index + 1, (recovery->count - index) * sizeof *recovery->ids);
    recovery->ids[recovery->count] = id;
}

/* One segment that was being written: from walk->offset to its seal, or to the end of the log. */
static int replay_open(struct recovery *recovery, size_t index, struct log_walk *walk)
{
    struct pykv_store *store = recovery->store;
    bool judged = false, repair = store->options.repair;
    int status;
    while ((status = log_walk(walk)) == PYKV_CORRUPT) {
        uint64_t hole = walk->offset;
        bool torn = hole >= walk->loose_end;
        if (torn) {
            status = judged ? PYKV_OK : judge_hole(recovery, index, hole, &walk->loose_end);
            if (status != PYKV_OK)
                return status;
            judged = true;
            torn = hole >= walk->loose_end;
            if (torn && !repair)
                return PYKV_OK;     /* the log ends here */
            if (!torn && repair)
                continue;           /* of a batch that was whole, all that is left */
        }
        if (!torn && (status = replay_damage(store, recovery->ids[index], hole,
                                             "a record that was durable does not verify")) != PYKV_OK)
            return status;
        if ((status = log_walk_resync(walk)) != PYKV_OK)
            return status;
        if (walk->offset == walk->limit) {
            walk->offset = hole;
            return PYKV_OK;
        }
        if (torn)                   /* salvage what is whole behind the hole, too */
            atomic_fetch_add(&store->damaged_records, 1);
    }
    return status;
}

static uint64_t end_of(const struct recovery *recovery, size_t index)
{
    uint64_t id = recovery->ids[index];
    return position_make(id, atomic_load(&recovery->store->shared->segments[id % SEGMENT_SLOT_COUNT].length));
}

/* The segment that the last of `sealed` leads to, if it is lost: what others behind it hold came later. 0 if it is
 * not, or was given up. */
static int find_lost(struct recovery *recovery, size_t sealed, uint64_t *out)
{
    uint64_t next = 0;
    bool ends, known = recovery->has_manifest;
    *out = 0;
    if (sealed == 0 || recovery->store->options.repair)
        return PYKV_OK;
    int status = log_ends_in_seal(&recovery->store->log, recovery->ids[sealed - 1], &ends, &next);
    if (status != PYKV_OK || !ends || next == recovery->ids[sealed] || given_up(recovery, next))
        return status;
    for (size_t i = recovery->count; i < recovery->all; i++)    /* left out because of their headers */
        known = known || recovery->ids[i] == next;
    *out = known ? next : 0;
    return PYKV_OK;
}

/* The segments that were being written, in the order that their seals tell. */
static int replay_tail(struct recovery *recovery, size_t index)
{
    struct pykv_store *store = recovery->store;
    struct log_walk walk = { .log = &store->log, .each = each_record, .context = recovery };
    int found = find_lost(recovery, index, &walk.sealed);
    if (found != PYKV_OK)
        return found;
    bool lost = walk.sealed != 0;
    if (lost)
        recovery->position = end_of(recovery, index - 1);
    while (!lost) {
        uint64_t id = recovery->ids[index];
        int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
        if (status != PYKV_OK)
            return status;
        walk.offset = replay_offset(&recovery->replay, id);
        walk.limit = log_limit(&store->log, walk.segment);
        walk.loose_end = 0;
        status = replay_open(recovery, index, &walk);
        log_walk_release(&walk);
        if (status != PYKV_OK)
            return status;
        recovery->position = position_make(id, walk.offset);
        uint64_t next = walk.sealed;
        if (next == 0)
            break;
        atomic_store(&store->shared->segments[id % SEGMENT_SLOT_COUNT].length, walk.offset);
        while (index + 1 < recovery->count && recovery->ids[index + 1] < next)
            drop_unused(recovery, index + 1);
        if (++index == recovery->count)
            break;
        if (recovery->ids[index] != next)
            break;
    }
    /* A durable point at the very beginning of a segment says nothing about that one. */
    bool next_lost = walk.sealed != 0 && recovery->durable == position_make(walk.sealed, SEGMENT_HEADER_SIZE);
    if (recovery->position < recovery->durable && !next_lost)
        return replay_damage(store, position_segment(recovery->position), position_offset(recovery->position),
                             "the log ends before its durable point");
    return PYKV_OK;
}

/* ---- The whole log ---- */

/* What the checkpoint tells of the segments that are still there. */
static void adopt_checkpoint(struct recovery *recovery)
{
    struct shared *shared = recovery->store->shared;
    recovery->replay.checkpoint = &recovery->checkpoint;
    recovery->replay.counters.keys = recovery->checkpoint.keys;
    if (recovery->checkpoint.sequence > recovery->replay.counters.sequence)
        recovery->replay.counters.sequence = recovery->checkpoint.sequence;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        if (recovery->checkpoint.ids[i] != 0 && atomic_load(&shared->segments[i].id) == recovery->checkpoint.ids[i]) {
            atomic_store(&shared->segments[i].live_bytes, recovery->checkpoint.live_bytes[i]);
            atomic_store(&shared->segments[i].expiry_next, recovery->checkpoint.expiry_next[i]);
        }
}

static int ignore(void *context, const struct record *record, uint64_t location)
{
    (void)context;
    (void)record;
    (void)location;
    return PYKV_OK;
}

/* Without a manifest. What compaction did not get to end counts up to its first hole, if nothing is whole
 * behind it: what it was copied from is there still. */
static int cut_compacted(struct recovery *recovery, uint64_t id)
{
    struct log *log = &recovery->store->log;
    struct log_walk walk = { .log = log, .each = ignore, .offset = SEGMENT_HEADER_SIZE };
    bool sealed;
    int status = log_ends_in_seal(log, id, &sealed, NULL);
    if (status == PYKV_OK && !sealed)
        status = log_segment(log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
    if (status != PYKV_OK || sealed)
        return status;
    walk.limit = log_limit(log, walk.segment);
    status = log_walk(&walk);
    uint64_t hole = walk.offset;
    if (status == PYKV_CORRUPT)
        status = log_walk_resync(&walk);
    log_walk_release(&walk);
    if (status == PYKV_OK && walk.offset == walk.limit)
        atomic_store(&recovery->store->shared->segments[id % SEGMENT_SLOT_COUNT].length, hole);
    return status;
}

/* How many segments from the front are whole by what is known of them. */
static int count_sealed(struct recovery *recovery, size_t *out)
{
    for (*out = 0; *out < recovery->count; ++*out) {
        bool whole = is_sealed(recovery, recovery->ids[*out]);
        int status = recovery->has_manifest ? PYKV_OK : log_ends_in_seal(&recovery->store->log, recovery->ids[*out], &whole, NULL);
        if (status != PYKV_OK || !whole)
            return status;
    }
    return PYKV_OK;
}

static int replay_log(struct recovery *recovery)
{
    struct pykv_store *store = recovery->store;
    struct replay *replay = &recovery->replay;
    size_t first = 0, first_compacted = 0, sealed;
    int status = store->log.salvage ? PYKV_NOT_FOUND : checkpoint_load(store, &recovery->checkpoint);
    if (status != PYKV_OK && status != PYKV_NOT_FOUND)
        return status;
    recovery->has_checkpoint = status == PYKV_OK;
    recovery->durable = recovery->has_manifest ? recovery->manifest.durable : 0;
    if (recovery->has_checkpoint) {
        adopt_checkpoint(recovery);
        if (recovery->checkpoint.position > recovery->durable)
            recovery->durable = recovery->checkpoint.position;
        while (first < recovery->count && recovery->ids[first] < position_segment(recovery->checkpoint.start))
            first++;
        while (first_compacted < recovery->compacted_count &&
               recovery->compacted[first_compacted] < recovery->checkpoint.segment_id_next)
            first_compacted++;
    }
    status = count_sealed(recovery, &sealed);
    for (size_t i = 0; i < recovery->compacted_count && status == PYKV_OK && !recovery->has_manifest; i++)
        status = cut_compacted(recovery, recovery->compacted[i]);
    if (status != PYKV_OK)
        return status;
    if (first < sealed)
        status = replay_segments(replay, recovery->ids + first, sealed - first);
    if (status == PYKV_OK)
        status = replay_segments(replay, recovery->compacted + first_compacted, recovery->compacted_count - first_compacted);
    if (status == PYKV_OK && sealed < recovery->count)
        return replay_tail(recovery, sealed);
    if (recovery->count > 0)
        recovery->position = end_of(recovery, recovery->count - 1);
    return status;
}

/* ---- The end of the old log, and the beginning of the new ---- */

static int remove_segments_after(struct recovery *recovery, uint64_t id)
{
    struct pykv_store *store = recovery->store;
    bool removed = false;
    for (size_t i = recovery->count; i-- > 0 && recovery->ids[i] > id;) {
        char name[32];
        log_segment_name(recovery->ids[i], name);
        int error = store->os->file_remove(store->os, store->dir, name);
        if (error != 0)
            return error_os(error, name, 0, "remove");
        struct segment_entry *entry = &store->shared->segments[recovery->ids[i] % SEGMENT_SLOT_COUNT];
        atomic_store(&entry->id, 0);
        atomic_store(&entry->length, 0);
        removed = true;
    }
    int error = removed ? store->os->dir_sync(store->os, store->dir) : 0;
    return error == 0 ? PYKV_OK : error_os(error, store->path, 0, "sync the directory of");
}

/* After a failed sync the kernel holds pages that it believes are clean: write them anew. */
static int rewrite(struct pykv_store *store, uint64_t id, uint64_t length)
{
    const struct os *os = store->os;
    size_t size = 1u << 20, done = 0;
    uint8_t *bytes = os->alloc(os, size);
    int fd = -1;
    if (bytes == NULL)
        return error_no_memory(size);
    int error = log_open_file(&store->log, id, &fd);
    for (uint64_t offset = 0; error == 0 && offset < length; offset += done) {
        size_t part = length - offset < size ? (size_t)(length - offset) : size;
        error = os->file_read(os, fd, bytes, part, offset, &done);
        if (error == 0 && done == 0)
            break;
        if (error == 0)
            error = os->file_write(os, fd, bytes, done, offset);
    }
    if (fd >= 0)
        (void)os->file_close(os, fd);
    os->release(os, bytes);
    return error == 0 ? PYKV_OK : error_os(error, "segment", 0, "rewrite");
}

static int rewrite_tail(struct recovery *recovery)
{
    struct pykv_store *store = recovery->store;
    for (size_t i = 0; i < recovery->count; i++) {
        struct segment *segment;
        uint64_t id = recovery->ids[i];
        if (atomic_load(&store->shared->segments[id % SEGMENT_SLOT_COUNT].id) != id || is_sealed(recovery, id))
            continue;
        int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &segment);
        if (status == PYKV_OK)
            status = rewrite(store, id, log_limit(&store->log, segment));
        if (status != PYKV_OK)
            return status;
    }
    return PYKV_OK;
}

/* Cut a segment at `offset` and put a SEAL there. */
static int cut(struct recovery *recovery, uint64_t id, uint64_t offset)
{
    struct pykv_store *store = recovery->store;
    const struct os *os = store->os;
    struct segment_entry *entry = &store->shared->segments[id % SEGMENT_SLOT_COUNT];
    struct record seal = { .flags = RECORD_SEAL, .sequence = recovery->replay.counters.sequence,
                           .previous = store->shared->segment_id_next };
    uint8_t bytes[RECORD_BARE_SIZE];
    char name[32];
    int fd = -1;
    log_segment_name(id, name);
    record_encode(bytes, &seal, record_seed(segment_seed(store->log.store_id, id), offset));
    int error = log_open_file(&store->log, id, &fd);
    if (error == 0)
        error = os->file_truncate(os, fd, offset);
    if (error == 0)
        error = os->file_reserve(os, fd, offset, sizeof bytes);
    if (error == 0)
        error = os->file_write(os, fd, bytes, sizeof bytes, offset);
    if (fd >= 0)
        (void)os->file_close(os, fd);
    if (error != 0)
        return error_os(error, name, offset, "end");
    log_forget(&store->log, id);        /* its mapping is as long as the file was */
    atomic_store(&entry->length, offset + sizeof bytes);
    atomic_store(&entry->synced, 0);
    return PYKV_OK;
}

/* End the last segment where its valid records end, and begin a new one behind it. */
static int continue_log(struct recovery *recovery)
{
    struct pykv_store *store = recovery->store;
    struct shared *shared = store->shared;
    uint64_t position = recovery->position, id = position_segment(position), offset = position_offset(position);
    shared->segment_id_next = recovery->id_max + 1;
    if (recovery->has_manifest && recovery->manifest.segment_id_next > shared->segment_id_next)
        shared->segment_id_next = recovery->manifest.segment_id_next;
    int status = PYKV_OK;
    if (id != 0 && (status = remove_segments_after(recovery, id)) != PYKV_OK)
        return status;
    if (id != 0 && !is_sealed(recovery, id) && (status = cut(recovery, id, offset)) != PYKV_OK)
        return status;
    if (store->rewrite_tail && (status = rewrite_tail(recovery)) != PYKV_OK)
        return status;
    status = log_roll(&store->log, 0);
    if (status == PYKV_OK) {
        uint64_t first = recovery->count > 0 ? recovery->ids[0] : position_segment(atomic_load(&shared->tail));
        atomic_store(&shared->durable, position_make(first, SEGMENT_HEADER_SIZE));
        status = log_sync(&store->log, atomic_load(&shared->tail), true);
        if (status != PYKV_OK && status != PYKV_NO_MEMORY) {
            int error = pykv_last_error()->os_errno;
            atomic_store(&shared->sync_failed, error != 0 ? (uint32_t)error : 5u);
        }
    }
    if (status == PYKV_OK)
        atomic_store(&shared->durable, atomic_load(&shared->tail));
    return status;
}

/* Of a store that was emptied; what else was given up may be of use to somebody. */
static int remove_given_up(void *context, const char *name)
{
    const struct recovery *recovery = context;
    const struct pykv_store *store = recovery->store;
    uint64_t number;
    if (store_classify(name, &number) == 's' && given_up(recovery, number))
        (void)store->os->file_remove(store->os, store->dir, name);
    return 0;
}

static int finish(struct recovery *recovery)
{
    struct pykv_store *store = recovery->store;
    struct shared *shared = store->shared;
    int status = PYKV_OK;
    recovery->replay.counters.position = recovery->position;
    recovery->replay.counters.live_bytes = 0;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        recovery->replay.counters.live_bytes += atomic_load(&shared->segments[i].live_bytes);
    shared_counters_publish(shared, &recovery->replay.counters);
    store_sweep_locked(store);
    atomic_store(&shared->checkpoint_start, recovery->has_checkpoint ? recovery->checkpoint.start : 0);
    atomic_store(&shared->checkpoint_segments, recovery->has_checkpoint ? recovery->checkpoint.segment_id_next : 0);
    if (store->private) {
        atomic_store(&shared->tail, recovery->position);
        atomic_store(&shared->writing_end, recovery->position);
        atomic_store(&shared->durable, recovery->position);
        return PYKV_OK;
    }
    if ((status = continue_log(recovery)) != PYKV_OK)
        return status;
    uint64_t first = recovery->count > 0 ? recovery->ids[0] : position_segment(atomic_load(&shared->tail));
    recovery->replay.counters.position = atomic_load(&shared->tail);
    shared_counters_publish(shared, &recovery->replay.counters);
    atomic_store(&shared->checkpoint_id, recovery->checkpoint.id);
    atomic_store(&shared->checkpoint_position, recovery->has_checkpoint ? recovery->checkpoint.position
                                                                        : position_make(first, SEGMENT_HEADER_SIZE));
    atomic_store(&shared->written_bytes, shared_bytes_since(shared, recovery->checkpoint.start));
    atomic_store(&shared->checkpoint_sequence, recovery->has_checkpoint ? recovery->checkpoint.sequence : 0);
    status = compact_settle(store);     /* what was taken in without a manifest */
    if (status == PYKV_OK)
        status = store_write_manifest(store);
    if (status == PYKV_OK && recovery->has_manifest && recovery->manifest.count == 0)
        (void)store->os->dir_list(store->os, store->dir, remove_given_up, recovery);
    for (size_t i = recovery->count; i < recovery->all && status == PYKV_OK && !store->options.repair; i++) {
        char name[32];      /* given up for good now; if it stays, the next recovery tries again */
        log_segment_name(recovery->ids[i], name);
        (void)store->os->file_remove(store->os, store->dir, name);
    }
    return status;
}

/* A new store: nothing there, or one whose making was cut short, so nothing to read. */
static int begin(struct pykv_store *store)
{
    uint8_t secrets[32];
    int error = store->os->random(store->os, secrets, sizeof secrets);
    if (error != 0)
        return error_os(error, NULL, 0, "get random bytes for");
    set_identity(store, secrets, secrets + 16);
    return PYKV_OK;
}

int recover(struct pykv_store *store)
{
    struct recovery recovery = { .store = store, .replay = { .store = store } };
    log_reader_init(&recovery.replay.reader, store->os);
    int status = manifest_read(store->os, store->dir, &recovery.manifest);
    recovery.has_manifest = status == PYKV_OK;
    if (status == PYKV_OK && recovery.manifest.kind == MANIFEST_UNFINISHED)
        status = error_corrupt(MANIFEST_NAME, 64, "the backup or restore into this directory was never finished: do it again");
    if (status == PYKV_CORRUPT && store->options.repair) {
        recovery.has_manifest = false;
        manifest_release(store->os, &recovery.manifest);
        recovery.manifest.kind = MANIFEST_STORE;
        status = meet_damage(&recovery, MANIFEST_NAME, 0, 0);
    }
    if (status == PYKV_OK || status == PYKV_MISSING)
        status = find_segments(&recovery);
    if (status == PYKV_OK)
        status = register_segments(&recovery);
    if (status == PYKV_OK && recovery.count + recovery.compacted_count == 0 && !recovery.has_manifest)
        status = begin(store);
    if (status == PYKV_OK)
        status = check_unused(&recovery);
    if (status == PYKV_OK)
        status = replay_log(&recovery);
    if (status == PYKV_OK && recovery.has_checkpoint && store->options.repair)
        status = replay_drop_damaged(&recovery.replay);
    if (status == PYKV_OK)
        status = finish(&recovery);
    atomic_store(&store->recovered_records, recovery.replay.records);
    log_reader_release(&recovery.replay.reader);
    checkpoint_release(store, &recovery.checkpoint);
    manifest_release(store->os, &recovery.manifest);
    store->os->release(store->os, recovery.ids);
    store->os->release(store->os, recovery.compacted);
    return status;
}
