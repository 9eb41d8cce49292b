/* store.c -- opening and closing a store. To open is to attach to the keydir of this boot, if it is
 * there and intact, and else to build it (recover.c). Openers take turns by a lock on the file
 * `lock`, so that one builds and the others attach. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

#define GROWING_SIZE_MIN (UINT64_C(4) << 20)    /* of segments that grow with the log */
#define GROWING_SIZE_MAX (UINT64_C(128) << 20)
#define SEGMENT_SIZE_MIN (UINT64_C(64) << 10)
#define KEYDIR_LARGE (UINT64_C(1) << 20)    /* bytes that it may have whatever it holds */
#define DISK_SIZE_MIN (UINT64_C(1) << 20)
#define SEGMENT_SIZE_MAX (UINT64_C(1) << 30)
#define SPACE_PERCENT_DEFAULT 200u
#define SPACE_PERCENT_MIN 110u
#define SPACE_PERCENT_MAX 10000u
#define INTERVAL_MS_DEFAULT 1000u
#define INTERVAL_MS_MAX 3600000u
#define DYING_MS 500u           /* a process that is being ended has let go of its files by then */

const char *pykv_version_string(void) { return "0.1.0"; }

/* ---- Names ---- */

/* Ten digits, or more without a zero in front: each number has one name, so that no file is taken for
 * another one of the same number. */
static bool numbered(const char *name, const char *prefix, uint64_t *number)
{
    size_t size = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, size) != 0 || name[size] < '0' || name[size] > '9' || strlen(name + size) < 10 ||
        (strlen(name + size) > 10 && name[size] == '0'))
        return false;
    errno = 0;
    unsigned long long value = strtoull(name + size, &end, 10);
    *number = value;
    return *end == '\0' && errno == 0 && value != 0;
}

char store_classify(const char *name, uint64_t *number)
{
    if (numbered(name, "segment-", number) && *number <= SEGMENT_ID_MAX)
        return 's';
    if (numbered(name, "checkpoint-", number))
        return 'c';
    if (strcmp(name, MANIFEST_NAME) == 0)
        return 'm';
    return strcmp(name, KEYDIR_NAME) == 0 || strcmp(name, KEYDIR_TEMPORARY) == 0 || strcmp(name, LOCK_NAME) == 0 ||
                   strcmp(name, MANIFEST_TEMPORARY) == 0 || strcmp(name, "checkpoint.tmp") == 0 ||
                   strcmp(name, RESERVE_NAME) == 0 || strcmp(name, SCRATCH_NAME) == 0
               ? 'o' : 0;
}

struct contents { bool store, lock, foreign; uint64_t newest; char first_foreign[256]; };

static int note_contents(void *context, const char *name)
{
    struct contents *contents = context;
    uint64_t number;
    char kind = store_classify(name, &number);
    contents->store |= kind == 'm' || kind == 's';
    contents->lock |= strcmp(name, LOCK_NAME) == 0;
    if (kind == 's' && number > contents->newest && number < SEGMENT_ID_MAX)
        contents->newest = number;
    if (kind == 0 && !contents->foreign) {
        contents->foreign = true;
        strncpy(contents->first_foreign, name, sizeof contents->first_foreign - 1);
    }
    return 0;
}

/* New files get the mode that those of an existing store have, so that one which a group shares stays
 * so, whoever opens it. The lock file tells it, which is never made anew, or else the newest segment. */
static int adopt_mode(struct pykv_store *store, const struct contents *contents)
{
    const struct os *os = store->os;
    char name[32] = LOCK_NAME;
    struct os_stat stat = { .mode = 0 };
    int fd;
    if (!contents->lock && contents->newest == 0)
        return PYKV_OK;
    if (!contents->lock)
        log_segment_name(contents->newest, name);
    int error = os->file_open(os, store->dir, name, OS_READ_LINKED, 0, &fd);
    if (error == ENOENT || error == EACCES || error == EPERM)
        return PYKV_OK;             /* who may not read it will not get to make files */
    if (error == 0) {
        error = os->file_stat(os, fd, &stat);
        (void)os->file_close(os, fd);
    }
    if (error != 0)
        return error_os(error, name, 0, "examine");
    store->options.file_mode = (stat.mode & 0777) | 0600;
    return PYKV_OK;
}

static int check_contents(struct pykv_store *store)
{
    struct contents contents = { .store = false };
    int error = store->os->dir_list(store->os, store->dir, note_contents, &contents);
    if (error != 0)
        return error_os(error, store->path, 0, "list");
    int status = adopt_mode(store, &contents);
    if (status != PYKV_OK || contents.store)
        return status;
    if (store->options.flag == PYKV_FLAG_READ || store->options.flag == PYKV_FLAG_WRITE)
        return error_set(PYKV_MISSING, ENOENT, store->path, 0, "there is no store in %s", store->path);
    if (contents.foreign)
        return error_set(PYKV_NOT_A_STORE, 0, store->path, 0,
                         "%s holds %s, which is not pykv's: a new store wants an empty directory", store->path,
                         contents.first_foreign);
    return PYKV_OK;
}

