/* store.h -- an open store: what the chapters (write.c, read.c, scan.c, sync.c, maintain.c,
 * recover.c, checkpoint.c, ...) share. The public face is pykv.h. */
#ifndef PYKV_STORE_H
#define PYKV_STORE_H

#include <pthread.h>

#include "checksum.h"
#include "error.h"
#include "keydir.h"
#include "log.h"
#include "manifest.h"
#include "pykv.h"
#include "shared.h"

#define CALL_STRIPES 16u
#define KEYDIR_NAME "keydir"
#define KEYDIR_TEMPORARY "keydir.tmp"
#define LOCK_NAME "lock"
#define RESERVE_NAME "reserve"
#define SCRATCH_NAME "scratch.tmp"      /* of what pykv_scratch() makes, for a moment */

struct call_stripe {
    _Alignas(64) _Atomic uint64_t calls;    /* in flight */
};

struct helper {
    _Atomic(void *) thread;         /* NULL: none, and calls do its work */
    _Atomic uint32_t word;          /* it sleeps on it */
};

struct pykv_store {
    const struct os *os;
    char path[512];                 /* as given to pykv_open(), for messages */
    struct pykv_options options;
    bool read_only;                 /* refuses writes */
    bool private;                   /* its own keydir: nothing is shared, nothing is written */
    int dir;
    struct process process;         /* lock file and slot; lock_fd -1: none */
    int backup_lock;                /* of one who reads a backup, private as it is: the lock file; or -1 */
    struct space space;             /* the file `keydir`, or private memory */
    struct shared *shared;
    struct hash_key hash_key;
    struct keydir *keydir;
    struct log log;
    bool log_ready;

    struct call_stripe stripes[CALL_STRIPES];
    _Atomic int closing;            /* 1: it is, 2: it is closed; -1: in a forked child that has made no call yet */
    pthread_mutex_t close_mutex;

    struct helper ahead, keeper;    /* maintain.c */
    _Atomic bool forked;            /* there may be a child that has no place of its own yet */
    _Atomic uint32_t helpers_stop;
    uint64_t slice_ns;              /* the keeper's: when compaction last paused */
    _Atomic uint64_t kept_ns;       /* where there is no keeper: when a writer last did its round */
    _Atomic bool idle;              /* nobody has written for a while */
    _Atomic bool loading;           /* pykv_load() was called: what expires stays, lest it take a version */
    _Atomic uint64_t looked_until;  /* up to here in the log a writer of ours need not look for what is due */
    _Atomic uint64_t tell_at;       /* where in the log a writer of ours tells how much there is */
    _Atomic uint64_t held_at;       /* where in the log a writer of ours last asked whether to wait */

    bool rewrite_tail;              /* a sync failed before: write the tail anew when recovering */
    _Atomic uint64_t recovered_records, damaged_records;
    struct pykv_damage *met;        /* beside damaged records, by a repair aside: met_count of them, owned */
    size_t met_count;
    uint64_t open_us;

    _Atomic uint32_t references;    /* the caller's handle, and scans */
    _Atomic bool opened;            /* pykv_open() succeeded */
    struct pykv_store *next;        /* in the list of fork.c */
};

/* Every public call on a store is between these. PYKV_CLOSED once it is closing. */
int store_enter(struct pykv_store *store);
void store_leave(struct pykv_store *store);

/* ---- read.c ---- */

/* Find the newest record of `key` whose sequence is at most `sequence`. PYKV_OK with *out (verified,
 * no tombstone; expiry not looked at), PYKV_NOT_FOUND, or a failure. */
int store_find(struct pykv_store *store, uint64_t sequence, uint64_t hash, const uint8_t *key,
               size_t key_size, struct log_reader *reader, struct record *out);
/* Walk from a record back to the newest version of its key at or before `sequence`. */
int store_step_back(struct pykv_store *store, uint64_t sequence, struct log_reader *reader,
                    struct record *record);
static inline bool record_expired(const struct pykv_store *store, const struct record *record)
{
    return (record->flags & RECORD_EXPIRY) != 0 && record->expiry <= store->os->wall_ms(store->os);
}

/* ---- snapshot.c ---- */

