/* backup.c -- a copy of one instant, in another directory, while others write.
 *
 * The instant is pinned as a snapshot is, so that no segment it needs is removed. Which segments those
 * are is noted at one moment under the maintain lock, when no compaction is under way: all of the log up
 * to the instant's position, and what compaction has finished. That is what a recovery would read after a
 * power cut at that moment, with the log durable exactly up to there; so a backup is no more than such a
 * directory, and is opened by the same recovery. What compaction has not finished is left out, since its
 * originals are there still; so is what waits only for older snapshots.
 *
 *     dest    |== 1 ==|== 2 ==|== 4 ==|-- 7 --|      one name more for the same file, or a copy; and of
 *             linked, as they never change    |      the last the bytes up to the instant, always a copy
 *
 * Linked is what the store's manifest lists as finished and is no longer than it says there: no recovery
 * of either store has a reason to write to such a file, and os.h refuses to open one for writing.
 *
 * Brought up to date, a backup keeps what it has of the segments that are still needed. They are taken for
 * the same if their headers, with a random number in each, their lengths and their last bytes agree. The
 * one that was cut off at the older instant is appended to. Nothing else in dest is written over:
 *
 *     lock dest, remove what its manifest does not list        left by a backup that died
 *     a first manifest that says "not finished", if there is none
 *     link or copy, append, sync each                          the older backup reads only what it lists,
 *                                                              and no further than its own instant
 *     sync the directory
 *     the new manifest, by a rename                            from here on it is the new backup
 *     remove what the new one does not list
 *
 * Turned down: checkpoints in the backup, which would make its first opening faster, and another state of
 * the table to be consistent with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

#define STEP_SIZE (UINT64_C(16) << 20)
#define COMPARE_SIZE 4096u

struct piece {                  /* a segment that dest lacks, or has the front of */
    uint64_t id, from, end;     /* bytes [from, end) are to be copied; from 0: all of it */
    bool fixed;                 /* it may be linked */
};

struct pykv_backup {
    struct pykv_store *store;
    const struct os *os;
    char path[512];
    int flags;
    int dir;
    struct process lock;        /* of dest */
    struct shared_counters instant;
    uint32_t pin;
    bool pinned, finished, synced;
    int failed;                 /* status of the first step that did: there is no going on */
    struct manifest before, after;  /* of dest */
    struct piece *pieces;
    size_t piece_count, next;
    uint64_t at;                /* offset in the piece that is being copied, 0: not begun */
    int from_fd, to_fd;
    struct pykv_backup_progress progress;
};

static const struct manifest_segment *find(const struct manifest *manifest, uint64_t id)
{
    for (size_t i = 0; i < manifest->count; i++)
        if (manifest->segments[i].id == id)
            return &manifest->segments[i];
    return NULL;
}

/* ---- The directory ---- */

struct contents { bool manifest, others; char foreign[256]; };

static int note_name(void *context, const char *name)
{
    struct contents *contents = context;
    uint64_t number;
    char kind = store_classify(name, &number);
    if (kind == 'm')
        contents->manifest = true;
    else if (kind == 's' || kind == 'c' || strcmp(name, KEYDIR_NAME) == 0)
        contents->others = true;
    else if (kind == 0 && contents->foreign[0] == '\0')
        strncpy(contents->foreign, name, sizeof contents->foreign - 1);
    return 0;
}

static const char *remedy(const struct pykv_backup *backup)
{
    return backup->flags & PYKV_BACKUP_RESTORE ? "restore to a new directory" : "a backup wants a directory of its own";
}

static int refuse(const struct pykv_backup *backup, const char *what)
{
    return error_set(PYKV_INVALID, 0, backup->path, 0, "%s %s: %s", backup->path, what, remedy(backup));
}

