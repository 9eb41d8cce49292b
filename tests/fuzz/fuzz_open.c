/* fuzz_open.c -- a store whose files were damaged or made up, on the simulated machine: opened as it
 * is and with `repair`, read by every call, written to, closed, opened again.
 *
 * Input: a byte of flags, a byte that says which files are missing, then patches of the files of a
 * good store. The good store is made once: segments that were sealed and one that is active,
 * batches, tombstones, an expiry, a checkpoint, a manifest, a keydir; after a close or a kill.
 *
 * Checked: nothing crashes, hangs, or stays open or allocated. Unless checksums were made right
 * behind a patch, no key yields a value that was never stored under it, and what is written is
 * there at once and after the next open. */
#include "check.h"
#include "fuzz.h"
#include "reseal.h"
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum flag { FLAG_KILLED = 1, FLAG_REBOOT = 2, FLAG_PREAD = 4, FLAG_RESEAL = 8, FLAG_READ_ONLY = 16, FLAG_COMMIT = 32 };
enum { STAGE_BOOT = 9, RECORDS_MAX = 256 };

static struct script script;
static struct stage {
    struct image image;
    struct state state;                 /* what it holds undamaged */
} stages[2];                            /* closed, killed */
static struct places { uint64_t count, offset[RECORDS_MAX]; } places[2][32];   /* records of each file */

/* ---- The good store ---- */

static void checkpoint(struct pykv_store *store)
{
    bool died;
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    FUZZ_CHECK(checkpoint_write(store) == PYKV_OK, "%s", pykv_last_error()->message);
    shared_lock_release(&store->shared->maintain, &store->process);
}

static void find_records(const struct image_file *file, struct places *out)
{
    struct record record;
    out->count = 0;
    for (uint64_t at = SEGMENT_HEADER_SIZE; at < file->size && out->count < RECORDS_MAX; at += record.size) {
        if (record_decode(file->bytes + at, file->size - at, &record) != PYKV_OK)
            break;
        out->offset[out->count++] = at;
    }
}

static void save(struct sim *sim, unsigned number, const struct state *state)
{
    sim_save(sim, STORE_PATH, &stages[number].image);
    stages[number].state = *state;
    for (size_t i = 0; i < stages[number].image.count; i++)
        if (strncmp(stages[number].image.files[i].name, "segment-", 8) == 0)
            find_records(&stages[number].image.files[i], &places[number][i]);
}

/* A reboot every few steps seals a segment, however short it is, so that the store stays small. */
static void make_stages(void)
{
    struct sim *sim = sim_new(1);
    struct pykv_store *store = NULL;
    struct state state;
    struct reason reason = { "" };
    bool durable;
    script_make(&script, 4, FLAVOUR_MIXED);
    script.options.segment_size = 65536;
    script.options.io = PYKV_IO_MMAP;
    for (uint32_t i = 0; i < script.step_count; i++) {
        if (i % 6 == 0) {
            pykv_free(store);
            sim_set_boot(sim, STAGE_BOOT - script.step_count / 6 + i / 6);
            FUZZ_CHECK(pykv_open_with(sim_os(sim), STORE_PATH, &script.options, &store) == PYKV_OK, "%s",
                       pykv_last_error()->message);
        }
        FUZZ_CHECK(script_do(&script, i, sim_os(sim), &store, &durable) == PYKV_OK, "%s", pykv_last_error()->message);
        if (i == 4 || i == script.step_count - 8)
            checkpoint(store);
    }
    sim_set_boot(sim, STAGE_BOOT);
    pykv_free(store);
    FUZZ_CHECK(pykv_open_with(sim_os(sim), STORE_PATH, &script.options, &store) == PYKV_OK, "%s", pykv_last_error()->message);
    for (uint32_t i = 0; i < script.value_count; i++) {     /* one with an expiry, not yet reached */
        const struct bytes *key = &script.keys[script.value_key[i]], *value = &script.values[i];
        if (value->size < 100 && script.value_key[i] == 5)
            FUZZ_CHECK(pykv_put(store, key->bytes, key->size, value->bytes, value->size, UINT64_C(1) << 42,
                                PYKV_DURABILITY_DEFAULT, NULL) == PYKV_OK, "%s", pykv_last_error()->message);
    }
    FUZZ_CHECK(read_state(&script, store, &state, &reason), "%s", reason.text);
    save(sim, 1, &state);
    FUZZ_CHECK(pykv_close(store) == PYKV_OK, "%s", pykv_last_error()->message);
    pykv_free(store);
    save(sim, 0, &state);
    sim_free(sim);
}

