/* stats.c -- what a store consists of, in figures. */
#include <string.h>

#include "store.h"

struct sizes { struct pykv_store *store; uint64_t disk_bytes, unlisted_bytes; };

static int add_size(void *context, const char *name)
{
    struct sizes *sizes = context;
    const struct os *os = sizes->store->os;
    struct os_stat stat;
    uint64_t number;
    char kind = store_classify(name, &number);
    int fd;
    if (kind == 0 || os->file_open(os, sizes->store->dir, name, OS_READ_LINKED, 0, &fd) != 0)
        return 0;   /* not ours, or removed meanwhile */
    if (os->file_stat(os, fd, &stat) == 0) {
        sizes->disk_bytes += stat.disk_size;
        /* A segment that the table does not know is about to be removed. */
        if (kind == 's' && atomic_load(&segment_of(sizes->store->shared, number)->id) != number)
            sizes->unlisted_bytes += stat.disk_size;
    }
    (void)os->file_close(os, fd);
    return 0;
}

static void count_log(const struct shared *shared, struct pykv_stats *out)
{
    uint64_t active = position_segment(atomic_load(&shared->tail));
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        uint64_t id = atomic_load(&shared->segments[i].id);
        if (id == 0)
            continue;
        uint64_t length = id == active ? position_offset(atomic_load(&shared->tail)) : atomic_load(&shared->segments[i].length);
        out->segments++;
        out->log_bytes += length > SEGMENT_HEADER_SIZE ? length - SEGMENT_HEADER_SIZE : 0;
    }
}

static void count_pins(struct pykv_store *store, struct pykv_stats *out)
{
    struct shared *shared = store->shared;
    const struct pin_entry *oldest = NULL;
    uint64_t sequence = UINT64_MAX, now_ms = store->os->monotonic_ns(store->os) / 1000000;
    if (store->space.writable)
        shared_unpin_dead(shared, &store->process);
    for (size_t i = 0; i < PIN_COUNT; i++) {
        uint64_t owner = atomic_load(&shared->pins[i].owner);
        out->snapshots += owner != 0;
        if (owner != 0 && (owner & SEQUENCE_MAX) < sequence) {
            oldest = &shared->pins[i];
            sequence = owner & SEQUENCE_MAX;
        }
    }
    if (oldest == NULL)
        return;
    uint64_t since_ms = atomic_load(&oldest->since_ms);
    out->snapshot_versions = out->version > sequence ? out->version - sequence : 0;
    out->snapshot_bytes = shared_bytes_since(shared, atomic_load(&oldest->position));
    out->snapshot_ms = now_ms > since_ms ? now_ms - since_ms : 0;
}

int pykv_stats(struct pykv_store *store, struct pykv_stats *out)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    const struct shared *shared = store->shared;
    struct sizes sizes = { .store = store };
    int error = store->os->dir_list(store->os, store->dir, add_size, &sizes);
    if (error != 0) {
        store_leave(store);
        return error_os(error, store->path, 0, "list");
    }
    memset(out, 0, sizeof *out);
    count_log(shared, out);
    struct shared_counters counters = shared_counters(shared);
    out->keys = counters.keys;
    out->version = counters.sequence;
    out->live_bytes = counters.live_bytes;
    out->dead_bytes = out->log_bytes > counters.live_bytes ? out->log_bytes - counters.live_bytes : 0;
    out->disk_bytes = sizes.disk_bytes;
    out->held_bytes = sizes.unlisted_bytes;
    out->keydir_bytes = keydir_memory_size(store->keydir);
    out->keydir_buckets = atomic_load(&shared->keydir.bucket_count);
    out->keydir_nodes = atomic_load(&shared->keydir.node_count) - atomic_load(&shared->keydir.node_free_count);
    out->unsynced_bytes = shared_bytes_since(shared, atomic_load(&shared->durable));
    out->checkpoint_version = atomic_load(&shared->checkpoint_sequence);
    out->processes = process_count(&store->process);
    out->syncs = atomic_load(&shared->sync_count);
    out->recovered_records = atomic_load(&store->recovered_records);
    out->damaged_records = atomic_load(&store->damaged_records);
    out->open_us = store->open_us;
    count_pins(store, out);
    compact_stats(store, out);
    store_leave(store);
    return PYKV_OK;
}

int pykv_count(struct pykv_store *store, uint64_t *out)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    *out = shared_counters(store->shared).keys;
    store_leave(store);
    return PYKV_OK;
}
