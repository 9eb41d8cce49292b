/* sim_os.c -- the table of the simulated machine: see sim_os.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim_internal.h"

/* ---- Directories ---- */

static int os_dir_open(const struct os *os, const char *path, bool create, uint32_t mode, int *dir)
{
    struct sim *sim = os->context;
    int error = sim_enter(os, SIM_DIR_OPEN);
    if (error != 0)
        return error;
    (void)mode;
    if (create && sim->read_only && sim_dir_find(sim, path, false) == SIZE_MAX)
        return EROFS;
    size_t number = sim_dir_find(sim, path, create);
    if (number == SIZE_MAX)
        return ENOENT;
    size_t i = 0;
    while (i < sim->dir_fd_count && sim->dir_fds[i])
        i++;
    if (i == sim->dir_fd_count) {
        sim->dir_fds = sim_grow_array(sim->dir_fds, i, &sim->dir_fd_capacity, sizeof *sim->dir_fds);
        sim->dir_fd_dirs = sim_grow_array(sim->dir_fd_dirs, i, &sim->dir_fd_dirs_capacity,
                                      sizeof *sim->dir_fd_dirs);
        sim->dir_fd_count++;
    }
    sim->dir_fds[i] = true;
    sim->dir_fd_dirs[i] = number;
    *dir = DIR_BASE + (int)i;
    return 0;
}

static int os_dir_list(const struct os *os, int dir, int (*each)(void *context, const char *name),
                       void *context)
{
    int error = sim_enter(os, SIM_DIR_LIST);
    if (error != 0)
        return error;
    /* A copy: `each` may open, make and remove files. */
    struct sim_dir *from = sim_dir_of(os->context, dir);
    size_t count = from->count;
    struct sim_entry *entries = calloc(count + 1, sizeof *entries);
    if (entries == NULL)
        return ENOMEM;
    if (count > 0)
        memcpy(entries, from->entries, count * sizeof *entries);
    int result = 0;
    for (size_t i = count; result == 0 && i-- > 0;)     /* no order is promised: newest first */
        result = each(context, entries[i].name);
    free(entries);
    return result;
}

static int os_dir_sync(const struct os *os, int dir)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    int error = sim_enter(os, SIM_DIR_SYNC);
    sim_dir_of(sim, dir);
    if (error == 0 && sim->lie != LIE_DIR_SYNC)
        sim_note_name(sim, dir, (struct effect){ .kind = EFFECT_DIR_SYNC });
    return error;
}

/* ---- Files ---- */

static int os_file_open(const struct os *os, int dir, const char *name, enum os_open how,
                        uint32_t mode, int *fd)
{
    struct sim *sim = os->context;
    int error = sim_enter(os, SIM_FILE_OPEN);
    if (error != 0)
        return error;
    struct sim_dir *in = sim_dir_of(sim, dir);
    struct sim_entry *entry = sim_entry_of(in, name);
    if (entry != NULL && how == OS_CREATE)
        return EEXIST;
    if (entry == NULL && how != OS_CREATE && how != OS_OPEN_OR_CREATE)
        return ENOENT;
    if (entry != NULL && (entry->file->special || (entry->file->links > 1 && how != OS_READ_LINKED)))
        return EINVAL;
    bool reads = how == OS_READ || how == OS_READ_LINKED;
    if (sim->read_only && !reads)
        return EROFS;
    struct sim_file *file = entry != NULL ? entry->file : NULL;
    if (file == NULL) {
        sim_compare(sim);
        file = sim_file_new(sim, sim->next_inode, mode);
        sim_entry_add(sim, in, name, file);
        struct effect effect = { .kind = EFFECT_CREATE, .inode = file->inode, .offset = mode };
        snprintf(effect.name, sizeof effect.name, "%s", name);
        sim_note_name(sim, dir, effect);
    }
    size_t i = 0;
    while (i < sim->fd_count && sim->fds[i].used)
        i++;
    if (i == sim->fd_count) {
        sim->fds = sim_grow_array(sim->fds, i, &sim->fd_capacity, sizeof *sim->fds);
        sim->fd_count++;
    }
    sim->fds[i] = (struct sim_fd){ .used = true, .writable = !reads, .file = file };
    *fd = FD_BASE + (int)i;
    return 0;
}

