/* core.c -- the engine without Python: nanoseconds an operation for keys of 16 and values of 100 bytes,
 * and beside each what it cannot avoid (floor.h): the cache misses, one after the other for single calls,
 * overlapping for batches; checksums; copies.
 *
 *     cc -O3 -std=c11 -Icsrc -Ibench/c bench/c/core.c bench/c/floor.c csrc/[a-z]*.c -lpthread -o build/core
 *     build/core DIR [KEYS [ROUNDS]]
 *
 * Each round is on a fresh store in DIR; what is printed is the least of the rounds. instructions.py runs
 * this under callgrind, which knows the operations by the names of their functions here. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "floor.h"
#include "pykv.h"

#define KEY_SIZE 16
#define VALUE_SIZE FLOOR_VALUE_SIZE
#define BATCH 1000
#define GROUP FLOOR_GROUP_MAX

struct bench {
    size_t count;
    uint8_t *keys;              /* in the order in which they are put */
    uint8_t *shuffled, *absent;
    uint8_t values[BATCH * VALUE_SIZE];
    uint32_t key_sizes[BATCH], value_sizes[BATCH];
    struct pykv_rows *rows;
    struct pykv_store *store;
    char path[4096];
};

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void check(int status)
{
    if (status < 0)
        fail(pykv_last_error()->message);
}

/* ---- The operations, each on all keys ---- */

static void put(struct bench *bench, const uint8_t *keys)
{
    for (size_t i = 0; i < bench->count; i++)
        check(pykv_put(bench->store, keys + i * KEY_SIZE, KEY_SIZE, bench->values, VALUE_SIZE, 0, PYKV_DURABILITY_DEFAULT,
                       NULL));
}

__attribute__((noinline)) static void bench_put(struct bench *bench) { put(bench, bench->keys); }
__attribute__((noinline)) static void bench_overwrite(struct bench *bench) { put(bench, bench->shuffled); }

__attribute__((noinline)) static void bench_get(struct bench *bench)
{
    uint8_t buffer[VALUE_SIZE];
    for (size_t i = 0; i < bench->count; i++)
        if (pykv_get(bench->store, bench->shuffled + i * KEY_SIZE, KEY_SIZE, buffer, sizeof buffer, NULL) != VALUE_SIZE)
            fail("a key is missing");
}

__attribute__((noinline)) static void bench_get_absent(struct bench *bench)
{
    uint8_t buffer[VALUE_SIZE];
    for (size_t i = 0; i < bench->count; i++)
        if (pykv_get(bench->store, bench->absent + i * KEY_SIZE, KEY_SIZE, buffer, sizeof buffer, NULL) >= 0)
            fail("a key is there that never was");
}

__attribute__((noinline)) static void bench_get_many(struct bench *bench)
{
    for (size_t i = 0; i + GROUP <= bench->count; i += GROUP)
        check(pykv_get_many(bench->store, GROUP, bench->shuffled + i * KEY_SIZE, bench->key_sizes, bench->rows));
}

__attribute__((noinline)) static void bench_put_many(struct bench *bench)
{
    for (size_t i = 0; i + BATCH <= bench->count; i += BATCH)
        check(pykv_write(bench->store, BATCH, NULL, bench->shuffled + i * KEY_SIZE, bench->key_sizes, bench->values,
                         bench->value_sizes, NULL, PYKV_DURABILITY_DEFAULT, NULL, NULL, NULL));
}

__attribute__((noinline)) static void bench_scan(struct bench *bench)
{
    struct pykv_scan *scan;
    size_t found = 0;
    check(pykv_scan_open(bench->store, NULL, NULL, 0, 3, &scan));
    while (pykv_scan_next(scan, bench->rows) == PYKV_OK)
        found += pykv_rows_count(bench->rows) / 2;
    pykv_scan_close(scan);
    if (found != bench->count)
        fail("the scan missed keys");
}

static void open_store(struct bench *bench, int flag)
{
    struct pykv_options options = { .flag = flag };
    check(pykv_open(bench->path, &options, &bench->store));
}

static void close_store(struct bench *bench)
{
    check(pykv_close(bench->store));
    pykv_free(bench->store);
}

