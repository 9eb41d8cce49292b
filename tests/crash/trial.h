/* trial.h -- running very many trials, any of which may crash or hang the engine. They run in a child
 * process; when it dies, the parent notes the trial it died in and starts another child, which goes on
 * behind it. */
#ifndef PYKV_TRIAL_H
#define PYKV_TRIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRIAL_COUNTERS 32

/* Shared by parent and child. */
struct trials {
    uint64_t resume;                    /* where a child has to begin: the tool keeps it up */
    uint64_t violations, violations_max;
    uint64_t counters[TRIAL_COUNTERS];  /* the tool's own figures */
    char where[1024];                   /* what the trial in progress is */
    bool finished;
};

/* Run `work` in a child until it returns; it calls trial_begin() before each trial. Returns whether
 * there was no violation. `seconds`: how long one trial may take. */
bool trials_run(struct trials *trials, unsigned seconds, void (*work)(struct trials *, void *),
                void *context);
struct trials *trials_new(void);

/* The trial now described begins, and has to end within the time. */
void trial_begin(struct trials *trials, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* It failed, and why. */
void trial_violation(struct trials *trials, const char *why);
/* Whether enough violations were seen to stop. */
bool trials_enough(const struct trials *trials);

#endif
