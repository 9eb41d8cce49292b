/* compact.c -- giving back the space of what is dead.
 *
 * A sealed segment is read from front to back. Records that the keydir still leads to are copied, with
 * their versions, to a segment of compaction's own; then the slots are moved to the copies, a few at a
 * time under the writer lock, each only if it still leads to the original. When nothing leads into the
 * segment any more it can go, in this order:
 *
 *     copies and log durable         what was copied, and what made the rest of the segment dead;
 *                                    else a power cut could take both the old and the new
 *     the manifest lists the copies  from now on a recovery reads them (compact_settle)
 *     nobody is at an older instant  snapshots and scans step back through what was replaced
 *     it leaves the table            readers who were on their way find that, and look again
 *     the manifest lists it no more
 *     its file is removed            the disk has the space back once all processes have let go
 *
 * Dying between any two of them leaves nothing to undo: what was copied twice has one version, and a
 * file that neither table nor manifest knows is removed by the next compaction.
 *
 * A tombstone has nothing to hide once no other segment can hold an older record of its key, and is
 * dropped. Each segment tells the newest version of the moment when it was begun, its birth. One of the
 * log holds only what was written later; one of compaction only what was current then or later. So where
 * a key had been deleted before the birth there is no older record of it, and a tombstone is needed only
 * as long as a segment with an older birth exists. A record that was replaced by a newer one needs no
 * such care: the newer one is there, durable, and wins wherever both are read.
 *
 * usage.c chooses the segment, and tells writers when they have to wait. */
#include <errno.h>

#include "stage.h"
#include "usage.h"

#define GROUP 64u                           /* slots moved under one hold of the writer lock */
#define SLICE_SIZE (UINT64_C(256) << 10)    /* read between two looks at the world */
#define FREED_MAX 64u                       /* files removed at a time */

struct candidate {
    uint64_t hash, location;
    struct record record;       /* in mapped memory, or in the reader of the walk */
};

struct move { uint64_t hash, from, to, size, sequence, expiry; bool dead; };    /* to 0: its slot goes */

struct compaction {
    struct pykv_store *store;
    int (*between)(struct pykv_store *store);
    bool no_strays;             /* there is no segment but those in the table */
    uint64_t needless;          /* tombstones up to this version hide nothing */
    uint64_t looked;            /* offset in the source, of the last look at the world */
    uint64_t slices, segment;   /* the capacity of now */
    struct segment *source;
    bool mapped;                /* the source is */
    struct segment *output;     /* NULL: none yet */
    struct stage stage;
    size_t candidate_count, move_count;
    struct candidate candidates[GROUP];
    struct move moves[GROUP];
    uint64_t flushed;           /* offset in the output */
    uint64_t emptied_bytes;     /* of segments that are SEGMENT_EMPTIED */
};

/* ---- What is due ---- */

static int end_active(struct pykv_store *store)
{
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    status = log_end_active(&store->log);
    if (status == PYKV_OK) {    /* what is not yet in the keydir there is nothing of */
        struct shared_counters counters = shared_counters(store->shared);
        counters.position = atomic_load(&store->shared->tail);
        shared_counters_publish(store->shared, &counters);
    }
    store_unlock(store);
    return status;
}

/* Whether the active segment is to be ended before it is full. */
static bool end_due(struct pykv_store *store, const struct usage *usage)
{
    return usage_active_long(store, usage) || (atomic_load(&store->idle) && usage_active_dead(store, LITTLE, 2));
}

static bool can_free(struct pykv_store *store)
{
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        const struct segment_entry *entry = &store->shared->segments[i];
        if (!segment_retired(entry))
            continue;
        if (oldest == UINT64_MAX)
            oldest = shared_oldest_pin(store->shared);
        if (oldest >= atomic_load(&entry->retired))
            return true;
    }
    return false;
}

/* Segments that a compaction emptied and did not retire: one that is at work or, for who holds the maintain lock, one
 * that died or was ended by a close. */
