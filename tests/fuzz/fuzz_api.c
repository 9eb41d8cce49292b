/* fuzz_api.c -- any series of calls, beside a model of what a store is: a table of keys, each with a
 * value, an expiry and a version; snapshots and scans are copies of it. On the simulated machine, so that clocks move and machines reboot.
 *
 * Input: a byte of options, then operations until it ends.
 * Checked: every status, value, version, count and scan is the model's, also after a close, a kill, a
 * reboot, and a reboot that finds no manifest and no checkpoint. */
#include "fuzz.h"
#include "pykv.h"
#include "sim_os.h"
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 20, OPERATIONS_MAX = 200, BATCH_MAX = 12, SCANS = 2, VALUE_SIZE_MAX = 80000 };

struct value {
    bool present;               /* written and not deleted; it may have expired */
    uint32_t size, seed;        /* its bytes follow from these */
    uint64_t expiry, version;   /* version: of the batch that wrote it, or deleted it */
};

struct snapshot {
    struct pykv_snapshot *snapshot;
    struct value then[KEYS];
    struct pykv_instant instant;
};

struct scan {
    struct pykv_scan *scan;
    struct value then[KEYS];    /* as of its instant; `present` goes when a key has been yielded */
    uint64_t then_ms;
    uint8_t prefix[4];
    size_t prefix_size;
};

static uint8_t keys[KEYS][70000];
static uint32_t key_sizes[KEYS];
static uint8_t bytes[BATCH_MAX * VALUE_SIZE_MAX], key_bytes[BATCH_MAX * 70000], got[VALUE_SIZE_MAX];

static struct sim *sim;
static struct pykv_store *store;
static struct pykv_options options;
static uint64_t boot, version;
static struct value model[KEYS];
static struct scan scans[SCANS];
static struct snapshot past;

/* ---- The model ---- */

static void make_keys(void)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        key_sizes[i] = i == 0 ? 0 : i == 1 ? 65535 : i == 2 ? 300 : 1 + i % 7;
        for (uint32_t j = 0; j < key_sizes[i]; j++)
            keys[i][j] = (uint8_t)(j == 0 ? 'a' + i % 3 : 'a' + i);
    }
}

/* Numbers, for the sake of pykv_incr(), and other bytes. */
static void value_bytes(const struct value *value, uint8_t *out)
{
    char text[16];
    int size = snprintf(text, sizeof text, "%d", (int)(value->seed % 2001) - 1000);
    for (uint32_t i = 0; i < value->size; i++)
        out[i] = i < (uint32_t)size ? (uint8_t)text[i] : (uint8_t)(value->seed + i * 7);
}

static struct value pick_value(struct input *input)
{
    uint64_t kind = input_number(input, 1), seed = input_number(input, 2);
    struct value value = { .present = true, .seed = (uint32_t)seed };
    value.size = kind < 100 ? 1 + (uint32_t)kind % 40 : kind < 180 ? (uint32_t)kind * 20 : kind < 250 ? 0 : 70000;
    if (kind % 4 == 0 && kind < 100)    /* a number and nothing behind it */
        value.size = (uint32_t)snprintf(NULL, 0, "%d", (int)(seed % 2001) - 1000);
    uint64_t expiry = input_number(input, 1);
    if (expiry >= 200)
        value.expiry = sim_os(sim)->wall_ms(sim_os(sim)) + (expiry - 210) * 100;
    return value;
}

static bool alive(const struct value *value, uint64_t now)
{
    return value->present && (value->expiry == 0 || value->expiry > now);
}

static uint64_t now_ms(void) { return sim_os(sim)->wall_ms(sim_os(sim)); }

static void check_status(const char *what, int status, int expected)
{
    FUZZ_CHECK(status == expected, "%s: %d, not %d; %s", what, status, expected, status < 0 ? pykv_last_error()->message : "");
}

static void check_value(uint32_t key, const struct value *value, const uint8_t *data, size_t size)
{
    static uint8_t expected[VALUE_SIZE_MAX];
    value_bytes(value, expected);
    FUZZ_CHECK(size == value->size && (size == 0 || memcmp(data, expected, size) == 0), "the value of key %u, %zu bytes long", key, size);
}