/* ---- Calls in flight ---- */

static _Thread_local uint32_t thread_stripe;
static _Atomic uint32_t stripe_next;

static struct call_stripe *my_stripe(struct pykv_store *store)
{
    if (__builtin_expect(thread_stripe == 0, 0))
        thread_stripe = 1 + atomic_fetch_add(&stripe_next, 1) % CALL_STRIPES;
    return &store->stripes[thread_stripe - 1];
}

/* The helpers of a child begin with its first call: most children make none. False: the store is closing. */
static bool first_after_fork(struct pykv_store *store)
{
    int closing = -1;
    if (atomic_compare_exchange_strong(&store->closing, &closing, 0) && !store->private)
        maintain_start(store);
    return closing <= 0;
}

int store_enter(struct pykv_store *store)
{
    if (__builtin_expect(store == NULL, 0))
        return error_set(PYKV_CLOSED, 0, NULL, 0, "the store is closed");
    struct call_stripe *stripe = my_stripe(store);
    atomic_fetch_add(&stripe->calls, 1);    /* sequentially consistent, as is `closing`: one sees the other */
    if (__builtin_expect(atomic_load(&store->closing) == 0, 1) || first_after_fork(store))
        return PYKV_OK;
    atomic_fetch_sub(&stripe->calls, 1);
    return error_set(PYKV_CLOSED, 0, store->path, 0, "the store %s is closed", store->path);
}

void store_leave(struct pykv_store *store)
{
    atomic_fetch_sub_explicit(&my_stripe(store)->calls, 1, memory_order_release);
}

static void wait_for_calls(struct pykv_store *store)
{
    const uint32_t never = 0;
    for (size_t i = 0; i < CALL_STRIPES; i++)
        while (atomic_load_explicit(&store->stripes[i].calls, memory_order_acquire) != 0)
            store->os->wait(store->os, &never, 0, 1);
}

/* ---- Opening ---- */

/* Where there may be little of it, in pieces of which some can be given back. */
static uint64_t growing_size_max(uint64_t disk_size_max)
{
    uint64_t part = disk_size_max / 16 & ~UINT64_C(0xFFFF);
    if (disk_size_max == 0 || part >= GROWING_SIZE_MAX)
        return GROWING_SIZE_MAX;
    return part < SEGMENT_SIZE_MIN ? SEGMENT_SIZE_MIN : part;
}

static int check_options(const char *path, const struct pykv_options *given, struct pykv_options *out)
{
    *out = *given;
    if (out->space_percent == 0)
        out->space_percent = SPACE_PERCENT_DEFAULT;
    if (out->interval_ms == 0)
        out->interval_ms = INTERVAL_MS_DEFAULT;
    if (out->file_mode == 0)
        out->file_mode = 0600;
    if (path[0] == '\0' || strlen(path) >= sizeof((struct pykv_store *)0)->path)
        return error_set(PYKV_INVALID, 0, NULL, 0, "a path has 1 to %zu bytes, not %zu",
                         sizeof((struct pykv_store *)0)->path - 1, strlen(path));
    if (out->repair == PYKV_REPAIR_ASIDE && out->flag != PYKV_FLAG_READ)
        return error_set(PYKV_INVALID, 0, NULL, 0, "a repair aside is for reading");
    if (out->flag < PYKV_FLAG_READ || out->flag > PYKV_FLAG_NEW || out->durability < PYKV_DURABILITY_PROCESS ||
        out->durability > PYKV_DURABILITY_COMMIT || (out->io != PYKV_IO_MMAP && out->io != PYKV_IO_PREAD))
        return error_set(PYKV_INVALID, 0, NULL, 0, "flag, durability or io has no such value");
    if (out->segment_size != 0 && (out->segment_size < SEGMENT_SIZE_MIN || out->segment_size > SEGMENT_SIZE_MAX))
        return error_set(PYKV_INVALID, 0, NULL, 0, "segment_size must be from 64 KiB to 1 GiB, not %llu bytes",
                         (unsigned long long)out->segment_size);
    if (out->disk_size_max != 0 && out->disk_size_max < DISK_SIZE_MIN)
        return error_set(PYKV_INVALID, 0, NULL, 0, "disk_size_max must be 1 MiB or more, not %llu bytes",
                         (unsigned long long)out->disk_size_max);
    if (out->space_percent < SPACE_PERCENT_MIN || out->space_percent > SPACE_PERCENT_MAX)
        return error_set(PYKV_INVALID, 0, NULL, 0, "space_percent must be from %u to %u, not %u", SPACE_PERCENT_MIN,
                         SPACE_PERCENT_MAX, out->space_percent);
    if (out->interval_ms > INTERVAL_MS_MAX || (out->file_mode & ~0777u) != 0 || (out->file_mode & 0600) != 0600)
        return error_set(PYKV_INVALID, 0, NULL, 0, "interval_ms or file_mode is out of its range");
    return PYKV_OK;
}