static bool some_emptied(const struct pykv_store *store)
{
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        if (atomic_load_explicit(&store->shared->segments[i].retired, memory_order_relaxed) == SEGMENT_EMPTIED)
            return true;
    return false;
}

/* They are like any other, to be emptied once more. */
static void take_up_emptied(struct pykv_store *store)
{
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        if (atomic_load(&store->shared->segments[i].retired) == SEGMENT_EMPTIED)
            atomic_store(&store->shared->segments[i].retired, 0);
}

bool compact_due(struct pykv_store *store)
{
    struct usage usage;
    usage_measure(store, &usage);
    if (can_free(store) || atomic_load(&store->shared->disk_full) || some_emptied(store))
        return true;
    return !atomic_load(&store->shared->compaction_paused) &&
           (usage_choose_due(store, &usage) != 0 || end_due(store, &usage));
}

/* ---- Copying ---- */

/* (W is taken here.) */
static int output_begin(struct compaction *compaction, uint64_t least)
{
    struct pykv_store *store = compaction->store;
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    status = log_begin(&store->log, SEGMENT_COMPACTED, SEGMENT_HEADER_SIZE + least + LOG_SEAL_ROOM, &compaction->output);
    store_unlock(store);
    if (status != PYKV_OK) {
        compaction->output = NULL;
        return status;
    }
    compaction->stage.fd = compaction->output->fd;
    compaction->stage.id = compaction->output->id;
    compaction->stage.seed = compaction->output->seed;
    compaction->stage.offset = SEGMENT_HEADER_SIZE;
    compaction->stage.used = 0;
    compaction->flushed = SEGMENT_HEADER_SIZE;
    return PYKV_OK;
}

/* (W) A tombstone that nobody needs. */
static void drop_slot(struct pykv_store *store, const struct move *move)
{
    struct shared *shared = store->shared;
    if (atomic_load(&shared->forgotten) < move->sequence)   /* for those who cannot pin: see snapshot.c */
        atomic_store(&shared->forgotten, move->sequence);
    if (keydir_remove(store->keydir, move->hash, location_short(move->from)) && atomic_load(&shared->dead_slots) != 0)
        atomic_fetch_sub(&shared->dead_slots, 1);
}

/* Write out what is staged, and move the slots that still lead to the originals. */
static int flush_moves(struct compaction *compaction)
{
    struct pykv_store *store = compaction->store;
    struct segment_entry *output = NULL;
    if (compaction->move_count == 0)
        return PYKV_OK;
    int status = compaction->output == NULL ? PYKV_OK : stage_flush(&compaction->stage);
    if (status == PYKV_OK)
        status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    if (compaction->output != NULL) {
        output = segment_of(store->shared, compaction->output->id);
        atomic_store_explicit(&output->length, compaction->stage.offset, memory_order_release);
    }
    for (size_t i = 0; i < compaction->move_count; i++) {
        const struct move *move = &compaction->moves[i];
        if (move->to == 0) {
            drop_slot(store, move);
            continue;
        }
        if (move->expiry != 0)
            expiry_note(&output->expiry_next, move->expiry);
        bool moved = keydir_replace(store->keydir, move->hash, (struct keydir_place){ .word = NULL },
                                    location_short(move->from), location_short(move->to), move->dead);
        if (move->dead) {
            atomic_store(&output->tombstone_bytes, atomic_load(&output->tombstone_bytes) + move->size);
            if (move->sequence > atomic_load(&output->tombstone_newest))
                atomic_store(&output->tombstone_newest, move->sequence);
        } else if (moved) {
            store_count_live(store, move->from, move->size, false);
            store_count_live(store, move->to, move->size, true);
        }
    }
    store_unlock(store);
    if (output != NULL) {
        atomic_fetch_add(&store->shared->copied_bytes, compaction->stage.offset - compaction->flushed);
        compaction->flushed = compaction->stage.offset;
    }
    compaction->move_count = 0;
    return PYKV_OK;
}

