/* A backup is one instant of the store, whatever is written, compacted, fails or loses power meanwhile;
 * one that is brought up to date is the old instant or the new one, and nothing between. */
#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#include <errno.h>
#include <stdlib.h>

#define STORE "/store"
#define DEST "/backup"
#define OTHER "/other"
enum { KEYS = 60, VALUE_SIZE = 1500 };

/* What each key has: a number that its value begins with, 0: it is absent. */
struct state { uint32_t numbers[KEYS]; };
static uint32_t last_number;

static struct pykv_store *try_open(struct sim *sim, const char *path, int flag, int *status)
{
    struct pykv_options options = { .flag = flag, .segment_size = 65536 };
    struct pykv_store *store = NULL;
    *status = pykv_open_with(sim_os(sim), path, &options, &store);
    return *status == PYKV_OK ? store : NULL;
}

static struct pykv_store *open_store(struct sim *sim, const char *path, int flag)
{
    int status;
    struct pykv_store *store = try_open(sim, path, flag, &status);
    if (store == NULL)
        test_fail(__FILE__, __LINE__, "open %s: %d %s", path, status, pykv_last_error()->message);
    return store;
}

static void put(struct pykv_store *store, struct state *state, uint8_t key)
{
    uint8_t value[VALUE_SIZE] = { 0 };
    state->numbers[key] = ++last_number;
    memcpy(value, &last_number, sizeof last_number);
    CHECK_EQUAL(pykv_put(store, &key, 1, value, sizeof value, 0, PYKV_DURABILITY_PROCESS, NULL), PYKV_OK);
}

/* Write `count` times, and delete a few. */
static void work(struct pykv_store *store, struct state *state, uint64_t *random, int count)
{
    for (int i = 0; i < count; i++) {
        uint8_t key = (uint8_t)(test_random(random) % KEYS);
        put(store, state, key);
        key = (uint8_t)(test_random(random) % KEYS);
        if (i % 4 == 0 && state->numbers[key] != 0) {
            CHECK_EQUAL(pykv_delete(store, &key, 1, PYKV_DURABILITY_PROCESS), PYKV_OK);
            state->numbers[key] = 0;
        }
    }
}

static void compact_all(struct pykv_store *store)
{
    struct pykv_progress progress = { .left = 0 };
    do
        CHECK_EQUAL(pykv_compact(store, &progress), PYKV_OK);
    while (progress.left != 0);
}

static bool agrees(struct pykv_store *store, const struct state *state)
{
    uint8_t value[VALUE_SIZE];
    for (uint8_t key = 0; key < KEYS; key++) {
        int64_t size = pykv_get(store, &key, 1, value, sizeof value, NULL);
        uint32_t number = 0;
        if (size == VALUE_SIZE)
            memcpy(&number, value, sizeof number);
        else if (size != -1000 + PYKV_NOT_FOUND)
            return false;
        if (number != state->numbers[key])
            return false;
    }
    return true;
}

static void check_store(struct pykv_store *store, const struct state *state)
{
    struct pykv_report report;
    CHECK(agrees(store, state));
    CHECK_EQUAL(pykv_verify(store, &report), PYKV_OK);
}

/* The directory holds that state, and reading it changes nothing. */
static void check_backup(struct sim *sim, const char *path, const struct state *state)
{
    struct image before = { 0 }, after = { 0 };
    sim_save(sim, path, &before);
    struct pykv_store *store = open_store(sim, path, PYKV_FLAG_READ);
    check_store(store, state);
    pykv_free(store);
    sim_save(sim, path, &after);
    CHECK_EQUAL(image_hash(&after, true), image_hash(&before, true));
    image_release(&before);
    image_release(&after);
}

static int back_up(struct pykv_store *store, const char *path, int flags, struct pykv_backup_progress *progress)
{
    struct pykv_backup *backup = NULL;
    int status = pykv_backup_open(store, path, flags, &backup);
    while (status == PYKV_OK)
        status = pykv_backup_step(backup, progress);
    pykv_backup_close(backup);
    return status == PYKV_NOT_FOUND ? PYKV_OK : status;
}

/* A store with dead space that was compacted, so that tombstones were dropped, and segments with gaps. */
static struct pykv_store *make(struct sim *sim, struct state *state, uint64_t *random)
{
    struct pykv_store *store = open_store(sim, STORE, PYKV_FLAG_CREATE);
    work(store, state, random, 300);
    compact_all(store);
    work(store, state, random, 100);
    return store;
}

