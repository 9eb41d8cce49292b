#include "usage.h"

#define TELL_PART 16u       /* of a segment is written between two looks at how much there is */

uint64_t usage_needless(const struct usage *usage, const struct segment_entry *entry)
{
    uint64_t lowest = atomic_load(&entry->birth) == usage->births[0] ? usage->births[1] : usage->births[0];
    return lowest < usage->oldest ? lowest : usage->oldest;
}

/* Bytes that compacting a segment gives back, and those to copy for it. Frames, marks and whatever is not
 * known of count as dead. 0 where the copies have no room. */
static uint64_t gain(const struct usage *usage, const struct segment_entry *entry, uint64_t *cost)
{
    uint64_t length = atomic_load(&entry->length), needed = atomic_load(&entry->live_bytes);
    if (atomic_load(&entry->tombstone_newest) > usage_needless(usage, entry))
        needed += atomic_load(&entry->tombstone_bytes);
    *cost = needed;
    if (needed != 0)
        needed += SEGMENT_HEADER_SIZE + RECORD_BARE_SIZE;
    return needed < length && needed <= usage->room ? length - needed : 0;
}

/* The bound is on all files together, so what the keydir and three checkpoints take, of which one is being
 * written, is not the log's; nor are the copies of a portion. */
void usage_measure(struct pykv_store *store, struct usage *out)
{
    struct shared *shared = store->shared;
    struct shared_counters counters = shared_counters(shared);
    uint64_t active = position_segment(atomic_load(&shared->reserved));
    *out = (struct usage){ .live = counters.live_bytes, .births = { UINT64_MAX, UINT64_MAX },
                           .oldest = shared_oldest_pin(shared) };
    out->segment = log_capacity(&store->log, &out->log);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        const struct segment_entry *entry = &shared->segments[i];
        uint64_t id = atomic_load_explicit(&entry->id, memory_order_relaxed);
        if (id == 0)
            continue;
        uint64_t birth = atomic_load_explicit(&entry->birth, memory_order_relaxed);
        if (birth < out->births[0]) {
            out->births[1] = out->births[0];
            out->births[0] = birth;
        } else if (birth < out->births[1]) {
            out->births[1] = birth;
        }
    }
    uint64_t reserve = atomic_load(&shared->reserve_size);
    uint64_t others = keydir_memory_size(store->keydir) + 3 * 8 * counters.keys + SHARED_SIZE + reserve;
    uint64_t part = counters.live_bytes / 16, segment = out->segment;
    out->portion = part > segment / 2 ? part : segment / 2;
    others += out->portion;
    uint64_t most = counters.live_bytes / 100 * store->options.space_percent + 2 * segment;
    uint64_t least = counters.live_bytes + counters.live_bytes / 10 + 2 * segment;
    out->limit = most > least + others ? most - others : least;
    uint64_t disk = store->options.disk_size_max - store->options.disk_size_max / 8;
    if (store->options.disk_size_max != 0 && out->limit > disk)
        out->limit = disk;          /* so that what is dead goes before what is new is refused */
    bool full = atomic_load(&shared->disk_full) || atomic_load(&shared->reserve_lent);
    out->room = !full ? UINT64_MAX : reserve > RESERVE_LEAST ? reserve - RESERVE_LEAST : 0;   /* the manifest's */
    uint64_t slack = segment / 2 < out->limit / 2 ? segment / 2 : out->limit / 2;
    out->begin = out->limit - slack;
    out->hope = usage_active_long(store, out) && usage_active_dead(store, 1, 10);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT && !out->hope; i++) {
        const struct segment_entry *entry = &shared->segments[i];
        uint64_t cost, id = atomic_load_explicit(&entry->id, memory_order_relaxed);
        bool copies = atomic_load(&entry->kind) == SEGMENT_COMPACTED && atomic_load(&entry->synced) == 0;
        if (id != 0 && id != active && !copies && !segment_retired(entry) && atomic_load(&entry->damaged) == 0)
            out->hope = gain(out, entry, &cost) >= atomic_load(&entry->length) / 10;
    }
}

static bool can_compact(struct pykv_store *store, const struct segment_entry *entry)
{
    uint64_t id = atomic_load(&entry->id);
    return id != 0 && id != position_segment(atomic_load(&store->shared->tail)) && atomic_load(&entry->synced) != 0 &&
           atomic_load(&entry->retired) == 0 && atomic_load(&entry->damaged) == 0;
}