static void drop_locks(struct sim *sim, int fd, uint64_t offset, uint64_t end)
{
    size_t count = sim->lock_count, kept = 0;
    struct sim_lock *old = malloc((count + 1) * sizeof *old);
    if (old == NULL)
        sim_misuse("out of memory");
    if (count > 0)
        memcpy(old, sim->locks, count * sizeof *old);
    sim->lock_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct sim_lock lock = old[i], rest[2];
        kept = 0;
        uint64_t lock_end = lock.offset + lock.size;
        if (lock.fd != fd || lock_end <= offset || end <= lock.offset) {
            rest[kept++] = lock;
        } else {                            /* what is left on either side */
            if (lock.offset < offset)
                rest[kept++] = (struct sim_lock){ fd, lock.offset, offset - lock.offset };
            if (end < lock_end)
                rest[kept++] = (struct sim_lock){ fd, end, lock_end - end };
        }
        for (size_t j = 0; j < kept; j++) {
            sim->locks = sim_grow_array(sim->locks, sim->lock_count, &sim->lock_capacity,
                                    sizeof *sim->locks);
            sim->locks[sim->lock_count++] = rest[j];
        }
    }
    free(old);
}

/* A failing close closes all the same, as on Linux. */
static int os_file_close(const struct os *os, int fd)
{
    struct sim *sim = os->context;
    int error = sim_enter(os, SIM_FILE_CLOSE);
    if (fd >= DIR_BASE) {
        sim_dir_of(sim, fd);
        sim->dir_fds[fd - DIR_BASE] = false;
        return error;
    }
    sim_compare(sim);
    struct sim_fd *open = sim_fd_of(sim, fd);
    drop_locks(sim, fd, 0, UINT64_MAX);
    open->used = false;
    return error;
}

static int os_file_stat(const struct os *os, int fd, struct os_stat *out)
{
    int error = sim_enter(os, SIM_FILE_STAT);
    if (error != 0)
        return error;
    struct sim *sim = os->context;
    if (fd >= DIR_BASE) {
        sim_dir_of(sim, fd);
        *out = (struct os_stat){ .device = 1, .inode = 2, .mode = 0700 };
        return 0;
    }
    const struct sim_file *file = sim_fd_of(sim, fd)->file;
    *out = (struct os_stat){ .size = file->size, .disk_size = sim_whole_pages(file->size), .device = 1,
                             .inode = file->inode, .mode = file->mode };
    return 0;
}

static int os_file_read(const struct os *os, int fd, void *bytes, size_t size, uint64_t offset,
                        size_t *done)
{
    int error = sim_enter(os, SIM_FILE_READ);
    if (error != 0)
        return error;
    const struct sim_file *file = sim_fd_of(os->context, fd)->file;
    uint64_t left = offset < file->size ? file->size - offset : 0;
    size_t count = size < left ? size : (size_t)left;
    if (count > 0)
        memcpy(bytes, file->area->memory + offset, count);
    *done = count;
    return 0;
}

static struct sim_file *file_to_write(struct sim *sim, int fd)
{
    struct sim_fd *open = sim_fd_of(sim, fd);
    if (!open->writable)
        sim_misuse("writing to a file that was opened for reading");
    return open->file;
}

