/* sim_machine.c -- the machine behind sim_os.c: files, directories, images, faults. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim_internal.h"

void sim_misuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "sim_os: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

void *sim_grow_array(void *array, size_t count, size_t *capacity, size_t element_size)
{
    if (count < *capacity)
        return array;
    size_t old = *capacity;
    *capacity = old == 0 ? 16 : old * 2;
    array = realloc(array, *capacity * element_size);
    if (array == NULL)
        sim_misuse("out of memory");
    memset((char *)array + old * element_size, 0, (*capacity - old) * element_size);
    return array;
}

uint64_t sim_whole_pages(uint64_t size)
{
    return (size + SIM_PAGE_SIZE - 1) / SIM_PAGE_SIZE * SIM_PAGE_SIZE;
}

/* ---- Areas ---- */

static struct area *free_areas;

static struct area *area_take(void)
{
    struct area *area = free_areas;
    if (area != NULL) {
        free_areas = area->next;
        return area;
    }
    area = calloc(1, sizeof *area);
    int fd = memfd_create("sim", MFD_CLOEXEC);
    if (area == NULL || fd < 0 || ftruncate(fd, (off_t)SIM_FILE_SIZE_MAX) != 0)
        sim_misuse("no memory for a file: %s", strerror(errno));
    area->memory = mmap(NULL, SIM_FILE_SIZE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        fd, 0);
    area->shown = mmap(NULL, SIM_FILE_SIZE_MAX, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (area->memory == MAP_FAILED || area->shown == MAP_FAILED)
        sim_misuse("no memory for a file: %s", strerror(errno));
    close(fd);
    return area;
}

void sim_protect(struct area *area, uint64_t from, uint64_t to, int how)
{
    if (from < to && mprotect(area->shown + from, to - from, how) != 0)
        sim_misuse("mprotect: %s", strerror(errno));
}

static void area_give(struct area *area)
{
    memset(area->memory, 0, area->used);
    area->used = 0;
    area->next = free_areas;
    free_areas = area;
}

/* ---- Files ---- */

struct sim_file *sim_file_new(struct sim *sim, uint64_t inode, uint32_t mode)
{
    struct sim_file *file = calloc(1, sizeof *file);
    if (file == NULL)
        sim_misuse("out of memory");
    file->inode = inode;
    file->mode = mode;
    file->area = area_take();
    sim->files = sim_grow_array(sim->files, sim->file_count, &sim->file_capacity, sizeof *sim->files);
    sim->files[sim->file_count++] = file;
    if (inode >= sim->next_inode)
        sim->next_inode = inode + 1;
    return file;
}

static void sim_file_free(struct sim_file *file)
{
    area_give(file->area);
    free(file->shadow);
    free(file);
}

int sim_protection(const struct sim *sim)
{
    return sim->stepping ? PROT_READ : PROT_READ | PROT_WRITE;
}

/* Bytes of the last page that lie beyond the end are zero whenever the file grows over them. */
void sim_set_size(struct sim *sim, struct sim_file *file, uint64_t size)
{
    struct area *area = file->area;
    uint64_t low = size < file->size ? size : file->size;
    if (low < area->used) {
        uint64_t end = size < file->size ? sim_whole_pages(file->size) : sim_whole_pages(low);
        memset(area->memory + low, 0, end - low);
    }
    uint64_t accessible = sim_whole_pages(size);
    sim_protect(area, area->accessible, accessible, sim_protection(sim));
    sim_protect(area, accessible, area->accessible, PROT_NONE);
    area->accessible = accessible;
    if (area->used < accessible)
        area->used = accessible;
    file->size = size;
}

struct sim_dir *sim_dir_of(struct sim *sim, int dir)
{
    size_t i = (size_t)(dir - DIR_BASE);
    if (dir < DIR_BASE || i >= sim->dir_fd_count || !sim->dir_fds[i])
        sim_misuse("%d is no open directory", dir);
    return &sim->dirs[sim->dir_fd_dirs[i]];
}

struct sim_fd *sim_fd_of(struct sim *sim, int fd)
{
    size_t i = (size_t)(fd - FD_BASE);
    if (fd < FD_BASE || i >= sim->fd_count || !sim->fds[i].used)
        sim_misuse("%d is no open file", fd);
    return &sim->fds[i];
}

struct sim_entry *sim_entry_of(struct sim_dir *dir, const char *name)
{
    if (name[0] == 0 || strchr(name, '/') != NULL || strlen(name) >= DISK_NAME_SIZE)
        sim_misuse("a strange name: '%s'", name);
    for (size_t i = 0; i < dir->count; i++) {
        if (strcmp(dir->entries[i].name, name) == 0)
            return &dir->entries[i];
    }
    return NULL;
}

void sim_entry_add(struct sim *sim, struct sim_dir *dir, const char *name, struct sim_file *file)
{
    dir->entries = sim_grow_array(dir->entries, dir->count, &dir->capacity, sizeof *dir->entries);
    struct sim_entry *entry = &dir->entries[dir->count++];
    snprintf(entry->name, sizeof entry->name, "%s", name);
    entry->file = file;
    file->links++;
    file->traced |= sim->trace != NULL && dir == &sim->dirs[sim->trace_dir];
}

void sim_entry_remove(struct sim_dir *dir, struct sim_entry *entry)
{
    size_t i = (size_t)(entry - dir->entries);
    entry->file->links--;
    memmove(entry, entry + 1, (dir->count - i - 1) * sizeof *entry);
    dir->count--;
}

size_t sim_dir_find(struct sim *sim, const char *path, bool create)
{
    for (size_t i = 0; i < sim->dir_count; i++) {
        if (strcmp(sim->dirs[i].path, path) == 0)
            return i;
    }
    if (!create)
        return SIZE_MAX;
    sim->dirs = sim_grow_array(sim->dirs, sim->dir_count, &sim->dir_capacity, sizeof *sim->dirs);
    snprintf(sim->dirs[sim->dir_count].path, sizeof sim->dirs[0].path, "%s", path);
    return sim->dir_count++;
}

bool sim_has_room(const struct sim *sim, const struct sim_file *file, uint64_t size)
{
    if (size > SIM_FILE_SIZE_MAX)
        return false;
    if (sim->disk_size == 0 || size <= file->size)
        return true;
    uint64_t used = 0;
    for (size_t i = 0; i < sim->dir_count; i++) {
        for (size_t j = 0; j < sim->dirs[i].count; j++)
            used += sim_whole_pages(sim->dirs[i].entries[j].file->size);
    }
    return used + sim_whole_pages(size) - sim_whole_pages(file->size) <= sim->disk_size;
}

/* ---- Faults ---- */

static const int fitting_errnos[SIM_CALL_COUNT][3] = {
    [SIM_DIR_OPEN] = { EMFILE, EIO, ENOMEM },    [SIM_DIR_LIST] = { EIO, ENOMEM, EIO },
    [SIM_DIR_SYNC] = { EIO, EIO, ENOSPC },       [SIM_FILE_OPEN] = { EMFILE, EIO, ENOSPC },
    [SIM_FILE_CLOSE] = { EIO, ENOSPC, EIO },     [SIM_FILE_STAT] = { EIO, ENOMEM, EIO },
    [SIM_FILE_READ] = { EIO, EIO, ENOMEM },      [SIM_FILE_WRITE] = { ENOSPC, EIO, EDQUOT },
    [SIM_FILE_RESERVE] = { ENOSPC, EIO, EFBIG }, [SIM_FILE_TRUNCATE] = { EIO, ENOSPC, EIO },
    [SIM_FILE_SYNC] = { EIO, ENOSPC, EDQUOT },   [SIM_FILE_RENAME] = { EIO, ENOSPC, EIO },
    [SIM_FILE_REMOVE] = { EIO, EIO, ENOMEM },    [SIM_MAP] = { ENOMEM, EIO, ENOMEM },
    [SIM_FILE_LINK] = { EMLINK, EPERM, EXDEV },  [SIM_FILE_COPY] = { ENOSPC, EIO, EDQUOT },
    [SIM_PROTECT] = { ENOMEM, EIO, ENOMEM },     [SIM_LOCK] = { ENOLCK, EIO, EINTR },
    [SIM_UNLOCK] = { EIO, ENOLCK, EIO },         [SIM_LOCK_HELD] = { EIO, ENOLCK, EIO },
    [SIM_RANDOM] = { EIO, ENOSYS, EIO },         [SIM_BOOT_ID] = { ENOENT, EIO, EMFILE },
    [SIM_ALLOC] = { ENOMEM, ENOMEM, ENOMEM },    [SIM_GROW] = { ENOMEM, ENOMEM, ENOMEM },
    [SIM_THREAD_START] = { EAGAIN, ENOMEM, EAGAIN },
};

const char *sim_call_name(enum sim_call call)
{
    static const char *const names[SIM_CALL_COUNT] = {
        "dir_open", "dir_list", "dir_sync", "file_open", "file_close", "file_stat", "file_read",
        "file_write", "file_reserve", "file_truncate", "file_sync", "file_rename", "file_remove",
        "file_link", "file_copy",
        "map", "protect", "lock", "unlock", "lock_held", "random", "boot_id", "alloc", "grow",
        "thread_start",
    };
    return call == SIM_ANY ? "any call" : names[call];
}

int sim_enter(const struct os *os, enum sim_call call)
{
    struct sim *sim = os->context;
    sim->calls[call]++;
    sim->monotonic_ns += 100;
    if (!sim->fault_armed || sim->fault_paused ||
        (sim->fault.call != SIM_ANY && sim->fault.call != call))
        return 0;
    uint64_t number = sim->fault_seen++;
    if (number != sim->fault.at && !(sim->fault.onwards && number > sim->fault.at))
        return 0;
    if (sim->failed++ == 0)
        sim->first_failed = call;
    sim->failed_calls[call]++;
    sim->last_errno = sim->fault.os_errno != 0 ? sim->fault.os_errno
                                               : fitting_errnos[call][sim->fault.variant % 3];
    return sim->last_errno;
}

void sim_fail(struct sim *sim, const struct sim_fault *fault)
{
    sim->fault_armed = fault != NULL;
    if (fault != NULL) {
        sim->fault = *fault;
        sim->fault_seen = 0;
        sim->failed = 0;
        memset(sim->failed_calls, 0, sizeof sim->failed_calls);
    }
}

void sim_pause_faults(struct sim *sim, bool pause) { sim->fault_paused = pause; }

uint64_t sim_failed(const struct sim *sim, enum sim_call call)
{
    return call == SIM_ANY ? sim->failed : sim->failed_calls[call];
}

enum sim_call sim_first_failed(const struct sim *sim) { return sim->first_failed; }
int sim_last_errno(const struct sim *sim) { return sim->last_errno; }

uint64_t sim_calls(const struct sim *sim, enum sim_call call)
{
    if (call != SIM_ANY)
        return sim->calls[call];
    uint64_t sum = 0;
    for (size_t i = 0; i < SIM_CALL_COUNT; i++)
        sum += sim->calls[i];
    return sum;
}

/* ---- The machine ---- */

struct sim *sim_new(uint64_t seed)
{
    struct sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL)
        sim_misuse("out of memory");
    sim->os = sim_table;
    sim->os.context = sim;
    sim->random = seed;
    sim->boot = 1;
    sim->next_inode = 100;
    sim->wall_ms = UINT64_C(1750000000000);
    sim->monotonic_ns = UINT64_C(3600000000000);
    return sim;
}

