#include "area.h"

#include "error.h"

/* Blocks are reserved in steps of 1/128 of the extent: what lies in reserve stays small beside what
 * is used, and no step takes long. */
#define STEPS_IN_EXTENT 128u
#define STEP_SIZE_MAX (UINT64_C(1) << 20)

static uint64_t load(const _Atomic uint64_t *from)
{
    return atomic_load_explicit(from, memory_order_acquire);
}

static void store(_Atomic uint64_t *to, uint64_t value)
{
    atomic_store_explicit(to, value, memory_order_release);
}

static uint64_t extent_size(unsigned extent)
{
    return extent == 0 ? AREA_SIZE_MIN : area_extent_start(extent);
}

static int damaged(const struct area *area, uint64_t offset, const char *what)
{
    return error_corrupt(area->space->name, offset, what);
}

static int extent_check(const struct area *area, unsigned extent)
{
    uint64_t offset = load(&area->offset[extent]), size = extent_size(extent);
    uint64_t end = load(area->space_end);       /* raised first, so read last */
    if (offset == 0 || offset % SPACE_ALIGNMENT != 0 || end < size || offset > end - size)
        return damaged(area, offset, "an extent of the keydir lies nowhere in it");
    return PYKV_OK;
}

int area_map(struct area *area, unsigned extent)
{
    void *address;
    unsigned char *none = NULL;
    size_t size = (size_t)extent_size(extent);
    if (atomic_load_explicit(&area->address[extent], memory_order_acquire) != NULL)
        return PYKV_OK;
    int status = extent_check(area, extent);
    if (status != PYKV_OK)
        return status;
    if ((status = space_map(area->space, load(&area->offset[extent]), size, &address)) != PYKV_OK)
        return status;
    /* Threads may race to this point: the first one wins, the others unmap theirs. */
    if (!atomic_compare_exchange_strong_explicit(&area->address[extent], &none, address,
                                                 memory_order_acq_rel, memory_order_acquire))
        area->space->os->unmap(area->space->os, address, size);
    return PYKV_OK;
}

/* Give one more piece blocks: a step, or up to `size` bytes if that is more. Crash note: the end of
 * the space is raised before the extent is published, so that two extents never get one place. */
static int reserve_step(struct area *area, uint64_t size)
{
    uint64_t position = load(area->reserved) * area->element_size;
    unsigned extent = area_extent(position);
    if (extent >= AREA_EXTENTS)
        return error_set(PYKV_FULL, 0, area->space->name, 0, "the keydir has reached its limit");

    if (load(&area->offset[extent]) == 0) {
        uint64_t offset = load(area->space_end);
        store(area->space_end, offset + extent_size(extent));
        store(&area->offset[extent], offset);
    }
    int status = area_map(area, extent);
    if (status != PYKV_OK)
        return status;

    uint64_t within = position - area_extent_start(extent);
    uint64_t step = extent_size(extent) / STEPS_IN_EXTENT;
    step = step < AREA_SIZE_MIN ? AREA_SIZE_MIN : step > STEP_SIZE_MAX ? STEP_SIZE_MAX : step;
    if (step < size)
        step = (size + AREA_SIZE_MIN - 1) & ~(AREA_SIZE_MIN - 1);
    if (step > extent_size(extent) - within)
        step = extent_size(extent) - within;
    status = space_reserve(area->space, load(&area->offset[extent]) + within, step);
    if (status == PYKV_OK)
        store(area->reserved, (position + step) / area->element_size);
    return status;
}

int area_reserve(struct area *area, uint64_t count)
{
    int status;
    uint64_t reserved;
    while ((reserved = load(area->reserved)) < count)
        if ((status = reserve_step(area, (count - reserved) * area->element_size)) != PYKV_OK)
            return status;
    for (; area_extent_start(area->mapped) < reserved * area->element_size; area->mapped++)
        if ((status = area_map(area, area->mapped)) != PYKV_OK)
            return status;
    return PYKV_OK;
}

static int overlap_check(const struct area *area, unsigned extent, const struct area *other)
{
    uint64_t start = load(&area->offset[extent]), end = start + extent_size(extent);
    for (unsigned i = 0; i < AREA_EXTENTS; i++) {
        uint64_t other_start = load(&other->offset[i]);
        if ((area != other || i < extent) && other_start != 0 &&
            other_start < end && (start < other_start || start - other_start < extent_size(i)))
            return damaged(area, start, "two extents of the keydir overlap");
    }
    return PYKV_OK;
}

int area_check(const struct area *area, const struct area *other)
{
    uint64_t reserved = load(area->reserved), end = 0;
    int status;
    if (reserved > AREA_SIZE_MAX / area->element_size ||
        reserved * area->element_size % AREA_SIZE_MIN != 0)
        return damaged(area, 0, "the reserve of the keydir is out of its bounds");
    reserved *= area->element_size;
    for (unsigned extent = 0; extent < AREA_EXTENTS; extent++) {
        bool used = area_extent_start(extent) < reserved;
        if (!used && load(&area->offset[extent]) == 0)
            continue;
        if ((status = extent_check(area, extent)) != PYKV_OK ||
            (status = overlap_check(area, extent, area)) != PYKV_OK ||
            (status = overlap_check(area, extent, other)) != PYKV_OK)
            return status;
        if (used) {
            uint64_t size = reserved - area_extent_start(extent);
            size = size < extent_size(extent) ? size : extent_size(extent);
            uint64_t extent_end = load(&area->offset[extent]) + size;
            end = extent_end > end ? extent_end : end;
        }
    }
    if (area->space->fd < 0)
        return PYKV_OK;
    struct os_stat stat;                        /* a touch beyond the file's end is a SIGBUS */
    int error = area->space->os->file_stat(area->space->os, area->space->fd, &stat);
    if (error != 0)
        return error_os(error, area->space->name, 0, "examine");
    return stat.size >= end ? PYKV_OK : damaged(area, stat.size, "the keydir is cut short");
}

void area_unmap(struct area *area)
{
    for (unsigned extent = 0; extent < AREA_EXTENTS; extent++) {
        unsigned char *address = atomic_load_explicit(&area->address[extent], memory_order_acquire);
        if (address != NULL)
            area->space->os->unmap(area->space->os, address, (size_t)extent_size(extent));
    }
}
