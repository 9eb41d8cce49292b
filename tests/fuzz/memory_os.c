/* memory_os.c -- see memory_os.h. A descriptor is the number of a file. */
#include "memory_os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_COUNT = 8 };
static struct { char name[48]; struct buffer bytes; } files[FILE_COUNT];

static int find(const char *name)
{
    int i = 0;
    while (i < FILE_COUNT && strcmp(files[i].name, name) != 0)
        i++;
    return i;
}

void memory_os_clear(void)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        files[i].name[0] = 0;
        files[i].bytes.size = 0;
    }
}

static int add(const char *name)
{
    int i = find("");
    FUZZ_CHECK(i < FILE_COUNT, "too many files");
    snprintf(files[i].name, sizeof files[i].name, "%s", name);
    files[i].bytes.size = 0;
    return i;
}

struct buffer *memory_os_file(const char *name)
{
    int i = find(name);
    return &files[i < FILE_COUNT ? i : add(name)].bytes;
}

static int dir_list(const struct os *os, int dir, int (*each)(void *, const char *), void *context)
{
    int result = 0;
    (void)os, (void)dir;
    for (int i = 0; i < FILE_COUNT && result == 0; i++)
        if (files[i].name[0] != 0)
            result = each(context, files[i].name);
    return result;
}

static int dir_sync(const struct os *os, int dir)
{
    (void)os, (void)dir;
    return 0;
}

static int file_open(const struct os *os, int dir, const char *name, enum os_open how, uint32_t mode, int *fd)
{
    (void)os, (void)dir, (void)mode;
    int i = find(name);
    if (i < FILE_COUNT && how == OS_CREATE)
        return EEXIST;
    if (i == FILE_COUNT && (how == OS_READ || how == OS_READ_LINKED || how == OS_READ_WRITE))
        return ENOENT;
    *fd = i < FILE_COUNT ? i : add(name);
    return 0;
}

static int file_close(const struct os *os, int fd)
{
    (void)os, (void)fd;
    return 0;
}

static int file_stat(const struct os *os, int fd, struct os_stat *out)
{
    (void)os;
    *out = (struct os_stat){ .size = files[fd].bytes.size };
    return 0;
}

static int file_read(const struct os *os, int fd, void *bytes, size_t size, uint64_t offset, size_t *done)
{
    const struct buffer *file = &files[fd].bytes;
    (void)os;
    *done = offset >= file->size ? 0 : file->size - offset < size ? (size_t)(file->size - offset) : size;
    if (*done > 0)
        memcpy(bytes, file->bytes + offset, *done);
    return 0;
}

static int file_write(const struct os *os, int fd, const void *bytes, size_t size, uint64_t offset)
{
    struct buffer *file = &files[fd].bytes;
    (void)os;
    if (offset + size > file->size)
        buffer_set_size(file, (size_t)offset + size);
    if (size > 0)
        memcpy(file->bytes + offset, bytes, size);
    return 0;
}

static int file_sync(const struct os *os, int fd)
{
    (void)os, (void)fd;
    return 0;
}

static int file_rename(const struct os *os, int dir, const char *from, const char *to)
{
    (void)os, (void)dir;
    int old = find(to), i = find(from);
    if (i == FILE_COUNT)
        return ENOENT;
    if (old < FILE_COUNT)
        files[old].name[0] = 0;
    snprintf(files[i].name, sizeof files[i].name, "%s", to);
    return 0;
}

static int file_remove(const struct os *os, int dir, const char *name)
{
    (void)os, (void)dir;
    int i = find(name);
    if (i == FILE_COUNT)
        return ENOENT;
    files[i].name[0] = 0;
    return 0;
}

/* Private memory alone: a module that maps a file is tested with a mapping made by its target. */
static int map(const struct os *os, int fd, uint64_t offset, size_t size, bool writable, void **out)
{
    (void)os, (void)offset, (void)writable;
    FUZZ_CHECK(fd == -1, "a file is mapped");
    if ((*out = aligned_alloc(65536, (size + 65535) / 65536 * 65536)) == NULL)
        return ENOMEM;
    memset(*out, 0, size);
    return 0;
}

static void unmap(const struct os *os, void *address, size_t size)
{
    (void)os, (void)size;
    free(address);
}

static void advise(const struct os *os, void *address, size_t size, enum os_advice advice)
{
    (void)os, (void)address, (void)size, (void)advice;
}

/* More than the input could ask for honestly is refused, as a machine would: a size from the input
 * that nothing vouches for shows as PYKV_NO_MEMORY where PYKV_CORRUPT was due. */
static void *os_alloc(const struct os *os, size_t size)
{
    (void)os;
    return size > 64u << 20 ? NULL : calloc(1, size > 0 ? size : 1);
}

static void *os_grow(const struct os *os, void *memory, size_t old_size, size_t size)
{
    (void)os, (void)old_size;
    return realloc(memory, size);
}

static void os_release(const struct os *os, void *memory)
{
    (void)os;
    free(memory);
}

const struct os memory_os = {
    .dir_list = dir_list, .dir_sync = dir_sync,
    .file_open = file_open, .file_close = file_close, .file_stat = file_stat, .file_read = file_read,
    .file_write = file_write, .file_sync = file_sync, .file_rename = file_rename, .file_remove = file_remove,
    .map = map, .unmap = unmap, .advise = advise,
    .alloc = os_alloc, .grow = os_grow, .release = os_release,
};
