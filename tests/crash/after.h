/* after.h -- what is made of an image that a cut or a kill has left. */
#ifndef PYKV_AFTER_H
#define PYKV_AFTER_H

#include "check.h"

/* The states that a store went through, and how a trace's progress counts in them. */
struct history {
    const struct state *states;
    uint32_t count;
    uint32_t base;          /* states before the trace's own steps: progress n means base + n */
    uint32_t floor;         /* known durable when the trace began */
    uint64_t now_ms;        /* the clock then */
};

struct after {
    struct script *script;
    uint64_t now_ms;            /* what the clock shows when the image is opened */
    const struct image *names;  /* of a store: its backup then, whose files are partly its own; may be empty */
    const struct image *source; /* of a backup: its store, later on */
};

/* Everything is closed, and nothing leaks. */
bool check_usage(struct sim *sim, struct reason *reason);

/* Open what `image` holds and check it; then write, close, open and check again. Returns the state
 * found, or -1. With a trace: records this, and its progress tells how far it came. */
int check_image(const struct after *after, struct sim *sim, const struct image *image,
                const struct history *history, uint32_t low, uint32_t high, struct trace *trace,
                struct reason *reason);

/* The same of a backup: read it, bring it up to date, and write to it. States count backups; state 0 is
 * that there is none. */
int check_backup(const struct after *after, struct sim *sim, const struct image *image, const struct history *history,
                 uint32_t low, uint32_t high, struct reason *reason);

#endif