/* ---- Reading ---- */

static void check_get(uint32_t key)
{
    const struct value *value = &model[key];
    uint64_t told = 0, expiry = 1;
    int64_t size = pykv_get(store, keys[key], key_sizes[key], got, sizeof got, &told);
    bool there = alive(value, now_ms());
    check_status("contains", pykv_contains(store, keys[key], key_sizes[key], &expiry), there ? PYKV_OK : PYKV_NOT_FOUND);
    FUZZ_CHECK((size >= 0) == there, "get of key %u: %lld", key, (long long)size);
    if (!there) {
        FUZZ_CHECK(size == -1000 + PYKV_NOT_FOUND, "get of key %u: %lld %s", key, (long long)size, pykv_last_error()->message);
        return;
    }
    check_value(key, value, got, (size_t)size);
    FUZZ_CHECK(told == value->version, "key %u has the version %llu, not %llu", key, (unsigned long long)told,
               (unsigned long long)value->version);
    FUZZ_CHECK(expiry == value->expiry, "key %u expires at %llu", key, (unsigned long long)expiry);
    const uint8_t *view;
    size_t view_size;
    struct pykv_pin *pin;
    check_status("view", pykv_view(store, keys[key], key_sizes[key], &view, &view_size, &pin), PYKV_OK);
    check_value(key, value, view, view_size);
    pykv_view_release(pin);
}

static size_t next_size(const char **format)
{
    char *end;
    size_t size = strtoul(*format, &end, 10);
    *format = end + 1;
    return size;
}

static void check_many(struct input *input)
{
    uint32_t chosen[BATCH_MAX], sizes[BATCH_MAX];
    uint8_t present[BATCH_MAX];
    size_t count = input_number(input, 1) % BATCH_MAX, at = 0, size, missing_count, missing_at = 0;
    for (size_t i = 0; i < count; i++) {
        chosen[i] = (uint32_t)input_number(input, 1) % KEYS;
        sizes[i] = key_sizes[chosen[i]];
        memcpy(key_bytes + at, keys[chosen[i]], sizes[i]);
        at += sizes[i];
    }
    struct pykv_rows *rows = pykv_rows_new();
    FUZZ_CHECK(rows != NULL, "out of memory");
    check_status("get_many", pykv_get_many(store, count, key_bytes, sizes, rows), PYKV_OK);
    check_status("contains_many", pykv_contains_many(store, count, key_bytes, sizes, present), PYKV_OK);
    const uint8_t *data = pykv_rows_data(rows, &size);
    const char *format = pykv_rows_format(rows, &size);
    const uint32_t *missing = pykv_rows_missing(rows, &missing_count);
    FUZZ_CHECK(pykv_rows_count(rows) == count, "%zu rows for %zu keys", pykv_rows_count(rows), count);
    for (size_t i = 0; i < count; i++) {
        bool there = alive(&model[chosen[i]], now_ms());
        bool gone = missing_at < missing_count && missing[missing_at] == i;
        missing_at += gone;
        size = next_size(&format);
        FUZZ_CHECK(gone != there && present[i] == there, "many disagree about key %u", chosen[i]);
        if (there)
            check_value(chosen[i], &model[chosen[i]], data, size);
        data = size > 0 ? data + size : data;       /* NULL if all are empty */
    }
    pykv_rows_free(rows);
}

static void check_counts(void)
{
    uint64_t count = 0, expected = 0;
    struct pykv_stats stats;
    for (uint32_t i = 0; i < KEYS; i++)
        expected += model[i].present;
    check_status("count", pykv_count(store, &count), PYKV_OK);
    FUZZ_CHECK(count == expected, "the count is %llu, not %llu", (unsigned long long)count, (unsigned long long)expected);
    check_status("stats", pykv_stats(store, &stats), PYKV_OK);
    FUZZ_CHECK(stats.version == version, "the version is %llu, not %llu", (unsigned long long)stats.version,
               (unsigned long long)version);
}

static void check_all(void)
{
    static struct pykv_report report;
    for (uint32_t i = 0; i < KEYS; i++)
        check_get(i);
    check_counts();
    check_status("verify", pykv_verify(store, &report), PYKV_OK);
}

