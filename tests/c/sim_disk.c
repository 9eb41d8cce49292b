/* sim_disk.c -- images, traces, and the disk between them: see sim_disk.h.
 *
 * A disk holds each file twice, as it certainly is (`durable`) and as the machine sees it (`current`),
 * and the list of items that lead from one to the other. An item is one sector's new content, one new
 * size, or one new meaning of a name. Because a sector item holds the sector's whole content, the
 * last kept item of a sector says what it is, and every subset of items is a legal disk but for the
 * rules in correct_choice(). */
#include "sim_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { NO_FILE = -1, NO_ITEM = -1 };

static void *checked_realloc(void *memory, size_t size)
{
    memory = realloc(memory, size > 0 ? size : 1);
    if (memory == NULL) {
        fprintf(stderr, "sim_disk: out of memory\n");
        abort();
    }
    return memory;
}

/* Make room for one more element in a growing array. */
static void *grow_array(void *array, size_t count, size_t *capacity, size_t element_size)
{
    if (count < *capacity)
        return array;
    size_t old = *capacity;
    *capacity = old == 0 ? 16 : old * 2;
    array = checked_realloc(array, *capacity * element_size);
    memset((char *)array + old * element_size, 0, (*capacity - old) * element_size);
    return array;
}

/* ---- Images ---- */

struct image_file *image_find(const struct image *image, const char *name)
{
    for (size_t i = 0; i < image->count; i++) {
        if (strcmp(image->files[i].name, name) == 0)
            return &image->files[i];
    }
    return NULL;
}

void image_set_size(struct image_file *file, uint64_t size)
{
    if (size > file->capacity) {
        file->capacity = size;
        file->bytes = checked_realloc(file->bytes, size);
    }
    if (size > file->size)
        memset(file->bytes + file->size, 0, size - file->size);
    file->size = size;
}

struct image_file *image_add(struct image *image, const char *name, uint64_t inode, uint32_t mode,
                             uint64_t size)
{
    image->files = grow_array(image->files, image->count, &image->capacity, sizeof *image->files);
    struct image_file *file = &image->files[image->count++];
    snprintf(file->name, sizeof file->name, "%s", name);
    file->inode = inode;
    file->mode = mode;
    file->shared = false;
    file->size = 0;
    image_set_size(file, size);
    return file;
}

void image_remove(struct image *image, struct image_file *file)
{
    struct image_file *last = &image->files[--image->count];
    struct image_file gone = *file;
    *file = *last;
    *last = gone;           /* keeps its memory for the next image_add() */
}

void image_clear(struct image *image)
{
    image->count = 0;
}

void image_copy(struct image *to, const struct image *from)
{
    image_clear(to);
    for (size_t i = 0; i < from->count; i++) {
        const struct image_file *file = &from->files[i];
        struct image_file *copy = image_add(to, file->name, file->inode, file->mode, file->size);
        copy->shared = file->shared;
        if (file->size > 0)
            memcpy(copy->bytes, file->bytes, file->size);
    }
}

void image_release(struct image *image)
{
    for (size_t i = 0; i < image->capacity; i++)
        free(image->files[i].bytes);
    free(image->files);
    *image = (struct image){ 0 };
}

static uint64_t hash_lane(uint64_t lane, uint64_t word)
{
    lane = (lane ^ word) * UINT64_C(0x9FB21C651E98DF25);
    return lane ^ lane >> 32;
}

static uint64_t hash_memory(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    uint64_t lanes[4] = { hash, ~hash, hash << 1 | 1, size };
    for (; size >= 32; p += 32, size -= 32) {
        uint64_t words[4];
        memcpy(words, p, sizeof words);
        lanes[0] = hash_lane(lanes[0], words[0]);
        lanes[1] = hash_lane(lanes[1], words[1]);
        lanes[2] = hash_lane(lanes[2], words[2]);
        lanes[3] = hash_lane(lanes[3], words[3]);
    }
    uint8_t tail[32] = { 0 };
    if (size > 0)
        memcpy(tail, p, size);
    for (size_t i = 0; i < 4; i++) {
        uint64_t word;
        memcpy(&word, tail + i * 8, sizeof word);
        uint64_t state = lanes[i] ^ word;
        hash = (hash << 7 | hash >> 57) ^ next_random(&state);
    }
    return hash;
}

