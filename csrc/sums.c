/* sums.c -- see sums.h. */
#include "sums.h"

#include "checksum.h"
#include "error.h"

/* Go on from `crc` over at most SUMS_STEP bytes. */
static int add(const struct sums *sums, uint64_t offset, size_t size, uint32_t *crc)
{
    uint8_t buffer[SUMS_STEP];
    if (!sums->log->pread) {
        *crc = crc32c(*crc, sums->segment->base + offset, size);
        return PYKV_OK;
    }
    int status = segment_read(sums->log, sums->segment, buffer, size, offset);
    if (status == PYKV_OK)
        *crc = crc32c(*crc, buffer, size);
    return status;
}

int sums_make(struct sums *sums, const struct log *log, const struct segment *segment, uint64_t start, uint64_t end)
{
    uint64_t steps = (end - start) / SUMS_STEP;
    uint32_t crc = 0;
    int status = PYKV_OK;
    *sums = (struct sums){ .log = log, .segment = segment, .start = start, .end = end };
    if (!log->pread && end > segment->map_size)
        return PYKV_CORRUPT;
    sums->at = log->os->alloc(log->os, (size_t)(steps + 1) * sizeof *sums->at);
    if (sums->at == NULL)
        return error_no_memory((size_t)(steps + 1) * sizeof *sums->at);
    for (uint64_t step = 0; step < steps && status == PYKV_OK; step++) {
        status = add(sums, start + step * SUMS_STEP, SUMS_STEP, &crc);
        sums->at[step + 1] = crc;
    }
    if (status != PYKV_OK)
        sums_release(sums);
    return status;
}

void sums_release(struct sums *sums)
{
    if (sums->at != NULL)
        sums->log->os->release(sums->log->os, sums->at);
    sums->at = NULL;
}

/* crc32c(0, [start, offset)). */
static int sum_to(const struct sums *sums, uint64_t offset, uint32_t *out)
{
    uint64_t step = (offset - sums->start) / SUMS_STEP, begin = sums->start + step * SUMS_STEP;
    *out = sums->at[step];
    return add(sums, begin, (size_t)(offset - begin), out);
}

int sums_range(const struct sums *sums, uint32_t seed, uint64_t from, uint64_t to, uint32_t *out)
{
    uint32_t before = 0, whole = 0;
    int status = sum_to(sums, from, &before);
    if (status == PYKV_OK)
        status = sum_to(sums, to, &whole);
    *out = whole ^ crc32c_shift(before ^ seed, to - from);
    return status;
}
