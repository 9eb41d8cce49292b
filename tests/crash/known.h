/* known.h -- what a store may hold after writes of which some failed: for each key one value after a success,
 * more after a failure. */
#ifndef PYKV_KNOWN_H
#define PYKV_KNOWN_H

#include "check.h"

#define MAY_MAX 48u

/* The values that a key may have. */
struct may { uint32_t count; int32_t value[MAY_MAX]; };

/* A write that failed: all of it or nothing is there, as far as later writes left its keys alone. */
struct broken { uint32_t step; bool key[KEY_COUNT]; };

struct known {
    const struct script *script;
    struct may live[KEY_COUNT];         /* what may be read now */
    struct may durable[KEY_COUNT];      /* what a power cut may leave */
    struct broken broken[STEPS_MAX];
    uint32_t broken_count;
};

void may_add(struct may *may, int32_t value);
void may_add_all(struct may *to, const struct may *from);
bool may_have(const struct may *may, int32_t value);
/* Absent may be what was deleted, and what has expired. */
bool may_be_absent(const struct script *script, const struct may *may);

/* The final value that the step gives to `key`; false if it does not write it, or if that depends. */
bool step_writes(const struct script *script, uint32_t step, uint32_t key, int32_t *value);
void known_success(struct known *known, uint32_t step, bool durable);
void known_failure(struct known *known, uint32_t step);

/* A failed write is there wholly or not at all. Keys that had the value before tell nothing. */
bool known_whole(const struct known *known, const struct state *state, struct reason *reason);
/* Each key has a value that it may have. */
bool known_state(const struct known *known, const struct may *may, const struct state *state, const char *when,
                 struct reason *reason);

#endif
