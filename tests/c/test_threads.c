/* Four threads on one store, all calls mixed: for ThreadSanitizer, and for what readers may see. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "pykv.h"
#include "test.h"

#define THREADS 4
#define ROUNDS 4000u
#define KEYS 64u

static struct pykv_store *store;
static _Atomic uint64_t counted, pair_number;
static _Atomic bool over;

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static void open_store(const char *name, int io)
{
    char path[512];
    struct pykv_options options = { .flag = PYKV_FLAG_CREATE, .io = io, .segment_size = 64 << 10 };
    snprintf(path, sizeof path, "%s/%s", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp", name);
    CHECK_EQUAL(pykv_open(path, &options, &store), PYKV_OK);
    atomic_store(&counted, 0);
    atomic_store(&pair_number, 0);
    atomic_store(&over, false);
}

/* A value that tells whether it is whole, and whose it is: its key's number in every word. */
static size_t make_value(uint64_t key, uint64_t random, uint8_t out[1024])
{
    size_t words = 1 + random % 100;
    for (size_t i = 0; i < words; i++) {
        uint64_t word = key << 32 | words;
        memcpy(out + 8 * i, &word, 8);
    }
    return words * 8;
}

static void check_value(uint64_t key, const uint8_t *bytes, size_t size)
{
    CHECK_EQUAL(size % 8, 0);
    for (size_t i = 0; i < size / 8; i++) {
        uint64_t word;
        memcpy(&word, bytes + 8 * i, 8);
        CHECK_EQUAL(word, key << 32 | size / 8);
    }
}

static size_t make_key(uint64_t number, uint8_t out[16])
{
    return (size_t)snprintf((char *)out, 16, "key:%u", (unsigned)number);
}

static void put_pair(void)
{
    uint64_t number = atomic_fetch_add(&pair_number, 1) + 1, values[2] = { number, number };
    const uint32_t key_sizes[2] = { 6, 6 }, value_sizes[2] = { 8, 8 };
    CHECK_EQUAL(pykv_write(store, 2, NULL, (const uint8_t *)"pair:apair:b", key_sizes, (const uint8_t *)values,
                           value_sizes, NULL, PYKV_DURABILITY_DEFAULT, NULL, NULL, NULL), PYKV_OK);
}

/* Both are always written together: who has read one reads the other at least as new. */
static void check_pair(const char *first, const char *second)
{
    uint64_t values[2], versions[2] = { 0, 0 };
    int64_t a = pykv_get(store, (const uint8_t *)first, 6, (uint8_t *)&values[0], 8, &versions[0]);
    int64_t b = pykv_get(store, (const uint8_t *)second, 6, (uint8_t *)&values[1], 8, &versions[1]);
    if (a == -1000 + PYKV_NOT_FOUND)
        return;
    CHECK_EQUAL(a, 8);
    CHECK_EQUAL(b, 8);
    CHECK(versions[1] >= versions[0]);
    CHECK(versions[1] != versions[0] || values[1] == values[0]);
}

static void get_many(uint64_t *random, struct pykv_rows *rows)
{
    uint8_t keys[16 * 16];
    uint32_t sizes[16];
    uint64_t numbers[16];
    size_t at = 0, size, missing_count;
    for (size_t i = 0; i < 16; i++) {
        numbers[i] = next(random) % KEYS;
        sizes[i] = (uint32_t)make_key(numbers[i], keys + at);
        at += sizes[i];
    }
    CHECK_EQUAL(pykv_get_many(store, 16, keys, sizes, rows), PYKV_OK);
    CHECK_EQUAL(pykv_rows_count(rows), 16);
    const uint32_t *missing = pykv_rows_missing(rows, &missing_count);
    const uint8_t *data = pykv_rows_data(rows, &size);
    const char *format = pykv_rows_format(rows, &at);
    for (size_t i = 0, j = 0; i < 16; i++) {
        char *end;
        size_t length = strtoul(format, &end, 10);
        format = end + 1;
        if (j < missing_count && missing[j] == i)
            j++;
        else
            check_value(numbers[i], data, length);
        data += length;
    }
}

