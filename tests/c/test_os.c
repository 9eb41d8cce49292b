/* os_posix, function by function, against the system it stands on. */
#define _GNU_SOURCE 1
#define _DARWIN_C_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "os.h"
#include "test.h"

static const struct os *const os = &os_posix;

static int open_dir(const char *path)
{
    int dir = -1;
    CHECK_EQUAL(os->dir_open(os, path, false, 0, &dir), 0);
    return dir;
}

static int create(int dir, const char *name)
{
    int fd = -1;
    CHECK_EQUAL(os->file_open(os, dir, name, OS_CREATE, 0600, &fd), 0);
    return fd;
}

static uint64_t size_of(int fd)
{
    struct os_stat stat;
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    return stat.size;
}

static void path_in(char out[512], const char *dir, const char *name)
{
    CHECK(snprintf(out, 512, "%s/%s", dir, name) < 512);
}

/* ---- Directories ---- */

static void dir_open_creates_one_level_with_the_mode(void)
{
    char path[512], below[512];
    int dir = -1;
    struct stat info;
    path_in(path, test_dir(), "store");
    path_in(below, path, "deeper");
    CHECK_EQUAL(os->dir_open(os, path, false, 0700, &dir), ENOENT);
    CHECK_EQUAL(os->dir_open(os, below, true, 0700, &dir), ENOENT);
    CHECK_EQUAL(dir, -1);

    umask(0077);
    CHECK_EQUAL(os->dir_open(os, path, true, 0755, &dir), 0);
    CHECK_EQUAL(stat(path, &info), 0);
    CHECK_EQUAL(info.st_mode & 07777, 0755);
    CHECK((fcntl(dir, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_EQUAL(os->file_close(os, dir), 0);

    /* One that is there is opened as it is. */
    CHECK_EQUAL(os->dir_open(os, path, true, 0700, &dir), 0);
    CHECK_EQUAL(stat(path, &info), 0);
    CHECK_EQUAL(info.st_mode & 07777, 0755);
    CHECK_EQUAL(os->dir_sync(os, dir), 0);
    CHECK_EQUAL(os->file_close(os, dir), 0);
}

static void dir_open_refuses_what_is_no_directory(void)
{
    const char *base = test_dir();
    char path[512];
    int dir = open_dir(base), none = -1;
    close(create(dir, "file"));
    path_in(path, base, "file");
    CHECK_EQUAL(os->dir_open(os, path, true, 0700, &none), ENOTDIR);
    CHECK_EQUAL(none, -1);
    close(dir);
}

struct listing { unsigned count; bool a, b; unsigned stop_at; };

static int note_name(void *context, const char *name)
{
    struct listing *listing = context;
    listing->count++;
    listing->a |= strcmp(name, "a") == 0;
    listing->b |= strcmp(name, "b") == 0;
    return listing->count == listing->stop_at ? 77 : 0;
}

static void dir_list_tells_every_name_each_time(void)
{
    int dir = open_dir(test_dir());
    close(create(dir, "a"));
    close(create(dir, "b"));
    for (int again = 0; again < 2; again++) {
        struct listing listing = { 0 };
        CHECK_EQUAL(os->dir_list(os, dir, note_name, &listing), 0);
        CHECK(listing.count == 2 && listing.a && listing.b);
    }
    struct listing one = { .stop_at = 1 };
    CHECK_EQUAL(os->dir_list(os, dir, note_name, &one), 77);
    CHECK_EQUAL(one.count, 1);
    CHECK_EQUAL(os->dir_list(os, -1, note_name, &one), EBADF);
    close(dir);
}

/* ---- Files ---- */

static void file_open_keeps_its_four_promises(void)
{
    int dir = open_dir(test_dir()), fd = -1;
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_READ, 0, &fd), ENOENT);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_READ_WRITE, 0, &fd), ENOENT);
    CHECK_EQUAL(fd, -1);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_CREATE, 0600, &fd), 0);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_EQUAL(os->file_write(os, fd, "text", 4, 0), 0);
    CHECK_EQUAL(os->file_close(os, fd), 0);

    fd = -1;
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_CREATE, 0600, &fd), EEXIST);
    CHECK_EQUAL(fd, -1);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_READ, 0, &fd), 0);
    CHECK_EQUAL(os->file_write(os, fd, "text", 4, 0), EBADF);
    CHECK_EQUAL(os->file_close(os, fd), 0);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_READ_WRITE, 0, &fd), 0);
    CHECK_EQUAL(os->file_write(os, fd, "TEXT", 4, 0), 0);
    CHECK_EQUAL(os->file_close(os, fd), 0);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_OPEN_OR_CREATE, 0600, &fd), 0);
    CHECK_EQUAL(size_of(fd), 4);
    CHECK_EQUAL(os->file_close(os, fd), 0);
    CHECK_EQUAL(os->file_open(os, dir, "new", OS_OPEN_OR_CREATE, 0600, &fd), 0);
    CHECK_EQUAL(size_of(fd), 0);
    CHECK_EQUAL(os->file_close(os, fd), 0);
    CHECK_EQUAL(os->file_close(os, fd), EBADF);
    close(dir);
}

