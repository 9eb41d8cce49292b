/* shared.h -- the state that all processes of one boot share: the first part of the file `keydir`,
 * mapped by each. Behind it in the same file lie the extents of the keydir's table.
 *
 * The rule that makes death harmless: every step of a write leaves a state from which the next
 * writer can go on. What a writer does, and what its successor finds if it dies behind that step:
 *
 *     1 writing_end = end of the frame      nothing happened; the range up to there is zeroed
 *     2 the frame's bytes into the log      the same
 *     3 tail = end of the frame             the frame counts: its successor replays it from
 *                                           counters.position, and whatever is done twice is
 *                                           done alike (shared counters are written, not added)
 *     4 slots of the keydir, one by one     the same; readers step back over records newer than
 *                                           `published`, so nobody sees half a batch
 *     5 published = sequence and the half   the batch is visible, at once
 *       of `counters` that belongs to it
 *
 * Whether an owner of a lock or slot still lives is told by a file lock that it holds (os.h), never
 * by its process id. */
#ifndef PYKV_SHARED_H
#define PYKV_SHARED_H

#include <stdatomic.h>

#include "format.h"
#include "hash.h"
#include "keydir.h"
#include "os.h"

#define SHARED_LAYOUT 10u
#define PROCESS_SLOT_COUNT 1024u
#define PIN_COUNT 1024u
#define SEGMENT_ID_MAX ((UINT64_C(1) << 33) - 1)

/* A place in the log as a number that grows with the log: segment id above, offset in units of 16
 * bytes below. */
#define POSITION_OFFSET_BITS 30u
static inline uint64_t position_make(uint64_t segment_id, uint64_t offset)
{
    return segment_id << POSITION_OFFSET_BITS | offset / RECORD_ALIGNMENT;
}
static inline uint64_t position_segment(uint64_t position) { return position >> POSITION_OFFSET_BITS; }
static inline uint64_t position_offset(uint64_t position)
{
    return (position & ((UINT64_C(1) << POSITION_OFFSET_BITS) - 1)) * RECORD_ALIGNMENT;
}

/* Written once, before the file gets its name. A file whose identity is not that of this boot, this
 * machine and this very inode is a leftover: of another boot, of a copied directory. */
struct shared_identity {
    uint8_t magic[8];                   /* "pykvshm\n" */
    uint32_t layout;                    /* SHARED_LAYOUT */
    uint32_t size;                      /* of struct shared: another build may lay it out otherwise */
    uint8_t boot_id[16], store_id[16], hash_key[16];
    uint64_t device, inode;
    uint32_t zero, crc;                 /* CRC-32C of all before */
};

/* Owner (process slot + 1) in bits 0..11, a count of acquisitions in 12..30, bit 31: waiters. */
struct shared_lock {
    _Alignas(64) _Atomic uint32_t word;
};

/* What changes with every batch, twice: the low bit of `published` tells which one counts. */
struct shared_counters {
    uint64_t position;                  /* the log up to here is in the keydir */
    uint64_t sequence;
    uint64_t keys;
    uint64_t live_bytes;
};

/* One of the 4,096 segments that can exist at a time; its index is id % 4096. */
struct segment_entry {
    _Atomic uint64_t id;                /* 0: none */
    _Atomic uint64_t length;            /* bytes: of a sealed one, 0 while it is active; of what
                                         * compaction has written so far */
    _Atomic uint64_t live_bytes;        /* of current records; exact but for one batch a death */
    _Atomic uint64_t retired;           /* what was live has left it, durably, when the newest batch had
                                         * the version before this; 0: not */
    _Atomic uint64_t tombstone_newest;  /* version of the newest tombstone in it that is known of */
    _Atomic uint64_t tombstone_bytes;   /* of those known of */
    _Atomic uint64_t expiry_next;       /* when it is to be looked through for what has expired, in ms since
                                         * 1970; 0: nothing in it will expire. Writers of records lower it,
                                         * with expiry_note(); expire.c sets it anew. (W) */
    _Atomic uint64_t birth;             /* version of the newest batch when it was begun */
    _Atomic uint64_t capacity;
    _Atomic uint32_t synced;            /* 0: not durable, or not all; 1: sealed and durable; 2: and
                                         * trimmed. What compaction wrote is durable once the manifest
                                         * lists it, and never changes from then on */
    _Atomic uint16_t kind;              /* enum segment_kind */
    _Atomic uint16_t damaged;           /* compaction met damage there: it stays as it is */
};