/* What is there must be nothing, or a backup of this store. */
static int check_contents(struct pykv_backup *backup)
{
    struct contents contents = { .manifest = false };
    int error = backup->os->dir_list(backup->os, backup->dir, note_name, &contents);
    if (error != 0)
        return error_os(error, backup->path, 0, "list");
    if (contents.foreign[0] != '\0')
        return error_set(PYKV_NOT_A_STORE, 0, backup->path, 0, "%s holds %s, which is not pykv's: %s", backup->path,
                         contents.foreign, remedy(backup));
    if (!contents.manifest)
        return contents.others ? refuse(backup, "holds a store") : PYKV_OK;
    int status = manifest_read(backup->os, backup->dir, &backup->before);
    if (status == PYKV_MISSING || status == PYKV_CORRUPT)
        return refuse(backup, "holds a store or backup that is damaged");
    if (status != PYKV_OK)
        return status;
    if (backup->before.kind == MANIFEST_STORE)
        return refuse(backup, "holds a store, or a backup that was opened for writing");
    if (memcmp(backup->before.store_id, backup->store->log.store_id, 16) != 0)
        return refuse(backup, "holds a backup of another store");
    if (backup->flags & PYKV_BACKUP_RESTORE && backup->before.kind == MANIFEST_BACKUP)
        return refuse(backup, "holds a backup");
    return PYKV_OK;
}

/* Nobody may have it open, nor write another backup there: until this one is closed. The openers' lock is
 * held too, as long as it may look like nothing or a store. */
static int lock_directory(struct pykv_backup *backup)
{
    const struct os *os = backup->os;
    bool others = false;
    int error = os->file_open(os, backup->dir, LOCK_NAME, OS_OPEN_OR_CREATE, backup->store->options.file_mode,
                              &backup->lock.lock_fd);
    if (error != 0) {
        backup->lock.lock_fd = -1;
        return error_os(error, LOCK_NAME, 0, "open");
    }
    int status = process_setup_lock(&backup->lock);
    if (status == PYKV_OK)
        status = process_backup_lock(&backup->lock);
    if (status == PYKV_OK)
        status = process_others(&backup->lock, &others);
    if (status == PYKV_OK && others)
        status = error_set(PYKV_BUSY, 0, backup->path, 0, "%s is open: close it first", backup->path);
    return status;
}

/* Left by a backup that died, or by one who began to open it for writing. */
static int remove_leftover(void *context, const char *name)
{
    struct pykv_backup *backup = context;
    uint64_t number;
    char kind = store_classify(name, &number);
    bool known = kind == 'm' || strcmp(name, LOCK_NAME) == 0 || (kind == 's' && find(&backup->before, number) != NULL);
    int error = kind == 0 || known ? 0 : backup->os->file_remove(backup->os, backup->dir, name);
    return error == ENOENT ? 0 : error;
}

static int begin_directory(struct pykv_backup *backup)
{
    manifest_release(backup->os, &backup->before);
    backup->before = (struct manifest){ .count = 0 };
    int status = check_contents(backup);        /* again, since nobody comes between any more */
    if (status != PYKV_OK)
        return status;
    int error = backup->os->dir_list(backup->os, backup->dir, remove_leftover, backup);
    if (error != 0)
        return error_os(error, backup->path, 0, "clear");
    if (backup->before.kind != MANIFEST_STORE)
        return PYKV_OK;
    struct manifest first = { .kind = MANIFEST_UNFINISHED };
    memcpy(first.store_id, backup->store->log.store_id, 16);
    memcpy(first.hash_key, backup->store->log.hash_key, 16);
    return manifest_write(backup->os, backup->dir, backup->store->options.file_mode, &first);
}

static int prepare_directory(struct pykv_backup *backup)
{
    uint32_t mode = backup->store->options.file_mode;
    int error = backup->os->dir_open(backup->os, backup->path, true, store_directory_mode(mode), &backup->dir);
    if (error == ENOENT)
        return error_set(PYKV_MISSING, error, backup->path, 0, "the directory above %s does not exist", backup->path);
    if (error == ENOTDIR)
        return error_set(PYKV_NOT_A_STORE, error, backup->path, 0, "%s is not a directory", backup->path);
    if (error != 0)
        return error_os(error, backup->path, 0, "open");
    int status = check_contents(backup);        /* before a lock file is put there */
    if (status == PYKV_OK)
        status = lock_directory(backup);
    if (status == PYKV_OK)
        status = begin_directory(backup);
    if (backup->lock.lock_fd >= 0)
        process_setup_unlock(&backup->lock);
    return status;
}

/* ---- The instant ---- */

