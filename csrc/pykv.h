/* pykv.h -- the whole public API of the pykv engine: an embedded, persistent, log-structured
 * key-value store. Start reading here; format.md says what is on disk, ../docs/design.md why.
 *
 * Conventions that every call shares
 *
 * - A call returns a status (enum pykv_status): zero or positive is an answer, negative a failure.
 *   Results travel through `out` parameters, which are written on success alone.
 * - After a failure pykv_last_error() tells the calling thread what happened, to which file, where.
 *   A failed call has changed nothing that another call could see.
 * - Keys and values are opaque bytes; sizes are in bytes; a pointer may be NULL where its size is 0.
 * - Any number of threads may share one store, and any number of processes one directory. Readers
 *   take no lock. pykv_close() waits for calls in flight; later calls return PYKV_CLOSED.
 * - Every write is a batch: it is applied wholly or not at all, to other threads, other processes,
 *   and after a crash. It gets one version (sequence number), greater than every version before. */
#ifndef PYKV_H
#define PYKV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
enum pykv_status {           /* stable numbers: Python maps each failure to one exception */
    PYKV_OK = 0,
    PYKV_NOT_FOUND = 1,      /* positive: an answer, not an error */
    PYKV_CONFLICT = 2,       /* a precondition did not hold; nothing was written */
    PYKV_IO = -1,            /* the system refused: os_errno, path and offset are kept */
    PYKV_CORRUPT = -2,       /* bytes on disk do not verify: path and offset are kept */
    PYKV_NO_MEMORY = -3,     /* an allocation failed */
    PYKV_FULL = -4,          /* the disk, a quota or a limit of the store is reached */
    PYKV_INVALID = -5,       /* an argument is out of its range */
    PYKV_CLOSED = -6,        /* the store was closed */
    PYKV_READ_ONLY = -7,     /* the store was opened for reading */
    PYKV_NOT_A_STORE = -8,   /* the path is no directory, or holds files that are not pykv's */
    PYKV_NEWER_FORMAT = -9,  /* written by a later release; nothing was touched */
    PYKV_MISSING = -10,      /* there is no store at the path, and none was to be created */
    PYKV_SYNC_FAILED = -11,  /* a sync failed earlier: writes are refused until reopened */
    PYKV_BUSY = -12,         /* another machine, or a process of another boot, uses the store */
    PYKV_NOT_A_NUMBER = -13, /* pykv_incr: the value is no decimal integer of 64 bits, or overflows */
    PYKV_DENIED = -14,       /* no permission for the directory or a file in it */
    PYKV_SNAPSHOT_LOST = -15, /* deletes since then took away what the snapshot or scan looks at, and
                               * this process, which cannot write to the store, could not hold them */
};

enum pykv_durability {
    PYKV_DURABILITY_PROCESS = 0,  /* acknowledged writes survive the death of every process */
    PYKV_DURABILITY_INTERVAL = 1, /* and a power cut, but for the last interval_ms */
    PYKV_DURABILITY_COMMIT = 2,   /* and a power cut; committers share one fdatasync */
    PYKV_DURABILITY_DEFAULT = 3,  /* of one write: as the store was opened */
};

enum pykv_flag {             /* as dbm.open: */
    PYKV_FLAG_READ = 0,      /* "r": must exist, refuse writes */
    PYKV_FLAG_WRITE = 1,     /* "w": must exist */
    PYKV_FLAG_CREATE = 2,    /* "c": create if missing */
    PYKV_FLAG_NEW = 3,       /* "n": always a new, empty store; an old one at the path is emptied */
};

enum pykv_io {
    PYKV_IO_MMAP = 0,        /* read through shared mappings: fastest while the data fits in RAM */
    PYKV_IO_PREAD = 1,       /* never map sealed segments: no SIGBUS if the disk fails under a map.
                              * Costs a descriptor for each segment */
};

enum pykv_op {               /* what one operation of a batch does, or demands */
    PYKV_PUT = 0,            /* key, value; expiry where given */
    PYKV_DELETE = 1,         /* key; an absent key is no error and writes nothing */
    PYKV_EXPECT_PRESENT = 2, /* key: precondition, writes nothing */
    PYKV_EXPECT_ABSENT = 3,  /* key */
    PYKV_EXPECT_VALUE = 4,   /* key, value: present with these very bytes */
    PYKV_EXPECT_VERSION = 5, /* key, version in `numbers`: 0 means absent */
    PYKV_EXPECT_UNCHANGED = 6, /* key, version in `numbers`: present, and written by that batch or before */
    PYKV_EXPECT_PREFIX_UNCHANGED = 7, /* key: a prefix; `numbers`: the position of a snapshot that is
                              * open. No key that begins with it was written or deleted since; in
                              * pykv_snapshot_commit(), deletes of what had expired then do not count */
};

