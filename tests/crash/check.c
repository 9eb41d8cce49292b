/* check.c -- see check.h. */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool fail(struct reason *reason, const char *format, ...)
{
    if (reason->text[0] == 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(reason->text, sizeof reason->text, format, arguments);
        va_end(arguments);
    }
    return false;
}

static uint8_t value_buffer[(1u << 20) + 65536];

int32_t find_value(const struct script *script, uint32_t key, const uint8_t *bytes, size_t size)
{
    for (uint32_t i = 0; i < script->value_count; i++) {
        if (script->value_key[i] == key && script->values[i].size == size &&
            (size == 0 || memcmp(script->values[i].bytes, bytes, size) == 0))
            return (int32_t)i;
    }
    return (int32_t)VALUES_MAX;
}

/* Of values with the same bytes, that with the right expiry. */
static int32_t find_expiry(const struct script *script, int32_t value, uint64_t expiry_ms)
{
    const struct bytes *bytes = &script->values[value];
    for (uint32_t i = (uint32_t)value; i < script->value_count; i++) {
        if (script->value_key[i] == script->value_key[value] && script->value_expiry[i] == expiry_ms &&
            script->values[i].size == bytes->size && memcmp(script->values[i].bytes, bytes->bytes, bytes->size) == 0)
            return (int32_t)i;
    }
    return (int32_t)VALUES_MAX;
}

int read_value(const struct script *script, struct pykv_store *store, uint32_t key, int32_t *value)
{
    const struct bytes *name = &script->keys[key];
    uint64_t expiry_ms = 0;
    int64_t size = pykv_get(store, name->bytes, name->size, value_buffer, sizeof value_buffer, NULL);
    *value = ABSENT;
    if (size == -1000 + PYKV_NOT_FOUND)
        return PYKV_OK;
    if (size < 0)
        return (int)(size + 1000);
    *value = (size_t)size > sizeof value_buffer ? (int32_t)VALUES_MAX
                                                : find_value(script, key, value_buffer, (size_t)size);
    if (*value == (int32_t)VALUES_MAX || !script->expires)
        return PYKV_OK;
    int status = pykv_contains(store, name->bytes, name->size, &expiry_ms);
    if (status >= 0)
        *value = status == PYKV_OK ? find_expiry(script, *value, expiry_ms) : (int32_t)VALUES_MAX;
    if (status >= 0 && *value != (int32_t)VALUES_MAX && script_over(script, *value))
        *value = (int32_t)VALUES_MAX;
    return status < 0 ? status : PYKV_OK;
}

bool tells_no_backup(int status)
{
    return status == PYKV_MISSING ||
           (status == PYKV_CORRUPT && strstr(pykv_last_error()->message, "never finished") != NULL);
}

/* The preloaded keys never change. */
static bool read_preload(const struct script *script, struct pykv_store *store,
                         struct reason *reason)
{
    for (uint32_t i = 0; i < script->preload; i++) {
        char name[PRELOAD_SIZE + 1];
        script_preload_name(script, i, name);
        int64_t size = pykv_get(store, (uint8_t *)name, PRELOAD_SIZE, value_buffer,
                                sizeof value_buffer, NULL);
        if (size != PRELOAD_SIZE || memcmp(value_buffer, name, PRELOAD_SIZE) != 0)
            return fail(reason, "get of the preloaded key %s: %lld", name, (long long)size);
    }
    return true;
}

bool read_state(const struct script *script, struct pykv_store *store, struct state *out,
                struct reason *reason)
{
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        int status = read_value(script, store, i, &out->value[i]);
        if (status != PYKV_OK)
            return fail(reason, "get of key %u: %d %s", i, status, pykv_last_error()->message);
        if (out->value[i] == (int32_t)VALUES_MAX)
            return fail(reason, "key %u has a value or an expiry that it never had, or that is over", i);
    }
    return read_preload(script, store, reason);
}

static bool same_value(const struct script *script, const struct state *state, uint32_t key,
                       const uint8_t *bytes, size_t size)
{
    int32_t number = state->value[key];
    if (number == ABSENT)
        return size == 0;
    const struct bytes *value = &script->values[number];
    return value->size == size && (size == 0 || memcmp(value->bytes, bytes, size) == 0);
}

/* The next size of a rows format, "16s100s...". */
static size_t next_size(const char **format)
{
    char *end;
    size_t size = strtoul(*format, &end, 10);
    *format = end + 1;
    return size;
}

static bool check_get_many(const struct script *script, struct pykv_store *store,
                           const struct state *state, struct pykv_rows *rows,
                           struct reason *reason)
{
    static uint8_t keys[KEY_COUNT * 1024];
    uint32_t sizes[KEY_COUNT];
    uint8_t present[KEY_COUNT];
    size_t at = 0;
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        memcpy(keys + at, script->keys[i].bytes, script->keys[i].size);
        sizes[i] = (uint32_t)script->keys[i].size;
        at += sizes[i];
    }
    int status = pykv_get_many(store, KEY_COUNT, keys, sizes, rows);
    if (status != PYKV_OK)
        return fail(reason, "get_many: %d %s", status, pykv_last_error()->message);
    status = pykv_contains_many(store, KEY_COUNT, keys, sizes, present);
    if (status != PYKV_OK)
        return fail(reason, "contains_many: %d %s", status, pykv_last_error()->message);
    size_t data_size, format_size, missing_count, missing_at = 0;
    const uint8_t *data = pykv_rows_data(rows, &data_size);
    const char *format = pykv_rows_format(rows, &format_size);
    const uint32_t *missing = pykv_rows_missing(rows, &missing_count);
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        size_t size = next_size(&format);
        bool gone = missing_at < missing_count && missing[missing_at] == i;
        missing_at += gone;
        if (gone != (state->value[i] == ABSENT) || !same_value(script, state, i, data, size))
            return fail(reason, "get_many disagrees about key %u", i);
        if (present[i] != !gone)
            return fail(reason, "contains_many disagrees about key %u", i);
        data += size;
    }
    return true;
}