/* In segment_entry.retired: nothing leads there any more, but what was copied is not yet durable. */
#define SEGMENT_EMPTIED UINT64_MAX

/* Whether it only waits for older instants. */
static inline bool segment_retired(const struct segment_entry *entry)
{
    uint64_t retired = atomic_load_explicit(&entry->retired, memory_order_relaxed);
    return retired != 0 && retired != SEGMENT_EMPTIED;
}

/* All but the id and the length of a segment that holds nothing yet. */
static inline void segment_enter(struct segment_entry *entry, uint32_t kind, uint64_t capacity, uint64_t birth)
{
    atomic_store(&entry->kind, (uint16_t)kind);
    atomic_store(&entry->capacity, capacity);
    atomic_store(&entry->birth, birth);
    atomic_store(&entry->live_bytes, 0);
    atomic_store(&entry->retired, 0);
    atomic_store(&entry->tombstone_newest, 0);
    atomic_store(&entry->tombstone_bytes, 0);
    atomic_store(&entry->expiry_next, 0);
    atomic_store(&entry->damaged, 0);
    atomic_store(&entry->synced, 0);
}

/* (W) Before a slot leads to a record that expires, into the word that tells when it is to be removed. */
static inline void expiry_note(_Atomic uint64_t *next, uint64_t expiry)
{
    uint64_t now = atomic_load_explicit(next, memory_order_relaxed);
    if (now == 0 || expiry < now)
        atomic_store_explicit(next, expiry == 0 ? 1 : expiry, memory_order_relaxed);
}

/* An instant that somebody looks at. What is behind `owner` is for figures alone: for a moment it may
 * be that of the pin that was here before. */
struct pin_entry {
    _Atomic uint64_t owner;             /* (process slot + 1) << 48 | sequence; 0: free */
    _Atomic uint64_t position;          /* end of the log at that instant */
    _Atomic uint64_t since_ms;          /* when it was taken, by the clock since boot */
};

struct shared {
    struct shared_identity identity;

    _Alignas(64) _Atomic uint64_t published;    /* sequence << 1 | index of the counters */

    struct shared_lock writer;          /* all that changes the log or the keydir */
    struct shared_lock extend;          /* moving `reserved`; taken inside `writer`, or alone */
    struct shared_lock sync;            /* the one who calls fdatasync */
    struct shared_lock maintain;        /* syncs of sealed segments, checkpoints, compaction */

    _Alignas(64) _Atomic uint64_t tail; /* end of the log */
    _Atomic uint64_t writing_end;       /* the writer may have dirtied the log up to here */
    _Atomic uint64_t reserved;          /* the active segment is zeroed and has blocks up to here */
    _Atomic uint64_t written_bytes;     /* appended to the log since the keydir was made */
    uint64_t marked;                    /* durable position that the newest MARK tells */
    _Atomic uint64_t segment_id_next;

    _Alignas(64) _Atomic uint64_t durable;      /* the log up to here survives a power cut */
    _Atomic uint32_t sync_round;        /* counts finished syncs: the word committers sleep on */
    _Atomic uint32_t sync_slept;        /* 1 + the newest round whose end somebody slept for: a hint */
    _Atomic uint32_t sync_failed;       /* nonzero: writes are refused until the store is reopened */
    _Atomic uint64_t sync_count;
    _Atomic uint64_t directory_synced;  /* segments up to this id have a durable name */
    uint64_t sync_sequence, sync_goal;  /* of who holds `sync`: the version when the last sync began, and the one at
                                         * which there have been as many batches again as it covered: hints */

