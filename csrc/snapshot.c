/* snapshot.c -- one instant, kept readable: a version, a clock, and a pin. A pin keeps deleted keys'
 * slots in the keydir; what they and all others held is found by stepping back through the log.
 *
 * Who cannot write to the shared memory cannot pin. It reads all the same, and whenever it finds a key
 * absent it asks snapshot_check(): writers note in `forgotten`, before they remove a tombstone's slot,
 * the version of that moment. Where it is not newer than the instant, nothing that the instant needs
 * has gone. Likewise, where it fails to read a record, it asks whether segments were removed since. The
 * same check finds a snapshot that was closed while another thread read through it, and
 * a child whose parent let go of a pin before the child had one of its own. */
#include "store.h"

#define YOUNG_SIZE (UINT64_C(1) << 20)      /* bytes of log, which may all be versions of the one key */

static int closed(void) { return error_set(PYKV_CLOSED, 0, NULL, 0, "the snapshot is closed"); }

int snapshot_take(struct pykv_snapshot *snapshot, struct pykv_store *store, struct pykv_snapshot *from)
{
    struct shared *shared = store->shared;
    int status = PYKV_OK;
    bool pinned = store->space.writable;
    snapshot->store = store;
    snapshot->removals = from == NULL ? atomic_load(&shared->removals) : from->removals;
    snapshot->pinned = false;
    if (from == NULL) {
        snapshot->now_ms = store->os->wall_ms(store->os);
        if (pinned)
            status = shared_pin(shared, &store->process, &snapshot->pin, &snapshot->instant);
        else
            snapshot->instant = shared_counters(shared);
    } else {
        snapshot->now_ms = from->now_ms;
        snapshot->instant = from->instant;
        pinned = from->pinned && shared_pin_held(shared, &store->process, from->instant.sequence);
        if (pinned)
            status = shared_pin_too(shared, &store->process, &snapshot->pin, &snapshot->instant);
    }
    snapshot->pinned = status == PYKV_OK && pinned;
    atomic_store(&snapshot->open, status == PYKV_OK);
    /* Open still, after we had a pin of our own: so the instant was pinned all the time. */
    if (status == PYKV_OK && from != NULL && !atomic_load(&from->open)) {
        snapshot_release(snapshot);
        return closed();
    }
    return status;
}

void snapshot_release(struct pykv_snapshot *snapshot)
{
    struct pykv_store *store = snapshot->store;
    if (!atomic_exchange(&snapshot->open, false) || !snapshot->pinned)
        return;
    shared_unpin(store->shared, &store->process, snapshot->pin, snapshot->instant.sequence);
    if (!store->read_only)
        maintain_sweep(store);
}

int snapshot_enter(const struct pykv_snapshot *snapshot)
{
    int status = store_enter(snapshot == NULL ? NULL : snapshot->store);
    if (status != PYKV_OK || atomic_load(&snapshot->open))
        return status;
    store_leave(snapshot->store);
    return closed();
}

int pykv_snapshot_young(const struct pykv_snapshot *snapshot)
{
    if (snapshot_enter(snapshot) != PYKV_OK)
        return 0;
    uint64_t tail = atomic_load_explicit(&snapshot->store->shared->tail, memory_order_relaxed);
    bool young = tail - snapshot->instant.position <= YOUNG_SIZE / RECORD_ALIGNMENT;    /* far more in another segment */
    store_leave(snapshot->store);
    return young;
}

int snapshot_check(const struct pykv_snapshot *snapshot, int status)
{
    const struct shared *shared = snapshot->store->shared;
    bool lost = status == PYKV_CORRUPT ? atomic_load(&shared->removals) != snapshot->removals
                                       : atomic_load(&shared->forgotten) > snapshot->instant.sequence;
    if (__builtin_expect(!lost, 1))
        return status;
    if (!atomic_load(&snapshot->open))
        return closed();
    if (status == PYKV_CORRUPT && snapshot->pinned &&
        shared_pin_held(shared, &snapshot->store->process, snapshot->instant.sequence))
        return status;
    return error_set(PYKV_SNAPSHOT_LOST, 0, snapshot->store->path, 0,
                     "keys of the store %s were deleted or moved since this snapshot or iteration began, and this process may "
                     "not write to the store, which it must to hold them: begin anew, or open it with permission to write",
                     snapshot->store->path);
}

/* ---- Public ---- */

int pykv_snapshot_open(struct pykv_store *store, struct pykv_snapshot **out)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    struct pykv_snapshot *snapshot = store->os->alloc(store->os, sizeof *snapshot);
    if (snapshot == NULL)
        status = error_no_memory(sizeof *snapshot);
    else if ((status = snapshot_take(snapshot, store, NULL)) != PYKV_OK)
        store->os->release(store->os, snapshot);
    if (status == PYKV_OK) {
        atomic_fetch_add(&store->references, 1);
        *out = snapshot;
    }
    store_leave(store);
    return status;
}

int pykv_snapshot_renew(struct pykv_snapshot *snapshot)
{
    struct pykv_store *store = snapshot == NULL ? NULL : snapshot->store;
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    snapshot_release(snapshot);
    status = snapshot_take(snapshot, store, NULL);
    store_leave(store);
    return status;
}

/* A store that was closed meanwhile has let go of all its pins. */
void pykv_snapshot_close(struct pykv_snapshot *snapshot)
{
    if (snapshot == NULL || !atomic_load(&snapshot->open) || store_enter(snapshot->store) != PYKV_OK)
        return;
    snapshot_release(snapshot);
    store_leave(snapshot->store);
}

int pykv_snapshot_closed(const struct pykv_snapshot *snapshot)
{
    return snapshot == NULL || !atomic_load(&snapshot->open) || atomic_load(&snapshot->store->closing) > 0;
}

void pykv_snapshot_free(struct pykv_snapshot *snapshot)
{
    if (snapshot == NULL)
        return;
    struct pykv_store *store = snapshot->store;
    pykv_snapshot_close(snapshot);
    store->os->release(store->os, snapshot);
    store_drop(store);
}

void pykv_snapshot_instant(const struct pykv_snapshot *snapshot, struct pykv_instant *out)
{
    *out = (struct pykv_instant){ .version = snapshot->instant.sequence, .keys = snapshot->instant.keys,
                                  .position = snapshot->instant.position, .time_ms = snapshot->now_ms };
}
