#define _GNU_SOURCE
#include "floor.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "checksum.h"

#define SLOT_BYTES_PER_KEY 11.6     /* of the keydir, on average (docs/design.md) */
#define LINE 64

double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static uint8_t *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    (void)madvise(memory, size, MADV_NOHUGEPAGE);
    return memset(memory, 1, size);     /* not zero: a page that was never written is the zero page */
}

bool floor_init(struct floor *out, size_t key_count)
{
    *out = (struct floor){ .line_count = (size_t)((double)key_count * SLOT_BYTES_PER_KEY) / LINE + 1,
                           .record_count = key_count };
    out->table = map(out->line_count * LINE);
    out->log = map(key_count * FLOOR_RECORD_SIZE);
    out->tail = map(key_count * FLOOR_RECORD_SIZE);
    return out->table != NULL && out->log != NULL && out->tail != NULL;
}

void floor_release(struct floor *floor)
{
    munmap(floor->table, floor->line_count * LINE);
    munmap(floor->log, floor->record_count * FLOOR_RECORD_SIZE);
    munmap(floor->tail, floor->record_count * FLOOR_RECORD_SIZE);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);      /* as splitmix64 does */
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* A place of so many, by the upper half of a product: a division would cost as much as a step. */
static size_t place(uint64_t x, size_t count) { return (size_t)((unsigned __int128)x * count >> 64); }

double floor_ns(const struct floor *floor, const struct floor_step *step)
{
    uint8_t value[FLOOR_VALUE_SIZE] = { 0 }, record[FLOOR_RECORD_SIZE] = { 0 }, *end = floor->tail;
    const uint8_t *lines[FLOOR_GROUP_MAX], *there[FLOOR_GROUP_MAX];
    uint64_t chain = 0, count = floor->record_count / step->group;
    double start = now_ns();
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < step->group; j++) {
            lines[j] = floor->table + place(mix(chain + i * step->group + j + 1), floor->line_count) * LINE;
            if (step->table)
                __builtin_prefetch(lines[j]);
        }
        for (size_t j = 0; j < step->group; j++) {
            uint64_t found = step->table ? *lines[j] : 0;
            there[j] = floor->log + place(mix((found + 1) * mix(chain + i * step->group + j + 1)), floor->record_count) *
                                        FLOOR_RECORD_SIZE;
            for (size_t at = 0; step->record ? at < FLOOR_RECORD_SIZE : step->key && at == 0; at += LINE)
                __builtin_prefetch(there[j] + at);
            chain += found;
        }
        for (size_t j = 0; j < step->group; j++) {
            uint64_t found = step->key ? *there[j] : 0;
            if (step->record) {
                found = crc32c(0, there[j], FLOOR_RECORD_SIZE);
                memcpy(value, there[j] + FLOOR_RECORD_SIZE - FLOOR_VALUE_SIZE, FLOOR_VALUE_SIZE);
                found += value[j];
            }
            if (step->append) {
                uint32_t crc = crc32c((uint32_t)found, record, FLOOR_RECORD_SIZE);
                memcpy(record, &crc, sizeof crc);
                memcpy(end, record, FLOOR_RECORD_SIZE);
                end += FLOOR_RECORD_SIZE;
            }
            chain += found;
        }
    }
    double took = now_ns() - start;
    volatile uint64_t used = chain + value[0];      /* or the compiler drops it all */
    (void)used;
    return took / (double)(count * step->group);
}