/* Whether a tombstone must be kept: a newer record of its key would hide all that it hides. */
static int is_newest(struct compaction *compaction, const struct candidate *candidate, bool *out)
{
    struct pykv_store *store = compaction->store;
    struct log_reader reader;
    struct record newest;
    log_reader_init(&reader, store->os);
    int status = store_find(store, SEQUENCE_MAX, candidate->hash, candidate->record.key, candidate->record.key_size,
                            &reader, &newest);
    *out = status != PYKV_OK || newest.sequence <= candidate->record.sequence;
    log_reader_release(&reader);
    return status == PYKV_NO_MEMORY || status == PYKV_IO ? status : PYKV_OK;
}

static int add_move(struct compaction *compaction, const struct move *move)
{
    compaction->moves[compaction->move_count++] = *move;
    return compaction->move_count == GROUP ? flush_moves(compaction) : PYKV_OK;
}

static int copy(struct compaction *compaction, const struct candidate *candidate)
{
    struct record record = candidate->record;
    const struct stage *stage = &compaction->stage;
    int status = PYKV_OK;
    record.flags &= (uint16_t)~RECORD_MEMBER;
    if (compaction->output != NULL && stage_end(stage) + record.size + LOG_SEAL_ROOM > compaction->output->capacity) {
        if ((status = flush_moves(compaction)) != PYKV_OK)
            return status;
        compaction->output = NULL;      /* it is whole; compact_settle() ends it */
    }
    if (compaction->output == NULL && (status = output_begin(compaction, record.size)) != PYKV_OK)
        return status;
    uint64_t to = location_make(compaction->output->id, stage_end(stage));
    compaction->stage.source = compaction->source;
    compaction->stage.source_offset = location_offset(candidate->location);
    if ((status = stage_record(&compaction->stage, &record)) != PYKV_OK)
        return status;
    return add_move(compaction, &(struct move){
        .hash = candidate->hash, .from = candidate->location, .to = to, .size = record.size,
        .sequence = record.sequence, .expiry = record.flags & RECORD_EXPIRY ? record.expiry : 0,
        .dead = (record.flags & RECORD_TOMBSTONE) != 0 });
}

/* Copy those of a group that are needed. Their buckets are on their way into the cache. */
static int copy_group(struct compaction *compaction)
{
    int status = PYKV_OK;
    for (size_t i = 0; i < compaction->candidate_count && status == PYKV_OK; i++) {
        const struct candidate *candidate = &compaction->candidates[i];
        bool needed = keydir_holds(compaction->store->keydir, candidate->hash, location_short(candidate->location));
        if (candidate->record.flags & RECORD_TOMBSTONE && candidate->record.sequence <= compaction->needless) {
            if (needed)
                status = add_move(compaction, &(struct move){ .hash = candidate->hash, .from = candidate->location,
                                                              .sequence = candidate->record.sequence });
            continue;
        }
        if (candidate->record.flags & RECORD_TOMBSTONE && !needed)
            status = is_newest(compaction, candidate, &needed);
        if (needed && status == PYKV_OK)
            status = copy(compaction, candidate);
    }
    compaction->candidate_count = 0;
    return status;
}

static int each_record(void *context, const struct record *record, uint64_t location)
{
    struct compaction *compaction = context;
    struct pykv_store *store = compaction->store;
    int status = PYKV_OK;
    if (record->flags & (RECORD_MARK | RECORD_SEAL))
        return PYKV_OK;
    uint64_t hash = hash_bytes(&store->hash_key, record->key, record->key_size);
    keydir_prefetch(store->keydir, hash);
    compaction->candidates[compaction->candidate_count++] =
        (struct candidate){ .hash = hash, .location = location, .record = *record };
    if (compaction->candidate_count == GROUP || !compaction->mapped)
        status = copy_group(compaction);
    if (status == PYKV_OK && location_offset(location) - compaction->looked >= SLICE_SIZE) {
        compaction->looked = location_offset(location);
        if ((status = copy_group(compaction)) == PYKV_OK && (status = flush_moves(compaction)) == PYKV_OK)
            status = compaction->between(store);
        if (compaction->slices++ % (1 + compaction->segment / (64 * SLICE_SIZE)) == 0)
            (void)usage_tell(store, false);
    }
    return status;
}

