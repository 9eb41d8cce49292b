/* faults.c -- let call n fail, for every n.
 *
 * Goal: whichever call fails, whether once or from then on, the caller hears of it or need not, and
 * every acknowledged write is still there: in the store that met the failure, after a kill, after a
 * close and open, and (what was durable) after a power cut. A write that failed is there wholly or
 * not at all. After a failed sync nothing is acknowledged until the store is opened again. Nothing
 * leaks. Nothing is called corrupt that is not. A backup that fails is what it was, or what it was to be,
 * and the next one succeeds.
 *
 * Method: replay one script with call n failing, for n = 0, 1, 2, ... until a run meets no failure,
 * with different errors and half-done writes. For each key the set of values it may have is kept:
 * one after a success, more after a failure. */
#include "known.h"
#include "trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum counter { RUNS, FAILED_CALLS, REPORTED, ABSORBED, CUTS, COUNTED_CALLS };
#define TURN_COUNT (sizeof turns / sizeof *turns)
static const enum flavour turns[] = {       /* the others take long: --flavour */
    FLAVOUR_MIXED, FLAVOUR_COMMIT, FLAVOUR_ROLL, FLAVOUR_BATCH, FLAVOUR_REOPEN, FLAVOUR_INTERVAL, FLAVOUR_COMPACT,
};

struct options {
    uint64_t scripts, seed, stride;
    int flavour;
    uint64_t from;                  /* the first call that fails */
    bool print;                     /* the trace of each violation */
};

struct run {
    struct trials *trials;
    struct script *script;
    struct sim *sim;
    struct pykv_store *store;
    struct trace *trace;                /* since the machine was started last */
    struct image base;                  /* what was on its disk then */
    uint64_t boot;
    struct known known;
    struct state backups[STEPS_MAX];    /* states that the backup may have, if there is one */
    uint32_t backup_count, backup_steps;
    bool backed_up;
    struct image backup;
    bool poisoned;                      /* a failed sync was reported */
    uint64_t syncs_failed;              /* as it was when the store was opened */
    struct reason reason;
};

static uint64_t failed_syncs(const struct run *run)
{
    return sim_failed(run->sim, SIM_FILE_SYNC) + sim_failed(run->sim, SIM_DIR_SYNC);
}

/* Judge a status: a failure needs a failed call as its cause. `before`: failed calls before it. */
static bool check_status(struct run *run, int status, uint64_t before, const char *what)
{
    const struct pykv_error *error = pykv_last_error();
    if (status >= 0)
        return true;
    run->trials->counters[REPORTED]++;
    if (error->status != status)
        return fail(&run->reason, "%s fails with %d, and the error kept is %d: %s", what, status,
                    error->status, error->message);
    bool caused = sim_failed(run->sim, SIM_ANY) > before;
    if (status == PYKV_SYNC_FAILED && failed_syncs(run) > run->syncs_failed) {
        run->poisoned = true;
        return true;
    }
    if (status == PYKV_CORRUPT || status == PYKV_NOT_A_STORE || status == PYKV_NEWER_FORMAT ||
        status == PYKV_MISSING || status == PYKV_CLOSED || status == PYKV_INVALID)
        return fail(&run->reason, "%s is said to fail with %d: %s", what, status, error->message);
    if (!caused)
        return fail(&run->reason, "%s fails with %d, and no call failed: %s", what, status,
                    error->message);
    if ((status == PYKV_IO || status == PYKV_FULL) && error->os_errno == 0)
        return fail(&run->reason, "%s fails with %d and tells no errno: %s", what, status,
                    error->message);
    return true;
}

/* Read everything in every way from the store at hand; reads may fail only if a call in them does. */
static bool check_reads(struct run *run)
{
    struct state state;
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        uint64_t before = sim_failed(run->sim, SIM_ANY);
        int status = read_value(run->script, run->store, key, &state.value[key]);
        if (status != PYKV_OK) {
            if (!check_status(run, status, before, "get"))
                return false;
            state.value[key] = run->known.live[key].value[0];
            if (script_over(run->script, state.value[key]))
                state.value[key] = ABSENT;
        } else if (state.value[key] == (int32_t)VALUES_MAX) {
            return fail(&run->reason, "key %u has a value or an expiry that it never had, or that is over", key);
        }
    }
    return known_state(&run->known, run->known.live, &state, "while open", &run->reason) && known_whole(&run->known, &state, &run->reason);
}