/* Bytes of the segment that belong to it, 0: none do. */
static uint64_t length_at(const struct pykv_backup *backup, uint64_t id)
{
    const struct segment_entry *entry = segment_of(backup->store->shared, id);
    uint64_t last = position_segment(backup->instant.position), retired = atomic_load(&entry->retired);
    if (segment_retired(entry) && retired <= backup->instant.sequence)
        return 0;                               /* else a batch that is not of the instant yet has emptied it */
    if (entry->kind == SEGMENT_COMPACTED)       /* without a manifest those that count are not listed */
        return atomic_load(&entry->synced) != 0 || backup->store->private ? atomic_load(&entry->length) : 0;
    return id > last ? 0 : id == last ? position_offset(backup->instant.position) : atomic_load(&entry->length);
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = ((const struct manifest_segment *)a)->id, right = ((const struct manifest_segment *)b)->id;
    return left < right ? -1 : left > right;
}

/* The caller holds the maintain lock, so that the table belongs together, though the log may grow. */
static int note_segments(struct pykv_backup *backup)
{
    const struct os *os = backup->os;
    struct manifest *after = &backup->after;
    uint64_t last = position_segment(backup->instant.position);
    after->segments = os->alloc(os, SEGMENT_SLOT_COUNT * sizeof *after->segments);
    if (after->segments == NULL)
        return error_no_memory(SEGMENT_SLOT_COUNT * sizeof *after->segments);
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT; i++) {
        uint64_t id = atomic_load(&backup->store->shared->segments[i].id);
        uint64_t length = id == 0 ? 0 : length_at(backup, id);
        if (length != 0)
            after->segments[after->count++] = (struct manifest_segment){ .id = id, .length = length };
        if (length != 0 && id >= after->segment_id_next)
            after->segment_id_next = id + 1;
    }
    qsort(after->segments, after->count, sizeof *after->segments, compare_ids);
    after->kind = backup->flags & PYKV_BACKUP_RESTORE ? MANIFEST_STORE : MANIFEST_BACKUP;
    after->durable = backup->instant.position;
    if (last >= after->segment_id_next)
        after->segment_id_next = last + 1;
    memcpy(after->store_id, backup->store->log.store_id, 16);
    memcpy(after->hash_key, backup->store->log.hash_key, 16);
    return PYKV_OK;
}

static int take_instant(struct pykv_backup *backup, struct manifest *listed)
{
    struct pykv_store *store = backup->store;
    struct shared *shared = store->shared;
    bool died;
    int status = PYKV_OK;
    if (!store->private)
        shared_lock_acquire(&shared->maintain, &store->process, &died);
    if (!store->read_only && store_refused(store) == PYKV_OK)
        maintain_list(store);       /* so that most can be linked */
    if (store->private)
        backup->instant = shared_counters(shared);
    else
        backup->pinned = (status = shared_pin(shared, &store->process, &backup->pin, &backup->instant)) == PYKV_OK;
    if (status == PYKV_OK)
        status = note_segments(backup);
    if (status == PYKV_OK)
        status = manifest_read(store->os, store->dir, listed);
    if (status == PYKV_MISSING || status == PYKV_CORRUPT)
        status = PYKV_OK;           /* then nothing is linked */
    if (!store->private)
        shared_lock_release(&shared->maintain, &store->process);
    return status;
}

/* ---- What is missing in dest ---- */

static int diverged(const struct pykv_backup *backup, const char *name)
{
    return error_set(PYKV_INVALID, 0, backup->path, 0,
                     "%s of the backup in %s is not that of the store: since it was made, one of the two was replaced by "
                     "an older copy. Back up to another directory", name, backup->path);
}

static int open_both(struct pykv_backup *backup, uint64_t id, int *ours, int *theirs)
{
    char name[32];
    log_segment_name(id, name);
    int error = backup->os->file_open(backup->os, backup->store->dir, name, OS_READ_LINKED, 0, ours);
    if (error != 0)
        return error_os(error, name, 0, "open");
    error = backup->os->file_open(backup->os, backup->dir, name, OS_READ_LINKED, 0, theirs);
    return error == ENOENT ? error_corrupt(name, 0, "the segment is missing in the backup")
           : error != 0    ? error_os(error, name, 0, "open")
                           : PYKV_OK;
}

