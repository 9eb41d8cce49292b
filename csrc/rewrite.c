/* rewrite.c -- what reads a key and writes it anew under one hold of the writer lock: counters, and times to live. */
#include "store.h"

/* ---- Counters: decimal text, as a person would write the number ---- */

static bool parse_integer(const uint8_t *text, size_t size, int64_t *out)
{
    bool negative = size > 0 && text[0] == '-';
    uint64_t sum = 0, most = (uint64_t)INT64_MAX + negative;
    size_t at = negative;
    if (at == size || (text[at] == '0' && (size > at + 1 || negative)))
        return false;
    for (; at < size; at++) {
        uint64_t digit = (uint64_t)(text[at] - '0');
        if (text[at] < '0' || text[at] > '9' || sum > (most - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return true;
}

static size_t print_integer(int64_t value, uint8_t out[24])
{
    uint8_t digits[24];
    size_t count = 0, size = 0;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[count++] = (uint8_t)('0' + left % 10);
        left /= 10;
    } while (left != 0);
    if (value < 0)
        out[size++] = '-';
    while (count > 0)
        out[size++] = digits[--count];
    return size;
}

/* ---- What is read and written anew, under one hold of the lock ---- */

static int rewrite(struct pykv_store *store, const uint8_t *key, size_t key_size, int durability,
                   int (*step)(struct pykv_store *store, struct operation *operation, int durability, void *context,
                               uint64_t *end), void *context)
{
    int status = store_check_sizes(key_size, 0);
    if (status != PYKV_OK || (status = store_enter(store)) != PYKV_OK)
        return status;
    struct operation operation = { .kind = PYKV_PUT, .key = key, .key_size = (uint32_t)key_size,
                                   .hash = hash_bytes(&store->hash_key, key, key_size) };
    struct room room = room_now(store);
    do {
        uint64_t end = 0;
        if ((status = store_check_writable(store)) == PYKV_OK && (status = store_lock(store)) == PYKV_OK) {
            status = step(store, &operation, durability, context, &end);
            store_unlock(store);
            if (status == PYKV_OK)
                status = store_settle(store, end, durability);
        }
    } while (room_again(store, &status, &room));
    return status;
}

struct addition {
    int64_t by, sum;
    bool set_expiry;            /* to expiry_ms; else it stays */
    uint64_t expiry_ms;
};

/* (W) Read, add, write. */
static int add(struct pykv_store *store, struct operation *operation, int durability, void *context, uint64_t *end)
{
    struct addition *addition = context;
    struct log_reader reader;
    struct record record;
    uint8_t text[24];
    int64_t now = 0;
    log_reader_init(&reader, store->os);
    int status = store_find(store, shared_sequence(store->shared), operation->hash, operation->key,
                            operation->key_size, &reader, &record);
    bool present = status == PYKV_OK && !record_expired(store, &record);
    if (status == PYKV_NOT_FOUND || status == PYKV_OK) {
        status = PYKV_OK;
        operation->number = addition->set_expiry ? addition->expiry_ms
                            : present && record.flags & RECORD_EXPIRY ? record.expiry : 0;
        if (present && !parse_integer(record.value, record.value_size, &now))
            status = error_set(PYKV_NOT_A_NUMBER, 0, NULL, 0, "the value is not a decimal integer of 64 bits");
        else if (__builtin_add_overflow(now, addition->by, &addition->sum))
            status = error_set(PYKV_NOT_A_NUMBER, 0, NULL, 0, "the sum does not fit into 64 bits");
    }
    log_reader_release(&reader);
    if (status != PYKV_OK)
        return status;
    operation->value = text;
    operation->value_size = (uint32_t)print_integer(addition->sum, text);
    return store_write_locked(store, operation, 1, durability, end);
}

int pykv_incr(struct pykv_store *store, const uint8_t *key, size_t key_size, int64_t by, int set_expiry,
              uint64_t expiry_ms, int durability, int64_t *sum)
{
    struct addition addition = { .by = by, .set_expiry = set_expiry != 0, .expiry_ms = expiry_ms };
    int status = rewrite(store, key, key_size, durability, add, &addition);
    if (status == PYKV_OK)
        *sum = addition.sum;
    return status;
}

struct new_expiry {
    uint64_t ms;
    bool later;                 /* not if that is earlier */
};

/* (W) Read, and write the same anew. */
static int expire_locked(struct pykv_store *store, struct operation *operation, int durability, void *context,
                         uint64_t *end)
{
    const struct new_expiry *expiry = context;
    struct log_reader reader;
    struct record record;
    log_reader_init(&reader, store->os);
    int status = store_find(store, shared_sequence(store->shared), operation->hash, operation->key,
                            operation->key_size, &reader, &record);
    if (status == PYKV_OK && record_expired(store, &record))
        status = PYKV_NOT_FOUND;
    uint64_t before = status == PYKV_OK && record.flags & RECORD_EXPIRY ? record.expiry : 0;
    bool earlier = before == 0 || (expiry->ms != 0 && expiry->ms < before);
    if (status == PYKV_OK && expiry->ms != before && !(expiry->later && earlier)) {
        operation->number = expiry->ms;
        operation->value = record.value;
        operation->value_size = record.value_size;
        status = store_write_locked(store, operation, 1, durability, end);
    }
    log_reader_release(&reader);
    return status;
}

int pykv_expire(struct pykv_store *store, const uint8_t *key, size_t key_size, uint64_t expiry_ms, int later,
                int durability)
{
    struct new_expiry expiry = { .ms = expiry_ms, .later = later != 0 };
    return rewrite(store, key, key_size, durability, expire_locked, &expiry);
}
