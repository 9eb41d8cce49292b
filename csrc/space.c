#include "space.h"

#include <assert.h>

#include "error.h"

int space_map(const struct space *space, uint64_t offset, size_t size, void **out)
{
    assert(offset % SPACE_ALIGNMENT == 0 && size % SPACE_ALIGNMENT == 0 && size > 0);

    bool writable = space->fd < 0 || space->writable;
    int error = space->os->map(space->os, space->fd, space->fd < 0 ? 0 : offset, size, writable, out);
    return error == 0 ? PYKV_OK : error_os(error, space->name, offset, "map");
}

int space_reserve(const struct space *space, uint64_t offset, uint64_t size)
{
    if (space->fd < 0)
        return PYKV_OK;         /* memory has no file behind it that could lack blocks */

    int error = space->os->file_reserve(space->os, space->fd, offset, size);
    return error == 0 ? PYKV_OK : error_os(error, space->name, offset, "reserve room in");
}
