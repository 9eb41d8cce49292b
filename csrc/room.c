/* room.c -- where the disk is full, or max_disk_bytes is reached.
 *
 * At the limit a put has compaction make room first, and is refused if there is nothing to be had. Deletes
 * and compaction may use what puts may not.
 *
 * On a full disk deletes and compaction give space back, but need some first: for tombstones, for copies,
 * for the manifest. So a file named `reserve` holds blocks of the disk, as long as all is well. A delete that
 * finds the disk full lends half of them, again and again; compaction after a write did lends all. From then
 * on puts are refused until the reserve is there again: what is freed goes into it first, else they would
 * take the last room that deletes have. And deletes wait for compaction, if there is nothing left. */
#include <errno.h>

#include "store.h"
#include "usage.h"

#define SIZE_MIN (2 * RESERVE_LEAST)
#define STEP_SIZE (UINT64_C(4) << 20)   /* under one hold of the writer lock */
#define WAIT_MS 1000u           /* for compaction to show that it goes on */
#define PAUSE_MS 2u

/* ---- The reserve ---- */

/* An eighth of the log and at most a segment, as a power of two, so that it changes seldom. */
static uint64_t wanted(struct pykv_store *store)
{
    struct usage usage;
    uint64_t size = SIZE_MIN;
    usage_measure(store, &usage);
    while (size * 2 <= usage.log / 8 && size * 2 <= store->options.segment_size)
        size *= 2;
    return size;
}

bool reserve_due(struct pykv_store *store)
{
    uint64_t size = atomic_load(&store->shared->reserve_size), want = wanted(store);
    return size < want || size / 2 > want;
}

static int open_file(struct pykv_store *store, int *fd)
{
    int error = store->os->file_open(store->os, store->dir, RESERVE_NAME, OS_READ_WRITE, 0, fd);
    return error != ENOENT ? error
                           : store->os->file_open(store->os, store->dir, RESERVE_NAME, OS_CREATE, store->options.file_mode, fd);
}

/* (W) A step nearer to what is wanted: whether there is another one to do. */
static bool step(struct pykv_store *store, uint64_t want)
{
    const struct os *os = store->os;
    struct shared *shared = store->shared;
    uint64_t size = atomic_load(&shared->reserve_size), next = want;
    int fd, error = open_file(store, &fd);
    if (error == 0) {
        if (size < want) {
            next = want - size < STEP_SIZE ? want : size + STEP_SIZE;
            error = os->file_reserve(os, fd, size, next - size);
        }
        while (error_status(error) == PYKV_FULL && next - size > RESERVE_LEAST) {   /* what there is */
            next = size + (next - size) / 2;
            error = os->file_reserve(os, fd, size, next - size);
        }
        if (error == 0 && next == want)
            error = os->file_truncate(os, fd, want);    /* it was larger, or is one of another boot */
        if (error == 0)
            atomic_store(&shared->reserve_size, next);
        else
            (void)os->file_truncate(os, fd, size);      /* a part of a step counts for nothing */
        (void)os->file_close(os, fd);
    }
    /* Where there can be no such file, nothing is to be waited for. */
    bool done = error == 0 ? next == want : error_status(error) != PYKV_FULL;
    if (done)
        atomic_store(&shared->reserve_lent, 0);
    return error == 0 && !done && next - size >= STEP_SIZE;
}

void reserve_keep(struct pykv_store *store)
{
    uint64_t want = wanted(store);
    bool more = true;
    while (more && store_lock(store) == PYKV_OK) {
        more = step(store, want);
        store_unlock(store);
    }
}

bool reserve_back(struct pykv_store *store)
{
    uint64_t want = wanted(store);
    while (step(store, want))
        continue;
    return atomic_load(&store->shared->reserve_lent) == 0;
}

