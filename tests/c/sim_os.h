/* sim_os.h -- a machine in memory: a `struct os` whose files, locks, clock and random numbers are the
 * test's own. It has one process with one thread (thread_start says EAGAIN). It keeps every word of
 * os.h, and where a caller breaks one (an unmap of what is not mapped, a write to a descriptor that
 * was opened for reading) it says so and aborts. Touching a mapping beyond the end of its file is a
 * SIGSEGV, page by page, as it would be a SIGBUS.
 *
 * Every call is counted; any call can be made to fail; what happens to the files is recorded as a
 * trace of effects (sim_disk.h) from which images of the disk after a power cut are made. */
#ifndef PYKV_SIM_OS_H
#define PYKV_SIM_OS_H

#include "os.h"
#include "sim_disk.h"

#define SIM_FILE_SIZE_MAX ((UINT64_C(64) << 20) / (sizeof(void *) == 4 ? 8 : 1))  /* twice mapped, each */

enum sim_call {
    SIM_DIR_OPEN, SIM_DIR_LIST, SIM_DIR_SYNC,
    SIM_FILE_OPEN, SIM_FILE_CLOSE, SIM_FILE_STAT, SIM_FILE_READ, SIM_FILE_WRITE,
    SIM_FILE_RESERVE, SIM_FILE_TRUNCATE, SIM_FILE_SYNC, SIM_FILE_RENAME, SIM_FILE_REMOVE,
    SIM_FILE_LINK, SIM_FILE_COPY,
    SIM_MAP, SIM_PROTECT, SIM_LOCK, SIM_UNLOCK, SIM_LOCK_HELD, SIM_RANDOM, SIM_BOOT_ID,
    SIM_ALLOC, SIM_GROW, SIM_THREAD_START,
    SIM_CALL_COUNT,         /* the calls up to here can fail */
    SIM_ANY = -1,
};
const char *sim_call_name(enum sim_call call);

struct sim;
struct sim *sim_new(uint64_t seed);
void sim_free(struct sim *sim);         /* files, descriptors, locks and all */
const struct os *sim_os(struct sim *sim);

/* ---- The machine ---- */

void sim_advance_ms(struct sim *sim, uint64_t ms);              /* both clocks */
void sim_set_wall_ms(struct sim *sim, uint64_t ms);             /* as an administrator would */
void sim_set_boot(struct sim *sim, uint64_t number);            /* the boot id follows from it */
void sim_set_read_only(struct sim *sim, bool read_only);        /* EROFS for what writes */
void sim_set_disk_size(struct sim *sim, uint64_t size);         /* bytes; ENOSPC beyond. 0: no limit */
void sim_make_special(struct sim *sim, const char *path, const char *name); /* not a regular file */

/* The files of a directory as an image, and back. Loading makes the directory if need be, drops what
 * it held, and keeps inode numbers; nothing of it may be open. */
void sim_save(const struct sim *sim, const char *path, struct image *out);
void sim_load(struct sim *sim, const char *path, const struct image *image);
/* One more directory, beside what was loaded. Files that are there already get one more name. */
void sim_add(struct sim *sim, const char *path, const struct image *image);

/* ---- Faults ---- */

struct sim_fault {
    enum sim_call call;     /* SIM_ANY: every call that can fail */
    uint64_t at;            /* the number of the call that fails first, from 0 */
    bool onwards;           /* that call and all later ones; else that one alone */
    int os_errno;           /* 0: one that fits the call */
    unsigned variant;       /* which of those; odd: a failing write or reserve is half done */
};
void sim_fail(struct sim *sim, const struct sim_fault *fault);  /* counts from now; NULL: none */
void sim_pause_faults(struct sim *sim, bool pause);             /* calls meanwhile do not count */
uint64_t sim_failed(const struct sim *sim, enum sim_call call); /* calls that failed since */
enum sim_call sim_first_failed(const struct sim *sim);
int sim_last_errno(const struct sim *sim);                      /* what the last one failed with */

/* Calls of a kind (SIM_ANY: all that can fail) since the machine was made. */
uint64_t sim_calls(const struct sim *sim, enum sim_call call);

struct sim_usage { uint64_t descriptors, mappings, allocations, locks, threads; };
struct sim_usage sim_usage(const struct sim *sim);

/* ---- Recording ---- */

/* Record what happens to the files of directory `path` from now on; trace NULL: stop. A file that
 * gets a name there later is on the disk already. Changes in mapped memory that no `stored` told of are found by comparing at each call that leaves a trace. */
void sim_record(struct sim *sim, const char *path, struct trace *trace);
/* Note changes of mapped memory now. */
void sim_compare(struct sim *sim);
/* Record each single store instruction into a mapped file, in program order (x86-64 alone; elsewhere
 * false, and nothing changes). One machine at a time. */
bool sim_record_stores(struct sim *sim, bool on);

/* Lies that the machine can tell, to show that the checks notice. */
enum sim_lie {
    LIE_NONE,
    LIE_FILE_SYNC,          /* file_sync says it is done, and nothing is */
    LIE_DIR_SYNC,           /* dir_sync likewise */
    LIE_SYNC_ERROR,         /* a failing file_sync says it succeeded */
};
void sim_lie(struct sim *sim, enum sim_lie lie);

#endif
