/* maintain.c -- what is done beside the calls: zeroing ahead of the tail, the sync of the interval,
 * the sync and trim of sealed segments, checkpoints, expiry, compaction. Two helper threads of the process do
 * it, asleep until a writer finds something due. Where there can be none, writers do it themselves. */
#include "store.h"

#define AHEAD_MIN (UINT64_C(32) << 10)
#define IDLE_MS 1000u
#define QUIET_MS 2000u          /* without a write, after which a store is tidied up */
#define LEAVING_MS 2u
#define LOOK_SIZE (UINT64_C(4) << 10)   /* of log between two looks for what is due: see AHEAD_MIN */
#define HOLD_SIZE (UINT64_C(64) << 10)
#define SEALED_MAX 24u          /* segments not yet durable, each of which costs a descriptor */

enum { ASLEEP = 0, AWAKE = 1 };

static bool ahead_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    uint64_t tail = atomic_load_explicit(&shared->tail, memory_order_acquire);
    uint64_t reserved = atomic_load_explicit(&shared->reserved, memory_order_relaxed);
    uint64_t ahead = position_offset(tail) / 16;     /* half of what log_extend_ahead() aims at, or less */
    ahead = ahead < AHEAD_MIN ? AHEAD_MIN : ahead > (UINT64_C(2) << 20) ? (UINT64_C(2) << 20) : ahead;
    const struct segment_entry *active = &shared->segments[position_segment(tail) % SEGMENT_SLOT_COUNT];
    uint64_t capacity = atomic_load_explicit(&active->capacity, memory_order_relaxed);
    return position_segment(tail) == position_segment(reserved) && position_offset(reserved) < capacity &&
           position_offset(reserved) < position_offset(tail) + ahead;
}

/* A segment was sealed and is not yet durable. */
static bool sealed_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    return position_segment(atomic_load_explicit(&shared->durable, memory_order_relaxed)) !=
           position_segment(atomic_load_explicit(&shared->tail, memory_order_relaxed));
}

/* The helper does not keep up: whoever writes then waits for it. */
static bool sealed_many(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    return position_segment(atomic_load_explicit(&shared->tail, memory_order_relaxed)) -
               position_segment(atomic_load_explicit(&shared->durable, memory_order_relaxed)) > SEALED_MAX;
}

/* The log has grown by as much as the checkpoint will have. */
static bool checkpoint_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    uint64_t grown = atomic_load_explicit(&shared->written_bytes, memory_order_relaxed) -
                     atomic_load_explicit(&shared->checkpoint_written, memory_order_relaxed);
    return grown >= store->log.segment_size_max / 2 && grown >= keydir_memory_size(store->keydir) &&
           !atomic_load(&shared->reserve_lent);
}

static bool interval_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    return store->options.durability == PYKV_DURABILITY_INTERVAL &&
           atomic_load_explicit(&shared->durable, memory_order_relaxed) <
               atomic_load_explicit(&shared->tail, memory_order_relaxed);
}

void maintain_trim(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    for (uint32_t slot = 0; slot < SEGMENT_SLOT_COUNT; slot++) {
        struct segment_entry *entry = &shared->segments[slot];
        struct os_stat stat;
        char name[32];
        int fd;
        /* First whether it is sealed and durable: others end and sync it without our lock, and a length that was
         * asked for before that is 0. */
        if (atomic_load(&entry->synced) != 1)
            continue;
        uint64_t id = atomic_load(&entry->id), length = atomic_load(&entry->length);
        if (id == 0 || length == 0 || log_open_file(&store->log, id, &fd) != 0)
            continue;
        bool longer = store->os->file_stat(store->os, fd, &stat) == 0 && stat.size > length;
        (void)store->os->file_close(store->os, fd);
        log_segment_name(id, name);
        if (longer && store->os->file_open(store->os, store->dir, name, OS_READ_WRITE, 0, &fd) == 0) {
            (void)store->os->file_truncate(store->os, fd, length);
            (void)store->os->file_close(store->os, fd);
        }
        atomic_store(&entry->synced, 2);
    }
}

