/* A reader meets a segment for the first time just when it is ended: between the moment at which it asks for
 * the file's size and those at which it reads what the segment is. */
#include <stdlib.h>

#include "os.h"
#include "pykv.h"
#include "store.h"
#include "test.h"

#define VALUE_SIZE 60000u

static struct os os;
static struct pykv_store *writer, *reader;
static void (*before_stat)(void), (*after_stat)(void);
static _Thread_local bool mine;         /* not the thread of a helper */
static unsigned keys;                   /* put so far */

static void happen(void (**what)(void))
{
    void (*now)(void) = *what;
    *what = NULL;
    if (now != NULL)
        now();
}

static int file_stat(const struct os *table, int fd, struct os_stat *out)
{
    (void)table;
    if (mine)
        happen(&before_stat);
    int error = os_posix.file_stat(&os_posix, fd, out);
    if (mine)
        happen(&after_stat);
    return error;
}

static uint64_t active(void) { return position_segment(atomic_load(&writer->shared->tail)); }

static void put(size_t size)
{
    static uint8_t value[VALUE_SIZE];
    unsigned key = keys++;
    CHECK_EQUAL(pykv_put(writer, (uint8_t *)&key, sizeof key, value, size, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
}

static void fill(void)
{
    for (uint64_t first = active(); active() == first;)
        put(VALUE_SIZE);
}

static void end_and_trim(void)
{
    CHECK_EQUAL(store_lock(writer), PYKV_OK);
    CHECK_EQUAL(log_end_active(&writer->log), PYKV_OK);
    store_unlock(writer);
    maintain_sealed(writer);
    maintain_trim(writer);
}

static void read_all(void)
{
    for (unsigned key = 0; key < keys; key++) {
        int64_t size = pykv_get(reader, (uint8_t *)&key, sizeof key, NULL, 0, NULL);
        if (size < 0)
            test_fail(__FILE__, __LINE__, "get %u: %s", key, pykv_last_error()->message);
    }
}

/* The reader opens the store, a new segment begins, and it has not seen that one yet. */
static void start(void)
{
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .segment_size = 1 << 20 };
    const char *path = test_dir();
    os = os_posix;
    os.file_stat = file_stat;
    keys = 0;
    mine = true;
    CHECK_EQUAL(pykv_open_with(&os_posix, path, &options, &writer), PYKV_OK);
    options.flag = PYKV_FLAG_WRITE;
    CHECK_EQUAL(pykv_open_with(&os, path, &options, &reader), PYKV_OK);
    put(VALUE_SIZE);
    read_all();
    fill();
}

static void end(void)
{
    CHECK(before_stat == NULL && after_stat == NULL);
    CHECK_EQUAL(pykv_close(reader), PYKV_OK);
    pykv_free(reader);
    CHECK_EQUAL(pykv_close(writer), PYKV_OK);
    pykv_free(writer);
}

/* Its size was asked for while it was short: that is not where its records end. */
static void it_may_have_grown(void)
{
    start();
    after_stat = fill;
    read_all();
    end();
}

/* What was reserved for it is given back when it ends: nothing is missing from it then. */
static void it_may_have_been_trimmed(void)
{
    start();
    for (int i = 0; i < 8; i++)
        put(VALUE_SIZE);
    before_stat = end_and_trim;
    read_all();
    end();
}

TEST_MAIN(CASE(it_may_have_grown), CASE(it_may_have_been_trimmed))
