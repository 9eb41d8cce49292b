/* verify.c -- whether a store is whole: every record of every segment, and every slot of the keydir against
 * the log, beside whoever reads and writes.
 *
 * A crew (crew.h) shares the tasks: first the segments, one after the other, which brings them into memory
 * in order, then the slots of the keydir, some thousand buckets at a time. They note places that do not
 * verify, and slots that lead nowhere. When all is known, it is judged, in the order of segments and
 * offsets: a place is damage if a slot leads there, or if a recovery would read it. */
#include <stdlib.h>
#include <string.h>

#include "crew.h"
#include "store.h"

#define BUCKETS_A_TASK 8192u
#define BUCKET_SIZE 64u
#define STEP_NS UINT64_C(1000000000)

struct place {                  /* of a segment */
    uint64_t id, start, end;
    bool certain;               /* it is damage, whatever leads there */
};

struct places {
    struct place *all;
    size_t count, capacity;
};

struct pykv_verification {
    struct pykv_store *store;
    const struct os *os;
    uint64_t *ids;              /* of the segments that are there at the beginning, ascending */
    size_t id_count, task_count, next;
    uint64_t bucket_count;      /* of the keydir then */
    uint64_t until_ns;          /* no task is begun after that */
    uint64_t tail;              /* of the log then; 0: somebody was writing */
    uint64_t live;              /* slots of keys that are present */
    struct places broken;       /* what does not verify */
    struct places lost;         /* where slots lead in vain */
    uint64_t done, total;       /* bytes of segments and keydir */
    bool finished;
    int failed;                 /* status of the first step that did: there is no going on */
    struct pykv_report report;
    struct pykv_damage *damage; /* all of it */
    size_t damage_capacity;
};

struct checker {                /* one thread of the crew */
    struct crew *crew;
    struct pykv_verification *verification;
    struct log_reader reader;
    uint64_t *slots;            /* of a bucket */
    size_t slot_count, slot_capacity;
    uint64_t records, live;
};

static int note_damage(struct pykv_verification *verification, const char *path, uint64_t offset, uint64_t size)
{
    struct pykv_report *report = &verification->report;
    size_t count = (size_t)report->damage_count;
    if (count == verification->damage_capacity) {
        size_t capacity = count * 2 + 64;
        struct pykv_damage *grown = verification->os->grow(verification->os, verification->damage, count * sizeof *grown,
                                                           capacity * sizeof *grown);
        if (grown == NULL)
            return error_no_memory(capacity * sizeof *grown);
        verification->damage = grown;
        verification->damage_capacity = capacity;
    }
    struct pykv_damage *damage = &verification->damage[count];
    *damage = (struct pykv_damage){ .offset = offset, .size = size };
    strncpy(damage->path, path, sizeof damage->path - 1);
    if (count < sizeof report->damage / sizeof *report->damage)
        report->damage[count] = *damage;
    report->damage_count++;
    return PYKV_OK;
}

static int note_place(struct checker *checker, struct places *places, struct place place)
{
    const struct os *os = checker->crew->os;
    int status = PYKV_OK;
    pthread_mutex_lock(&checker->crew->mutex);
    if (places->count == places->capacity) {
        size_t capacity = places->capacity * 2 + 64;
        struct place *grown = os->grow(os, places->all, places->count * sizeof *grown, capacity * sizeof *grown);
        if (grown == NULL) {
            status = error_no_memory(capacity * sizeof *grown);
        } else {
            places->all = grown;
            places->capacity = capacity;
        }
    }
    if (status == PYKV_OK)
        places->all[places->count++] = place;
    pthread_mutex_unlock(&checker->crew->mutex);
    return status;
}

/* ---- The segments ---- */

static int count_record(void *context, const struct record *record, uint64_t location)
{
    struct checker *checker = context;
    (void)location;
    checker->records += (record->flags & (RECORD_MARK | RECORD_SEAL)) == 0;
    return PYKV_OK;
}

static int check_header(struct checker *checker, const struct segment *segment)
{
    struct pykv_verification *verification = checker->verification;
    struct segment_header decoded;
    uint8_t header[SEGMENT_HEADER_SIZE];
    int status = segment_read(&verification->store->log, segment, header, sizeof header, 0);
    if (status == PYKV_OK)
        status = segment_header_decode(header, &decoded) == PYKV_OK ? PYKV_OK : PYKV_CORRUPT;
    if (status != PYKV_CORRUPT)
        return status;
    return note_place(checker, &verification->broken,
                      (struct place){ .id = segment->id, .end = SEGMENT_HEADER_SIZE, .certain = true });
}

