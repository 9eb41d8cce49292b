/* sums.c -- see sums.h. A checksum of what begins at one place is noted every SUMS_STEP bytes. Of two
 * such, that of the bytes between follows (crc32c_shift), and so that of a range with any seed. */
#include "sums.h"

#include <assert.h>

#include "checksum.h"
#include "error.h"
#include "log.h"

int sums_init(struct sums *sums, const struct log *log, const struct segment *segment, uint64_t start, uint64_t end)
{
    assert(start <= end);
    if (end > LOG_CAPACITY_MAX)         /* so long a file is none of ours */
        return PYKV_CORRUPT;
    size_t size = ((size_t)((end - start) / SUMS_STEP) + 1) * sizeof *sums->at;
    *sums = (struct sums){ .log = log, .segment = segment, .start = start, .end = end, .count = 1 };
    sums->at = log->os->alloc(log->os, size);       /* zeroed, and at[0] is the checksum of nothing */
    return sums->at == NULL ? error_no_memory(size) : PYKV_OK;
}

void sums_release(struct sums *sums)
{
    if (sums->at != NULL)
        sums->log->os->release(sums->log->os, sums->at);
    sums->at = NULL;
}

/* Go on from `crc` over at most SUMS_STEP bytes. */
static int add(const struct sums *sums, uint64_t offset, size_t size, uint32_t *crc)
{
    uint8_t buffer[SUMS_STEP];
    const uint8_t *bytes = buffer;
    if (!sums->log->pread) {
        if (offset > sums->segment->map_size || size > sums->segment->map_size - offset)
            return PYKV_CORRUPT;
        bytes = sums->segment->base + offset;
    } else {
        int status = segment_read(sums->log, sums->segment, buffer, size, offset);
        if (status != PYKV_OK)
            return status;
    }
    *crc = crc32c(*crc, bytes, size);
    return PYKV_OK;
}

/* crc32c(0, [start, offset)). */
static int sum_to(struct sums *sums, uint64_t offset, uint32_t *out)
{
    size_t step = (size_t)((offset - sums->start) / SUMS_STEP);
    for (; sums->count <= step; sums->count++) {
        uint32_t crc = sums->at[sums->count - 1];
        int status = add(sums, sums->start + (uint64_t)(sums->count - 1) * SUMS_STEP, SUMS_STEP, &crc);
        if (status != PYKV_OK)
            return status;
        sums->at[sums->count] = crc;
    }
    uint64_t begin = sums->start + (uint64_t)step * SUMS_STEP;
    *out = sums->at[step];
    return add(sums, begin, (size_t)(offset - begin), out);
}

int sums_range(struct sums *sums, uint32_t seed, uint64_t from, uint64_t to, uint32_t *out)
{
    uint32_t before, whole;
    assert(sums->start <= from && from <= to && to <= sums->end);
    int status = sum_to(sums, from, &before);
    if (status == PYKV_OK)
        status = sum_to(sums, to, &whole);
    if (status == PYKV_OK)
        *out = whole ^ crc32c_shift(before ^ seed, to - from);
    return status;
}
