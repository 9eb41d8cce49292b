/* crash.c -- cut the power, or kill the process, at every point of many scripts, and look at what
 * the next open makes of it.
 *
 * Goal: whatever a cut leaves, the store opens, and holds the state after j steps for some
 * durable <= j <= started (after a kill: acked <= j <= started), the same by every way of reading;
 * it can be written to, and closed, and opened again. The same if the power is cut a second time
 * while the first cut is being recovered from, or after a killed process's store was taken over.
 * A backup holds the state of the last one that was finished, or of the one under way, or says that it
 * never was finished; reading leaves it alone; and the next backup finds its way from there.
 *
 * Method: run a script once while recording; walk along its trace, and at each point make images of
 * what the disk may hold (sim_disk.h): nothing pending, all of it, all subsets where they are few,
 * each of the last effects alone and left out, random subsets, torn sectors; in both models of a
 * file system. Each image that was not seen before is a trial. */
#define _POSIX_C_SOURCE 200809L
#include "after.h"
#include "trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum counter {
    SCRIPTS, POINTS, IMAGES, DISTINCT, DISTINCT_SECOND, KILLS, KILLS_SECOND, STORE_KILLS, STEPS_RUN,
};

struct options {
    uint64_t images, seed, scripts;
    uint64_t second_every;          /* one image in so many is cut again */
    int flavour;                    /* -1: all in turn */
    double seconds;                 /* 0: no limit */
    const char *dump;
    enum sim_lie lie;
};