/* Copy what is needed of a segment. PYKV_CORRUPT: it is damaged, and stays. */
static int empty(struct compaction *compaction, uint64_t id)
{
    struct pykv_store *store = compaction->store;
    struct segment_entry *entry = segment_of(store->shared, id);
    struct log_walk walk = { .log = &store->log, .each = each_record, .context = compaction, .offset = SEGMENT_HEADER_SIZE };
    struct usage usage;
    usage_measure(store, &usage);
    compaction->segment = usage.segment;
    compaction->looked = 0;
    compaction->needless = compaction->no_strays ? usage_needless(&usage, entry) : 0;
    int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
    if (status == PYKV_OK) {
        atomic_store(&store->shared->compacting, id);
        compaction->source = walk.segment;
        compaction->mapped = walk.segment->base != NULL;
        walk.limit = log_limit(&store->log, walk.segment);
        if (compaction->mapped)
            store->os->advise(store->os, walk.segment->base, walk.segment->map_size, OS_SEQUENTIAL);
        status = log_walk(&walk);
        if (status == PYKV_OK)
            status = copy_group(compaction);
        if (status == PYKV_OK)
            status = flush_moves(compaction);
        if (compaction->mapped)
            store->os->advise(store->os, walk.segment->base, walk.segment->map_size, OS_RANDOM);
        atomic_store(&store->shared->compacting, 0);
    }
    compaction->candidate_count = compaction->move_count = 0;
    if (status == PYKV_CORRUPT) {
        atomic_store(&entry->damaged, 1);
    } else if (status == PYKV_OK) {
        atomic_store(&entry->retired, SEGMENT_EMPTIED);
        compaction->emptied_bytes += atomic_load(&entry->length);
    }
    return status;
}

/* ---- Making it last ---- */

/* End a segment of compaction, and make it durable. */
static int output_end(struct pykv_store *store, struct segment_entry *entry)
{
    uint64_t id = atomic_load(&entry->id), offset = atomic_load(&entry->length);
    struct record seal = { .flags = RECORD_SEAL, .sequence = shared_sequence(store->shared), .previous = id };
    uint8_t bytes[RECORD_BARE_SIZE];
    char name[32];
    bool sealed;
    int fd = -1, status = log_ends_in_seal(&store->log, id, &sealed, NULL);
    log_segment_name(id, name);
    if (status != PYKV_OK)
        return status;
    int error = log_open_file(&store->log, id, &fd);
    if (error == 0 && !sealed) {
        record_encode(bytes, &seal, record_seed(segment_seed(store->log.store_id, id), offset));
        error = store->os->file_write(store->os, fd, bytes, sizeof bytes, offset);
        if (error == 0)     /* a compaction that died may have written more than it counted */
            error = store->os->file_truncate(store->os, fd, offset + sizeof bytes);
        if (error == 0)
            atomic_store_explicit(&entry->length, offset + sizeof bytes, memory_order_release);
    }
    if (error == 0 && (error = store->os->file_sync(store->os, fd)) != 0)
        atomic_store(&store->shared->sync_failed, (uint32_t)error);
    if (fd >= 0)
        (void)store->os->file_close(store->os, fd);
    return error == 0 ? PYKV_OK : error_os(error, name, offset, "end");
}