static int os_file_write(const struct os *os, int fd, const void *bytes, size_t size,
                         uint64_t offset)
{
    struct sim *sim = os->context;
    struct sim_file *file = file_to_write(sim, fd);
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_WRITE);
    if (error != 0) {
        if (sim->fault.variant % 2 == 0)
            return error;
        size /= 2;          /* the first half was written before the failure */
    }
    if (size > SIM_FILE_SIZE_MAX || offset > SIM_FILE_SIZE_MAX - size)
        return EFBIG;
    if (!sim_has_room(sim, file, offset + size))
        return ENOSPC;
    if (size == 0)
        return error;
    bool grows = offset + size > file->size;
    if (grows)
        sim_set_size(sim, file, offset + size);
    memcpy(file->area->memory + offset, bytes, size);
    file->dirty = true;
    sim_note_bytes(sim, EFFECT_WRITE, file, offset, size);
    if (grows)
        sim_note_size(sim, file);
    return error;
}

static int os_file_reserve(const struct os *os, int fd, uint64_t offset, uint64_t size)
{
    struct sim *sim = os->context;
    struct sim_file *file = file_to_write(sim, fd);
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_RESERVE);
    if (error != 0) {
        if (sim->fault.variant % 2 == 0)
            return error;
        size /= 2;
    }
    if (size > SIM_FILE_SIZE_MAX || offset > SIM_FILE_SIZE_MAX - size)
        return EFBIG;
    if (!sim_has_room(sim, file, offset + size))
        return ENOSPC;
    if (offset + size > file->size) {
        sim_set_size(sim, file, offset + size);
        sim_note_size(sim, file);
    }
    return error;
}

static int os_file_truncate(const struct os *os, int fd, uint64_t size)
{
    struct sim *sim = os->context;
    struct sim_file *file = file_to_write(sim, fd);
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_TRUNCATE);
    if (error != 0)
        return error;
    if (size > SIM_FILE_SIZE_MAX)
        return EFBIG;
    if (size != file->size) {
        sim_set_size(sim, file, size);
        sim_note_size(sim, file);
    }
    return 0;
}

static int os_file_sync(const struct os *os, int fd)
{
    struct sim *sim = os->context;
    struct sim_file *file = sim_fd_of(sim, fd)->file;
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_SYNC);
    if (error == 0 && sim->lie == LIE_FILE_SYNC)
        return 0;
    if (error == 0)
        file->dirty = false;
    sim_note_file(sim, file, (struct effect){ .inode = file->inode,
                                              .kind = error == 0 ? EFFECT_FILE_SYNC : EFFECT_FILE_SYNC_FAILED });
    return sim->lie == LIE_SYNC_ERROR ? 0 : error;
}

static int os_file_rename(const struct os *os, int dir, const char *from, const char *to)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_RENAME);
    if (error != 0)
        return error;
    if (sim->read_only)
        return EROFS;
    struct sim_dir *in = sim_dir_of(sim, dir);
    struct sim_entry *old = sim_entry_of(in, from), *target = sim_entry_of(in, to);
    if (old == NULL)
        return ENOENT;
    struct sim_file *file = old->file;
    if (target != NULL && target->file == file)
        return 0;
    if (target != NULL) {
        target->file->links--;
        target->file = file;
        file->links++;
    } else {
        sim_entry_add(sim, in, to, file);
    }
    sim_entry_remove(in, sim_entry_of(in, from));
    struct effect effect = { .kind = EFFECT_RENAME, .inode = file->inode };
    snprintf(effect.name, sizeof effect.name, "%s", from);
    snprintf(effect.to, sizeof effect.to, "%s", to);
    sim_note_name(sim, dir, effect);
    return 0;
}

static int os_file_remove(const struct os *os, int dir, const char *name)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_REMOVE);
    if (error != 0)
        return error;
    if (sim->read_only)
        return EROFS;
    struct sim_dir *in = sim_dir_of(sim, dir);
    struct sim_entry *entry = sim_entry_of(in, name);
    if (entry == NULL)
        return ENOENT;
    struct effect effect = { .kind = EFFECT_REMOVE, .inode = entry->file->inode };
    snprintf(effect.name, sizeof effect.name, "%s", name);
    sim_entry_remove(in, entry);
    sim_note_name(sim, dir, effect);
    return 0;
}

