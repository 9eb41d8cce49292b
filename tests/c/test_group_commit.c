/* Committers share syncs. Two of them, a thread each; the calls of the operating-system table that one
 * makes tell the other when to go on, so that what happens is the same in every run. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "os.h"
#include "pykv.h"
#include "test.h"

static struct os os;
static struct pykv_store *store;
static unsigned syncs, yields;          /* since begin() */
static _Thread_local char me;           /* 'a', 'b' */

/* ---- What has happened, in the order of the alphabet ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool happened[128];

static void happens(char what)
{
    pthread_mutex_lock(&mutex);
    happened[(int)what] = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static bool has_happened(char what)
{
    pthread_mutex_lock(&mutex);
    bool result = happened[(int)what];
    pthread_mutex_unlock(&mutex);
    return result;
}

static void await(char what)
{
    pthread_mutex_lock(&mutex);
    while (!happened[(int)what])
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

#define A_SYNCS '1'             /* its first put: nobody else is there */
#define B_SLEEPS '2'            /* b has put, and waits for the next sync */
#define B_GATHERS '3'           /* b leads the second round */
#define A_SLEEPS '4'            /* a has put again, and waits for b */

static int file_sync(const struct os *table, int fd)
{
    (void)table;
    syncs++;
    if (me == 'a' && !has_happened(A_SYNCS)) {
        happens(A_SYNCS);
        await(B_SLEEPS);
    }
    return os_posix.file_sync(&os_posix, fd);
}

static void os_wait(const struct os *table, const uint32_t *word, uint32_t value, uint32_t timeout_ms)
{
    (void)table;
    if (me == 'b' && has_happened(A_SYNCS))
        happens(B_SLEEPS);
    if (me == 'a' && has_happened(B_GATHERS))
        happens(A_SLEEPS);
    os_posix.wait(&os_posix, word, value, timeout_ms);
}

static void os_yield(const struct os *table)
{
    (void)table;
    yields++;
    if (me == 'b') {
        happens(B_GATHERS);
        await(A_SLEEPS);
    }
}

static int no_thread(const struct os *table, void (*run)(void *context), void *context, void **out)
{
    (void)table, (void)run, (void)context, (void)out;
    return EAGAIN;
}

static void begin(void)
{
    const struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .durability = PYKV_DURABILITY_COMMIT };
    os = os_posix;
    os.thread_start = no_thread;
    CHECK_EQUAL(pykv_open_with(&os, test_dir(), &options, &store), PYKV_OK);
    os.file_sync = file_sync;
    os.wait = os_wait;
    os.yield = os_yield;
    memset(happened, 0, sizeof happened);
    syncs = yields = 0;
}

static void end(void)
{
    os = os_posix;
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
}

static void put(void)
{
    CHECK_EQUAL(pykv_put(store, (const uint8_t *)&me, 1, (const uint8_t *)"v", 1, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

static void *run_b(void *context)
{
    (void)context;
    me = 'b';
    await(A_SYNCS);
    put();
    return NULL;
}

/* b, whose turn it is to sync, waits for a, who was covered by the sync before and puts again; and not a moment
 * longer, since nobody else was. */
static void those_who_were_covered_are_waited_for(void)
{
    pthread_t b;
    begin();
    CHECK_EQUAL(pthread_create(&b, NULL, run_b, NULL), 0);
    me = 'a';
    put();
    await(B_GATHERS);
    put();
    CHECK_EQUAL(pthread_join(b, NULL), 0);
    CHECK_EQUAL(syncs, 2);
    CHECK_EQUAL(yields, 1);
    end();
}

static void who_commits_alone_waits_for_nobody(void)
{
    begin();
    me = 'c';
    for (unsigned i = 0; i < 100; i++)
        put();
    CHECK_EQUAL(syncs, 100);
    CHECK_EQUAL(yields, 0);
    end();
}

TEST_MAIN(CASE(those_who_were_covered_are_waited_for), CASE(who_commits_alone_waits_for_nobody))