void sim_free(struct sim *sim)
{
    if (sim == NULL)
        return;
    if (sim->stepping)
        sim_record_stores(sim, false);
    for (size_t i = 0; i < sim->map_count; i++) {
        if (sim->maps[i].file == NULL)
            munmap(sim->maps[i].address, sim->maps[i].size);
    }
    for (size_t i = 0; i < sim->dir_count; i++)
        free(sim->dirs[i].entries);
    for (size_t i = 0; i < sim->file_count; i++)
        sim_file_free(sim->files[i]);
    free(sim->dirs);
    free(sim->files);
    free(sim->fds);
    free(sim->dir_fds);
    free(sim->dir_fd_dirs);
    free(sim->locks);
    free(sim->maps);
    free(sim);
}

const struct os *sim_os(struct sim *sim) { return &sim->os; }

void sim_advance_ms(struct sim *sim, uint64_t ms)
{
    sim->wall_ms += ms;
    sim->monotonic_ns += ms * 1000000;
}

void sim_set_wall_ms(struct sim *sim, uint64_t ms) { sim->wall_ms = ms; }
void sim_set_boot(struct sim *sim, uint64_t number) { sim->boot = number; }
void sim_set_read_only(struct sim *sim, bool read_only) { sim->read_only = read_only; }
void sim_set_disk_size(struct sim *sim, uint64_t size) { sim->disk_size = size; }
void sim_lie(struct sim *sim, enum sim_lie lie) { sim->lie = lie; }