/* ---- Scans: what they yield is what was there when they began ---- */

static void scan_close(struct scan *scan)
{
    pykv_scan_close(scan->scan);
    scan->scan = NULL;
}

static void scan_open(struct scan *scan, struct input *input)
{
    static const uint8_t prefixes[4][4] = { "", "a", "b", "cz" };
    if (scan->scan != NULL)
        scan_close(scan);
    uint64_t which = input_number(input, 1) % 8;
    memcpy(scan->prefix, prefixes[which % 4], 4);
    scan->prefix_size = strlen((const char *)scan->prefix);
    bool of_past = which >= 4 && past.snapshot != NULL;
    memcpy(scan->then, of_past ? past.then : model, sizeof model);
    scan->then_ms = of_past ? past.instant.time_ms : now_ms();
    struct pykv_snapshot *snapshot = of_past ? past.snapshot : NULL;
    check_status("scan_open", pykv_scan_open(store, snapshot, scan->prefix, scan->prefix_size, 3, &scan->scan), PYKV_OK);
}

static void scan_next(struct scan *scan)
{
    if (scan->scan == NULL)
        return;
    struct pykv_rows *rows = pykv_rows_new();
    FUZZ_CHECK(rows != NULL, "out of memory");
    int status = pykv_scan_next(scan->scan, rows);
    size_t size, count = status == PYKV_OK ? pykv_rows_count(rows) : 0;
    const uint8_t *data = pykv_rows_data(rows, &size);
    const char *format = pykv_rows_format(rows, &size);
    for (size_t i = 0; i + 1 < count; i += 2) {
        size_t key_size = next_size(&format), value_size = next_size(&format);
        uint32_t key = 0;
        while (key < KEYS && (key_sizes[key] != key_size || (key_size > 0 && memcmp(keys[key], data, key_size) != 0)))
            key++;
        FUZZ_CHECK(key < KEYS && alive(&scan->then[key], scan->then_ms) && key_size >= scan->prefix_size &&
                   memcmp(keys[key], scan->prefix, scan->prefix_size) == 0, "the scan yields key %u", key);
        check_value(key, &scan->then[key], value_size > 0 ? data + key_size : NULL, value_size);
        scan->then[key].present = false;
        data = key_size + value_size > 0 ? data + key_size + value_size : data;
    }
    for (uint32_t i = 0; i < KEYS && status == PYKV_NOT_FOUND; i++) {
        bool due = alive(&scan->then[i], scan->then_ms) && key_sizes[i] >= scan->prefix_size &&
                   memcmp(keys[i], scan->prefix, scan->prefix_size) == 0;
        FUZZ_CHECK(!due, "the scan does not yield key %u", i);
    }
    FUZZ_CHECK(status >= 0, "scan_next: %d %s", status, pykv_last_error()->message);
    if (status == PYKV_NOT_FOUND)
        scan_close(scan);
    pykv_rows_free(rows);
}

/* ---- What the store does by itself: what has expired goes, in some batches ---- */

static void note_removed(void)
{
    uint64_t now = shared_sequence(store->shared), removed = 0;
    for (uint32_t i = 0; i < KEYS && now != version; i++) {
        struct log_reader reader;
        struct record record;
        if (!model[i].present || alive(&model[i], now_ms()))
            continue;
        log_reader_init(&reader, store->os);
        bool gone = store_find(store, now, hash_bytes(&store->hash_key, keys[i], key_sizes[i]), keys[i], key_sizes[i], &reader,
                               &record) == PYKV_NOT_FOUND;
        log_reader_release(&reader);
        removed += gone;
        if (gone)
            model[i] = (struct value){ .present = false, .version = now };
    }
    FUZZ_CHECK(now >= version && now - version <= removed, "%llu batches removed %llu keys", (unsigned long long)(now - version),
               (unsigned long long)removed);
    version = now;
}

/* ---- Snapshots ---- */