static int os_file_link(const struct os *os, int dir, const char *name, int to_dir, const char *to_name)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_LINK);
    if (error != 0)
        return error;
    if (sim->read_only)
        return EROFS;
    struct sim_entry *entry = sim_entry_of(sim_dir_of(sim, dir), name);
    if (entry == NULL)
        return ENOENT;
    struct sim_file *file = entry->file;
    if (sim_entry_of(sim_dir_of(sim, to_dir), to_name) != NULL)
        return EEXIST;
    if (file->dirty)
        sim_misuse("another name for %s, which is not synced", name);
    sim_entry_add(sim, sim_dir_of(sim, to_dir), to_name, file);
    struct effect effect = { .kind = EFFECT_LINK, .inode = file->inode, .offset = file->mode, .size = file->size,
                             .bytes = file->area->memory };
    snprintf(effect.name, sizeof effect.name, "%s", to_name);
    sim_note_name(sim, to_dir, effect);
    return 0;
}

/* One that fails may be half done. */
static int os_file_copy(const struct os *os, int from, int to, uint64_t offset, uint64_t size)
{
    struct sim *sim = os->context;
    const struct sim_file *source = sim_fd_of(sim, from)->file;
    struct sim_file *file = file_to_write(sim, to);
    sim_compare(sim);
    int error = sim_enter(os, SIM_FILE_COPY);
    if (error != 0) {
        if (sim->fault.variant % 2 == 0)
            return error;
        size /= 2;
    }
    if (offset > source->size || size > source->size - offset)
        return EIO;
    if (!sim_has_room(sim, file, offset + size))
        return ENOSPC;
    if (size == 0)
        return error;
    bool grows = offset + size > file->size;
    if (grows)
        sim_set_size(sim, file, offset + size);
    memcpy(file->area->memory + offset, source->area->memory + offset, size);
    file->dirty = true;
    sim_note_bytes(sim, EFFECT_WRITE, file, offset, size);
    if (grows)
        sim_note_size(sim, file);
    return error;
}

/* ---- Mappings ---- */

static int os_map(const struct os *os, int fd, uint64_t offset, size_t size, bool writable,
                  void **out)
{
    struct sim *sim = os->context;
    int error = sim_enter(os, SIM_MAP);
    if (error != 0)
        return error;
    if (size == 0 || offset % 65536 != 0)
        sim_misuse("map of %zu bytes at %llu", size, (unsigned long long)offset);
    struct sim_map map = { .size = size, .writable = writable };
    if (fd == -1) {
        map.address = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map.address == MAP_FAILED)
            return ENOMEM;
    } else {
        struct sim_fd *open = sim_fd_of(sim, fd);
        if (writable && !open->writable)
            return EACCES;
        if (size > SIM_FILE_SIZE_MAX || offset > SIM_FILE_SIZE_MAX - size)
            return ENOMEM;
        sim_compare(sim);
        map.file = open->file;
        map.address = open->file->area->shown + offset;
        if (writable)
            open->file->writable_maps++;
    }
    sim->maps = sim_grow_array(sim->maps, sim->map_count, &sim->map_capacity, sizeof *sim->maps);
    sim->maps[sim->map_count++] = map;
    *out = map.address;
    return 0;
}

static void os_unmap(const struct os *os, void *address, size_t size)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    for (size_t i = 0; i < sim->map_count; i++) {
        struct sim_map map = sim->maps[i];
        if (map.address != address || map.size != size)
            continue;
        if (map.file == NULL)
            munmap(address, size);
        else if (map.writable)
            map.file->writable_maps--;
        sim->maps[i] = sim->maps[--sim->map_count];
        return;
    }
    sim_misuse("unmap of %p, %zu bytes, that is not mapped", address, size);
}

