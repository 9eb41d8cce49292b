#include "after.h"

bool check_usage(struct sim *sim, struct reason *reason)
{
    struct sim_usage usage = sim_usage(sim);
    if (usage.descriptors + usage.mappings + usage.allocations + usage.locks == 0)
        return true;
    return fail(reason, "closed, but %llu descriptors, %llu mappings, %llu allocations, %llu locks "
                "are left", (unsigned long long)usage.descriptors,
                (unsigned long long)usage.mappings, (unsigned long long)usage.allocations,
                (unsigned long long)usage.locks);
}

int check_image(const struct after *after, struct sim *sim, const struct image *image,
                const struct history *history, uint32_t low, uint32_t high, struct trace *trace,
                struct reason *reason)
{
    struct pykv_store *store = NULL;
    struct state state;
    int found = -1;
    sim_load(sim, STORE_PATH, image);
    sim_record(sim, STORE_PATH, trace);
    script_set_time(after->script, sim, after->now_ms);
    sim_add(sim, BACKUP_PATH, after->names);      /* nobody may write to a file that has two names */
    struct trace ignored = { 0 };
    struct trace *progress = trace != NULL ? trace : &ignored;
    int status = pykv_open_with(sim_os(sim), STORE_PATH, &after->script->options, &store);
    if (status != PYKV_OK) {
        fail(reason, "open: %d %s (%s at %llu)", status, pykv_last_error()->message,
             pykv_last_error()->path, (unsigned long long)pykv_last_error()->offset);
        goto done;
    }
    if (!read_state(after->script, store, &state, reason))
        goto done;
    found = find_state(after->script, history->states, history->count, low, high, &state, reason);
    if (found < 0 || !check_agrees(after->script, store, &state, reason))
        goto done;
    for (uint32_t i = 0; i < AFTER_COUNT; i++) {
        bool durable;
        progress->progress.started = i + 1;
        progress->progress.now_ms = script_time(after->script->step_count + i);
        status = script_do(after->script, after->script->step_count + i, sim_os(sim), &store, &durable);
        if (status != PYKV_OK) {
            fail(reason, "writing afterwards: %d %s", status, pykv_last_error()->message);
            goto done;
        }
        script_apply(after->script, after->script->step_count + i, &state);
        progress->progress.acked = i + 1;
        if (durable)
            progress->progress.durable = i + 1;
    }
    if (!check_agrees(after->script, store, &state, reason))
        goto done;
    status = pykv_close(store);
    pykv_free(store);
    store = NULL;
    if (status != PYKV_OK) {
        fail(reason, "close: %d %s", status, pykv_last_error()->message);
        goto done;
    }
    progress->progress.durable = AFTER_COUNT;
    if (!check_usage(sim, reason))
        goto done;
    status = pykv_open_with(sim_os(sim), STORE_PATH, &after->script->options, &store);
    if (status != PYKV_OK)
        fail(reason, "open again: %d %s", status, pykv_last_error()->message);
    else
        check_agrees(after->script, store, &state, reason);
done:
    pykv_free(store);
    if (reason->text[0] == 0)
        check_usage(sim, reason);
    sim_record(sim, STORE_PATH, NULL);
    return reason->text[0] == 0 ? found : -1;
}

static bool open_at(const struct after *after, struct sim *sim, const char *path, int flag, struct pykv_store **store,
                    struct reason *reason)
{
    struct pykv_options options = after->script->options;
    options.flag = flag;
    int status = pykv_open_with(sim_os(sim), path, &options, store);
    return status == PYKV_OK || fail(reason, "open %s: %d %s", path, status, pykv_last_error()->message);
}

/* The backup holds one of these states, and reading it changes nothing. Which one, or -1. */
static int check_state(const struct after *after, struct sim *sim, const struct history *history, uint32_t low, uint32_t high,
                       struct reason *reason)
{
    struct pykv_store *store = NULL;
    struct image before = { 0 }, now = { 0 };
    struct state state;
    int found = -1;
    sim_save(sim, BACKUP_PATH, &before);
    if (open_at(after, sim, BACKUP_PATH, PYKV_FLAG_READ, &store, reason) && read_state(after->script, store, &state, reason)) {
        found = find_state(after->script, history->states, history->count, low, high, &state, reason);
        if (found >= 0 && !check_agrees(after->script, store, &state, reason))
            found = -1;
    }
    pykv_free(store);
    sim_save(sim, BACKUP_PATH, &now);
    if (!image_equal(&before, &now)) {
        fail(reason, "reading the backup has changed it");
        found = -1;
    }
    image_release(&before);
    image_release(&now);
    return found;
}

int check_backup(const struct after *after, struct sim *sim, const struct image *image, const struct history *history,
                 uint32_t low, uint32_t high, struct reason *reason)
{
    struct pykv_options options = after->script->options;
    struct pykv_store *store = NULL;
    uint32_t last = history->count - 1;
    int found = 0;
    sim_load(sim, BACKUP_PATH, image);
    sim_add(sim, STORE_PATH, after->source);
    options.flag = PYKV_FLAG_READ;
    int status = low > 0 ? PYKV_OK : pykv_open_with(sim_os(sim), BACKUP_PATH, &options, &store);
    pykv_free(store);
    bool none = tells_no_backup(status);
    if (status != PYKV_OK && !none)
        fail(reason, "open: %d %s", status, pykv_last_error()->message);
    else if (!none)
        found = check_state(after, sim, history, low > 0 ? low : 1, high, reason);
    store = NULL;
    if (found >= 0 && reason->text[0] == 0 && open_at(after, sim, STORE_PATH, PYKV_FLAG_WRITE, &store, reason)) {
        status = script_back_up(store, image->count % 2 == 0 ? 0 : PYKV_BACKUP_COPY);
        if (status != PYKV_OK)
            fail(reason, "the next backup: %d %s", status, pykv_last_error()->message);
    }
    pykv_free(store);
    store = NULL;
    if (reason->text[0] == 0 && check_state(after, sim, history, last, last, reason) >= 0 &&
        open_at(after, sim, BACKUP_PATH, PYKV_FLAG_WRITE, &store, reason)) {
        status = pykv_put(store, (const uint8_t *)"key", 3, NULL, 0, 0, PYKV_DURABILITY_COMMIT, NULL);
        if (status != PYKV_OK)
            fail(reason, "writing to a backup: %d %s", status, pykv_last_error()->message);
    }
    pykv_free(store);
    if (reason->text[0] == 0)
        check_usage(sim, reason);
    return reason->text[0] == 0 ? found : -1;
}
