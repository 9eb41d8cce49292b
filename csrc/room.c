/* room.c -- where the disk is full, or max_disk_bytes is reached.
 *
 * At the limit a put has compaction make room first, and is refused if there is nothing to be had. Deletes
 * and compaction may use what puts may not.
 *
 * On a full disk deletes and compaction give space back, but need some first: for tombstones, for copies,
 * for the manifest. So a file named `reserve` holds blocks of the disk, as long as all is well. Deletes that find
 * the disk full take a fifth of them, in two pieces, and then wait for compaction, which lends all; more only
 * where it has nothing to give back. From the first piece on puts are refused until the reserve is whole again:
 * what is freed goes into it first. */
#include <errno.h>

#include "store.h"
#include "usage.h"

enum { LENT = 1, LENT_ALL = 2 };        /* in shared->reserve_lent */
#define STEP_SIZE (UINT64_C(4) << 20)   /* under one hold of the writer lock */
#define WAIT_MS 1000u           /* for compaction to show that it goes on */
#define PAUSE_MS 2u

/* ---- The reserve ---- */

/* For copies: an eighth of the log and at most a segment, as a power of two, so that it changes seldom. Deletes
 * leave it alone as long as compaction may give something back by it. */
static uint64_t for_copies(struct pykv_store *store)
{
    struct usage usage;
    uint64_t size = RESERVE_LEAST;
    usage_measure(store, &usage);
    while (size * 2 <= usage.log / 8 && size * 2 <= usage.segment)
        size *= 2;
    return size + RESERVE_LEAST;
}

/* Of it deletes take a piece at a time. */
static uint64_t piece(uint64_t copies) { return copies / 8 > RESERVE_LEAST ? copies / 8 : RESERVE_LEAST; }

static uint64_t wanted(struct pykv_store *store)
{
    uint64_t copies = for_copies(store);
    return copies + 2 * piece(copies);
}

/* The log grows and shrinks, and processes with segments of other sizes do not agree: so it is made smaller late. */
bool reserve_due(struct pykv_store *store)
{
    uint64_t size = atomic_load(&store->shared->reserve_size), want = wanted(store);
    return size < want || size / 4 > want;
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
        while (error_status(error) == PYKV_FULL && next - size > RESERVE_LEAST && atomic_load(&shared->reserve_lent)) {
            next = size + (next - size) / 2;        /* what there is */
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
    return error == 0 && !done;
}

void reserve_keep(struct pykv_store *store)
{
    uint64_t want = wanted(store);
    uint32_t all = LENT_ALL;
    bool more = true;
    (void)atomic_compare_exchange_strong(&store->shared->reserve_lent, &all, LENT);     /* whoever had it is through */
    while (more && store_lock(store) == PYKV_OK) {
        more = step(store, want);
        store_unlock(store);
    }
}

/* (W) False: the disk is still full. */
static bool back(struct pykv_store *store)
{
    uint64_t want = wanted(store);
    while (step(store, want))
        continue;
    return atomic_load(&store->shared->reserve_lent) == 0;
}

/* Said before it is done: should we die in between, it is made again, whatever the file is. */
static void lend(struct pykv_store *store, uint64_t left, uint32_t how)
{
    atomic_store(&store->shared->reserve_size, left);
    atomic_store(&store->shared->reserve_lent, how);
    atomic_store(&store->shared->disk_full, 1);
}

/* What deletes may still have. */
static uint64_t for_deletes(struct pykv_store *store, uint64_t copies)
{
    uint64_t have = atomic_load(&store->shared->reserve_size);
    uint64_t left = atomic_load(&store->shared->disk_full) ? copies : RESERVE_LEAST;
    return have > left ? have - left : 0;
}

bool reserve_spend(struct pykv_store *store, uint64_t size)
{
    const struct os *os = store->os;
    uint64_t have = atomic_load(&store->shared->reserve_size), copies = for_copies(store), part = piece(copies);
    uint64_t most = for_deletes(store, copies);
    int fd;
    if (most < part || most < size || os->file_open(os, store->dir, RESERVE_NAME, OS_READ_WRITE, 0, &fd) != 0)
        return false;
    lend(store, have - part, LENT);
    int error = os->file_truncate(os, fd, have - part);
    (void)os->file_close(os, fd);
    return error == 0;
}

static bool spent(struct pykv_store *store)
{
    uint64_t copies = for_copies(store);
    return for_deletes(store, copies) < piece(copies);
}

bool reserve_refuses(struct pykv_store *store, bool puts)
{
    if (atomic_load(&store->shared->reserve_lent) == LENT_ALL)
        return true;
    if (!puts && !spent(store))
        return false;
    return !back(store) && (puts || spent(store));      /* perhaps it was only not made yet */
}

bool reserve_lend(struct pykv_store *store)
{
    if (atomic_load(&store->shared->reserve_size) == 0 || store_lock(store) != PYKV_OK)
        return false;
    lend(store, 0, LENT_ALL);
    bool there = store->os->file_remove(store->os, store->dir, RESERVE_NAME) == 0;
    store_unlock(store);
    return there;
}

/* ---- A write that found no room ---- */

static void restore(const struct pykv_error *kept)
{
    error_set(kept->status, kept->os_errno, kept->path, kept->offset, "%s", kept->message);
}

/* At the limit, compact. True if space was given back since freed_bytes was `freed`. */
static bool make(struct pykv_store *store, uint64_t freed)
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
    if (atomic_load(&shared->freed_bytes) == freed && !shared_pinned(shared))
        compact_one(store);     /* else a snapshot would hold what it empties */
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

/* On a full disk, wait for compaction. *last: false at the first time. */
static bool wait_outside(struct pykv_store *store, bool *last)
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

/* Outside of the call it is our reference that keeps the handle. */
bool room_retry(struct pykv_store *store, int *status, struct room *room)
{
    bool again = make(store, room->freed);
    atomic_fetch_add(&store->references, 1);
    store_leave(store);
    again = again || (!room->pinned && wait_outside(store, &room->last));
    if (again && (*status = store_enter(store)) == PYKV_OK)
        room->freed = room_now(store).freed;
    else
        again = false;
    store_drop(store);
    return again;
}