static bool recovery_reads(struct shared *shared, uint64_t id, uint64_t offset)
{
    if (segment_of(shared, id)->kind == SEGMENT_COMPACTED)
        return id >= atomic_load(&shared->checkpoint_segments);
    return position_make(id, offset) >= atomic_load(&shared->checkpoint_start);
}

static int walk_segment(struct checker *checker, struct log_walk *walk)
{
    struct pykv_verification *verification = checker->verification;
    uint64_t id = walk->segment->id;
    int status;
    while ((status = log_walk(walk)) == PYKV_CORRUPT) {
        struct place place = { .id = id, .start = walk->offset };
        if ((status = log_walk_resync(walk)) != PYKV_OK)
            break;
        place.end = walk->offset;
        place.certain = recovery_reads(verification->store->shared, id, place.start);
        if ((status = note_place(checker, &verification->broken, place)) != PYKV_OK)
            break;
    }
    log_walk_release(walk);
    return status;
}

static int check_segment(struct checker *checker, uint64_t id)
{
    struct pykv_verification *verification = checker->verification;
    struct pykv_store *store = verification->store;
    struct log_walk walk = { .log = &store->log, .each = count_record, .context = checker,
                             .offset = SEGMENT_HEADER_SIZE, .loose_end = UINT64_MAX };
    const _Atomic uint64_t *now = &store->shared->segments[id % SEGMENT_SLOT_COUNT].id;
    if (atomic_load(now) != id)
        return PYKV_OK;         /* compaction has removed it */
    int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
    if (status == PYKV_CORRUPT && atomic_load(now) != id)
        return PYKV_OK;
    if (status == PYKV_CORRUPT)
        return note_place(checker, &verification->broken, (struct place){ .id = id, .end = UINT64_MAX, .certain = true });
    if (status != PYKV_OK || (status = check_header(checker, walk.segment)) != PYKV_OK)
        return status;
    walk.limit = log_limit(&store->log, walk.segment);
    if (atomic_load(now) != id)
        return PYKV_OK;         /* and the length may be that of another in its place */
    if (walk.segment->base != NULL)
        store->os->advise(store->os, walk.segment->base, walk.segment->map_size, OS_SEQUENTIAL);
    status = walk_segment(checker, &walk);
    if (walk.segment->base != NULL)
        store->os->advise(store->os, walk.segment->base, walk.segment->map_size, OS_RANDOM);
    pthread_mutex_lock(&checker->crew->mutex);
    verification->report.segments++;
    verification->report.bytes += walk.limit;
    verification->done += walk.limit;
    pthread_mutex_unlock(&checker->crew->mutex);
    return status;
}

/* ---- The keydir ---- */

/* The bucket of a hash in the geometry of `bucket_count` buckets. */
static uint64_t bucket_of(uint64_t hash, uint64_t bucket_count)
{
    uint64_t mask = (UINT64_C(2) << (63 - __builtin_clzll(bucket_count))) - 1, bucket = hash & mask;
    return bucket < bucket_count ? bucket : hash & mask >> 1;
}

/* The slots of a bucket; of the geometry at the start, which may by now be thousands. */
static int collect(struct checker *checker, uint64_t bucket)
{
    const struct os *os = checker->crew->os;
    for (;;) {
        int status = keydir_collect(checker->verification->store->keydir, checker->verification->bucket_count, bucket,
                                    checker->slots, checker->slot_capacity, &checker->slot_count);
        if (status != PYKV_NO_MEMORY || checker->slot_count <= checker->slot_capacity)
            return status;
        size_t capacity = checker->slot_count * 2;
        os->release(os, checker->slots);
        checker->slot_capacity = 0;
        checker->slots = os->alloc(os, capacity * sizeof *checker->slots);
        if (checker->slots == NULL)
            return error_no_memory(capacity * sizeof *checker->slots);
        checker->slot_capacity = capacity;
    }
}

/* A slot must lead to a record that verifies and whose key hashes to the slot's place. */
static int check_slot(struct checker *checker, uint64_t bucket, uint64_t slot)
{
    struct pykv_verification *verification = checker->verification;
    struct pykv_store *store = verification->store;
    uint64_t location = keydir_slot_location(slot), id = atomic_load(&store->shared->segments[location_slot(location)].id);
    struct record record;
    checker->live += !keydir_slot_dead(slot);
    int status = log_read(&store->log, location, &checker->reader, &record);
    if (status == PYKV_OK)
        status = log_read_value(&store->log, &checker->reader, &record, 0, record.value_size, NULL);
    if (status == PYKV_OK && (record.flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL)) == 0) {
        uint64_t hash = hash_bytes(&store->hash_key, record.key, record.key_size);
        if (bucket_of(hash, verification->bucket_count) == bucket && keydir_holds(store->keydir, hash, location))
            return PYKV_OK;
    } else if (status != PYKV_OK && status != PYKV_CORRUPT) {
        return status;
    }
    if (!keydir_holds(store->keydir, keydir_slot_hash(slot, bucket), location))
        return PYKV_OK;         /* a writer has overtaken us */
    return note_place(checker, &verification->lost, (struct place){ .id = id, .start = location_offset(location) });
}

