/* script.h -- what the checks make the engine do, and what must be true after it. A script is a list
 * of steps made from a seed; a state says which value each key has; states[j] is the state after j
 * steps. Every value ever written has a number of its own and bytes of its own, so that a wrong
 * value is told from an old one. What a key has after another expiry was set is another value, with the
 * same bytes. Time passes by steps: at each the clock is set. */
#ifndef PYKV_SCRIPT_H
#define PYKV_SCRIPT_H

#include "pykv.h"
#include "sim_os.h"

#define STORE_PATH "/store"
#define BACKUP_PATH "/backup"
#define KEY_COUNT 16u
#define OPS_MAX 12u
#define STEPS_MAX 64u
#define VALUES_MAX 1024u
#define ABSENT (-1)

struct bytes { uint8_t *bytes; size_t size; };

struct state { int32_t value[KEY_COUNT]; };     /* number of the value, or ABSENT */

enum step_kind {
    STEP_PUT, STEP_DELETE, STEP_BATCH, STEP_INCR, STEP_CONFLICT, STEP_CLEAR, STEP_SYNC,
    STEP_WAIT, STEP_REOPEN, STEP_READ, STEP_COMPACT, STEP_EXPIRE, STEP_BACKUP,
    STEP_KIND_COUNT
};
struct step_op { uint8_t op; uint8_t key; int32_t value; };
struct step {
    enum step_kind kind;
    int durability;
    uint64_t expiry_ms;                 /* of STEP_EXPIRE; and whether only if that is later */
    bool later;
    uint32_t op_count;
    struct step_op ops[OPS_MAX];
};

struct script {
    uint64_t seed;
    struct pykv_options options;
    struct bytes keys[KEY_COUNT];
    uint32_t value_count;
    struct bytes values[VALUES_MAX];
    uint8_t value_key[VALUES_MAX];      /* the key that it was written for */
    uint64_t value_expiry[VALUES_MAX];  /* milliseconds since 1970; 0: never */
    bool expires;                       /* some of them do */
    uint64_t now_ms;                    /* what the clock shows while a store is looked at */
    uint32_t preload;                   /* keys that are there from the start and stay */
    uint32_t step_count;
    struct step steps[STEPS_MAX];       /* behind step_count: AFTER_COUNT more, for after a crash */
    struct state states[STEPS_MAX + 1];
};
#define AFTER_COUNT 3u

/* What to make: each flavour stresses another part. */
enum flavour {
    FLAVOUR_MIXED,      /* a bit of everything, no durability but what is asked for */
    FLAVOUR_COMMIT,     /* every write durable */
    FLAVOUR_ROLL,       /* large values: a new segment every few steps */
    FLAVOUR_BATCH,      /* batches, many with one key twice */
    FLAVOUR_REOPEN,     /* closed and opened all the time */
    FLAVOUR_INTERVAL,
    FLAVOUR_HUGE,       /* values longer than a segment, and than what is copied through a mapping */
    FLAVOUR_COMPACT,    /* large values, deletes, compaction */
    FLAVOUR_EXPIRE,     /* times to live, which are changed, and end */
    FLAVOUR_SMALL,      /* few short values and steps: for the store-by-store kills */
    FLAVOUR_GROW,       /* the same on a keydir that is about to grow */
    FLAVOUR_BACKUP,     /* compaction, and backups to one directory, linked and copied */
};
static inline bool flavour_is_small(enum flavour flavour)
{
    return flavour == FLAVOUR_SMALL || flavour == FLAVOUR_GROW;
}
const char *flavour_name(enum flavour flavour);
void script_make(struct script *script, uint64_t seed, enum flavour flavour);
void script_release(struct script *script);
void script_print_step(const struct script *script, uint32_t step, char *out, size_t size);

/* Do one step. *store is closed and opened again by STEP_REOPEN. *durable: whether it makes all
 * before it durable if it succeeds. A status; a conflict that was expected is PYKV_OK. */
int script_do(struct script *script, uint32_t step, const struct os *os,
              struct pykv_store **store, bool *durable);

/* The time during a step. Whatever ends does so between two steps. */
uint64_t script_time(uint32_t step);
/* The clock shows that from now on. */
void script_set_time(struct script *script, struct sim *sim, uint64_t ms);
/* What of a state is there now: all but what has expired. */
bool script_over(const struct script *script, int32_t value);
struct state script_seen(const struct script *script, const struct state *state);
/* The value that `value` becomes by another expiry. Its number. */
int32_t script_add_expiry(struct script *script, int32_t value, uint64_t expiry_ms, bool later);

/* Make a backup, or bring it up to date. A status. */
int script_back_up(struct pykv_store *store, int flags);

/* A new value for `key`, the decimal text of `number`. Its number. */
int32_t script_add_number(struct script *script, uint8_t key, int64_t number);

/* What `state` becomes by that step. */
void script_apply(const struct script *script, uint32_t step, struct state *state);

/* The name of a preloaded key, which is its value too: 14 bytes. */
enum { PRELOAD_SIZE = 14 };
void script_preload_name(const struct script *script, uint32_t number, char out[PRELOAD_SIZE + 1]);

/* On a healthy machine: open and preload; all steps, and close. Every call must succeed, else they
 * say what failed, and return NULL or false. The trace's progress is moved along. */
struct pykv_store *script_open(const struct script *script, struct sim *sim);
bool script_run(struct script *script, struct sim *sim, struct pykv_store *store,
                struct trace *trace);

#endif