static void it_is_the_instant_at_which_it_began(void)
{
    for (int flags = 0; flags <= PYKV_BACKUP_COPY; flags++) {
        struct sim *sim = sim_new(1);
        struct state state = { { 0 } };
        uint64_t random = 1;
        struct pykv_store *store = make(sim, &state, &random);
        struct state then = state;
        struct pykv_backup_progress progress;
        struct pykv_backup *backup = NULL;
        CHECK_EQUAL(pykv_backup_open(store, DEST, flags, &backup), PYKV_OK);
        int status;
        do {
            work(store, &state, &random, 20);
            compact_all(store);
            status = pykv_backup_step(backup, &progress);
        } while (status == PYKV_OK);
        CHECK_EQUAL(status, PYKV_NOT_FOUND);
        CHECK_EQUAL(progress.done, progress.total);
        CHECK_EQUAL(progress.linked != 0, flags == 0);
        CHECK(progress.copied != 0 && progress.kept == 0);
        pykv_backup_close(backup);
        check_backup(sim, DEST, &then);
        check_store(store, &state);

        /* As a store of its own: neither writes to what the other has. */
        struct pykv_store *copy = open_store(sim, DEST, PYKV_FLAG_WRITE);
        check_store(copy, &then);
        work(copy, &then, &random, 300);
        work(store, &state, &random, 300);
        compact_all(copy);
        compact_all(store);
        pykv_free(copy);
        pykv_free(store);
        sim_set_boot(sim, 2);
        store = open_store(sim, STORE, PYKV_FLAG_WRITE);
        copy = open_store(sim, DEST, PYKV_FLAG_WRITE);
        check_store(store, &state);
        check_store(copy, &then);
        pykv_free(store);
        pykv_free(copy);
        CHECK_EQUAL(sim_usage(sim).descriptors, 0);
        CHECK_EQUAL(sim_usage(sim).allocations, 0);
        sim_free(sim);
    }
}

static void only_what_is_new_moves(void)
{
    struct sim *sim = sim_new(1);
    struct state state = { { 0 } };
    uint64_t random = 1;
    struct pykv_store *store = make(sim, &state, &random);
    struct pykv_backup_progress progress;
    CHECK_EQUAL(back_up(store, DEST, PYKV_BACKUP_COPY, &progress), PYKV_OK);
    uint64_t total = progress.total;
    struct pykv_stats stats;
    CHECK_EQUAL(pykv_stats(store, &stats), PYKV_OK);
    CHECK_EQUAL(stats.unsynced_bytes, 0);   /* a power cut leaves the store no less than the backup */
    CHECK_EQUAL(back_up(store, DEST, PYKV_BACKUP_COPY, &progress), PYKV_OK);
    CHECK_EQUAL(progress.total, 0);
    CHECK_EQUAL(progress.kept, total);
    for (int round = 0; round < 12; round++) {
        uint64_t linked_before = 0;
        work(store, &state, &random, round % 3 == 0 ? 1 : 40);
        if (round % 4 == 3)
            compact_all(store);
        CHECK_EQUAL(back_up(store, DEST, PYKV_BACKUP_COPY, &progress), PYKV_OK);
        if (round % 3 == 0 && round % 4 != 3)
            CHECK(progress.total <= 2 * (VALUE_SIZE + 100) && progress.total > linked_before);
        check_backup(sim, DEST, &state);
        CHECK_EQUAL(back_up(store, OTHER, 0, &progress), PYKV_OK);
        check_backup(sim, OTHER, &state);
    }
    /* After a power cut the store goes on in new segments; the backup follows. */
    pykv_free(store);
    for (uint64_t boot = 2; boot < 5; boot++) {
        sim_set_boot(sim, boot);
        store = open_store(sim, STORE, PYKV_FLAG_WRITE);
        work(store, &state, &random, 5);
        CHECK_EQUAL(back_up(store, DEST, PYKV_BACKUP_COPY, &progress), PYKV_OK);
        check_backup(sim, DEST, &state);
        pykv_free(store);
    }
    sim_free(sim);
}

static void an_empty_store_has_a_backup(void)
{
    struct sim *sim = sim_new(1);
    struct state state = { { 0 } };
    struct pykv_backup_progress progress;
    struct pykv_store *store = open_store(sim, STORE, PYKV_FLAG_CREATE);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    check_backup(sim, DEST, &state);
    put(store, &state, 1);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    check_backup(sim, DEST, &state);
    pykv_free(store);
    sim_free(sim);
}

