/* script.c -- see script.h. */
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *flavour_name(enum flavour flavour)
{
    static const char *const names[] = { "mixed", "commit", "roll", "batch", "reopen", "interval",
                                         "huge", "compact", "expire", "small", "grow", "backup" };
    return names[flavour];
}

static const char *const step_names[] = { "put", "delete", "batch", "incr", "conflict", "clear",
                                          "sync", "wait", "reopen", "read", "compact", "expire",
                                          "backup" };

#define STEP_MS 10000u
#define START_MS UINT64_C(1750000000000)

uint64_t script_time(uint32_t step) { return START_MS + (uint64_t)step * STEP_MS; }

bool script_over(const struct script *script, int32_t value)
{
    return value != ABSENT && script->value_expiry[value] != 0 && script->value_expiry[value] <= script->now_ms;
}

struct state script_seen(const struct script *script, const struct state *state)
{
    struct state seen = *state;
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        if (script_over(script, seen.value[i]))
            seen.value[i] = ABSENT;
    }
    return seen;
}

static uint64_t pick(uint64_t *random, uint64_t count)
{
    return next_random(random) % count;
}

static struct bytes bytes_new(size_t size)
{
    struct bytes bytes = { calloc(1, size + 1), size };
    if (bytes.bytes == NULL)
        abort();
    return bytes;
}

static int32_t add_value(struct script *script, uint8_t key, size_t size)
{
    if (script->value_count == VALUES_MAX)
        abort();
    uint32_t number = script->value_count++;
    struct bytes value = bytes_new(size);
    char head[64];
    int head_size = snprintf(head, sizeof head, "%u.%u.%llu:", number, key,
                             (unsigned long long)script->seed);
    uint64_t random = number;
    for (size_t i = 0; i < size; i++)
        value.bytes[i] = i < (size_t)head_size ? (uint8_t)head[i] : (uint8_t)next_random(&random);
    script->values[number] = value;
    script->value_key[number] = key;
    return (int32_t)number;
}

int32_t script_add_expiry(struct script *script, int32_t value, uint64_t expiry_ms, bool later)
{
    uint64_t before = script->value_expiry[value];
    if (expiry_ms == before || (later && (before == 0 || (expiry_ms != 0 && expiry_ms < before))))
        return value;
    const struct bytes bytes = script->values[value];
    uint8_t key = script->value_key[value];
    for (uint32_t i = 0; i < script->value_count; i++) {
        if (script->value_key[i] == key && script->value_expiry[i] == expiry_ms && script->values[i].size == bytes.size &&
            (bytes.size == 0 || memcmp(script->values[i].bytes, bytes.bytes, bytes.size) == 0))
            return (int32_t)i;
    }
    if (script->value_count == VALUES_MAX)
        abort();
    uint32_t number = script->value_count++;
    script->values[number] = bytes_new(bytes.size);
    memcpy(script->values[number].bytes, bytes.bytes, bytes.size);
    script->value_key[number] = key;
    script->value_expiry[number] = expiry_ms;
    return (int32_t)number;
}

int32_t script_add_number(struct script *script, uint8_t key, int64_t number)
{
    for (uint32_t i = 0; i < script->value_count; i++) {
        if (script->value_key[i] == key && atoll((char *)script->values[i].bytes) == number)
            return (int32_t)i;
    }
    int32_t value = add_value(script, key, 24);
    struct bytes *bytes = &script->values[value];
    bytes->size = (size_t)snprintf((char *)bytes->bytes, 24, "%lld", (long long)number);
    return value;
}