struct enumerator {
    struct trials *trials;
    const struct options *options;
    struct script script;
    struct after after;
    uint64_t *seen;         /* open addressing: hash, then j + 1 */
    size_t seen_count, seen_capacity;
    uint64_t random, boot;
    struct image image, second;
    enum flavour flavour;
    char name[96];          /* of the script, as options that run it again */
    bool kills_only;        /* the trace does not tell log from keydir: no cuts after kills */
    bool backup;            /* the trace is of the directory of a backup */
    struct image source;    /* its store at the end */
    struct image names[STEPS_MAX + 1];  /* the backup after so many steps, where the last was one */
    double started;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* The entry of `hash` in the set: zero if new. */
static uint64_t *seen_entry(struct enumerator *e, uint64_t hash)
{
    if (hash == 0)
        hash = 1;
    if (e->seen_count * 2 >= e->seen_capacity) {
        uint64_t *old = e->seen;
        size_t old_capacity = e->seen_capacity;
        e->seen_capacity = old_capacity == 0 ? 1 << 16 : old_capacity * 2;
        e->seen = calloc(e->seen_capacity, 2 * sizeof *e->seen);
        if (e->seen == NULL)
            abort();
        for (size_t i = 0; i < old_capacity; i++) {
            if (old[2 * i] == 0)
                continue;
            size_t at = old[2 * i] & (e->seen_capacity - 1);
            while (e->seen[2 * at] != 0)
                at = (at + 1) & (e->seen_capacity - 1);
            memcpy(&e->seen[2 * at], &old[2 * i], 2 * sizeof *old);
        }
        free(old);
    }
    size_t at = hash & (e->seen_capacity - 1);
    while (e->seen[2 * at] != 0 && e->seen[2 * at] != hash)
        at = (at + 1) & (e->seen_capacity - 1);
    if (e->seen[2 * at] == 0)
        e->seen_count++;
    e->seen[2 * at] = hash;
    return &e->seen[2 * at + 1];
}

static void dump_trace(const struct trace *trace, size_t p, const char *path)
{
    char name[1024];
    snprintf(name, sizeof name, "%s/TRACE", path);
    mkdir(path, 0700);
    FILE *out = fopen(name, "wx");      /* of the innermost crash: that is the one to look at */
    if (out == NULL)
        return;
    trace_print(trace, p, out);
    fclose(out);
}

static void explore(struct enumerator *e, struct disk *disk, const struct trace *trace,
                    const struct history *history, uint64_t boot, unsigned depth);

/* Check the image; once in a while record that, and cut it in turn. `disk`: as it is at a kill, to
 * be gone on from, with `durable` steps durable; NULL: the image is all that there is. */
static int try_image(struct enumerator *e, const struct image *image, const struct disk *disk,
                     enum disk_model model, const struct history *history, uint32_t durable,
                     uint32_t low, uint32_t high, uint64_t boot, unsigned depth)
{
    struct reason reason = { "" };
    struct sim *sim = sim_new(e->random);
    struct trace trace = { 0 };
    bool again = depth == 0 && !e->backup && next_random(&e->random) % e->options->second_every == 0;
    sim_set_boot(sim, boot);
    int found = e->backup ? check_backup(&e->after, sim, image, history, low, high, &reason)
                          : check_image(&e->after, sim, image, history, low, high, again ? &trace : NULL, &reason);
    sim_free(sim);
    if (found < 0) {
        trial_violation(e->trials, reason.text);
        if (e->options->dump != NULL)
            image_write(image, e->options->dump);
    } else if (again) {
        struct state states[STEPS_MAX + AFTER_COUNT + 1];
        memcpy(states, history->states, ((size_t)found + 1) * sizeof *states);
        for (uint32_t i = 0; i < AFTER_COUNT; i++) {
            states[found + 1 + (int)i] = states[found + (int)i];
            script_apply(&e->script, e->script.step_count + i, &states[found + 1 + (int)i]);
        }
        struct history later = {
            .states = states, .count = (uint32_t)found + AFTER_COUNT + 1, .base = (uint32_t)found,
            .floor = disk == NULL ? (uint32_t)found : durable, .now_ms = e->after.now_ms,
        };
        struct disk *next = disk == NULL ? disk_new(model, image) : disk_copy(disk);
        uint64_t before = e->trials->violations;
        explore(e, next, &trace, &later, boot, depth + 1);
        disk_free(next);
        if (e->trials->violations > before && e->options->dump != NULL) {
            char first[1000];
            snprintf(first, sizeof first, "%s-first", e->options->dump);
            image_write(image, first);
        }
    }
    trace_release(&trace);
    return found;
}

/* The states that are legal at point p of the trace: those of the latest moment at its low end, of
 * the earliest at its high end. */
static void legal_range(struct enumerator *e, const struct trace *trace, size_t p, bool killed,
                        const struct history *history, uint32_t *low, uint32_t *high)
{
    struct progress late = p < trace->count ? trace->effects[p].progress : trace->progress;
    struct progress early = p > 0 ? trace->effects[p - 1].progress : (struct progress){ 0 };
    uint32_t known = killed ? late.acked : late.durable;
    *low = known > 0 ? history->base + known : killed ? history->base : history->floor;
    *high = history->base + early.started;
    if (*high < *low)       /* the steps between have no effects: they change nothing */
        *high = *low;
    e->after.now_ms = (early.now_ms > history->now_ms ? early.now_ms : history->now_ms) + 10;
}

static void try_cut(struct enumerator *e, struct disk *disk, struct disk_choice *choice,
                    const struct trace *trace, size_t p, const struct history *history,
                    uint64_t boot, unsigned depth, const char *kind)
{
    uint64_t *counters = e->trials->counters;
    struct image *image = depth == 0 ? &e->image : &e->second;
    enum disk_model model = disk_model_of(disk);
    uint32_t low, high;
    legal_range(e, trace, p, false, history, &low, &high);
    choice->seed = next_random(&e->random);
    choice->shared = choice->seed % SHARED_COUNT;
    disk_cut(disk, choice, image);
    counters[IMAGES]++;
    uint64_t hash = image_hash(image, false);
    const uint64_t *entry = seen_entry(e, hash);
    if (*entry != 0 && *entry - 1 >= low && *entry - 1 <= high)
        return;
    if (*entry == 0)
        counters[depth == 0 ? DISTINCT : DISTINCT_SECOND]++;
    trial_begin(e->trials, "%s%s, %s, cut %zu/%zu, %s of %zu pending%s, steps %u..%u", e->name,
                depth == 0 ? "" : ", second crash", model == DISK_POSIX ? "posix" : "ext4", p,
                trace->count, kind, disk_pending(disk), choice->torn != 0 ? ", torn" : "", low,
                high);
    uint64_t before = e->trials->violations;
    int found = try_image(e, image, NULL, model, history, low, low, high, boot + 1, depth);
    if (e->trials->violations > before && e->options->dump != NULL)
        dump_trace(trace, p, e->options->dump);
    *seen_entry(e, hash) = found < 0 ? UINT64_MAX : (uint64_t)found + 1;
}

static void try_kill(struct enumerator *e, struct disk *disk, const struct trace *trace, size_t p,
                     const struct history *history, uint64_t boot, unsigned depth,
                     const char *kind)
{
    struct image *image = depth == 0 ? &e->image : &e->second;
    uint32_t low, high, durable;
    legal_range(e, trace, p, false, history, &durable, &high);
    legal_range(e, trace, p, true, history, &low, &high);
    disk_current(disk, image);
    uint64_t hash = image_hash(image, true) ^ 0x6B696C6C;
    const uint64_t *entry = seen_entry(e, hash);
    if (*entry != 0 && *entry - 1 >= low && *entry - 1 <= high)
        return;
    e->trials->counters[depth == 0 ? KILLS : KILLS_SECOND]++;
    trial_begin(e->trials, "%s%s, %s %zu/%zu, steps %u..%u", e->name,
                depth == 0 ? "" : ", second crash", kind, p, trace->count, low, high);
    uint64_t before = e->trials->violations;
    int found = try_image(e, image, disk, disk_model_of(disk), history, durable, low, high, boot,
                          depth);
    if (e->trials->violations > before && e->options->dump != NULL)
        dump_trace(trace, p, e->options->dump);
    *seen_entry(e, hash) = found < 0 ? UINT64_MAX : (uint64_t)found + 1;
}

/* Killed, and somebody removes what the processes share: it has to be made anew from the log. */
static void try_loss(struct enumerator *e, struct disk *disk, const struct trace *trace, size_t p,
                     const struct history *history, uint64_t boot, unsigned depth)
{
    static const char *const names[] = { "keydir", "keydir.tmp" };
    struct disk *copy = disk_copy(disk);
    disk_current(copy, &e->image);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct image_file *file = image_find(&e->image, names[i]);
        struct effect effect = { .kind = EFFECT_REMOVE };
        if (file == NULL)
            continue;
        effect.inode = file->inode;
        snprintf(effect.name, sizeof effect.name, "%s", names[i]);
        disk_apply(copy, &effect);
    }
    try_kill(e, copy, trace, p, history, boot, depth, "kill and loss of the keydir");
    disk_free(copy);
}