/* Other mappings of the range may stay writable, so the memory does too; that a caller writes where
 * it may not is for tests on the real system to find. */
static int os_protect(const struct os *os, void *address, size_t size)
{
    struct sim *sim = os->context;
    int error = sim_enter(os, SIM_PROTECT);
    if (error != 0)
        return error;
    for (size_t i = 0; i < sim->map_count; i++) {
        struct sim_map *map = &sim->maps[i];
        if (map->address <= (uint8_t *)address &&
            (uint8_t *)address + size <= map->address + map->size)
            return 0;
    }
    sim_misuse("protect of %p, %zu bytes, that is not mapped", address, size);
}

static void os_advise(const struct os *os, void *address, size_t size, enum os_advice advice)
{
    (void)os;
    (void)address;
    (void)size;
    (void)advice;
}

static void os_stored(const struct os *os, int fd, uint64_t offset, const void *bytes, size_t size)
{
    struct sim *sim = os->context;
    struct sim_file *file = file_to_write(sim, fd);
    if (size == 0)
        return;
    if (offset > file->size || size > file->size - offset)
        sim_misuse("stored beyond the end of the file");
    if (memcmp(file->area->memory + offset, bytes, size) != 0)
        sim_misuse("stored does not name the bytes that the file now holds");
    file->noticed = file->dirty = true;
    sim_note_others(sim, file);     /* what was stored elsewhere came first */
    sim_note_bytes(sim, EFFECT_STORE, file, offset, size);
    sim_compare(sim);
}

/* ---- Locks, sleep, clocks, memory ---- */

/* `reading`: for one who does not mind others that were opened for reading. */
static bool held_elsewhere(struct sim *sim, int fd, uint64_t offset, uint64_t size, bool reading)
{
    const struct sim_file *file = sim_fd_of(sim, fd)->file;
    for (size_t i = 0; i < sim->lock_count; i++) {
        struct sim_lock lock = sim->locks[i];
        if (lock.fd != fd && sim->fds[lock.fd - FD_BASE].file == file &&
            !(reading && !sim->fds[lock.fd - FD_BASE].writable) &&
            lock.offset < offset + size && offset < lock.offset + lock.size)
            return true;
    }
    return false;
}

static int os_lock(const struct os *os, int fd, uint64_t offset, uint64_t size, bool wait)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    int error = sim_enter(os, SIM_LOCK);
    if (error != 0)
        return error;
    if (held_elsewhere(sim, fd, offset, size, !sim_fd_of(sim, fd)->writable)) {
        if (wait)
            sim_misuse("waiting for a lock that the only thread holds");
        return EAGAIN;
    }
    drop_locks(sim, fd, offset, offset + size);
    sim->locks = sim_grow_array(sim->locks, sim->lock_count, &sim->lock_capacity, sizeof *sim->locks);
    sim->locks[sim->lock_count++] = (struct sim_lock){ fd, offset, size };
    return 0;
}

static int os_unlock(const struct os *os, int fd, uint64_t offset, uint64_t size)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    int error = sim_enter(os, SIM_UNLOCK);
    if (error != 0)
        return error;
    sim_fd_of(sim, fd);
    drop_locks(sim, fd, offset, offset + size);
    return 0;
}

static int os_lock_held(const struct os *os, int fd, uint64_t offset, uint64_t size, bool *held)
{
    int error = sim_enter(os, SIM_LOCK_HELD);
    if (error != 0)
        return error;
    *held = held_elsewhere(os->context, fd, offset, size, false);
    return 0;
}

/* Nobody else runs, so nobody wakes: time passes. */
static void os_wait(const struct os *os, const uint32_t *word, uint32_t value, uint32_t timeout_ms)
{
    struct sim *sim = os->context;
    sim_compare(sim);
    if (*(const volatile uint32_t *)word == value)
        sim_advance_ms(sim, timeout_ms);
}