static size_t pick_size(uint64_t *random, enum flavour flavour)
{
    uint64_t kind = pick(random, 100);
    if (flavour_is_small(flavour))
        return 8 + pick(random, 40);
    if (flavour == FLAVOUR_HUGE && kind < 25)
        return pick(random, 2) == 0 ? 70000 + pick(random, 5000) : (1u << 20) + pick(random, 9000);
    if (flavour == FLAVOUR_ROLL || flavour == FLAVOUR_COMPACT || flavour == FLAVOUR_BACKUP || flavour == FLAVOUR_EXPIRE)
        return kind < 60 ? 9000 + pick(random, 9000) : 40 + pick(random, 900);
    return kind < 60 ? 12 + pick(random, 60) : kind < 90 ? pick(random, 900) : pick(random, 5000);
}

static void make_keys(struct script *script)
{
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        char name[32];
        size_t size = (size_t)snprintf(name, sizeof name, "key%u-%llx", i,
                                       (unsigned long long)script->seed);
        size_t whole = i == 0 ? 0 : i == 1 ? 700 : size;    /* one empty, one that spans sectors */
        script->keys[i] = bytes_new(whole);
        for (size_t j = 0; j < whole; j++)
            script->keys[i].bytes[j] = (uint8_t)(j < size ? name[j] : 'k');
    }
}

/* Key 2 is the counter: nothing else writes it but clear. */
enum { COUNTER_KEY = 2 };

static uint8_t pick_key(uint64_t *random)
{
    uint8_t key = (uint8_t)pick(random, KEY_COUNT);
    return key == COUNTER_KEY ? COUNTER_KEY + 1 : key;
}

/* A time between two steps, soon or late, or never. */
static uint64_t pick_expiry(uint64_t *random, uint32_t step)
{
    static const uint64_t steps[] = { 0, 1, 2, 4, 8, 1000 };
    uint64_t kind = pick(random, 8);
    return kind >= 6 ? 0 : script_time(step) + STEP_MS / 2 + steps[kind] * STEP_MS;
}

static enum step_kind pick_kind(uint64_t *random, enum flavour flavour)
{
    uint64_t kind = pick(random, 100);
    if (flavour == FLAVOUR_REOPEN && kind < 30)
        return STEP_REOPEN;
    if (flavour == FLAVOUR_BATCH && kind < 60)
        return STEP_BATCH;
    if (flavour == FLAVOUR_COMPACT && kind < 40)
        return kind < 15 ? STEP_COMPACT : kind < 30 ? STEP_DELETE : STEP_PUT;
    if (flavour == FLAVOUR_BACKUP && kind < 40)
        return kind < 15 ? STEP_BACKUP : kind < 25 ? STEP_COMPACT : STEP_PUT;
    if (flavour == FLAVOUR_EXPIRE && kind < 40)
        return kind < 22 ? STEP_EXPIRE : kind < 27 ? STEP_COMPACT : STEP_PUT;
    kind = pick(random, 100);
    return kind < 38 ? STEP_PUT : kind < 48 ? STEP_DELETE : kind < 68 ? STEP_BATCH
         : kind < 75 ? STEP_INCR : kind < 79 ? STEP_CONFLICT : kind < 81 ? STEP_CLEAR
         : kind < 89 ? STEP_SYNC : kind < 93 ? STEP_WAIT : kind < 97 ? STEP_REOPEN : STEP_READ;
}

/* The next key from `key` on that is there, if any is. */
static uint8_t pick_present(const struct state *state, uint8_t key)
{
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        uint8_t next = (uint8_t)((key + i) % KEY_COUNT);
        if (next != COUNTER_KEY && state->value[next] != ABSENT)
            return next;
    }
    return key;
}

