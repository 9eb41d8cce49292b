/* keydir.h -- where the newest record of a key may be: a table of 8-byte slots, each a hash tag and
 * a location. It holds no keys, so it answers "perhaps there", and the log has the last word.
 *
 * Readers take no lock, in any process. Every function marked (W) needs the store's writer lock.
 * Death at any instruction of a (W) function leaves a table that keydir_repair() makes whole: a
 * reader meanwhile finds every key that was there.
 *
 * Linear hashing: the table grows one bucket at a time. A bucket is a cache line of 8 slots; the
 * last slot of a full bucket becomes a link to an overflow node of 4 slots (half a line), whose
 * last slot may be a link again. Bucket number = low bits of the hash; the slot's tag holds the
 * hash bits from KEYDIR_LEVEL_MIN on, so a split needs nothing but the slots.
 *
 *     slot:  63..41 tag, 23 bits of the hash | 40 dead | 39..0 location; 0 is an empty slot
 *            a location of all ones in bits 39..28 (segment slot 4095) marks a link: bits 0..27 and
 *            the tag's bits hold the node's number. Segment slot 4095 is never given to a segment.
 *            Location 0 is none: no record may lie at offset 0 of segment slot 0. */
#ifndef PYKV_KEYDIR_H
#define PYKV_KEYDIR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "space.h"

#define KEYDIR_LEVEL_MIN 10u        /* an empty table has 2^10 buckets, 64 KiB */
#define KEYDIR_LEVEL_MAX 33u
#define KEYDIR_EXTENTS (KEYDIR_LEVEL_MAX - KEYDIR_LEVEL_MIN + 1)
#define KEYDIR_SEGMENT_SLOT_LINK 4095u

/* The part that all processes share; zeroed when the space is new. The first 32 bytes are read by
 * every lookup and change at splits alone; what each insert changes is kept far behind them, so
 * that a writer does not keep taking the readers' cache line away. */
struct keydir_shared {
    _Atomic uint64_t bucket_count;      /* buckets in use: the geometry */
    _Atomic uint64_t version;           /* counts moves of slots: see keydir_probe_moved() */
    _Atomic uint64_t bucket_reserved;   /* buckets that have blocks */
    _Atomic uint64_t node_reserved;     /* nodes that have blocks */
    _Atomic uint64_t space_end;         /* where the next extent goes in the space */
    _Atomic uint64_t bucket_extent[KEYDIR_EXTENTS];  /* offset in the space; 0: not yet */
    _Atomic uint64_t node_extent[KEYDIR_EXTENTS];
    _Atomic uint64_t slot_count;        /* slots in use, dead ones included; each death of a writer
                                           may leave it wrong by one */
    _Atomic uint64_t node_count;        /* nodes ever handed out */
    _Atomic uint64_t node_free;         /* first of the free list, plus 1; 0: none */
    _Atomic uint64_t node_free_count;
    _Atomic uint64_t moving;            /* bucket whose slots are being moved, plus 1; 0: none */
};

struct keydir;                          /* a process's view: opaque */

/* Attach to the table in `space` whose shared part is `shared`. A new table (bucket_count 0) is
 * made (W) at shared->space_end, which the caller has set. PYKV_CORRUPT if the shared part does not
 * hold together (counts beyond their reserve, extents that overlap, or beyond the space). */
int keydir_open(const struct os *os, const struct space *space, struct keydir_shared *shared,
                struct keydir **out);
void keydir_close(struct keydir *keydir);           /* unmaps; NULL is fine */

/* One lookup: candidates are locations whose tag agrees; the caller confirms each by key. */
struct keydir_probe {
    uint64_t hash, version;
    const _Atomic uint64_t *group;      /* bucket or node being read */
    uint32_t slot, slot_count, steps;
    bool dead;                          /* of the candidate: it is a tombstone */
    int status;                         /* at the end: PYKV_OK, or why there may be more candidates */
};
/* A status: mapping a new piece of the table can fail. Loads what keydir_probe_moved() compares. */
int keydir_probe(struct keydir *keydir, uint64_t hash, struct keydir_probe *probe);
/* The next candidate's location, or 0 at the end. Bounded, whatever the memory holds. The end proves
 * absence only if probe->status is PYKV_OK: a piece of the table may refuse to be mapped. */