/* All the cuts that are tried at one point. */
static void explore_point(struct enumerator *e, struct disk *disk, const struct trace *trace,
                          size_t p, const struct history *history, uint64_t boot, unsigned depth)
{
    uint64_t violations = e->trials->violations;
    size_t count = disk_pending(disk);
    bool *keep = calloc(count + 1, sizeof *keep);
    if (keep == NULL)
        abort();
    size_t alone = depth == 0 ? (count < 6 ? count : 6) : 1;
    size_t subsets = depth == 0 ? 14 : 2;
    struct disk_choice choice = { .keep = keep };
    for (size_t kind = 0; kind < 2; kind++) {
        memset(keep, kind != 0, count);
        try_cut(e, disk, &choice, trace, p, history, boot, depth, kind == 0 ? "none" : "all");
    }
    for (size_t i = 0; i < alone && i < count; i++) {
        memset(keep, 0, count);
        keep[count - 1 - i] = true;
        try_cut(e, disk, &choice, trace, p, history, boot, depth, "one");
        memset(keep, 1, count);
        keep[count - 1 - i] = false;
        try_cut(e, disk, &choice, trace, p, history, boot, depth, "all but one");
    }
    if (count <= 4) {
        for (size_t mask = 0; mask < (size_t)1 << count; mask++) {
            for (size_t i = 0; i < count; i++)
                keep[i] = (mask >> i & 1) != 0;
            try_cut(e, disk, &choice, trace, p, history, boot, depth, "subset");
        }
        subsets = count == 0 ? 0 : depth == 0 ? 4 : 1;      /* and tears */
    }
    for (size_t i = 0; i < subsets; i++) {
        uint64_t random = next_random(&e->random);
        uint64_t density = random % 16;                     /* mostly lost .. mostly there */
        size_t recent = random >> 8 & 1 ? 12 : count;       /* all but the newest certain */
        for (size_t j = 0; j < count; j++)
            keep[j] = j + recent < count || next_random(&e->random) % 16 <= density;
        choice.torn = 0;
        if (random >> 16 & 1 || count <= 4) {
            choice.torn = 1 + (size_t)(random >> 20) % count;
            choice.torn_size = 1 + (uint32_t)(random >> 40) % (DISK_SECTOR_SIZE - 1);
            choice.torn_tail = random >> 17 & 1;
            keep[choice.torn - 1] = true;
        }
        try_cut(e, disk, &choice, trace, p, history, boot, depth, "random");
        choice.torn = 0;
        if (e->trials->violations > violations)
            break;
    }
    free(keep);
}

