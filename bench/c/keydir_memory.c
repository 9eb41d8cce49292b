/* keydir_memory.c -- what the keydir costs: bytes a key, lookups that leave the first cache line,
 * nanoseconds a lookup, and the longest single insert, over the last cycle of growth.
 *
 *     cd csrc
 *     cc -std=c11 -O2 -pthread -I. ../bench/c/keydir_memory.c {keydir,area,space,error,os_posix}.c
 *     ./a.out 1000000 10000000 50000000
 *
 * Random hashes (splitmix64 of 0, 1, 2, ...) are inserted one by one, each with a reserve of its
 * own, into a private space. Bytes a key are those that have blocks: buckets, nodes, their reserve.
 * A lookup is of a random key that is present; `absent` of one that is not. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "keydir.h"

#define POINTS 8                        /* in a cycle: between two doublings of the keys */
#define LOOKUPS 2000000u

static uint64_t hash_of(uint64_t key)
{
    uint64_t z = (key + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t location_of(uint64_t key) { return 16 + key; }

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "keydir_memory: %s\n", what);
    exit(1);
}

static uint64_t lookup(struct keydir *keydir, uint64_t hash, uint64_t location)
{
    struct keydir_probe probe;
    uint64_t found;
    if (keydir_probe(keydir, hash, &probe) != 0)
        fail("a lookup failed");
    const void *first = (const void *)probe.group;
    while ((found = keydir_probe_next(keydir, &probe)) != 0)
        if (found == location)
            return (const void *)probe.group != first;
    if (location != 0)
        fail("a key is gone");
    return 0;
}

/* Nanoseconds a lookup; *chained becomes the share that left the first line. */
static double time_lookups(struct keydir *keydir, uint64_t keys, bool present, double *chained)
{
    uint64_t left = 0, start = now_ns();
    for (uint64_t i = 0; i < LOOKUPS; i++) {
        uint64_t key = hash_of(i + (UINT64_C(1) << 40)) % keys;
        left += present ? lookup(keydir, hash_of(key), location_of(key))
                        : lookup(keydir, hash_of(key + (UINT64_C(1) << 41)), 0);
    }
    *chained = (double)left / LOOKUPS;
    return (double)(now_ns() - start) / LOOKUPS;
}

/* The same in groups of 64: all buckets are fetched before the first is read. */
static double time_batches(struct keydir *keydir, uint64_t keys)
{
    uint64_t start = now_ns(), hash[64], key[64];
    for (uint64_t i = 0; i < LOOKUPS; i += 64) {
        for (unsigned j = 0; j < 64; j++) {
            key[j] = hash_of(i + j + (UINT64_C(1) << 40)) % keys;
            keydir_prefetch(keydir, hash[j] = hash_of(key[j]));
        }
        for (unsigned j = 0; j < 64; j++)
            lookup(keydir, hash[j], location_of(key[j]));
    }
    return (double)(now_ns() - start) / LOOKUPS;
}

/* Insert keys [from, to). The extremes of bytes a key go to bytes[2], the longest insert is
 * returned. */
static uint64_t insert(struct keydir *keydir, uint64_t from, uint64_t to, double bytes[2])
{
    uint64_t longest = 0, before = now_ns();
    for (uint64_t key = from; key < to; key++) {
        if (keydir_reserve(keydir, 1) != 0 ||
            !keydir_insert(keydir, hash_of(key), location_of(key), false))
            fail("an insert failed");
        uint64_t after = now_ns();
        longest = after - before > longest ? after - before : longest;
        before = after;
        double per_key = (double)keydir_memory_size(keydir) / (double)(key + 1);
        bytes[0] = per_key < bytes[0] ? per_key : bytes[0];
        bytes[1] = per_key > bytes[1] ? per_key : bytes[1];
    }
    return longest;
}

static void measure(uint64_t keys_max)
{
    struct space space = { .os = &os_posix, .fd = -1, .writable = true, .name = "keydir" };
    struct keydir_shared *shared = calloc(1, sizeof *shared);
    struct keydir *keydir;
    double ignored[2] = { 1e9, 0 }, chained, none;
    if (shared == NULL)
        fail("no memory");
    atomic_store(&shared->space_end, SPACE_ALIGNMENT);
    if (keydir_open(&os_posix, &space, shared, &keydir) != 0)
        fail("cannot open");
    insert(keydir, 0, keys_max / 2, ignored);
    printf("%12s %8s %8s %8s %8s %8s %8s %8s %8s %10s\n", "keys", "bytes/k", "min", "max",
           "nodes/k", "chained", "present", "absent", "batched", "longest");
    for (unsigned point = 1; point <= POINTS; point++) {
        uint64_t from = keys_max / 2 + keys_max / 2 * (point - 1) / POINTS;
        uint64_t keys = keys_max / 2 + keys_max / 2 * point / POINTS;
        double bytes[2] = { 1e9, 0 };
        uint64_t start = now_ns(), longest = insert(keydir, from, keys, bytes);
        double each = (double)(now_ns() - start) / (double)(keys - from);
        double present = time_lookups(keydir, keys, true, &chained);
        printf("%12" PRIu64 " %8.2f %8.2f %8.2f %8.4f %7.1f%% %5.0f ns %5.0f ns %5.0f ns %7.0f us"
               "  (insert %.0f ns)\n",
               keys, (double)keydir_memory_size(keydir) / (double)keys, bytes[0], bytes[1],
               (double)atomic_load(&shared->node_count) / (double)keys, chained * 100, present,
               time_lookups(keydir, keys, false, &none), time_batches(keydir, keys),
               (double)longest / 1000, each);
    }
    keydir_close(keydir);
    free(shared);
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        measure(1000000);
        measure(10000000);
    }
    for (int i = 1; i < argc; i++)
        measure(strtoull(argv[i], NULL, 10));
    return 0;
}