static const struct operation {
    const char *name;
    void (*run)(struct bench *bench);
    struct floor_step floor;
} operations[] = {
    { "put, new keys", bench_put, { .group = 1, .table = true, .append = true } },
    { "get, present", bench_get, { .group = 1, .table = true, .record = true } },
    { "get, absent", bench_get_absent, { .group = 1, .table = true } },
    { "get_many of 64", bench_get_many, { .group = GROUP, .table = true, .record = true } },
    { "put, overwrite", bench_overwrite, { .group = 1, .table = true, .key = true, .append = true } },
    { "put_many of 1000, overwrite", bench_put_many, { .group = GROUP, .table = true, .key = true, .append = true } },
    { "scan, keys and values", bench_scan, { .group = GROUP, .append = true } },    /* it copies all, in the order of the table */
};
#define OPERATION_COUNT (sizeof operations / sizeof *operations)

/* ---- Rounds ---- */

static uint64_t next_random(void)
{
    static uint64_t state = 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static struct bench *bench_new(size_t count)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL)
        return NULL;
    bench->count = count;
    bench->keys = malloc(count * KEY_SIZE);
    bench->shuffled = malloc(count * KEY_SIZE);
    bench->absent = malloc(count * KEY_SIZE);
    bench->rows = pykv_rows_new();
    if (bench->keys == NULL || bench->shuffled == NULL || bench->absent == NULL || bench->rows == NULL)
        return NULL;
    for (size_t i = 0; i < count * KEY_SIZE; i += 8) {
        uint64_t word = next_random();
        memcpy(bench->keys + i, &word, 8);
    }
    memcpy(bench->shuffled, bench->keys, count * KEY_SIZE);
    for (size_t i = count; i-- > 1;) {
        uint8_t key[KEY_SIZE], *one = bench->shuffled + i * KEY_SIZE;
        uint8_t *other = bench->shuffled + next_random() % (i + 1) * KEY_SIZE;
        memcpy(key, one, KEY_SIZE);
        memmove(one, other, KEY_SIZE);
        memcpy(other, key, KEY_SIZE);
    }
    for (size_t i = 0; i < count * KEY_SIZE; i++)
        bench->absent[i] = bench->shuffled[i] ^ 0xFF;
    for (size_t i = 0; i < BATCH; i++) {
        bench->key_sizes[i] = KEY_SIZE;
        bench->value_sizes[i] = VALUE_SIZE;
    }
    return bench;
}

static void keep_least(double *least, double value)
{
    if (*least == 0 || value < *least)
        *least = value;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIR [KEYS [ROUNDS]]\n", argv[0]);
        return 2;
    }
    size_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    int round_count = argc > 3 ? atoi(argv[3]) : 3;
    double least[OPERATION_COUNT] = { 0 }, unavoidable[OPERATION_COUNT] = { 0 }, open_ns = 0;
    struct bench *bench = bench_new(count);
    struct floor floor;
    if (bench == NULL || !floor_init(&floor, count))
        fail("there is not enough memory");
    for (int round = 0; round < round_count; round++) {
        (void)snprintf(bench->path, sizeof bench->path, "%s/core-%d.kv", argv[1], round);
        open_store(bench, PYKV_FLAG_NEW);
        for (size_t i = 0; i < OPERATION_COUNT; i++) {
            double start = now_ns();
            operations[i].run(bench);
            keep_least(&least[i], (now_ns() - start) / (double)count);
            keep_least(&unavoidable[i], floor_ns(&floor, &operations[i].floor));
        }
        close_store(bench);
        double start = now_ns();
        open_store(bench, PYKV_FLAG_WRITE);
        keep_least(&open_ns, now_ns() - start);
        close_store(bench);
    }
    printf("%zu keys, least of %d rounds    engine      floor   ratio\n", count, round_count);
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        printf("%-28s %8.1f ns %8.1f ns %7.2f\n", operations[i].name, least[i], unavoidable[i], least[i] / unavoidable[i]);
    printf("%-28s %8.1f us\n", "open, after a close", open_ns / 1000);
    floor_release(&floor);
    pykv_rows_free(bench->rows);
    free(bench->keys);
    free(bench->shuffled);
    free(bench->absent);
    free(bench);
    return 0;
}