int compact_settle(struct pykv_store *store)
{
    bool some = false;
    int status = PYKV_OK;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT && status == PYKV_OK; i++) {
        struct segment_entry *entry = &store->shared->segments[i];
        if (atomic_load(&entry->id) == 0 || atomic_load(&entry->kind) != SEGMENT_COMPACTED || atomic_load(&entry->synced) != 0)
            continue;
        status = output_end(store, entry);
        some = true;
    }
    if (!some || status != PYKV_OK)
        return status;
    int error = store->os->dir_sync(store->os, store->dir);
    if (error != 0) {
        atomic_store(&store->shared->sync_failed, (uint32_t)error);
        return error_os(error, store->path, 0, "sync the directory of");
    }
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        struct segment_entry *entry = &store->shared->segments[i];
        if (atomic_load(&entry->id) != 0 && atomic_load(&entry->kind) == SEGMENT_COMPACTED && atomic_load(&entry->synced) == 0)
            atomic_store(&entry->synced, 2);
    }
    return store_write_manifest(store);
}

/* From now on the emptied segments are needed by older instants alone. */
static int retire(struct compaction *compaction)
{
    struct pykv_store *store = compaction->store;
    int status = PYKV_OK;
    if (compaction->emptied_bytes == 0)
        return PYKV_OK;
    compaction->output = NULL;
    status = compact_settle(store);
    if (status == PYKV_OK)
        status = store_sync_whole(store);       /* its header tells the newest version, if nothing else does */
    if (status != PYKV_OK)
        return status;
    uint64_t retired = shared_sequence(store->shared) + 1;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++)
        if (atomic_load(&store->shared->segments[i].retired) == SEGMENT_EMPTIED)
            atomic_store(&store->shared->segments[i].retired, retired);
    compaction->emptied_bytes = 0;
    return compact_free(store);
}

/* Take out of the table what nobody needs any more. */
static int unlist(struct pykv_store *store, uint64_t *ids, size_t most, size_t *count)
{
    struct shared *shared = store->shared;
    int status = store_lock(store);
    *count = 0;
    if (status != PYKV_OK)
        return status;
    uint64_t oldest = shared_oldest_pin(shared);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT && *count < most; i++) {
        struct segment_entry *entry = &shared->segments[i];
        if (!segment_retired(entry) || oldest < atomic_load(&entry->retired))
            continue;
        ids[(*count)++] = atomic_load(&entry->id);
        atomic_fetch_add(&shared->freed_bytes, atomic_load(&entry->length));
        atomic_fetch_add(&shared->removals, 1);
        atomic_store(&entry->id, 0);
        atomic_store(&entry->length, 0);
        segment_enter(entry, SEGMENT_LOG, 0, 0);
    }
    store_unlock(store);
    return PYKV_OK;
}

static int remove_files(struct pykv_store *store, const uint64_t *ids, size_t count)
{
    int status = count == 0 ? PYKV_OK : store_write_manifest(store);
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        char name[32];
        log_segment_name(ids[i], name);
        int error = store->os->file_remove(store->os, store->dir, name);
        if (error != 0 && error != ENOENT)
            status = error_os(error, name, 0, "remove");
    }
    /* The removal must last before what these files hid from a recovery goes. */
    int error = status == PYKV_OK ? store->os->dir_sync(store->os, store->dir) : 0;
    return error == 0 ? status : error_os(error, store->path, 0, "sync the directory of");
}

int compact_free(struct pykv_store *store)
{
    uint64_t ids[FREED_MAX];
    size_t count = 0;
    int status = PYKV_OK;
    /* Without a manifest a recovery follows the seals where segments are not trimmed; they must not lead
     * to one that was removed. */
    if (can_free(store))
        maintain_trim(store);
    while (status == PYKV_OK && can_free(store))
        if ((status = unlist(store, ids, FREED_MAX, &count)) == PYKV_OK)
            status = remove_files(store, ids, count);
    return status;
}

/* ---- Files that nobody knows ---- */