static void protect(struct pykv_store *store)
{
    uint64_t active = position_segment(atomic_load(&store->shared->tail));
    for (uint32_t slot = 0; slot < SEGMENT_SLOT_COUNT && !store->log.pread; slot++) {
        struct segment *segment = atomic_load(&store->log.segments[slot]);
        if (segment != NULL && segment->id < active && atomic_exchange(&segment->writable, false))
            (void)store->os->protect(store->os, segment->base, segment->map_size);
    }
}

void maintain_sealed(struct pykv_store *store)
{
    if (!sealed_due(store))
        return;
    protect(store);
    if (store_sync_sealed(store) == PYKV_OK && store_write_manifest(store) == PYKV_OK)
        maintain_trim(store);
}

void maintain_list(struct pykv_store *store)
{
    bool some = false;
    maintain_sealed(store);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT && !some; i++)
        some = atomic_load(&store->shared->segments[i].id) != 0 && atomic_load(&store->shared->segments[i].synced) == 1;
    if (some && store_write_manifest(store) == PYKV_OK)
        maintain_trim(store);
}

/* Between two slices of compaction. While there is little pressure it works half of the time. */
static int between_slices(struct pykv_store *store)
{
    uint64_t now = store->os->monotonic_ns(store->os);
    if (atomic_load(&store->helpers_stop) != 0 || store_refused(store) != PYKV_OK)
        return PYKV_CLOSED;
    maintain_sealed(store);
    if (store->slice_ns == 0)
        store->slice_ns = now;
    uint64_t worked_ms = (now - store->slice_ns) / 1000000;
    if (worked_ms >= 1) {
        bool alone = atomic_load(&store->keeper.thread) == NULL;    /* a writer does it, and waits for it */
        if (atomic_load(&store->shared->pressure) < PRESSURE_SOME && !alone)
            store->os->wait(store->os, (const uint32_t *)&store->helpers_stop, 0, worked_ms > 10 ? 10u : (uint32_t)worked_ms);
        store->slice_ns = store->os->monotonic_ns(store->os);
    }
    return PYKV_OK;
}

/* What one process does for all. True if there is more of it. */
static bool work_shared(struct pykv_store *store)
{
    bool died, more = false;
    if ((!sealed_due(store) && !checkpoint_due(store) && !store_sweep_due(store) && !expire_due(store) && !compact_due(store) &&
         !reserve_due(store)) ||
        (!shared_lock_try(&store->shared->maintain, &store->process, &died) &&
         !shared_lock_replace(&store->shared->maintain, &store->process)))
        return false;
    maintain_sealed(store);
    if (checkpoint_due(store))
        (void)checkpoint_write(store);
    if (store_sweep_due(store))
        store_sweep(store);
    if (reserve_due(store))
        reserve_keep(store);
    store->slice_ns = 0;
    if (expire_due(store))
        more = expire(store, between_slices) == PYKV_OK;
    if (compact_due(store)) {
        store->slice_ns = 0;
        more |= compact(store, between_slices) == PYKV_OK;
    }
    shared_lock_release(&store->shared->maintain, &store->process);
    return more;
}

/* Let go of segments that were removed, once each thread has been seen outside of any call since they left
 * our table. True if some are still to go. */
static bool retire_segments(struct pykv_store *store, uint32_t *seen)
{
    const uint32_t all = (1u << CALL_STRIPES) - 1;
    if (store->log.leaving == NULL)
        *seen = 0;
    if (!log_retire(&store->log))
        return false;
    for (uint32_t i = 0; i < CALL_STRIPES; i++)
        if (atomic_load(&store->stripes[i].calls) == 0)
            *seen |= 1u << i;
    if (*seen != all)
        return true;
    log_retire_end(&store->log);
    *seen = 0;
    return log_retire(&store->log);
}

static bool keep(struct pykv_store *store)
{
    if (store->read_only || store_refused(store) != PYKV_OK)
        return false;
    if (shared_pinned(store->shared))
        shared_unpin_dead(store->shared, &store->process);
    return work_shared(store);
}

/* ---- The helpers ----
 *
 * One that must be quick, so that no writer has to zero what it is about to write, and one that does all
 * that takes its time: syncs of sealed segments, checkpoints, sweeps, expiry, compaction. */