static int check_buckets(struct checker *checker, uint64_t first)
{
    struct pykv_verification *verification = checker->verification;
    uint64_t left = verification->bucket_count - first, count = left < BUCKETS_A_TASK ? left : BUCKETS_A_TASK;
    int status = PYKV_OK;
    for (uint64_t bucket = first; bucket < first + count && status == PYKV_OK; bucket++) {
        status = collect(checker, bucket);
        for (size_t i = 0; i < checker->slot_count && status == PYKV_OK; i++)
            log_prefetch(&verification->store->log, keydir_slot_location(checker->slots[i]));
        for (size_t i = 0; i < checker->slot_count && status == PYKV_OK; i++)
            status = check_slot(checker, bucket, checker->slots[i]);
    }
    pthread_mutex_lock(&checker->crew->mutex);
    verification->done += count * BUCKET_SIZE;
    pthread_mutex_unlock(&checker->crew->mutex);
    return status;
}

/* ---- All of it ---- */

static int check(struct crew *crew)
{
    struct pykv_verification *verification = crew->context;
    struct checker checker = { .crew = crew, .verification = verification };
    int status = PYKV_OK;
    size_t task;
    log_reader_init(&checker.reader, crew->os);
    checker.reader.lazy = true;     /* a value need not fit into memory */
    while (status == PYKV_OK && crew->os->monotonic_ns(crew->os) < verification->until_ns && crew_next(crew, &task)) {
        if (task < verification->id_count)
            status = check_segment(&checker, verification->ids[task]);
        else
            status = check_buckets(&checker, (task - verification->id_count) * (uint64_t)BUCKETS_A_TASK);
    }
    log_reader_release(&checker.reader);
    crew->os->release(crew->os, checker.slots);
    pthread_mutex_lock(&crew->mutex);
    verification->report.records += checker.records;
    verification->live += checker.live;
    pthread_mutex_unlock(&crew->mutex);
    return status;
}

static int compare_places(const void *a, const void *b)
{
    const struct place *left = a, *right = b;
    if (left->id != right->id)
        return left->id < right->id ? -1 : 1;
    return left->start < right->start ? -1 : left->start > right->start;
}

static void sort(struct places *places)
{
    if (places->count > 1)
        qsort(places->all, places->count, sizeof *places->all, compare_places);
}

/* Slots that lead to what is whole are damage of the keydir. */
static int judge(struct pykv_verification *verification)
{
    const struct places *broken = &verification->broken, *lost = &verification->lost;
    size_t told = 0;
    int status = PYKV_OK;
    sort(&verification->broken);
    sort(&verification->lost);
    for (size_t i = 0; i <= broken->count && status == PYKV_OK; i++) {
        const struct place rest = { .id = UINT64_MAX }, *place = i < broken->count ? &broken->all[i] : &rest;
        bool found = false;
        char name[32];
        for (; told < lost->count && status == PYKV_OK; told++) {
            const struct place *slot = &lost->all[told];
            if (slot->id > place->id || (slot->id == place->id && slot->start >= place->end))
                break;
            if (slot->id == place->id && slot->start >= place->start)
                found = true;
            else
                status = note_damage(verification, KEYDIR_NAME, slot->start, 0);
        }
        if (i == broken->count || status != PYKV_OK)
            break;
        log_segment_name(place->id, name);
        if (found || place->certain) {
            status = note_damage(verification, name, place->start, place->end == UINT64_MAX ? 0 : place->end - place->start);
        } else {
            verification->report.skipped_count++;
            verification->report.skipped_bytes += place->end - place->start;
        }
    }
    return status;
}

/* While nothing is written, as many slots lead to keys as there are. */
static int check_count(struct pykv_verification *verification)
{
    const struct shared *shared = verification->store->shared;
    struct shared_counters counters = shared_counters(shared);
    if (verification->tail != atomic_load(&shared->tail) || counters.keys == verification->live)
        return PYKV_OK;
    return note_damage(verification, KEYDIR_NAME, 0, 0);
}

static int check_manifest(struct pykv_verification *verification)
{
    const struct pykv_store *store = verification->store;
    struct manifest manifest;
    if (store->log.salvage)     /* what is wrong with it was met already */
        return PYKV_OK;
    int status = manifest_read(store->os, store->dir, &manifest);
    if (status == PYKV_CORRUPT || status == PYKV_MISSING)
        return note_damage(verification, MANIFEST_NAME, 0, 0);
    manifest_release(store->os, &manifest);
    return status;
}

