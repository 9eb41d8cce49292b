/* Death at each system call: a child does a script of writes and ends, as by SIGKILL, just before or
 * just behind its k-th call, for every k. Who comes after it, alone or having been there all along,
 * finds what was acknowledged, and of the last operation all or nothing; and what he goes on to
 * write is found again by one who has nothing but the segments. */
#define _GNU_SOURCE 1

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os.h"
#include "pykv.h"
#include "test.h"

#define KEYS 8u
#define SCRIPT 56u              /* operations of the child */
#define AFTER 40u               /* and of who comes after it: enough to fill a segment */
#define VALUE_SIZE 4000u

static struct os mortal, plain;
static unsigned countdown;      /* calls until death; 0: immortal */
static bool behind;             /* die behind the call, not before it */
static char path[512];

static void die_before(void) { if (countdown != 0 && !behind && --countdown == 0) _exit(9); }
static void die_behind(void) { if (countdown != 0 && behind && --countdown == 0) _exit(9); }

#define MORTAL(type, name, parameters, arguments)   \
    static type mortal_##name parameters            \
    {                                               \
        die_before();                               \
        type result = os_posix.name arguments;      \
        die_behind();                               \
        return result;                              \
    }

MORTAL(int, dir_sync, (const struct os *os, int dir), (os, dir))
MORTAL(int, file_open, (const struct os *os, int dir, const char *name, enum os_open how, uint32_t mode, int *fd),
       (os, dir, name, how, mode, fd))
MORTAL(int, file_close, (const struct os *os, int fd), (os, fd))
MORTAL(int, file_write, (const struct os *os, int fd, const void *bytes, size_t size, uint64_t offset),
       (os, fd, bytes, size, offset))
MORTAL(int, file_reserve, (const struct os *os, int fd, uint64_t offset, uint64_t size), (os, fd, offset, size))
MORTAL(int, file_truncate, (const struct os *os, int fd, uint64_t size), (os, fd, size))
MORTAL(int, file_sync, (const struct os *os, int fd), (os, fd))
MORTAL(int, file_rename, (const struct os *os, int dir, const char *from, const char *to), (os, dir, from, to))
MORTAL(int, file_remove, (const struct os *os, int dir, const char *name), (os, dir, name))
MORTAL(int, map, (const struct os *os, int fd, uint64_t offset, size_t size, bool writable, void **out),
       (os, fd, offset, size, writable, out))

static void mortal_stored(const struct os *os, int fd, uint64_t offset, const void *bytes, size_t size)
{
    (void)os, (void)fd, (void)offset, (void)bytes, (void)size;
    die_before();
    die_behind();
}

/* Without a helper thread all that it does is done by the writer, in the same order each time. */
static int no_thread(const struct os *os, void (*run)(void *context), void *context, void **out)
{
    (void)os, (void)run, (void)context, (void)out;
    return 11;
}