static void make_step(struct script *script, uint32_t number, uint64_t *random,
                      enum flavour flavour)
{
    struct step *step = &script->steps[number];
    *step = (struct step){ .kind = pick_kind(random, flavour) };
    uint64_t durability = pick(random, 10);
    step->durability = durability == 0 ? PYKV_DURABILITY_COMMIT : PYKV_DURABILITY_DEFAULT;
    step->op_count = step->kind == STEP_BATCH ? 2 + (uint32_t)pick(random, OPS_MAX - 2) : 1;
    for (uint32_t i = 0; i < step->op_count; i++) {
        struct step_op *op = &step->ops[i];
        op->key = pick_key(random);
        op->op = PYKV_PUT;
        op->value = ABSENT;
        if (step->kind == STEP_BATCH && pick(random, 4) == 0)
            op->op = PYKV_DELETE;
        switch (step->kind) {
        case STEP_PUT:
        case STEP_BATCH:
            if (op->op == PYKV_PUT)
                op->value = add_value(script, op->key, pick_size(random, flavour));
            if (op->op == PYKV_PUT && script->expires)
                script->value_expiry[op->value] = pick_expiry(random, number);
            break;
        case STEP_EXPIRE: {
            step->expiry_ms = pick_expiry(random, number);
            step->later = pick(random, 3) == 0;
            script->now_ms = script_time(number);
            const struct state seen = script_seen(script, &script->states[number]);
            op->key = pick_present(&seen, op->key);
            op->value = script->states[number].value[op->key];
            if (seen.value[op->key] != ABSENT)
                op->value = script_add_expiry(script, op->value, step->expiry_ms, step->later);
            break;
        }
        case STEP_INCR: {
            op->key = COUNTER_KEY;
            int32_t old = script->states[number].value[COUNTER_KEY];
            int64_t sum = old == ABSENT ? 0 : atoll((char *)script->values[old].bytes);
            op->value = script_add_number(script, COUNTER_KEY, sum + number + 1);
            break;
        }
        default:
            break;
        }
    }
    script->states[number + 1] = script->states[number];
    script_apply(script, number, &script->states[number + 1]);
}

void script_make(struct script *script, uint64_t seed, enum flavour flavour)
{
    memset(script, 0, sizeof *script);
    script->seed = seed;
    uint64_t random = seed * 1000 + (uint64_t)flavour;
    next_random(&random);
    script->options = (struct pykv_options){
        .flag = PYKV_FLAG_CREATE, .durability = PYKV_DURABILITY_PROCESS, .interval_ms = 50,
        .io = pick(&random, 4) == 0 ? PYKV_IO_PREAD : PYKV_IO_MMAP,
        .segment_size = (UINT64_C(64) << 10) << 
                        (flavour == FLAVOUR_ROLL || flavour == FLAVOUR_COMPACT || flavour >= FLAVOUR_EXPIRE ? 0 : pick(&random, 3)),
    };
    script->expires = flavour == FLAVOUR_EXPIRE;
    if (flavour == FLAVOUR_COMMIT)
        script->options.durability = PYKV_DURABILITY_COMMIT;
    if (flavour == FLAVOUR_INTERVAL)
        script->options.durability = PYKV_DURABILITY_INTERVAL;
    make_keys(script);
    for (uint32_t i = 0; i < KEY_COUNT; i++)
        script->states[0].value[i] = ABSENT;
    if (flavour == FLAVOUR_GROW)        /* 6.4 keys a bucket, 1,024 buckets: the next one splits */
        script->preload = 6520 + (uint32_t)pick(&random, 40);
    script->step_count = flavour_is_small(flavour) ? 14 : 12 + (uint32_t)pick(&random, 24);
    for (uint32_t i = 0; i < script->step_count; i++)
        make_step(script, i, &random, flavour);
    script->steps[script->step_count] = (struct step){
        .kind = STEP_PUT, .durability = PYKV_DURABILITY_COMMIT, .op_count = 1,
        .ops = { { PYKV_PUT, 3, add_value(script, 3, 50) } },
    };
    script->steps[script->step_count + 1] = (struct step){
        .kind = STEP_BATCH, .durability = PYKV_DURABILITY_DEFAULT, .op_count = 3,
        .ops = { { PYKV_PUT, 4, add_value(script, 4, 60) }, { PYKV_DELETE, 5, ABSENT },
                 { PYKV_PUT, 0, add_value(script, 0, 600) } },
    };
    script->steps[script->step_count + 2] = (struct step){
        .kind = flavour == FLAVOUR_COMPACT || flavour == FLAVOUR_EXPIRE ? STEP_COMPACT
              : flavour == FLAVOUR_BACKUP ? STEP_BACKUP : STEP_READ,
    };
}