enum pykv_repair {           /* what to do about damage that recovery meets: */
    PYKV_REPAIR_NOT = 0,     /* refuse to open */
    PYKV_REPAIR_IN_PLACE = 1, /* skip what is damaged */
    PYKV_REPAIR_ASIDE = 2,   /* the same, of all segments, in memory alone: the directory is left as it
                              * is. With PYKV_FLAG_READ; see pykv_damage_met() */
};

struct pykv_options {
    int flag;                    /* enum pykv_flag */
    int durability;              /* enum pykv_durability, not DEFAULT */
    int io;                      /* enum pykv_io */
    int repair;                  /* enum pykv_repair */
    uint32_t interval_ms;        /* of PYKV_DURABILITY_INTERVAL: 1 to 3,600,000 */
    uint32_t file_mode;          /* permission bits of the files of a new store, whatever the umask,
                                  * 0600 if 0; of the directory the same, and x where there is r. An
                                  * existing store keeps the mode that it has, that of its lock file */
    uint64_t segment_size;       /* bytes of a segment: 64 KiB to 1 GiB; 0: a sixteenth of the log as it
                                  * grows, 4 to 128 MiB, and of disk_size_max at most */
    uint64_t disk_size_max;      /* bytes of all segments, 1 MiB or more; 0: no limit but the disk's. What is
                                  * dead is given back before a write is refused. An eighth is kept for
                                  * deletes, which are never refused, and for the copies of compaction */
    uint32_t space_percent;      /* of the live bytes, that all files may have together, beside two
                                  * segments: 110 to 10,000; 0: 200 */
    uint64_t expected_keys;      /* sizes the keydir beforehand; 0: grow as needed */
};

struct pykv_error {
    int status;              /* enum pykv_status of the last failure in this thread */
    int os_errno;            /* errno of the system call that failed, or 0 */
    uint64_t offset;         /* byte offset in the file, where it matters */
    char path[512];          /* the file's name within the store, or the store's path; "" if none */
    char message[512];       /* one sentence in English */
};

struct pykv_store;           /* an open store */
struct pykv_rows;            /* the results of a call that returns many: reusable, one call at a time */
struct pykv_scan;            /* an iteration over one instant of the store */
struct pykv_snapshot;        /* one instant of the store, kept readable */
struct pykv_pin;             /* what keeps the bytes of a view valid */

/* The last failure of a pykv call in the calling thread. Valid until that thread's next call. */
const struct pykv_error *pykv_last_error(void);
const char *pykv_version_string(void);        /* "0.1.0" */

/* Open the store in directory `path` (NUL-terminated). On success *out is owned by the caller, who
 * ends with pykv_close() and pykv_free(). Opens in O(1) when the keydir of this boot is intact,
 * also after kill -9; else rebuilds it from the newest checkpoint and the log after it.
 * PYKV_CORRUPT: damage before the last durable point, by file and offset (see options.repair). */
int pykv_open(const char *path, const struct pykv_options *options, struct pykv_store **out);

/* Make what was written durable, stop the helper thread, wait for calls in flight, and release
 * everything but the handle itself and what views still pin. Safe to repeat. A failing sync is
 * reported, and the store is closed all the same. */
int pykv_close(struct pykv_store *store);
/* Closes if need be; NULL is fine. Scans may be closed after it. For every other call a NULL store
 * is a closed one. */
void pykv_free(struct pykv_store *store);

/* ---- Reading: each call sees every write acknowledged before it began ---- */

/* Copy the value of `key` into buffer[0 .. capacity). Returns the value's size, which may exceed
 * `capacity` (then nothing was copied: call again with room), or -1000 + status if there is none:
 * PYKV_NOT_FOUND or a failure. *version, where not NULL, gets the record's version. */
int64_t pykv_get(struct pykv_store *store, const uint8_t *key, size_t key_size, uint8_t *buffer,
                 size_t capacity, uint64_t *version);