    _Alignas(64) _Atomic uint32_t pin_limit;    /* pins from here on have never been used */
    _Atomic uint32_t pin_changes;       /* counts pins that were taken */
    _Atomic uint64_t dead_slots;        /* slots that point at tombstones: to be swept, a hint */
    _Atomic uint64_t forgotten;         /* version of the newest batch when a tombstone's slot was last
                                         * removed: what was before it may be lost to older instants */
    _Atomic uint64_t checkpoint_position, checkpoint_sequence, checkpoint_id;
    _Atomic uint64_t checkpoint_start;  /* a recovery reads the log from here on, */
    _Atomic uint64_t checkpoint_segments;   /* and what compaction wrote to segments from this one on */
    _Atomic uint64_t checkpoint_written;    /* written_bytes when the newest one was begun */
    _Atomic uint64_t manifest_position; /* durable position that the manifest on disk tells */

    _Alignas(64) _Atomic uint32_t pressure;     /* of dead space, in thousandths of what there may be
                                         * before writers wait: compact.c */
    _Atomic uint32_t compaction_paused; /* by the user, for all processes */
    _Atomic uint64_t compacting;        /* id of the segment that is being emptied, 0: none */
    _Atomic uint64_t copied_bytes;      /* by compaction, since the keydir was made */
    _Atomic uint64_t freed_bytes;       /* of the segments that it removed */
    _Atomic uint64_t removals;          /* counts segments that were removed: whoever fails to read a
                                         * place looks whether this moved meanwhile */
    _Atomic uint64_t reserve_size;      /* bytes that the file `reserve` keeps for deletes and compaction; (W) */
    _Atomic uint32_t reserve_lent;      /* it is not whole: puts are refused; 2: compaction has all of it */
    _Atomic uint32_t disk_full;         /* a write met that: compaction is due wherever something is dead */

    _Alignas(64) _Atomic uint64_t expiry_since; /* the first expiry of what was written since the active
                                         * segment was last looked through, 0: none; (W) */
    _Atomic uint64_t expiry_rest_ms;    /* that one is left alone until then, by the clock since boot */

    _Alignas(64) _Atomic uint64_t counters[2][8];   /* the fields of struct shared_counters */
    _Alignas(64) struct keydir_shared keydir;
    _Alignas(64) struct segment_entry segments[SEGMENT_SLOT_COUNT];
    struct pin_entry pins[PIN_COUNT];
};

/* Where a segment is told of, if it is there. */
static inline struct segment_entry *segment_of(struct shared *shared, uint64_t id)
{
    return &shared->segments[id % SEGMENT_SLOT_COUNT];
}

#define SHARED_SIZE ((sizeof(struct shared) + SPACE_ALIGNMENT - 1) / SPACE_ALIGNMENT * SPACE_ALIGNMENT)

static inline uint64_t shared_sequence(const struct shared *shared)
{
    return atomic_load_explicit(&shared->published, memory_order_acquire) >> 1;
}
/* The counters that belong to what is published now. */
struct shared_counters shared_counters(const struct shared *shared);
/* (W) Write the half that does not count, and make it count by one store. */
void shared_counters_publish(struct shared *shared, const struct shared_counters *counters);

/* Bytes of the log between a position and its end. */
uint64_t shared_bytes_since(const struct shared *shared, uint64_t position);

void shared_identity_seal(struct shared_identity *identity);
/* Whether the identity holds together (magic, layout, size, checksum) and names this boot and file. */
bool shared_identity_matches(const struct shared_identity *identity, const struct os_identity *boot,
                             const struct os_stat *stat);

/* What a process needs to take part: its slot, and the lock file that proves that it lives. */
struct process {
    const struct os *os;
    int lock_fd;                        /* -1: alone, nothing is shared */
    uint32_t slot;
};

/* Take a free process slot. PYKV_BUSY if all are taken. Closing the lock file gives it up. */
int process_join(struct process *process);
/* Whether the process that holds `slot` still lives. Our own does. */
bool process_alive(const struct process *process, uint32_t slot);
/* Whether any process other than this one lives. */
int process_others(const struct process *process, bool *others);
uint64_t process_count(const struct process *process);
/* Keep a lock on the keydir too, until it is closed: whoever removes the lock file of a store in use,
 * as one removes what looks stale, must not let in a process that takes itself for the only one.
 * holds: whether any other process does. */