static void file_open_gives_the_mode_under_any_umask(void)
{
    int dir = open_dir(test_dir()), fd = -1;
    struct os_stat stat;
    umask(0077);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_CREATE, 0664, &fd), 0);
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    CHECK_EQUAL(stat.mode, 0664);
    close(fd);
    umask(0);
    CHECK_EQUAL(os->file_open(os, dir, "g", OS_OPEN_OR_CREATE, 0600, &fd), 0);
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    CHECK_EQUAL(stat.mode, 0600);
    close(fd);
    /* An existing one keeps its own. */
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_OPEN_OR_CREATE, 0600, &fd), 0);
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    CHECK_EQUAL(stat.mode, 0664);
    close(fd);
    close(dir);
}

static void refuse_each_way(int dir, const char *name)
{
    int fd = -1;
    CHECK_EQUAL(os->file_open(os, dir, name, OS_READ, 0, &fd), EINVAL);
    CHECK_EQUAL(os->file_open(os, dir, name, OS_READ_WRITE, 0, &fd), EINVAL);
    CHECK_EQUAL(os->file_open(os, dir, name, OS_OPEN_OR_CREATE, 0600, &fd), EINVAL);
    CHECK_EQUAL(os->file_open(os, dir, name, OS_CREATE, 0600, &fd), EEXIST);
    CHECK_EQUAL(fd, -1);
}

static void file_open_refuses_what_is_no_plain_file(void)
{
    const char *base = test_dir();
    int dir = open_dir(base);
    struct stat info;

    close(create(dir, "target"));
    CHECK_EQUAL(symlinkat("target", dir, "link"), 0);
    refuse_each_way(dir, "link");
    CHECK_EQUAL(symlinkat("nowhere", dir, "dangling"), 0);
    refuse_each_way(dir, "dangling");
    CHECK_EQUAL(fstatat(dir, "nowhere", &info, 0), -1);

    char path[512];
    path_in(path, base, "fifo");
    CHECK_EQUAL(mkfifo(path, 0600), 0);
    refuse_each_way(dir, "fifo");           /* and does not wait for a writer */

    CHECK_EQUAL(mkdirat(dir, "directory", 0700), 0);
    refuse_each_way(dir, "directory");

    close(create(dir, "twice"));
    CHECK_EQUAL(linkat(dir, "twice", dir, "again", 0), 0);
    refuse_each_way(dir, "twice");
    refuse_each_way(dir, "again");

    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(listener >= 0);
    if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", base) <
        sizeof address.sun_path) {
        CHECK_EQUAL(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
        refuse_each_way(dir, "socket");
    }
    close(listener);
    close(dir);
}

static void file_stat_tells_size_blocks_and_identity(void)
{
    int dir = open_dir(test_dir()), fd = create(dir, "f"), other = create(dir, "g");
    struct os_stat stat, others;
    static uint8_t bytes[10000];
    memset(bytes, 1, sizeof bytes);
    CHECK_EQUAL(os->file_write(os, fd, bytes, sizeof bytes, 0), 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);      /* some file systems choose blocks only now */
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    CHECK_EQUAL(os->file_stat(os, other, &others), 0);
    CHECK_EQUAL(stat.size, sizeof bytes);
    CHECK(stat.disk_size > 0 && stat.disk_size % 512 == 0);
    CHECK(stat.device == others.device && stat.inode != others.inode);
    CHECK_EQUAL(os->file_stat(os, -1, &stat), EBADF);
    close(fd), close(other), close(dir);
}

