/* space.h -- the memory that all processes share: one file, mapped piece by piece, so that it can
 * grow while others read it. What lies in it is addressed by offsets from the file's start, never
 * by pointers. A private space is the same without a file, for a store that cannot be shared. */
#ifndef PYKV_SPACE_H
#define PYKV_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os.h"

#define SPACE_ALIGNMENT 65536u      /* of the offset and size of each piece that is mapped */

struct space {
    const struct os *os;
    int fd;                 /* -1: private */
    bool writable;
    const char *name;       /* of the file, for errors */
};

/* Map the piece [offset, offset + size) of the file. It may lie beyond the file's end and must not
 * be touched there. Of a private space: fresh zeroed memory at each call. A status. */
int space_map(const struct space *space, uint64_t offset, size_t size, void **out);

/* Make sure that the range has blocks, so that touching it can never be a SIGBUS. A status:
 * PYKV_FULL if the disk has no room, and then nothing has changed. */
int space_reserve(const struct space *space, uint64_t offset, uint64_t size);

#endif
