/* What is behind os.h in the product: Linux first, then macOS. Where the two differ the difference
 * stands in one place, with what it costs. */
#define _GNU_SOURCE 1
#define _DARWIN_C_SOURCE 1
#define _FILE_OFFSET_BITS 64

#include "os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>                  /* renameat */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/random.h>
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <sys/random.h>
#include <sys/sysctl.h>
#endif

/* Evaluate a call that returns -1 with errno set, again and again while a signal interrupts it. */
#define RETRY(result, call)                             \
    do                                                  \
        (result) = (call);                              \
    while ((result) == -1 && errno == EINTR)

static int result_of(int result)
{
    return result == -1 ? errno : 0;
}

static int open_at(int dir, const char *name, int flags, uint32_t mode)
{
    int fd;
    RETRY(fd, openat(dir, name, flags | O_CLOEXEC, (mode_t)mode));
    return fd;
}

/* Give what was just made the mode that was asked for. The umask has taken bits away, never added
 * any, so until here it was open to fewer than it will be. */
static int set_mode(int fd, uint32_t mode)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return errno;
    if ((info.st_mode & 07777) == mode)
        return 0;
    int result;
    RETRY(result, fchmod(fd, (mode_t)mode));
    return result_of(result);
}

/* ---- Directories ---- */