static void file_read_is_short_only_at_the_end(void)
{
    int dir = open_dir(test_dir()), fd = create(dir, "f");
    char bytes[16] = "................";
    size_t done = 99;
    CHECK_EQUAL(os->file_write(os, fd, "0123456789", 10, 5), 0);
    CHECK_EQUAL(size_of(fd), 15);
    CHECK_EQUAL(os->file_read(os, fd, bytes, 4, 7, &done), 0);
    CHECK_EQUAL(done, 4);
    CHECK_BYTES(bytes, "2345....", 8);
    CHECK_EQUAL(os->file_read(os, fd, bytes, 16, 0, &done), 0);
    CHECK_EQUAL(done, 15);
    CHECK_BYTES(bytes, "\0\0\0\0\0" "0123456789.", 16);
    CHECK_EQUAL(os->file_read(os, fd, bytes, 16, 1000, &done), 0);
    CHECK_EQUAL(done, 0);
    CHECK_EQUAL(os->file_truncate(os, fd, 7), 0);
    CHECK_EQUAL(size_of(fd), 7);
    CHECK_EQUAL(os->file_truncate(os, fd, 9), 0);
    CHECK_EQUAL(os->file_read(os, fd, bytes, 16, 5, &done), 0);
    CHECK_EQUAL(done, 4);
    CHECK_BYTES(bytes, "01\0", 4);
    CHECK_EQUAL(os->file_read(os, -1, bytes, 1, 0, &done), EBADF);
    CHECK_EQUAL(os->file_write(os, -1, bytes, 1, 0), EBADF);
    CHECK_EQUAL(os->file_truncate(os, -1, 0), EBADF);
    CHECK_EQUAL(os->file_sync(os, -1), EBADF);
    CHECK_EQUAL(os->dir_sync(os, -1), EBADF);
    close(fd), close(dir);
}

static void check_reserve(const char *base)
{
    int dir = open_dir(base), fd = create(dir, "reserved");
    struct os_stat stat;
    uint8_t bytes[4096];
    size_t done;
    CHECK_EQUAL(os->file_write(os, fd, "before", 6, 0), 0);
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 1 << 20), 0);
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    CHECK_EQUAL(stat.size, 1 << 20);
    CHECK(stat.disk_size >= 1 << 20);
    CHECK_EQUAL(os->file_read(os, fd, bytes, sizeof bytes, 0, &done), 0);
    CHECK_BYTES(bytes, "before", 7);
    CHECK_EQUAL(os->file_read(os, fd, bytes, sizeof bytes, (1 << 20) - 4096, &done), 0);
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK_EQUAL(bytes[i], 0);

    /* Again, and overlapping: nothing that is there changes. */
    CHECK_EQUAL(os->file_write(os, fd, "middle", 6, 500000), 0);
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 2 << 20), 0);
    CHECK_EQUAL(os->file_read(os, fd, bytes, 6, 500000, &done), 0);
    CHECK_BYTES(bytes, "middle", 6);
    CHECK_EQUAL(size_of(fd), 2 << 20);
    CHECK_EQUAL(os->file_reserve(os, fd, 5, 0), 0);
    CHECK_EQUAL(size_of(fd), 2 << 20);

    CHECK_EQUAL(os->file_reserve(os, fd, UINT64_MAX - 5, 10), EFBIG);
    CHECK_EQUAL(os->file_reserve(os, fd, INT64_MAX, 10), EFBIG);
    CHECK_EQUAL(os->file_reserve(os, -1, 0, 10), EBADF);
    CHECK_EQUAL(size_of(fd), 2 << 20);
    close(fd);
    CHECK_EQUAL(os->file_remove(os, dir, "reserved"), 0);
    close(dir);
}

static void file_reserve_gives_blocks_and_keeps_data(void)
{
    check_reserve(test_dir());
}