/* The segment to compact next, 0: none. Only where `least` hundredths of it are dead, or more. */
static uint64_t choose(struct pykv_store *store, const struct usage *usage, uint64_t least)
{
    uint64_t best = 0;
    double best_rate = 0;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        const struct segment_entry *entry = &store->shared->segments[i];
        uint64_t cost, id = atomic_load_explicit(&entry->id, memory_order_relaxed);
        if (id == 0 || !can_compact(store, entry))
            continue;
        uint64_t gained = gain(usage, entry, &cost);
        if (gained == 0 || gained < atomic_load(&entry->length) / 100 * least)
            continue;
        double rate = (double)gained / ((double)cost + 4096);
        if (rate > best_rate) {
            best_rate = rate;
            best = id;
        }
    }
    return best;
}

/* Where nothing gives space, tombstones may: they go when all that is older has been written anew. */
static uint64_t choose_oldest(struct pykv_store *store, const struct usage *usage)
{
    uint64_t oldest = 0, tombstones = 0;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        const struct segment_entry *entry = &store->shared->segments[i];
        if (!can_compact(store, entry))
            continue;
        tombstones += atomic_load(&entry->tombstone_bytes);
        if (atomic_load(&entry->birth) == usage->births[0] && atomic_load(&entry->length) <= usage->room)
            oldest = atomic_load(&entry->id);
    }
    return tombstones > usage->live / 8 + LITTLE ? oldest : 0;
}

/* Of a segment that a run through all of the store wrote itself: whether tombstones that it had to copy
 * have nothing to hide any more. Once rewritten it has none, so the run comes to an end. */
static bool has_needless(const struct usage *usage, const struct segment_entry *entry)
{
    return atomic_load(&entry->kind) == SEGMENT_COMPACTED &&
           atomic_load(&entry->tombstone_bytes) > atomic_load(&entry->length) / 100 &&
           atomic_load(&entry->tombstone_newest) <= usage_needless(usage, entry);
}

uint64_t usage_choose_next(struct pykv_store *store, const struct usage *usage, uint64_t below, uint64_t *left)
{
    const struct segment_entry *next = NULL;
    *left = 0;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        const struct segment_entry *entry = &store->shared->segments[i];
        uint64_t cost, id = atomic_load(&entry->id), length = atomic_load(&entry->length);
        if (!can_compact(store, entry) || gain(usage, entry, &cost) <= length / 100 ||
            (id >= below && !has_needless(usage, entry)))
            continue;
        *left += length;
        if (next == NULL || atomic_load(&entry->birth) < atomic_load(&next->birth))
            next = entry;
    }
    return next == NULL ? 0 : atomic_load(&next->id);
}

bool usage_active_dead(struct pykv_store *store, uint64_t least, uint64_t part)
{
    uint64_t tail = atomic_load(&store->shared->tail), length = position_offset(tail);
    uint64_t needed = SEGMENT_HEADER_SIZE + atomic_load(&segment_of(store->shared, position_segment(tail))->live_bytes);
    return length > needed && length - needed >= least && length - needed >= length / part;
}

bool usage_active_long(struct pykv_store *store, const struct usage *usage)
{
    return usage->log > usage->begin && position_offset(atomic_load(&store->shared->tail)) > usage->segment;
}

uint64_t usage_choose_full(struct pykv_store *store, const struct usage *usage)
{
    uint64_t id = choose(store, usage, 10);
    if (id == 0 && usage->room != UINT64_MAX)
        id = choose(store, usage, 1);       /* the disk is full: every byte counts */
    return id != 0 ? id : choose_oldest(store, usage);
}

uint64_t usage_choose_due(struct pykv_store *store, const struct usage *usage)
{
    uint64_t id = 0;
    bool held = store->options.disk_size_max != 0 && shared_pinned(store->shared);  /* copies would be on top */
    if ((usage->log > usage->begin && !held) || atomic_load(&store->shared->disk_full))
        id = usage_choose_full(store, usage);
    if (id == 0)
        id = choose(store, usage, 90);
    if (id == 0 && atomic_load(&store->idle) && usage->log > usage->live + usage->live / 4 + LITTLE)
        id = choose(store, usage, 25);
    return id;
}

bool usage_tell(struct pykv_store *store, bool stuck)
{
    struct usage usage;
    uint64_t pressure = 0;
    usage_measure(store, &usage);
    atomic_store(&store->tell_at, atomic_load(&store->shared->tail) + usage.segment / RECORD_ALIGNMENT / TELL_PART);
    if (usage.log > usage.begin && usage.hope && !stuck && !atomic_load(&store->shared->compaction_paused))
        pressure = (usage.log - usage.begin) * 1000 / (usage.limit - usage.begin + 1);
    uint32_t before = atomic_exchange(&store->shared->pressure, pressure > 2000 ? 2000u : (uint32_t)pressure);
    if (before >= PRESSURE_FULL && pressure < PRESSURE_FULL)
        store->os->wake(store->os, (const uint32_t *)&store->shared->pressure, true);
    return usage.log > usage.begin;
}