static int posix_dir_list(const struct os *os, int dir,
                          int (*each)(void *context, const char *name), void *context)
{
    (void)os;
    /* Opened anew, because the position of a listing belongs to the open file description, which
     * `dir` shares with other threads and, after a fork, with other processes. */
    int fd = open_at(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return errno;
    DIR *list = fdopendir(fd);
    if (list == NULL) {
        int error = errno;
        close(fd);
        return error;
    }
    int result = 0;
    while (result == 0) {
        errno = 0;
        struct dirent *entry = readdir(list);
        if (entry == NULL) {
            result = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = each(context, entry->d_name);
    }
    closedir(list);
    return result;
}

static int posix_dir_sync(const struct os *os, int dir)
{
    (void)os;
    int result;
    RETRY(result, fsync(dir));
    /* EINVAL: this file system has no such thing as syncing a directory, and offers no other. */
    return result == 0 || errno == EINVAL ? 0 : errno;
}

static int sync_parent(const struct os *os, int dir)
{
    int parent = open_at(dir, "..", O_RDONLY | O_DIRECTORY, 0);
    if (parent < 0 && errno == EACCES) {
        /* We may create things there, but not open it: sync all of the file system instead. */
#if defined(__linux__)
        return result_of(syncfs(dir));
#else
        return 0;
#endif
    }
    if (parent < 0)
        return errno;
    int error = posix_dir_sync(os, parent);
    close(parent);
    return error;
}

static int stop_at_first(void *context, const char *name)
{
    (void)context, (void)name;
    return -1;
}

static int posix_dir_open(const struct os *os, const char *path, bool create, uint32_t mode, int *dir)
{
    bool made = false;
    int error;
    int fd = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 && errno == ENOENT && create) {
        if (mkdir(path, (mode_t)mode) == 0)
            made = true;
        else if (errno != EEXIST)       /* another process may have been faster: open its own */
            return errno;
        fd = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    }
    if (fd < 0)
        return errno;

    if (made && (error = set_mode(fd, mode)) != 0)
        goto fail;
    /* The parent is synced before anything is put into the directory, else a power cut could take
     * the directory away from under files that were synced. An empty one may stem from a process
     * that died between the two steps: if we made it or not, we sync. */
    if (create && (made || posix_dir_list(os, fd, stop_at_first, NULL) == 0) &&
        (error = sync_parent(os, fd)) != 0)
        goto fail;

    *dir = fd;
    return 0;
fail:
    close(fd);
    return error;
}

/* ---- Files ---- */

#define OPEN_ATTEMPTS 100       /* a name that appears and vanishes all the time is no lock file */

/* O_NONBLOCK: opening a FIFO must not wait for somebody to write to it. Regular files ignore it. */
static int open_file(int dir, const char *name, int flags, uint32_t mode)
{
    return open_at(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, mode);
}

static int posix_file_open(const struct os *os, int dir, const char *name, enum os_open how,
                           uint32_t mode, int *out)
{
    (void)os;
    int fd = -1, error = ENOENT;
    bool made = false;
    for (int attempt = 0; fd < 0 && attempt < OPEN_ATTEMPTS; attempt++) {
        made = how == OS_CREATE || (how == OS_OPEN_OR_CREATE && attempt % 2 == 1);
        int flags = how == OS_READ || how == OS_READ_LINKED ? O_RDONLY : made ? O_RDWR | O_CREAT | O_EXCL : O_RDWR;
        fd = open_file(dir, name, flags, mode);
        error = fd < 0 ? errno : 0;
        /* Open, else create, else open what another has created meanwhile. */
        if (how != OS_OPEN_OR_CREATE || error != (made ? EEXIST : ENOENT))
            break;
    }
    /* A symbolic link, a directory, a socket or device. */
    if (error == ELOOP || error == EISDIR || error == ENXIO || error == ENODEV)
        return EINVAL;
    if (error != 0)
        return error;

    struct stat info;
    if (fstat(fd, &info) != 0) {
        error = errno;
        goto fail;
    }
    if (!S_ISREG(info.st_mode) || (info.st_nlink > 1 && how != OS_READ_LINKED)) {
        error = EINVAL;
        goto fail;
    }
    if (made && (error = set_mode(fd, mode)) != 0)
        goto fail;
    *out = fd;
    return 0;
fail:
    if (made)
        unlinkat(dir, name, 0);
    close(fd);
    return error;
}

static int posix_file_close(const struct os *os, int fd)
{
    (void)os;
    /* Interrupted or not, the descriptor is gone; closing it again could close another's. */
    return close(fd) == 0 || errno == EINTR ? 0 : errno;
}

static int posix_file_stat(const struct os *os, int fd, struct os_stat *out)
{
    (void)os;
    struct stat info;
    if (fstat(fd, &info) != 0)
        return errno;
    *out = (struct os_stat){
        .size = (uint64_t)info.st_size,
        .disk_size = (uint64_t)info.st_blocks * 512,
        .device = (uint64_t)info.st_dev,
        .inode = (uint64_t)info.st_ino,
        .mode = (uint32_t)info.st_mode & 07777,
    };
    return 0;
}

/* One call moves at most this much: macOS refuses more than INT_MAX. */
#define TRANSFER_SIZE_MAX ((size_t)1 << 30)

static size_t transfer_size(size_t left)
{
    return left < TRANSFER_SIZE_MAX ? left : TRANSFER_SIZE_MAX;
}

static int posix_file_read(const struct os *os, int fd, void *bytes, size_t size, uint64_t offset,
                           size_t *done)
{
    (void)os;
    size_t at = 0;
    while (at < size) {
        ssize_t count;
        RETRY(count, pread(fd, (char *)bytes + at, transfer_size(size - at), (off_t)(offset + at)));
        if (count < 0)
            return errno;
        if (count == 0)
            break;
        at += (size_t)count;
    }
    *done = at;
    return 0;
}

static int posix_file_write(const struct os *os, int fd, const void *bytes, size_t size,
                            uint64_t offset)
{
    (void)os;
    size_t at = 0;
    while (at < size) {
        ssize_t count;
        RETRY(count, pwrite(fd, (const char *)bytes + at, transfer_size(size - at),
                            (off_t)(offset + at)));
        if (count < 0)
            return errno;
        if (count == 0)
            return EIO;         /* never seen, but no reason to spin */
        at += (size_t)count;
    }
    return 0;
}

static int posix_file_truncate(const struct os *os, int fd, uint64_t size)
{
    (void)os;
    int result;
    RETRY(result, ftruncate(fd, (off_t)size));
    return result_of(result);
}

/* Where the file system cannot reserve: zeros are written, but only behind the present end, because
 * before it others may be storing data. Every file that needs its blocks grows by reserving alone,
 * so that before its end there is no hole. */
static int reserve_by_writing(const struct os *os, int fd, uint64_t end)
{
    static const uint8_t zeros[65536];
    struct stat info;
    int error = 0;
    if (fstat(fd, &info) != 0)
        return errno;
    for (uint64_t at = (uint64_t)info.st_size; error == 0 && at < end;) {
        size_t size = end - at < sizeof zeros ? (size_t)(end - at) : sizeof zeros;
        error = posix_file_write(os, fd, zeros, size, at);
        at += size;
    }
    return error;
}

#if defined(__linux__)

static int reserve_blocks(int fd, uint64_t offset, uint64_t size)
{
    int result;
    RETRY(result, fallocate(fd, 0, (off_t)offset, (off_t)size));
    return result_of(result);
}

#elif defined(__APPLE__)

/* The system reserves from the end of the file on and leaves its size alone. */
static int reserve_blocks(int fd, uint64_t offset, uint64_t size)
{
    struct stat info;
    off_t end = (off_t)(offset + size);
    if (fstat(fd, &info) != 0)
        return errno;
    if (end <= info.st_size)
        return 0;
    fstore_t store = { .fst_flags = F_ALLOCATEALL, .fst_posmode = F_PEOFPOSMODE,
                       .fst_length = end - info.st_size };
    int result;
    RETRY(result, fcntl(fd, F_PREALLOCATE, &store));
    if (result == -1)
        return errno == ENOTSUP ? EOPNOTSUPP : errno;
    RETRY(result, ftruncate(fd, end));
    return result_of(result);
}

#else

static int reserve_blocks(int fd, uint64_t offset, uint64_t size)
{
    (void)fd, (void)offset, (void)size;
    return EOPNOTSUPP;
}

#endif

static int posix_file_reserve(const struct os *os, int fd, uint64_t offset, uint64_t size)
{
    if (size == 0)
        return 0;
    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return EFBIG;
    int error = reserve_blocks(fd, offset, size);
    if (error == EOPNOTSUPP || error == ENOSYS || error == EINVAL)
        error = reserve_by_writing(os, fd, offset + size);
    return error;
}

static int posix_file_sync(const struct os *os, int fd)
{
    (void)os;
    int result;
#if defined(__APPLE__)
    /* fsync() there leaves the bytes in the drive's own cache. */
    RETRY(result, fcntl(fd, F_FULLFSYNC));
    if (result == -1 && (errno == ENOTSUP || errno == EINVAL || errno == ENOTTY))
        RETRY(result, fsync(fd));
#else
    RETRY(result, fdatasync(fd));
#endif
    return result_of(result);
}

static int posix_file_rename(const struct os *os, int dir, const char *from, const char *to)
{
    (void)os;
    return result_of(renameat(dir, from, dir, to));
}

static int posix_file_remove(const struct os *os, int dir, const char *name)
{
    (void)os;
    return result_of(unlinkat(dir, name, 0));
}

static int posix_file_link(const struct os *os, int dir, const char *name, int to_dir, const char *to_name)
{
    (void)os;
    return result_of(linkat(dir, name, to_dir, to_name, 0));
}

#define COPY_SIZE ((size_t)1 << 20)

static int posix_file_copy(const struct os *os, int from, int to, uint64_t offset, uint64_t size)
{
#if defined(SYS_copy_file_range)
    /* It shares blocks where it can. Whatever it refuses, reading and writing may do, or tell why not. */
    while (size > 0) {
        int64_t in = (int64_t)offset, out = (int64_t)offset;
        long count;
        RETRY(count, syscall(SYS_copy_file_range, from, &in, to, &out, size < TRANSFER_SIZE_MAX ? (size_t)size : TRANSFER_SIZE_MAX, 0));
        if (count <= 0)
            break;
        offset += (uint64_t)count;
        size -= (uint64_t)count;
    }
#endif
    int error = 0;
    uint8_t *bytes = size == 0 ? NULL : malloc(COPY_SIZE);
    if (size > 0 && bytes == NULL)
        return ENOMEM;
    while (size > 0 && error == 0) {
        size_t part = size < COPY_SIZE ? (size_t)size : COPY_SIZE, done = 0;
        error = posix_file_read(os, from, bytes, part, offset, &done);
        if (error == 0 && done < part)
            error = EIO;
        if (error == 0)
            error = posix_file_write(os, to, bytes, part, offset);
        offset += part;
        size -= part;
    }
    free(bytes);
    return error;
}

/* ---- Mappings ---- */

static int posix_map(const struct os *os, int fd, uint64_t offset, size_t size, bool writable,
                     void **out)
{
    (void)os;
    int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    void *address = mmap(NULL, size, access, flags, fd < 0 ? -1 : fd, fd < 0 ? 0 : (off_t)offset);
    if (address == MAP_FAILED)
        return errno;
    *out = address;
    return 0;
}

static void posix_unmap(const struct os *os, void *address, size_t size)
{
    (void)os;
    if (address != NULL)
        munmap(address, size);
}

static int posix_protect(const struct os *os, void *address, size_t size)
{
    (void)os;
    return result_of(mprotect(address, size, PROT_READ));
}

#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23      /* Linux 5.14; earlier ones refuse it, which is harmless */
#endif

static void posix_advise(const struct os *os, void *address, size_t size, enum os_advice advice)
{
    (void)os;
    int number = MADV_NORMAL;
    switch (advice) {
    case OS_RANDOM:
        number = MADV_RANDOM;
        break;
    case OS_SEQUENTIAL:
        number = MADV_SEQUENTIAL;
        break;
    case OS_WILL_NEED:
        number = MADV_WILLNEED;
        break;
    case OS_POPULATE_WRITE:
#if defined(__linux__)
        number = MADV_POPULATE_WRITE;
        break;
#else
        return;
#endif
    case OS_FORGET:
        number = MADV_DONTNEED;
        break;
    case OS_HUGE:
#if defined(__linux__)
        number = MADV_HUGEPAGE;
        break;
#else
        return;
#endif
    }
    /* The system takes whole pages: those that hold any byte of the range. */
    uintptr_t start = (uintptr_t)address;
    size_t before = start % (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)madvise((char *)address - before, size + before, number);
}

static void posix_stored(const struct os *os, int fd, uint64_t offset, const void *bytes, size_t size)
{
    (void)os, (void)fd, (void)offset, (void)bytes, (void)size;
}

/* ---- Locks ---- */

/* Locks of the open file description. Where a system has only those of the process, two openings of
 * a store in one process do not see each other's locks, and closing either drops the locks of
 * both: there, a store must not be opened twice in one process. */
#if defined(F_OFD_SETLK)
#define LOCK_SET F_OFD_SETLK
#define LOCK_SET_WAIT F_OFD_SETLKW
#define LOCK_GET F_OFD_GETLK
#else
#define LOCK_SET F_SETLK
#define LOCK_SET_WAIT F_SETLKW
#define LOCK_GET F_GETLK
#endif

static int lock_call(int fd, int command, int type, uint64_t offset, uint64_t size,
                     struct flock *lock)
{
    int result;
    memset(lock, 0, sizeof *lock);      /* l_pid has to be 0 */
    lock->l_type = (short)type;
    lock->l_whence = SEEK_SET;
    lock->l_start = (off_t)offset;
    lock->l_len = (off_t)size;
    RETRY(result, fcntl(fd, command, lock));
    return result_of(result);
}

static int posix_lock(const struct os *os, int fd, uint64_t offset, uint64_t size, bool wait)
{
    (void)os;
    struct flock lock;
    int error = lock_call(fd, wait ? LOCK_SET_WAIT : LOCK_SET, F_WRLCK, offset, size, &lock);
    if (error == EBADF)             /* it is for reading */
        error = lock_call(fd, wait ? LOCK_SET_WAIT : LOCK_SET, F_RDLCK, offset, size, &lock);
    return error == EACCES ? EAGAIN : error;        /* POSIX allows either for "held elsewhere" */
}

static int posix_unlock(const struct os *os, int fd, uint64_t offset, uint64_t size)
{
    (void)os;
    struct flock lock;
    return lock_call(fd, LOCK_SET, F_UNLCK, offset, size, &lock);
}

static int posix_lock_held(const struct os *os, int fd, uint64_t offset, uint64_t size, bool *held)
{
    (void)os;
    struct flock lock;
    int error = lock_call(fd, LOCK_GET, F_WRLCK, offset, size, &lock);
    if (error == 0)
        *held = lock.l_type != F_UNLCK;
    return error;
}

/* ---- Sleeping on a word ---- */

static struct timespec time_of_ms(uint32_t ms)
{
    return (struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };
}

#if defined(__linux__)

/* Not FUTEX_PRIVATE_FLAG: the word lies in a mapped file, and sleepers may be other processes. */
static void posix_wait(const struct os *os, const uint32_t *word, uint32_t value, uint32_t timeout_ms)
{
    (void)os;
    struct timespec timeout = time_of_ms(timeout_ms);
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
}

static void posix_wake(const struct os *os, const uint32_t *word, bool all)
{
    (void)os;
    (void)syscall(SYS_futex, word, FUTEX_WAKE, all ? INT32_MAX : 1, NULL, NULL, 0);
}

#else

/* No way to sleep on a word across processes is public: look again every tenth of a millisecond. */
static void posix_wait(const struct os *os, const uint32_t *word, uint32_t value, uint32_t timeout_ms)
{
    (void)os;
    struct timespec nap = { .tv_nsec = 100000 };
    for (uint64_t i = 0; i < (uint64_t)timeout_ms * 10; i++) {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value || nanosleep(&nap, NULL) != 0)
            return;
    }
}

