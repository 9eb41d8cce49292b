/* replay.c -- records of the log into the keydir, when it is built anew. Whole segments are read by
 * several threads; one inserts. The order in which records come does not matter: of two records of
 * a key the one with the higher sequence counts, and tombstones keep their slots until the end. */
#include "crew.h"
#include "store.h"

#define CHUNK_SIZE 1024u
#define CHUNKS_MAX 8u
#define SLOTS_MAX 1024u        /* of a bucket */

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

static void count_version(struct replay *replay, uint64_t sequence)
{
    if (sequence > replay->counters.sequence)
        replay->counters.sequence = sequence;
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
    count_version(replay, record->sequence);
    return PYKV_OK;
}

uint64_t replay_offset(const struct replay *replay, uint64_t id)
{
    bool first = replay->checkpoint != NULL && position_segment(replay->checkpoint->start) == id;
    return first ? position_offset(replay->checkpoint->start) : SEGMENT_HEADER_SIZE;
}

int replay_record(struct replay *replay, uint64_t hash, uint64_t location, const struct record *record)
{
    if (record->flags & (RECORD_MARK | RECORD_SEAL)) {
        count_version(replay, record->sequence);
        return PYKV_OK;
    }
    return insert(replay, hash, location, record, record->key, record->key_size);
}

