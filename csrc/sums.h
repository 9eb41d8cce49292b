/* sums.h -- the checksum of any range of a segment for the price of reading two short pieces of it,
 * once the whole has been read. The search behind damage (walk.c) asks at each 16 bytes whether a
 * record is there, and what stands there tells how long it would be: bytes of somebody's value can
 * tell of a long one at each place, and to read each of these would take days. */
#ifndef PYKV_SUMS_H
#define PYKV_SUMS_H

#include "log.h"

struct sums {
    const struct log *log;
    const struct segment *segment;
    uint64_t start, end;
    uint32_t *at;               /* of [start, start + n * SUMS_STEP); NULL: not made yet */
};
#define SUMS_STEP 4096u

/* Read [start, end) and note its checksums. A status. */
int sums_make(struct sums *sums, const struct log *log, const struct segment *segment, uint64_t start, uint64_t end);
void sums_release(struct sums *sums);           /* also of what was never made, if it is zeroed */
/* crc32c(seed, bytes from `from` to `to`), both within [start, end]. A status: reading can fail. */
int sums_range(const struct sums *sums, uint32_t seed, uint64_t from, uint64_t to, uint32_t *out);

#endif