void script_apply(const struct script *script, uint32_t number, struct state *state)
{
    const struct step *step = &script->steps[number];
    bool writes = step->kind == STEP_PUT || step->kind == STEP_DELETE ||
                  step->kind == STEP_BATCH || step->kind == STEP_INCR || step->kind == STEP_EXPIRE;
    for (uint32_t i = 0; writes && i < step->op_count; i++)
        state->value[step->ops[i].key] = step->ops[i].value;
    for (uint32_t i = 0; step->kind == STEP_CLEAR && i < KEY_COUNT; i++)
        state->value[i] = ABSENT;
}

void script_release(struct script *script)
{
    for (uint32_t i = 0; i < KEY_COUNT; i++)
        free(script->keys[i].bytes);
    for (uint32_t i = 0; i < script->value_count; i++)
        free(script->values[i].bytes);
    memset(script, 0, sizeof *script);
}

void script_print_step(const struct script *script, uint32_t number, char *out, size_t size)
{
    const struct step *step = &script->steps[number];
    int done = snprintf(out, size, "%u: %s%s", number, step_names[step->kind],
                        step->durability == PYKV_DURABILITY_COMMIT ? " (durable)" : "");
    for (uint32_t i = 0; i < step->op_count && done > 0 && (size_t)done < size; i++) {
        const struct step_op *op = &step->ops[i];
        if (op->value == ABSENT)
            done += snprintf(out + done, size - (size_t)done, " k%u", op->key);
        else
            done += snprintf(out + done, size - (size_t)done, " k%u=v%d(%zu)", op->key, op->value,
                             script->values[op->value].size);
    }
}

static int do_batch(const struct script *script, const struct step *step,
                    struct pykv_store *store)
{
    uint8_t ops[OPS_MAX];
    uint32_t key_sizes[OPS_MAX], value_sizes[OPS_MAX];
    uint64_t expiries[OPS_MAX];
    size_t keys_size = 0, values_size = 0;
    for (uint32_t i = 0; i < step->op_count; i++) {
        const struct step_op *op = &step->ops[i];
        ops[i] = op->op;
        key_sizes[i] = (uint32_t)script->keys[op->key].size;
        value_sizes[i] = op->value == ABSENT ? 0 : (uint32_t)script->values[op->value].size;
        expiries[i] = op->value == ABSENT ? 0 : script->value_expiry[op->value];
        keys_size += key_sizes[i];
        values_size += value_sizes[i];
    }
    struct bytes keys = bytes_new(keys_size), values = bytes_new(values_size);
    size_t key_at = 0, value_at = 0;
    for (uint32_t i = 0; i < step->op_count; i++) {
        const struct step_op *op = &step->ops[i];
        memcpy(keys.bytes + key_at, script->keys[op->key].bytes, key_sizes[i]);
        key_at += key_sizes[i];
        if (op->value != ABSENT)
            memcpy(values.bytes + value_at, script->values[op->value].bytes, value_sizes[i]);
        value_at += value_sizes[i];
    }
    int status = pykv_write(store, step->op_count, ops, keys.bytes, key_sizes, values.bytes,
                            value_sizes, expiries, step->durability, NULL, NULL, NULL);
    free(keys.bytes);
    free(values.bytes);
    return status;
}