/* An entry has no key: it is fetched only if a slot with its tag is there already. */
static int replay_entry(struct replay *replay, struct log_reader *reader, const struct entry *entry)
{
    struct keydir_probe probe;
    struct record record = record_of(entry), keyed;
    if (record.flags & (RECORD_MARK | RECORD_SEAL))
        return replay_record(replay, 0, 0, &record);
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

/* ---- One segment ---- */

/* `each` gets all of its records, of the checkpoint's first one those behind its start. */
static int read_segment(const struct replay *replay, uint64_t id,
                        int (*each)(void *context, const struct record *record, uint64_t location), void *context)
{
    struct pykv_store *store = replay->store;
    struct log_walk walk = { .log = &store->log, .each = each, .context = context, .offset = replay_offset(replay, id) };
    int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
    if (status != PYKV_OK)
        return status;
    walk.limit = log_limit(&store->log, walk.segment);
    walk.loose_end = store->options.repair ? UINT64_MAX : 0;
    if (walk.segment->base != NULL)
        store->os->advise(store->os, walk.segment->base, walk.segment->map_size, OS_SEQUENTIAL);
    while ((status = log_walk(&walk)) == PYKV_CORRUPT) {
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

/* ---- The threads that read ---- */

struct chunk {
    size_t count;
    struct entry entries[CHUNK_SIZE];
};

struct pipeline {
    struct crew crew;           /* a task is a segment */
    struct replay *replay;
    const uint64_t *ids;
    struct chunk *ready[CHUNKS_MAX];
    size_t ready_count;
};

struct reader {
    struct pipeline *pipeline;
    struct chunk *chunk;
};

static int chunk_send(struct reader *reader)
{
    struct pipeline *pipeline = reader->pipeline;
    struct crew *crew = &pipeline->crew;
    pthread_mutex_lock(&crew->mutex);
    while (pipeline->ready_count == CHUNKS_MAX && crew->status == PYKV_OK)
        pthread_cond_wait(&crew->changed, &crew->mutex);
    int status = crew->status;
    if (status == PYKV_OK) {
        pipeline->ready[pipeline->ready_count++] = reader->chunk;
        reader->chunk = NULL;
        pthread_cond_broadcast(&crew->changed);
    }
    pthread_mutex_unlock(&crew->mutex);
    return status;
}

static int read_record(void *context, const struct record *record, uint64_t location)
{
    struct reader *reader = context;
    struct pykv_store *store = reader->pipeline->replay->store;
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

static int read_segments(struct crew *crew)
{
    struct reader reader = { .pipeline = crew->context };
    int status = PYKV_OK;
    size_t i;
    while (status == PYKV_OK && crew_next(crew, &i))
        status = read_segment(reader.pipeline->replay, reader.pipeline->ids[i], read_record, &reader);
    if (status == PYKV_OK && reader.chunk != NULL)
        status = chunk_send(&reader);
    crew->os->release(crew->os, reader.chunk);
    return status;
}

/* The one that inserts: takes what the readers have made until they all have ended. */
static void insert_chunks(struct pipeline *pipeline)
{
    struct replay *replay = pipeline->replay;
    struct crew *crew = &pipeline->crew;
    struct log_reader reader;
    log_reader_init(&reader, crew->os);
    pthread_mutex_lock(&crew->mutex);
    while (crew->running > 0 || pipeline->ready_count > 0) {
        if (pipeline->ready_count == 0) {
            pthread_cond_wait(&crew->changed, &crew->mutex);
            continue;
        }
        struct chunk *chunk = pipeline->ready[--pipeline->ready_count];
        bool useful = crew->status == PYKV_OK;
        int status = PYKV_OK;
        pthread_cond_broadcast(&crew->changed);
        pthread_mutex_unlock(&crew->mutex);
        for (size_t i = 0; i < chunk->count && status == PYKV_OK && useful; i++) {
            if (i + 16 < chunk->count)
                keydir_prefetch(replay->store->keydir, chunk->entries[i + 16].hash);
            status = replay_entry(replay, &reader, &chunk->entries[i]);
        }
        crew->os->release(crew->os, chunk);
        if (status != PYKV_OK)
            crew_fail(crew, status);
        pthread_mutex_lock(&crew->mutex);
    }
    pthread_mutex_unlock(&crew->mutex);
    log_reader_release(&reader);
}

/* Without threads: the same walk, inserting as it goes. */
static int insert_record(void *context, const struct record *record, uint64_t location)
{
    struct replay *replay = context;
    return replay_record(replay, hash_bytes(&replay->store->hash_key, record->key, record->key_size), location, record);
}

int replay_segments(struct replay *replay, const uint64_t *ids, size_t count)
{
    struct pipeline pipeline = { .replay = replay, .ids = ids };
    struct crew *crew = &pipeline.crew;
    *crew = (struct crew){ .os = replay->store->os, .work = read_segments, .context = &pipeline, .task_count = count };
    crew_init(crew);
    crew_start(crew, count < 2 ? 0 : count);
    bool alone = crew->thread_count == 0;
    if (!alone)
        insert_chunks(&pipeline);
    int status = crew_end(crew);
    for (size_t i = 0; i < count && status == PYKV_OK && alone; i++)
        status = read_segment(replay, ids[i], insert_record, replay);
    return status;
}

/* ---- What a checkpoint tells, and the log does not ---- */

/* Their bytes stay counted as live, since how many they were is not known. */
int replay_drop_damaged(struct replay *replay)
{
    struct pykv_store *store = replay->store;
    uint64_t slots[SLOTS_MAX], bucket_count = atomic_load(&store->shared->keydir.bucket_count);
    struct log_reader reader;
    struct record record;
    int status = PYKV_OK;
    log_reader_init(&reader, store->os);
    reader.lazy = true;
    for (uint64_t bucket = 0; bucket < bucket_count && status == PYKV_OK; bucket++) {
        size_t count = 0;
        status = keydir_collect(store->keydir, bucket_count, bucket, slots, SLOTS_MAX, &count);
        for (size_t i = 0; i < count && status == PYKV_OK; i++) {
            uint64_t location = keydir_slot_location(slots[i]);
            status = log_read(&store->log, location, &reader, &record);
            if (status == PYKV_OK)
                status = log_read_value(&store->log, &reader, &record, 0, record.value_size, NULL);
            if (status != PYKV_CORRUPT)
                continue;
            status = PYKV_OK;
            if (keydir_remove(store->keydir, keydir_slot_hash(slots[i], bucket), location))
                replay->counters.keys -= !keydir_slot_dead(slots[i]);
            atomic_fetch_add(&store->damaged_records, 1);
        }
    }
    log_reader_release(&reader);
    return status;
}
