/* The harness behind test.h. */
#define _GNU_SOURCE 1
#define _DARWIN_C_SOURCE 1

#include "test.h"

#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIR_COUNT_MAX 256

static char *dirs[DIR_COUNT_MAX];
static size_t dir_count;
static pid_t owner;         /* the process that made the directories: a forked child leaves them */

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static void remove_dirs(void)
{
    while (owner == getpid() && dir_count > 0) {
        char *path = dirs[--dir_count];
        nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        free(path);
    }
}

const char *test_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *path = NULL;
    if (base == NULL || base[0] == '\0')
        base = "/tmp";
    if (dir_count == DIR_COUNT_MAX)
        test_fail(__FILE__, __LINE__, "more than %d directories", DIR_COUNT_MAX);
    size_t size = strlen(base) + sizeof "/pykv-XXXXXX";
    path = malloc(size);
    if (path == NULL)
        test_fail(__FILE__, __LINE__, "no memory");
    snprintf(path, size, "%s/pykv-XXXXXX", base);
    if (mkdtemp(path) == NULL)
        test_fail(__FILE__, __LINE__, "cannot make %s", path);
    owner = getpid();
    dirs[dir_count++] = path;
    return path;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    remove_dirs();
    _exit(1);               /* not exit(): the state of the program is not to be trusted */
}

void test_equal(const char *file, int line, const char *got_text, const char *want_text,
                uint64_t got, uint64_t want)
{
    if (got != want)
        test_fail(file, line, "%s is %" PRId64 " (0x%" PRIx64 "), not %s, %" PRId64 " (0x%" PRIx64 ")",
                  got_text, (int64_t)got, got, want_text, (int64_t)want, want);
}

void test_bytes(const char *file, int line, const char *got_text, const char *want_text,
                const void *got, const void *want, size_t size)
{
    const uint8_t *a = got, *b = want;
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i])
            test_fail(file, line, "%s differs from %s: byte %zu is 0x%02x, not 0x%02x", got_text,
                      want_text, i, a[i], b[i]);
}

void test_text(const char *file, int line, const char *got_text, const char *want_text,
               const char *got, const char *want)
{
    if (strcmp(got, want) != 0)
        test_fail(file, line, "%s is \"%s\", not %s, \"%s\"", got_text, got, want_text, want);
}

pid_t test_fork(void (*child)(void *context), void *context)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        test_fail(__FILE__, __LINE__, "cannot fork");
    if (pid == 0) {
        child(context);
        fflush(NULL);
        _exit(0);           /* the directories and the leak check are the parent's */
    }
    return pid;
}

int test_wait(pid_t pid)
{
    int status = 0;
    if (waitpid(pid, &status, 0) != pid)
        test_fail(__FILE__, __LINE__, "no child %ld", (long)pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void test_join(pid_t pid)
{
    int status = test_wait(pid);
    if (status < 0)
        test_fail(__FILE__, __LINE__, "child %ld ended by signal %d", (long)pid, -status);
    if (status > 0)
        test_fail(__FILE__, __LINE__, "child %ld ended with status %d", (long)pid, status);
}

void test_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    if (test_wait(pid) != -SIGKILL)
        test_fail(__FILE__, __LINE__, "child %ld ended before it was killed", (long)pid);
}

uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static const struct test_case *find_case(const char *name, const struct test_case *cases,
                                         size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(cases[i].name, name) == 0)
            return &cases[i];
    return NULL;
}

int test_run(int argc, char **argv, const struct test_case *cases, size_t count)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < count; i++)
            puts(cases[i].name);
        return 0;
    }
    for (size_t i = 0; argc < 2 && i < count; i++) {
        printf("%s\n", cases[i].name);
        fflush(stdout);
        cases[i].run();
    }
    for (int i = 1; i < argc; i++) {
        const struct test_case *one = find_case(argv[i], cases, count);
        if (one == NULL)
            test_fail(argv[0], 0, "no case \"%s\"; --list tells which there are", argv[i]);
        one->run();
    }
    remove_dirs();
    return 0;
}
