/* replay.c -- records of the log into the keydir, when it is built anew. Whole segments are read by
 * several threads; one inserts. The order in which records come does not matter: of two records of
 * a key the one with the higher sequence counts, and tombstones keep their slots until the end. */
#include "store.h"

#define CHUNK_SIZE 1024u
#define CHUNKS_MAX 8u
#define WORKERS_MAX 8u

struct entry {
    uint64_t hash, location, sequence, size, expiry;
    uint16_t flags;
};

static struct record record_of(const struct entry *entry)
{
    return (struct record){ .flags = entry->flags, .sequence = entry->sequence, .size = entry->size,
                            .expiry = entry->expiry };
}

/* Keys are counted by the slots that there are. Bytes are counted as of a moment after the first slots
 * were written down, so records of the time between may be in that count already, with what they did to
 * others; but not in that of a segment which compaction began later. */
static void count_once(const struct replay *replay, uint64_t location, struct record *record, struct present *present)
{
    const struct checkpoint *checkpoint = replay->checkpoint;
    uint32_t slot = location_slot(location);
    if (checkpoint == NULL || record->sequence > checkpoint->sequence)
        return;
    present->size = 0;
    if (checkpoint->ids[slot] == atomic_load(&replay->store->shared->segments[slot].id))
        record->size = 0;
}

/* Insert, or replace what is older. `key` is that of the record. */
static int insert(struct replay *replay, uint64_t hash, uint64_t location, const struct record *record,
                  const uint8_t *key, uint32_t key_size)
{
    struct pykv_store *store = replay->store;
    struct present present;
    struct record old;
    int status = store_present(store, hash, key, key_size, &replay->reader, &present, &old);
    replay->records++;
    if (status == PYKV_OK && (present.slot == location_short(location) || old.sequence >= record->sequence))
        return PYKV_OK;
    if (status != PYKV_OK && status != PYKV_NOT_FOUND && status != PYKV_CORRUPT)
        return status;
    if (present.slot == 0 && (status = keydir_reserve(store->keydir, 1)) != PYKV_OK)
        return status;
    struct record counted = *record;
    count_once(replay, location, &counted, &present);
    if (!store_apply(store, &replay->counters, hash, location, &counted, &present))
        return error_corrupt(KEYDIR_NAME, 0, "too many keys have one hash");
    if (record->sequence > replay->counters.sequence)
        replay->counters.sequence = record->sequence;
    return PYKV_OK;
}

uint64_t replay_offset(const struct replay *replay, uint64_t id)
{
    bool first = replay->checkpoint != NULL && position_segment(replay->checkpoint->start) == id;
    return first ? position_offset(replay->checkpoint->start) : SEGMENT_HEADER_SIZE;
}

int replay_record(struct replay *replay, uint64_t hash, uint64_t location, const struct record *record)
{
    return insert(replay, hash, location, record, record->key, record->key_size);
}

/* An entry has no key: it is fetched only if a slot with its tag is there already. */
static int replay_entry(struct replay *replay, struct log_reader *reader, const struct entry *entry)
{
    struct keydir_probe probe;
    struct record record = record_of(entry), keyed;
    int status = keydir_probe(replay->store->keydir, entry->hash, &probe);
    if (status != PYKV_OK)
        return status;
    if (keydir_probe_next(replay->store->keydir, &probe) == 0)
        return insert(replay, entry->hash, entry->location, &record, NULL, 0);
    if ((status = log_peek(&replay->store->log, entry->location, reader, &keyed)) != PYKV_OK)
        return status;
    return insert(replay, entry->hash, entry->location, &record, keyed.key, keyed.key_size);
}

int replay_damage(struct pykv_store *store, uint64_t id, uint64_t offset, const char *what)
{
    char name[32];
    log_segment_name(id, name);
    if (!store->options.repair)
        return error_corrupt(name, offset, what);
    atomic_fetch_add(&store->damaged_records, 1);
    return PYKV_OK;
}

/* ---- The threads that read ---- */

struct chunk {
    size_t count;
    struct entry entries[CHUNK_SIZE];
};