static void sleep_on(struct pykv_store *store, struct helper *helper, uint32_t ms)
{
    if (atomic_load(&store->helpers_stop) == 0)
        store->os->wait(store->os, (const uint32_t *)&helper->word, ASLEEP, ms);
}

/* Inside store_enter(), since a segment that it found must not go while it is at it. */
static void run_ahead(void *context)
{
    struct pykv_store *store = context;
    uint64_t synced_ns = store->os->monotonic_ns(store->os);
    while (atomic_load(&store->helpers_stop) == 0) {
        uint32_t sleep_ms = IDLE_MS;
        atomic_store(&store->ahead.word, ASLEEP);
        if (store_refused(store) != PYKV_OK || store_enter(store) != PYKV_OK) {
            sleep_on(store, &store->ahead, sleep_ms);
            continue;
        }
        if (ahead_due(store))
            log_extend_ahead(&store->log);
        if (store->options.durability == PYKV_DURABILITY_INTERVAL) {
            uint64_t now = store->os->monotonic_ns(store->os), interval = (uint64_t)store->options.interval_ms * 1000000;
            if (now - synced_ns >= interval) {
                if (interval_due(store))
                    (void)store_sync_to(store, atomic_load(&store->shared->tail));
                synced_ns = now;
            }
            uint64_t left = (synced_ns + interval - now) / 1000000 + 1;
            sleep_ms = left < IDLE_MS ? (uint32_t)left : IDLE_MS;
        }
        store_leave(store);
        sleep_on(store, &store->ahead, sleep_ms);
    }
}

static void run_keeper(void *context)
{
    struct pykv_store *store = context;
    uint64_t seen = 0, since_ns = 0;
    uint32_t stripes_seen = 0;
    bool leaving = false;
    while (atomic_load(&store->helpers_stop) == 0) {
        atomic_store(&store->keeper.word, ASLEEP);
        bool more = keep(store), left = leaving;
        leaving = retire_segments(store, &stripes_seen);
        more |= left && !leaving && atomic_load(&store->shared->disk_full);     /* now there may be room */
        uint64_t now = store->os->monotonic_ns(store->os), version = shared_sequence(store->shared);
        if (version != seen) {
            seen = version;
            since_ns = now;
        }
        atomic_store(&store->idle, now - since_ns >= (uint64_t)QUIET_MS * 1000000);
        if (!more)
            sleep_on(store, &store->keeper, leaving ? LEAVING_MS : IDLE_MS);
    }
}

static void start(struct pykv_store *store, struct helper *helper, void (*run)(void *context))
{
    void *thread = NULL;
    /* Not having a thread is no failure: see maintain_nudge(). */
    if (store->os->thread_start(store->os, run, store, &thread) == 0)
        atomic_store(&helper->thread, thread);
}

/* Who only reads has nothing to keep, but gives up segments that were removed. */
void maintain_start(struct pykv_store *store)
{
    atomic_store(&store->kept_ns, store->os->monotonic_ns(store->os));
    if (!store->read_only)
        start(store, &store->ahead, run_ahead);
    start(store, &store->keeper, run_keeper);
}

static void stop(struct pykv_store *store, struct helper *helper)
{
    void *thread = atomic_load(&helper->thread);
    if (thread == NULL)
        return;
    atomic_store(&helper->word, AWAKE);
    store->os->wake(store->os, (const uint32_t *)&helper->word, true);
    store->os->thread_join(store->os, thread);
    atomic_store(&helper->thread, NULL);
}

void maintain_stop(struct pykv_store *store)
{
    atomic_store(&store->helpers_stop, 1);
    store->os->wake(store->os, (const uint32_t *)&store->helpers_stop, true);
    stop(store, &store->ahead);
    stop(store, &store->keeper);
}

static void wake(struct pykv_store *store, struct helper *helper)
{
    uint32_t asleep = ASLEEP;
    if (atomic_compare_exchange_strong(&helper->word, &asleep, AWAKE))
        store->os->wake(store->os, (const uint32_t *)&helper->word, false);
}

/* Dead space is about to outgrow its bound: wait a moment for each 64 KiB that we write, and in the end
 * until there is room, though for no longer than a second, since compaction may be unable to go on. */