static bool check_bulk_reads(struct run *run)
{
    struct pykv_scan *scan = NULL;
    static struct pykv_report report;
    static uint8_t keys[KEY_COUNT * 1024];
    struct pykv_stats stats;
    uint32_t sizes[KEY_COUNT];
    size_t at = 0;
    for (uint32_t i = 0; i < KEY_COUNT; i++) {
        memcpy(keys + at, run->script->keys[i].bytes, run->script->keys[i].size);
        sizes[i] = (uint32_t)run->script->keys[i].size;
        at += sizes[i];
    }
    struct pykv_rows *rows = pykv_rows_new();
    uint64_t before = sim_failed(run->sim, SIM_ANY);
    int status = pykv_get_many(run->store, KEY_COUNT, keys, sizes, rows);
    bool good = check_status(run, status, before, "get_many");
    before = sim_failed(run->sim, SIM_ANY);
    status = pykv_scan_open(run->store, NULL, NULL, 0, 3, &scan);
    good = good && check_status(run, status, before, "scan_open");
    while (good && scan != NULL && status == PYKV_OK) {
        before = sim_failed(run->sim, SIM_ANY);
        status = pykv_scan_next(scan, rows);
        good = check_status(run, status, before, "scan_next");
    }
    pykv_scan_close(scan);
    pykv_rows_free(rows);
    before = sim_failed(run->sim, SIM_ANY);
    good = good && check_status(run, pykv_verify(run->store, &report), before, "verify");
    before = sim_failed(run->sim, SIM_ANY);
    good = good && check_status(run, pykv_stats(run->store, &stats), before, "stats");
    const uint8_t *value;
    size_t value_size;
    struct pykv_pin *pin = NULL;
    before = sim_failed(run->sim, SIM_ANY);
    status = pykv_view(run->store, run->script->keys[3].bytes, run->script->keys[3].size, &value,
                       &value_size, &pin);
    good = good && check_status(run, status, before, "view");
    if (status == PYKV_OK)
        pykv_view_release(pin);
    return good;
}

/* Open, again if the failure was a passing one. False: it cannot be had now, or the check failed. */
static bool open_store(struct run *run)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        uint64_t before = sim_failed(run->sim, SIM_ANY);
        int status = pykv_open_with(sim_os(run->sim), STORE_PATH, &run->script->options,
                                    &run->store);
        run->syncs_failed = failed_syncs(run);
        if (status == PYKV_OK)
            return true;
        run->store = NULL;
        if (!check_status(run, status, before, "open"))
            return false;
        struct sim_usage usage = sim_usage(run->sim);
        if (usage.descriptors + usage.mappings + usage.allocations + usage.locks != 0)
            return fail(&run->reason, "a failed open leaves %llu descriptors, %llu mappings, "
                        "%llu allocations, %llu locks", (unsigned long long)usage.descriptors,
                        (unsigned long long)usage.mappings, (unsigned long long)usage.allocations,
                        (unsigned long long)usage.locks);
    }
    return false;
}

static bool close_store(struct run *run, bool *durable)
{
    uint64_t before = sim_failed(run->sim, SIM_ANY);
    int status = pykv_close(run->store);
    pykv_free(run->store);
    run->store = NULL;
    *durable = status == PYKV_OK && !run->poisoned;
    run->poisoned = run->poisoned && status < 0;        /* then a failing close is no news */
    bool good = check_status(run, status, before, "close");
    run->poisoned = false;
    struct sim_usage usage = sim_usage(run->sim);
    if (good && usage.descriptors + usage.mappings + usage.allocations + usage.locks != 0)
        return fail(&run->reason, "closed, but %llu descriptors, %llu mappings, %llu allocations, "
                    "%llu locks are left", (unsigned long long)usage.descriptors,
                    (unsigned long long)usage.mappings, (unsigned long long)usage.allocations,
                    (unsigned long long)usage.locks);
    return good;
}

/* The process is killed: what it had in memory is gone, its locks too; the files stay as they are. */
static void kill_process(struct run *run, bool reboot)
{
    struct image image = { 0 };
    sim_compare(run->sim);
    sim_record(run->sim, STORE_PATH, NULL);
    sim_pause_faults(run->sim, true);
    sim_save(run->sim, STORE_PATH, &image);
    sim_save(run->sim, BACKUP_PATH, &run->backup);
    pykv_free(run->store);
    run->store = NULL;
    run->poisoned = false;
    sim_load(run->sim, STORE_PATH, &image);
    sim_add(run->sim, BACKUP_PATH, &run->backup);
    sim_pause_faults(run->sim, false);
    if (reboot) {           /* in good order: the system has written everything to the disk */
        sim_set_boot(run->sim, ++run->boot);
        trace_release(run->trace);
        image_copy(&run->base, &image);
        memcpy(run->known.durable, run->known.live, sizeof run->known.durable);
    }
    sim_record(run->sim, STORE_PATH, run->trace);
    image_release(&image);
}