uint64_t image_hash(const struct image *image, bool shared)
{
    uint64_t sum = image->count;
    for (size_t i = 0; i < image->count; i++) {
        const struct image_file *file = &image->files[i];
        if (file->shared && !shared)
            continue;
        uint64_t hash = hash_memory(1, file->name, strlen(file->name));
        sum += hash_memory(hash, file->bytes, file->size);
    }
    return sum;
}

bool image_equal(const struct image *image, const struct image *other)
{
    bool equal = image->count == other->count;
    for (size_t i = 0; i < image->count && equal; i++) {
        const struct image_file *file = &image->files[i], *same = image_find(other, file->name);
        equal = same != NULL && same->size == file->size &&
                (file->size == 0 || memcmp(same->bytes, file->bytes, file->size) == 0);
    }
    return equal;
}

void image_write(const struct image *image, const char *path)
{
    if (mkdir(path, 0700) != 0)
        return;
    for (size_t i = 0; i < image->count; i++) {
        char name[1024];
        snprintf(name, sizeof name, "%s/%s", path, image->files[i].name);
        FILE *file = fopen(name, "wb");
        size_t size = image->files[i].size;
        if (file == NULL || (size > 0 && fwrite(image->files[i].bytes, 1, size, file) != size))
            fprintf(stderr, "cannot write %s\n", name);
        if (file != NULL)
            fclose(file);
    }
}

/* ---- Traces ---- */

void trace_add(struct trace *trace, const struct effect *effect)
{
    trace->effects = grow_array(trace->effects, trace->count, &trace->capacity,
                                sizeof *trace->effects);
    struct effect *copy = &trace->effects[trace->count++];
    *copy = *effect;
    copy->progress = trace->progress;
    if (effect->bytes != NULL) {
        copy->bytes = checked_realloc(NULL, effect->size);
        memcpy(copy->bytes, effect->bytes, effect->size);
    }
}

void trace_release(struct trace *trace)
{
    for (size_t i = 0; i < trace->count; i++)
        free(trace->effects[i].bytes);
    free(trace->effects);
    *trace = (struct trace){ 0 };
}

const char *effect_kind_name(enum effect_kind kind)
{
    static const char *const names[] = { "write", "store", "shared", "size", "create", "link",
                                         "rename", "remove", "sync", "failed sync", "dir sync" };
    return names[kind];
}

void trace_print(const struct trace *trace, size_t at, FILE *out)
{
    for (size_t i = 0; i < trace->count; i++) {
        const struct effect *effect = &trace->effects[i];
        fprintf(out, "%s%4zu  %2u %2u %2u  %s inode %llu offset %llu size %llu %s %s\n",
                i == at ? "-->\n" : "", i, effect->progress.started, effect->progress.acked,
                effect->progress.durable, effect_kind_name(effect->kind),
                (unsigned long long)effect->inode, (unsigned long long)effect->offset,
                (unsigned long long)effect->size, effect->name, effect->to);
    }
}

/* ---- Disks ---- */

enum item_kind { ITEM_SECTOR, ITEM_SIZE, ITEM_NAME };
struct item {
    enum item_kind kind;
    int file;               /* of ITEM_NAME: what the name now means, or NO_FILE */
    bool lost;              /* a failed sync has covered it: later syncs do not */
    int64_t order;          /* counts items since the disk was made: never reused */
    int64_t with;           /* order of another item without which this one is not, or NO_ITEM */
    uint64_t sector;
    uint64_t size;          /* ITEM_SIZE: the new size */
    uint8_t *content;       /* ITEM_SECTOR */
    char name[DISK_NAME_SIZE];
};
struct disk_file {
    uint64_t inode;
    uint32_t mode;
    bool shared;
    uint64_t durable_size, current_size;
    size_t capacity;        /* of both, a multiple of a sector; zeros beyond the sizes */
    uint8_t *durable, *current;
};
struct disk_name { char name[DISK_NAME_SIZE]; int durable, current; };

struct disk {
    enum disk_model model;
    struct disk_file *files;
    size_t file_count, file_capacity;
    struct disk_name *names;
    size_t name_count, name_capacity;
    struct item *items;
    size_t item_count, item_capacity;
    int64_t next_order;
};