uint32_t store_directory_mode(uint32_t file_mode) { return file_mode | (file_mode & 0444) >> 2; }

static int open_directory(struct pykv_store *store)
{
    bool create = store->options.flag == PYKV_FLAG_CREATE || store->options.flag == PYKV_FLAG_NEW;
    int error = store->os->dir_open(store->os, store->path, create, store_directory_mode(store->options.file_mode),
                                    &store->dir);
    if (error == ENOENT)
        return error_set(PYKV_MISSING, error, store->path, 0,
                         create ? "the directory above %s does not exist" : "there is no store at %s", store->path);
    if (error == ENOTDIR)
        return error_set(PYKV_NOT_A_STORE, error, store->path, 0, "%s is not a directory", store->path);
    return error == 0 ? PYKV_OK : error_os(error, store->path, 0, "open");
}

/* For who must not touch anything: only a look whether somebody has the store open. */
static int check_unused(struct pykv_store *store)
{
    bool others = false;
    int error = store->os->file_open(store->os, store->dir, LOCK_NAME, OS_READ, 0, &store->process.lock_fd);
    if (error != 0) {
        store->process.lock_fd = -1;
        return error == ENOENT ? PYKV_OK : error_os(error, LOCK_NAME, 0, "open");
    }
    int status = process_others(&store->process, &others);
    (void)store->os->file_close(store->os, store->process.lock_fd);
    store->process.lock_fd = -1;
    return status == PYKV_OK && others ? error_set(PYKV_BUSY, 0, store->path, 0, "the store %s is open: close it first", store->path)
                                       : status;
}

/* Without permission to write the lock file a reader does without it, and shares nothing. */
static int open_lock(struct pykv_store *store)
{
    bool reader = store->options.flag == PYKV_FLAG_READ;
    if (store->options.repair == PYKV_REPAIR_ASIDE)
        return check_unused(store);
    int error = store->os->file_open(store->os, store->dir, LOCK_NAME, OS_OPEN_OR_CREATE, store->options.file_mode,
                                     &store->process.lock_fd);
    if (error == 0)
        return PYKV_OK;
    store->process.lock_fd = -1;
    return reader && (error == EACCES || error == EPERM || error == EROFS) ? PYKV_OK
                                                                          : error_os(error, LOCK_NAME, 0, "open");
}

static int start_log(struct pykv_store *store)
{
    struct log *log = &store->log;
    log->os = store->os;
    log->dir = store->dir;
    log->shared = store->shared;
    log->process = &store->process;
    log->segment_size_min = log->segment_size_max = store->options.segment_size;
    if (store->options.segment_size == 0) {
        log->segment_size_max = growing_size_max(store->options.disk_size_max);
        log->segment_size_min = log->segment_size_max < GROWING_SIZE_MIN ? log->segment_size_max : GROWING_SIZE_MIN;
    }
    log->disk_size_max = store->options.disk_size_max;
    log->file_mode = store->options.file_mode;
    log->writable = !store->read_only;
    log->pread = store->options.io == PYKV_IO_PREAD;
    log->salvage = store->options.repair == PYKV_REPAIR_ASIDE;
    int status = log_init(log);
    store->log_ready = status == PYKV_OK;
    return status;
}

static int map_shared(struct pykv_store *store)
{
    void *memory;
    int status = space_map(&store->space, 0, SHARED_SIZE, &memory);
    if (status == PYKV_OK)
        store->shared = memory;
    return status;
}

static void drop_space(struct pykv_store *store)
{
    keydir_close(store->keydir);
    store->keydir = NULL;
    if (store->log_ready)
        log_release(&store->log);
    store->log_ready = false;
    if (store->shared != NULL)
        store->os->unmap(store->os, store->shared, SHARED_SIZE);
    store->shared = NULL;
    if (store->space.fd >= 0)
        (void)store->os->file_close(store->os, store->space.fd);
    store->space.fd = -1;
}

/* A keydir that knows less of the log than the manifest is an old one that somebody put back. */
static int check_age(struct pykv_store *store)
{
    struct manifest manifest;
    int status = manifest_read(store->os, store->dir, &manifest);
    if (status == PYKV_MISSING || status == PYKV_CORRUPT)
        return PYKV_OK;             /* verification tells of it, and an open that needs it */
    if (status != PYKV_OK)
        return status;
    bool older = manifest.durable > atomic_load(&store->shared->durable);
    manifest_release(store->os, &manifest);
    return older ? PYKV_NOT_FOUND : PYKV_OK;
}

/* A reader without a process slot: the last writer out leaves the keydir where it is while it is held, and
 * else takes its name away first. So if it still has its name, it stays. */
static int hold_reading(struct pykv_store *store, uint64_t inode)
{
    const struct os *os = store->os;
    struct os_stat stat = { .inode = 0 };
    int fd;
    process_hold_reading(&store->process, store->space.fd);
    int error = os->file_open(os, store->dir, KEYDIR_NAME, OS_READ, 0, &fd);
    if (error == 0) {
        error = os->file_stat(os, fd, &stat);
        (void)os->file_close(os, fd);
    }
    if (error != 0 && error != ENOENT)
        return error_os(error, KEYDIR_NAME, 0, "open");
    return stat.inode == inode ? PYKV_OK : PYKV_NOT_FOUND;
}