/* Close and open, or be killed and open, in the same boot or the next. */
static bool reopen(struct run *run, uint32_t number)
{
    bool durable = false, closes = number % 2 == 0, reboots = number / 2 % 2 == 1;
    if (closes) {
        if (!close_store(run, &durable))
            return false;
        if (durable)
            known_success(&run->known, number, true);
    }
    if (!closes || reboots)
        kill_process(run, reboots);
    return open_store(run) && check_reads(run);
}

/* pykv_incr: the sum follows from what the counter was, whatever failed before. */
static int do_incr(struct run *run, uint32_t number, bool *durable)
{
    struct step *step = &run->script->steps[number];
    struct step_op *op = &step->ops[0];
    const struct bytes *key = &run->script->keys[op->key];
    const struct may old = run->known.live[op->key];
    int64_t sum = 0, by = (int64_t)number + 1;
    *durable = step->durability == PYKV_DURABILITY_COMMIT ||
               run->script->options.durability == PYKV_DURABILITY_COMMIT;
    int status = pykv_incr(run->store, key->bytes, key->size, by, 0, 0, step->durability, &sum);
    bool possible = status != PYKV_OK;
    for (uint32_t i = 0; i < old.count; i++) {
        int64_t before = old.value[i] == ABSENT
                             ? 0 : atoll((char *)run->script->values[old.value[i]].bytes);
        if (status != PYKV_OK)          /* any of these may have been stored */
            sum = before + by;
        possible = possible || before + by == sum;
        if (status != PYKV_OK && i + 1 < old.count) {
            may_add(&run->known.live[op->key], script_add_number(run->script, op->key, sum));
            may_add_all(&run->known.durable[op->key], &run->known.live[op->key]);
        }
    }
    if (!possible) {
        fail(&run->reason, "incr makes %lld of what it never was", (long long)sum);
        return PYKV_OK;
    }
    op->value = script_add_number(run->script, op->key, sum);
    return status;
}

/* pykv_expire: what the key has now follows from what it had, whatever failed before. Durable, it is so with
 * all before. */
static int do_expire(struct run *run, uint32_t number, bool *durable)
{
    const struct step *step = &run->script->steps[number];
    uint32_t key = step->ops[0].key;
    const struct bytes *name = &run->script->keys[key];
    struct may alive = { .count = 0 }, gone = { .count = 0 };
    bool commits = step->durability == PYKV_DURABILITY_COMMIT || run->script->options.durability == PYKV_DURABILITY_COMMIT;
    bool changes = true;
    for (uint32_t i = 0; i < run->known.live[key].count; i++) {
        int32_t value = run->known.live[key].value[i], next;
        if (value == ABSENT || script_over(run->script, value)) {
            may_add(&gone, value);
        } else {
            may_add(&alive, next = script_add_expiry(run->script, value, step->expiry_ms, step->later));
            changes = changes && next != value;
        }
    }
    int status = pykv_expire(run->store, name->bytes, name->size, step->expiry_ms, step->later, step->durability);
    if (status == PYKV_OK && alive.count > 0)
        run->known.live[key] = alive;
    else if (status == PYKV_NOT_FOUND && gone.count > 0)
        run->known.live[key] = gone;
    else if (status >= 0)
        fail(&run->reason, "expire answers %d, which it cannot", status);
    else
        may_add_all(&run->known.live[key], &alive);
    *durable = status == PYKV_OK && commits && changes;
    may_add_all(&run->known.durable[key], &run->known.live[key]);
    for (uint32_t i = 0; i < run->known.broken_count; i++)
        run->known.broken[i].key[key] = false;
    return status < 0 ? status : PYKV_OK;
}

/* A backup that fails leaves the older one, or, if it came that far, is the new one. */
static int do_backup(struct run *run, uint32_t number, bool *durable)
{
    struct reason reason = { "" };
    struct state *state = &run->backups[run->backup_count];
    run->backup_steps++;
    sim_pause_faults(run->sim, true);
    bool known = read_state(run->script, run->store, state, &reason);
    sim_pause_faults(run->sim, false);
    if (!known) {
        fail(&run->reason, "before a backup: %.400s", reason.text);
        return PYKV_OK;
    }
    int status = script_back_up(run->store, number % 2 == 0 ? 0 : PYKV_BACKUP_COPY);
    if (status == PYKV_OK) {
        run->backups[0] = *state;
        run->backup_count = 0;
        run->backed_up = true;
    }
    run->backup_count++;
    *durable = status == PYKV_OK;
    return status;
}