static void snapshot_open(void)
{
    if (past.snapshot == NULL)
        check_status("snapshot_open", pykv_snapshot_open(store, &past.snapshot), PYKV_OK);
    else
        check_status("snapshot_renew", pykv_snapshot_renew(past.snapshot), PYKV_OK);
    note_removed();                     /* when the one before was let go */
    memcpy(past.then, model, sizeof model);
    pykv_snapshot_instant(past.snapshot, &past.instant);
    FUZZ_CHECK(past.instant.version == version && past.instant.time_ms == now_ms(), "the instant is version %llu",
               (unsigned long long)past.instant.version);
}

static void snapshot_close(void)
{
    pykv_snapshot_free(past.snapshot);
    past.snapshot = NULL;
}

static void snapshot_read(void)
{
    for (uint32_t key = 0; key < KEYS && past.snapshot != NULL; key++) {
        const struct value *value = &past.then[key];
        bool there = alive(value, past.instant.time_ms);
        uint64_t told = 0;
        int64_t size = pykv_snapshot_get(past.snapshot, keys[key], key_sizes[key], got, sizeof got, &told);
        FUZZ_CHECK(there ? size >= 0 && told == value->version : size == -1000 + PYKV_NOT_FOUND,
                   "the snapshot's get of key %u: %lld", key, (long long)size);
        if (there)
            check_value(key, value, got, (size_t)size);
    }
}

/* Whether a key with this prefix was written or deleted since the snapshot. */
static bool prefix_unchanged(const uint8_t *prefix, size_t size)
{
    for (uint32_t i = 0; i < KEYS; i++)
        if (key_sizes[i] >= size && memcmp(keys[i], prefix, size) == 0 && model[i].version > past.instant.version)
            return false;
    return true;
}

/* ---- Writing ---- */

static int pick_durability(struct input *input)
{
    uint64_t kind = input_number(input, 1);
    return kind == 255 ? PYKV_DURABILITY_COMMIT : PYKV_DURABILITY_DEFAULT;
}

static void put(struct input *input)
{
    uint32_t key = (uint32_t)input_number(input, 1) % KEYS;
    struct value value = pick_value(input);
    uint64_t told = 0;
    value_bytes(&value, bytes);
    check_status("put", pykv_put(store, keys[key], key_sizes[key], bytes, value.size, value.expiry, pick_durability(input), &told),
                 PYKV_OK);
    value.version = ++version;
    FUZZ_CHECK(told == version, "a put got the version %llu", (unsigned long long)told);
    model[key] = value;
}

/* As another store had it: the version jumps ahead, or is refused. */
static void load(struct input *input)
{
    uint32_t key = (uint32_t)input_number(input, 1) % KEYS;
    struct value value = pick_value(input);
    uint64_t ahead = input_number(input, 1) % 9;
    value_bytes(&value, bytes);
    value.version = version + ahead;
    int status = pykv_load(store, value.version, 1, keys[key], &key_sizes[key], bytes, &value.size, &value.expiry,
                           pick_durability(input));
    check_status("load", status, value.version == 0 ? PYKV_INVALID : ahead == 0 ? PYKV_CONFLICT : PYKV_OK);
    if (status != PYKV_OK)
        return;
    version = value.version;
    model[key] = value;
}

static void delete(struct input *input)
{
    uint32_t key = (uint32_t)input_number(input, 1) % KEYS;
    int status = pykv_delete(store, keys[key], key_sizes[key], pick_durability(input));
    check_status("delete", status, alive(&model[key], now_ms()) ? PYKV_OK : PYKV_NOT_FOUND);
    if (model[key].present)             /* of what has expired a tombstone is written, too */
        model[key].version = ++version;
    model[key].present = false;
}

static bool expectation_holds(uint8_t op, uint32_t key, const struct value *other, uint64_t number)
{
    static uint8_t is[VALUE_SIZE_MAX], wanted[VALUE_SIZE_MAX];
    const struct value *now = &model[key];
    bool there = alive(now, now_ms());
    if (op == PYKV_EXPECT_UNCHANGED)
        return there && now->version <= number;
    if (op == PYKV_EXPECT_PREFIX_UNCHANGED)
        return prefix_unchanged(keys[key], key_sizes[key]);
    if (op == PYKV_EXPECT_PRESENT || op == PYKV_EXPECT_ABSENT)
        return there == (op == PYKV_EXPECT_PRESENT);
    if (op == PYKV_EXPECT_VERSION)
        return number == (there ? now->version : 0);
    value_bytes(now, is);
    value_bytes(other, wanted);
    return there && now->size == other->size && (now->size == 0 || memcmp(is, wanted, now->size) == 0);
}

