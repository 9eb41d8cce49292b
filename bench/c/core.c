/* core.c -- the engine without Python: nanoseconds an operation for keys of 16 and values of 100
 * bytes, so that one sees what the binding costs.
 *
 *     cc -O2 -std=c11 -Icsrc bench/c/core.c csrc/[a-z]*.c -lpthread -o build/core && build/core DIR [KEYS]
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pykv.h"

#define KEY_SIZE 16
#define VALUE_SIZE 100
#define BATCH 1000
#define GROUP 64

static uint64_t state = 1;
static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void check(int status)
{
    if (status < 0) {
        fprintf(stderr, "%s\n", pykv_last_error()->message);
        exit(1);
    }
}

static void report(const char *what, double start, size_t count)
{
    printf("%-28s %8.1f ns\n", what, (now_ns() - start) / (double)count);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIR [KEYS]\n", argv[0]);
        return 2;
    }
    size_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    uint8_t *keys = malloc(count * KEY_SIZE), *values = calloc(BATCH, VALUE_SIZE), buffer[VALUE_SIZE];
    size_t *order = malloc(count * sizeof *order);
    uint32_t key_sizes[BATCH], value_sizes[BATCH];
    struct pykv_rows *rows = pykv_rows_new();
    struct pykv_options options = { .flag = PYKV_FLAG_NEW };
    struct pykv_store *store;
    if (keys == NULL || values == NULL || order == NULL || rows == NULL)
        return 1;
    for (size_t i = 0; i < count * KEY_SIZE; i += 8) {
        uint64_t word = next_random();
        memcpy(keys + i, &word, 8);
    }
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count; i-- > 1;) {
        size_t j = next_random() % (i + 1), k = order[i];
        order[i] = order[j];
        order[j] = k;
    }
    for (size_t i = 0; i < BATCH; i++) {
        key_sizes[i] = KEY_SIZE;
        value_sizes[i] = VALUE_SIZE;
    }
    check(pykv_open(argv[1], &options, &store));

    double start = now_ns();
    for (size_t i = 0; i < count; i++)
        check(pykv_put(store, keys + i * KEY_SIZE, KEY_SIZE, values, VALUE_SIZE, 0, PYKV_DURABILITY_DEFAULT, NULL));
    report("put, new keys", start, count);

    start = now_ns();
    for (size_t i = 0; i < count; i++)
        if (pykv_get(store, keys + order[i] * KEY_SIZE, KEY_SIZE, buffer, sizeof buffer, NULL) != VALUE_SIZE)
            return 1;
    report("get, present", start, count);

    start = now_ns();
    for (size_t i = 0; i < count; i++) {
        uint8_t key[KEY_SIZE];
        memcpy(key, keys + order[i] * KEY_SIZE, KEY_SIZE);
        key[0] ^= 0xFF;
        if (pykv_get(store, key, KEY_SIZE, buffer, sizeof buffer, NULL) >= 0)
            return 1;
    }
    report("get, absent", start, count);

    uint8_t *group = malloc(BATCH * KEY_SIZE);
    start = now_ns();
    for (size_t i = 0; i + GROUP <= count; i += GROUP) {
        for (size_t j = 0; j < GROUP; j++)
            memcpy(group + j * KEY_SIZE, keys + order[i + j] * KEY_SIZE, KEY_SIZE);
        check(pykv_get_many(store, GROUP, group, key_sizes, rows));
    }
    report("get_many of 64", start, count);

    start = now_ns();
    for (size_t i = 0; i < count; i++)
        check(pykv_put(store, keys + order[i] * KEY_SIZE, KEY_SIZE, values, VALUE_SIZE, 0, PYKV_DURABILITY_DEFAULT, NULL));
    report("put, overwrite", start, count);

    start = now_ns();
    for (size_t i = 0; i + BATCH <= count; i += BATCH) {
        for (size_t j = 0; j < BATCH; j++)
            memcpy(group + j * KEY_SIZE, keys + order[i + j] * KEY_SIZE, KEY_SIZE);
        check(pykv_write(store, BATCH, NULL, group, key_sizes, values, value_sizes, NULL, PYKV_DURABILITY_DEFAULT, NULL,
                         NULL, NULL));
    }
    report("put_many of 1000, overwrite", start, count);

    struct pykv_scan *scan;
    size_t found = 0;
    start = now_ns();
    check(pykv_scan_open(store, NULL, NULL, 0, 3, &scan));
    while (pykv_scan_next(scan, rows) == PYKV_OK)
        found += pykv_rows_count(rows) / 2;
    pykv_scan_close(scan);
    report("scan, keys and values", start, found);

    check(pykv_close(store));
    pykv_free(store);
    pykv_rows_free(rows);
    free(keys);
    free(values);
    free(order);
    free(group);
    return found == count ? 0 : 1;
}