static int do_step(struct run *run, uint32_t number, bool *durable)
{
    const struct step *step = &run->script->steps[number];
    if (step->kind == STEP_INCR)
        return do_incr(run, number, durable);
    if (step->kind == STEP_EXPIRE)
        return do_expire(run, number, durable);
    if (step->kind == STEP_BACKUP)
        return do_backup(run, number, durable);
    if (step->kind == STEP_DELETE) {    /* present or absent is not known beforehand */
        const struct bytes *key = &run->script->keys[step->ops[0].key];
        const struct may *may = &run->known.live[step->ops[0].key];
        int status = pykv_delete(run->store, key->bytes, key->size, step->durability);
        *durable = status == PYKV_OK && (step->durability == PYKV_DURABILITY_COMMIT ||
                   run->script->options.durability == PYKV_DURABILITY_COMMIT);
        if (status == PYKV_NOT_FOUND && !may_be_absent(run->script, may))
            fail(&run->reason, "delete does not find key %u", step->ops[0].key);
        if (status == PYKV_OK && may->count == 1 && may_be_absent(run->script, may))
            fail(&run->reason, "delete finds key %u, which is absent", step->ops[0].key);
        return status < 0 ? status : PYKV_OK;
    }
    int status = script_do(run->script, number, sim_os(run->sim), &run->store, durable);
    if (step->kind == STEP_CLEAR || step->kind == STEP_BATCH)
        *durable = false;               /* may have found nothing to write */
    return status;
}

/* One step. False: the store is gone, or a check failed. */
static bool run_step(struct run *run, uint32_t number)
{
    const struct step *step = &run->script->steps[number];
    char what[256];
    bool durable = false;
    run->trace->progress.started = number + 1;
    script_set_time(run->script, run->sim, script_time(number));
    uint64_t before = sim_failed(run->sim, SIM_ANY);
    uint64_t syncs_before = sim_failed(run->sim, SIM_FILE_SYNC);
    if (step->kind == STEP_REOPEN)
        return reopen(run, number);
    if (step->kind == STEP_READ)
        return check_bulk_reads(run);
    int status = do_step(run, number, &durable);
    script_print_step(run->script, number, what, sizeof what);
    bool writes = step->kind != STEP_WAIT && step->kind != STEP_CONFLICT;
    if (!check_status(run, status, before, what))
        return false;
    if (status > 0)
        return fail(&run->reason, "step %s answers %d", what, status);
    if (status == PYKV_OK) {
        int32_t value;
        bool wrote = false;
        for (uint32_t key = 0; key < KEY_COUNT; key++)
            wrote = wrote || step_writes(run->script, number, key, &value);
        if (run->poisoned && wrote && step->kind == STEP_PUT)
            return fail(&run->reason, "step %s is acknowledged after a failed sync", what);
        if (run->poisoned && step->kind == STEP_SYNC)
            return fail(&run->reason, "a sync succeeds after a failed one");
        known_success(&run->known, number, durable && writes);
    } else {
        known_failure(&run->known, number);
        bool commits = step->durability == PYKV_DURABILITY_COMMIT ||
                       run->script->options.durability == PYKV_DURABILITY_COMMIT;
        if (sim_failed(run->sim, SIM_FILE_SYNC) > syncs_before && step->kind != STEP_COMPACT &&
            step->kind != STEP_BACKUP &&            /* they also sync what is not the log */
            (step->kind == STEP_SYNC || commits))
            run->poisoned = true;
    }
    return run->reason.text[0] == 0 && (status == PYKV_OK || check_reads(run));
}

static bool check_backup_is(struct run *run, struct sim *sim, const struct state *states, uint32_t count)
{
    struct pykv_options options = run->script->options;
    struct pykv_store *store = NULL;
    struct state state;
    options.flag = PYKV_FLAG_READ;
    int status = pykv_open_with(sim_os(sim), BACKUP_PATH, &options, &store);
    if (tells_no_backup(status) && !run->backed_up)
        return true;
    if (status != PYKV_OK)
        return fail(&run->reason, "open the backup: %d %s", status, pykv_last_error()->message);
    bool good = read_state(run->script, store, &state, &run->reason) &&
                find_state(run->script, states, count, 0, count - 1, &state, &run->reason) >= 0 &&
                check_agrees(run->script, store, &state, &run->reason);
    pykv_free(store);
    return good;
}