/* ---- Damage ---- */

static uint64_t place(struct input *input, const struct image_file *file, const struct places *records)
{
    uint64_t how = input_number(input, 1);
    if (file->size == 0)
        return 0;
    if (how % 4 == 1)                   /* at the end */
        return file->size - 1 - how / 4 % file->size;
    if (how % 4 == 2 && records->count > 0)     /* a field of a record */
        return records->offset[input_number(input, 1) % records->count] + how / 4 % 32;
    return how % 4 == 3 ? how / 4 : input_number(input, 3) % file->size;
}

static void patch(struct input *input, struct image *image, const struct places *records, bool *keydir)
{
    uint64_t what = input_number(input, 1);
    struct image_file *file = &image->files[input_number(input, 1) % image->count];
    *keydir = *keydir || strcmp(file->name, KEYDIR_NAME) == 0;
    records += file - image->files;
    uint64_t at = place(input, file, records);
    size_t size = 1 + what / 8;
    const uint8_t *bytes;
    switch (what % 8) {
    case 0:
        image_set_size(file, at);
        break;
    case 1:
        image_set_size(file, file->size + input_number(input, 2));
        break;
    case 2: {                           /* bytes of another place */
        struct image_file *from = &image->files[input_number(input, 1) % image->count];
        uint64_t source = place(input, from, records + (from - file));
        for (uint64_t i = 0; i < size * 16 && at + i < file->size && source + i < from->size; i++)
            file->bytes[at + i] = from->bytes[source + i];
        break;
    }
    case 3: {                           /* another number in its name */
        unsigned long long number = input_number(input, 1 + (unsigned)what / 8 % 8);
        if (strchr(file->name, '-') != NULL)
            snprintf(strchr(file->name, '-'), 24, "-%010llu", number);
        break;
    }
    case 4:                             /* a little more or less */
        if (at < file->size)
            file->bytes[at] = (uint8_t)(file->bytes[at] + (int8_t)input_number(input, 1));
        break;
    default:
        bytes = input_bytes(input, &size);
        for (uint64_t i = 0; i < size && at + i < file->size; i++)
            file->bytes[at + i] = bytes[i];
    }
}

static void reseal(struct image_file *file)
{
    if (strncmp(file->name, "segment-", 8) == 0)
        reseal_segment(file->bytes, file->size);
    else if (strncmp(file->name, "checkpoint-", 11) == 0)
        reseal_checkpoint(file->bytes, file->size);
    else if (strcmp(file->name, MANIFEST_NAME) == 0)
        reseal_manifest(file->bytes, file->size);
    else if (strcmp(file->name, KEYDIR_NAME) == 0)
        reseal_keydir(file->bytes, file->size);
}

static bool is_forged(struct image *image, const struct stage *stage)
{
    for (size_t i = 0; i < image->count; i++) {
        const struct image_file *file = &image->files[i], *pristine;
        if (strncmp(file->name, "segment-", 8) != 0)
            continue;
        if ((pristine = image_find((struct image *)&stage->image, file->name)) == NULL ||
            segment_is_forged(file->bytes, file->size, pristine->bytes, pristine->size))
            return true;
    }
    return false;
}

/* Two files may have got one name: the first stays. */
static void drop_files(struct image *image, uint64_t which)
{
    static const char *const prefixes[] = { "manifest", "keydir", "lock", "checkpoint-", "segment-0000000001" };
    for (size_t i = image->count; i-- > 0;) {
        bool drop = image_find(image, image->files[i].name) != &image->files[i];
        for (unsigned j = 0; j < 5; j++)
            drop = drop || ((which >> j & 1) != 0 && strncmp(image->files[i].name, prefixes[j], strlen(prefixes[j])) == 0);
        if (drop)
            image_remove(image, &image->files[i]);
    }
}

/* ---- Using it ---- */

