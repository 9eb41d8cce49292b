/* expire.c -- removing what has expired, without anyone asking.
 *
 * An expired record is absent from every read at once: readers look at its time. What is left to do is to
 * take it out of the count, the iteration and the disk. That is done by ordinary deletes, so that snapshots,
 * transactions, compaction and recovery know nothing of it: the tombstone makes the record dead, and
 * compaction gives back the space of both.
 *
 * Each segment tells the time when it is to be looked through, expiry_next. A record that is written lowers
 * it to its own expiry. When it has come, the segment is read from front to back, what is live and expired
 * is deleted, and a sample is taken of the times of what will expire later: the next look is when a quarter
 * of that will have expired. So about a quarter at most of the keys that expire are expired and still
 * counted, and a record is read four times on average, and never more often than there are powers of 4/3 up
 * to the number of records in the segment.
 *
 *     expiry_next       12:00                            walk at 12:00
 *     records           11:58 11:59 12:03 12:04 12:09 12:20 13:00 never
 *                       deleted     ^ a quarter of these five: next walk
 *
 * Whatever dies on the way, expiry_next stands until the walk is over, and the next process begins anew.
 *
 * The active segment grows while it is looked through. What is written meanwhile is later than expiry_next,
 * which has passed, so it does not lower that; it lowers expiry_since as well, which was cleared when the
 * walk began, and both are taken together at its end.
 *
 * Turned down: a heap or a wheel of all times (16 bytes of RAM a key, and to be built anew at each start),
 * and a sample of the keydir, as Redis does (its slots do not tell who expires, so each look is a read of
 * the log at a random place). */
#include <stdlib.h>
#include <string.h>

#include "store.h"

#define GROUP 64u                           /* keys deleted under one hold of the writer lock */
#define KEYS_SIZE (UINT64_C(128) << 10)     /* of their bytes */
#define SLICE_SIZE (UINT64_C(256) << 10)    /* read between two looks at the world */
#define SAMPLE 64u
#define REST_MIN_MS 1000u                   /* between two walks through one segment, */
#define REST_MAX_MS 60000u
#define REST_FACTOR 4u                      /* or this many times what the first took */
#define RETRY_MS 10000u                     /* after a failure */

struct candidate { uint64_t hash, location; struct record record; };

struct expiry {
    struct pykv_store *store;
    int (*between)(struct pykv_store *store);
    uint64_t now_ms;
    uint64_t looked;            /* offset of the last look at the world */
    bool mapped;                /* the segment is */
    bool failed;                /* removing did, not reading */
    uint64_t left;              /* records that are live and will expire, */
    uint64_t sample[SAMPLE];    /* and when some of them will */
    uint64_t random;
    size_t candidate_count, victim_count, keys_size;
    struct candidate candidates[GROUP];
    struct operation victims[GROUP];
    uint64_t locations[GROUP];
    uint8_t keys[KEYS_SIZE];
};

/* ---- Which segment ---- */

/* The active one is written to all the time, and what lives for a moment lowers its time again and again. */
static bool rests(struct pykv_store *store, uint64_t id)
{
    uint64_t rest_ms = atomic_load(&store->shared->expiry_rest_ms), now_ms = store->os->monotonic_ns(store->os) / 1000000;
    /* A rest that is too long is of another clock: that of another container. */
    return id == position_segment(atomic_load(&store->shared->tail)) && now_ms < rest_ms && rest_ms - now_ms <= REST_MAX_MS;
}

static struct segment_entry *choose(struct pykv_store *store)
{
    struct segment_entry *chosen = NULL;
    uint64_t now_ms = store->os->wall_ms(store->os), first = UINT64_MAX;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        struct segment_entry *entry = &store->shared->segments[i];
        uint64_t id = atomic_load_explicit(&entry->id, memory_order_relaxed);
        uint64_t next = atomic_load_explicit(&entry->expiry_next, memory_order_relaxed);
        if (id == 0 || next == 0 || next > now_ms || next >= first || atomic_load(&entry->retired) != 0 || rests(store, id))
            continue;
        chosen = entry;
        first = next;
    }
    return chosen;
}

bool expire_due(struct pykv_store *store) { return !atomic_load(&store->loading) && choose(store) != NULL; }

/* ---- Removing ---- */

