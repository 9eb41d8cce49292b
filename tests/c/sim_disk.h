/* sim_disk.h -- what a disk may hold when the power goes. A trace is the list of effects that a run
 * had on one directory, in order. A disk reads a trace and knows, at each point of it, what is
 * certainly on the disk, and which later effects are pending: each may have reached it or not. A cut
 * picks some of the pending ones and yields an image: the files that a machine finds after that.
 *
 * What may happen to pending effects, whatever the model:
 *   - data reaches the disk by sectors of 512 bytes, in any order; a sector holds what it held at
 *     some moment since the last sync of its file, or a torn mixture of two such moments;
 *   - a sync that failed leaves sectors that no later sync writes, until they are stored to anew;
 *   - memory shared through a mapping without `stored` (the keydir) holds anything at all.
 * DISK_POSIX: the size of a file is one of those since its last sync; a name refers to what it did
 * at some moment since the last sync of its directory; all of these independently.
 * DISK_EXT4: creations, renames, removals and sizes happen in order, across files; the sync of a
 * file that has any of these pending, or of the directory, makes all of them so far certain. */
#ifndef PYKV_SIM_DISK_H
#define PYKV_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define DISK_SECTOR_SIZE 512u
#define DISK_NAME_SIZE 48u

/* ---- Images ---- */

struct image_file {
    char name[DISK_NAME_SIZE];
    uint64_t inode;
    uint32_t mode;
    bool shared;            /* written through a mapping without notice */
    uint64_t size, capacity;
    uint8_t *bytes;
};
struct image {
    size_t count, capacity; /* files[count .. capacity) keep their memory for reuse */
    struct image_file *files;
};

/* The file of that name, or NULL. */
struct image_file *image_find(const struct image *image, const char *name);
/* Add an empty file; its bytes have room for `size` and hold zeros. */
struct image_file *image_add(struct image *image, const char *name, uint64_t inode, uint32_t mode,
                             uint64_t size);
void image_set_size(struct image_file *file, uint64_t size);
void image_remove(struct image *image, struct image_file *file);
void image_copy(struct image *to, const struct image *from);    /* `to` is overwritten */
void image_clear(struct image *image);      /* no files; memory is kept */
void image_release(struct image *image);
/* A hash of all names, sizes and bytes, whatever the order; shared files count only if `shared`. */
uint64_t image_hash(const struct image *image, bool shared);
/* The same names, sizes and bytes, whatever the order. */
bool image_equal(const struct image *image, const struct image *other);

/* Write the files to a real directory, which is made; one that is there stays as it is. */
void image_write(const struct image *image, const char *path);

/* ---- Traces ---- */

/* How far the caller had come, in its own operations: `durable` <= `acked` <= `started`; and its clock. */
struct progress { uint32_t started, acked, durable; uint64_t now_ms; };

enum effect_kind {
    EFFECT_WRITE,           /* bytes at offset, by file_write */
    EFFECT_STORE,           /* bytes at offset, through a mapping, with notice */
    EFFECT_SHARED,          /* bytes at offset, through a mapping, found out by comparing */
    EFFECT_SIZE,            /* `size` is the file's new size */
    EFFECT_CREATE,          /* name -> inode; offset: the file's mode */
    EFFECT_LINK,            /* the same, of a file from elsewhere: its bytes are on the disk already */
    EFFECT_RENAME,          /* name is now `to` */
    EFFECT_REMOVE,          /* name is gone */
    EFFECT_FILE_SYNC,
    EFFECT_FILE_SYNC_FAILED,
    EFFECT_DIR_SYNC,
};
struct effect {
    enum effect_kind kind;
    uint64_t inode, offset, size;
    uint8_t *bytes;                             /* owned */
    char name[DISK_NAME_SIZE], to[DISK_NAME_SIZE];
    struct progress progress;                   /* as it was when the effect happened */
};
struct trace {
    size_t count, capacity;
    struct effect *effects;
    struct progress progress;                   /* the caller moves it; copied into each effect */
    uint64_t unannounced;   /* bytes changed without notice in files that also had notices */
};

/* Append a copy. */
void trace_add(struct trace *trace, const struct effect *effect);
void trace_release(struct trace *trace);
/* As text, with an arrow before effect number `at`. */
void trace_print(const struct trace *trace, size_t at, FILE *out);
const char *effect_kind_name(enum effect_kind kind);

/* ---- Disks ---- */

enum disk_model { DISK_POSIX, DISK_EXT4 };

struct disk;
struct disk *disk_new(enum disk_model model, const struct image *base);   /* all of it durable */
struct disk *disk_copy(const struct disk *disk);
void disk_free(struct disk *disk);
enum disk_model disk_model_of(const struct disk *disk);
void disk_apply(struct disk *disk, const struct effect *effect);

/* What the machine itself sees now: what a killed process leaves behind. */
void disk_current(const struct disk *disk, struct image *out);

/* How many effects (sectors, sizes, names) are pending, oldest first. */
size_t disk_pending(const struct disk *disk);

enum disk_shared { SHARED_CURRENT, SHARED_MISSING, SHARED_GARBAGE, SHARED_ZERO, SHARED_COUNT };
struct disk_choice {
    bool *keep;             /* of each pending effect; corrected to what the model allows */
    size_t torn;            /* 1 + the pending sector that is torn, 0: none */
    uint32_t torn_size;     /* bytes of it that are new, 1 to 511 */
    bool torn_tail;         /* its last bytes are the new ones, not its first */
    enum disk_shared shared;
    uint64_t seed;          /* of the garbage */
};
/* The image after a cut now. */
void disk_cut(const struct disk *disk, struct disk_choice *choice, struct image *out);

/* Random numbers for tests: splitmix64. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

#endif