static void hold_back(struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    uint64_t here = atomic_load_explicit(&shared->tail, memory_order_relaxed) / (HOLD_SIZE / RECORD_ALIGNMENT);
    if (atomic_exchange(&store->held_at, here) == here)
        return;
    for (uint32_t waited = 0; waited < 1000; waited += 10) {
        uint32_t pressure = atomic_load(&shared->pressure);
        if (pressure < PRESSURE_SOME || atomic_load(&store->closing) != 0)
            return;
        wake(store, &store->keeper);
        if (pressure < PRESSURE_FULL) {
            store->os->wait(store->os, (const uint32_t *)&shared->pressure, pressure, 1);
            return;
        }
        store->os->wait(store->os, (const uint32_t *)&shared->pressure, pressure, 10);
    }
}

/* In the place of helpers that could not be had. */
static void work_alone(struct pykv_store *store)
{
    if (store_refused(store) != PYKV_OK)
        return;
    if (ahead_due(store))
        log_extend_ahead(&store->log);
    (void)keep(store);
    if (interval_due(store))
        (void)store_sync_to(store, atomic_load(&store->shared->tail));
}

void maintain_ahead(struct pykv_store *store)
{
    if (!ahead_due(store))
        return;
    if (atomic_load_explicit(&store->ahead.thread, memory_order_relaxed) == NULL)
        log_extend_ahead(&store->log);
    else
        wake(store, &store->ahead);
}

/* Where there is no keeper that would look by itself now and then. */
static bool round_due(struct pykv_store *store)
{
    uint64_t now = store->os->monotonic_ns(store->os), last = atomic_load_explicit(&store->kept_ns, memory_order_relaxed);
    return now - last >= (uint64_t)IDLE_MS * 1000000 && atomic_compare_exchange_strong(&store->kept_ns, &last, now);
}

/* Most writes need not ask what is due. */
static inline bool looked(const struct pykv_store *store)
{
    return __builtin_expect(atomic_load_explicit(&store->shared->tail, memory_order_relaxed) <
                                atomic_load_explicit(&store->looked_until, memory_order_relaxed), 1);
}

static bool alone(const struct pykv_store *store)
{
    return atomic_load(&store->keeper.thread) == NULL || atomic_load(&store->ahead.thread) == NULL;
}

static bool keeper_due(struct pykv_store *store)
{
    bool due = sealed_due(store) || checkpoint_due(store);
    if (atomic_load_explicit(&store->shared->tail, memory_order_relaxed) >= atomic_load(&store->tell_at))
        due |= usage_tell(store, false);    /* before writers have to wait for it */
    return due;
}

bool maintain_waits(const struct pykv_store *store)
{
    return !looked(store) &&
           (alone(store) || atomic_load(&store->shared->pressure) >= PRESSURE_SOME || sealed_many(store));
}

void maintain_wake(struct pykv_store *store)
{
    uint64_t tail = atomic_load_explicit(&store->shared->tail, memory_order_relaxed);
    if (looked(store) || alone(store))
        return;
    bool due = keeper_due(store);
    if (due)
        wake(store, &store->keeper);
    if (ahead_due(store))
        wake(store, &store->ahead);
    else if (!due)
        atomic_store(&store->looked_until, tail + LOOK_SIZE / RECORD_ALIGNMENT);
}

void maintain_nudge(struct pykv_store *store)
{
    if (looked(store))
        return;
    if (alone(store)) {
        if (keeper_due(store) || ahead_due(store) || interval_due(store) || round_due(store))
            work_alone(store);
        return;
    }
    maintain_wake(store);
    if (atomic_load(&store->shared->pressure) >= PRESSURE_SOME)
        hold_back(store);
    if (sealed_many(store))
        (void)store_sync_sealed(store);
}

void maintain_keeper(struct pykv_store *store)
{
    if (atomic_load_explicit(&store->keeper.thread, memory_order_relaxed) == NULL)
        (void)keep(store);
    else
        wake(store, &store->keeper);
}

void maintain_sweep(struct pykv_store *store)
{
    if (store_sweep_due(store))
        maintain_keeper(store);
}