/* Delete those whose slots still lead to the very record that has expired. */
static int remove_some(struct expiry *expiry, size_t first, size_t count)
{
    struct pykv_store *store = expiry->store;
    struct operation operations[GROUP];
    size_t kept = 0;
    uint64_t end;
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    for (size_t i = first; i < first + count; i++)
        if (keydir_holds(store->keydir, expiry->victims[i].hash, location_short(expiry->locations[i])))
            operations[kept++] = expiry->victims[i];
    status = store_write_locked(store, operations, kept, PYKV_DURABILITY_PROCESS, &end);
    store_unlock(store);
    maintain_ahead(store);
    return status;
}

static int remove_victims(struct expiry *expiry)
{
    int status = expiry->victim_count == 0 ? PYKV_OK : remove_some(expiry, 0, expiry->victim_count);
    /* One whose slot cannot be told from that of a damaged record stays; and it alone. */
    for (size_t i = 0; i < expiry->victim_count && status == PYKV_CORRUPT && expiry->victim_count > 1; i++) {
        int one = remove_some(expiry, i, 1);
        if (one != PYKV_OK && one != PYKV_CORRUPT)
            status = one;
    }
    expiry->victim_count = expiry->keys_size = 0;
    status = status == PYKV_CORRUPT ? PYKV_OK : status;
    expiry->failed |= status != PYKV_OK;
    return status;
}

static int add_victim(struct expiry *expiry, const struct candidate *candidate)
{
    uint32_t key_size = candidate->record.key_size;
    int status = PYKV_OK;
    if (expiry->victim_count == GROUP || key_size > KEYS_SIZE - expiry->keys_size)
        status = remove_victims(expiry);
    if (status != PYKV_OK)
        return status;
    uint8_t *key = expiry->keys + expiry->keys_size;
    memcpy(key, candidate->record.key, key_size);
    expiry->locations[expiry->victim_count] = candidate->location;
    expiry->victims[expiry->victim_count++] =
        (struct operation){ .kind = PYKV_DELETE, .key = key, .key_size = key_size, .hash = candidate->hash };
    expiry->keys_size += key_size;
    return PYKV_OK;
}

/* ---- Looking through ---- */

/* Each of those that are left is in the sample with the same probability. */
static void sample(struct expiry *expiry, uint64_t when)
{
    uint64_t at = expiry->left++;
    if (at >= SAMPLE) {
        expiry->random ^= expiry->random << 13;
        expiry->random ^= expiry->random >> 7;
        expiry->random ^= expiry->random << 17;
        at = expiry->random % expiry->left;
    }
    if (at < SAMPLE)
        expiry->sample[at] = when;
}

/* Their buckets are on their way into the cache. */
static int judge_group(struct expiry *expiry)
{
    int status = PYKV_OK;
    for (size_t i = 0; i < expiry->candidate_count && status == PYKV_OK; i++) {
        const struct candidate *candidate = &expiry->candidates[i];
        if (!keydir_holds(expiry->store->keydir, candidate->hash, location_short(candidate->location)))
            continue;
        if (candidate->record.expiry > expiry->now_ms)
            sample(expiry, candidate->record.expiry);
        else
            status = add_victim(expiry, candidate);
    }
    expiry->candidate_count = 0;
    return status;
}

static int look_around(struct expiry *expiry)
{
    int status = judge_group(expiry);
    if (status == PYKV_OK)
        status = remove_victims(expiry);
    if (status == PYKV_OK)
        status = atomic_load(&expiry->store->closing) != 0 ? PYKV_CLOSED : expiry->between(expiry->store);
    expiry->failed |= status != PYKV_OK;
    return status;
}

static int each_record(void *context, const struct record *record, uint64_t location)
{
    struct expiry *expiry = context;
    struct pykv_store *store = expiry->store;
    int status = PYKV_OK;
    if (record->flags & RECORD_EXPIRY) {
        uint64_t hash = hash_bytes(&store->hash_key, record->key, record->key_size);
        keydir_prefetch(store->keydir, hash);
        expiry->candidates[expiry->candidate_count++] =
            (struct candidate){ .hash = hash, .location = location, .record = *record };
        if (expiry->candidate_count == GROUP || !expiry->mapped)
            status = judge_group(expiry);
    }
    if (status == PYKV_OK && location_offset(location) - expiry->looked >= SLICE_SIZE) {
        expiry->looked = location_offset(location);
        status = look_around(expiry);
    }
    return status;
}