static void file_reserve_works_on_tmpfs(void)
{
    char path[] = "/dev/shm/pykv-XXXXXX";
    if (mkdtemp(path) == NULL) {
        puts("no /dev/shm here");
        return;
    }
    check_reserve(path);
    CHECK_EQUAL(rmdir(path), 0);
}

static void file_rename_replaces_and_remove_removes(void)
{
    int dir = open_dir(test_dir()), fd = create(dir, "old"), found = -1;
    close(create(dir, "new"));
    CHECK_EQUAL(os->file_write(os, fd, "x", 1, 0), 0);
    CHECK_EQUAL(os->file_rename(os, dir, "old", "new"), 0);
    CHECK_EQUAL(os->file_open(os, dir, "old", OS_READ, 0, &found), ENOENT);
    CHECK_EQUAL(os->file_open(os, dir, "new", OS_READ, 0, &found), 0);
    CHECK_EQUAL(size_of(found), 1);
    CHECK_EQUAL(os->file_remove(os, dir, "new"), 0);
    CHECK_EQUAL(os->file_remove(os, dir, "new"), ENOENT);
    CHECK_EQUAL(os->file_rename(os, dir, "old", "new"), ENOENT);
    close(fd), close(found), close(dir);
}

/* ---- Mappings ---- */

static void file_link_gives_a_second_name_for_reading(void)
{
    int dir = open_dir(test_dir()), other = open_dir(test_dir()), fd = create(dir, "f"), found = -1;
    char byte;
    size_t done;
    CHECK_EQUAL(os->file_write(os, fd, "x", 1, 0), 0);
    close(fd);
    CHECK_EQUAL(os->file_link(os, dir, "f", other, "g"), 0);
    CHECK_EQUAL(os->file_link(os, dir, "f", other, "g"), EEXIST);
    CHECK_EQUAL(os->file_link(os, dir, "absent", other, "h"), ENOENT);
    refuse_each_way(dir, "f");
    refuse_each_way(other, "g");
    CHECK_EQUAL(os->file_open(os, other, "g", OS_READ_LINKED, 0, &found), 0);
    CHECK_EQUAL(os->file_read(os, found, &byte, 1, 0, &done), 0);
    CHECK(done == 1 && byte == 'x');
    CHECK_EQUAL(os->file_write(os, found, "y", 1, 0), EBADF);
    close(found);
    CHECK_EQUAL(os->file_remove(os, dir, "f"), 0);
    CHECK_EQUAL(os->file_open(os, other, "g", OS_READ_WRITE, 0, &found), 0);
    close(found), close(dir), close(other);
}

static void file_copy_copies_to_the_same_place(void)
{
    enum { SIZE = 3 * 1024 * 1024 + 17 };
    int dir = open_dir(test_dir()), from = create(dir, "f"), to = create(dir, "g");
    uint8_t *bytes = malloc(SIZE), *got = malloc(SIZE);
    uint64_t random = 1;
    size_t done;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)test_random(&random);
    CHECK_EQUAL(os->file_write(os, from, bytes, SIZE, 0), 0);
    CHECK_EQUAL(os->file_copy(os, from, to, 0, 100), 0);
    CHECK_EQUAL(os->file_copy(os, from, to, 100, SIZE - 100), 0);
    CHECK_EQUAL(os->file_copy(os, from, to, 5, 0), 0);
    CHECK_EQUAL(size_of(to), SIZE);
    CHECK_EQUAL(os->file_read(os, to, got, SIZE, 0, &done), 0);
    CHECK_BYTES(got, bytes, SIZE);
    CHECK_EQUAL(os->file_copy(os, from, to, SIZE - 5, 6), EIO);
    CHECK_EQUAL(os->file_copy(os, from, to, SIZE + 5, 1), EIO);
    /* To another file system, which the system may refuse to do by itself. */
    if (access("/dev/shm", W_OK) == 0) {
        char path[] = "/dev/shm/pykv-copy-XXXXXX";
        int far = mkstemp(path);
        CHECK(far >= 0 && unlink(path) == 0);
        CHECK_EQUAL(os->file_copy(os, from, far, 0, SIZE), 0);
        CHECK_EQUAL(os->file_read(os, far, got, SIZE, 0, &done), 0);
        CHECK_BYTES(got, bytes, SIZE);
        close(far);
    }
    free(bytes), free(got);
    close(from), close(to), close(dir);
}