static void batch(struct input *input)
{
    uint8_t ops[BATCH_MAX];
    uint32_t sizes[BATCH_MAX], value_sizes[BATCH_MAX], chosen[BATCH_MAX];
    uint64_t numbers[BATCH_MAX], deleted = 0, told = 0, expected_deleted = 0;
    struct value values[BATCH_MAX], after[KEYS];
    size_t count = input_number(input, 1) % BATCH_MAX, key_at = 0, value_at = 0, failed = BATCH_MAX, first = BATCH_MAX;
    bool named[KEYS] = { false }, writes = false;
    for (size_t i = 0; i < count; i++) {
        uint64_t op = input_number(input, 1);
        ops[i] = op < 128 ? (uint8_t)(op % 2) : (uint8_t)(op % 8);
        if (ops[i] == PYKV_EXPECT_PREFIX_UNCHANGED && past.snapshot == NULL)
            ops[i] = PYKV_EXPECT_UNCHANGED;
        chosen[i] = (uint32_t)input_number(input, 1) % KEYS;
        values[i] = (struct value){ .present = false };
        numbers[i] = 0;
        if (ops[i] == PYKV_PUT)
            values[i] = pick_value(input);
        if (ops[i] == PYKV_EXPECT_VALUE)        /* what it has, or nearly */
            values[i] = model[chosen[i]], values[i].seed += (uint32_t)input_number(input, 1) / 128;
        if (ops[i] == PYKV_PUT)
            numbers[i] = values[i].expiry;
        if (ops[i] == PYKV_EXPECT_PREFIX_UNCHANGED)
            numbers[i] = past.instant.position;
        if (ops[i] == PYKV_EXPECT_VERSION || ops[i] == PYKV_EXPECT_UNCHANGED)
            numbers[i] = input_number(input, 1) < 128 ? model[chosen[i]].version : version;
        sizes[i] = key_sizes[chosen[i]];
        value_sizes[i] = values[i].size;
        memcpy(key_bytes + key_at, keys[chosen[i]], sizes[i]);
        value_bytes(&values[i], bytes + value_at);
        key_at += sizes[i];
        value_at += value_sizes[i];
        if (ops[i] > PYKV_DELETE && first == BATCH_MAX && !expectation_holds(ops[i], chosen[i], &values[i], numbers[i]))
            first = i;
    }
    int status = pykv_write(store, count, ops, key_bytes, sizes, bytes, value_sizes, numbers, pick_durability(input), &failed,
                            &deleted, &told);
    if (first != BATCH_MAX) {
        check_status("write", status, PYKV_CONFLICT);
        FUZZ_CHECK(failed == first, "the precondition %zu failed, not %zu", failed, first);
        return;
    }
    check_status("write", status, PYKV_OK);
    memcpy(after, model, sizeof model);
    for (size_t i = count; i-- > 0;) {          /* the last of a key wins */
        if (ops[i] > PYKV_DELETE || named[chosen[i]])
            continue;
        named[chosen[i]] = true;
        writes = writes || ops[i] == PYKV_PUT || model[chosen[i]].present;
        expected_deleted += ops[i] == PYKV_DELETE && alive(&model[chosen[i]], now_ms());
        if (ops[i] == PYKV_DELETE && !model[chosen[i]].present)
            continue;           /* nothing is written */
        values[i].version = version + 1;
        after[chosen[i]] = values[i];
    }
    version += writes;
    memcpy(model, after, sizeof model);
    FUZZ_CHECK(deleted == expected_deleted, "%llu deleted, not %llu", (unsigned long long)deleted,
               (unsigned long long)expected_deleted);
    FUZZ_CHECK(told == version, "a batch got the version %llu", (unsigned long long)told);
}