static void a_backup_has_a_backup(void)
{
    struct sim *sim = sim_new(1);
    struct state state = { { 0 } };
    uint64_t random = 3;
    struct pykv_backup_progress progress;
    struct pykv_store *store = make(sim, &state, &random);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    struct pykv_store *reader = open_store(sim, DEST, PYKV_FLAG_READ);
    CHECK_EQUAL(back_up(reader, OTHER, 0, &progress), PYKV_OK);
    CHECK(progress.linked != 0);
    check_backup(sim, OTHER, &state);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_BUSY);     /* it is being read */
    CHECK_EQUAL(back_up(reader, DEST, 0, &progress), PYKV_BUSY);
    pykv_free(reader);
    work(store, &state, &random, 100);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    CHECK_EQUAL(back_up(store, OTHER, 0, &progress), PYKV_OK);
    check_backup(sim, OTHER, &state);
    pykv_free(store);
    sim_free(sim);
}

static void a_restored_store_goes_on(void)
{
    struct sim *sim = sim_new(1);
    struct state state = { { 0 } };
    uint64_t random = 5;
    struct pykv_backup_progress progress;
    struct pykv_store *store = make(sim, &state, &random);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    struct state then = state;
    struct pykv_store *reader = open_store(sim, DEST, PYKV_FLAG_READ);
    CHECK_EQUAL(back_up(reader, OTHER, PYKV_BACKUP_RESTORE, &progress), PYKV_OK);
    CHECK_EQUAL(progress.linked, 0);
    CHECK_EQUAL(back_up(reader, OTHER, PYKV_BACKUP_RESTORE, &progress), PYKV_INVALID);
    pykv_free(reader);
    struct pykv_store *restored = open_store(sim, OTHER, PYKV_FLAG_WRITE);
    check_store(restored, &then);

    /* Two stores of one origin, that write as much of the same size: their backups are never mixed. */
    for (int i = 0; i < 150; i++) {
        uint32_t number = last_number;
        put(store, &state, (uint8_t)(i % KEYS));
        last_number = i % 40 == 20 ? last_number : number;      /* mostly the very same bytes */
        put(restored, &then, (uint8_t)(i % KEYS));
    }
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    CHECK_EQUAL(back_up(restored, DEST, 0, &progress), PYKV_INVALID);
    check_backup(sim, DEST, &state);
    pykv_free(restored);
    sim_set_boot(sim, 2);
    restored = open_store(sim, OTHER, PYKV_FLAG_WRITE);
    check_store(restored, &then);
    pykv_free(restored);
    pykv_free(store);
    sim_free(sim);
}

/* The backup of a store that was restored from it goes on where it was. */
static void a_restored_store_goes_on_with_its_backup(void)
{
    struct sim *sim = sim_new(1);
    struct state state = { { 0 } };
    uint64_t random = 5;
    struct pykv_backup_progress progress;
    struct pykv_store *store = make(sim, &state, &random);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    struct state then = state;
    work(store, &state, &random, 100);      /* lost */
    pykv_free(store);
    struct pykv_store *reader = open_store(sim, DEST, PYKV_FLAG_READ);
    CHECK_EQUAL(back_up(reader, OTHER, PYKV_BACKUP_RESTORE, &progress), PYKV_OK);
    pykv_free(reader);
    store = open_store(sim, OTHER, PYKV_FLAG_WRITE);
    work(store, &then, &random, 10);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    CHECK(progress.kept != 0);
    check_backup(sim, DEST, &then);
    pykv_free(store);
    sim_free(sim);
}