/* PYKV_NOT_FOUND: there is no keydir of this boot, this machine and this directory. */
static int attach(struct pykv_store *store)
{
    const struct os *os = store->os;
    struct shared_identity identity;
    struct os_identity boot;
    struct os_stat stat;
    size_t done = 0;
    bool writable = store->process.lock_fd >= 0;
    int error = os->file_open(os, store->dir, KEYDIR_NAME, writable ? OS_READ_WRITE : OS_READ, 0, &store->space.fd);
    if (error != 0)
        return error == ENOENT || !writable ? PYKV_NOT_FOUND : error_os(error, KEYDIR_NAME, 0, "open");
    store->space = (struct space){ .os = os, .fd = store->space.fd, .writable = writable, .name = KEYDIR_NAME };
    if ((error = os->file_stat(os, store->space.fd, &stat)) != 0 || (error = os->boot_id(os, &boot)) != 0 ||
        (error = os->file_read(os, store->space.fd, &identity, sizeof identity, 0, &done)) != 0)
        return error_os(error, KEYDIR_NAME, 0, "read");
    if (done != sizeof identity || stat.size < SHARED_SIZE || !shared_identity_matches(&identity, &boot, &stat))
        return PYKV_NOT_FOUND;
    int status = writable ? PYKV_OK : hold_reading(store, stat.inode);
    if (status != PYKV_OK)
        return status;
    memcpy(store->log.store_id, identity.store_id, 16);
    memcpy(store->log.hash_key, identity.hash_key, 16);
    store->hash_key = (struct hash_key){ get_u64(identity.hash_key), get_u64(identity.hash_key + 8) };
    status = map_shared(store);
    if (status == PYKV_OK)
        status = keydir_open(os, &store->space, &store->shared->keydir, &store->keydir);
    if (status == PYKV_CORRUPT)
        return PYKV_NOT_FOUND;      /* the log knows better */
    if (status == PYKV_OK && atomic_load(&store->shared->sync_failed) == 0)
        status = check_age(store);  /* else it is there to tell of the failed sync, whatever its age */
    return status == PYKV_OK ? start_log(store) : status;
}

/* Say whose the new keydir is, and give it its name. */
static int publish_keydir(struct pykv_store *store)
{
    const struct os *os = store->os;
    struct shared_identity *identity = &store->shared->identity;
    struct os_identity boot;
    struct os_stat stat;
    int error;
    if ((error = os->boot_id(os, &boot)) != 0 || (error = os->file_stat(os, store->space.fd, &stat)) != 0)
        return error_os(error, KEYDIR_NAME, 0, "identify");
    memcpy(identity->boot_id, boot.bytes, 16);
    memcpy(identity->store_id, store->log.store_id, 16);
    memcpy(identity->hash_key, store->log.hash_key, 16);
    identity->device = stat.device;
    identity->inode = stat.inode;
    shared_identity_seal(identity);
    error = os->file_rename(os, store->dir, KEYDIR_TEMPORARY, KEYDIR_NAME);
    return error == 0 ? PYKV_OK : error_os(error, KEYDIR_NAME, 0, "rename");
}

/* Who has a keydir of its own sees an instant, of which others know nothing: they may remove what it has. */
static int hold_segments(struct pykv_store *store)
{
    struct segment *segment;
    int status = PYKV_OK;
    for (uint32_t slot = 0; slot < SEGMENT_SLOT_COUNT && (status == PYKV_OK || status == PYKV_CORRUPT); slot++)
        if (atomic_load(&store->shared->segments[slot].id) != 0)
            status = log_segment(&store->log, slot, &segment);
    return status == PYKV_CORRUPT ? PYKV_OK : status;   /* whoever reads there is told */
}