/* One instant: of each pair both, with one value. */
static void scan(struct pykv_rows *rows)
{
    struct pykv_scan *open;
    uint64_t seen[2] = { 0, 0 };
    size_t count = 0;
    int status = pykv_scan_open(store, NULL, (const uint8_t *)"pair:", 5, 2, &open);
    CHECK_EQUAL(status, PYKV_OK);
    while ((status = pykv_scan_next(open, rows)) == PYKV_OK)
        for (size_t i = 0, size; i < pykv_rows_count(rows); i++, count++)
            memcpy(&seen[count & 1], pykv_rows_data(rows, &size) + 8 * i, 8);
    CHECK_EQUAL(status, PYKV_NOT_FOUND);
    CHECK(count == 0 || count == 2);
    CHECK_EQUAL(seen[0], seen[1]);
    pykv_scan_close(open);
}

/* Of a pair both have one value in a snapshot; and none is added where another thread came between. */
static void snapshot(void)
{
    const uint8_t ops[3] = { PYKV_EXPECT_PREFIX_UNCHANGED, PYKV_PUT, PYKV_PUT };
    const uint32_t sizes[5] = { 5, 6, 6, 8, 8 };
    uint64_t values[2] = { 0, 0 };
    uint8_t fields[33];
    struct pykv_snapshot *open;
    int64_t got[2];
    CHECK_EQUAL(pykv_snapshot_open(store, &open), PYKV_OK);
    got[0] = pykv_snapshot_get(open, (const uint8_t *)"pair:a", 6, (uint8_t *)&values[0], 8, NULL);
    got[1] = pykv_snapshot_get(open, (const uint8_t *)"pair:b", 6, (uint8_t *)&values[1], 8, NULL);
    CHECK_EQUAL(got[0], got[1]);
    CHECK_EQUAL(values[0], values[1]);
    memcpy(fields, "pair:pair:apair:b", 17);
    memcpy(fields + 17, values, 16);        /* what is there: so a lost update would go back */
    if (got[0] == 8) {
        int64_t version = pykv_snapshot_commit(open, 1, 2, ops, fields, (const uint8_t *)sizes, NULL,
                                               PYKV_DURABILITY_DEFAULT);
        CHECK(version > 0 || version == -2000);
    }
    pykv_snapshot_free(open);
}

/* A view stays as it is, whatever becomes of its segment. */
static void view_for_a_while(uint64_t number, const uint8_t *key, size_t key_size)
{
    struct pykv_progress progress = { .left = 1 };
    struct pykv_pin *pin;
    const uint8_t *value;
    size_t size;
    int status = pykv_view(store, key, key_size, &value, &size, &pin);
    while (progress.left != 0)
        CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
    if (status == PYKV_NOT_FOUND)
        return;
    CHECK_EQUAL(status, PYKV_OK);
    check_value(number, value, size);
    pykv_view_release(pin);
}