/* The text of a value as a number, by the words of pykv.h. */
static bool number_of(const struct value *value, int64_t *out)
{
    char text[24] = "", again[24];
    if (value->size == 0 || value->size >= sizeof text)
        return false;
    value_bytes(value, (uint8_t *)text);
    *out = strtoll(text, NULL, 10);
    snprintf(again, sizeof again, "%lld", (long long)*out);
    return strlen(again) == value->size && memcmp(text, again, value->size) == 0;
}

static void incr(struct input *input)
{
    uint32_t key = (uint32_t)input_number(input, 1) % KEYS;
    int64_t by = (int8_t)input_number(input, 1), sum = 0, old = 0, expected;
    bool set = input_number(input, 1) >= 200, there = alive(&model[key], now_ms());
    uint64_t expiry = set ? now_ms() + input_number(input, 1) * 10 : 0;
    if (by == 127)
        by = INT64_MAX;
    bool number = !there || number_of(&model[key], &old);
    int status = pykv_incr(store, keys[key], key_sizes[key], by, set, expiry, PYKV_DURABILITY_DEFAULT, &sum);
    if (!number || __builtin_add_overflow(old, by, &expected)) {
        check_status("incr", status, PYKV_NOT_A_NUMBER);
        return;
    }
    check_status("incr", status, PYKV_OK);
    FUZZ_CHECK(sum == expected, "the sum is %lld, not %lld", (long long)sum, (long long)expected);
    expiry = set ? expiry : there ? model[key].expiry : 0;
    model[key] = (struct value){ .present = true, .expiry = expiry, .version = ++version,
                                 .size = (uint32_t)snprintf(NULL, 0, "%lld", (long long)sum) };
    if (sum >= -1000 && sum <= 1000) {          /* a seed says it */
        model[key].seed = (uint32_t)(sum + 1000);
        return;
    }
    /* None does: put something that one can. */
    note_removed();
    struct value zero = { .present = true, .seed = 1000, .size = 1, .version = ++version };
    check_status("put", pykv_put(store, keys[key], key_sizes[key], (const uint8_t *)"0", 1, 0, PYKV_DURABILITY_DEFAULT, NULL), PYKV_OK);
    model[key] = zero;
}

static void expire_key(struct input *input)
{
    uint32_t key = (uint32_t)input_number(input, 1) % KEYS;
    uint64_t when = input_number(input, 1), later = input_number(input, 1) % 2;
    uint64_t expiry = when == 0 ? 0 : now_ms() + when * 20 - 400, before = model[key].expiry;
    bool there = alive(&model[key], now_ms());
    check_status("expire", pykv_expire(store, keys[key], key_sizes[key], expiry, (int)later, pick_durability(input)),
                 there ? PYKV_OK : PYKV_NOT_FOUND);
    bool earlier = before == 0 || (expiry != 0 && expiry < before);
    if (!there || expiry == before || (later != 0 && earlier))
        return;
    model[key].expiry = expiry;
    model[key].version = ++version;
}

static void clear(struct input *input)
{
    bool any = false;
    check_status("clear", pykv_clear(store, pick_durability(input)), PYKV_OK);
    for (uint32_t i = 0; i < KEYS; i++) {
        if (!model[i].present)
            continue;
        any = true;
        model[i] = (struct value){ .present = false, .version = version + 1 };
    }
    version += any;
}

/* ---- Opening again ---- */

static void open_store(void)
{
    sim_set_boot(sim, boot);
    check_status("open", pykv_open_with(sim_os(sim), "/store", &options, &store), PYKV_OK);
}

static void close_scans(void)
{
    snapshot_close();
    for (unsigned i = 0; i < SCANS; i++)
        scan_close(&scans[i]);
}

enum { LOSE_KEYDIR = 1, LOSE_CHECKPOINTS = 2, LOSE_MANIFEST = 4, REBOOT = 8, KILL = 16, PREAD = 32 };

