/* checkpoint.c -- the keydir written out, so that an open after a power cut need not read the whole
 * log. It is taken shard by shard while writers go on, each shard under a short hold of the writer
 * lock; a shard is all slots whose hashes agree in the lowest KEYDIR_LEVEL_MIN bits. What changes
 * meanwhile is in the log after `start`, and replaying that over it is harmless to repeat.
 * format.md has the fields. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store.h"

#define HEADER_SIZE 128u
#define BLOCK_HEADER_SIZE 16u
#define TRAILER_SIZE 64u            /* and ENTRY_SIZE bytes a segment, and 4 of checksum */
#define ENTRY_SIZE 24u
#define ENTRY_SIZE_OLD 16u          /* told as 0: without the time of expiry */
#define SHARD_COUNT (1u << KEYDIR_LEVEL_MIN)
#define TEMPORARY "checkpoint.tmp"
#define KEPT 2u                     /* the newest, and the one before it */
#define BUFFER_SIZE (64u << 10)     /* shards of a small keydir are few bytes each */
#define COLLECT_MAX 1024u           /* slots of one bucket: more than a chain can have */

static const uint8_t magic[8] = "pykvchk\n";

static void checkpoint_name(uint64_t id, char out[32]) { (void)snprintf(out, 32, "checkpoint-%010" PRIu64, id); }

/* ---- Writing ---- */

struct writer {
    struct pykv_store *store;
    int fd;
    uint64_t offset;
    uint8_t *buffer;            /* BUFFER_SIZE bytes, of which `used` are to be written at `offset` */
    size_t used;
    uint64_t *slots;
    size_t capacity, total;
    uint64_t start;             /* log position: what changes from here on is not in it */
    uint64_t segment_id_next;   /* nor is what was in segments of compaction from here on */
};

static int flush(struct writer *writer)
{
    int error = writer->used == 0 ? 0 : writer->store->os->file_write(writer->store->os, writer->fd, writer->buffer,
                                                                      writer->used, writer->offset);
    writer->offset += writer->used;
    writer->used = 0;
    return error == 0 ? PYKV_OK : error_os(error, TEMPORARY, writer->offset, "write");
}

static int put(struct writer *writer, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    int status = PYKV_OK;
    for (size_t part; size > 0 && status == PYKV_OK; from += part, size -= part) {
        part = BUFFER_SIZE - writer->used < size ? BUFFER_SIZE - writer->used : size;
        memcpy(writer->buffer + writer->used, from, part);
        writer->used += part;
        if (writer->used == BUFFER_SIZE)
            status = flush(writer);
    }
    return status;
}

/* Collect one shard under the writer lock. */
static int shard_collect(struct writer *writer, uint64_t shard, size_t *count)
{
    struct pykv_store *store = writer->store;
    for (;;) {
        int status = store_lock(store);
        if (status != PYKV_OK)
            return status;
        status = keydir_collect(store->keydir, SHARD_COUNT, shard, writer->slots, writer->capacity, count);
        store_unlock(store);
        if (status != PYKV_NO_MEMORY || *count <= writer->capacity)
            return status;
        size_t capacity = *count + *count / 8;
        store->os->release(store->os, writer->slots);
        writer->capacity = 0;
        writer->slots = store->os->alloc(store->os, capacity * sizeof *writer->slots);
        if (writer->slots == NULL)
            return error_no_memory(capacity * sizeof *writer->slots);
        writer->capacity = capacity;
    }
}

/* A block: number of the shard, count of slots, checksum; the slots. */
static int shard_write(struct writer *writer, uint64_t shard)
{
    uint8_t header[BLOCK_HEADER_SIZE] = { 0 };
    size_t count = 0, kept = 0;
    int status = shard_collect(writer, shard, &count);
    if (status != PYKV_OK)
        return status;
    uint8_t *bytes = (uint8_t *)writer->slots;
    for (size_t i = 0; i < count; i++) {
        uint64_t slot = writer->slots[i];
        if (!keydir_slot_dead(slot))
            put_u64(bytes + 8 * kept++, slot);      /* in place: kept <= i */
    }
    put_u32(header, (uint32_t)shard);
    put_u32(header + 4, (uint32_t)kept);
    put_u32(header + 12, crc32c(crc32c(0, header, 12), bytes, kept * 8));
    writer->total += kept;
    status = put(writer, header, sizeof header);
    return status == PYKV_OK ? put(writer, bytes, kept * 8) : status;
}

