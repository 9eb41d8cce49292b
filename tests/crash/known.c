#include "known.h"

void may_add(struct may *may, int32_t value)
{
    for (uint32_t i = 0; i < may->count; i++) {
        if (may->value[i] == value)
            return;
    }
    if (may->count < MAY_MAX)
        may->value[may->count++] = value;
}

bool may_have(const struct may *may, int32_t value)
{
    for (uint32_t i = 0; i < may->count; i++) {
        if (may->value[i] == value)
            return true;
    }
    return may->count == MAY_MAX;
}

bool may_be_absent(const struct script *script, const struct may *may)
{
    bool absent = may_have(may, ABSENT);
    for (uint32_t i = 0; i < may->count; i++)
        absent = absent || script_over(script, may->value[i]);
    return absent;
}

void may_add_all(struct may *to, const struct may *from)
{
    for (uint32_t i = 0; i < from->count; i++)
        may_add(to, from->value[i]);
}

bool step_writes(const struct script *script, uint32_t number, uint32_t key, int32_t *value)
{
    struct state mark;
    if (script->steps[number].kind == STEP_EXPIRE)
        return false;
    for (uint32_t i = 0; i < KEY_COUNT; i++)
        mark.value[i] = -2;
    script_apply(script, number, &mark);
    *value = mark.value[key];
    return mark.value[key] != -2;
}

void known_success(struct known *known, uint32_t number, bool durable)
{
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        int32_t value;
        if (!step_writes(known->script, number, key, &value))
            continue;
        known->live[key] = (struct may){ .count = 1, .value = { value } };
        may_add(&known->durable[key], value);
        for (uint32_t i = 0; i < known->broken_count; i++)
            known->broken[i].key[key] = false;
    }
    for (uint32_t key = 0; durable && key < KEY_COUNT; key++)
        known->durable[key] = known->live[key];
}

void known_failure(struct known *known, uint32_t number)
{
    struct broken *broken = &known->broken[known->broken_count];
    *broken = (struct broken){ .step = number };
    bool any = false;
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        int32_t value;
        if (!step_writes(known->script, number, key, &value))
            continue;
        for (uint32_t i = 0; i < known->broken_count; i++)
            known->broken[i].key[key] = false;
        may_add(&known->live[key], value);
        may_add(&known->durable[key], value);
        broken->key[key] = any = true;
    }
    known->broken_count += any;
}

bool known_whole(const struct known *known, const struct state *state, struct reason *reason)
{
    for (uint32_t i = 0; i < known->broken_count; i++) {
        const struct broken *broken = &known->broken[i];
        bool some = false, all = true;
        for (uint32_t key = 0; key < KEY_COUNT; key++) {
            int32_t value;
            if (!broken->key[key] || !step_writes(known->script, broken->step, key, &value) ||
                value == ABSENT || script_over(known->script, value))
                continue;
            some = some || state->value[key] == value;
            all = all && state->value[key] == value;
        }
        if (some && !all)
            return fail(reason, "step %u failed, and part of it is there", broken->step);
    }
    return true;
}

bool known_state(const struct known *known, const struct may *may, const struct state *state, const char *when,
                 struct reason *reason)
{
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        if (state->value[key] == ABSENT ? !may_be_absent(known->script, &may[key]) : !may_have(&may[key], state->value[key])) {
            return fail(reason, "%s key %u has v%d, but must have v%d%s", when, key,
                        state->value[key], may[key].value[0], may[key].count > 1 ? " or ..." : "");
        }
    }
    return true;
}