/* Whether the bytes [offset, offset + size) of both are equal. */
static int compare(const struct pykv_backup *backup, int ours, int theirs, uint64_t offset, size_t size, bool *same)
{
    uint8_t bytes[2][COMPARE_SIZE];
    int fds[2] = { ours, theirs };
    for (int i = 0; i < 2; i++) {
        size_t done = 0;
        int error = backup->os->file_read(backup->os, fds[i], bytes[i], size, offset, &done);
        if (error != 0)
            return error_os(error, "segment", offset, "read");
        if (done < size)
            memset(bytes[i] + done, i, size - done);
    }
    *same = *same && memcmp(bytes[0], bytes[1], size) == 0;
    return PYKV_OK;
}

/* Is what dest has of the segment, `have` bytes, the front of it? */
static int check_kept(struct pykv_backup *backup, uint64_t id, uint64_t have)
{
    struct os_stat stats[2] = { { .size = 0 } };
    char name[32];
    int ours = -1, theirs = -1, error = 0;
    uint64_t rest = have > SEGMENT_HEADER_SIZE ? have - SEGMENT_HEADER_SIZE : 0;
    size_t size = rest < COMPARE_SIZE ? (size_t)rest : COMPARE_SIZE;
    int status = open_both(backup, id, &ours, &theirs);
    log_segment_name(id, name);
    if (status == PYKV_OK && ((error = backup->os->file_stat(backup->os, ours, &stats[0])) != 0 ||
                              (error = backup->os->file_stat(backup->os, theirs, &stats[1])) != 0))
        status = error_os(error, name, 0, "examine");
    bool same = status == PYKV_OK && stats[1].size >= have;
    bool one_file = stats[0].device == stats[1].device && stats[0].inode == stats[1].inode;
    if (same && !one_file)
        status = compare(backup, ours, theirs, 0, SEGMENT_HEADER_SIZE, &same);
    if (same && !one_file && status == PYKV_OK)
        status = compare(backup, ours, theirs, have - size, size, &same);
    if (status == PYKV_OK && !same)
        status = diverged(backup, name);
    if (theirs >= 0)
        (void)backup->os->file_close(backup->os, theirs);
    if (ours >= 0)
        (void)backup->os->file_close(backup->os, ours);
    return status;
}

/* How much of it dest has: 0, or bytes from its front. */
static int look_for(struct pykv_backup *backup, const struct manifest_segment *wanted, uint64_t *have)
{
    const struct manifest_segment *known = find(&backup->before, wanted->id);
    char name[32];
    log_segment_name(wanted->id, name);
    *have = 0;
    if (known == NULL)
        return PYKV_OK;
    bool cut = position_segment(backup->before.durable) == wanted->id;
    *have = cut ? position_offset(backup->before.durable) : known->length;
    if (*have > wanted->length || (!cut && *have < wanted->length))
        return diverged(backup, name);
    return check_kept(backup, wanted->id, *have);
}

static int plan(struct pykv_backup *backup, const struct manifest *listed)
{
    struct manifest *after = &backup->after;
    int status = PYKV_OK;
    backup->pieces = backup->os->alloc(backup->os, (after->count + 1) * sizeof *backup->pieces);
    if (backup->pieces == NULL)
        return error_no_memory((after->count + 1) * sizeof *backup->pieces);
    for (size_t i = 0; i < after->count && status == PYKV_OK; i++) {
        struct manifest_segment *wanted = &after->segments[i];
        const struct manifest_segment *fixed = find(listed, wanted->id);
        uint64_t have = 0;
        bool last = wanted->id == position_segment(backup->instant.position);
        status = look_for(backup, wanted, &have);
        backup->progress.kept += have;
        backup->progress.total += wanted->length - have;
        if (have < wanted->length)
            backup->pieces[backup->piece_count++] =
                (struct piece){ .id = wanted->id, .from = have, .end = wanted->length,
                                .fixed = have == 0 && !last && fixed != NULL && fixed->length == wanted->length };
        if (last)
            wanted->length = 0;     /* read as a tail, up to the durable position */
    }
    return status;
}

/* ---- Steps ---- */