/* A fresh space, in a file of its own or in private memory; then what the directory tells. */
static int build(struct pykv_store *store)
{
    const struct os *os = store->os;
    store->private = store->process.lock_fd < 0;
    store->space = (struct space){ .os = os, .fd = -1, .writable = true, .name = KEYDIR_NAME };
    int status = PYKV_OK, error;
    if (!store->private) {
        /* The old one is of no use to anybody, and on a full disk its room and the reserve's is all there
         * is. But one that tells of a failed sync stays until all has been written anew. */
        if (!store->rewrite_tail)
            (void)os->file_remove(os, store->dir, KEYDIR_NAME);
        /* One that tried before us failed or died, perhaps at a sync: what it believed to be on its
         * way to the disk may be clean in memory and missing there. */
        if (os->file_remove(os, store->dir, KEYDIR_TEMPORARY) == 0)
            store->rewrite_tail = true;
        (void)os->file_remove(os, store->dir, RESERVE_NAME);
        error = os->file_open(os, store->dir, KEYDIR_TEMPORARY, OS_CREATE, store->options.file_mode, &store->space.fd);
        if (error != 0)
            return error_os(error, KEYDIR_TEMPORARY, 0, "create");
        status = space_reserve(&store->space, 0, SHARED_SIZE);
    }
    if (status == PYKV_OK)
        status = map_shared(store);
    if (status != PYKV_OK)
        return status;
    atomic_store(&store->shared->keydir.space_end, SHARED_SIZE);
    atomic_store(&store->shared->reserve_lent, 1);  /* whoever writes first makes it */
    status = keydir_open(os, &store->space, &store->shared->keydir, &store->keydir);
    if (status == PYKV_OK && store->options.expected_keys != 0)
        status = keydir_reserve(store->keydir, store->options.expected_keys);
    if (status == PYKV_OK)
        status = start_log(store);
    if (status != PYKV_OK)
        return status;
    store->log.writable = !store->private;
    status = recover(store);
    if (status != PYKV_OK && atomic_load(&store->shared->sync_failed) != 0) {
        struct pykv_error kept = *pykv_last_error();
        (void)publish_keydir(store);    /* so that the next open in this boot knows of it */
        return error_set(kept.status, kept.os_errno, kept.path, kept.offset, "%s", kept.message);
    }
    if (status == PYKV_OK && store->private)
        status = hold_segments(store);
    if (status != PYKV_OK || store->private)
        return status;
    /* A repair lasts: behind a checkpoint no later recovery meets the damage again. */
    if (atomic_load(&store->damaged_records) != 0)
        (void)checkpoint_write(store);
    store->log.writable = !store->read_only;
    return publish_keydir(store);
}

/* Nobody else is here: forget what the dead have left, and finish what they began. */
static int settle_alone(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    for (size_t i = 0; i < PIN_COUNT; i++)
        atomic_store(&shared->pins[i].owner, 0);
    atomic_store(&shared->pin_limit, 0);
    struct shared_lock *locks[] = { &shared->writer, &shared->extend, &shared->sync, &shared->maintain };
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++)
        atomic_store(&locks[i]->word, 0);
    if (store->read_only)
        return PYKV_OK;     /* the next writer repairs; readers step back over what is half done */
    int status = store_lock(store);
    if (status != PYKV_OK)
        return status;
    store_unlock(store);
    return PYKV_OK;
}

void store_inherit(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    struct shared_lock *locks[] = { &shared->writer, &shared->extend, &shared->sync, &shared->maintain };
    if (!store->space.writable)
        return;
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++)
        if (shared_lock_inherit(locks[i], &store->process))
            shared_lock_release(locks[i], &store->process);
    shared_unpin_process(shared, store->process.slot);
}

/* There is no keydir. If it is a backup: who only reads it leaves it as it is, with a keydir in memory of
 * its own, so that it can be brought up to date later; the lock of its process slot keeps writers away
 * meanwhile. Who writes makes it a store (recover.c). */
static int look_for_backup(struct pykv_store *store)
{
    struct manifest manifest;
    int status = manifest_read(store->os, store->dir, &manifest);
    if (status == PYKV_MISSING || status == PYKV_CORRUPT)
        return PYKV_OK;             /* recovery's to judge */
    if (status != PYKV_OK)
        return status;
    uint32_t kind = manifest.kind;
    manifest_release(store->os, &manifest);
    if (kind == MANIFEST_STORE || store->process.lock_fd < 0)
        return PYKV_OK;
    if ((status = process_backup_lock(&store->process)) != PYKV_OK)
        return status;              /* ours until the lock file is closed or the slot is ours */
    if (kind == MANIFEST_BACKUP && store->read_only && (status = process_join(&store->process)) == PYKV_OK) {
        process_backup_unlock(&store->process);
        process_setup_unlock(&store->process);
        store->backup_lock = store->process.lock_fd;
        store->process.lock_fd = -1;
        store->process.slot = 0;
    } else {
        process_backup_unlock(&store->process);
    }
    return status;
}

/* Of one that the lock file does not tell of: it was removed. Or he is just dying, since the system closes his
 * files one after the other: so we wait a moment. */
static int check_unheld(struct pykv_store *store)
{
    const uint32_t never = 0;
    bool held = false;
    int status = process_holds(&store->process, store->space.fd, &held);
    for (uint32_t waited = 0; status == PYKV_OK && held && waited < DYING_MS; waited++) {
        store->os->wait(store->os, &never, 0, 1);
        status = process_holds(&store->process, store->space.fd, &held);
    }
    if (status == PYKV_OK && held)
        status = error_set(PYKV_BUSY, 0, store->path, 0,
                           "the store %s is in use, but its file lock was removed: close it everywhere first", store->path);
    return status;
}