static uint64_t images_tried(const struct enumerator *e)
{
    return e->trials->counters[DISTINCT] + e->trials->counters[DISTINCT_SECOND];
}

static bool time_is_up(const struct enumerator *e)
{
    return trials_enough(e->trials) || images_tried(e) >= e->options->images ||
           (e->options->seconds > 0 && now() - e->started > e->options->seconds);
}

/* The backup as it was after so many steps of the script. */
static void choose_names(struct enumerator *e, uint32_t step)
{
    while (step > 0 && e->names[step].count == 0)
        step--;
    e->after.names = &e->names[step];
}

static void explore(struct enumerator *e, struct disk *disk, const struct trace *trace,
                    const struct history *history, uint64_t boot, unsigned depth)
{
    uint64_t points = 1;        /* of a second crash, some four are enough */
    for (size_t i = 0; i < trace->count; i++)
        points += trace->effects[i].kind != EFFECT_SHARED;
    for (size_t p = 0; p <= trace->count && !time_is_up(e); p++) {
        if (p > 0)
            disk_apply(disk, &trace->effects[p - 1]);
        /* Stores found by comparing are in no order: only the end of such a run was ever there. */
        bool ordered = e->kills_only && depth == 0;
        if (!ordered && p < trace->count && trace->effects[p].kind == EFFECT_SHARED)
            continue;
        uint64_t lot = next_random(&e->random);
        if (depth == 0)         /* of a second crash the first one's counts */
            choose_names(e, p < trace->count ? trace->effects[p].progress.acked : trace->progress.acked);
        if (depth > 0 && (lot >> 32) % points >= 4)
            continue;
        if (depth == 0 || lot >> 8 & 1 || e->kills_only)
            try_kill(e, disk, trace, p, history, boot, depth, "kill");
        if (depth == 0 && lot >> 16 & 1 && !ordered && !e->backup)
            try_loss(e, disk, trace, p, history, boot, depth);
        if (e->kills_only)
            continue;
        if (depth == 0)
            e->trials->counters[POINTS]++;
        uint64_t before = e->trials->violations;
        explore_point(e, disk, trace, p, history, boot, depth);
        if (depth > 0 && e->trials->violations > before)
            return;             /* more of the same would follow */
    }
}

/* Kill at each single store into mapped memory: from the making of the store on, or, of a script that
 * preloads, behind that. */
static void explore_stores(struct enumerator *e)
{
    struct sim *sim = sim_new(e->script.seed);
    struct trace trace = { 0 };
    struct image base = { 0 };
    struct pykv_store *store = NULL;
    trial_begin(e->trials, "%s, whole run store by store", e->name);
    if (e->script.preload > 0 && (store = script_open(&e->script, sim)) == NULL)
        trial_violation(e->trials, "the script fails on a healthy machine");
    sim_save(sim, STORE_PATH, &base);
    sim_record(sim, STORE_PATH, &trace);
    bool stepping = sim_record_stores(sim, true);
    if (store == NULL)
        store = script_open(&e->script, sim);
    if (store == NULL || !script_run(&e->script, sim, store, &trace))
        trial_violation(e->trials, "the script fails on a healthy machine");
    sim_record_stores(sim, false);
    struct history history = { .states = e->script.states, .count = e->script.step_count + 1 };
    struct disk *disk = disk_new(DISK_POSIX, &base);
    uint64_t before = e->trials->counters[KILLS];
    for (size_t p = 0; p <= trace.count && !time_is_up(e); p++) {
        if (p > 0)
            disk_apply(disk, &trace.effects[p - 1]);
        try_kill(e, disk, &trace, p, &history, 1, 0, "kill");
    }
    disk_free(disk);
    if (stepping)
        e->trials->counters[STORE_KILLS] += e->trials->counters[KILLS] - before;
    sim_free(sim);
    image_release(&base);
    trace_release(&trace);
}