static void lent(struct pykv_store *store, uint64_t left)
{
    atomic_store(&store->shared->reserve_size, left);
    atomic_store(&store->shared->reserve_lent, 1);
    atomic_store(&store->shared->disk_full, 1);
}

bool reserve_halve(struct pykv_store *store)
{
    const struct os *os = store->os;
    uint64_t size = atomic_load(&store->shared->reserve_size);
    int fd;
    if (size / 2 < RESERVE_LEAST || os->file_open(os, store->dir, RESERVE_NAME, OS_READ_WRITE, 0, &fd) != 0)
        return false;
    int error = os->file_truncate(os, fd, size / 2);
    (void)os->file_close(os, fd);
    if (error == 0)
        lent(store, size / 2);
    return error == 0;
}

bool reserve_lend(struct pykv_store *store)
{
    if (atomic_load(&store->shared->reserve_size) == 0 || store_lock(store) != PYKV_OK)
        return false;
    bool there = store->os->file_remove(store->os, store->dir, RESERVE_NAME) == 0;
    if (there)
        lent(store, 0);
    store_unlock(store);
    return there;
}

/* ---- A write that found no room ---- */

static void restore(const struct pykv_error *kept)
{
    error_set(kept->status, kept->os_errno, kept->path, kept->offset, "%s", kept->message);
}

bool room_make(struct pykv_store *store, uint64_t freed)
{
    struct shared *shared = store->shared;
    struct pykv_error kept = *pykv_last_error();
    bool died;
    /* A full disk has its space back when all who read what was removed have let go of it: not now, since
     * we are in a call ourselves. */
    if (kept.os_errno != 0) {
        atomic_store(&shared->disk_full, 1);
        maintain_keeper(store);
        bool freed_some = atomic_load(&shared->freed_bytes) != freed;
        if (!freed_some)
            restore(&kept);
        return freed_some;
    }
    if (store->options.disk_size_max == 0 || atomic_load(&shared->compaction_paused))
        return false;
    shared_lock_acquire(&shared->maintain, &store->process, &died);
    (void)compact_free(store);
    if (atomic_load(&shared->freed_bytes) == freed)
        compact_one(store);
    bool made = atomic_load(&shared->freed_bytes) != freed;
    shared_lock_release(&shared->maintain, &store->process);
    if (!made)
        restore(&kept);
    return made;
}

struct waiting { uint64_t freed, copied; uint32_t idle_ms; bool more; };

/* Whether waiting has an end, for now: there is more room, or nothing is left to be given back, or nobody is
 * at it. */
static bool room_settled(struct pykv_store *store, struct waiting *waiting)
{
    const struct shared *shared = store->shared;
    uint64_t freed = atomic_load(&shared->freed_bytes), copied = atomic_load(&shared->copied_bytes);
    if (waiting->freed == UINT64_MAX)
        waiting->freed = freed;
    if (waiting->copied != copied)
        waiting->idle_ms = 0;
    waiting->copied = copied;
    waiting->more = freed != waiting->freed && !log_retiring(&store->log);
    waiting->idle_ms += PAUSE_MS;
    return waiting->more || waiting->idle_ms > WAIT_MS || atomic_load(&shared->disk_full) == 0 ||
           atomic_load(&shared->compaction_paused) != 0;
}

bool room_wait(struct pykv_store *store, bool *last)
{
    struct pykv_error kept = *pykv_last_error();
    struct waiting waiting = { .freed = UINT64_MAX };
    bool settled = kept.os_errno == 0;
    while (!settled && store_enter(store) == PYKV_OK) {
        uint32_t never = 0;
        settled = room_settled(store, &waiting);
        store_leave(store);
        if (!settled)
            store->os->wait(store->os, &never, 0, PAUSE_MS);
    }
    /* What was freed before we looked is not in `more`: hence a last try. */
    bool again = kept.os_errno != 0 && (waiting.more || !*last);
    *last = !waiting.more;
    if (!again)
        restore(&kept);
    return again;
}