struct pykv_snapshot {          /* of its own, or the part of a scan that says which instant it shows */
    struct pykv_store *store;
    struct shared_counters instant;
    uint64_t now_ms;            /* what expires later is there */
    uint64_t removals;          /* of segments, that had been by then */
    uint32_t pin;
    bool pinned;                /* false: the shared memory is not ours to write to */
    _Atomic bool open;
};

/* Take the present instant, or that of `from`, in memory of the caller's. Inside store_enter(). */
int snapshot_take(struct pykv_snapshot *snapshot, struct pykv_store *store, struct pykv_snapshot *from);
void snapshot_release(struct pykv_snapshot *snapshot);
/* Every public call on a snapshot is between this and store_leave(). PYKV_CLOSED if it was closed. */
int snapshot_enter(const struct pykv_snapshot *snapshot);
/* What is absent (status PYKV_NOT_FOUND) or damaged (PYKV_CORRUPT), is it truly? Then the same status;
 * else PYKV_SNAPSHOT_LOST or PYKV_CLOSED, if what was there may have gone since. To be asked after
 * looking. Of any other status: whether something may have been missed. */
int snapshot_check(const struct pykv_snapshot *snapshot, int status);

/* ---- unchanged.c ---- */

struct operation;
/* Judge the PYKV_EXPECT_PREFIX_UNCHANGED among operations by the log from operation->number, up to which
 * each has been judged before, to its end: those that do not hold get `broken`. */
int store_unchanged(struct pykv_store *store, struct operation *operations, size_t count);
/* The same before the writer lock is taken, until little is left to do under it. */
int store_unchanged_ahead(struct pykv_store *store, struct operation *operations, size_t count);

/* ---- write.c ---- */

struct present {                /* what the keydir has for a key now */
    uint64_t slot;              /* the location its slot holds, 0: there is none */
    struct keydir_place place;  /* where the slot was */
    uint64_t location;          /* the same with the segment's id: what `previous` will say */
    uint64_t size;              /* bytes of the record there */
    bool live;                  /* it is no tombstone */
};

struct operation {
    const uint8_t *key, *value;
    uint32_t key_size, value_size;
    uint64_t number;            /* expiry, the version expected, or the position to look from, */
    uint64_t then_ms;           /* at this time: what had expired by then was absent already */
    uint64_t hash;
    uint8_t kind;               /* enum pykv_op */
    bool superseded;            /* a later operation of the batch names the key */
    bool broken;                /* PYKV_EXPECT_PREFIX_UNCHANGED: does not hold */
    /* filled in under the lock: */
    bool skip;                  /* nothing to write */
    uint64_t size;              /* bytes of its record */
    struct present present;
};

int store_check_writable(const struct pykv_store *store);       /* it was opened for writing, and no sync has failed */
int store_check_sizes(uint64_t key_size, uint64_t value_size);
int store_lock(struct pykv_store *store);       /* the writer lock; repairs if its owner died */
void store_unlock(struct pykv_store *store);
/* Apply operations as one batch; the caller holds the writer lock. *end is the log position up to
 * which a sync makes it durable, 0 if nothing was written: that is store_settle()'s work, with the same
 * durability. */
int store_write_locked(struct pykv_store *store, struct operation *operations, size_t count, int durability,
                       uint64_t *end);
/* Whether a write with that durability waits for the disk. */
bool store_commits(const struct pykv_store *store, int durability);
/* Wait until what ends at `end` is as durable as asked. */
int store_settle(struct pykv_store *store, uint64_t end, int durability);

/* (W) The present record of a key: PYKV_OK, with its header in *record (not verified: a writer may
 * replace what is damaged); PYKV_NOT_FOUND; PYKV_CORRUPT if a record that may be the key's cannot be
 * read; or another failure. */
int store_present(struct pykv_store *store, uint64_t hash, const uint8_t *key, size_t key_size,
                  struct log_reader *reader, struct present *out, struct record *record);
/* (W) Point the key's slot at its new record (flags and size of `record` count), and count. False:
 * the keydir is damaged. Harmless to repeat for a slot that points there already. */
bool store_apply(struct pykv_store *store, struct shared_counters *counters, uint64_t hash,
                 uint64_t location, const struct record *record, const struct present *present);
/* (W) Count bytes of the segment at a location as live, or no more. */
void store_count_live(struct pykv_store *store, uint64_t location, uint64_t size, bool more);
/* (W) Make counters->position .. tail visible: what a dead writer left undone. */
int store_repair(struct pykv_store *store);