static void map_shares_a_file_and_may_reach_beyond_it(void)
{
    int dir = open_dir(test_dir()), fd = create(dir, "f"), again = -1;
    void *writable = NULL, *readable = NULL;
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 65536), 0);
    CHECK_EQUAL(os->map(os, fd, 0, 1 << 20, true, &writable), 0);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_READ, 0, &again), 0);
    CHECK_EQUAL(os->map(os, again, 0, 65536, false, &readable), 0);
    memcpy((char *)writable + 100, "shared", 6);
    CHECK_BYTES((char *)readable + 100, "shared", 6);
    os->stored(os, fd, 100, (char *)writable + 100, 6);

    /* The file grows under the mapping. */
    CHECK_EQUAL(os->file_reserve(os, fd, 65536, 65536), 0);
    memcpy((char *)writable + 65536, "grown", 5);
    char bytes[5];
    size_t done;
    CHECK_EQUAL(os->file_read(os, fd, bytes, 5, 65536, &done), 0);
    CHECK_BYTES(bytes, "grown", 5);

    void *second = NULL;
    CHECK_EQUAL(os->map(os, fd, 65536, 65536, false, &second), 0);
    CHECK_BYTES(second, "grown", 5);
    CHECK_EQUAL(os->map(os, again, 0, 65536, true, &second), EACCES);
    CHECK_BYTES(second, "grown", 5);

    for (int advice = OS_RANDOM; advice <= OS_HUGE; advice++)
        os->advise(os, (char *)writable + 100, 100000, (enum os_advice)advice);
    CHECK_BYTES((char *)writable + 65536, "grown", 5);
    os->unmap(os, second, 65536);
    os->unmap(os, readable, 65536);
    os->unmap(os, writable, 1 << 20);
    os->unmap(os, NULL, 0);
    close(fd), close(again), close(dir);
}

static void map_without_a_file_is_zeroed_memory(void)
{
    uint8_t *memory = NULL;
    void *out = NULL;
    CHECK_EQUAL(os->map(os, -1, 0, 1 << 20, true, &out), 0);
    memory = out;
    for (size_t i = 0; i < 1 << 20; i += 4096)
        CHECK_EQUAL(memory[i], 0);
    memset(memory, 1, 1 << 20);
    os->unmap(os, memory, 1 << 20);
}

struct memory { uint8_t *bytes; };

static void store_there(void *context)
{
    signal(SIGSEGV, SIG_DFL);       /* a sanitizer would report it as a bug */
    *(volatile uint8_t *)((struct memory *)context)->bytes = 1;
}

static void protect_makes_read_only(void)
{
    void *out = NULL;
    CHECK_EQUAL(os->map(os, -1, 0, 65536, true, &out), 0);
    struct memory memory = { out };
    memory.bytes[0] = 7;
    CHECK_EQUAL(os->protect(os, out, 65536), 0);
    CHECK_EQUAL(memory.bytes[0], 7);
    pid_t pid = test_fork(store_there, &memory);
    CHECK_EQUAL(test_wait(pid), -SIGSEGV);
    CHECK_EQUAL(memory.bytes[0], 7);
    os->unmap(os, out, 65536);
}

/* ---- Locks ---- */

