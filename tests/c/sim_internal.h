/* sim_internal.h -- what the parts of the simulated machine share: sim_machine.c (files, directories,
 * faults), sim_os.c (the table), sim_record.c (what happened). Tests include sim_os.h instead.
 *
 * A file's bytes are a memfd that is mapped twice, once and for all: `memory` is the simulator's own
 * view, `shown` is what map() hands out, a pointer into it at the range's offset, so that all
 * mappings of a file are coherent and cost nothing. Beyond the file's end `shown` is inaccessible.
 * These areas are kept and used again: faulting in fresh pages would be most of a test's time. */
#ifndef PYKV_SIM_INTERNAL_H
#define PYKV_SIM_INTERNAL_H

#include "sim_os.h"

#define SIM_PAGE_SIZE 4096u
#define FD_BASE 1000        /* descriptors and directories are told apart, and from real ones */
#define DIR_BASE 5000

struct area {
    struct area *next;
    uint8_t *memory, *shown;
    uint64_t accessible;    /* bytes of `shown` that can be touched, whole pages */
    uint64_t used;          /* bytes that may be other than zero, whole pages */
};

struct sim_file {
    uint64_t inode, size;
    uint32_t mode;
    bool special, traced;   /* traced: it is in the directory that is recorded, or was */
    bool dirty;             /* written to since its last sync, or stored to with notice */
    unsigned links;         /* names */
    struct area *area;
    unsigned writable_maps;
    uint8_t *shadow;        /* while recording: what the trace says the bytes are */
    uint64_t shadow_size;
    bool noticed;           /* `stored` has told of this file */
};
struct sim_entry { char name[DISK_NAME_SIZE]; struct sim_file *file; };
struct sim_dir {
    char path[256];
    struct sim_entry *entries;
    size_t count, capacity;
};
struct sim_fd { bool used, writable; struct sim_file *file; };
struct sim_lock { int fd; uint64_t offset, size; };
struct sim_map { uint8_t *address; size_t size; struct sim_file *file; bool writable; };

struct sim {
    struct os os;
    struct sim_dir *dirs;
    size_t dir_count, dir_capacity;
    struct sim_file **files;
    size_t file_count, file_capacity;
    struct sim_fd *fds;
    size_t fd_count, fd_capacity;
    bool *dir_fds;          /* dir_fds[i]: whether descriptor DIR_BASE + i is open */
    size_t *dir_fd_dirs;
    size_t dir_fd_count, dir_fd_capacity, dir_fd_dirs_capacity;
    struct sim_lock *locks;
    size_t lock_count, lock_capacity;
    struct sim_map *maps;
    size_t map_count, map_capacity;
    uint64_t allocations, next_inode, random, boot, wall_ms, monotonic_ns, disk_size;
    bool read_only;
    enum sim_lie lie;

    struct sim_fault fault;
    bool fault_armed, fault_paused;
    uint64_t fault_seen, failed, failed_calls[SIM_CALL_COUNT];
    enum sim_call first_failed;
    int last_errno;
    uint64_t calls[SIM_CALL_COUNT];

    struct trace *trace;
    size_t trace_dir;
    bool stepping;
};

void sim_misuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void *sim_grow_array(void *array, size_t count, size_t *capacity, size_t element_size);
uint64_t sim_whole_pages(uint64_t size);

/* ---- sim_machine.c ---- */

void sim_protect(struct area *area, uint64_t from, uint64_t to, int how);   /* of `shown` */
int sim_protection(const struct sim *sim);      /* of the bytes that are there */
struct sim_file *sim_file_new(struct sim *sim, uint64_t inode, uint32_t mode);
void sim_set_size(struct sim *sim, struct sim_file *file, uint64_t size);
bool sim_has_room(const struct sim *sim, const struct sim_file *file, uint64_t size);
struct sim_dir *sim_dir_of(struct sim *sim, int dir);           /* of an open descriptor */
struct sim_fd *sim_fd_of(struct sim *sim, int fd);
size_t sim_dir_find(struct sim *sim, const char *path, bool create);   /* SIZE_MAX: none */
struct sim_entry *sim_entry_of(struct sim_dir *dir, const char *name); /* NULL: none */
void sim_entry_add(struct sim *sim, struct sim_dir *dir, const char *name, struct sim_file *file);
void sim_entry_remove(struct sim_dir *dir, struct sim_entry *entry);
/* Count the call; the errno it shall fail with, or 0. */
int sim_enter(const struct os *os, enum sim_call call);

/* ---- sim_os.c ---- */

extern const struct os sim_table;

/* ---- sim_record.c: nothing happens while no trace is recorded ---- */

void sim_note(struct sim *sim, struct effect effect);
void sim_note_file(struct sim *sim, const struct sim_file *file, struct effect effect);
void sim_note_name(struct sim *sim, int dir, struct effect effect);     /* in that directory */
void sim_note_bytes(struct sim *sim, enum effect_kind kind, struct sim_file *file, uint64_t offset,
                    uint64_t size);
void sim_note_others(struct sim *sim, const struct sim_file *but);  /* changes of all other files */
void sim_note_size(struct sim *sim, struct sim_file *file);

#endif