/* PYKV_NOT_FOUND: it has to be copied. */
static int link_piece(struct pykv_backup *backup, const struct piece *piece, const char *name)
{
    struct os_stat stat = { .size = 0 };
    int fd;
    if (!piece->fixed || backup->flags & (PYKV_BACKUP_COPY | PYKV_BACKUP_RESTORE))
        return PYKV_NOT_FOUND;
    int error = backup->os->file_open(backup->os, backup->store->dir, name, OS_READ_LINKED, 0, &fd);
    if (error != 0)
        return error_os(error, name, 0, "open");
    error = backup->os->file_stat(backup->os, fd, &stat);
    (void)backup->os->file_close(backup->os, fd);
    if (error != 0)
        return error_os(error, name, 0, "examine");
    if (stat.size != piece->end)    /* what was reserved behind its end has not been given back */
        return PYKV_NOT_FOUND;
    error = backup->os->file_link(backup->os, backup->store->dir, name, backup->dir, name);
    return error == 0 ? PYKV_OK : error == EEXIST ? error_os(error, name, 0, "link") : PYKV_NOT_FOUND;
}

static int begin_piece(struct pykv_backup *backup, const struct piece *piece, const char *name)
{
    const struct os *os = backup->os;
    struct os_stat stat = { .size = 0 };
    int error = os->file_open(os, backup->store->dir, name, OS_READ_LINKED, 0, &backup->from_fd);
    if (error != 0) {
        backup->from_fd = -1;
        return error_os(error, name, 0, "open");
    }
    error = os->file_open(os, backup->dir, name, piece->from == 0 ? OS_CREATE : OS_READ_WRITE,
                          backup->store->options.file_mode, &backup->to_fd);
    if (error != 0)
        backup->to_fd = -1;
    if (error == 0 && (error = os->file_stat(os, backup->to_fd, &stat)) == 0 && stat.size > piece->from)
        error = os->file_truncate(os, backup->to_fd, piece->from);  /* of one that died */
    backup->at = piece->from;
    return error == 0 ? PYKV_OK : error_os(error, name, 0, "create");
}

static int end_piece(struct pykv_backup *backup, const char *name)
{
    int error = backup->os->file_sync(backup->os, backup->to_fd);
    (void)backup->os->file_close(backup->os, backup->from_fd);
    int closed = backup->os->file_close(backup->os, backup->to_fd);
    backup->from_fd = backup->to_fd = -1;
    error = error != 0 ? error : closed;
    return error == 0 ? PYKV_OK : error_os(error, name, backup->at, "sync");
}

static int move_piece(struct pykv_backup *backup, const struct piece *piece)
{
    char name[32];
    int status = PYKV_OK;
    log_segment_name(piece->id, name);
    if (backup->to_fd < 0) {
        status = link_piece(backup, piece, name);
        if (status == PYKV_OK) {
            backup->progress.linked += piece->end;
            backup->next++;
            return PYKV_OK;
        }
        if (status == PYKV_NOT_FOUND)
            status = begin_piece(backup, piece, name);
        if (status != PYKV_OK)
            return status;
    }
    uint64_t size = piece->end - backup->at < STEP_SIZE ? piece->end - backup->at : STEP_SIZE;
    int error = backup->os->file_copy(backup->os, backup->from_fd, backup->to_fd, backup->at, size);
    if (error != 0)
        return error_os(error, name, backup->at, "copy");
    backup->at += size;
    backup->progress.copied += size;
    if (backup->at == piece->end) {
        status = end_piece(backup, name);
        backup->next++;
    }
    return status;
}

struct removal { struct pykv_backup *backup; bool some; };

static int remove_old(void *context, const char *name)
{
    struct removal *removal = context;
    struct pykv_backup *backup = removal->backup;
    uint64_t number;
    if (store_classify(name, &number) != 's' || find(&backup->after, number) != NULL)
        return 0;
    removal->some = true;
    if (backup->os->file_remove(backup->os, backup->dir, name) == 0)
        backup->progress.removed++;
    return 0;
}

/* What cannot be removed now, the next backup removes. */
static int finish(struct pykv_backup *backup)
{
    const struct os *os = backup->os;
    struct removal removal = { .backup = backup };
    int error = os->dir_sync(os, backup->dir);
    if (error != 0)
        return error_os(error, backup->path, 0, "sync the directory");
    int status = manifest_write(os, backup->dir, backup->store->options.file_mode, &backup->after);
    if (status != PYKV_OK)
        return status;
    if (os->dir_list(os, backup->dir, remove_old, &removal) == 0 && removal.some)
        (void)os->dir_sync(os, backup->dir);
    backup->finished = true;
    return PYKV_OK;
}