static void one_call(uint64_t *random, struct pykv_rows *rows)
{
    uint8_t key[16], value[1024];
    uint64_t number = next(random) % KEYS, expiry;
    size_t key_size = make_key(number, key), size;
    int64_t got, sum;
    struct pykv_stats stats;
    switch (next(random) % 16) {
    case 0: case 1: case 2:
        size = make_value(number, next(random), value);
        CHECK_EQUAL(pykv_put(store, key, key_size, value, size, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
        break;
    case 3:
        CHECK(pykv_delete(store, key, key_size, PYKV_DURABILITY_DEFAULT) >= 0);
        break;
    case 4: case 5:
        put_pair();
        break;
    case 6:
        check_pair("pair:a", "pair:b");
        break;
    case 7:
        check_pair("pair:b", "pair:a");
        break;
    case 8:
        get_many(random, rows);
        break;
    case 9:
        if (next(random) % 8 == 0)
            scan(rows);
        break;
    case 10:
        CHECK_EQUAL(pykv_incr(store, (const uint8_t *)"count", 5, 1, 0, 0, PYKV_DURABILITY_DEFAULT, &sum), PYKV_OK);
        atomic_fetch_add(&counted, 1);
        break;
    case 11:
        if (next(random) % 64 == 0)
            CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
        else
            CHECK(pykv_contains(store, key, key_size, &expiry) >= 0);
        break;
    case 12:
        if (next(random) % 64 == 0)
            CHECK_EQUAL(pykv_sync(store), PYKV_OK);
        break;
    case 13:
        if (next(random) % 4 == 0)
            snapshot();
        break;
    case 14:
        if (next(random) % 64 == 0)
            view_for_a_while(number, key, key_size);
        break;
    default:
        if ((got = pykv_get(store, key, key_size, value, sizeof value, NULL)) >= 0)
            check_value(number, value, (size_t)got);
        else
            CHECK_EQUAL(got, -1000 + PYKV_NOT_FOUND);
    }
}

static void *work(void *argument)
{
    uint64_t random = 0x9E3779B97F4A7C15u * ((uint64_t)(uintptr_t)argument + 1);
    struct pykv_rows *rows = pykv_rows_new();
    for (unsigned i = 0; i < ROUNDS; i++)
        one_call(&random, rows);
    pykv_rows_free(rows);
    return NULL;
}

static void together(void *(*act)(void *))
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQUAL(pthread_create(&threads[i], NULL, act, (void *)i), 0);
    for (size_t i = 0; i < THREADS; i++)
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
}

static void check_at_rest(void)
{
    static struct pykv_report report;
    struct pykv_stats stats;
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK(stats.freed_bytes > 0);
    char text[32] = "";
    int64_t size = pykv_get(store, (const uint8_t *)"count", 5, (uint8_t *)text, sizeof text - 1, NULL);
    CHECK(size > 0);
    CHECK_EQUAL(strtoull(text, NULL, 10), atomic_load(&counted));
    CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
    CHECK_EQUAL(pykv_close(store), PYKV_OK);
    pykv_free(store);
}

static void all_calls_at_once(void)
{
    open_store("mmap", PYKV_IO_MMAP);
    together(work);
    check_at_rest();
}

static void all_calls_at_once_without_mappings(void)
{
    open_store("pread", PYKV_IO_PREAD);
    together(work);
    check_at_rest();
}

/* verify() walks the segments while writers seal them and begin others. */
static void *write_or_verify(void *argument)
{
    static struct pykv_report reports[THREADS];
    uint8_t key[16], value[1024];
    uint64_t random = (uint64_t)(uintptr_t)argument + 77;
    if ((uintptr_t)argument == 0) {
        while (!atomic_load(&over))
            CHECK_EQUAL(pykv_verify(store, &reports[0]), PYKV_OK);
        return NULL;
    }
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t number = next(&random) % KEYS;
        size_t key_size = make_key(number, key);
        CHECK_EQUAL(pykv_put(store, key, key_size, value, make_value(number, 99, value), 0,
                             PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    }
    atomic_store(&over, true);
    return NULL;
}

static void verify_beside_writers(void)
{
    open_store("verify-mmap", PYKV_IO_MMAP);
    together(write_or_verify);
    pykv_free(store);
}

static void verify_beside_writers_without_mappings(void)
{
    open_store("verify-pread", PYKV_IO_PREAD);
    together(write_or_verify);
    pykv_free(store);
}

/* close() waits for calls in flight; later ones say so. */
static void *until_closed(void *argument)
{
    uint8_t key[16], value[1024];
    uint64_t random = (uint64_t)(uintptr_t)argument + 5;
    int status = PYKV_OK;
    for (unsigned i = 0; status != PYKV_CLOSED; i++) {
        uint64_t number = next(&random) % KEYS;
        size_t key_size = make_key(number, key);
        if ((uintptr_t)argument == 0 && i == 500) {
            CHECK_EQUAL(pykv_close(store), PYKV_OK);
            return NULL;
        }
        status = pykv_put(store, key, key_size, value, make_value(number, 50, value), 0, PYKV_DURABILITY_DEFAULT, NULL);
        CHECK(status == PYKV_OK || status == PYKV_CLOSED);
        int64_t got = pykv_get(store, key, key_size, value, sizeof value, NULL);
        CHECK(got > 0 || got == -1000 + PYKV_CLOSED);
    }
    return NULL;
}

static void closing_beside_calls(void)
{
    for (int i = 0; i < 5; i++) {
        open_store("close", i % 2 == 0 ? PYKV_IO_MMAP : PYKV_IO_PREAD);
        together(until_closed);
        pykv_free(store);
    }
}

TEST_MAIN(CASE(all_calls_at_once), CASE(all_calls_at_once_without_mappings), CASE(verify_beside_writers),
          CASE(verify_beside_writers_without_mappings), CASE(closing_beside_calls))
