/* error.h -- what went wrong, kept per thread for pykv_last_error(). */
#ifndef PYKV_ERROR_H
#define PYKV_ERROR_H

#include "pykv.h"

/* Note a failure and return `status`, so that callers write `return error_set(...)`. `path` may be
 * NULL; `format` is printf's. */
int error_set(int status, int os_errno, const char *path, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The status of a failed system call: ENOSPC, EDQUOT and EFBIG are PYKV_FULL, ENOMEM is
 * PYKV_NO_MEMORY, EACCES, EPERM and EROFS are PYKV_DENIED, all else PYKV_IO. The message becomes
 * "cannot <action> <path>: <strerror>". Returns that status. */
int error_os(int os_errno, const char *path, uint64_t offset, const char *action);

/* That status alone. */
int error_status(int os_errno);

/* Shorthands. */
int error_no_memory(size_t size);
int error_corrupt(const char *path, uint64_t offset, const char *what);

#endif