static int step(struct pykv_backup *backup)
{
    if (backup->failed != PYKV_OK)
        return error_set(backup->failed, 0, backup->path, 0, "the backup to %s has failed before", backup->path);
    if (backup->finished)
        return PYKV_NOT_FOUND;
    int status = PYKV_OK;
    if (!backup->synced && !backup->store->private)     /* never more than a power cut would leave here */
        status = store_sync_to(backup->store, backup->instant.position);
    backup->synced = status == PYKV_OK;
    if (status == PYKV_OK)
        status = backup->next < backup->piece_count ? move_piece(backup, &backup->pieces[backup->next]) : finish(backup);
    if (status < 0)
        backup->failed = status;
    return status == PYKV_OK && backup->finished ? PYKV_NOT_FOUND : status;
}

/* ---- Public ---- */

static int open_backup(struct pykv_backup *backup)
{
    struct pykv_store *store = backup->store;
    struct manifest listed = { .count = 0 };
    if (!store->private && !store->space.writable)
        return error_set(PYKV_READ_ONLY, 0, store->path, 0,
                         "a backup holds the store meanwhile, which this process must have permission to write for");
    int status = prepare_directory(backup);
    if (status == PYKV_OK)
        status = take_instant(backup, &listed);
    if (status == PYKV_OK)
        status = plan(backup, &listed);
    backup->progress.version = backup->instant.sequence;
    backup->progress.keys = backup->instant.keys;
    manifest_release(backup->os, &listed);
    return status;
}

/* All but the pin. A store that was closed meanwhile has let go of all its pins. */
static void release(struct pykv_backup *backup)
{
    const struct os *os = backup->os;
    struct pykv_store *store = backup->store;
    int *fds[] = { &backup->from_fd, &backup->to_fd, &backup->lock.lock_fd, &backup->dir };
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            (void)os->file_close(os, *fds[i]);
    manifest_release(os, &backup->before);
    manifest_release(os, &backup->after);
    os->release(os, backup->pieces);
    os->release(os, backup);
    store_drop(store);
}

static void unpin(struct pykv_backup *backup)
{
    struct pykv_store *store = backup->store;
    if (!backup->pinned)
        return;
    backup->pinned = false;
    shared_unpin(store->shared, &store->process, backup->pin, backup->instant.sequence);
    if (!store->read_only)
        maintain_sweep(store);
}

int pykv_backup_open(struct pykv_store *store, const char *path, int flags, struct pykv_backup **out)
{
    int status = store_enter(store);
    if (status != PYKV_OK)
        return status;
    struct pykv_backup *backup = NULL;
    if (path[0] == '\0' || strlen(path) >= sizeof backup->path || flags & ~(PYKV_BACKUP_COPY | PYKV_BACKUP_RESTORE))
        status = error_set(PYKV_INVALID, 0, NULL, 0, "a path has 1 to %zu bytes", sizeof backup->path - 1);
    else if ((backup = store->os->alloc(store->os, sizeof *backup)) == NULL)
        status = error_no_memory(sizeof *backup);
    if (backup != NULL) {
        backup->store = store;
        backup->os = store->os;
        backup->flags = flags;
        backup->dir = backup->from_fd = backup->to_fd = -1;
        backup->lock = (struct process){ .os = store->os, .lock_fd = -1 };
        strcpy(backup->path, path);
        atomic_fetch_add(&store->references, 1);
        if ((status = open_backup(backup)) == PYKV_OK) {
            *out = backup;
        } else {
            struct pykv_error kept = *pykv_last_error();
            unpin(backup);
            release(backup);
            error_set(kept.status, kept.os_errno, kept.path, kept.offset, "%s", kept.message);
        }
    }
    store_leave(store);
    return status;
}

int pykv_backup_step(struct pykv_backup *backup, struct pykv_backup_progress *out)
{
    int status = store_enter(backup->store);
    if (status != PYKV_OK)
        return status;
    status = step(backup);
    backup->progress.done = backup->progress.linked + backup->progress.copied;
    *out = backup->progress;
    store_leave(backup->store);
    return status;
}

void pykv_backup_close(struct pykv_backup *backup)
{
    if (backup == NULL)
        return;
    struct pykv_store *store = backup->store;
    if (store_enter(store) == PYKV_OK) {
        unpin(backup);
        store_leave(store);
    }
    release(backup);
}
