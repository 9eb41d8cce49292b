/* maintain.c -- what is done beside the calls: zeroing ahead of the tail, the sync of the interval,
 * the sync and trim of sealed segments, checkpoints. A helper thread of the process does it, asleep
 * until a writer finds something due. Where there can be no thread, writers do it themselves. */
#include "store.h"

#define AHEAD_MIN (UINT64_C(32) << 10)
#define IDLE_MS 1000u
#define SEALED_MAX 24u          /* segments not yet durable, each of which costs a descriptor */

enum { ASLEEP = 0, AWAKE = 1 };

static bool ahead_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    uint64_t tail = atomic_load_explicit(&shared->tail, memory_order_acquire);
    uint64_t reserved = atomic_load_explicit(&shared->reserved, memory_order_relaxed);
    uint64_t ahead = position_offset(tail) / 16;     /* half of what log_extend_ahead() aims at, or less */
    ahead = ahead < AHEAD_MIN ? AHEAD_MIN : ahead > (UINT64_C(2) << 20) ? (UINT64_C(2) << 20) : ahead;
    uint64_t capacity = shared->segments[position_segment(tail) % SEGMENT_SLOT_COUNT].capacity;
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

/* Bytes of log since the last checkpoint, more or less: segments are about as long as each other. */
static bool checkpoint_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    uint64_t tail = atomic_load_explicit(&shared->tail, memory_order_relaxed);
    uint64_t last = atomic_load_explicit(&shared->checkpoint_position, memory_order_relaxed);
    uint64_t segments = position_segment(tail) - position_segment(last);
    uint64_t grown = segments * store->options.segment_size + position_offset(tail) - position_offset(last);
    return grown >= store->options.segment_size / 2 && grown >= keydir_memory_size(store->keydir);
}

static bool interval_due(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    return store->options.durability == PYKV_DURABILITY_INTERVAL &&
           atomic_load_explicit(&shared->durable, memory_order_relaxed) <
               atomic_load_explicit(&shared->tail, memory_order_relaxed);
}

/* Give back what was reserved behind the seal, and make our mapping of it read-only. */
static void trim(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    for (uint32_t slot = 0; slot < SEGMENT_SLOT_COUNT; slot++) {
        struct segment_entry *entry = &shared->segments[slot];
        uint64_t id = atomic_load(&entry->id), length = atomic_load(&entry->length);
        struct os_stat stat;
        int fd;
        if (id == 0 || atomic_load(&entry->synced) != 1 || log_open_file(&store->log, id, &fd) != 0)
            continue;
        if (store->os->file_stat(store->os, fd, &stat) == 0 && stat.size > length)
            (void)store->os->file_truncate(store->os, fd, length);
        (void)store->os->file_close(store->os, fd);
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

static void work_shared(struct pykv_store *store)
{
    bool died;
    if ((!sealed_due(store) && !checkpoint_due(store) && !store_sweep_due(store)) ||
        !shared_lock_try(&store->shared->maintain, &store->process, &died))
        return;
    if (sealed_due(store)) {
        protect(store);
        if (store_sync_sealed(store) == PYKV_OK && store_write_manifest(store) == PYKV_OK)
            trim(store);
    }
    if (checkpoint_due(store))
        (void)checkpoint_write(store);
    if (store_sweep_due(store))
        store_sweep(store);
    shared_lock_release(&store->shared->maintain, &store->process);
}

static void work(struct pykv_store *store)
{
    if (store_refused(store) != PYKV_OK)
        return;
    if (ahead_due(store))
        log_extend_ahead(&store->log);
    if (shared_pinned(store->shared))
        shared_unpin_dead(store->shared, &store->process);
    work_shared(store);
}

/* ---- The helper ---- */

static void run(void *context)
{
    struct pykv_store *store = context;
    uint64_t synced_ns = store->os->monotonic_ns(store->os);
    while (atomic_load(&store->helper_stop) == 0) {
        atomic_store(&store->helper_word, ASLEEP);
        work(store);
        uint32_t sleep_ms = IDLE_MS;
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
        if (atomic_load(&store->helper_stop) == 0)
            store->os->wait(store->os, (const uint32_t *)&store->helper_word, ASLEEP, sleep_ms);
    }
}

int maintain_start(struct pykv_store *store)
{
    void *thread = NULL;
    /* Not having a thread is no failure: see maintain_nudge(). */
    if (store->os->thread_start(store->os, run, store, &thread) == 0)
        atomic_store(&store->helper, thread);
    return PYKV_OK;
}

void maintain_stop(struct pykv_store *store)
{
    void *helper = atomic_load(&store->helper);
    if (helper == NULL)
        return;
    atomic_store(&store->helper_stop, 1);
    atomic_store(&store->helper_word, AWAKE);
    store->os->wake(store->os, (const uint32_t *)&store->helper_word, true);
    store->os->thread_join(store->os, helper);
    atomic_store(&store->helper, NULL);
}

static void wake_helper(struct pykv_store *store)
{
    uint32_t asleep = ASLEEP;
    if (atomic_compare_exchange_strong(&store->helper_word, &asleep, AWAKE))
        store->os->wake(store->os, (const uint32_t *)&store->helper_word, false);
}

void maintain_nudge(struct pykv_store *store)
{
    if (__builtin_expect(atomic_load_explicit(&store->helper_due, memory_order_relaxed), 0) &&
        atomic_exchange(&store->helper_due, false))
        (void)maintain_start(store);
    if (__builtin_expect(!ahead_due(store) && !sealed_due(store) && !checkpoint_due(store), 1) &&
        (atomic_load_explicit(&store->helper, memory_order_relaxed) != NULL || !interval_due(store)))
        return;
    if (atomic_load_explicit(&store->helper, memory_order_relaxed) == NULL) {
        work(store);
        if (interval_due(store))
            (void)store_sync_to(store, atomic_load(&store->shared->tail));
        return;
    }
    wake_helper(store);
    if (sealed_many(store))
        (void)store_sync_sealed(store);
}

void maintain_sweep(struct pykv_store *store)
{
    if (!store_sweep_due(store))
        return;
    if (atomic_load_explicit(&store->helper, memory_order_relaxed) == NULL)
        work(store);
    else
        wake_helper(store);
}
