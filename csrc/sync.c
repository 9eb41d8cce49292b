/* sync.c -- durability. Committers share fdatasyncs: one of them syncs what all have appended, the
 * others sleep until it is done and look whether they were covered. Those who were are about to append
 * again, and who leads the next round lets them: to sync at once would cover half of them, and the other
 * half in the round after it (16 committers had 8 puts in a sync, and have 15). He waits until they have
 * written as many batches as the last sync covered, or nobody does for a while.
 *
 * The durable position moves only after a sync that returned without error. After one that failed it
 * never moves again and writes are refused: the kernel may have dropped the pages and forgotten the
 * error, so that a second fdatasync would succeed and lie. */
#include "store.h"

#define WAIT_MS 5u
#define GATHER_STILL_NS 20000u      /* nobody has appended for so long: all are here who come */
#define GATHER_MAX_NS 200000u       /* more than a sync takes on a good disk is too much */

int store_refused(const struct pykv_store *store)
{
    uint32_t error = atomic_load_explicit(&store->shared->sync_failed, memory_order_relaxed);
    if (__builtin_expect(error == 0, 1))
        return PYKV_OK;
    return error_set(PYKV_SYNC_FAILED, (int)error, store->path, 0,
                     "a sync of the store %s failed: what is on disk is unknown; close it in every process and reopen it",
                     store->path);
}

enum part {
    SEALED,                     /* all segments but the active one */
    RECORDS,                    /* all that is there */
    WHOLE,                      /* and the header of a segment that has nothing else yet */
};

/* The caller holds the sync lock. */
static int sync_now(struct pykv_store *store, enum part part)
{
    struct shared *shared = store->shared;
    uint64_t sequence = shared_sequence(shared);
    uint64_t target = atomic_load_explicit(&shared->tail, memory_order_acquire);
    if (part == SEALED)
        target = position_make(position_segment(target), SEGMENT_HEADER_SIZE);
    int status = log_sync(&store->log, target, part == WHOLE);
    if (status == PYKV_OK && part != SEALED) {    /* those who came meanwhile are in the goal already */
        shared->sync_goal = shared_sequence(shared) + (sequence - shared->sync_sequence);
        shared->sync_sequence = sequence;
    }
    if (status == PYKV_OK) {
        if (atomic_load(&shared->durable) < target)
            atomic_store_explicit(&shared->durable, target, memory_order_release);
    } else if (status != PYKV_NO_MEMORY) {
        int error = pykv_last_error()->os_errno;
        atomic_store(&shared->sync_failed, error != 0 ? (uint32_t)error : 5u);
    }
    return status;
}

/* Let go of the sync lock, and wake those who slept meanwhile. In this order: who has read the number of
 * the round and then finds the lock taken sleeps before the number changes, and is woken; were it counted
 * before the release, he could have read the new number, and sleep until the timeout. */
static void round_end(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    shared_lock_release(&shared->sync, &store->process);
    atomic_fetch_add(&shared->sync_round, 1);
    store->os->wake(store->os, (const uint32_t *)&shared->sync_round, true);
}

/* Wait for other committers, if there were any a moment ago. Who commits alone never waits. The caller holds the
 * sync lock. */
static void gather(const struct pykv_store *store)
{
    const struct shared *shared = store->shared;
    uint32_t slept = atomic_load(&shared->sync_slept);
    if (slept == 0 || atomic_load(&shared->sync_round) + 1 - slept > 2)
        return;
    uint64_t start = store->os->monotonic_ns(store->os), still = start, now = start;
    uint64_t tail = atomic_load(&shared->tail);
    while (shared_sequence(shared) < shared->sync_goal && now - still < GATHER_STILL_NS &&
           now - start < GATHER_MAX_NS) {
        store->os->yield(store->os);
        now = store->os->monotonic_ns(store->os);
        if (atomic_load(&shared->tail) != tail) {
            tail = atomic_load(&shared->tail);
            still = now;
        }
    }
}

int store_sync_to(struct pykv_store *store, uint64_t position)
{
    struct shared *shared = store->shared;
    int status = PYKV_OK;
    bool died, held;
    while (status == PYKV_OK && atomic_load_explicit(&shared->durable, memory_order_acquire) < position) {
        if ((status = store_refused(store)) != PYKV_OK)
            break;
        uint32_t round = atomic_load_explicit(&shared->sync_round, memory_order_acquire);
        held = shared_lock_try(&shared->sync, &store->process, &died);
        if (!held) {
            /* Asleep until a round ends; if its leader dies, the timeout leads to the lock. */
            atomic_store(&shared->sync_slept, round + 1);
            store->os->wait(store->os, (const uint32_t *)&shared->sync_round, round, WAIT_MS);
            if (atomic_load(&shared->sync_round) != round)
                continue;
            shared_lock_acquire(&shared->sync, &store->process, &died);
        }
        if (atomic_load_explicit(&shared->durable, memory_order_acquire) < position && store_refused(store) == PYKV_OK) {
            gather(store);
            status = sync_now(store, RECORDS);
        }
        round_end(store);
    }
    return status;
}

static int sync_round(struct pykv_store *store, enum part part)
{
    bool died;
    shared_lock_acquire(&store->shared->sync, &store->process, &died);
    int status = store_refused(store);
    if (status == PYKV_OK)
        status = sync_now(store, part);
    round_end(store);
    return status;
}

int store_sync_sealed(struct pykv_store *store) { return sync_round(store, SEALED); }

int store_sync_whole(struct pykv_store *store)
{
    uint64_t tail = atomic_load(&store->shared->tail);
    return position_offset(tail) == SEGMENT_HEADER_SIZE ? sync_round(store, WHOLE) : store_sync_to(store, tail);
}

bool store_commits(const struct pykv_store *store, int durability)
{
    return (durability == PYKV_DURABILITY_DEFAULT ? store->options.durability : durability) == PYKV_DURABILITY_COMMIT;
}

int store_settle(struct pykv_store *store, uint64_t end, int durability)
{
    maintain_nudge(store);
    return end != 0 && store_commits(store, durability) ? store_sync_to(store, end) : PYKV_OK;
}

int pykv_sync(struct pykv_store *store)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    if (!store->private && (status = store_refused(store)) == PYKV_OK)
        status = store_sync_to(store, atomic_load(&store->shared->tail));
    store_leave(store);
    return status;
}