/* Append a MARK that says that all before it is durable, so that damage is told from a torn end even
 * where the manifest is lost. The caller has synced; another sync makes the MARK durable. */
int store_mark(struct pykv_store *store);

/* ---- scan.c ---- */
/* Remove slots that point at tombstones, once no scan is open. Takes the writer lock. */
void store_sweep(struct pykv_store *store);
bool store_sweep_due(const struct pykv_store *store);
void store_sweep_locked(struct pykv_store *store);  /* (W) */

/* ---- sync.c ---- */
int store_sync_to(struct pykv_store *store, uint64_t position);
int store_sync_sealed(struct pykv_store *store);   /* all segments but the active one */
int store_sync_whole(struct pykv_store *store);     /* all, and the header of one that has nothing else yet */
int store_refused(const struct pykv_store *store);  /* PYKV_SYNC_FAILED if so */

/* ---- maintain.c ---- */
void maintain_start(struct pykv_store *store);  /* begins the helper threads, where there can be any */
void maintain_stop(struct pykv_store *store);
/* Sync, list and trim what was sealed. The caller of these three holds the maintain lock. */
void maintain_sealed(struct pykv_store *store);
/* Give back what was reserved behind the seals of segments that are durable: also how a recovery without
 * a manifest knows that they were. */
void maintain_trim(struct pykv_store *store);
/* As maintain_sealed(), and what others have synced but not listed. */
void maintain_list(struct pykv_store *store);
void maintain_nudge(struct pykv_store *store);  /* after a write: cheap; wakes the helpers if due, or waits for them */
void maintain_wake(struct pykv_store *store);   /* the same, but never waits */
bool maintain_waits(const struct pykv_store *store);    /* whether maintain_nudge() would */
void maintain_ahead(struct pykv_store *store);  /* after a write of the keeper's own */
void maintain_keeper(struct pykv_store *store); /* have the helper look for what is due */
void maintain_sweep(struct pykv_store *store);  /* after a scan: has the helper sweep, if due */

/* ---- usage.c ---- */

/* How near the log is to its bound, in thousandths: see struct shared. `stuck`: waiting would not help. True: the
 * log is to be compacted. */
bool usage_tell(struct pykv_store *store, bool stuck);
#define PRESSURE_SOME 500u      /* from here on writers wait a moment now and then, */
#define PRESSURE_FULL 1000u     /* and from here on until there is room */

/* ---- compact.c ---- */

/* The caller of each holds the maintain lock. */
bool compact_due(struct pykv_store *store);
/* Do what is due, a segment at least, if there is one. `between` is called now and then: PYKV_OK to go on. */
int compact(struct pykv_store *store, int (*between)(struct pykv_store *store));
/* Make durable what has been written, and list it in the manifest: then what it was copied from is no
 * longer needed. */
int compact_settle(struct pykv_store *store);
/* Remove segments that nobody needs any more. */
int compact_free(struct pykv_store *store);
/* One segment, so that there is room for others. */
void compact_one(struct pykv_store *store);
/* Its part of the figures; without the lock. */
void compact_stats(struct pykv_store *store, struct pykv_stats *out);

/* ---- room.c ---- */

/* Every write is tried again as long as that may find room:
 *
 *     store_enter(store)
 *     struct room room = room_now(store);
 *     do status = the write, without any lock in the end; while (room_again(store, &status, &room)); */
struct room {
    uint64_t freed;             /* freed_bytes before the try */
    bool last;                  /* it was to be the last */
    bool pinned;                /* we hold a snapshot, which compaction would wait for: so we do not wait for it */
};
static inline struct room room_now(const struct pykv_store *store)
{
    return (struct room){ .freed = atomic_load_explicit(&store->shared->freed_bytes, memory_order_relaxed) };
}
/* After PYKV_FULL: at the limit of the store compact, on a full disk wait for compaction, outside of the call. False,
 * with the call ended and what pykv_last_error() tells as before: there is none. */
bool room_retry(struct pykv_store *store, int *status, struct room *room);
static inline bool room_again(struct pykv_store *store, int *status, struct room *room)
{
    if (__builtin_expect(*status == PYKV_FULL, 0))
        return room_retry(store, status, room);
    store_leave(store);
    return false;
}