static void set_capacity(struct disk_file *file, uint64_t size)
{
    size_t rounded = (size_t)(size + DISK_SECTOR_SIZE - 1) / DISK_SECTOR_SIZE * DISK_SECTOR_SIZE;
    if (rounded <= file->capacity)
        return;
    if (rounded < 2 * file->capacity)
        rounded = 2 * file->capacity;
    file->durable = checked_realloc(file->durable, rounded);
    file->current = checked_realloc(file->current, rounded);
    memset(file->durable + file->capacity, 0, rounded - file->capacity);
    memset(file->current + file->capacity, 0, rounded - file->capacity);
    file->capacity = rounded;
}

static int find_file(const struct disk *disk, uint64_t inode)
{
    for (size_t i = disk->file_count; i-- > 0;) {
        if (disk->files[i].inode == inode)
            return (int)i;
    }
    fprintf(stderr, "sim_disk: no inode %llu\n", (unsigned long long)inode);
    abort();
}

static int add_file(struct disk *disk, uint64_t inode, uint32_t mode)
{
    disk->files = grow_array(disk->files, disk->file_count, &disk->file_capacity,
                             sizeof *disk->files);
    disk->files[disk->file_count] = (struct disk_file){ .inode = inode, .mode = mode };
    return (int)disk->file_count++;
}

static struct disk_name *find_name(struct disk *disk, const char *name)
{
    for (size_t i = 0; i < disk->name_count; i++) {
        if (strcmp(disk->names[i].name, name) == 0)
            return &disk->names[i];
    }
    disk->names = grow_array(disk->names, disk->name_count, &disk->name_capacity,
                             sizeof *disk->names);
    struct disk_name *added = &disk->names[disk->name_count++];
    snprintf(added->name, sizeof added->name, "%s", name);
    added->durable = added->current = NO_FILE;
    return added;
}

static struct item *add_item(struct disk *disk, enum item_kind kind, int file)
{
    disk->items = grow_array(disk->items, disk->item_count, &disk->item_capacity,
                             sizeof *disk->items);
    struct item *item = &disk->items[disk->item_count++];
    *item = (struct item){ .kind = kind, .file = file, .order = disk->next_order++,
                           .with = NO_ITEM };
    return item;
}

struct disk *disk_new(enum disk_model model, const struct image *base)
{
    struct disk *disk = checked_realloc(NULL, sizeof *disk);
    *disk = (struct disk){ .model = model };
    for (size_t i = 0; base != NULL && i < base->count; i++) {
        const struct image_file *from = &base->files[i];
        int number = add_file(disk, from->inode, from->mode);
        struct disk_file *file = &disk->files[number];
        file->shared = from->shared;
        set_capacity(file, from->size);
        if (from->size > 0) {
            memcpy(file->durable, from->bytes, from->size);
            memcpy(file->current, from->bytes, from->size);
        }
        file->durable_size = file->current_size = from->size;
        struct disk_name *name = find_name(disk, from->name);
        name->durable = name->current = number;
    }
    return disk;
}

static void *copy_memory(const void *memory, size_t size)
{
    void *copy = checked_realloc(NULL, size);
    if (size > 0)
        memcpy(copy, memory, size);
    return copy;
}

struct disk *disk_copy(const struct disk *disk)
{
    struct disk *copy = copy_memory(disk, sizeof *disk);
    copy->files = copy_memory(disk->files, disk->file_capacity * sizeof *disk->files);
    copy->names = copy_memory(disk->names, disk->name_capacity * sizeof *disk->names);
    copy->items = copy_memory(disk->items, disk->item_capacity * sizeof *disk->items);
    for (size_t i = 0; i < disk->file_count; i++) {
        struct disk_file *file = &copy->files[i];
        file->durable = copy_memory(file->durable, file->capacity);
        file->current = copy_memory(file->current, file->capacity);
    }
    for (size_t i = 0; i < disk->item_count; i++) {
        if (copy->items[i].content != NULL)
            copy->items[i].content = copy_memory(copy->items[i].content, DISK_SECTOR_SIZE);
    }
    return copy;
}

void disk_free(struct disk *disk)
{
    if (disk == NULL)
        return;
    for (size_t i = 0; i < disk->item_count; i++)
        free(disk->items[i].content);
    for (size_t i = 0; i < disk->file_count; i++) {
        free(disk->files[i].durable);
        free(disk->files[i].current);
    }
    free(disk->items);
    free(disk->files);
    free(disk->names);
    free(disk);
}