struct use {
    bool honest;        /* no checksum was made right behind a patch */
    bool trusted;       /* nor is the keydir one that was patched */
    const struct state *state;          /* what it must hold, if it is undamaged */
};

static uint8_t buffer[1u << 21];

static void check_value(const struct use *use, uint32_t key, const uint8_t *bytes, size_t size)
{
    if (use->honest)
        FUZZ_CHECK(find_value(&script, key, bytes, size) != (int32_t)VALUES_MAX, "key %u never had this value of %zu bytes",
                   key, size);
}

static void read_keys(const struct use *use, struct pykv_store *store)
{
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        const struct bytes *bytes = &script.keys[key];
        uint64_t version;
        int64_t size = pykv_get(store, bytes->bytes, bytes->size, buffer, sizeof buffer, &version);
        int32_t value = ABSENT;
        if (size >= 0 && (uint64_t)size <= sizeof buffer)
            check_value(use, key, buffer, (size_t)size);
        if (size >= 0)
            value = find_value(&script, key, buffer, (size_t)size);
        if (use->state != NULL)
            FUZZ_CHECK((size >= 0 || size == -1000 + PYKV_NOT_FOUND) && value == use->state->value[key],
                       "key %u has value %d (size %lld), not %d", key, value, (long long)size, use->state->value[key]);
        (void)pykv_contains(store, bytes->bytes, bytes->size, &version);
        const uint8_t *view;
        size_t view_size;
        struct pykv_pin *pin;
        if (pykv_view(store, bytes->bytes, bytes->size, &view, &view_size, &pin) == PYKV_OK) {
            check_value(use, key, view, view_size);
            pykv_view_release(pin);
        }
    }
}

static void scan_keys(const struct use *use, struct pykv_store *store, struct pykv_rows *rows, int mode)
{
    struct pykv_scan *scan = NULL;
    int status = pykv_scan_open(store, NULL, NULL, 0, mode, &scan);
    for (unsigned rounds = 0; status == PYKV_OK && (status = pykv_scan_next(scan, rows)) == PYKV_OK; rounds++) {
        size_t size, count = pykv_rows_count(rows);
        const uint8_t *data = pykv_rows_data(rows, &size);
        const char *format = pykv_rows_format(rows, &size);
        FUZZ_CHECK(rounds < 100000, "the scan does not end");
        if (data == NULL)
            data = (const uint8_t *)"";     // rows without a byte: nothing may be added to NULL, not even 0
        for (size_t i = 0; mode == 3 && i + 1 < count; i += 2) {
            char *end;
            size_t key_size = strtoul(format, &end, 10), value_size = strtoul(end + 1, &end, 10);
            uint32_t key = 0;
            format = end + 1;
            while (key < KEY_COUNT && (script.keys[key].size != key_size ||
                                       (key_size > 0 && memcmp(script.keys[key].bytes, data, key_size) != 0)))
                key++;
            if (use->honest)
                FUZZ_CHECK(key < KEY_COUNT, "the scan yields a key that was never put");
            if (key < KEY_COUNT)
                check_value(use, key, data + key_size, value_size);
            data += key_size + value_size;
        }
    }
    pykv_scan_close(scan);
}

static void read_all(const struct use *use, struct pykv_store *store)
{
    static struct pykv_report report;
    struct pykv_rows *rows = pykv_rows_new();
    struct pykv_stats stats;
    uint64_t count;
    uint32_t sizes[KEY_COUNT];
    uint8_t present[KEY_COUNT];
    static uint8_t keys[KEY_COUNT * 1024];
    size_t at = 0;
    FUZZ_CHECK(rows != NULL, "out of memory");
    read_keys(use, store);
    for (uint32_t i = 0; i < KEY_COUNT; at += sizes[i++]) {
        sizes[i] = (uint32_t)script.keys[i].size;
        memcpy(keys + at, script.keys[i].bytes, sizes[i]);
    }
    (void)pykv_get_many(store, KEY_COUNT, keys, sizes, rows);
    (void)pykv_contains_many(store, KEY_COUNT, keys, sizes, present);
    scan_keys(use, store, rows, 3);
    (void)pykv_count(store, &count);
    (void)pykv_stats(store, &stats);
    int status = pykv_verify(store, &report);
    if (use->state != NULL)
        FUZZ_CHECK(status == PYKV_OK, "verify: %s", pykv_last_error()->message);
    pykv_rows_free(rows);
}