/* Segments of one number, one length and one end, but of two histories. */
static void a_segment_of_another_history_is_noticed(void)
{
    struct sim *sim = sim_new(1);
    const struct os *os = sim_os(sim);
    struct state state = { { 0 } };
    uint64_t random = 1;
    struct pykv_backup_progress progress;
    struct pykv_store *store = make(sim, &state, &random);
    struct image image = { 0 };
    CHECK_EQUAL(back_up(store, DEST, PYKV_BACKUP_COPY, &progress), PYKV_OK);
    sim_save(sim, DEST, &image);
    for (size_t i = 0; i < image.count; i++) {
        int dir, fd;
        if (strncmp(image.files[i].name, "segment-", 8) != 0)
            continue;
        uint8_t nonce = image.files[i].bytes[72], other = nonce ^ 1;
        CHECK_EQUAL(os->dir_open(os, DEST, false, 0, &dir), 0);
        CHECK_EQUAL(os->file_open(os, dir, image.files[i].name, OS_READ_WRITE, 0, &fd), 0);
        CHECK_EQUAL(os->file_write(os, fd, &other, 1, 72), 0);
        CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_INVALID);
        CHECK_EQUAL(os->file_write(os, fd, &nonce, 1, 72), 0);
        CHECK_EQUAL(os->file_close(os, fd), 0);
        CHECK_EQUAL(os->file_close(os, dir), 0);
        CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
    }
    check_backup(sim, DEST, &state);
    image_release(&image);
    pykv_free(store);
    sim_free(sim);
}

static void what_is_no_backup_of_it_is_refused(void)
{
    struct sim *sim = sim_new(1);
    struct state state = { { 0 } };
    uint64_t random = 1;
    struct pykv_backup_progress progress;
    struct pykv_store *store = make(sim, &state, &random);
    struct pykv_store *other = open_store(sim, OTHER, PYKV_FLAG_CREATE);
    put(other, &state, 0);
    CHECK_EQUAL(back_up(store, OTHER, 0, &progress), PYKV_INVALID);     /* open, and a store */
    CHECK_EQUAL(back_up(store, STORE, 0, &progress), PYKV_INVALID);     /* itself */
    CHECK_EQUAL(back_up(other, DEST, 0, &progress), PYKV_OK);
    CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_INVALID);      /* a backup of another */
    CHECK_EQUAL(back_up(store, "", 0, &progress), PYKV_INVALID);
    sim_make_special(sim, "/odd", "notes.txt");
    CHECK_EQUAL(back_up(store, "/odd", 0, &progress), PYKV_NOT_A_STORE);
    struct pykv_store *copy = open_store(sim, DEST, PYKV_FLAG_WRITE);
    CHECK_EQUAL(back_up(other, DEST, 0, &progress), PYKV_INVALID);
    pykv_free(copy);
    CHECK_EQUAL(back_up(other, DEST, 0, &progress), PYKV_INVALID);      /* it was opened for writing */

    struct pykv_backup *backup = NULL;
    int status;
    CHECK_EQUAL(pykv_backup_open(store, "/late", 0, &backup), PYKV_OK);
    CHECK_EQUAL(back_up(store, "/late", 0, &progress), PYKV_BUSY);
    for (int flag = PYKV_FLAG_READ; flag <= PYKV_FLAG_NEW; flag++) {
        CHECK(try_open(sim, "/late", flag, &status) == NULL);
        CHECK_EQUAL(status, PYKV_BUSY);
    }
    pykv_backup_close(backup);
    for (int flag = PYKV_FLAG_READ; flag < PYKV_FLAG_NEW; flag++) {
        CHECK(try_open(sim, "/late", flag, &status) == NULL);
        CHECK_EQUAL(status, PYKV_CORRUPT);      /* never finished */
    }
    CHECK_EQUAL(back_up(store, "/late", 0, &progress), PYKV_OK);

    CHECK_EQUAL(pykv_backup_open(store, "/late", 0, &backup), PYKV_OK);
    pykv_close(store);
    CHECK_EQUAL(pykv_backup_step(backup, &progress), PYKV_CLOSED);
    pykv_free(store);
    pykv_backup_close(backup);
    pykv_free(other);
    CHECK_EQUAL(sim_usage(sim).descriptors, 0);
    CHECK_EQUAL(sim_usage(sim).allocations, 0);
    sim_free(sim);
}

/* Make a backup, or bring one up to date: after compaction, or when it only has to be appended to. Then
 * look at it, with `before` what it was. */
enum kind { FIRST, COMPACTED, APPENDED, KIND_COUNT };
struct trial {
    struct sim *sim;
    struct pykv_store *store;
    struct state before, state;
    bool first;
};

static void trial_begin(struct trial *trial, enum kind kind)
{
    uint64_t random = 7;
    struct pykv_backup_progress progress;
    *trial = (struct trial){ .sim = sim_new(1), .first = kind == FIRST };
    trial->store = make(trial->sim, &trial->state, &random);
    trial->before = trial->state;
    if (kind != FIRST)
        CHECK_EQUAL(back_up(trial->store, DEST, 0, &progress), PYKV_OK);
    work(trial->store, &trial->state, &random, kind == APPENDED ? 4 : 120);
    if (kind == COMPACTED)
        compact_all(trial->store);
    work(trial->store, &trial->state, &random, kind == APPENDED ? 2 : 30);
}