static void posix_wake(const struct os *os, const uint32_t *word, bool all)
{
    (void)os, (void)word, (void)all;
}

#endif

static void posix_yield(const struct os *os)
{
    (void)os;
    (void)sched_yield();
}

/* ---- Chance, time, identity ---- */

static int posix_random(const struct os *os, void *bytes, size_t size)
{
    (void)os;
    for (size_t at = 0; at < size;) {
#if defined(__linux__)
        ssize_t count;
        RETRY(count, getrandom((char *)bytes + at, size - at, 0));
        if (count < 0)
            return errno;
        at += (size_t)count;
#else
        size_t count = size - at < 256 ? size - at : 256;
        if (getentropy((char *)bytes + at, count) != 0)
            return errno;
        at += count;
#endif
    }
    return 0;
}

static uint64_t posix_wall_ms(const struct os *os)
{
    (void)os;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t posix_monotonic_ns(const struct os *os)
{
    (void)os;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                                 : -1;
}

/* "01234567-89ab-cdef-0123-456789abcdef", which is how both systems write it. */
static int parse_uuid(const char *text, size_t size, uint8_t out[16])
{
    unsigned digits = 0;
    memset(out, 0, 16);
    for (size_t i = 0; i < size && digits < 32; i++) {
        if (text[i] == '-')
            continue;
        int digit = hex_digit(text[i]);
        if (digit < 0)
            return EINVAL;
        out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | digit);
        digits++;
    }
    return digits == 32 ? 0 : EINVAL;
}