/* The backup, and the next one. */
static bool check_backup(struct run *run, struct sim *sim, struct pykv_store *store, const struct state *state)
{
    if (!check_backup_is(run, sim, run->backups, run->backup_count > 0 ? run->backup_count : 1))
        return false;
    int status = script_back_up(store, 0);
    if (status != PYKV_OK)
        return fail(&run->reason, "the next backup: %d %s", status, pykv_last_error()->message);
    run->backed_up = true;
    return check_backup_is(run, sim, state, 1);
}

/* The store as `image` has it, on a healthy machine. */
static bool check_later(struct run *run, const struct image *image, uint64_t boot,
                        const struct may *may, bool whole, const char *when)
{
    struct sim *sim = sim_new(7);
    struct pykv_store *store = NULL;
    struct state state;
    sim_set_boot(sim, boot);
    sim_load(sim, STORE_PATH, image);
    sim_add(sim, BACKUP_PATH, &run->backup);
    script_set_time(run->script, sim, script_time(run->script->step_count));
    int status = pykv_open_with(sim_os(sim), STORE_PATH, &run->script->options, &store);
    bool good = status == PYKV_OK;
    if (!good) {
        fail(&run->reason, "%s open: %d %s (%s at %llu)", when, status, pykv_last_error()->message,
             pykv_last_error()->path, (unsigned long long)pykv_last_error()->offset);
    }
    good = good && read_state(run->script, store, &state, &run->reason) &&
           known_state(&run->known, may, &state, when, &run->reason) && (!whole || known_whole(&run->known, &state, &run->reason)) &&
           check_agrees(run->script, store, &state, &run->reason);
    bool backed_up = run->backed_up;
    good = good && (run->backup_steps == 0 || check_backup(run, sim, store, &state));
    run->backed_up = backed_up;
    if (!good && run->reason.text[0] != 0) {
        char text[sizeof run->reason.text];
        memcpy(text, run->reason.text, sizeof text);
        snprintf(run->reason.text, sizeof run->reason.text, "%s: %.480s", when, text);
    }
    pykv_free(store);
    sim_free(sim);
    return good;
}

static bool check_power_cuts(struct run *run, struct image *image)
{
    const struct trace *trace = run->trace;
    bool good = true;
    for (int model = DISK_POSIX; good && model <= DISK_EXT4; model++) {
        struct disk *disk = disk_new((enum disk_model)model, &run->base);
        for (size_t i = 0; i < trace->count; i++)
            disk_apply(disk, &trace->effects[i]);
        size_t count = disk_pending(disk);
        bool *keep = calloc(count + 1, sizeof *keep);
        uint64_t random = trace->count;
        for (uint32_t i = 0; good && keep != NULL && i < 4 && (count > 0 || i == 0); i++) {
            struct disk_choice choice = { .keep = keep, .shared = (enum disk_shared)(i % 4),
                                          .seed = i };
            for (size_t j = 0; j < count; j++)
                keep[j] = i == 1 || (i > 1 && next_random(&random) % 2 == 0);
            disk_cut(disk, &choice, image);
            run->trials->counters[CUTS]++;
            good = check_later(run, image, run->boot + 1, run->known.durable, false, "after a power cut");
        }
        free(keep);
        disk_free(disk);
    }
    return good;
}

