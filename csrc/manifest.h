/* manifest.h -- the small file that says what the store consists of and how far it is durable: the
 * identity of the store, the sealed segments with their lengths, and the durable position. It is
 * replaced as a whole (write, sync, rename, sync the directory): when the store is created, when a
 * segment was sealed and synced, with a checkpoint, and at the last close. What it names must be
 * there: a missing, swapped or shortened segment is noticed at open. format.md has the fields. */
#ifndef PYKV_MANIFEST_H
#define PYKV_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "os.h"

#define MANIFEST_NAME "manifest"
#define MANIFEST_TEMPORARY "manifest.tmp"

struct manifest_segment {
    uint64_t id;
    uint64_t length;            /* bytes when sealed; 0: active when the manifest was written */
};

enum manifest_kind {
    MANIFEST_STORE = 0,
    MANIFEST_BACKUP = 1,        /* backup.c left it: nothing counts but what it lists, and no further than
                                 * `durable`. Opening it for writing makes it a store */
    MANIFEST_UNFINISHED = 2,    /* a backup that is under way, or was given up: no store yet */
};

struct manifest {
    uint32_t kind;
    uint8_t store_id[16], hash_key[16];
    uint64_t durable;           /* log position */
    uint64_t segment_id_next;   /* ids from here on have never been used */
    size_t count;
    struct manifest_segment *segments;      /* ascending by id; owned: manifest_release() */
};

/* PYKV_MISSING if there is none (no error noted), PYKV_CORRUPT, PYKV_NEWER_FORMAT. */
int manifest_read(const struct os *os, int dir, struct manifest *out);
int manifest_write(const struct os *os, int dir, uint32_t file_mode, const struct manifest *manifest);
void manifest_release(const struct os *os, struct manifest *manifest);

#endif