static int header_write(struct writer *writer, uint64_t id, uint64_t start)
{
    uint8_t bytes[HEADER_SIZE] = { 0 };
    memcpy(bytes, magic, sizeof magic);
    put_u32(bytes + 8, FORMAT_VERSION);
    put_u64(bytes + 16, id);
    memcpy(bytes + 24, writer->store->log.store_id, 16);
    put_u64(bytes + 40, start);
    put_u64(bytes + 48, writer->segment_id_next);
    put_u32(bytes + 124, crc32c(0, bytes, 124));
    return put(writer, bytes, sizeof bytes);
}

/* The counters as of now, and up to where the log must be durable before the checkpoint may count:
 * its slots point at records that a power cut must not take. */
static int trailer_write(struct writer *writer, uint64_t *end)
{
    struct pykv_store *store = writer->store;
    size_t size = TRAILER_SIZE + SEGMENT_SLOT_COUNT * ENTRY_SIZE + 4, at = TRAILER_SIZE;
    uint8_t *bytes = store->os->alloc(store->os, size);
    if (bytes == NULL)
        return error_no_memory(size);
    int status = store_lock(store);
    if (status == PYKV_OK) {
        const struct shared_counters counters = shared_counters(store->shared);
        *end = counters.position;
        put_u64(bytes + 8, counters.position);
        put_u64(bytes + 16, counters.sequence);
        put_u64(bytes + 24, counters.keys);
        put_u64(bytes + 32, counters.live_bytes);
        put_u64(bytes + 40, writer->total);
        for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
            uint64_t id = atomic_load(&store->shared->segments[i].id);
            if (id == 0)
                continue;
            put_u64(bytes + at, id);
            put_u64(bytes + at + 8, atomic_load(&store->shared->segments[i].live_bytes));
            put_u64(bytes + at + 16, atomic_load(&store->shared->segments[i].expiry_next));
            at += ENTRY_SIZE;
        }
        store_unlock(store);
        put_u32(bytes, (uint32_t)((at - TRAILER_SIZE) / ENTRY_SIZE));
        put_u32(bytes + 4, ENTRY_SIZE);
        put_u32(bytes + at, crc32c(0, bytes, at));
        status = put(writer, bytes, at + 4);
    }
    store->os->release(store->os, bytes);
    return status;
}

/* All but the newest two. */
struct sweep { struct pykv_store *store; uint64_t newest; };
static int sweep_name(void *context, const char *name)
{
    struct sweep *sweep = context;
    uint64_t id;
    if (store_classify(name, &id) == 'c' && id + KEPT <= sweep->newest)
        (void)sweep->store->os->file_remove(sweep->store->os, sweep->store->dir, name);
    return 0;
}

static int write_all(struct writer *writer, uint64_t id, uint64_t *end)
{
    struct pykv_store *store = writer->store;
    if ((writer->buffer = store->os->alloc(store->os, BUFFER_SIZE)) == NULL)
        return error_no_memory(BUFFER_SIZE);
    /* What the checkpoint says of segments that compaction wrote will be believed if the manifest lists
     * them. Nobody compacts meanwhile: that takes the maintain lock. */
    int status = compact_settle(store);
    if (status == PYKV_OK)
        status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    writer->start = shared_counters(store->shared).position;
    writer->segment_id_next = store->shared->segment_id_next;
    store_unlock(store);
    status = header_write(writer, id, writer->start);
    for (uint64_t shard = 0; shard < SHARD_COUNT && status == PYKV_OK; shard++)
        status = shard_write(writer, shard);
    if (status == PYKV_OK)
        status = trailer_write(writer, end);
    if (status == PYKV_OK)
        status = flush(writer);
    if (status == PYKV_OK)
        status = store_sync_to(store, *end);
    return status;
}