static int posix_boot_id(const struct os *os, struct os_identity *out)
{
    char text[64];
    size_t size = sizeof text;
#if defined(__APPLE__)
    (void)os;
    if (sysctlbyname("kern.bootsessionuuid", text, &size, NULL, 0) != 0)
        return errno;
#else
    int fd = open_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY, 0);
    if (fd < 0)
        return errno;
    int error = posix_file_read(os, fd, text, sizeof text, 0, &size);
    close(fd);
    if (error != 0)
        return error;
#endif
    struct os_identity identity;
    int result = parse_uuid(text, size, identity.bytes);
    if (result == 0)
        *out = identity;
    return result;
}

/* ---- Memory: never a call for 0 bytes, whose NULL would look like a failure ---- */

static void *posix_alloc(const struct os *os, size_t size)
{
    (void)os;
    return calloc(1, size > 0 ? size : 1);
}

static void *posix_grow(const struct os *os, void *memory, size_t old_size, size_t size)
{
    (void)os, (void)old_size;
    return realloc(memory, size > 0 ? size : 1);
}

static void posix_release(const struct os *os, void *memory)
{
    (void)os;
    free(memory);
}

/* ---- Threads ---- */

#define THREAD_STACK_SIZE (256u * 1024u)

struct thread {
    pthread_t id;
    void (*run)(void *context);
    void *context;
};