/* What may be there: what was, or what is now. */
static bool check_either(struct sim *sim, const struct trial *trial)
{
    int status;
    struct pykv_store *store = try_open(sim, DEST, PYKV_FLAG_READ, &status);
    if (store == NULL) {
        bool unfinished = status == PYKV_CORRUPT && strstr(pykv_last_error()->message, "never finished") != NULL;
        if (!trial->first || (status != PYKV_MISSING && !unfinished))
            test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
        return false;
    }
    bool after = agrees(store, &trial->state);
    CHECK(after || (!trial->first && agrees(store, &trial->before)));
    check_store(store, after ? &trial->state : &trial->before);
    pykv_free(store);
    return after;
}

/* Whichever call fails, the backup is what it was or what it was to be, and can be made again. */
static void any_call_may_fail(void)
{
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        bool failed = true;
        for (uint64_t at = 0; failed; at++) {
            struct trial trial;
            struct pykv_backup_progress progress;
            trial_begin(&trial, (enum kind)kind);
            struct sim_fault fault = { .call = SIM_ANY, .at = at, .variant = (unsigned)(at % 3) };
            sim_fail(trial.sim, &fault);
            int status = back_up(trial.store, DEST, kind == FIRST ? PYKV_BACKUP_COPY : 0, &progress);
            failed = sim_failed(trial.sim, SIM_ANY) != 0;
            sim_fail(trial.sim, NULL);
            bool after = check_either(trial.sim, &trial);
            CHECK(status != PYKV_OK || after);
            CHECK(status == PYKV_OK || failed);
            int again = back_up(trial.store, DEST, 0, &progress);
            if (again == PYKV_SYNC_FAILED) {
                pykv_free(trial.store);
                trial.store = open_store(trial.sim, STORE, PYKV_FLAG_WRITE);
                again = back_up(trial.store, DEST, 0, &progress);
            }
            if (again != PYKV_OK)
                test_fail(__FILE__, __LINE__, "call %d: again: %d %s", (int)at, again, pykv_last_error()->message);
            check_backup(trial.sim, DEST, &trial.state);
            pykv_free(trial.store);
            CHECK_EQUAL(sim_usage(trial.sim).descriptors, 0);
            CHECK_EQUAL(sim_usage(trial.sim).allocations, 0);
            sim_free(trial.sim);
        }
    }
}

static void check_cut(const struct trial *trial, const struct disk *disk, struct disk_choice *choice, bool finished)
{
    struct image image = { 0 };
    disk_cut(disk, choice, &image);
    struct sim *sim = sim_new(2);
    sim_load(sim, DEST, &image);
    bool after = check_either(sim, trial);
    CHECK(after || !finished);
    if (after || !trial->first) {       /* and it is a store for whoever wants to write */
        struct pykv_store *store = open_store(sim, DEST, PYKV_FLAG_WRITE);
        struct state state = after ? trial->state : trial->before;
        check_store(store, &state);
        put(store, &state, 3);
        check_store(store, &state);
        pykv_free(store);
    }
    sim_free(sim);
    image_release(&image);
}

static void the_power_may_go(void)
{
    for (int kind = 0; kind < KIND_COUNT; kind++)
        for (int model = DISK_POSIX; model <= DISK_EXT4; model++) {
            struct trial trial;
            struct trace trace = { 0 };
            struct image base = { 0 };
            struct pykv_backup_progress progress;
            uint64_t random = 11;
            trial_begin(&trial, (enum kind)kind);
            sim_save(trial.sim, DEST, &base);
            sim_record(trial.sim, DEST, &trace);
            CHECK_EQUAL(back_up(trial.store, DEST, 0, &progress), PYKV_OK);
            sim_record(trial.sim, DEST, NULL);
            struct disk *disk = disk_new((enum disk_model)model, &base);
            for (size_t i = 0; i <= trace.count; i++) {
                size_t pending = disk_pending(disk);
                struct disk_choice choice = { .keep = calloc(pending + 1, sizeof(bool)), .seed = i };
                for (int which = 0; which < 10; which++) {
                    for (size_t j = 0; j < pending; j++)
                        choice.keep[j] = which < 2 ? which == 1 : test_random(&random) % 2 == 0;
                    check_cut(&trial, disk, &choice, i == trace.count);
                }
                free(choice.keep);
                if (i < trace.count)
                    disk_apply(disk, &trace.effects[i]);
            }
            disk_free(disk);
            trace_release(&trace);
            image_release(&base);
            pykv_free(trial.store);
            sim_free(trial.sim);
        }
}

