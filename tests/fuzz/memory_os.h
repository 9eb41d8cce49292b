/* memory_os.h -- a few files in memory, and no machine around them: for targets that call one module
 * of the engine, some ten thousand times a second. A whole store runs on tests/c/sim_os.h. */
#ifndef PYKV_MEMORY_OS_H
#define PYKV_MEMORY_OS_H

#include "fuzz.h"
#include "os.h"

extern const struct os memory_os;           /* every call that a module under test may make */

void memory_os_clear(void);                 /* no files */
/* The file of that name, made if it is not there: write to its buffer, or read what was written. */
struct buffer *memory_os_file(const char *name);

#endif