/* Copy a part of the value of `key`: `length` bytes from `offset` on, cut at the value's end. Returns the
 * part's size, which may exceed `capacity` (then nothing was copied), or -1000 + status as pykv_get() does.
 * *value_size, where not NULL, gets the size of the whole value. Of a value longer than 64 KiB only the
 * chunks of 64 KiB concerned are read and verified. */
int64_t pykv_get_range(struct pykv_store *store, const uint8_t *key, size_t key_size, uint64_t offset,
                       uint64_t length, uint8_t *buffer, size_t capacity, uint64_t *value_size);

/* PYKV_OK if present, PYKV_NOT_FOUND if not. *expiry_ms, where not NULL, gets the time of expiry in
 * milliseconds since 1970, 0 for never; with PYKV_NOT_FOUND that of a key which has expired and
 * still counts, since it is not yet removed. */
int pykv_contains(struct pykv_store *store, const uint8_t *key, size_t key_size,
                  uint64_t *expiry_ms);

/* Lend the value's own bytes: valid and unchanging until pykv_view_release(), also after
 * pykv_close(). With PYKV_IO_PREAD the bytes are a private copy. */
int pykv_view(struct pykv_store *store, const uint8_t *key, size_t key_size, const uint8_t **value,
              size_t *value_size, struct pykv_pin **pin);
void pykv_view_release(struct pykv_pin *pin);

/* Rows: results laid end to end in `data`. format is "16s100s16s..." with `count` fields: the
 * argument of Python's struct.unpack() that makes them bytes objects. `missing` lists, ascending,
 * the positions of absent keys, whose fields are "0s". All belong to the rows object and stay
 * valid until its next use. */
struct pykv_rows *pykv_rows_new(void);        /* NULL: out of memory */
void pykv_rows_free(struct pykv_rows *rows);
const uint8_t *pykv_rows_data(const struct pykv_rows *rows, size_t *size);
const char *pykv_rows_format(const struct pykv_rows *rows, size_t *size);
const uint32_t *pykv_rows_missing(const struct pykv_rows *rows, size_t *count);
size_t pykv_rows_count(const struct pykv_rows *rows);

/* Look up `count` keys laid end to end in `keys`, key i being key_sizes[i] bytes. */
int pykv_get_many(struct pykv_store *store, size_t count, const uint8_t *keys,
                  const uint32_t *key_sizes, struct pykv_rows *rows);
/* present[i] becomes 1 or 0. */
int pykv_contains_many(struct pykv_store *store, size_t count, const uint8_t *keys,
                       const uint32_t *key_sizes, uint8_t *present);

/* Iterate over all keys that begin with `prefix`, as of `snapshot`, or of this instant where it is
 * NULL, each exactly once, in no order. pykv_scan_next() fills `rows` with some keys; PYKV_NOT_FOUND: no
 * more. mode is a sum of what each key has, in this order: its bytes (1), its value (2), its version and
 * its expiry, 0 for never, as two uint64_t (4). A scan is one thread's; close it, also after a failure. One
 * that has begun goes on after the snapshot was closed. */
int pykv_scan_open(struct pykv_store *store, struct pykv_snapshot *snapshot, const uint8_t *prefix,
                   size_t prefix_size, int mode, struct pykv_scan **out);
int pykv_scan_next(struct pykv_scan *scan, struct pykv_rows *rows);
void pykv_scan_close(struct pykv_scan *scan);

/* ---- Snapshots: one instant, readable until closed, whatever is written meanwhile. Taking one is
 * O(1) and copies nothing: old versions of a key are found in the log, step by step from the newest.
 * Each pin holds the past, and so space, for all processes. Any number of threads may share one ---- */

/* PYKV_BUSY: 1,024 snapshots and scans are open, in all processes. */
int pykv_snapshot_open(struct pykv_store *store, struct pykv_snapshot **out);
/* Close if need be, and take the present instant with the same handle: spares an allocation. */
int pykv_snapshot_renew(struct pykv_snapshot *snapshot);
/* Let the past go. Safe to repeat, and beside calls of other threads: later ones return PYKV_CLOSED.
 * After a fork both processes have the snapshot, and each closes its own. */
void pykv_snapshot_close(struct pykv_snapshot *snapshot);
int pykv_snapshot_closed(const struct pykv_snapshot *snapshot);    /* 1: it, or its store, is; 0 */
/* 1: so little has been written since that on the way back to a version no more than 1 MiB is read; 0. */
int pykv_snapshot_young(const struct pykv_snapshot *snapshot);
/* Closes if need be, and frees the handle, also after pykv_free() of the store; NULL is fine. */
void pykv_snapshot_free(struct pykv_snapshot *snapshot);

