/* usage.h -- how much of the disk the log takes, how much it may, and which segment gives some back: what
 * compaction decides by. All of it is derived from the table of segments, whenever it is asked for. */
#ifndef PYKV_USAGE_H
#define PYKV_USAGE_H

#include "store.h"

#define LITTLE (UINT64_C(1) << 20)  /* dead bytes that an idle store is not tidied up for */

struct usage {
    uint64_t segment, log;      /* what log_capacity() tells. For the copies, which it does not count, the
                                 * limit leaves room */
    uint64_t live;              /* bytes of the log */
    uint64_t limit, begin;      /* bytes that the log may have; from where on it is compacted */
    uint64_t portion;           /* of segments that are emptied before the space of any is given back: one sync
                                 * and one manifest are enough for as much as such a store can wait for */
    uint64_t room;              /* bytes that compaction may copy before it has given something back */
    uint64_t births[2];         /* the lowest, and the one after it */
    uint64_t oldest;            /* version that the oldest snapshot sees */
    bool hope;                  /* some segment will give space, now or when it is durable */
};
void usage_measure(struct pykv_store *store, struct usage *out);
/* Tombstones up to this version are needless in a segment: by the births of all others there is nothing older that
 * they hide, and no snapshot is older, for which their slots would have to stay. */
uint64_t usage_needless(const struct usage *usage, const struct segment_entry *entry);

/* The segment to compact next, 0: none. Where the log is about to outgrow its bound, what gives most; at
 * any time, what is nearly empty; and what is half empty when nobody writes. */
uint64_t usage_choose_due(struct pykv_store *store, const struct usage *usage);
/* Where the disk or the limit of the store is reached: what gives space at all. */
uint64_t usage_choose_full(struct pykv_store *store, const struct usage *usage);
/* Of all that were there when a run through all of the store began: the oldest first, since tombstones go
 * when what is older has gone. *left: bytes of those that are to be compacted. */
uint64_t usage_choose_next(struct pykv_store *store, const struct usage *usage, uint64_t below, uint64_t *left);
/* Whether of the active segment one part in so many is dead, so that it is worth ending. Its tombstones
 * count as dead, too: by the time that its turn comes there may be nothing left that they hide. */
bool usage_active_dead(struct pykv_store *store, uint64_t least, uint64_t part);
/* Whether the log is to be compacted and the active segment is longer than a new one would be, begun when the
 * log was larger or by a process with larger ones: what is dead in it counts, and can't be given back. */
bool usage_active_long(struct pykv_store *store, const struct usage *usage);

#endif