static void locks_exclude_between_two_openings(void)
{
    int dir = open_dir(test_dir()), a = create(dir, "lock"), b = -1, reader = -1;
    bool held = true;
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_OPEN_OR_CREATE, 0600, &b), 0);
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_READ, 0, &reader), 0);
    CHECK_EQUAL(os->lock_held(os, b, 0, 100, &held), 0);
    CHECK(!held);
    CHECK_EQUAL(os->lock(os, a, 10, 1, false), 0);
    CHECK_EQUAL(os->lock(os, a, 10, 1, false), 0);      /* ours already */
    CHECK_EQUAL(os->lock(os, b, 10, 1, false), EAGAIN);
    CHECK_EQUAL(os->lock(os, b, 11, 1, false), 0);      /* beside it */

    CHECK_EQUAL(os->lock_held(os, b, 10, 1, &held), 0);
    CHECK(held);
    CHECK_EQUAL(os->lock_held(os, b, 0, 10, &held), 0);
    CHECK(!held);
    CHECK_EQUAL(os->lock_held(os, b, 0, 11, &held), 0);
    CHECK(held);
    CHECK_EQUAL(os->lock_held(os, a, 10, 1, &held), 0); /* one's own does not count */
    CHECK(!held);
    CHECK_EQUAL(os->lock_held(os, reader, 10, 1, &held), 0);
    CHECK(held);

    /* Those opened for reading exclude nobody but those opened for writing. */
    int third = -1;
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_READ, 0, &third), 0);
    CHECK_EQUAL(os->lock(os, reader, 50, 1, false), 0);
    CHECK_EQUAL(os->lock(os, third, 50, 1, false), 0);
    CHECK_EQUAL(os->lock(os, third, 10, 1, false), EAGAIN);
    CHECK_EQUAL(os->lock(os, a, 50, 1, false), EAGAIN);
    CHECK_EQUAL(os->lock_held(os, a, 50, 1, &held), 0);
    CHECK(held);
    CHECK_EQUAL(os->unlock(os, reader, 50, 1), 0);

    /* Closing another opening of the file drops no lock. */
    close(third);
    CHECK_EQUAL(os->lock(os, a, 50, 1, false), 0);
    CHECK_EQUAL(os->lock(os, b, 10, 1, false), EAGAIN);

    CHECK_EQUAL(os->unlock(os, a, 10, 1), 0);
    CHECK_EQUAL(os->lock(os, b, 10, 1, true), 0);
    CHECK_EQUAL(os->lock(os, a, 10, 1, false), EAGAIN);
    close(b);
    CHECK_EQUAL(os->lock(os, a, 10, 2, false), 0);
    close(a), close(reader), close(dir);
}

struct child { int dir; int pipe[2]; };

static void hold_lock(void *context)
{
    struct child *child = context;
    int fd = -1;
    CHECK_EQUAL(os->file_open(os, child->dir, "lock", OS_READ_WRITE, 0, &fd), 0);
    CHECK_EQUAL(os->lock(os, fd, 3, 1, false), 0);
    CHECK_EQUAL(write(child->pipe[1], "x", 1), 1);
    pause();
}

static void locks_go_when_their_holder_is_killed(void)
{
    struct child child = { .dir = open_dir(test_dir()) };
    int fd = create(child.dir, "lock");
    bool held = false;
    char byte;
    CHECK_EQUAL(pipe(child.pipe), 0);
    pid_t pid = test_fork(hold_lock, &child);
    CHECK_EQUAL(read(child.pipe[0], &byte, 1), 1);
    CHECK_EQUAL(os->lock_held(os, fd, 3, 1, &held), 0);
    CHECK(held);
    CHECK_EQUAL(os->lock(os, fd, 3, 1, false), EAGAIN);
    test_kill(pid);
    CHECK_EQUAL(os->lock_held(os, fd, 3, 1, &held), 0);
    CHECK(!held);
    CHECK_EQUAL(os->lock(os, fd, 3, 1, true), 0);
    close(fd), close(child.dir), close(child.pipe[0]), close(child.pipe[1]);
}

static void look_at_lock(void *context)
{
    int fd = *(int *)context;
    bool held = true;
    CHECK_EQUAL(os->lock_held(os, fd, 3, 1, &held), 0);
    CHECK(!held);                       /* the description is the parent's, and so is the lock */
    CHECK_EQUAL(os->lock(os, fd, 3, 1, false), 0);
}

/* A forked child has a share in the lock; its end does not drop it. */
static void locks_stay_when_a_forked_child_ends(void)
{
    int dir = open_dir(test_dir()), fd = create(dir, "lock"), other = -1;
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_READ_WRITE, 0, &other), 0);
    CHECK_EQUAL(os->lock(os, fd, 3, 1, false), 0);
    test_join(test_fork(look_at_lock, &fd));
    CHECK_EQUAL(os->lock(os, other, 3, 1, false), EAGAIN);
    close(fd);
    CHECK_EQUAL(os->lock(os, other, 3, 1, false), 0);
    close(other), close(dir);
}