/* A batch whose precondition cannot hold: nothing may change. */
static int do_conflict(const struct script *script, const struct step *step,
                       struct pykv_store *store)
{
    const struct bytes *key = &script->keys[step->ops[0].key];
    uint8_t ops[3] = { PYKV_PUT, PYKV_EXPECT_PRESENT, PYKV_EXPECT_ABSENT };
    uint32_t key_sizes[3] = { (uint32_t)key->size, (uint32_t)key->size, (uint32_t)key->size };
    uint32_t value_sizes[3] = { 5, 0, 0 };
    struct bytes keys = bytes_new(3 * key->size);
    for (size_t i = 0; i < 3; i++)
        memcpy(keys.bytes + i * key->size, key->bytes, key->size);
    size_t failed = 0;
    int status = pykv_write(store, 3, ops, keys.bytes, key_sizes, (const uint8_t *)"never",
                            value_sizes, NULL, step->durability, &failed, NULL, NULL);
    free(keys.bytes);
    return status == PYKV_CONFLICT ? PYKV_OK : status == PYKV_OK ? PYKV_INVALID : status;
}

int script_back_up(struct pykv_store *store, int flags)
{
    struct pykv_backup *backup = NULL;
    struct pykv_backup_progress progress;
    int status = pykv_backup_open(store, BACKUP_PATH, flags, &backup);
    while (status == PYKV_OK)
        status = pykv_backup_step(backup, &progress);
    pykv_backup_close(backup);
    return status == PYKV_NOT_FOUND ? PYKV_OK : status;
}

static int do_read(const struct script *script, struct pykv_store *store)
{
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        int status = pykv_contains(store, script->keys[i].bytes, script->keys[i].size, NULL);
        if (status < 0)
            return status;
    }
    return PYKV_OK;
}

void script_set_time(struct script *script, struct sim *sim, uint64_t ms)
{
    script->now_ms = ms;
    if (script->expires)
        sim_advance_ms(sim, 2000);      /* long enough for what is due in the background */
    sim_set_wall_ms(sim, ms);
}

int script_do(struct script *script, uint32_t number, const struct os *os,
              struct pykv_store **store, bool *durable)
{
    const struct step *step = &script->steps[number];
    const struct step_op *op = &step->ops[0];
    const struct bytes *key = &script->keys[op->key];
    const struct bytes *value = op->value == ABSENT ? NULL : &script->values[op->value];
    bool commits = step->durability == PYKV_DURABILITY_COMMIT ||
                   script->options.durability == PYKV_DURABILITY_COMMIT;
    int64_t sum = 0;
    int status = PYKV_OK;
    *durable = false;
    script_set_time(script, os->context, script_time(number));
    const struct state before = script_seen(script, &script->states[number]);
    switch (step->kind) {
    case STEP_PUT:
        *durable = commits;
        return pykv_put(*store, key->bytes, key->size, value->bytes, value->size,
                        script->value_expiry[op->value], step->durability, NULL);
    case STEP_DELETE:
        /* Deleting what is not there writes nothing, and need not sync. */
        *durable = commits && before.value[op->key] != ABSENT;
        status = pykv_delete(*store, key->bytes, key->size, step->durability);
        if (status == PYKV_NOT_FOUND)
            return before.value[op->key] == ABSENT ? PYKV_OK : status;
        return status;
    case STEP_EXPIRE:
        *durable = commits && before.value[op->key] != ABSENT && before.value[op->key] != op->value;
        status = pykv_expire(*store, key->bytes, key->size, step->expiry_ms, step->later, step->durability);
        if (status == PYKV_NOT_FOUND)
            return before.value[op->key] == ABSENT ? PYKV_OK : status;
        return status;
    case STEP_BATCH:
        for (uint32_t i = 0; i < step->op_count; i++)
            *durable = *durable || (commits && step->ops[i].op == PYKV_PUT);
        return do_batch(script, step, *store);
    case STEP_INCR:
        *durable = commits;
        status = pykv_incr(*store, key->bytes, key->size, (int64_t)number + 1, 0, 0,
                           step->durability, &sum);
        if (status == PYKV_OK && sum != atoll((const char *)value->bytes))
            return PYKV_NOT_A_NUMBER;
        return status;
    case STEP_CONFLICT:
        return do_conflict(script, step, *store);
    case STEP_CLEAR:
        for (uint32_t i = 0; i < KEY_COUNT; i++)
            *durable = *durable || (commits && before.value[i] != ABSENT);
        return pykv_clear(*store, step->durability);
    case STEP_SYNC:
        *durable = true;
        return pykv_sync(*store);
    case STEP_WAIT:
        sim_advance_ms(os->context, 70);
        return PYKV_OK;
    case STEP_REOPEN: {
        *durable = true;
        status = pykv_close(*store);
        pykv_free(*store);
        *store = NULL;
        if (status < 0)
            return status;
        return pykv_open_with(os, STORE_PATH, &script->options, store);
    }
    case STEP_READ:
        return do_read(script, *store);
    case STEP_COMPACT: {
        struct pykv_progress progress = { .left = 1 };
        while (progress.left != 0 && status == PYKV_OK)
            status = pykv_compact(*store, &progress);
        return status;
    }
    case STEP_BACKUP:
        *durable = true;
        return script_back_up(*store, number % 2 == 0 ? 0 : PYKV_BACKUP_COPY);
    default:
        return PYKV_INVALID;
    }
}

