/* test.h -- all that a test program needs. A program is a file test_*.c that ends with
 *
 *     TEST_MAIN(CASE(puts_one_record), CASE(refuses_a_torn_tail))
 *
 * where each case is a function `static void name(void)`. Run with --list it prints the names of its
 * cases, with names it runs those, without any it runs all. A check that fails prints where, what
 * and with which values, and ends the process with status 1; a forked child's too, so its parent
 * looks at the status: test_join(). */
#ifndef PYKV_TEST_H
#define PYKV_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

struct test_case {
    const char *name;
    void (*run)(void);
};

#define CASE(function) { #function, function }
#define TEST_MAIN(...)                                                          \
    int main(int argc, char **argv)                                             \
    {                                                                           \
        static const struct test_case cases[] = { __VA_ARGS__ };                \
        return test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);     \
    }

int test_run(int argc, char **argv, const struct test_case *cases, size_t count);

/* The condition holds. */
#define CHECK(condition) \
    ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, "%s: is false", #condition))
/* Two integers are equal. */
#define CHECK_EQUAL(got, want) \
    test_equal(__FILE__, __LINE__, #got, #want, (uint64_t)(got), (uint64_t)(want))
/* `size` bytes are equal. */
#define CHECK_BYTES(got, want, size) test_bytes(__FILE__, __LINE__, #got, #want, got, want, size)
/* Two strings are equal. */
#define CHECK_TEXT(got, want) test_text(__FILE__, __LINE__, #got, #want, got, want)

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void test_equal(const char *file, int line, const char *got_text, const char *want_text,
                uint64_t got, uint64_t want);
void test_bytes(const char *file, int line, const char *got_text, const char *want_text,
                const void *got, const void *want, size_t size);
void test_text(const char *file, int line, const char *got_text, const char *want_text,
               const char *got, const char *want);

/* A new, empty directory below $TMPDIR. It goes, with all that is in it, when the program ends; its
 * path is valid until then. */
const char *test_dir(void);

/* Run `child` in a forked process, which ends with status 0 if it returns; and wait for one. */
pid_t test_fork(void (*child)(void *context), void *context);
void test_join(pid_t pid);                  /* it ended with status 0 */
int test_wait(pid_t pid);                   /* its status, or minus the signal that ended it */
void test_kill(pid_t pid);                  /* end it with SIGKILL, and wait */

/* Numbers that look random, the same in every run: splitmix64. */
uint64_t test_random(uint64_t *state);

#endif