int checkpoint_write(struct pykv_store *store)
{
    const struct os *os = store->os;
    struct writer writer = { .store = store, .fd = -1 };
    uint64_t id = atomic_load(&store->shared->checkpoint_id) + 1, end = 0;
    uint64_t written = atomic_load(&store->shared->written_bytes);
    char name[32];
    checkpoint_name(id, name);
    (void)os->file_remove(os, store->dir, TEMPORARY);
    int error = os->file_open(os, store->dir, TEMPORARY, OS_CREATE, store->log.file_mode, &writer.fd);
    int status = error == 0 ? write_all(&writer, id, &end) : error_os(error, TEMPORARY, 0, "create");
    os->release(os, writer.slots);
    os->release(os, writer.buffer);
    if (status == PYKV_OK && (error = os->file_sync(os, writer.fd)) != 0)
        status = error_os(error, TEMPORARY, 0, "sync");
    /* The manifest first: it lists all that the slots lead to, whatever became of those before it. If we
     * die before the rename, the older checkpoints still stand. */
    if (status == PYKV_OK)
        status = store_write_manifest(store);
    if (writer.fd >= 0)
        (void)os->file_close(os, writer.fd);
    if (status == PYKV_OK && ((error = os->file_rename(os, store->dir, TEMPORARY, name)) != 0 ||
                              (error = os->dir_sync(os, store->dir)) != 0))
        status = error_os(error, name, 0, "rename");
    if (status != PYKV_OK) {
        (void)os->file_remove(os, store->dir, TEMPORARY);
        return status;
    }
    atomic_store(&store->shared->checkpoint_id, id);
    atomic_store(&store->shared->checkpoint_position, end);
    atomic_store(&store->shared->checkpoint_written, written);
    atomic_store(&store->shared->checkpoint_start, writer.start);
    atomic_store(&store->shared->checkpoint_segments, writer.segment_id_next);
    atomic_store(&store->shared->checkpoint_sequence, shared_sequence(store->shared));
    struct sweep sweep = { .store = store, .newest = id };
    (void)os->dir_list(os, store->dir, sweep_name, &sweep);
    return PYKV_OK;
}

/* ---- Loading ---- */

struct loader {
    struct pykv_store *store;
    int fd;
    const char *name;
    uint64_t size, offset;
    uint8_t *buffer;            /* BUFFER_SIZE bytes: the file from `buffer_start` to `buffer_end` */
    uint64_t buffer_start, buffer_end;
    uint8_t *bytes;             /* slots of a block */
    size_t capacity;
    uint64_t total, inserted;   /* slots */
};

static int fill(struct loader *loader)
{
    size_t done = 0;
    const struct os *os = loader->store->os;
    int error = os->file_read(os, loader->fd, loader->buffer, BUFFER_SIZE, loader->offset, &done);
    if (error != 0)
        return error_os(error, loader->name, loader->offset, "read");
    loader->buffer_start = loader->offset;
    loader->buffer_end = loader->offset + done;
    return done != 0 ? PYKV_OK : error_corrupt(loader->name, loader->offset, "the checkpoint is too short");
}

static int get(struct loader *loader, uint8_t *bytes, uint64_t size)
{
    if (size > loader->size - loader->offset)
        return error_corrupt(loader->name, loader->offset, "the checkpoint is too short");
    while (size > 0) {
        bool here = loader->buffer_start <= loader->offset && loader->offset < loader->buffer_end;
        int status = here ? PYKV_OK : fill(loader);
        if (status != PYKV_OK)
            return status;
        uint64_t part = loader->buffer_end - loader->offset;
        part = part < size ? part : size;
        memcpy(bytes, loader->buffer + (loader->offset - loader->buffer_start), (size_t)part);
        loader->offset += part;
        bytes += part;
        size -= part;
    }
    return PYKV_OK;
}

static int room(struct loader *loader, uint64_t size)
{
    const struct os *os = loader->store->os;
    if (size > loader->size - loader->offset)
        return error_corrupt(loader->name, loader->offset, "the checkpoint is too short");
    if (size <= loader->capacity)
        return PYKV_OK;
    os->release(os, loader->bytes);
    loader->capacity = 0;
    loader->bytes = os->alloc(os, (size_t)size);
    if (loader->bytes == NULL)
        return error_no_memory((size_t)size);
    loader->capacity = (size_t)size;
    return PYKV_OK;
}

/* A slot is believed if its segment is the one that it was then, and long enough. Where that segment
 * was removed since, compaction has copied the record, or it was replaced: a later one tells. */