int process_hold(const struct process *process, int keydir_fd);
int process_holds(const struct process *process, int keydir_fd, bool *held);
/* Who has no place among the processes, since the lock file is not theirs to write to, holds a byte of
 * the keydir; readers: whether somebody does. */
void process_hold_reading(const struct process *process, int keydir_fd);
int process_readers(const struct process *process, int keydir_fd, bool *readers);
/* The lock that openers take in turn, on the same file. */
int process_setup_lock(const struct process *process);
void process_setup_unlock(const struct process *process);
/* The lock of one who writes a backup to the directory: PYKV_BUSY if another does. */
int process_backup_lock(const struct process *process);
void process_backup_unlock(const struct process *process);

/* Acquire; *died tells that the last owner died with it, so that the caller repairs what it guards.
 * A waiter sleeps; one that has waited some milliseconds asks whether the owner lives. */
void shared_lock_acquire(struct shared_lock *lock, const struct process *process, bool *died);
bool shared_lock_try(struct shared_lock *lock, const struct process *process, bool *died);
/* Acquire it if its owner died with it, without waiting: a look at a file lock. */
bool shared_lock_replace(struct shared_lock *lock, const struct process *process);
void shared_lock_release(struct shared_lock *lock, const struct process *process);
/* Take over a lock whose owner had the slot that is now ours. True if it was so. */
bool shared_lock_inherit(struct shared_lock *lock, const struct process *process);

/* Whether a snapshot or scan is open. There is no count of them, since a death between pinning and
 * counting would leave it wrong; mostly there are none, or a few at the beginning. An instant may go
 * from one pin to another behind our back, but not without a pin being taken: then we look again. */
static inline bool shared_pinned(const struct shared *shared)
{
    uint32_t changes;
    do {
        changes = atomic_load(&shared->pin_changes);
        uint32_t limit = atomic_load(&shared->pin_limit);
        for (uint32_t i = 0; i < limit && i < PIN_COUNT; i++)
            if (atomic_load(&shared->pins[i].owner) != 0)
                return true;
    } while (atomic_load(&shared->pin_changes) != changes);
    return false;
}
/* (W) The same, for who is about to forget what was before the batch just published. Once it is false,
 * nobody will need that: who pins changes the count first and reads the clock second, we published
 * first and touch the count second. So we see the pin, or the pin sees the batch. */
static inline bool shared_past_pinned(struct shared *shared)
{
    (void)atomic_fetch_add(&shared->pin_changes, 0);
    return shared_pinned(shared);
}

/* The oldest instant that is pinned, UINT64_MAX if none is. Who looks has first made what it is about
 * to remove unreachable for those who pin from now on. */
uint64_t shared_oldest_pin(struct shared *shared);

/* Pin the present instant: from here on no delete forgets what was before it. *instant tells it, *pin
 * is its handle. PYKV_BUSY if all pins are taken. */
int shared_pin(struct shared *shared, const struct process *process, uint32_t *pin,
               struct shared_counters *instant);
/* Pin an instant that another pin of ours holds, which may be let go of from now on. */
int shared_pin_too(struct shared *shared, const struct process *process, uint32_t *pin,
                   const struct shared_counters *instant);
/* Free the pin that was taken at `sequence`. After a fork it may be another one than `pin`. */
void shared_unpin(struct shared *shared, const struct process *process, uint32_t pin, uint64_t sequence);
/* Free all pins of a process slot. */
void shared_unpin_process(struct shared *shared, uint32_t slot);
/* Free the pins of processes that are gone. */
void shared_unpin_dead(struct shared *shared, const struct process *process);
/* Whether a pin of ours holds the instant of `sequence`: not so after a fork, if the parent let go of it before. */
bool shared_pin_held(const struct shared *shared, const struct process *process, uint64_t sequence);
/* Give the slot `to` the pins that `from` has, which keeps them. One that it lets go of meanwhile is not given. */
void shared_pins_copy(struct shared *shared, uint32_t from, uint32_t to);

#endif