static int attach_or_build(struct pykv_store *store)
{
    bool others = false;
    int status = PYKV_OK;
    if (store->process.lock_fd >= 0 && (status = process_others(&store->process, &others)) != PYKV_OK)
        return status;
    if (store->process.lock_fd >= 0 && store->options.flag == PYKV_FLAG_NEW && !others) {
        if ((status = process_backup_lock(&store->process)) != PYKV_OK)
            return status;          /* one is being written there */
        process_backup_unlock(&store->process);
        if ((status = store_remove_files(store)) != PYKV_OK)
            return status;
    }
    status = store->options.repair == PYKV_REPAIR_ASIDE ? PYKV_NOT_FOUND : attach(store);
    if (status == PYKV_NOT_FOUND && store->process.lock_fd < 0 && store->options.repair != PYKV_REPAIR_ASIDE) {
        drop_space(store);          /* perhaps it was put aside for a moment */
        status = attach(store);
    }
    if (status == PYKV_OK && !others && store->process.lock_fd >= 0 && (status = check_unheld(store)) != PYKV_OK)
        return status;
    if (status == PYKV_OK && !others && atomic_load(&store->shared->sync_failed) != 0 && store->process.lock_fd >= 0) {
        store->rewrite_tail = true;
        status = PYKV_NOT_FOUND;
    }
    if (status == PYKV_OK && !others && store->options.repair && store->process.lock_fd >= 0)
        status = PYKV_NOT_FOUND;    /* to repair is to build anew from what is whole */
    if (status == PYKV_NOT_FOUND) {
        drop_space(store);
        if ((status = look_for_backup(store)) != PYKV_OK)
            return status;
        if (others && store->backup_lock < 0)
            return error_set(PYKV_BUSY, 0, store->path, 0,
                             "the store %s is in use by processes of another machine or boot, or its keydir was removed",
                             store->path);
        status = build(store);
        if (status == PYKV_FULL && store->read_only && !store->private) {
            /* No room for what is shared: a reader can do with memory of its own. */
            drop_space(store);
            (void)store->os->file_close(store->os, store->process.lock_fd);
            store->process.lock_fd = -1;
            status = build(store);
        }
    } else if (status == PYKV_OK && store->process.lock_fd >= 0 && !others) {
        status = settle_alone(store);
    }
    if (status == PYKV_OK && store->process.lock_fd >= 0)
        status = process_join(&store->process);
    if (status == PYKV_OK && store->process.lock_fd >= 0)
        status = process_hold(&store->process, store->space.fd);
    if (status == PYKV_OK && store->process.lock_fd >= 0 && others)
        store_inherit(store);
    return status;
}

static int open_store(struct pykv_store *store)
{
    int status = open_directory(store);
    if (status == PYKV_OK)
        status = check_contents(store);
    if (status == PYKV_OK)
        status = open_lock(store);
    if (status == PYKV_OK && store->process.lock_fd >= 0)
        status = process_setup_lock(&store->process);
    if (status != PYKV_OK)
        return status;
    status = attach_or_build(store);
    if (store->process.lock_fd >= 0)
        process_setup_unlock(&store->process);
    if (status == PYKV_OK && !store->private)
        maintain_start(store);
    if (status == PYKV_OK && store->options.flag == PYKV_FLAG_NEW)
        status = pykv_clear(store, PYKV_DURABILITY_DEFAULT);
    return status;
}

void store_release(struct pykv_store *store)
{
    drop_space(store);
    /* Closed, and not unlocked: a child that was forked a moment ago has the same description open
     * until it has a slot of its own, and until then the store is in use. */
    if (store->process.lock_fd >= 0)
        (void)store->os->file_close(store->os, store->process.lock_fd);
    if (store->backup_lock >= 0)
        (void)store->os->file_close(store->os, store->backup_lock);
    store->process.lock_fd = store->backup_lock = -1;
    store->os->release(store->os, store->met);
    store->met = NULL;
    store->met_count = 0;
    if (store->dir >= 0)
        (void)store->os->file_close(store->os, store->dir);
    store->dir = -1;
}

int pykv_open_with(const struct os *os, const char *path, const struct pykv_options *options, struct pykv_store **out)
{
    struct pykv_options checked;
    uint64_t start = os->monotonic_ns(os);
    int status = check_options(path, options, &checked);
    if (status != PYKV_OK)
        return status;
    struct pykv_store *store = os->alloc(os, sizeof *store);
    if (store == NULL)
        return error_no_memory(sizeof *store);
    store->os = os;
    strcpy(store->path, path);
    store->options = checked;
    store->read_only = checked.flag == PYKV_FLAG_READ;
    store->dir = store->space.fd = store->backup_lock = -1;
    store->process = (struct process){ .os = os, .lock_fd = -1 };
    atomic_store(&store->references, 1);
    pthread_mutex_init(&store->close_mutex, NULL);
    fork_watch(store);
    status = open_store(store);
    if (status != PYKV_OK) {
        struct pykv_error kept = *pykv_last_error();
        atomic_store(&store->closing, 2);
        maintain_stop(store);
        fork_forget(store);
        store_release(store);
        pthread_mutex_destroy(&store->close_mutex);
        os->release(os, store);
        return error_set(kept.status, kept.os_errno, kept.path, kept.offset, "%s", kept.message);
    }
    store->open_us = (os->monotonic_ns(os) - start) / 1000;
    atomic_store(&store->opened, true);
    *out = store;
    return PYKV_OK;
}