/* A process that was killed leaves all that it acknowledged; what is taken away it can do without. */
static void reopen(uint64_t how)
{
    static struct image image;
    if ((how & LOSE_MANIFEST) != 0)     /* with a keydir nobody misses it but verification */
        how |= LOSE_KEYDIR;
    if ((how & KILL) != 0)
        sim_save(sim, "/store", &image);
    else
        check_status("close", pykv_close(store), PYKV_OK);
    if (how % 2 == 0)
        close_scans();
    pykv_free(store);
    store = NULL;
    close_scans();                      /* may be closed after the store */
    if ((how & KILL) == 0)
        sim_save(sim, "/store", &image);
    for (size_t i = image.count; i-- > 0;) {
        const char *name = image.files[i].name;
        if (((how & LOSE_KEYDIR) != 0 && strcmp(name, KEYDIR_NAME) == 0) ||
            ((how & LOSE_CHECKPOINTS) != 0 && strncmp(name, "checkpoint-", 11) == 0) ||
            ((how & LOSE_MANIFEST) != 0 && strcmp(name, MANIFEST_NAME) == 0))
            image_remove(&image, &image.files[i]);
    }
    sim_load(sim, "/store", &image);
    boot += (how & REBOOT) != 0;
    options.io = (how & PREAD) != 0 ? PYKV_IO_PREAD : PYKV_IO_MMAP;
    open_store();
    check_all();
}

static void checkpoint(void)
{
    bool died;
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    check_status("checkpoint", checkpoint_write(store), PYKV_OK);
    shared_lock_release(&store->shared->maintain, &store->process);
}

static void operate(struct input *input)
{
    uint64_t what = input_number(input, 1), which = what / 16 % SCANS;
    switch (what % 16) {
    case 0: case 1: case 2: put(input); break;
    case 3: delete(input); break;
    case 4: case 5: batch(input); break;
    case 6: incr(input); break;
    case 7:
        if (what < 96)
            check_get((uint32_t)input_number(input, 1) % KEYS);
        else if (what < 176)
            snapshot_read();
        else
            expire_key(input);
        break;
    case 8: check_many(input); break;
    case 9: scan_open(&scans[which], input); break;
    case 10: scan_next(&scans[which]); break;
    case 11: what < 128 ? scan_close(&scans[which]) : what < 224 ? snapshot_open() : snapshot_close(); break;
    case 12: sim_advance_ms(sim, input_number(input, 1) * 20); break;
    case 13: what < 128 ? load(input) : check_status("sync", pykv_sync(store), PYKV_OK); break;
    case 14: what < 128 ? clear(input) : checkpoint(); break;
    default: reopen(input_number(input, 1)); break;
    }
    note_removed();
}

int LLVMFuzzerTestOneInput(const uint8_t *input_start, size_t input_size)
{
    struct input input = { input_start, input_size };
    uint64_t choice = input_number(&input, 1);
    if (key_sizes[1] == 0)
        make_keys();
    memset(model, 0, sizeof model);
    version = 0;
    boot = 1;
    sim = sim_new(1);
    options = (struct pykv_options){ .flag = PYKV_FLAG_CREATE, .segment_size = 65536, .durability = (int)(choice % 3),
                                     .io = choice % 8 == 7 ? PYKV_IO_PREAD : PYKV_IO_MMAP };
    open_store();
    for (unsigned i = 0; i < OPERATIONS_MAX && input.size > 0; i++)
        operate(&input);
    for (unsigned i = 0; i < SCANS; i++)
        while (scans[i].scan != NULL)
            scan_next(&scans[i]);
    note_removed();
    check_all();
    reopen(choice / 4);
    close_scans();
    check_status("close", pykv_close(store), PYKV_OK);
    pykv_free(store);
    struct sim_usage usage = sim_usage(sim);
    FUZZ_CHECK(usage.descriptors + usage.mappings + usage.allocations + usage.locks == 0, "something is left");
    sim_free(sim);
    return 0;
}

/* Each seed is a run over all operations, from another one on. */
size_t fuzz_seed(unsigned number, uint8_t out[FUZZ_SEED_SIZE_MAX])
{
    if (number >= 64)
        return 0;
    uint64_t random = number;
    for (size_t i = 0; i < 300; i++)
        out[i] = (uint8_t)next_random(&random);
    return 40 + number * 4;
}