struct pipeline {
    struct pykv_store *store;
    const struct replay *replay;
    const uint64_t *ids;
    size_t count, next;         /* segments; the next one to read */
    size_t running;             /* readers that have not ended */
    struct chunk *ready[CHUNKS_MAX];
    size_t ready_count;
    int status;                 /* the first failure */
    uint64_t failed_id, failed_offset;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
};

struct reader {
    struct pipeline *pipeline;
    struct chunk *chunk;
};

static int chunk_send(struct reader *reader)
{
    struct pipeline *pipeline = reader->pipeline;
    pthread_mutex_lock(&pipeline->mutex);
    while (pipeline->ready_count == CHUNKS_MAX && pipeline->status == PYKV_OK)
        pthread_cond_wait(&pipeline->changed, &pipeline->mutex);
    int status = pipeline->status;
    if (status == PYKV_OK) {
        pipeline->ready[pipeline->ready_count++] = reader->chunk;
        reader->chunk = NULL;
        pthread_cond_broadcast(&pipeline->changed);
    }
    pthread_mutex_unlock(&pipeline->mutex);
    return status;
}

static int read_record(void *context, const struct record *record, uint64_t location)
{
    struct reader *reader = context;
    struct pykv_store *store = reader->pipeline->store;
    if (record->flags & (RECORD_MARK | RECORD_SEAL))
        return PYKV_OK;
    if (reader->chunk == NULL) {
        reader->chunk = store->os->alloc(store->os, sizeof *reader->chunk);
        if (reader->chunk == NULL)
            return error_no_memory(sizeof *reader->chunk);
    }
    struct entry *entry = &reader->chunk->entries[reader->chunk->count++];
    *entry = (struct entry){ .hash = hash_bytes(&store->hash_key, record->key, record->key_size), .location = location,
                             .sequence = record->sequence, .size = record->size, .expiry = record->expiry,
                             .flags = record->flags };
    return reader->chunk->count == CHUNK_SIZE ? chunk_send(reader) : PYKV_OK;
}

static int read_segment(struct reader *reader, uint64_t id, uint64_t *offset)
{
    struct pykv_store *store = reader->pipeline->store;
    struct log_walk walk = { .log = &store->log, .each = read_record, .context = reader,
                             .offset = replay_offset(reader->pipeline->replay, id) };
    *offset = 0;
    int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
    if (status != PYKV_OK)
        return status;
    walk.limit = log_limit(&store->log, walk.segment);
    walk.loose_end = store->options.repair ? UINT64_MAX : 0;
    if (walk.segment->base != NULL)
        store->os->advise(store->os, walk.segment->base, walk.segment->map_size, OS_SEQUENTIAL);
    while ((status = log_walk(&walk)) == PYKV_CORRUPT) {
        *offset = walk.offset;
        status = replay_damage(store, id, walk.offset, "a record before the durable point does not verify");
        if (status == PYKV_OK)
            status = log_walk_resync(&walk);
        if (status != PYKV_OK)
            break;
    }
    log_walk_release(&walk);
    if (walk.segment->base != NULL)
        store->os->advise(store->os, walk.segment->base, walk.segment->map_size, OS_RANDOM);
    return status;
}

static void read_segments(void *context)
{
    struct pipeline *pipeline = context;
    struct reader reader = { .pipeline = pipeline };
    int status = PYKV_OK;
    uint64_t id = 0, offset = 0;
    for (;;) {
        pthread_mutex_lock(&pipeline->mutex);
        bool more = pipeline->next < pipeline->count && pipeline->status == PYKV_OK;
        id = more ? pipeline->ids[pipeline->next++] : 0;
        pthread_mutex_unlock(&pipeline->mutex);
        if (!more || (status = read_segment(&reader, id, &offset)) != PYKV_OK)
            break;
    }
    if (status == PYKV_OK && reader.chunk != NULL)
        status = chunk_send(&reader);
    pipeline->store->os->release(pipeline->store->os, reader.chunk);
    pthread_mutex_lock(&pipeline->mutex);
    if (status != PYKV_OK && pipeline->status == PYKV_OK) {
        pipeline->status = status;
        pipeline->failed_id = id;
        pipeline->failed_offset = offset;
    }
    pipeline->running--;
    pthread_cond_broadcast(&pipeline->changed);
    pthread_mutex_unlock(&pipeline->mutex);
}