int pykv_open(const char *path, const struct pykv_options *options, struct pykv_store **out)
{
    return pykv_open_with(&os_posix, path, options, out);
}

/* ---- The manifest ---- */

int store_write_manifest(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    struct manifest manifest = { .durable = atomic_load(&shared->durable) };
    manifest.segments = store->os->alloc(store->os, SEGMENT_SLOT_COUNT * sizeof *manifest.segments);
    if (manifest.segments == NULL)
        return error_no_memory(SEGMENT_SLOT_COUNT * sizeof *manifest.segments);
    memcpy(manifest.store_id, store->log.store_id, 16);
    memcpy(manifest.hash_key, store->log.hash_key, 16);
    /* Under the lock, so that no segment is between its number and its entry: one that has a number
     * below segment_id_next and is not listed counts as given up. */
    int status = store_lock(store);
    if (status != PYKV_OK) {
        manifest_release(store->os, &manifest);
        return status;
    }
    manifest.segment_id_next = shared->segment_id_next;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        uint64_t id = atomic_load(&shared->segments[i].id);
        bool synced = atomic_load(&shared->segments[i].synced) != 0;
        if (id == 0 || (!synced && atomic_load(&shared->segments[i].kind) == SEGMENT_COMPACTED))
            continue;       /* what compaction has not finished does not count */
        size_t at = manifest.count++;
        for (; at > 0 && manifest.segments[at - 1].id > id; at--)
            manifest.segments[at] = manifest.segments[at - 1];
        manifest.segments[at] = (struct manifest_segment){ .id = id, .length = synced ? atomic_load(&shared->segments[i].length) : 0 };
    }
    store_unlock(store);
    status = manifest_write(store->os, store->dir, store->options.file_mode, &manifest);
    if (status == PYKV_FULL && reserve_lend(store))
        status = manifest_write(store->os, store->dir, store->options.file_mode, &manifest);
    if (status == PYKV_OK)
        atomic_store(&shared->manifest_position, manifest.durable);
    manifest_release(store->os, &manifest);
    return status;
}

/* ---- Closing ---- */

/* The keydir has outgrown what it holds by far: most keys that it was made for are gone. */
static bool keydir_too_large(struct pykv_store *store)
{
    uint64_t keys = shared_counters(store->shared).keys, size = keydir_memory_size(store->keydir);
    keys = keys > store->options.expected_keys ? keys : store->options.expected_keys;
    return size > KEYDIR_LARGE && size / 4 > keys * 12;
}

/* Leave it out, for the next open to build from a checkpoint. Nobody else is here, and nobody comes as long
 * as we hold the openers' lock, but for readers who cannot lock: those hold the file itself.
 * Crash note: keydir.tmp makes the next recovery write the tail anew, which does no harm. */
static int drop_keydir(struct pykv_store *store)
{
    const struct os *os = store->os;
    bool died, readers = true;
    shared_lock_acquire(&store->shared->maintain, &store->process, &died);
    int status = checkpoint_write(store);
    shared_lock_release(&store->shared->maintain, &store->process);
    if (status == PYKV_OK)
        status = store_refused(store);
    if (status != PYKV_OK || os->file_rename(os, store->dir, KEYDIR_NAME, KEYDIR_TEMPORARY) != 0)
        return status;
    status = process_readers(&store->process, store->space.fd, &readers);
    int error = readers ? os->file_rename(os, store->dir, KEYDIR_TEMPORARY, KEYDIR_NAME)
                        : os->file_remove(os, store->dir, KEYDIR_TEMPORARY);
    return error == 0 ? status : error_os(error, KEYDIR_NAME, 0, "put aside");
}

/* Make all durable and say so in the manifest; the last one out, under the openers' lock. */
static int close_log(struct pykv_store *store)
{
    struct shared *shared = store->shared;
    bool others = true;
    int status = store_sync_to(store, atomic_load(&shared->tail));
    if (status != PYKV_OK || (status = process_setup_lock(&store->process)) != PYKV_OK)
        return status;
    status = process_others(&store->process, &others);
    if (status == PYKV_OK && !others && (status = store_mark(store)) == PYKV_OK)
        status = store_sync_to(store, atomic_load(&shared->tail));
    if (status == PYKV_OK && !others && atomic_load(&shared->manifest_position) != atomic_load(&shared->durable))
        status = store_write_manifest(store);
    if (status == PYKV_OK && !others && !atomic_load(&store->forked) && keydir_too_large(store) &&
        !atomic_load(&shared->compaction_paused) && store_refused(store) == PYKV_OK) {
        (void)drop_keydir(store);       /* it can wait for another time */
        status = store_refused(store);  /* but not what it may have learned of the disk */
    }
    process_setup_unlock(&store->process);
    return status;
}