/* Each write that succeeds can be read at once. The values are ones that their keys had before. */
struct written { int status; int32_t value; };

static void write_some(const struct use *use, struct pykv_store *store, struct written out[KEY_COUNT])
{
    for (uint32_t key = 0; key < KEY_COUNT; key++)
        out[key] = (struct written){ .status = PYKV_NOT_FOUND };
    for (uint32_t i = 0; i < script.value_count; i++) {
        uint32_t key = script.value_key[i];
        const struct bytes *name = &script.keys[key], *value = &script.values[i];
        if (out[key].status == PYKV_OK || value->size > 2000 || key % 2 != 0)
            continue;
        out[key].value = (int32_t)i;
        out[key].status = pykv_put(store, name->bytes, name->size, value->bytes, value->size, 0, PYKV_DURABILITY_DEFAULT, NULL);
    }
    const uint8_t ops[2] = { PYKV_DELETE, PYKV_DELETE };
    const uint32_t sizes[2] = { (uint32_t)script.keys[3].size, (uint32_t)script.keys[7].size };
    memcpy(buffer, script.keys[3].bytes, sizes[0]);
    memcpy(buffer + sizes[0], script.keys[7].bytes, sizes[1]);
    out[3].status = out[7].status = pykv_write(store, 2, ops, buffer, sizes, NULL, NULL, NULL, PYKV_DURABILITY_DEFAULT,
                                               NULL, NULL, NULL);
    out[3].value = out[7].value = ABSENT;
    (void)pykv_delete(store, script.keys[9].bytes, script.keys[9].size, PYKV_DURABILITY_DEFAULT);
    (void)pykv_sync(store);
    (void)use;
}

static void check_written(const struct use *use, struct pykv_store *store, const struct written written[KEY_COUNT],
                          const char *when)
{
    for (uint32_t key = 0; use->trusted && key < KEY_COUNT; key++) {
        const struct bytes *name = &script.keys[key];
        if (written[key].status != PYKV_OK)
            continue;
        int64_t size = pykv_get(store, name->bytes, name->size, buffer, sizeof buffer, NULL);
        int32_t value = size >= 0 ? find_value(&script, key, buffer, (size_t)size) : ABSENT;
        /* A record that nobody can read may be that of a key which is gone: then no answer is given. */
        if (written[key].value == ABSENT && size == -1000 + PYKV_CORRUPT)
            continue;
        FUZZ_CHECK((size >= 0 || size == -1000 + PYKV_NOT_FOUND) && value == written[key].value,
                   "key %u was written as v%d and %s is v%d (size %lld, %s)", key, written[key].value, when, value,
                   (long long)size, size < 0 ? pykv_last_error()->message : "");
    }
}

static void check_nothing_left(struct sim *sim, const char *when)
{
    struct sim_usage usage = sim_usage(sim);
    FUZZ_CHECK(usage.descriptors + usage.mappings + usage.allocations + usage.locks == 0,
               "%s %llu descriptors, %llu mappings, %llu allocations, %llu locks are left", when,
               (unsigned long long)usage.descriptors, (unsigned long long)usage.mappings,
               (unsigned long long)usage.allocations, (unsigned long long)usage.locks);
}

