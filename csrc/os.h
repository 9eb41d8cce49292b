/* os.h -- the one door to the operating system: every system call and every allocation that the
 * engine makes goes through this table, so that tests can count them, fail them, record them, and
 * play disk. os_posix is what is behind it in the product.
 *
 * Each function returns 0 or a positive errno value. Files live in one directory and are named
 * relative to its descriptor; symbolic links are never followed, and a name that is not a regular
 * file with one link is refused with EINVAL (a FIFO never blocks), but for OS_READ_LINKED. So nobody
 * writes to a file that another store, or a backup, has too. Interrupted and short calls are continued
 * inside. */
#ifndef PYKV_OS_H
#define PYKV_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum os_open {
    OS_READ,            /* must exist */
    OS_READ_LINKED,     /* must exist; may have other names, as segments that never change may */
    OS_READ_WRITE,      /* must exist */
    OS_CREATE,          /* must not exist (EEXIST); read and write */
    OS_OPEN_OR_CREATE,  /* the lock file alone: opened, or created if missing; read and write */
};

enum os_advice {
    OS_RANDOM,          /* point reads: no read-ahead */
    OS_SEQUENTIAL,      /* a scan: read ahead */
    OS_WILL_NEED,       /* start reading */
    OS_POPULATE_WRITE,  /* make pages present and writable; failure is harmless */
    OS_HUGE,            /* huge pages, if they can be had */
    OS_FORGET,          /* drop the pages from a mapping of a file; the file keeps their content */
};

struct os_stat {
    uint64_t size;          /* bytes */
    uint64_t disk_size;     /* bytes of disk occupied */
    uint64_t device, inode;
    uint32_t mode;          /* permission bits */
};

struct os_identity { uint8_t bytes[16]; };

struct os {
    /* Directories. dir_open: EEXIST never; creates one level with `mode` if `create`, and syncs the
     * parent. ENOENT, ENOTDIR, EACCES as usual. */
    int (*dir_open)(const struct os *os, const char *path, bool create, uint32_t mode, int *dir);
    int (*dir_list)(const struct os *os, int dir, int (*each)(void *context, const char *name),
                    void *context);  /* without "." and ".."; stops at, and returns, a nonzero result */
    int (*dir_sync)(const struct os *os, int dir);

    /* Files. mode is the permission bits of a new one, whatever the umask says. */
    int (*file_open)(const struct os *os, int dir, const char *name, enum os_open how,
                     uint32_t mode, int *fd);
    int (*file_close)(const struct os *os, int fd);
    int (*file_stat)(const struct os *os, int fd, struct os_stat *out);
    int (*file_read)(const struct os *os, int fd, void *bytes, size_t size, uint64_t offset,
                     size_t *done);     /* *done < size only at the end of the file */
    int (*file_write)(const struct os *os, int fd, const void *bytes, size_t size,
                      uint64_t offset); /* all of it, or an error */
    int (*file_reserve)(const struct os *os, int fd, uint64_t offset, uint64_t size);
                                        /* blocks for the range, zero where new; grows the file */
    int (*file_truncate)(const struct os *os, int fd, uint64_t size);
    int (*file_sync)(const struct os *os, int fd);      /* data and what is needed to read it */
    int (*file_rename)(const struct os *os, int dir, const char *from, const char *to);
    int (*file_remove)(const struct os *os, int dir, const char *name);
    /* One more name for a file whose bytes were synced and will not change. EEXIST; EXDEV, EPERM, EMLINK
     * or another: it cannot have one there. */
    int (*file_link)(const struct os *os, int dir, const char *name, int to_dir, const char *to_name);
    /* Bytes of a file to the same place in another, by sharing blocks where the file system can. EIO if
     * the file ends before. */
    int (*file_copy)(const struct os *os, int from, int to, uint64_t offset, uint64_t size);

    /* Mappings, always shared. fd -1: private zeroed memory. The range may lie beyond the end of
     * the file; it must not be touched there. offset is a multiple of 65,536. */
    int (*map)(const struct os *os, int fd, uint64_t offset, size_t size, bool writable, void **out);
    void (*unmap)(const struct os *os, void *address, size_t size);
    int (*protect)(const struct os *os, void *address, size_t size);    /* make it read-only */
    void (*advise)(const struct os *os, void *address, size_t size, enum os_advice advice);
    /* Called after each store of log bytes into a mapped file: nothing in the product; a recorder
     * learns here what a power cut may or may not take. */
    void (*stored)(const struct os *os, int fd, uint64_t offset, const void *bytes, size_t size);

    /* Locks on byte ranges of a file, held by the open file description `fd` until unlocked, closed
     * or the process ends, however it ends. lock: EAGAIN if held elsewhere and not `wait`; one by a
     * descriptor opened for reading others for reading may hold too.
     * lock_held: whether another description holds any byte of the range. */
    int (*lock)(const struct os *os, int fd, uint64_t offset, uint64_t size, bool wait);
    int (*unlock)(const struct os *os, int fd, uint64_t offset, uint64_t size);
    int (*lock_held)(const struct os *os, int fd, uint64_t offset, uint64_t size, bool *held);

    /* Sleeping on a word of shared memory, across processes: wait returns at once if *word !=
     * value, else on a wake, a signal or after timeout_ms; callers look again. */
    void (*wait)(const struct os *os, const uint32_t *word, uint32_t value, uint32_t timeout_ms);
    void (*wake)(const struct os *os, const uint32_t *word, bool all);
    void (*yield)(const struct os *os);     /* let others run first, who are waiting for a processor */

    int (*random)(const struct os *os, void *bytes, size_t size);
    uint64_t (*wall_ms)(const struct os *os);           /* since 1970 */
    uint64_t (*monotonic_ns)(const struct os *os);
    int (*boot_id)(const struct os *os, struct os_identity *out);  /* changes with every boot */

    /* Memory: zeroed; NULL if there is none. */
    void *(*alloc)(const struct os *os, size_t size);
    void *(*grow)(const struct os *os, void *memory, size_t old_size, size_t size);
                                        /* new bytes are not zeroed; on NULL the old one stands */
    void (*release)(const struct os *os, void *memory);

    /* Threads: all signals blocked in them. An engine that cannot have one does without. */
    int (*thread_start)(const struct os *os, void (*run)(void *context), void *context, void **out);
    void (*thread_join)(const struct os *os, void *thread);

    void *context;          /* the implementation's own */
};

extern const struct os os_posix;

#endif
