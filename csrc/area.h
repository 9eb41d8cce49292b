/* area.h -- an array in the shared space that grows without moving: in extents of doubling size,
 * which each process maps whole when it first needs them, and which get blocks step by step.
 *
 * An element is found by its position, in bytes from the array's start: extent 0 holds positions
 * [0, 64 Ki), extent k >= 1 holds [64 Ki << (k - 1), 64 Ki << k). New elements are zero.
 *
 * Any thread may look up; area_reserve() needs the store's writer lock, and death at any
 * instruction of it costs at most a hole in the space. */
#ifndef PYKV_AREA_H
#define PYKV_AREA_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "space.h"

#define AREA_EXTENTS 24u
#define AREA_SIZE_MIN UINT64_C(65536)                           /* of an area in use: one extent */
#define AREA_SIZE_MAX (AREA_SIZE_MIN << (AREA_EXTENTS - 1))

struct area {
    const struct space *space;
    _Atomic uint64_t *space_end;    /* shared: where the next extent of any area goes */
    _Atomic uint64_t *offset;       /* shared: of each of the extents in the space; 0: none yet */
    _Atomic uint64_t *reserved;     /* shared: how many elements have blocks */
    uint64_t element_size;          /* bytes: a power of two */
    _Atomic(unsigned char *) address[AREA_EXTENTS];     /* in this process; NULL: not mapped yet */
    unsigned mapped;                /* all extents before this one are: area_reserve() knows */
};

static inline unsigned area_extent(uint64_t position)
{
    return 63u - (unsigned)__builtin_clzll(position | AREA_SIZE_MIN / 2) - 15u;
}

static inline uint64_t area_extent_start(unsigned extent)       /* 0, 64 Ki, 128 Ki, 256 Ki ... */
{
    return AREA_SIZE_MIN / 2 << extent & ~(AREA_SIZE_MIN - 1);
}

/* The element at `position`, or NULL if its extent is not mapped yet. */
static inline void *area_at(const struct area *area, uint64_t position)
{
    unsigned extent = area_extent(position);
    unsigned char *address = atomic_load_explicit(&area->address[extent], memory_order_acquire);
    return address == NULL ? NULL : address + (position - area_extent_start(extent));
}

/* Map an extent into this process. PYKV_CORRUPT if it lies nowhere in the space. */
int area_map(struct area *area, unsigned extent);

/* As area_at(), but maps the extent where need be. The caller has held the element's number against
 * *reserved. */
static inline int area_get(struct area *area, uint64_t position, void **out)
{
    while ((*out = area_at(area, position)) == NULL) {
        int status = area_map(area, area_extent(position));
        if (status != 0)
            return status;
    }
    return 0;
}

/* Make sure that `count` elements have blocks, and that all are mapped here, those also that other
 * processes reserved. PYKV_FULL: the disk is, or AREA_SIZE_MAX is reached; nothing has changed. */
int area_reserve(struct area *area, uint64_t count);

/* Whether what the shared words say can be: PYKV_CORRUPT if an extent is missing, misaligned,
 * beyond the end of the space or of its file, or in the way of another one, of `other` too. */
int area_check(const struct area *area, const struct area *other);

void area_unmap(struct area *area);

#endif