void script_preload_name(const struct script *script, uint32_t number, char out[PRELOAD_SIZE + 1])
{
    snprintf(out, PRELOAD_SIZE + 1, "pre%05u%06u", number % 100000,
             (unsigned)(script->seed % 1000000));
}

static int preload(const struct script *script, struct pykv_store *store)
{
    enum { BATCH = 500 };
    static char names[BATCH][PRELOAD_SIZE + 1];
    static uint8_t bytes[BATCH * PRELOAD_SIZE];
    static uint32_t sizes[BATCH];
    int status = PYKV_OK;
    for (uint32_t from = 0; status == PYKV_OK && from < script->preload; from += BATCH) {
        uint32_t count = script->preload - from < BATCH ? script->preload - from : BATCH;
        for (uint32_t i = 0; i < count; i++) {
            script_preload_name(script, from + i, names[i]);
            memcpy(bytes + i * PRELOAD_SIZE, names[i], PRELOAD_SIZE);
            sizes[i] = PRELOAD_SIZE;
        }
        status = pykv_write(store, count, NULL, bytes, sizes, bytes, sizes, NULL,
                            PYKV_DURABILITY_DEFAULT, NULL, NULL, NULL);
    }
    return status == PYKV_OK ? pykv_sync(store) : status;
}

static void complain(const struct script *script, const char *what, int status)
{
    fprintf(stderr, "script %llu: %s: %d %s\n", (unsigned long long)script->seed, what, status,
            pykv_last_error()->message);
}

struct pykv_store *script_open(const struct script *script, struct sim *sim)
{
    struct pykv_store *store = NULL;
    int status = pykv_open_with(sim_os(sim), STORE_PATH, &script->options, &store);
    if (status == PYKV_OK)
        status = preload(script, store);
    if (status == PYKV_OK)
        return store;
    complain(script, "open", status);
    pykv_free(store);
    return NULL;
}

bool script_run(struct script *script, struct sim *sim, struct pykv_store *store,
                struct trace *trace)
{
    int status = PYKV_OK;
    for (uint32_t i = 0; i < script->step_count; i++) {
        bool durable = false;
        trace->progress.started = i + 1;
        trace->progress.now_ms = script_time(i);
        status = script_do(script, i, sim_os(sim), &store, &durable);
        if (status != PYKV_OK) {
            char text[256];
            script_print_step(script, i, text, sizeof text);
            complain(script, text, status);
            pykv_free(store);
            return false;
        }
        trace->progress.acked = i + 1;
        if (durable)
            trace->progress.durable = i + 1;
    }
    status = pykv_close(store);
    pykv_free(store);
    if (status < 0)
        complain(script, "close", status);
    trace->progress.durable = script->step_count;
    return status >= 0;
}
