#include "crew.h"

void crew_init(struct crew *crew)
{
    crew->running = crew->thread_count = 0;
    crew->status = PYKV_OK;
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->changed, NULL);
}

bool crew_next(struct crew *crew, size_t *task)
{
    pthread_mutex_lock(&crew->mutex);
    bool more = crew->status == PYKV_OK && crew->next < crew->task_count;
    if (more)
        *task = crew->next++;
    pthread_mutex_unlock(&crew->mutex);
    return more;
}

void crew_fail(struct crew *crew, int status)
{
    pthread_mutex_lock(&crew->mutex);
    if (crew->status == PYKV_OK) {
        crew->status = status;
        crew->error = *pykv_last_error();
        pthread_cond_broadcast(&crew->changed);
    }
    pthread_mutex_unlock(&crew->mutex);
}

void crew_work(struct crew *crew)
{
    int status = crew->work(crew);
    if (status != PYKV_OK)
        crew_fail(crew, status);
}

static void run(void *context)
{
    struct crew *crew = context;
    crew_work(crew);
    pthread_mutex_lock(&crew->mutex);
    crew->running--;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->mutex);
}

void crew_start(struct crew *crew, size_t wanted)
{
    size_t count = wanted < CREW_MAX ? wanted : CREW_MAX;
    pthread_mutex_lock(&crew->mutex);       /* none ends before it is counted */
    while (crew->thread_count < count &&
           crew->os->thread_start(crew->os, run, crew, &crew->threads[crew->thread_count]) == 0)
        crew->thread_count++;
    crew->running = crew->thread_count;
    pthread_mutex_unlock(&crew->mutex);
}

int crew_end(struct crew *crew)
{
    for (size_t i = 0; i < crew->thread_count; i++)
        crew->os->thread_join(crew->os, crew->threads[i]);
    pthread_mutex_destroy(&crew->mutex);
    pthread_cond_destroy(&crew->changed);
    if (crew->status == PYKV_OK)
        return PYKV_OK;
    return error_set(crew->status, crew->error.os_errno, crew->error.path, crew->error.offset, "%s", crew->error.message);
}