static int shard_insert(struct loader *loader, uint64_t shard, size_t count, const struct checkpoint *checkpoint)
{
    struct pykv_store *store = loader->store;
    int status = count == 0 ? PYKV_OK : keydir_reserve(store->keydir, count);
    for (size_t i = 0; i < count && status == PYKV_OK; i++) {
        uint64_t slot = get_u64(loader->bytes + 8 * i), location = keydir_slot_location(slot);
        const struct segment_entry *entry = &store->shared->segments[location_slot(location)];
        uint64_t then = checkpoint->ids[location_slot(location)];
        if (i + 16 < count)
            keydir_prefetch(store->keydir, keydir_slot_hash(get_u64(loader->bytes + 8 * (i + 16)), shard));
        if (then != 0 && then != atomic_load(&entry->id))
            continue;
        if (then == 0 || keydir_slot_dead(slot) || location_offset(location) < SEGMENT_HEADER_SIZE ||
            location_offset(location) >= atomic_load(&entry->length))
            status = error_corrupt(loader->name, loader->offset, "the checkpoint names a place that is not in the log");
        else if (!keydir_insert(store->keydir, keydir_slot_hash(slot, shard), location, false))
            status = error_corrupt(loader->name, loader->offset, "too many keys have one hash");
        else
            loader->inserted++;
    }
    return status;
}

static int load_shard(struct loader *loader, uint64_t shard, const struct checkpoint *insert)
{
    uint8_t header[BLOCK_HEADER_SIZE];
    int status = get(loader, header, sizeof header);
    if (status != PYKV_OK)
        return status;
    uint64_t count = get_u32(header + 4);
    if (get_u32(header) != shard)
        return error_corrupt(loader->name, loader->offset, "the checkpoint's blocks are out of order");
    if ((status = room(loader, count * 8)) != PYKV_OK || (status = get(loader, loader->bytes, count * 8)) != PYKV_OK)
        return status;
    if (get_u32(header + 12) != crc32c(crc32c(0, header, 12), loader->bytes, (size_t)count * 8))
        return error_corrupt(loader->name, loader->offset, "a block of the checkpoint fails its checksum");
    loader->total += count;
    return insert == NULL ? PYKV_OK : shard_insert(loader, shard, (size_t)count, insert);
}

static int load_header(struct loader *loader, uint64_t id, struct checkpoint *out)
{
    uint8_t bytes[HEADER_SIZE];
    int status = get(loader, bytes, sizeof bytes);
    if (status != PYKV_OK)
        return status;
    if (memcmp(bytes, magic, sizeof magic) != 0 || get_u32(bytes + 124) != crc32c(0, bytes, 124) ||
        get_u32(bytes + 8) != FORMAT_VERSION || get_u64(bytes + 16) != id ||
        memcmp(bytes + 24, loader->store->log.store_id, 16) != 0)
        return error_corrupt(loader->name, 0, "the checkpoint's header does not verify");
    out->id = id;
    out->start = get_u64(bytes + 40);
    out->segment_id_next = get_u64(bytes + 48);
    return PYKV_OK;
}

static int load_trailer(struct loader *loader, struct checkpoint *out)
{
    uint64_t size = loader->size - loader->offset;
    if (size < TRAILER_SIZE + 4 || size > TRAILER_SIZE + SEGMENT_SLOT_COUNT * ENTRY_SIZE + 4)
        return error_corrupt(loader->name, loader->offset, "the checkpoint's end is missing");
    int status = room(loader, size);
    if (status == PYKV_OK)
        status = get(loader, loader->bytes, size);
    if (status != PYKV_OK)
        return status;
    const uint8_t *bytes = loader->bytes;
    uint64_t count = get_u32(bytes), told = get_u32(bytes + 4), entry_size = told == 0 ? ENTRY_SIZE_OLD : told;
    if (size != TRAILER_SIZE + count * entry_size + 4 || (told != 0 && told != ENTRY_SIZE) || get_u32(bytes + size - 4) != crc32c(0, bytes, (size_t)size - 4) ||
        get_u64(bytes + 40) != loader->total || get_u64(bytes + 16) > SEQUENCE_MAX)
        return error_corrupt(loader->name, loader->offset, "the checkpoint's end does not verify");
    out->position = get_u64(bytes + 8);
    out->sequence = get_u64(bytes + 16);
    memset(out->ids, 0, SEGMENT_SLOT_COUNT * sizeof *out->ids);
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *entry = bytes + TRAILER_SIZE + i * entry_size;
        uint64_t id = get_u64(entry);
        out->ids[id % SEGMENT_SLOT_COUNT] = id;
        out->live_bytes[id % SEGMENT_SLOT_COUNT] = get_u64(entry + 8);
        out->expiry_next[id % SEGMENT_SLOT_COUNT] = told == 0 ? EXPIRY_UNKNOWN : get_u64(entry + 16);
    }
    return PYKV_OK;
}