static void hold_lock_for_a_while(void *context)
{
    struct child *child = context;
    int fd = -1;
    CHECK_EQUAL(os->file_open(os, child->dir, "lock", OS_READ_WRITE, 0, &fd), 0);
    CHECK_EQUAL(os->lock(os, fd, 0, 1, false), 0);
    CHECK_EQUAL(write(child->pipe[1], "x", 1), 1);
    usleep(50000);
}

static volatile sig_atomic_t alarms;
static void count_alarm(int number)
{
    (void)number;
    alarms++;
}

/* Waiting goes on through signals. */
static void lock_waits_for_its_turn(void)
{
    struct child child = { .dir = open_dir(test_dir()) };
    int fd = create(child.dir, "lock");
    char byte;
    struct sigaction action = { .sa_handler = count_alarm };
    CHECK_EQUAL(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQUAL(pipe(child.pipe), 0);
    pid_t pid = test_fork(hold_lock_for_a_while, &child);
    CHECK_EQUAL(read(child.pipe[0], &byte, 1), 1);
    ualarm(5000, 5000);
    CHECK_EQUAL(os->lock(os, fd, 0, 1, true), 0);
    ualarm(0, 0);
    usleep(1000);           /* a sanitizer may hold signals back until the next such call */
    CHECK(alarms > 0);
    test_join(pid);
    close(fd), close(child.dir), close(child.pipe[0]), close(child.pipe[1]);
}

/* ---- Sleeping ---- */

#define LONG_MS 60000u

static _Atomic uint32_t *shared_word(int *fd, int dir)
{
    void *out = NULL;
    *fd = create(dir, "word");
    CHECK_EQUAL(os->file_reserve(os, *fd, 0, 65536), 0);
    CHECK_EQUAL(os->map(os, *fd, 0, 65536, true, &out), 0);
    return out;
}

static void wait_returns_when_the_word_differs_or_time_is_up(void)
{
    uint32_t word = 5;
    uint64_t start = os->monotonic_ns(os);
    os->wait(os, &word, 4, LONG_MS);
    CHECK(os->monotonic_ns(os) - start < UINT64_C(10000000000));
    start = os->monotonic_ns(os);
    os->wait(os, &word, 5, 20);
    CHECK(os->monotonic_ns(os) - start >= UINT64_C(15000000));
    os->wake(os, &word, true);
}

static void sleep_on_word(void *context)
{
    _Atomic uint32_t *word = context;
    atomic_fetch_add(word + 1, 1);
    while (atomic_load(word) == 0)
        os->wait(os, (const uint32_t *)word, 0, LONG_MS);
}

/* Two processes and one wake for both. */
static void wake_reaches_other_processes(void)
{
    int dir = open_dir(test_dir()), fd = -1;
    _Atomic uint32_t *word = shared_word(&fd, dir);
    pid_t first = test_fork(sleep_on_word, (void *)word);
    pid_t second = test_fork(sleep_on_word, (void *)word);
    while (atomic_load(word + 1) < 2)
        usleep(1000);
    usleep(20000);                      /* by now they most likely sleep */
    uint64_t start = os->monotonic_ns(os);
    atomic_store(word, 1);
    os->wake(os, (const uint32_t *)word, true);
    test_join(first);
    test_join(second);
    CHECK(os->monotonic_ns(os) - start < UINT64_C(30000000000));
    os->unmap(os, (void *)word, 65536);
    close(fd), close(dir);
}

/* ---- Chance, time, identity ---- */

static void random_fills_every_byte(void)
{
    uint8_t seen[1000] = { 0 }, bytes[1000];
    for (int round = 0; round < 8; round++) {
        CHECK_EQUAL(os->random(os, bytes, sizeof bytes), 0);
        for (size_t i = 0; i < sizeof bytes; i++)
            seen[i] |= bytes[i];
    }
    for (size_t i = 0; i < sizeof seen; i++)
        CHECK(seen[i] != 0);            /* by chance once in 10^16 runs */
    CHECK_EQUAL(os->random(os, bytes, 0), 0);
}

static void clocks_tell_time(void)
{
    uint64_t before = (uint64_t)time(NULL) * 1000;
    CHECK(os->wall_ms(os) >= before);
    CHECK(os->wall_ms(os) < before + 60000);
    uint64_t start = os->monotonic_ns(os);
    usleep(2000);
    uint64_t slept = os->monotonic_ns(os) - start;
    CHECK(slept >= 2000000 && slept < UINT64_C(30000000000));
}

static void boot_id_stays_while_the_machine_runs(void)
{
    struct os_identity first, second;
    static const uint8_t zeros[16];
    CHECK_EQUAL(os->boot_id(os, &first), 0);
    CHECK_EQUAL(os->boot_id(os, &second), 0);
    CHECK_BYTES(first.bytes, second.bytes, 16);
    CHECK(memcmp(first.bytes, zeros, 16) != 0);
}

/* ---- Memory and threads ---- */

static void memory_is_zeroed_and_never_null_for_nothing(void)
{
    uint8_t *memory = os->alloc(os, 1000);
    CHECK(memory != NULL);
    for (size_t i = 0; i < 1000; i++)
        CHECK_EQUAL(memory[i], 0);
    memset(memory, 3, 1000);
    memory = os->grow(os, memory, 1000, 5000);
    CHECK(memory != NULL && memory[999] == 3);
    os->release(os, memory);

    void *nothing = os->alloc(os, 0), *grown = os->grow(os, NULL, 0, 0);
    CHECK(nothing != NULL && grown != NULL);
    os->release(os, nothing);
    os->release(os, grown);
    os->release(os, NULL);
}

static void look_at_signals(void *context)
{
    sigset_t *set = context;
    pthread_sigmask(SIG_SETMASK, NULL, set);
}

static void threads_block_signals_but_not_faults(void)
{
    sigset_t inside, before, after;
    void *thread = NULL;
    sigemptyset(&inside);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    CHECK_EQUAL(os->thread_start(os, look_at_signals, &inside, &thread), 0);
    os->thread_join(os, thread);
    os->thread_join(os, NULL);
    static const int blocked[] = { SIGINT, SIGTERM, SIGALRM, SIGUSR1, SIGCHLD, SIGHUP };
    for (size_t i = 0; i < sizeof blocked / sizeof blocked[0]; i++)
        CHECK_EQUAL(sigismember(&inside, blocked[i]), 1);
    CHECK_EQUAL(sigismember(&inside, SIGSEGV), 0);
    CHECK_EQUAL(sigismember(&inside, SIGBUS), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK_EQUAL(sigismember(&after, SIGINT), sigismember(&before, SIGINT));
}

TEST_MAIN(CASE(dir_open_creates_one_level_with_the_mode),
          CASE(dir_open_refuses_what_is_no_directory), CASE(dir_list_tells_every_name_each_time),
          CASE(file_open_keeps_its_four_promises), CASE(file_open_gives_the_mode_under_any_umask),
          CASE(file_open_refuses_what_is_no_plain_file),
          CASE(file_stat_tells_size_blocks_and_identity), CASE(file_read_is_short_only_at_the_end),
          CASE(file_reserve_gives_blocks_and_keeps_data), CASE(file_reserve_works_on_tmpfs),
          CASE(file_rename_replaces_and_remove_removes),
          CASE(file_link_gives_a_second_name_for_reading), CASE(file_copy_copies_to_the_same_place),
          CASE(map_shares_a_file_and_may_reach_beyond_it),
          CASE(map_without_a_file_is_zeroed_memory), CASE(protect_makes_read_only),
          CASE(locks_exclude_between_two_openings), CASE(locks_go_when_their_holder_is_killed),
          CASE(locks_stay_when_a_forked_child_ends),
          CASE(lock_waits_for_its_turn), CASE(wait_returns_when_the_word_differs_or_time_is_up),
          CASE(wake_reaches_other_processes), CASE(random_fills_every_byte),
          CASE(clocks_tell_time), CASE(boot_id_stays_while_the_machine_runs),
          CASE(memory_is_zeroed_and_never_null_for_nothing),
          CASE(threads_block_signals_but_not_faults))