struct strays { struct pykv_store *store; size_t count; uint64_t ids[FREED_MAX]; };

static int note_stray(void *context, const char *name)
{
    struct strays *strays = context;
    uint64_t id;
    if (store_classify(name, &id) == 's' && atomic_load(&segment_of(strays->store->shared, id)->id) != id && strays->count < FREED_MAX)
        strays->ids[strays->count++] = id;
    return 0;
}

/* Remove what was left by those who died. *none: there is no such file any more, for good. Else there may
 * be, and a tombstone must stay, whatever the table says. */
static int remove_strays(struct pykv_store *store, bool *none)
{
    struct strays strays = { .store = store };
    size_t count = 0;
    int error = store->os->dir_list(store->os, store->dir, note_stray, &strays);
    if (error != 0)
        return error_os(error, store->path, 0, "list");
    /* One that is being begun has its number, and will be in the table when the lock is free. */
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    for (size_t i = 0; i < strays.count; i++)
        if (atomic_load(&segment_of(store->shared, strays.ids[i])->id) != strays.ids[i] &&
            strays.ids[i] < store->shared->segment_id_next)
            strays.ids[count++] = strays.ids[i];
    store_unlock(store);
    *none = remove_files(store, strays.ids, count) == PYKV_OK && strays.count < FREED_MAX;
    return PYKV_OK;
}

/* ---- The work ---- */

static int begin(struct pykv_store *store, int (*between)(struct pykv_store *store), struct compaction **out)
{
    struct compaction *compaction = store->os->alloc(store->os, sizeof *compaction + LOG_DIRECT_SIZE);
    if (compaction == NULL)
        return error_no_memory(sizeof *compaction + LOG_DIRECT_SIZE);
    compaction->store = store;
    compaction->between = between;
    compaction->stage.log = &store->log;
    compaction->stage.bytes = (uint8_t *)(compaction + 1);
    if (atomic_load(&store->shared->disk_full))
        (void)reserve_lend(store);
    int status = remove_strays(store, &compaction->no_strays);
    if (status == PYKV_OK)
        *out = compaction;
    else
        store->os->release(store->os, compaction);
    return status;
}

int compact(struct pykv_store *store, int (*between)(struct pykv_store *store))
{
    struct compaction *compaction = NULL;
    struct usage usage;
    take_up_emptied(store);
    int status = compact_free(store);
    bool paused = atomic_load(&store->shared->compaction_paused) != 0;
    usage_measure(store, &usage);
    if (status == PYKV_OK && !paused && end_due(store, &usage)) {
        status = end_active(store);
        if (status != PYKV_FULL)
            return status;      /* its turn comes when it is durable */
        status = PYKV_OK;       /* on a full disk that of others comes first */
    }
    uint64_t id = paused || status != PYKV_OK ? 0 : usage_choose_due(store, &usage);
    if (id == 0 && status == PYKV_OK && !paused && !log_retiring(&store->log))
        atomic_store(&store->shared->disk_full, 0);     /* all is given back that could be */
    (void)usage_tell(store, false);
    if (id == 0 || (status = begin(store, between, &compaction)) != PYKV_OK)
        return status == PYKV_OK ? PYKV_NOT_FOUND : status;
    while (id != 0 && status == PYKV_OK && compaction->emptied_bytes < usage.portion) {
        status = empty(compaction, id);
        usage_measure(store, &usage);
        id = usage_choose_due(store, &usage);
    }
    if (status != PYKV_CLOSED) {
        int retired = retire(compaction);
        status = status == PYKV_OK ? retired : status;
    }
    if (status == PYKV_FULL)    /* by the reserve next time */
        atomic_store(&store->shared->disk_full, 1);
    (void)usage_tell(store, status != PYKV_OK);
    store->os->release(store->os, compaction);
    return status;
}

/* ---- On request ---- */