static int step(struct pykv_verification *verification, uint64_t until_ns)
{
    struct crew crew = { .os = verification->os, .work = check, .context = verification, .next = verification->next,
                         .task_count = verification->task_count };
    verification->until_ns = until_ns;
    crew_init(&crew);
    size_t others = crew.task_count - crew.next - 1;
    crew_start(&crew, others < CREW_MAX ? others : CREW_MAX - 1);
    crew_work(&crew);
    int status = crew_end(&crew);
    verification->next = crew.next;
    if (status != PYKV_OK || crew.next < crew.task_count)
        return status;
    status = check_count(verification);
    if (status == PYKV_OK)
        status = judge(verification);
    verification->finished = status == PYKV_OK;
    return status;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static int plan(struct pykv_verification *verification)
{
    const struct shared *shared = verification->store->shared;
    struct shared_counters counters = shared_counters(shared);
    uint64_t tail = atomic_load(&shared->tail);
    verification->tail = counters.position == tail ? tail : 0;
    verification->ids = verification->os->alloc(verification->os, SEGMENT_SLOT_COUNT * sizeof *verification->ids);
    if (verification->ids == NULL)
        return error_no_memory(SEGMENT_SLOT_COUNT * sizeof *verification->ids);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        uint64_t id = atomic_load(&shared->segments[i].id);
        if (id == 0)
            continue;
        verification->ids[verification->id_count++] = id;
        verification->total += id == position_segment(tail) ? position_offset(tail) : atomic_load(&shared->segments[i].length);
    }
    if (verification->id_count > 1)
        qsort(verification->ids, verification->id_count, sizeof *verification->ids, compare_ids);
    verification->bucket_count = atomic_load(&shared->keydir.bucket_count);
    verification->total += verification->bucket_count * BUCKET_SIZE;
    verification->task_count = verification->id_count +
                               (size_t)((verification->bucket_count + BUCKETS_A_TASK - 1) / BUCKETS_A_TASK);
    return check_manifest(verification);
}

/* ---- Public ---- */

int pykv_verify_open(struct pykv_store *store, struct pykv_verification **out)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    struct pykv_verification *verification = store->os->alloc(store->os, sizeof *verification);
    if (verification == NULL) {
        status = error_no_memory(sizeof *verification);
    } else {
        verification->store = store;
        verification->os = store->os;
        atomic_fetch_add(&store->references, 1);
        if ((status = plan(verification)) == PYKV_OK)
            *out = verification;
        else
            pykv_verify_close(verification);
    }
    store_leave(store);
    return status;
}

static int step_until(struct pykv_verification *verification, uint64_t until_ns)
{
    int status = store_enter(verification->store);
    if (status != PYKV_OK)
        return status;
    if (verification->failed != PYKV_OK)
        status = error_set(verification->failed, 0, NULL, 0, "the verification has failed before");
    else if (!verification->finished)
        status = verification->failed = step(verification, until_ns);
    store_leave(verification->store);
    return status == PYKV_OK && verification->finished ? PYKV_NOT_FOUND : status;
}

int pykv_verify_step(struct pykv_verification *verification, struct pykv_progress *out)
{
    int status = step_until(verification, verification->os->monotonic_ns(verification->os) + STEP_NS);
    if (status < 0)
        return status;
    bool more = status == PYKV_OK && verification->done < verification->total;
    *out = (struct pykv_progress){ .total = verification->total, .left = more ? verification->total - verification->done : 0 };
    return status;
}

const struct pykv_damage *pykv_verify_report(const struct pykv_verification *verification, struct pykv_report *out)
{
    *out = verification->report;
    return verification->damage;
}

void pykv_verify_close(struct pykv_verification *verification)
{
    if (verification == NULL)
        return;
    struct pykv_store *store = verification->store;
    const struct os *os = verification->os;
    os->release(os, verification->ids);
    os->release(os, verification->broken.all);
    os->release(os, verification->lost.all);
    os->release(os, verification->damage);
    os->release(os, verification);
    store_drop(store);
}

int pykv_verify(struct pykv_store *store, struct pykv_report *out)
{
    struct pykv_verification *verification = NULL;
    int status = pykv_verify_open(store, &verification);
    if (status != PYKV_OK)
        return status;
    status = step_until(verification, UINT64_MAX);
    if (status == PYKV_NOT_FOUND) {
        (void)pykv_verify_report(verification, out);
        status = out->damage_count == 0 ? PYKV_OK
                                        : error_corrupt(out->damage[0].path, out->damage[0].offset, "verification found damage");
    }
    pykv_verify_close(verification);
    return status;
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