/* One run of the script with this fault. Whether a call failed. */
static bool run_fault(struct trials *trials, uint64_t seed, enum flavour flavour,
                      const struct sim_fault *fault, bool print)
{
    struct script *script = malloc(sizeof *script);
    struct run *run = calloc(1, sizeof *run);
    struct trace trace = { 0 };
    struct image killed = { 0 }, closed = { 0 };
    if (script == NULL || run == NULL)
        abort();
    script_make(script, seed, flavour);
    run->trials = trials;
    run->script = script;
    run->known.script = script;
    run->sim = sim_new(seed);
    run->trace = &trace;
    run->boot = 1;
    for (uint32_t key = 0; key < KEY_COUNT; key++)
        run->known.live[key] = run->known.durable[key] = (struct may){ .count = 1, .value = { ABSENT } };
    sim_record(run->sim, STORE_PATH, &trace);
    sim_fail(run->sim, fault);
    if (open_store(run)) {
        uint32_t i = 0;
        while (i < script->step_count && run_step(run, i))
            i++;
        if (run->store != NULL)
            check_reads(run);
    }
    bool durable = false;
    sim_save(run->sim, STORE_PATH, &killed);
    if (run->store != NULL && close_store(run, &durable) && durable) {
        for (uint32_t key = 0; key < KEY_COUNT; key++)
            run->known.durable[key] = run->known.live[key];
    }
    uint64_t failed = sim_failed(run->sim, SIM_ANY);
    sim_fail(run->sim, NULL);
    sim_save(run->sim, STORE_PATH, &closed);
    sim_save(run->sim, BACKUP_PATH, &run->backup);
    if (run->reason.text[0] == 0) {
        bool good = check_later(run, &killed, run->boot, run->known.live, true, "after a kill") &&
                    check_later(run, &closed, run->boot, run->known.live, true, "after a close") &&
                    check_power_cuts(run, &closed);
        (void)good;
    }
    trials->counters[RUNS]++;
    trials->counters[FAILED_CALLS] += failed;
    if (run->reason.text[0] != 0) {
        char text[sizeof run->reason.text + 64];
        snprintf(text, sizeof text, "first failed: %s; %s",
                 failed > 0 ? sim_call_name(sim_first_failed(run->sim)) : "nothing",
                 run->reason.text);
        trial_violation(trials, text);
        if (print)
            trace_print(&trace, SIZE_MAX, stdout);
    }
    pykv_free(run->store);
    sim_free(run->sim);
    trace_release(&trace);
    image_release(&killed);
    image_release(&closed);
    image_release(&run->base);
    image_release(&run->backup);
    script_release(script);
    free(script);
    free(run);
    return failed > 0;
}

static void work(struct trials *trials, void *context)
{
    const struct options *options = context;
    uint64_t number = 0;        /* of the run: those before trials->resume were tried */
    for (uint64_t i = 0; i < options->scripts && !trials_enough(trials); i++) {
        enum flavour flavour = turns[i % TURN_COUNT];
        if (options->flavour >= 0)
            flavour = (enum flavour)options->flavour;
        for (unsigned mode = 0; mode < 6 && !trials_enough(trials); mode++) {
            struct sim_fault fault = { .call = SIM_ANY, .onwards = mode >= 3, .variant = mode % 3 };
            bool fired = true;
            for (fault.at = options->from; fired && !trials_enough(trials); fault.at += options->stride) {
                if (number++ < trials->resume)
                    continue;           /* its child died: so it fired */
                trials->resume = number;
                trial_begin(trials, "--scripts 1 --seed %llu --flavour %d (%s), call %llu fails%s, "
                            "variant %u", (unsigned long long)(options->seed + i), flavour,
                            flavour_name(flavour), (unsigned long long)fault.at,
                            fault.onwards ? " and all later ones" : "", fault.variant);
                fired = run_fault(trials, options->seed + i, flavour, &fault, options->print);
            }
            trials->counters[COUNTED_CALLS] += fault.at;
        }
    }
}

int main(int argc, char **argv)
{
    struct options options = { .scripts = TURN_COUNT, .seed = 1, .stride = 1, .flavour = -1 };
    struct trials *trials = trials_new();
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--scripts") == 0)
            options.scripts = strtoull(value, NULL, 10);
        else if (strcmp(name, "--seed") == 0)
            options.seed = strtoull(value, NULL, 10);
        else if (strcmp(name, "--from") == 0)
            options.from = strtoull(value, NULL, 10);
        else if (strcmp(name, "--print") == 0)
            options.print = atoi(value) != 0;
        else if (strcmp(name, "--stride") == 0)
            options.stride = strtoull(value, NULL, 10);
        else if (strcmp(name, "--flavour") == 0)
            options.flavour = atoi(value);
        else if (strcmp(name, "--violations") == 0)
            trials->violations_max = strtoull(value, NULL, 10);
        else {
            fprintf(stderr, "unknown option %s\n", name);
            return 2;
        }
    }
    bool good = trials_run(trials, 20, work, &options);
    const uint64_t *c = trials->counters;
    printf("faults: %llu runs, %llu calls failed, %llu failures reported, %llu power cuts, "
           "%llu violations\n", (unsigned long long)c[RUNS], (unsigned long long)c[FAILED_CALLS],
           (unsigned long long)c[REPORTED], (unsigned long long)c[CUTS],
           (unsigned long long)trials->violations);
    return good ? 0 : 1;
}
