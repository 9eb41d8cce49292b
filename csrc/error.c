/* The last failure of each thread lives in the thread itself, so that noting one needs neither a
 * lock nor an allocation, and so works when memory has run out. */
#undef _GNU_SOURCE                  /* with it, strerror_r is another function of the same name */
#undef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L

#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local struct pykv_error last_error;

const struct pykv_error *pykv_last_error(void)
{
    return &last_error;
}

int error_set(int status, int os_errno, const char *path, uint64_t offset, const char *format, ...)
{
    /* Built aside: the arguments may point into the error that is about to be replaced. */
    struct pykv_error error = { .status = status, .os_errno = os_errno, .offset = offset };
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error.message, sizeof error.message, format, arguments);
    va_end(arguments);
    snprintf(error.path, sizeof error.path, "%s", path == NULL ? "" : path);
    last_error = error;
    return status;
}

int error_status(int os_errno)
{
    switch (os_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return PYKV_FULL;
    case ENOMEM:
        return PYKV_NO_MEMORY;
    case EACCES:
    case EPERM:
    case EROFS:
        return PYKV_DENIED;
    default:
        return PYKV_IO;
    }
}

int error_os(int os_errno, const char *path, uint64_t offset, const char *action)
{
    char reason[128];
    if (strerror_r(os_errno, reason, sizeof reason) != 0)
        snprintf(reason, sizeof reason, "error %d", os_errno);
    if (path == NULL)
        return error_set(error_status(os_errno), os_errno, path, offset, "cannot %s: %s",
                         action, reason);
    return error_set(error_status(os_errno), os_errno, path, offset, "cannot %s %s: %s", action,
                     path, reason);
}

int error_no_memory(size_t size)
{
    return error_set(PYKV_NO_MEMORY, ENOMEM, NULL, 0, "no memory for %zu bytes", size);
}

int error_corrupt(const char *path, uint64_t offset, const char *what)
{
    return error_set(PYKV_CORRUPT, 0, path, offset, "%s is damaged at offset %" PRIu64 ": %s",
                     path == NULL ? "the store" : path, offset, what);
}