/* The store itself loses power while its segments have second names: it opens, and writes to none. */
static void the_store_recovers_beside_its_backup(void)
{
    struct sim *sim = sim_new(1);
    struct state state = { { 0 } };
    uint64_t random = 9;
    struct pykv_backup_progress progress;
    struct pykv_store *store = make(sim, &state, &random);
    for (uint64_t boot = 2; boot < 12; boot++) {
        CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
        struct state then = state;
        work(store, &state, &random, (int)boot * 7);
        CHECK_EQUAL(pykv_sync(store), PYKV_OK);
        if (boot % 2 == 0)
            compact_all(store);
        sim_set_boot(sim, boot);        /* the keydir is of no use; the process is still there, and closes */
        pykv_free(store);
        check_backup(sim, DEST, &then);
        store = open_store(sim, STORE, PYKV_FLAG_WRITE);
        check_store(store, &state);
    }
    pykv_free(store);
    sim_free(sim);
}

/* What a compaction left half done is no part of a backup: once it is done, the same file is longer. */
static void a_compaction_may_have_failed(void)
{
    uint64_t unfinished = 0;
    for (uint64_t at = 0; at < 12; at++) {
        struct sim *sim = sim_new(1);
        struct state state = { { 0 } };
        uint64_t random = 13;
        struct pykv_backup_progress progress;
        struct pykv_progress compaction = { .left = 0 };
        struct pykv_store *store = make(sim, &state, &random);
        struct sim_fault fault = { .call = SIM_FILE_WRITE, .at = at, .os_errno = ENOSPC };
        CHECK_EQUAL(pykv_compaction_pause(store, 1), PYKV_OK);      /* all is left for the one that fails */
        work(store, &state, &random, 30);
        sim_fail(sim, &fault);
        int status;
        do
            status = pykv_compact(store, &compaction);
        while (status == PYKV_OK && compaction.left != 0);
        unfinished += status == PYKV_FULL;
        sim_fail(sim, NULL);
        CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
        check_backup(sim, DEST, &state);
        compact_all(store);
        CHECK_EQUAL(back_up(store, DEST, 0, &progress), PYKV_OK);
        check_backup(sim, DEST, &state);
        pykv_free(store);
        sim_free(sim);
    }
    CHECK(unfinished > 2);
}

static void a_full_disk_is_an_error(void)
{
    struct trial trial;
    struct pykv_backup_progress progress;
    trial_begin(&trial, FIRST);
    int status = PYKV_FULL, refused = 0;
    for (uint64_t size = 300000; status != PYKV_OK; size += 20000) {
        sim_set_disk_size(trial.sim, size);
        status = back_up(trial.store, DEST, PYKV_BACKUP_COPY, &progress);
        CHECK(status == PYKV_OK || status == PYKV_FULL);
        CHECK_EQUAL(check_either(trial.sim, &trial), status == PYKV_OK);
        refused += status == PYKV_FULL;
    }
    CHECK(refused > 0);
    sim_set_disk_size(trial.sim, 0);
    CHECK_EQUAL(back_up(trial.store, DEST, PYKV_BACKUP_COPY, &progress), PYKV_OK);
    check_backup(trial.sim, DEST, &trial.state);
    pykv_free(trial.store);
    sim_free(trial.sim);
}

TEST_MAIN(CASE(it_is_the_instant_at_which_it_began), CASE(only_what_is_new_moves), CASE(an_empty_store_has_a_backup),
          CASE(a_backup_has_a_backup), CASE(a_restored_store_goes_on), CASE(a_restored_store_goes_on_with_its_backup),
          CASE(a_segment_of_another_history_is_noticed), CASE(what_is_no_backup_of_it_is_refused), CASE(any_call_may_fail), CASE(the_power_may_go),
          CASE(the_store_recovers_beside_its_backup), CASE(a_compaction_may_have_failed),
          CASE(a_full_disk_is_an_error))