bool reserve_due(struct pykv_store *store);
void reserve_keep(struct pykv_store *store);    /* make the reserve as large as it should be; takes the writer lock */
/* (W) While it is lent: whether puts, or deletes, can have no more of the disk. */
bool reserve_refuses(struct pykv_store *store, bool puts);
bool reserve_lend(struct pykv_store *store);    /* give it up, for compaction or the manifest; false: there is none */
/* (W) A piece of it, for a delete of `size` bytes; false: that would not do, or what is left is not theirs. */
bool reserve_spend(struct pykv_store *store, uint64_t size);
#define RESERVE_LEAST (UINT64_C(64) << 10)      /* of it, for manifests */

/* ---- expire.c ---- */

#define EXPIRY_UNKNOWN 1u       /* as expiry_next: look at once */

/* The caller of each holds the maintain lock. */
bool expire_due(struct pykv_store *store);
/* Remove what has expired in one segment that is due, if there is one. `between` as with compact(). */
int expire(struct pykv_store *store, int (*between)(struct pykv_store *store));

/* ---- checkpoint.c ---- */
int checkpoint_write(struct pykv_store *store);     /* the caller holds the maintain lock */
struct checkpoint {
    uint64_t id;
    uint64_t start;             /* log position: replay from here */
    uint64_t segment_id_next;   /* and all that compaction wrote to segments from here on */
    uint64_t keys;              /* that were loaded */
    uint64_t position, sequence;    /* `live_bytes` are as of here */
    uint64_t *live_bytes;       /* of each segment slot; SEGMENT_SLOT_COUNT of them, owned */
    uint64_t *ids;              /* of the segment that was there; 0: none */
    uint64_t *expiry_next;      /* as in its entry */
};
/* Load the newest checkpoint that verifies into the empty keydir; PYKV_NOT_FOUND if none does, with
 * the keydir still empty. The segments have been registered. */
int checkpoint_load(struct pykv_store *store, struct checkpoint *out);
void checkpoint_release(struct pykv_store *store, struct checkpoint *checkpoint);

/* ---- recover.c, replay.c ---- */
/* Build the keydir in the store's fresh space from what is in the directory. */
int recover(struct pykv_store *store);

struct replay {
    struct pykv_store *store;
    const struct checkpoint *checkpoint;    /* that the keydir was loaded from; NULL: none */
    struct shared_counters counters;        /* live_bytes: only those of the segments count */
    struct log_reader reader;
    uint64_t records;
};
/* One record of the log into the keydir; of two records of a key the higher sequence counts, in
 * whatever order they come. Of a MARK or SEAL it is the version that counts. */
int replay_record(struct replay *replay, uint64_t hash, uint64_t location, const struct record *record);
/* All records of `count` whole segments, of the checkpoint's first one those behind its start, by as many
 * threads as help. PYKV_CORRUPT names the place. */
int replay_segments(struct replay *replay, const uint64_t *ids, size_t count);
/* For a repair: of the slots that a checkpoint had, remove those that lead to what does not verify. */
int replay_drop_damaged(struct replay *replay);
/* Where in a segment to begin. */
uint64_t replay_offset(const struct replay *replay, uint64_t id);
/* Note a damaged place that repair skips: PYKV_OK, or PYKV_CORRUPT where repair was not asked for. */
int replay_damage(struct pykv_store *store, uint64_t id, uint64_t offset, const char *what);

/* ---- fork.c ---- */
/* From before its first descriptor until after its last: a fork knows of the store. */
void fork_watch(struct pykv_store *store);
void fork_forget(struct pykv_store *store);

/* ---- manifest, store.c ---- */
/* Our slot may have been that of one who died with a lock, which now looks like ours: let go of it.
 * What it guards tells by itself that there is something to repair. */
void store_inherit(struct pykv_store *store);
void store_release(struct pykv_store *store);       /* all but the handle; what is not there is fine */
void store_drop(struct pykv_store *store);          /* a reference; the last one frees the handle */
int store_write_manifest(struct pykv_store *store);
int store_remove_files(struct pykv_store *store);   /* all that are pykv's, but the lock */
uint32_t store_directory_mode(uint32_t file_mode);  /* the same, and x where there is r */
/* What a name in the directory is: 'm' manifest, 's' segment, 'c' checkpoint (with its number), 'o'
 * another file of pykv's, 0 not ours. */
char store_classify(const char *name, uint64_t *number);

#endif