static int look_through(struct expiry *expiry, struct log_walk *walk)
{
    const struct os *os = expiry->store->os;
    struct segment *segment = walk->segment;
    int status;
    expiry->mapped = segment->base != NULL;
    if (expiry->mapped)
        os->advise(os, segment->base, segment->map_size, OS_SEQUENTIAL);
    /* Behind damage, too: what can be read there has its time. */
    while ((status = log_walk(walk)) == PYKV_CORRUPT && !expiry->failed)
        if ((status = log_walk_resync(walk)) != PYKV_OK)
            break;
    if (status == PYKV_OK)
        status = judge_group(expiry);
    if (status == PYKV_OK)
        status = remove_victims(expiry);
    if (expiry->mapped)
        os->advise(os, segment->base, segment->map_size, OS_RANDOM);
    return status;
}

/* ---- When to look again ---- */

static int compare_times(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* When a quarter of what is left will have expired. */
static uint64_t next_time(struct expiry *expiry)
{
    size_t count = expiry->left < SAMPLE ? (size_t)expiry->left : SAMPLE;
    if (count == 0)
        return 0;
    qsort(expiry->sample, count, sizeof expiry->sample[0], compare_times);
    return expiry->sample[(count - 1) / 4];
}

/* Up to where to read; and from now on expiry_since tells of what is written behind it. */
static int begin(struct pykv_store *store, struct log_walk *walk)
{
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    if (walk->segment->id == position_segment(atomic_load(&store->shared->tail)))
        atomic_store(&store->shared->expiry_since, 0);
    walk->limit = log_limit(&store->log, walk->segment);
    store_unlock(store);
    return PYKV_OK;
}

static void set_next(struct pykv_store *store, struct segment_entry *entry, uint64_t next, uint64_t rest_ms, bool active)
{
    uint64_t least = store->os->wall_ms(store->os) + rest_ms;
    if (store_lock(store) != PYKV_OK)
        return;
    atomic_store(&entry->expiry_next, next != 0 && next < least ? least : next);
    uint64_t since = active ? atomic_load(&store->shared->expiry_since) : 0;
    if (since != 0)
        expiry_note(&entry->expiry_next, since);
    store_unlock(store);
}

/* One segment. */
static int expire_segment(struct expiry *expiry, struct segment_entry *entry)
{
    struct pykv_store *store = expiry->store;
    uint64_t id = atomic_load(&entry->id), started_ns = store->os->monotonic_ns(store->os);
    struct log_walk walk = { .log = &store->log, .each = each_record, .context = expiry, .offset = SEGMENT_HEADER_SIZE,
                             .loose_end = UINT64_MAX };
    bool active = id == position_segment(atomic_load(&store->shared->tail));
    int status = log_segment(&store->log, (uint32_t)(id % SEGMENT_SLOT_COUNT), &walk.segment);
    if (status == PYKV_OK)
        status = begin(store, &walk);
    if (status == PYKV_OK)
        status = look_through(expiry, &walk);
    if (status == PYKV_CLOSED)
        return status;          /* the next process goes on */
    uint64_t ended_ns = store->os->monotonic_ns(store->os), rest_ms = (ended_ns - started_ns) / 1000000 * REST_FACTOR;
    rest_ms = rest_ms < REST_MIN_MS ? REST_MIN_MS : rest_ms > REST_MAX_MS ? REST_MAX_MS : rest_ms;
    if (active)
        atomic_store(&store->shared->expiry_rest_ms, ended_ns / 1000000 + rest_ms);
    if (status == PYKV_OK)
        set_next(store, entry, next_time(expiry), rest_ms, active);
    else
        set_next(store, entry, EXPIRY_UNKNOWN, RETRY_MS, false);
    return status;
}

int expire(struct pykv_store *store, int (*between)(struct pykv_store *store))
{
    struct segment_entry *entry = choose(store);
    if (entry == NULL)
        return PYKV_NOT_FOUND;
    struct expiry *expiry = store->os->alloc(store->os, sizeof *expiry);
    if (expiry == NULL)
        return error_no_memory(sizeof *expiry);
    expiry->store = store;
    expiry->between = between;
    expiry->now_ms = store->os->wall_ms(store->os);
    expiry->random = atomic_load(&entry->id) * UINT64_C(0x9E3779B97F4A7C15) + 1;
    int status = expire_segment(expiry, entry);
    store->os->release(store->os, expiry);
    return status;
}