/* Take out again what was inserted. Of equal slots keydir_collect() tells one at a time. */
static void forget_slots(struct pykv_store *store)
{
    uint64_t slots[COLLECT_MAX], bucket_count = atomic_load(&store->shared->keydir.bucket_count);
    for (uint64_t bucket = 0; bucket < bucket_count;) {
        size_t count = 0, removed = 0;
        if (keydir_collect(store->keydir, bucket_count, bucket, slots, COLLECT_MAX, &count) == PYKV_OK)
            for (size_t i = 0; i < count; i++)
                removed += keydir_remove(store->keydir, keydir_slot_hash(slots[i], bucket), keydir_slot_location(slots[i]));
        bucket += removed == 0;
    }
}

/* Twice over the file: once to see that all of it verifies, once to insert. Even then it may be one that
 * nobody wrote: with more keys of one hash than the keydir takes. */
static int load_file(struct loader *loader, uint64_t id, struct checkpoint *out)
{
    int status = PYKV_OK;
    for (int pass = 0; pass < 2 && status == PYKV_OK; pass++) {
        loader->offset = loader->total = loader->inserted = 0;
        status = load_header(loader, id, out);
        for (uint64_t shard = 0; shard < SHARD_COUNT && status == PYKV_OK; shard++)
            status = load_shard(loader, shard, pass == 1 ? out : NULL);
        if (status == PYKV_OK)
            status = load_trailer(loader, out);
        if (status == PYKV_OK && pass == 0)
            status = keydir_reserve(loader->store->keydir, loader->total + 1);
        if (status == PYKV_CORRUPT && pass == 1)
            forget_slots(loader->store);
    }
    out->keys = loader->inserted;
    return status;
}

static int load_id(struct pykv_store *store, uint64_t id, struct checkpoint *out)
{
    const struct os *os = store->os;
    struct loader loader = { .store = store, .fd = -1 };
    struct os_stat stat;
    char name[32];
    checkpoint_name(id, name);
    loader.name = name;
    int error = os->file_open(os, store->dir, name, OS_READ, 0, &loader.fd);
    if (error != 0)
        return error_os(error, name, 0, "open");
    error = os->file_stat(os, loader.fd, &stat);
    loader.size = stat.size;
    int status = PYKV_OK;
    if (error != 0)
        status = error_os(error, name, 0, "stat");
    else if ((loader.buffer = os->alloc(os, BUFFER_SIZE)) == NULL)
        status = error_no_memory(BUFFER_SIZE);
    else
        status = load_file(&loader, id, out);
    os->release(os, loader.buffer);
    os->release(os, loader.bytes);
    (void)os->file_close(os, loader.fd);
    return status;
}

struct newest { uint64_t below, found; };
static int newest_name(void *context, const char *name)
{
    struct newest *newest = context;
    uint64_t id;
    if (store_classify(name, &id) == 'c' && id < newest->below && id > newest->found)
        newest->found = id;
    return 0;
}

int checkpoint_load(struct pykv_store *store, struct checkpoint *out)
{
    struct newest newest = { .below = UINT64_MAX };
    size_t size = SEGMENT_SLOT_COUNT * sizeof(uint64_t);
    *out = (struct checkpoint){ .id = 0 };
    out->live_bytes = store->os->alloc(store->os, 3 * size);
    if (out->live_bytes == NULL)
        return error_no_memory(3 * size);
    out->ids = out->live_bytes + SEGMENT_SLOT_COUNT;
    out->expiry_next = out->ids + SEGMENT_SLOT_COUNT;
    for (;;) {
        newest.found = 0;
        int error = store->os->dir_list(store->os, store->dir, newest_name, &newest);
        if (error != 0)
            return error_os(error, store->path, 0, "list");
        if (newest.found == 0)
            return PYKV_NOT_FOUND;
        int status = load_id(store, newest.found, out);
        if (status != PYKV_CORRUPT)
            return status;
        newest.below = newest.found;    /* damaged: it costs a longer replay and nothing else */
    }
}

void checkpoint_release(struct pykv_store *store, struct checkpoint *checkpoint)
{
    store->os->release(store->os, checkpoint->live_bytes);
    checkpoint->live_bytes = NULL;
}