static bool check_scan(const struct script *script, struct pykv_store *store,
                       const struct state *state, struct pykv_rows *rows, struct reason *reason)
{
    bool seen[KEY_COUNT] = { false };
    uint64_t preloaded = 0, preload_sum = 0;
    struct pykv_scan *scan = NULL;
    int status = pykv_scan_open(store, NULL, NULL, 0, 3, &scan);
    if (status != PYKV_OK)
        return fail(reason, "scan_open: %d %s", status, pykv_last_error()->message);
    bool good = true;
    while (good && (status = pykv_scan_next(scan, rows)) == PYKV_OK) {
        size_t size, count = pykv_rows_count(rows);
        const uint8_t *data = pykv_rows_data(rows, &size);
        const char *format = pykv_rows_format(rows, &size);
        for (size_t i = 0; good && i + 1 < count; i += 2) {
            size_t key_size = next_size(&format), value_size = next_size(&format);
            uint32_t key = 0;
            if (script->preload > 0 && key_size == PRELOAD_SIZE && memcmp(data, "pre", 3) == 0) {
                char digits[6] = { 0 };
                memcpy(digits, data + 3, 5);
                preload_sum += strtoul(digits, NULL, 10);
                preloaded++;
                data += key_size + value_size;
                continue;
            }
            while (key < KEY_COUNT && (script->keys[key].size != key_size ||
                                       memcmp(script->keys[key].bytes, data, key_size) != 0))
                key++;
            if (key == KEY_COUNT)
                good = fail(reason, "the scan yields a key that was never put");
            else if (seen[key])
                good = fail(reason, "the scan yields key %u twice", key);
            else if (state->value[key] == ABSENT ||
                     !same_value(script, state, key, data + key_size, value_size))
                good = fail(reason, "the scan disagrees about key %u", key);
            else
                seen[key] = true;
            data += key_size + value_size;
        }
    }
    pykv_scan_close(scan);
    uint64_t all = script->preload;
    if (good && status == PYKV_NOT_FOUND &&
        (preloaded != all || (all > 0 && preload_sum != all * (all - 1) / 2)))
        return fail(reason, "the scan yields %llu of %llu preloaded keys",
                    (unsigned long long)preloaded, (unsigned long long)all);
    if (good && status != PYKV_NOT_FOUND)
        return fail(reason, "scan_next: %d %s", status, pykv_last_error()->message);
    for (uint32_t i = 0; good && i < KEY_COUNT; i++) {
        if (!seen[i] && state->value[i] != ABSENT)
            return fail(reason, "the scan does not yield key %u", i);
    }
    return good;
}

bool check_agrees(const struct script *script, struct pykv_store *store,
                  const struct state *then, struct reason *reason)
{
    uint64_t count = 0, expected = script->preload;
    const struct state seen = script_seen(script, then), *state = &seen;
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        const struct bytes *key = &script->keys[i];
        int status = pykv_contains(store, key->bytes, key->size, NULL);
        if (status != (state->value[i] == ABSENT ? PYKV_NOT_FOUND : PYKV_OK))
            return fail(reason, "contains disagrees about key %u: %d", i, status);
        expected += state->value[i] != ABSENT;
    }
    int status = pykv_count(store, &count);
    if (status != PYKV_OK || (script->expires ? count < expected : count != expected))
        return fail(reason, "count is %llu, not %llu (status %d)", (unsigned long long)count,
                    (unsigned long long)expected, status);
    struct pykv_rows *rows = pykv_rows_new();
    if (rows == NULL)
        return fail(reason, "out of memory");
    bool good = check_get_many(script, store, state, rows, reason) &&
                check_scan(script, store, state, rows, reason);
    pykv_rows_free(rows);
    if (!good)
        return false;
    static struct pykv_report report;
    status = pykv_verify(store, &report);
    if (status != PYKV_OK || report.damage_count != 0) {
        return fail(reason, "verify: %d, %llu damaged, first %s at %llu: %s", status,
                    (unsigned long long)report.damage_count, report.damage[0].path,
                    (unsigned long long)report.damage[0].offset, pykv_last_error()->message);
    }
    return true;
}

/* What was seen is that state, as it is now. */
static bool same_state(const struct script *script, const struct state *state, const struct state *seen)
{
    const struct state now = script_seen(script, state);
    return memcmp(&now, seen, sizeof now) == 0;
}

int find_state(const struct script *script, const struct state *states, uint32_t count, uint32_t low, uint32_t high,
               const struct state *state, struct reason *reason)
{
    for (uint32_t j = low; j <= high; j++) {
        if (same_state(script, &states[j], state))
            return (int)j;
    }
    for (uint32_t j = count; j-- > 0;) {
        if (same_state(script, &states[j], state)) {
            fail(reason, "the state is that after %u steps, but it must be %u to %u", j, low, high);
            return -1;
        }
    }
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        int32_t value = state->value[i];
        bool known = false;
        for (uint32_t j = low; j <= high; j++)
            known = known || states[j].value[i] == value || (value == ABSENT && script_over(script, states[j].value[i]));
        if (!known) {
            fail(reason, "key %u has v%d, which it had at no step from %u to %u (v%d at %u)", i,
                 value, low, high, states[low].value[i], low);
            return -1;
        }
    }
    fail(reason, "part of a batch: no state from %u to %u fits", low, high);
    return -1;
}

