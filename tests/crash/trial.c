/* trial.c -- see trial.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "trial.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned trial_seconds;

struct trials *trials_new(void)
{
    struct trials *trials = mmap(NULL, sizeof *trials, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (trials == MAP_FAILED)
        abort();
    trials->violations_max = 20;
    return trials;
}

void trial_begin(struct trials *trials, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(trials->where, sizeof trials->where, format, arguments);
    va_end(arguments);
    alarm(trial_seconds);       /* its signal ends the child */
}

void trial_violation(struct trials *trials, const char *why)
{
    trials->violations++;
    printf("VIOLATION: %s: %s\n", trials->where, why);
    fflush(stdout);
}

bool trials_enough(const struct trials *trials)
{
    return trials->violations >= trials->violations_max;
}

bool trials_run(struct trials *trials, unsigned seconds, void (*work)(struct trials *, void *),
                void *context)
{
    trial_seconds = seconds;
    while (!trials->finished && !trials_enough(trials)) {
        fflush(NULL);
        pid_t child = fork();
        if (child < 0)
            abort();
        if (child == 0) {
            work(trials, context);
            trials->finished = true;
            fflush(NULL);
            _exit(0);
        }
        int status = 0;
        while (waitpid(child, &status, 0) != child)
            continue;
        if (trials->finished)
            break;
        char why[128];
        if (WIFSIGNALED(status)) {
            snprintf(why, sizeof why, "the engine %s: %s",
                     WTERMSIG(status) == SIGALRM ? "hangs" : "crashes", strsignal(WTERMSIG(status)));
        } else {
            snprintf(why, sizeof why, "the process exits with %d", WEXITSTATUS(status));
        }
        trial_violation(trials, why);
    }
    return trials->violations == 0;
}
