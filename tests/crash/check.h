/* check.h -- whether an open store holds what it must: one of the states of a script, whole, and the
 * same by every way of reading. */
#ifndef PYKV_CHECK_H
#define PYKV_CHECK_H

#include "script.h"

/* Why a check failed, in one sentence; the first reason stands. */
struct reason { char text[512]; };
bool fail(struct reason *reason, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Which value of `key` these bytes are; VALUES_MAX if none. */
int32_t find_value(const struct script *script, uint32_t key, const uint8_t *bytes, size_t size);

/* Which value a key has now: its number, ABSENT, or VALUES_MAX for one that it never had, or that is over. A
 * status. */
int read_value(const struct script *script, struct pykv_store *store, uint32_t key, int32_t *value);

/* Whether a failed open says that there is no backup, or that it was never finished. */
bool tells_no_backup(int status);

/* Read every key. False if a value is not one that this key ever had, or a read fails. */
bool read_state(const struct script *script, struct pykv_store *store, struct state *out,
                struct reason *reason);

/* Everything that can be read agrees with `state`: get, contains, get_many, iteration, count,
 * verify. */
bool check_agrees(const struct script *script, struct pykv_store *store,
                  const struct state *state, struct reason *reason);

/* The number j of the state that `state` equals, low <= j <= high, or -1 with a reason. */
int find_state(const struct script *script, const struct state *states, uint32_t count, uint32_t low, uint32_t high,
               const struct state *state, struct reason *reason);

#endif