static void cut_trace(struct enumerator *e, const struct trace *trace, const struct history *history)
{
    const struct image empty = { 0 };
    for (int model = DISK_POSIX; model <= DISK_EXT4 && !time_is_up(e); model++) {
        struct disk *disk = disk_new((enum disk_model)model, &empty);
        explore(e, disk, trace, history, 1, 0);
        disk_free(disk);
    }
}

/* The same script; what its backups do to their directory. */
static void explore_backups(struct enumerator *e)
{
    struct sim *sim = sim_new(e->script.seed);
    struct trace trace = { 0 };
    struct state states[STEPS_MAX + 1];
    struct history history = { .states = states, .count = 1 };
    uint32_t steps = e->script.step_count + AFTER_COUNT;
    int status = PYKV_OK;
    trial_begin(e->trials, "%s, backups, whole run", e->name);
    struct pykv_store *store = script_open(&e->script, sim);
    sim_record(sim, BACKUP_PATH, &trace);
    for (uint32_t i = 0; i < steps && store != NULL && status == PYKV_OK; i++) {
        bool durable, backs_up = e->script.steps[i].kind == STEP_BACKUP;
        if (i >= e->script.step_count) {
            e->script.states[i + 1] = e->script.states[i];
            script_apply(&e->script, i, &e->script.states[i + 1]);
        }
        trace.progress.started += backs_up;
        status = script_do(&e->script, i, sim_os(sim), &store, &durable);
        if (backs_up) {
            states[history.count++] = e->script.states[i + 1];
            sim_save(sim, BACKUP_PATH, &e->names[i + 1]);
        }
        trace.progress.acked = trace.progress.durable = trace.progress.started;
    }
    if (store == NULL || status != PYKV_OK || pykv_close(store) != PYKV_OK)
        trial_violation(e->trials, "the script fails on a healthy machine");
    pykv_free(store);
    sim_save(sim, STORE_PATH, &e->source);
    sim_free(sim);
    e->backup = true;
    cut_trace(e, &trace, &history);
    e->backup = false;
    trace_release(&trace);
}

static void explore_script(struct enumerator *e)
{
    struct sim *sim = sim_new(e->script.seed);
    struct trace trace = { 0 };
    struct history history = { .states = e->script.states, .count = e->script.step_count + 1 };
    sim_lie(sim, e->options->lie);
    sim_record(sim, STORE_PATH, &trace);
    trial_begin(e->trials, "%s, whole run", e->name);
    struct pykv_store *store = script_open(&e->script, sim);
    bool ran = store != NULL && script_run(&e->script, sim, store, &trace);
    struct reason reason = { "" };
    if (!ran)
        fail(&reason, "the script fails on a healthy machine");
    else if (check_usage(sim, &reason) && trace.unannounced != 0)
        fail(&reason, "%llu bytes of a segment were stored without notice",
             (unsigned long long)trace.unannounced);
    if (reason.text[0] != 0)
        trial_violation(e->trials, reason.text);
    sim_free(sim);
    if (ran)
        cut_trace(e, &trace, &history);
    trace_release(&trace);
}

#define TURN_COUNT (sizeof turns / sizeof *turns)
static const enum flavour turns[] = {
    FLAVOUR_MIXED, FLAVOUR_COMMIT, FLAVOUR_ROLL, FLAVOUR_BATCH, FLAVOUR_REOPEN, FLAVOUR_INTERVAL, FLAVOUR_HUGE,
    FLAVOUR_COMPACT, FLAVOUR_EXPIRE, FLAVOUR_BACKUP, FLAVOUR_SMALL,
};