static int go_on(struct pykv_store *store)
{
    maintain_sealed(store);
    if (atomic_load(&store->closing) != 0)
        return error_set(PYKV_CLOSED, 0, store->path, 0, "the store %s is closed", store->path);
    return store_refused(store);
}

/* One segment, of those that were there at the beginning. The caller holds the maintain lock. */
static int compact_next(struct pykv_store *store, struct pykv_progress *progress)
{
    struct compaction *compaction = NULL;
    struct usage usage;
    uint64_t left;
    int status = PYKV_OK;
    take_up_emptied(store);
    usage_measure(store, &usage);
    if (progress->below == 0) {
        if (usage_active_dead(store, 1, 100))
            status = end_active(store);
        if (status == PYKV_OK)
            status = go_on(store);
        progress->below = store->shared->segment_id_next;
    }
    if (status == PYKV_OK)
        status = compact_free(store);
    if (status != PYKV_OK)
        return status;
    usage_measure(store, &usage);
    uint64_t id = usage_choose_next(store, &usage, progress->below, &left);
    if (progress->total == 0)
        progress->total = left;
    if (id != 0 && (status = begin(store, go_on, &compaction)) == PYKV_OK) {
        status = empty(compaction, id);
        int retired = retire(compaction);
        status = status == PYKV_OK || status == PYKV_CORRUPT ? retired : status;   /* what is damaged stays */
        store->os->release(store->os, compaction);
        usage_measure(store, &usage);
        (void)usage_choose_next(store, &usage, progress->below, &left);
    }
    progress->left = left;
    return status;
}

int pykv_compact(struct pykv_store *store, struct pykv_progress *progress)
{
    bool died;
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    if (store->read_only) {
        status = error_set(PYKV_READ_ONLY, 0, store->path, 0, "the store %s was opened for reading", store->path);
    } else if ((status = store_refused(store)) == PYKV_OK) {
        shared_lock_acquire(&store->shared->maintain, &store->process, &died);
        status = compact_next(store, progress);
        shared_lock_release(&store->shared->maintain, &store->process);
    }
    store_leave(store);
    return status;
}

void compact_one(struct pykv_store *store)
{
    struct compaction *compaction = NULL;
    struct usage usage;
    take_up_emptied(store);
    maintain_sealed(store);
    usage_measure(store, &usage);
    uint64_t id = usage_choose_full(store, &usage);
    if (id == 0 && usage_active_dead(store, 1, 10) && end_active(store) == PYKV_OK) {
        maintain_sealed(store);
        usage_measure(store, &usage);
        id = usage_choose_full(store, &usage);
    }
    if (id == 0 || begin(store, go_on, &compaction) != PYKV_OK)
        return;
    (void)empty(compaction, id);
    (void)retire(compaction);
    (void)usage_tell(store, false);
    store->os->release(store->os, compaction);
}

int pykv_compaction_pause(struct pykv_store *store, int on)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    if (store->read_only)
        status = error_set(PYKV_READ_ONLY, 0, store->path, 0, "the store %s was opened for reading", store->path);
    if (status == PYKV_OK) {
        atomic_store(&store->shared->compaction_paused, on != 0);
        (void)usage_tell(store, false);
    }
    store_leave(store);
    return status;
}

void compact_stats(struct pykv_store *store, struct pykv_stats *out)
{
    struct shared *shared = store->shared;
    struct usage usage;
    usage_measure(store, &usage);
    out->log_limit_bytes = usage.limit;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        if (segment_retired(&shared->segments[i]))
            out->held_bytes += atomic_load(&shared->segments[i].length);
    }
    out->written_bytes = atomic_load(&shared->written_bytes);
    out->copied_bytes = atomic_load(&shared->copied_bytes);
    out->freed_bytes = atomic_load(&shared->freed_bytes);
    out->compacting = atomic_load(&shared->compacting);
    out->compaction_paused = atomic_load(&shared->compaction_paused);
}