static void set_up(void)
{
    plain = os_posix;
    plain.thread_start = no_thread;
    mortal = plain;
    mortal.dir_sync = mortal_dir_sync;
    mortal.file_open = mortal_file_open;
    mortal.file_close = mortal_file_close;
    mortal.file_write = mortal_file_write;
    mortal.file_reserve = mortal_file_reserve;
    mortal.file_truncate = mortal_file_truncate;
    mortal.file_sync = mortal_file_sync;
    mortal.file_rename = mortal_file_rename;
    mortal.file_remove = mortal_file_remove;
    mortal.map = mortal_map;
    mortal.stored = mortal_stored;
    snprintf(path, sizeof path, "%s/store", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
}

/* ---- The script, and what it comes to ---- */

struct model { unsigned value[KEYS], last; };

static void step_model(struct model *model, unsigned i)
{
    if (i % 7 == 3) {
        model->value[i * 3 % KEYS] = 0;
    } else {
        model->value[i % KEYS] = i;
        model->last = i;
    }
}

static void step(struct pykv_store *store, unsigned i)
{
    static uint8_t values[VALUE_SIZE + 4];
    char keys[16];
    snprintf(keys, sizeof keys, "k%ulast", i % 7 == 3 ? i * 3 % KEYS : i % KEYS);
    if (i % 7 == 3) {
        CHECK(pykv_delete(store, (const uint8_t *)keys, 2, PYKV_DURABILITY_DEFAULT) >= 0);
        return;
    }
    const uint32_t key_sizes[2] = { 2, 4 }, value_sizes[2] = { VALUE_SIZE, 4 };
    memset(values, (int)i, VALUE_SIZE);
    memcpy(values, &i, 4);
    memcpy(values + VALUE_SIZE, &i, 4);
    CHECK_EQUAL(pykv_write(store, 2, NULL, (const uint8_t *)keys, key_sizes, values, value_sizes, NULL,
                           i % 16 == 5 ? PYKV_DURABILITY_COMMIT : PYKV_DURABILITY_DEFAULT, NULL, NULL, NULL), PYKV_OK);
}

static bool matches(struct pykv_store *store, const struct model *model)
{
    static uint8_t value[VALUE_SIZE];
    char key[16];
    uint64_t count, expected = model->last != 0;
    for (unsigned k = 0; k < KEYS; k++) {
        snprintf(key, sizeof key, "k%u", k);
        unsigned number = 0;
        int64_t size = pykv_get(store, (const uint8_t *)key, 2, value, sizeof value, NULL);
        CHECK(size == VALUE_SIZE || size == -1000 + PYKV_NOT_FOUND);
        if (size == VALUE_SIZE)
            memcpy(&number, value, 4);
        if (number != model->value[k])
            return false;
        expected += number != 0;
    }
    unsigned last = 0;
    (void)pykv_get(store, (const uint8_t *)"last", 4, (uint8_t *)&last, 4, NULL);
    CHECK_EQUAL(pykv_count(store, &count), PYKV_OK);
    if (last == model->last)
        CHECK_EQUAL(count, expected);
    return last == model->last;
}

static struct pykv_store *open_store(const struct os *os, int flag)
{
    struct pykv_store *store = NULL;
    struct pykv_options options = { .flag = flag, .segment_size = 64 << 10 };
    if (pykv_open_with(os, path, &options, &store) != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %s", pykv_last_error()->message);
    return store;
}

static void check_whole(struct pykv_store *store)
{
    static struct pykv_report report;
    if (pykv_verify(store, &report) != PYKV_OK)
        test_fail(__FILE__, __LINE__, "verify: %s", pykv_last_error()->message);
}

static void remove_keydir(void)
{
    char name[600];
    snprintf(name, sizeof name, "%s/keydir", path);
    CHECK_EQUAL(unlink(name), 0);
}

/* One death at call `k`; false if the child got to its end before. */
static bool die_once(unsigned k, bool witness, unsigned *acknowledged)
{
    struct model model = { .last = 0 };
    struct pykv_store *store = open_store(&plain, PYKV_FLAG_NEW);
    if (!witness)
        pykv_free(store);
    *acknowledged = 0;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        countdown = k;
        store = open_store(&mortal, PYKV_FLAG_WRITE);
        for (unsigned i = 1; i <= SCRIPT; i++) {
            step(store, i);
            *(volatile unsigned *)acknowledged = i;
        }
        pykv_free(store);
        _exit(0);
    }
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
    bool died = WEXITSTATUS(status) == 9;

    if (!witness)
        store = open_store(&plain, PYKV_FLAG_WRITE);
    unsigned done = *acknowledged;
    for (unsigned i = 1; i <= done; i++)
        step_model(&model, i);
    /* A writer is what makes the last words of the dead one visible. */
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)"touch", 5, NULL, 0, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    CHECK_EQUAL(pykv_delete(store, (const uint8_t *)"touch", 5, PYKV_DURABILITY_DEFAULT), PYKV_OK);
    if (!matches(store, &model)) {
        step_model(&model, done + 1);
        CHECK(matches(store, &model));
    }
    check_whole(store);
    for (unsigned i = done + 2; i < done + 2 + AFTER; i++) {
        step(store, i);
        step_model(&model, i);
    }
    CHECK(matches(store, &model));
    check_whole(store);
    pykv_free(store);
    remove_keydir();
    store = open_store(&plain, PYKV_FLAG_WRITE);
    CHECK(matches(store, &model));
    check_whole(store);
    pykv_free(store);
    return died;
}

static void die_at_each_call(bool witness)
{
    set_up();
    unsigned *acknowledged = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(acknowledged != MAP_FAILED);
    for (int i = 0; i < 2; i++) {
        behind = i == 1;
        unsigned k = 1;
        while (die_once(k, witness, acknowledged))
            k++;
        printf("%u deaths %s a call, %s a witness\n", k - 1, behind ? "behind" : "before", witness ? "with" : "without");
        CHECK(k > 100);
    }
}

/* An open that empties a store dies at call `k`: what is left opens by "c" and "w", as the old store or
 * as an empty one; and stays that. */
static bool die_emptying(unsigned k, bool *emptied)
{
    struct model model = { .last = 0 }, none = { .last = 0 };
    struct pykv_store *store = open_store(&plain, PYKV_FLAG_NEW);
    for (unsigned i = 1; i <= SCRIPT; i++) {
        step(store, i);
        step_model(&model, i);
    }
    pykv_free(store);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        countdown = k;
        store = open_store(&mortal, PYKV_FLAG_NEW);
        _exit(0);
    }
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
    bool died = WEXITSTATUS(status) == 9;

    store = open_store(&plain, k % 2 == 0 ? PYKV_FLAG_WRITE : PYKV_FLAG_CREATE);
    *emptied = !matches(store, &model);
    if (*emptied) {
        struct pykv_stats stats;
        CHECK(matches(store, &none));
        CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
        CHECK(stats.disk_bytes < 1u << 20);     /* of the old files none is left */
        model = none;
    }
    check_whole(store);
    for (unsigned i = SCRIPT + 1; i <= SCRIPT + AFTER; i++) {
        step(store, i);
        step_model(&model, i);
    }
    CHECK(matches(store, &model));
    pykv_free(store);
    remove_keydir();
    store = open_store(&plain, PYKV_FLAG_WRITE);
    CHECK(matches(store, &model));
    check_whole(store);
    pykv_free(store);
    return died;
}

static void each_call_of_an_open_that_empties(void)
{
    set_up();
    for (int i = 0; i < 2; i++) {
        behind = i == 1;
        bool emptied = false, before = false;
        unsigned k = 1, old = 0;
        for (; die_emptying(k, &emptied); k++) {
            CHECK(emptied || !before);          /* there is one point from which it is empty */
            before = emptied;
            old += !emptied;
        }
        printf("%u deaths %s a call, %u of them left the old store\n", k - 1, behind ? "behind" : "before", old);
        CHECK(k > 20 && old > 3 && emptied);
    }
}

static void each_call_of_the_only_process(void) { die_at_each_call(false); }
static void each_call_of_one_of_two(void) { die_at_each_call(true); }

TEST_MAIN(CASE(each_call_of_the_only_process), CASE(each_call_of_one_of_two),
          CASE(each_call_of_an_open_that_empties))