struct pykv_instant {
    uint64_t version;         /* of the newest batch that the snapshot sees */
    uint64_t keys;            /* present then; expired ones count until they are removed */
    uint64_t position;        /* end of the log then: for PYKV_EXPECT_PREFIX_UNCHANGED */
    uint64_t time_ms;         /* milliseconds since 1970; what had expired then is absent */
};
/* Valid also after the snapshot is closed. */
void pykv_snapshot_instant(const struct pykv_snapshot *snapshot, struct pykv_instant *out);

/* As the calls without "snapshot" in their names, for the instant of the snapshot. */
int64_t pykv_snapshot_get(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size,
                          uint8_t *buffer, size_t capacity, uint64_t *version);
int64_t pykv_snapshot_get_range(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size,
                                uint64_t offset, uint64_t length, uint8_t *buffer, size_t capacity,
                                uint64_t *value_size);
int pykv_snapshot_contains(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size,
                           uint64_t *expiry_ms);
int pykv_snapshot_view(struct pykv_snapshot *snapshot, const uint8_t *key, size_t key_size,
                       const uint8_t **value, size_t *value_size, struct pykv_pin **pin);
int pykv_snapshot_get_many(struct pykv_snapshot *snapshot, size_t count, const uint8_t *keys,
                           const uint32_t *key_sizes, struct pykv_rows *rows);
int pykv_snapshot_contains_many(struct pykv_snapshot *snapshot, size_t count, const uint8_t *keys,
                                const uint32_t *key_sizes, uint8_t *present);

/* ---- Writing: each call is one batch. durability: enum pykv_durability, DEFAULT for the store's.
 * *version, where not NULL, gets the version given to the batch. ---- */

/* expiry_ms: milliseconds since 1970 at which the record is gone; 0 for never. */
int pykv_put(struct pykv_store *store, const uint8_t *key, size_t key_size, const uint8_t *value,
             size_t value_size, uint64_t expiry_ms, int durability, uint64_t *version);
/* The same with neither an expiry nor a durability of its own, if that can be done at once: 1. Else 0, with nothing
 * changed: pykv_put() would wait for somebody, or see to something else first, or fail. */
int pykv_put_at_once(struct pykv_store *store, const uint8_t *key, size_t key_size, const uint8_t *value,
                     size_t value_size);

/* A file without a name on the store's disk, in which a value may be gathered that is to be put: readable and
 * writable, the caller's to close, and gone then. PYKV_READ_ONLY, PYKV_SYNC_FAILED as a put. */
int pykv_scratch(struct pykv_store *store, int *fd);

/* PYKV_OK if the key was present and is no more, PYKV_NOT_FOUND if it was absent. */
int pykv_delete(struct pykv_store *store, const uint8_t *key, size_t key_size, int durability);

/* Apply `count` operations as one batch. ops[i] is an enum pykv_op; keys and values lie end to end
 * in `keys` and `values` with their sizes beside; numbers[i] is the expiry of a put (0: never) or
 * the expected version. ops == NULL: all puts. value_sizes == NULL: no values (all deletes, or
 * expectations without a value). numbers == NULL: all 0. Where several puts or deletes name one
 * key, the last wins; preconditions are judged against the store as it was before the batch.
 * PYKV_CONFLICT: *failed, where not NULL, is the position of the first precondition that did not
 * hold. *deleted, where not NULL, is the number of keys that deletes removed. */
int pykv_write(struct pykv_store *store, size_t count, const uint8_t *ops, const uint8_t *keys,
               const uint32_t *key_sizes, const uint8_t *values, const uint32_t *value_sizes,
               const uint64_t *numbers, int durability, size_t *failed, uint64_t *deleted,
               uint64_t *version);

/* Put what another store had, as one batch, with the version that it had there. PYKV_CONFLICT, with nothing
 * written: the store has that version already, or a later one. The next batch gets the version after it. `count`
 * may be 0: of that version nothing is left. From the first call on the handle's helpers remove nothing
 * that has expired, since that takes a version: others do, and the next one to open the store. */
