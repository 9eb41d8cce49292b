/* sums.h -- the checksum of any range of a segment for the price of reading two short pieces of it, and
 * of reading all before its end once. The search behind damage (walk.c) asks at each 16 bytes whether a
 * record is there, and what stands there tells how long it would be: bytes of somebody's value can tell
 * of a long one at each place, and to read each of these would take days. */
#ifndef PYKV_SUMS_H
#define PYKV_SUMS_H

#include <stddef.h>
#include <stdint.h>

struct log;
struct segment;

#define SUMS_STEP 4096u         /* bytes for each checksum of 4: a MiB of memory for a GiB of segment */

struct sums {
    const struct log *log;
    const struct segment *segment;
    uint64_t start, end;        /* offsets in the segment */
    uint32_t *at;               /* at[n]: crc32c(0, [start, start + n * SUMS_STEP)). NULL: not begun */
    size_t count;               /* of those that are known */
};

/* For ranges in [start, end); nothing is read yet. PYKV_NO_MEMORY, or PYKV_CORRUPT if no segment
 * can be so long. */
int sums_init(struct sums *sums, const struct log *log, const struct segment *segment, uint64_t start, uint64_t end);
void sums_release(struct sums *sums);           /* also of what is zeroed and was never begun */
/* crc32c(seed, bytes from `from` to `to`), start <= from <= to <= end. Reads on to `to` if it must:
 * PYKV_CORRUPT if the file ends before, PYKV_IO; what was read before a failure stays known. */
int sums_range(struct sums *sums, uint32_t seed, uint64_t from, uint64_t to, uint32_t *out);

#endif