int pykv_close(struct pykv_store *store)
{
    int status = PYKV_OK;
    if (store == NULL)
        return PYKV_OK;
    pthread_mutex_lock(&store->close_mutex);
    if (atomic_load(&store->closing) <= 0) {
        atomic_store(&store->closing, 1);
        wait_for_calls(store);
        maintain_stop(store);
        if (store->process.lock_fd >= 0 && store->space.writable)
            shared_unpin_process(store->shared, store->process.slot);     /* of scans left open */
        if (!store->read_only && !store->private)
            status = close_log(store);
        store_release(store);
        atomic_store(&store->closing, 2);
    }
    pthread_mutex_unlock(&store->close_mutex);
    return status;
}

void store_drop(struct pykv_store *store)
{
    if (atomic_fetch_sub(&store->references, 1) != 1)
        return;
    pthread_mutex_destroy(&store->close_mutex);
    store->os->release(store->os, store);
}

void pykv_free(struct pykv_store *store)
{
    if (store == NULL)
        return;
    (void)pykv_close(store);
    fork_forget(store);
    store_drop(store);
}

/* ---- A new store in the place of an old one ---- */

struct emptying { struct pykv_store *store; bool all; };

/* What the old store can do without; or all but the lock and the manifest. */
static int remove_name(void *context, const char *name)
{
    const struct emptying *emptying = context;
    const struct os *os = emptying->store->os;
    uint64_t number;
    char kind = store_classify(name, &number);
    bool needed = kind == 's' || strcmp(name, KEYDIR_TEMPORARY) == 0;
    if (kind == 0 || strcmp(name, LOCK_NAME) == 0 || strcmp(name, MANIFEST_NAME) == 0 || (needed && !emptying->all))
        return 0;
    return os->file_remove(os, emptying->store->dir, name);
}

/* Say that the store is another one, and empty: the segments that are there were given up. */
static int write_empty_manifest(struct pykv_store *store, uint64_t newest)
{
    struct manifest manifest = { .segment_id_next = newest + 1 };
    uint8_t secrets[32];
    int error = store->os->random(store->os, secrets, sizeof secrets);
    if (error != 0)
        return error_os(error, NULL, 0, "get random bytes for");
    memcpy(manifest.store_id, secrets, 16);
    memcpy(manifest.hash_key, secrets + 16, 16);
    return manifest_write(store->os, store->dir, store->options.file_mode, &manifest);
}

/* What a later release wrote is not ours to remove. */
static int check_name(void *context, const char *name)
{
    struct pykv_store *store = context;
    uint8_t bytes[SEGMENT_HEADER_SIZE];
    struct segment_header header;
    uint64_t number;
    size_t done = 0;
    int fd;
    if (store_classify(name, &number) != 's' || store->os->file_open(store->os, store->dir, name, OS_READ_LINKED, 0, &fd) != 0)
        return 0;
    int error = store->os->file_read(store->os, fd, bytes, sizeof bytes, 0, &done);
    (void)store->os->file_close(store->os, fd);
    if (error == 0 && done == sizeof bytes && segment_header_decode(bytes, &header) == PYKV_NEWER_FORMAT)
        return error_set(PYKV_NEWER_FORMAT, 0, name, 8, "%s was written by a newer release of pykv", name);
    return 0;
}

static int check_format(struct pykv_store *store)
{
    struct manifest manifest;
    int status = manifest_read(store->os, store->dir, &manifest);
    manifest_release(store->os, &manifest);
    if (status == PYKV_NEWER_FORMAT)
        return status;
    int error = store->os->dir_list(store->os, store->dir, check_name, store);
    return error <= 0 ? error : error_os(error, store->path, 0, "list");
}

/* Crash note: until the new manifest has its name the old store is all there, though its keydir must
 * be built anew, by one who takes what the log holds for not yet synced, since the keydir that could
 * have told of a failed sync is gone: hence the empty keydir.tmp. From then on the store is empty, and
 * recovery removes the segments that we did not get to. Removing segments first would leave neither. */
int store_remove_files(struct pykv_store *store)
{
    const struct os *os = store->os;
    struct emptying emptying = { .store = store };
    struct contents contents = { .store = false };
    int status = check_format(store), fd = -1;
    if (status != PYKV_OK)
        return status;
    int error = os->dir_list(os, store->dir, note_contents, &contents);
    if (error == 0)
        error = os->file_open(os, store->dir, KEYDIR_TEMPORARY, OS_CREATE, store->options.file_mode, &fd);
    if (error == 0)
        (void)os->file_close(os, fd);
    if (error == 0 || error == EEXIST)
        error = os->dir_list(os, store->dir, remove_name, &emptying);
    if (error == 0 && contents.store && (status = write_empty_manifest(store, contents.newest)) != PYKV_OK)
        return status;
    emptying.all = true;
    if (error == 0)
        error = os->dir_list(os, store->dir, remove_name, &emptying);
    if (error == 0)
        error = os->dir_sync(os, store->dir);
    return error == 0 ? PYKV_OK : error_os(error, store->path, 0, "empty");
}