static void work(struct trials *trials, void *context)
{
    struct enumerator *e = calloc(1, sizeof *e);
    if (e == NULL)
        abort();
    e->trials = trials;
    e->options = context;
    e->after = (struct after){ .script = &e->script, .source = &e->source, .names = &e->names[0] };
    e->started = now();
    uint64_t *counters = trials->counters;
    while (trials->resume < e->options->scripts && !time_is_up(e)) {
        uint64_t i = trials->resume++;
        e->flavour = turns[i % TURN_COUNT];
        if (e->flavour == FLAVOUR_SMALL && i / TURN_COUNT % 2 == 1)
            e->flavour = FLAVOUR_GROW;
        if (e->options->flavour >= 0)
            e->flavour = (enum flavour)e->options->flavour;
        e->random = e->options->seed + i;
        snprintf(e->name, sizeof e->name, "--scripts 1 --seed %llu --flavour %d (%s)",
                 (unsigned long long)e->random, e->flavour, flavour_name(e->flavour));
        script_make(&e->script, e->options->seed + i, e->flavour);
        e->kills_only = flavour_is_small(e->flavour);
        if (e->flavour == FLAVOUR_BACKUP)
            explore_backups(e);
        if (e->kills_only)
            explore_stores(e);
        else
            explore_script(e);
        for (uint32_t step = 0; step <= STEPS_MAX; step++)
            image_clear(&e->names[step]);
        script_release(&e->script);
        counters[SCRIPTS]++;
    }
    image_release(&e->image);
    image_release(&e->second);
    image_release(&e->source);
    for (uint32_t step = 0; step <= STEPS_MAX; step++)
        image_release(&e->names[step]);
    free(e->seen);
    free(e);
}

static enum sim_lie parse_lie(const char *name)
{
    static const char *const names[] = { "none", "file-sync", "dir-sync", "sync-error" };
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0)
            return (enum sim_lie)i;
    }
    fprintf(stderr, "unknown lie: %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    struct options options = { .images = 50000, .seed = 1, .scripts = UINT64_MAX, .flavour = -1,
                               .second_every = 40 };
    struct trials *trials = trials_new();
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--images") == 0)
            options.images = strtoull(value, NULL, 10);
        else if (strcmp(name, "--seed") == 0)
            options.seed = strtoull(value, NULL, 10);
        else if (strcmp(name, "--seconds") == 0)
            options.seconds = atof(value);
        else if (strcmp(name, "--flavour") == 0)
            options.flavour = atoi(value);
        else if (strcmp(name, "--second-every") == 0)
            options.second_every = strtoull(value, NULL, 10);
        else if (strcmp(name, "--scripts") == 0)
            options.scripts = strtoull(value, NULL, 10);
        else if (strcmp(name, "--violations") == 0)
            trials->violations_max = strtoull(value, NULL, 10);
        else if (strcmp(name, "--dump") == 0)
            options.dump = value;
        else if (strcmp(name, "--lie") == 0)
            options.lie = parse_lie(value);
        else {
            fprintf(stderr, "unknown option %s\n", name);
            return 2;
        }
    }
    double start = now();
    bool good = trials_run(trials, 20, work, &options);
    const uint64_t *c = trials->counters;
    double seconds = now() - start;
    printf("crash: %llu scripts, %llu cut points, %llu images, %llu distinct + %llu distinct of a "
           "second crash, %llu kills (%llu of them at single stores) + %llu second kills, "
           "%llu violations, %.1f s, %.0f distinct images/s\n", (unsigned long long)c[SCRIPTS],
           (unsigned long long)c[POINTS], (unsigned long long)c[IMAGES],
           (unsigned long long)c[DISTINCT], (unsigned long long)c[DISTINCT_SECOND],
           (unsigned long long)c[KILLS], (unsigned long long)c[STORE_KILLS],
           (unsigned long long)c[KILLS_SECOND], (unsigned long long)trials->violations, seconds,
           (double)(c[DISTINCT] + c[DISTINCT_SECOND]) / seconds);
    return good ? 0 : 1;
}