int pykv_load(struct pykv_store *store, uint64_t version, size_t count, const uint8_t *keys,
              const uint32_t *key_sizes, const uint8_t *values, const uint32_t *value_sizes,
              const uint64_t *expiries, int durability);

/* The end of a transaction: pykv_write() to the snapshot's store, and then pykv_snapshot_close(),
 * whatever came of it. Returns the version given to the batch; or -1000 + status for a failure; or,
 * for a conflict, -2000 - the position of the first precondition that did not hold. The arguments are
 * what a binding packs fastest. ops: `expect_count` preconditions, and behind them `write_count` puts
 * and deletes; versions and positions that are expected are the snapshot's. fields: all keys, and
 * behind them the values of the writes, end to end; sizes: of each, uint32_t of any alignment.
 * expiries: of the writes; NULL: never, none of them. */
int64_t pykv_snapshot_commit(struct pykv_snapshot *snapshot, size_t expect_count, size_t write_count,
                             const uint8_t *ops, const uint8_t *fields, const uint8_t *sizes,
                             const uint64_t *expiries, int durability);

/* Add `by` to the decimal integer stored under `key`, 0 if absent, and store the sum; atomic.
 * The expiry is kept unless set_expiry, which replaces it by expiry_ms (0: never). */
int pykv_incr(struct pykv_store *store, const uint8_t *key, size_t key_size, int64_t by,
              int set_expiry, uint64_t expiry_ms, int durability, int64_t *sum);

/* Give `key` another expiry, 0 for never; atomic. `later` nonzero: only if that is later than the one it
 * has. The record is written anew, value and all, unless nothing changes. PYKV_OK if the key is present,
 * PYKV_NOT_FOUND if not. */
int pykv_expire(struct pykv_store *store, const uint8_t *key, size_t key_size, uint64_t expiry_ms,
                int later, int durability);

/* Make everything acknowledged so far, by any process, survive a power cut. */
int pykv_sync(struct pykv_store *store);

/* Remove every key, as one batch. */
int pykv_clear(struct pykv_store *store, int durability);

/* ---- The store itself ---- */

struct pykv_stats {
    uint64_t keys;            /* keys present; expired ones count until they are removed */
    uint64_t version;         /* of the newest batch */
    uint64_t live_bytes;      /* bytes of the log that hold current records, headers included */
    uint64_t dead_bytes;      /* bytes of the log that hold replaced or deleted ones */
    uint64_t disk_bytes;      /* bytes of disk that all files of the store occupy */
    uint64_t keydir_bytes;    /* RAM of the keydir: buckets, overflow nodes, their reserve */
    uint64_t keydir_buckets;  /* of 8 slots, 64 bytes each */
    uint64_t keydir_nodes;    /* overflow nodes in use, 32 bytes each */
    uint64_t segments;        /* files of the log */
    uint64_t log_bytes;       /* live_bytes + dead_bytes */
    uint64_t unsynced_bytes;  /* bytes of the log that a power cut could take now */
    uint64_t checkpoint_version; /* version up to which the newest checkpoint reaches; 0: none */
    uint64_t processes;       /* processes that have the store open */
    uint64_t syncs;           /* fdatasyncs of the log since the keydir was made */
    uint64_t recovered_records; /* records replayed when this process opened the store */
    uint64_t damaged_records; /* damaged places that repair skipped at this open */
    uint64_t open_us;         /* microseconds that pykv_open() took */
    uint64_t snapshots;       /* snapshots and scans that are open, in all processes */
    uint64_t snapshot_versions; /* of the oldest of them: versions published since, */
    uint64_t snapshot_bytes;  /* bytes of the log written since, which it holds on disk, */
    uint64_t snapshot_ms;     /* milliseconds since it was taken */
    uint64_t log_limit_bytes; /* that log_bytes may reach before writers wait for compaction */
    uint64_t held_bytes;      /* of segments that only wait for snapshots to be closed, or are about to go */
    uint64_t written_bytes;   /* appended to the log, */
    uint64_t copied_bytes;    /* copied by compaction, */
    uint64_t freed_bytes;     /* and given back, since the keydir was made */
    uint64_t compacting;      /* number of the segment that is being compacted, 0: none */
    uint64_t compaction_paused; /* 1: by pykv_compaction_pause() */
};
int pykv_stats(struct pykv_store *store, struct pykv_stats *out);
/* Compaction goes on by itself. To have all dead space back now, begin with *progress zeroed and call
 * until progress->left is 0: each call compacts one of the segments that were there at the first. Space
 * that snapshots hold is given back when they are closed. */
