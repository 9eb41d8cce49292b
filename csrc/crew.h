/* crew.h -- several threads at one job: those who read whole segments, to rebuild the keydir or to verify.
 * The job is cut into numbered tasks; each thread takes the next one until none is left, or one of them
 * has failed. */
#ifndef PYKV_CREW_H
#define PYKV_CREW_H

#include <pthread.h>

#include "error.h"
#include "os.h"

#define CREW_MAX 8u

struct crew {
    const struct os *os;
    int (*work)(struct crew *crew);     /* what each thread does until crew_next() says no more; a status */
    void *context;
    size_t next, task_count;            /* the task that is taken next; where they end */
    size_t running;                     /* threads that are at work */
    int status;                         /* of the first failure, */
    struct pykv_error error;            /* as its thread knew it */
    void *threads[CREW_MAX];
    size_t thread_count;
    pthread_mutex_t mutex;              /* of all that changes, and of what the job's threads share */
    pthread_cond_t changed;             /* one of them has ended or failed; and whatever the job tells by it */
};

/* The fields above `running` are set, `next` to the first task. */
void crew_init(struct crew *crew);
/* Start up to `wanted` threads, at most CREW_MAX; thread_count says how many there are, which may be none. */
void crew_start(struct crew *crew, size_t wanted);
void crew_work(struct crew *crew);      /* the calling thread takes its share */
bool crew_next(struct crew *crew, size_t *task);
void crew_fail(struct crew *crew, int status);      /* the error is the calling thread's last one */
/* Wait for all. The first failure, which is now the calling thread's last error. */
int crew_end(struct crew *crew);

#endif