void sim_make_special(struct sim *sim, const char *path, const char *name)
{
    struct sim_file *file = sim_file_new(sim, sim->next_inode, 0600);
    file->special = true;
    sim_entry_add(sim, &sim->dirs[sim_dir_find(sim, path, true)], name, file);
}

void sim_save(const struct sim *sim, const char *path, struct image *out)
{
    image_clear(out);
    size_t number = sim_dir_find((struct sim *)sim, path, false);
    for (size_t i = 0; number != SIZE_MAX && i < sim->dirs[number].count; i++) {
        const struct sim_entry *entry = &sim->dirs[number].entries[i];
        const struct sim_file *file = entry->file;
        struct image_file *to = image_add(out, entry->name, file->inode, file->mode, file->size);
        if (file->size > 0)
            memcpy(to->bytes, file->area->memory, file->size);
    }
}

void sim_load(struct sim *sim, const char *path, const struct image *image)
{
    struct sim_usage usage = sim_usage(sim);
    if (usage.descriptors != 0 || usage.mappings != 0)
        sim_misuse("load while files are open");
    for (size_t i = 0; i < sim->file_count; i++)
        sim_file_free(sim->files[i]);
    sim->file_count = 0;
    for (size_t i = 0; i < sim->dir_count; i++)
        sim->dirs[i].count = 0;
    sim_add(sim, path, image);
}

void sim_add(struct sim *sim, const char *path, const struct image *image)
{
    size_t number = sim_dir_find(sim, path, true), before = sim->file_count;
    for (size_t i = 0; i < image->count; i++) {
        const struct image_file *from = &image->files[i];
        struct sim_file *file = NULL;
        for (size_t j = 0; j < before && file == NULL; j++)
            file = sim->files[j]->inode == from->inode ? sim->files[j] : NULL;
        if (file == NULL) {
            file = sim_file_new(sim, from->inode, from->mode);
            sim_set_size(sim, file, from->size);
            if (from->size > 0)
                memcpy(file->area->memory, from->bytes, from->size);
        }
        sim_entry_add(sim, &sim->dirs[number], from->name, file);
    }
}

struct sim_usage sim_usage(const struct sim *sim)
{
    struct sim_usage usage = { .mappings = sim->map_count, .allocations = sim->allocations,
                               .locks = sim->lock_count };
    for (size_t i = 0; i < sim->fd_count; i++)
        usage.descriptors += sim->fds[i].used;
    for (size_t i = 0; i < sim->dir_fd_count; i++)
        usage.descriptors += sim->dir_fds[i];
    return usage;
}