static void *thread_main(void *argument)
{
    struct thread *thread = argument;
    thread->run(thread->context);
    return NULL;
}

/* A signal is for the program's own threads, which expect it. Faults are no messages: they stay
 * with the thread that made them, for a crash handler to tell. */
static void signals_of_others(sigset_t *set)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS };
    sigfillset(set);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        sigdelset(set, faults[i]);
}

static int posix_thread_start(const struct os *os, void (*run)(void *context), void *context,
                              void **out)
{
    sigset_t block, before;
    pthread_attr_t attributes;
    struct thread *thread = posix_alloc(os, sizeof *thread);
    if (thread == NULL)
        return ENOMEM;
    thread->run = run;
    thread->context = context;

    int error = pthread_attr_init(&attributes);
    if (error != 0)
        goto fail;
    (void)pthread_attr_setstacksize(&attributes, THREAD_STACK_SIZE);    /* else the usual size */
    signals_of_others(&block);
    pthread_sigmask(SIG_SETMASK, &block, &before);      /* a new thread inherits its maker's mask */
    error = pthread_create(&thread->id, &attributes, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        goto fail;

    *out = thread;
    return 0;
fail:
    posix_release(os, thread);
    return error;
}

static void posix_thread_join(const struct os *os, void *memory)
{
    struct thread *thread = memory;
    if (thread == NULL)
        return;
    pthread_join(thread->id, NULL);
    posix_release(os, thread);
}

const struct os os_posix = {
    .dir_open = posix_dir_open,
    .dir_list = posix_dir_list,
    .dir_sync = posix_dir_sync,
    .file_open = posix_file_open,
    .file_close = posix_file_close,
    .file_stat = posix_file_stat,
    .file_read = posix_file_read,
    .file_write = posix_file_write,
    .file_reserve = posix_file_reserve,
    .file_truncate = posix_file_truncate,
    .file_sync = posix_file_sync,
    .file_rename = posix_file_rename,
    .file_remove = posix_file_remove,
    .file_link = posix_file_link,
    .file_copy = posix_file_copy,
    .map = posix_map,
    .unmap = posix_unmap,
    .protect = posix_protect,
    .advise = posix_advise,
    .stored = posix_stored,
    .lock = posix_lock,
    .unlock = posix_unlock,
    .lock_held = posix_lock_held,
    .wait = posix_wait,
    .wake = posix_wake,
    .yield = posix_yield,
    .random = posix_random,
    .wall_ms = posix_wall_ms,
    .monotonic_ns = posix_monotonic_ns,
    .boot_id = posix_boot_id,
    .alloc = posix_alloc,
    .grow = posix_grow,
    .release = posix_release,
    .thread_start = posix_thread_start,
    .thread_join = posix_thread_join,
};
