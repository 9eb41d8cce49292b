/* fork.c -- a store that is open when the process forks stays open in both, parent and child.
 *
 * What the child has of it is a copy taken at some moment of the parent's other threads, who do not
 * exist in it. Five things then are not what they seem, and are put right before fork() returns in
 * the child:
 *
 *   mutexes of this process     may have been held: so they are taken before the fork, and released
 *                               in parent and child after it
 *   calls in flight             are those of threads that are gone: none are left
 *   the helper threads          are gone: the child's first call starts others
 *   mappings of segments        would keep the space of removed ones from the disk, for as long as the child
 *                               lives: it lets go of them, and opens anew what it reads. Where the keydir is
 *                               private they stay: see hold_segments()
 *   the lock file               is one open file description, shared with the parent: each would
 *                               look alive as long as the other is. The child opens it anew, takes a
 *                               process slot of its own, and only then closes what it inherited; so
 *                               at no moment does the store look unused to one who opens it
 *
 * What lies in shared memory needs nothing: locks and pins there name the parent's slot, and are
 * the parent's. But iterations that were open go on in the child too: it takes pins beside theirs. Where
 * the parent lets go of one before, snapshot_check() tells.
 *
 * A store whose opening was under way in another thread will never be used by the child, which only
 * lets go of its lock file. Where a slot or the lock file cannot be had (descriptors or slots ran
 * out, the file was removed), the store is closed in the child, and calls say so. */
#include "store.h"

static pthread_mutex_t stores_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pykv_store *stores;       /* all that are open, or being opened */

/* Whether the store has more than its lock file. Under its close_mutex this does not change. */
static bool in_use(const struct pykv_store *store) { return atomic_load(&store->closing) <= 0; }

static void before(void)
{
    pthread_mutex_lock(&stores_mutex);
    for (struct pykv_store *store = stores; store != NULL; store = store->next) {
        if (!atomic_load(&store->opened))
            continue;
        pthread_mutex_lock(&store->close_mutex);
        if (in_use(store))
            pthread_mutex_lock(&store->log.mutex);
    }
}

static void after(void)
{
    for (struct pykv_store *store = stores; store != NULL; store = store->next) {
        if (!atomic_load(&store->opened))
            continue;
        if (in_use(store))
            pthread_mutex_unlock(&store->log.mutex);
        atomic_store(&store->forked, true);
        pthread_mutex_unlock(&store->close_mutex);
    }
    pthread_mutex_unlock(&stores_mutex);
}

/* A slot of the child's own. The inherited description goes last. */
static int join_anew(struct pykv_store *store)
{
    const struct os *os = store->os;
    struct process parent = store->process;
    struct os_stat was, is;
    store->process.lock_fd = -1;
    int error = os->file_open(os, store->dir, LOCK_NAME, OS_READ_WRITE, 0, &store->process.lock_fd);
    if (error == 0 && (error = os->file_stat(os, parent.lock_fd, &was)) == 0)
        error = os->file_stat(os, store->process.lock_fd, &is);
    int status = error != 0 ? error_os(error, LOCK_NAME, 0, "open") : PYKV_OK;
    if (status == PYKV_OK && (was.device != is.device || was.inode != is.inode))
        status = error_set(PYKV_BUSY, 0, LOCK_NAME, 0, "the file lock was replaced");
    if (status == PYKV_OK)
        status = process_join(&store->process);
    if (status == PYKV_OK) {
        store_inherit(store);
        if (store->space.writable)
            shared_pins_copy(store->shared, parent.slot, store->process.slot);
    }
    (void)os->file_close(os, parent.lock_fd);
    return status;
}

static void begin_anew(struct pykv_store *store)
{
    for (size_t i = 0; i < CALL_STRIPES; i++)
        atomic_store(&store->stripes[i].calls, 0);
    atomic_store(&store->ahead.thread, NULL);
    atomic_store(&store->keeper.thread, NULL);
    atomic_store(&store->helpers_stop, 0);
    atomic_store(&store->looked_until, 0);
    atomic_store(&store->closing, -1);
    if (!store->private)
        log_drop(&store->log);
    atomic_store(&store->forked, false);
    if (store->process.lock_fd >= 0 && join_anew(store) != PYKV_OK) {
        store_release(store);
        atomic_store(&store->closing, 2);
    }
}

static void after_in_child(void)
{
    struct pykv_store **link = &stores, *store;
    after();                            /* as the parent did; nobody else is here to come between */
    while ((store = *link) != NULL) {
        if (!atomic_load(&store->opened)) {
            if (store->process.lock_fd >= 0)
                (void)store->os->file_close(store->os, store->process.lock_fd);
            *link = store->next;
            continue;
        }
        if (in_use(store))
            begin_anew(store);
        link = &store->next;
    }
}

static void watch(void) { (void)pthread_atfork(before, after, after_in_child); }

void fork_watch(struct pykv_store *store)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, watch);
    pthread_mutex_lock(&stores_mutex);
    store->next = stores;
    stores = store;
    pthread_mutex_unlock(&stores_mutex);
}

void fork_forget(struct pykv_store *store)
{
    pthread_mutex_lock(&stores_mutex);
    for (struct pykv_store **link = &stores; *link != NULL; link = &(*link)->next)
        if (*link == store) {
            *link = store->next;
            break;
        }
    pthread_mutex_unlock(&stores_mutex);
}