struct pykv_progress {
    uint64_t left, total;     /* bytes of the segments that are still to be compacted; at the first call */
    uint64_t below;           /* the engine's own */
};
int pykv_compact(struct pykv_store *store, struct pykv_progress *progress);
/* Keep all processes from compacting by themselves, or let them again (0). The store then grows without
 * bound. Lasts until the keydir is rebuilt, at the latest after a reboot. */
int pykv_compaction_pause(struct pykv_store *store, int on);

/* The number of keys present. */
int pykv_count(struct pykv_store *store, uint64_t *out);

struct pykv_damage { uint64_t offset; uint64_t size; char path[64]; };
struct pykv_report {
    uint64_t segments, records, bytes;   /* that were read and verified */
    uint64_t damage_count;               /* damaged places, of which the first 64 are listed */
    struct pykv_damage damage[64];
    uint64_t skipped_count, skipped_bytes;  /* damaged places of the log that do not matter: no key
                                          * leads there, and no recovery, as a checkpoint is newer */
};
/* Read and verify every record of every segment, and every slot of the keydir against the log, with up to 8
 * threads. PYKV_OK: every key can be read, now and after a recovery. PYKV_CORRUPT: the report lists what is
 * damaged, in the order of segments and offsets; of a batch only what cannot be read. After a repair what it
 * left out counts as skipped. */
int pykv_verify(struct pykv_store *store, struct pykv_report *out);
/* The same a second at a time, so that one sees how far it is, and can leave it. */
struct pykv_verification;     /* one under way */
int pykv_verify_open(struct pykv_store *store, struct pykv_verification **out);
/* PYKV_OK, there is more; PYKV_NOT_FOUND, it is finished. `left` and `total` count bytes. One thread's. */
int pykv_verify_step(struct pykv_verification *verification, struct pykv_progress *out);
/* What was found, when it is finished, and all damaged places, valid until it is closed. */
const struct pykv_damage *pykv_verify_report(const struct pykv_verification *verification, struct pykv_report *out);
void pykv_verify_close(struct pykv_verification *verification);     /* NULL is fine */
/* What a PYKV_REPAIR_ASIDE went without, beside the records that verification tells: segments that are
 * missing or too short, a damaged manifest. Of a missing segment `size` is what it had, if that is
 * known. *out is valid until the store is closed. */
int pykv_damage_met(struct pykv_store *store, const struct pykv_damage **out, size_t *count);

/* ---- Backup: a copy of one instant in another directory, which is a store, while others write ---- */

enum pykv_backup_flag {
    PYKV_BACKUP_COPY = 1,     /* copy what could get a second name: nothing is shared with the store */
    PYKV_BACKUP_RESTORE = 2,  /* into a new directory, and the result is an ordinary store */
};
struct pykv_backup;           /* a backup under way */
struct pykv_backup_progress {
    uint64_t done, total;     /* bytes that are linked or copied; of those that were missing there */
    uint64_t linked, copied;  /* bytes, of `done` */
    uint64_t kept;            /* bytes that an older backup had already */
    uint64_t removed;         /* segments of an older backup that are no longer needed */
    uint64_t version, keys;   /* of the instant */
};
/* Begin to back up this instant to directory `path`: one that is new or empty, or holds a backup of this
 * store, of which whatever still counts is kept. Else PYKV_INVALID or PYKV_NOT_A_STORE, and nothing was
 * touched; PYKV_BUSY: somebody has it open. Until it is closed it holds space as a snapshot does. */
int pykv_backup_open(struct pykv_store *store, const char *path, int flags, struct pykv_backup **out);
/* Do some of it: PYKV_OK, there is more; PYKV_NOT_FOUND, it is finished and durable. After a failure, or if
 * it is closed before the end, an older backup there is as it was. One thread's. */
int pykv_backup_step(struct pykv_backup *backup, struct pykv_backup_progress *out);
void pykv_backup_close(struct pykv_backup *backup);     /* NULL is fine */
/* cffi: end */

#define PYKV_KEY_SIZE_MAX 65535u
#define PYKV_VALUE_SIZE_MAX 4294967295u

/* Open with another operating-system table: for tests (os.h). */
struct os;
int pykv_open_with(const struct os *os, const char *path, const struct pykv_options *options,
                   struct pykv_store **out);

#endif