static void use_store(struct use use, const struct image *image, uint64_t flags, bool repair)
{
    struct sim *sim = sim_new(5);
    struct pykv_store *store = NULL;
    struct pykv_options options = script.options;
    struct written written[KEY_COUNT];
    bool read_only = (flags & FLAG_READ_ONLY) != 0;
    options.repair = repair;
    options.flag = read_only ? PYKV_FLAG_READ : PYKV_FLAG_WRITE;
    options.io = (flags & FLAG_PREAD) != 0 ? PYKV_IO_PREAD : PYKV_IO_MMAP;
    options.durability = (flags & FLAG_COMMIT) != 0 ? PYKV_DURABILITY_COMMIT : PYKV_DURABILITY_PROCESS;
    sim_set_boot(sim, (flags & FLAG_REBOOT) != 0 ? STAGE_BOOT + 1 : STAGE_BOOT);
    sim_load(sim, STORE_PATH, image);
    int status = pykv_open_with(sim_os(sim), STORE_PATH, &options, &store);
    FUZZ_CHECK(status <= PYKV_OK, "open: %d", status);
    if (use.state != NULL)
        FUZZ_CHECK(status == PYKV_OK, "open: %d %s", status, pykv_last_error()->message);
    if (status != PYKV_OK) {
        check_nothing_left(sim, "after a failing open");
        sim_free(sim);
        return;
    }
    read_all(&use, store);
    if (!read_only) {
        write_some(&use, store, written);
        check_written(&use, store, written, "at once");
        use.state = NULL;
    }
    status = pykv_close(store);
    pykv_free(store);
    store = NULL;
    check_nothing_left(sim, "after close");
    int again = PYKV_OK;
    options.repair = 0;
    if (use.trusted && status == PYKV_OK && !read_only) {
        again = pykv_open_with(sim_os(sim), STORE_PATH, &options, &store);
        FUZZ_CHECK(again == PYKV_OK, "opened, written, closed, and now: %d %s", again, pykv_last_error()->message);
        check_written(&use, store, written, "after the next open");
    } else {
        again = pykv_open_with(sim_os(sim), STORE_PATH, &options, &store);
    }
    if (again == PYKV_OK)
        read_keys(&use, store);
    pykv_free(store);
    check_nothing_left(sim, "after the next close");
    sim_free(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct image image;
    if (script.step_count == 0)
        make_stages();
    struct input input = { bytes, size };
    uint64_t flags = input_number(&input, 1), missing = input_number(&input, 1);
    unsigned number = (flags & FLAG_KILLED) != 0;
    const struct stage *stage = &stages[number];
    bool keydir = false;

    image_copy(&image, &stage->image);
    for (unsigned patches = 0; input.size > 0 && patches < 32; patches++)
        patch(&input, &image, places[number], &keydir);
    for (size_t i = 0; i < image.count && (flags & FLAG_RESEAL) != 0; i++)
        reseal(&image.files[i]);
    drop_files(&image, missing);

    /* FUZZ_TELL=1 target input: which bytes of which files that comes to. */
    for (size_t i = 0; i < image.count && getenv("FUZZ_TELL") != NULL; i++) {
        const struct image_file *file = &image.files[i], *old = image_find(&stages[number].image, file->name);
        fprintf(stderr, "%s: %llu bytes\n", file->name, (unsigned long long)file->size);
        for (uint64_t at = 0; old != NULL && at < file->size && at < old->size; at++)
            if (file->bytes[at] != old->bytes[at])
                fprintf(stderr, "  %llu: %02x -> %02x\n", (unsigned long long)at, old->bytes[at], file->bytes[at]);
    }
    bool whole = image_hash(&image, true) == image_hash(&stage->image, true);
    struct use use = { .honest = whole || !is_forged(&image, stage), .state = whole ? &stage->state : NULL };
    use.trusted = use.honest && (!keydir || (flags & FLAG_REBOOT) != 0);
    use_store(use, &image, flags, false);
    use.trusted = use.honest;           /* to repair is to build the keydir anew */
    use_store(use, &image, flags, true);
    return 0;
}

size_t fuzz_seed(unsigned number, uint8_t out[FUZZ_SEED_SIZE_MAX])
{
    static const uint8_t patches[][12] = {      /* of file 0, and of those behind it by turns */
        { 0 }, { 5, 0, 2, 1, 255 }, { 4, 0, 3, 1 }, { 0, 0, 1 }, { 2, 0, 0, 0, 1, 0, 1, 0, 64, 2 }, { 13, 0, 67, 9, 9 },
    };
    unsigned file = number / 64, flags = number % 64;
    if (file > 7)
        return 0;
    if (number % 64 >= 8)           /* a few for each file: flags are easily flipped */
        flags = number % 8 * 7;
    const uint8_t *from = patches[number % 6];
    out[0] = (uint8_t)flags;
    out[1] = (uint8_t)(number % 5 == 4 ? 1u << file % 5 : 0);
    memcpy(out + 2, from, 12);
    out[3] = (uint8_t)file;
    return number % 6 == 0 ? 2 : 14;
}