/* Note the current content of a sector as an item. */
static void add_sector(struct disk *disk, int number, uint64_t sector, int64_t with)
{
    struct item *item = add_item(disk, ITEM_SECTOR, number);
    item->sector = sector;
    item->with = with;
    item->content = checked_realloc(NULL, DISK_SECTOR_SIZE);
    memcpy(item->content, disk->files[number].current + sector * DISK_SECTOR_SIZE,
           DISK_SECTOR_SIZE);
}

/* Whether a failed sync has left the sector pending: then even the same bytes are news to the disk. */
static bool is_lost(const struct disk *disk, int number, uint64_t sector)
{
    for (size_t i = 0; i < disk->item_count; i++) {
        const struct item *item = &disk->items[i];
        if (item->lost && item->file == number && item->sector == sector)
            return true;
    }
    return false;
}

static void apply_bytes(struct disk *disk, const struct effect *effect)
{
    int number = find_file(disk, effect->inode);
    struct disk_file *file = &disk->files[number];
    set_capacity(file, effect->offset + effect->size);
    if (effect->kind == EFFECT_SHARED) {
        memcpy(file->current + effect->offset, effect->bytes, effect->size);
        file->shared = true;
        return;
    }
    uint64_t end = effect->offset + effect->size;
    for (uint64_t at = effect->offset; at < end;) {
        uint64_t sector = at / DISK_SECTOR_SIZE;
        uint64_t next = (sector + 1) * DISK_SECTOR_SIZE;
        size_t size = (size_t)((next < end ? next : end) - at);
        const uint8_t *bytes = effect->bytes + (at - effect->offset);
        if (memcmp(file->current + at, bytes, size) != 0 || is_lost(disk, number, sector)) {
            memcpy(file->current + at, bytes, size);
            add_sector(disk, number, sector, NO_ITEM);
        }
        at += size;
    }
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

/* A file that shrinks loses the sectors beyond, and they are zeros if it grows again: these zeros
 * are on the disk if and only if the smaller size is. */
static void apply_size(struct disk *disk, const struct effect *effect)
{
    int number = find_file(disk, effect->inode);
    struct disk_file *file = &disk->files[number];
    set_capacity(file, effect->size);
    struct item *item = add_item(disk, ITEM_SIZE, number);
    item->size = effect->size;
    int64_t order = item->order;
    uint64_t old_size = file->current_size;
    file->current_size = effect->size;
    for (uint64_t at = effect->size; at < old_size;) {
        uint64_t next = (at / DISK_SECTOR_SIZE + 1) * DISK_SECTOR_SIZE;
        if (next > old_size)
            next = old_size;
        if (!all_zero(file->current + at, (size_t)(next - at))) {
            memset(file->current + at, 0, (size_t)(next - at));
            add_sector(disk, number, at / DISK_SECTOR_SIZE, order);
        }
        at = next;
    }
}

static int64_t apply_name(struct disk *disk, const char *name, int file, int64_t with)
{
    struct item *item = add_item(disk, ITEM_NAME, file);
    snprintf(item->name, sizeof item->name, "%s", name);
    item->with = with;
    int64_t order = item->order;
    find_name(disk, name)->current = file;
    return order;
}

/* Make an item certain. */
static void settle(struct disk *disk, struct item *item)
{
    struct disk_file *file = item->file == NO_FILE ? NULL : &disk->files[item->file];
    switch (item->kind) {
    case ITEM_SECTOR:
        memcpy(file->durable + item->sector * DISK_SECTOR_SIZE, item->content, DISK_SECTOR_SIZE);
        break;
    case ITEM_SIZE:
        file->durable_size = item->size;
        break;
    case ITEM_NAME:
        find_name(disk, item->name)->durable = item->file;
        break;
    }
    free(item->content);
    item->content = NULL;
}

/* Whether a later item of the same sector, that no failed sync has covered, is there: then the whole
 * sector is written with it. */
static bool is_rewritten(const struct disk *disk, size_t i)
{
    const struct item *item = &disk->items[i];
    for (size_t j = i + 1; j < disk->item_count; j++) {
        const struct item *later = &disk->items[j];
        if (later->kind == ITEM_SECTOR && later->file == item->file &&
            later->sector == item->sector && !later->lost)
            return true;
    }
    return false;
}

/* Settle the sectors and sizes of `file` (NO_FILE: of none), and names and sizes of all files if
 * `metadata`, or names alone if `names`. */
static void settle_matching(struct disk *disk, int file, bool metadata, bool names)
{
    size_t kept = 0;
    for (size_t i = 0; i < disk->item_count; i++) {
        struct item *item = &disk->items[i];
        bool now = false;
        switch (item->kind) {
        case ITEM_SECTOR:
            now = (item->file == file && (!item->lost || is_rewritten(disk, i))) ||
                  (metadata && item->with != NO_ITEM);
            break;
        case ITEM_SIZE:
            now = item->file == file || metadata;
            break;
        case ITEM_NAME:
            now = metadata || names;
            break;
        }
        if (now)
            settle(disk, item);
        else
            disk->items[kept++] = *item;
    }
    disk->item_count = kept;
}

static bool has_metadata(const struct disk *disk, int file)
{
    for (size_t i = 0; i < disk->item_count; i++) {
        if (disk->items[i].kind != ITEM_SECTOR && disk->items[i].file == file)
            return true;
    }
    return false;
}

void disk_apply(struct disk *disk, const struct effect *effect)
{
    int file;
    switch (effect->kind) {
    case EFFECT_WRITE:
    case EFFECT_STORE:
    case EFFECT_SHARED:
        apply_bytes(disk, effect);
        break;
    case EFFECT_SIZE:
        apply_size(disk, effect);
        break;
    case EFFECT_CREATE:
        file = add_file(disk, effect->inode, (uint32_t)effect->offset);
        apply_name(disk, effect->name, file, NO_ITEM);
        break;
    case EFFECT_LINK:
        file = add_file(disk, effect->inode, (uint32_t)effect->offset);
        set_capacity(&disk->files[file], effect->size);
        if (effect->size > 0) {
            memcpy(disk->files[file].durable, effect->bytes, effect->size);
            memcpy(disk->files[file].current, effect->bytes, effect->size);
        }
        disk->files[file].durable_size = disk->files[file].current_size = effect->size;
        apply_name(disk, effect->name, file, NO_ITEM);
        break;
    case EFFECT_RENAME:
        file = find_name(disk, effect->name)->current;
        apply_name(disk, effect->name, NO_FILE, apply_name(disk, effect->to, file, NO_ITEM));
        break;
    case EFFECT_REMOVE:
        apply_name(disk, effect->name, NO_FILE, NO_ITEM);
        break;
    case EFFECT_FILE_SYNC:
        file = find_file(disk, effect->inode);
        settle_matching(disk, file, disk->model == DISK_EXT4 && has_metadata(disk, file), false);
        break;
    case EFFECT_FILE_SYNC_FAILED:
        file = find_file(disk, effect->inode);
        for (size_t i = 0; i < disk->item_count; i++) {
            if (disk->items[i].kind == ITEM_SECTOR && disk->items[i].file == file)
                disk->items[i].lost = true;
        }
        break;
    case EFFECT_DIR_SYNC:
        settle_matching(disk, NO_FILE, disk->model == DISK_EXT4, true);
        break;
    }
}

enum disk_model disk_model_of(const struct disk *disk)
{
    return disk->model;
}

size_t disk_pending(const struct disk *disk)
{
    return disk->item_count;
}

void disk_current(const struct disk *disk, struct image *out)
{
    image_clear(out);
    for (size_t i = 0; i < disk->name_count; i++) {
        const struct disk_name *name = &disk->names[i];
        if (name->current == NO_FILE)
            continue;
        const struct disk_file *file = &disk->files[name->current];
        struct image_file *to = image_add(out, name->name, file->inode, file->mode,
                                          file->current_size);
        to->shared = file->shared;
        if (file->current_size > 0)
            memcpy(to->bytes, file->current, file->current_size);
    }
}

static size_t item_of_order(const struct disk *disk, int64_t order)
{
    for (size_t i = 0; i < disk->item_count; i++) {
        if (disk->items[i].order == order)
            return i;
    }
    return disk->item_count;
}

/* The rules that a choice must keep:
 *   1. DISK_EXT4: sizes and names in order: once one is missing, all later ones are.
 *   2. The zeros of a shrunk file come with the smaller size, or any later size of the file.
 *   3. The old name of a renamed file goes only if the new one is there; in DISK_EXT4 it then does. */
static void correct_choice(const struct disk *disk, bool *keep)
{
    bool ended = false;
    for (size_t i = 0; i < disk->item_count; i++) {
        const struct item *item = &disk->items[i];
        if (item->kind == ITEM_SECTOR)
            continue;
        size_t with = item->with == NO_ITEM ? disk->item_count
                                            : item_of_order(disk, item->with);
        if (disk->model == DISK_EXT4) {
            keep[i] = with < disk->item_count ? keep[with] : keep[i] && !ended;
            ended = ended || !keep[i];
        } else if (with < disk->item_count && !keep[with]) {
            keep[i] = false;
        }
    }
    for (size_t i = 0; i < disk->item_count; i++) {
        const struct item *item = &disk->items[i];
        if (item->kind != ITEM_SECTOR || item->with == NO_ITEM)
            continue;
        keep[i] = item_of_order(disk, item->with) == disk->item_count;
        for (size_t j = 0; j < disk->item_count; j++) {
            const struct item *size = &disk->items[j];
            if (size->kind == ITEM_SIZE && size->file == item->file && size->order >= item->with &&
                keep[j])
                keep[i] = true;
        }
    }
}

static void cut_shared(struct image_file *file, const struct disk_file *from,
                       const struct disk_choice *choice)
{
    uint64_t random = choice->seed ^ from->inode;
    size_t size = file->size < from->current_size ? file->size : from->current_size;
    if (choice->shared == SHARED_CURRENT && size > 0)
        memcpy(file->bytes, from->current, size);
    for (size_t i = 0; choice->shared == SHARED_GARBAGE && i + 8 <= file->size; i += 8) {
        uint64_t word = next_random(&random);
        memcpy(file->bytes + i, &word, 8);
    }
}

/* Lay the kept sectors of file `number` over its durable bytes. */
static void cut_sectors(const struct disk *disk, int number, const struct disk_choice *choice,
                        struct image_file *file)
{
    for (size_t i = 0; i < disk->item_count; i++) {
        const struct item *item = &disk->items[i];
        uint64_t at = item->sector * DISK_SECTOR_SIZE;
        if (item->kind != ITEM_SECTOR || item->file != number || !choice->keep[i] ||
            at >= file->size)
            continue;
        size_t size = DISK_SECTOR_SIZE, skip = 0;
        if (choice->torn == i + 1) {
            skip = choice->torn_tail ? DISK_SECTOR_SIZE - choice->torn_size : 0;
            size = choice->torn_size;
        }
        if (at + skip >= file->size)
            continue;
        if (at + skip + size > file->size)
            size = (size_t)(file->size - at - skip);
        memcpy(file->bytes + at + skip, item->content + skip, size);
    }
}

void disk_cut(const struct disk *disk, struct disk_choice *choice, struct image *out)
{
    image_clear(out);
    correct_choice(disk, choice->keep);
    for (size_t n = 0; n < disk->name_count; n++) {
        const struct disk_name *name = &disk->names[n];
        int number = name->durable;
        for (size_t i = 0; i < disk->item_count; i++) {
            const struct item *item = &disk->items[i];
            if (item->kind == ITEM_NAME && choice->keep[i] && strcmp(item->name, name->name) == 0)
                number = item->file;
        }
        if (number == NO_FILE)
            continue;
        const struct disk_file *from = &disk->files[number];
        if (from->shared && choice->shared == SHARED_MISSING)
            continue;
        uint64_t size = from->durable_size;
        for (size_t i = 0; i < disk->item_count; i++) {
            const struct item *item = &disk->items[i];
            if (item->kind == ITEM_SIZE && item->file == number && choice->keep[i])
                size = item->size;
        }
        struct image_file *file = image_add(out, name->name, from->inode, from->mode, size);
        file->shared = from->shared;
        if (from->shared) {
            cut_shared(file, from, choice);
            continue;
        }
        uint64_t known = size < from->durable_size ? size : from->durable_size;
        if (known > 0)
            memcpy(file->bytes, from->durable, known);
        cut_sectors(disk, number, choice, file);
    }
}