/* The one that inserts: takes what the readers have made until they all have ended. */
static void insert_chunks(struct replay *replay, struct pipeline *pipeline)
{
    struct log_reader reader;
    log_reader_init(&reader, replay->store->os);
    pthread_mutex_lock(&pipeline->mutex);
    while (pipeline->running > 0 || pipeline->ready_count > 0) {
        if (pipeline->ready_count == 0) {
            pthread_cond_wait(&pipeline->changed, &pipeline->mutex);
            continue;
        }
        struct chunk *chunk = pipeline->ready[--pipeline->ready_count];
        int status = pipeline->status;
        pthread_cond_broadcast(&pipeline->changed);
        pthread_mutex_unlock(&pipeline->mutex);
        for (size_t i = 0; i < chunk->count && status == PYKV_OK; i++) {
            if (i + 16 < chunk->count)
                keydir_prefetch(replay->store->keydir, chunk->entries[i + 16].hash);
            status = replay_entry(replay, &reader, &chunk->entries[i]);
        }
        replay->store->os->release(replay->store->os, chunk);
        pthread_mutex_lock(&pipeline->mutex);
        if (status != PYKV_OK && pipeline->status == PYKV_OK)
            pipeline->status = status;
    }
    pthread_mutex_unlock(&pipeline->mutex);
    log_reader_release(&reader);
}

/* Without threads: the same walk, inserting as it goes. */
static int insert_record(void *context, const struct record *record, uint64_t location)
{
    struct replay *replay = context;
    if (record->flags & (RECORD_MARK | RECORD_SEAL))
        return PYKV_OK;
    return replay_record(replay, hash_bytes(&replay->store->hash_key, record->key, record->key_size), location, record);
}

static int replay_alone(struct replay *replay, const uint64_t *ids, size_t count)
{
    struct pykv_store *store = replay->store;
    int status = PYKV_OK;
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        struct log_walk walk = { .log = &store->log, .each = insert_record, .context = replay,
                                 .offset = replay_offset(replay, ids[i]) };
        status = log_segment(&store->log, (uint32_t)(ids[i] % SEGMENT_SLOT_COUNT), &walk.segment);
        if (status != PYKV_OK)
            break;
        walk.limit = log_limit(&store->log, walk.segment);
        walk.loose_end = store->options.repair ? UINT64_MAX : 0;
        while ((status = log_walk(&walk)) == PYKV_CORRUPT)
            if ((status = replay_damage(store, ids[i], walk.offset, "a record before the durable point does not verify")) != PYKV_OK ||
                (status = log_walk_resync(&walk)) != PYKV_OK)
                break;
        log_walk_release(&walk);
    }
    return status;
}

int replay_segments(struct replay *replay, const uint64_t *ids, size_t count)
{
    const struct os *os = replay->store->os;
    struct pipeline pipeline = { .store = replay->store, .replay = replay, .ids = ids, .count = count,
                                 .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    void *threads[WORKERS_MAX];
    size_t started = 0;
    if (count < 2)
        return replay_alone(replay, ids, count);
    pipeline.running = count < WORKERS_MAX ? count : WORKERS_MAX;
    size_t wanted = pipeline.running;
    while (started < wanted && os->thread_start(os, read_segments, &pipeline, &threads[started]) == 0)
        started++;
    pthread_mutex_lock(&pipeline.mutex);
    pipeline.running -= wanted - started;
    pthread_mutex_unlock(&pipeline.mutex);
    if (started == 0)
        return replay_alone(replay, ids, count);
    insert_chunks(replay, &pipeline);
    for (size_t i = 0; i < started; i++)
        os->thread_join(os, threads[i]);
    pthread_mutex_destroy(&pipeline.mutex);
    pthread_cond_destroy(&pipeline.changed);
    if (pipeline.status == PYKV_CORRUPT && pipeline.failed_offset != 0) {
        char name[32];
        log_segment_name(pipeline.failed_id, name);
        return error_corrupt(name, pipeline.failed_offset, "a record before the durable point does not verify");
    }
    if (pipeline.status != PYKV_OK)
        return error_set(pipeline.status, 0, NULL, 0, "reading the segments failed");
    return PYKV_OK;
}