uint64_t keydir_probe_next(struct keydir *keydir, struct keydir_probe *probe);
/* After an end that is PYKV_OK: whether slots moved meanwhile, so that absence is not proven: probe again. */
bool keydir_probe_moved(const struct keydir *keydir, const struct keydir_probe *probe);
/* Whether a slot with this hash still points at `location`: what a reader asks that found something
 * odd there, before it calls that corruption. */
bool keydir_holds(struct keydir *keydir, uint64_t hash, uint64_t location);

/* Where the last candidate was found, for a writer that is about to replace it. */
struct keydir_place {
    const _Atomic uint64_t *word;       /* NULL: not known */
    uint64_t version;                   /* it is there while this stands still */
};
static inline struct keydir_place keydir_probe_place(const struct keydir_probe *probe)
{
    return (struct keydir_place){ .word = &probe->group[probe->slot - 1], .version = probe->version };
}

/* Start fetching the bucket of `hash` into the cache; or that of a lookup that has begun. */
void keydir_prefetch(struct keydir *keydir, uint64_t hash);
static inline void keydir_probe_prefetch(const struct keydir_probe *probe)
{
    __builtin_prefetch((const void *)(uintptr_t)probe->group);
}

/* (W) Make room for `count` more slots: splits buckets and reserves nodes, so that the inserts that
 * follow cannot fail. PYKV_FULL or PYKV_NO_MEMORY: nothing has changed. */
int keydir_reserve(struct keydir *keydir, uint64_t count);
/* (W) Add a slot. Room was reserved: false, with nothing changed, only if the memory is damaged. */
bool keydir_insert(struct keydir *keydir, uint64_t hash, uint64_t location, bool dead);
/* (W) Make the slot of `hash` that points at `from` point at `to`, in one atomic store: the commit
 * point of the key. `place`: where it was found, to spare a search; {0} if that is not known. False,
 * with nothing changed, if there is no such slot. */
bool keydir_replace(struct keydir *keydir, uint64_t hash, struct keydir_place place, uint64_t from, uint64_t to,
                    bool dead);
/* (W) Empty the slot of `hash` that points at `location`. False if there is none. */
bool keydir_remove(struct keydir *keydir, uint64_t hash, uint64_t location);
/* (W) After a death in the middle of any of the above: finish what it was moving. O(1). A node that
 * was on its way between two chains may be lost. PYKV_CORRUPT: rebuild the table from the log. */
int keydir_repair(struct keydir *keydir);

/* Iteration over the geometry of `bucket_count` buckets (keydir_shared.bucket_count at its start):
 * all slots, dead ones too, that bucket number `bucket` < bucket_count and the buckets split off
 * from it since now hold: each key's exactly once however much the table has grown. Writes at most
 * `capacity` slot words to `slots`; *count is how many there are. A status; PYKV_NO_MEMORY with
 * *count > capacity if there is more, at most, than `slots` can take. Without a lock; retries while
 * slots move. */
int keydir_collect(struct keydir *keydir, uint64_t bucket_count, uint64_t bucket, uint64_t *slots,
                   size_t capacity, size_t *count);
static inline uint64_t keydir_slot_location(uint64_t slot)
{
    return slot & ((UINT64_C(1) << 40) - 1);
}
static inline bool keydir_slot_dead(uint64_t slot) { return (slot >> 40 & 1) != 0; }

/* For checkpoints: the hash bits of a slot found in `bucket` (of now): the low
 * KEYDIR_LEVEL_MAX bits, all that the table ever uses. keydir_insert() takes it for the hash. */
static inline uint64_t keydir_slot_hash(uint64_t slot, uint64_t bucket)
{
    return (slot >> 41) << KEYDIR_LEVEL_MIN | (bucket & ((1u << KEYDIR_LEVEL_MIN) - 1));
}

/* RAM that the table occupies, reserve included, in bytes. */
uint64_t keydir_memory_size(const struct keydir *keydir);

#endif