static void os_wake(const struct os *os, const uint32_t *word, bool all)
{
    (void)word;
    (void)all;
    sim_compare(os->context);
}

/* Nobody else runs. */
static void os_yield(const struct os *os) { (void)os; }

static int os_random(const struct os *os, void *bytes, size_t size)
{
    struct sim *sim = os->context;
    int error = sim_enter(os, SIM_RANDOM);
    if (error != 0)
        return error;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)next_random(&sim->random);
    return 0;
}

static uint64_t os_wall_ms(const struct os *os)
{
    const struct sim *sim = os->context;
    return sim->wall_ms;
}

static uint64_t os_monotonic_ns(const struct os *os)
{
    struct sim *sim = os->context;
    return sim->monotonic_ns += 100;
}

static int os_boot_id(const struct os *os, struct os_identity *out)
{
    struct sim *sim = os->context;
    int error = sim_enter(os, SIM_BOOT_ID);
    if (error != 0)
        return error;
    uint64_t state = sim->boot;
    for (size_t i = 0; i < sizeof out->bytes; i++)
        out->bytes[i] = (uint8_t)next_random(&state);
    return 0;
}

static void *os_alloc(const struct os *os, size_t size)
{
    struct sim *sim = os->context;
    if (sim_enter(os, SIM_ALLOC) != 0)
        return NULL;
    void *memory = calloc(1, size > 0 ? size : 1);
    if (memory != NULL)
        sim->allocations++;
    return memory;
}

/* Always moves, and leaves rubbish in what is new. */
static void *os_grow(const struct os *os, void *memory, size_t old_size, size_t size)
{
    struct sim *sim = os->context;
    if (sim_enter(os, SIM_GROW) != 0)
        return NULL;
    uint8_t *moved = malloc(size > 0 ? size : 1);
    if (moved == NULL)
        return NULL;
    size_t kept = old_size < size ? old_size : size;
    if (kept > 0)
        memcpy(moved, memory, kept);
    memset(moved + kept, 0xA5, size - kept);
    if (memory == NULL)
        sim->allocations++;
    free(memory);
    return moved;
}

static void os_release(const struct os *os, void *memory)
{
    struct sim *sim = os->context;
    if (memory == NULL)
        return;
    if (sim->allocations == 0)
        sim_misuse("release of what was not allocated");
    sim->allocations--;
    free(memory);
}

static int os_thread_start(const struct os *os, void (*run)(void *context), void *context,
                           void **out)
{
    int error = sim_enter(os, SIM_THREAD_START);
    (void)run;
    (void)context;
    (void)out;
    return error != 0 ? error : EAGAIN;
}

static void os_thread_join(const struct os *os, void *thread)
{
    (void)os;
    sim_misuse("join of thread %p, which never started", thread);
}

const struct os sim_table = {
    .dir_open = os_dir_open, .dir_list = os_dir_list, .dir_sync = os_dir_sync,
    .file_open = os_file_open, .file_close = os_file_close, .file_stat = os_file_stat,
    .file_read = os_file_read, .file_write = os_file_write, .file_reserve = os_file_reserve,
    .file_truncate = os_file_truncate, .file_sync = os_file_sync,
    .file_rename = os_file_rename, .file_remove = os_file_remove,
    .file_link = os_file_link, .file_copy = os_file_copy,
    .map = os_map, .unmap = os_unmap, .protect = os_protect, .advise = os_advise,
    .stored = os_stored,
    .lock = os_lock, .unlock = os_unlock, .lock_held = os_lock_held,
    .wait = os_wait, .wake = os_wake, .yield = os_yield,
    .random = os_random, .wall_ms = os_wall_ms, .monotonic_ns = os_monotonic_ns,
    .boot_id = os_boot_id,
    .alloc = os_alloc, .grow = os_grow, .release = os_release,
    .thread_start = os_thread_start, .thread_join = os_thread_join,
};
