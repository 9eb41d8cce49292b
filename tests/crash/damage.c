/* damage.c -- change the files of a small store in every way that a bad disk, a bad copy or a bad
 * neighbour might, and read all of it.
 *
 * Goal: never a crash, never a hang, never a value that the key did not have. A store that was
 * closed tells of any damage that loses or changes what was acknowledged: open, or a read, or
 * verify() fails. Of a store that was killed, the tail behind the durable point may go, as a power
 * cut may take it, but only as a whole number of steps. With `repair` the store opens, and has
 * everything but what the damaged place held; from then on it is a store without damage. So with a backup,
 * whether it is read or turned into a store.
 *
 * A loss is silent if a key's current value cannot be read back, and neither open nor any read nor
 * verify() has failed: that is a violation.
 *
 * Method: each byte of each file x three flips, each length it can be cut to, each block of 512
 * bytes zeroed, doubled and swapped, each record written over each other one of its size, rubbish
 * behind the end, each file emptied, removed, swapped with each other one, put back as it was a
 * while ago; then open it, in the same boot and in a later one. */
#include "check.h"
#include "format.h"
#include "trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum counter {
    TRIALS, HARMLESS, AT_OPEN, AT_READ, AT_VERIFY, TAIL_CUT, REPAIRED, PLACED, MISPLACED, BYTES,
};

struct options {
    uint64_t seed, stride;
    int flavour;
    const char *stage, *file, *dump;      /* NULL: all */
};

enum damage_kind {
    FLIP, TRUNCATE, ZERO, DOUBLE, SWAP, APPEND, EMPTY, REMOVE, SWAP_FILES, OLD_COPY, MISDIRECT,
};
static const char *const damage_names[] = { "flip", "truncate to", "zero block", "double block",
                                            "swap block", "append", "empty", "remove",
                                            "swap with file", "old copy", "misdirect to" };
struct damage {
    enum damage_kind kind;
    size_t file;
    uint64_t at;            /* byte, length or block; of SWAP_FILES the other file */
    uint32_t detail;        /* the mask, the other block, the size; of MISDIRECT the byte it is from */
};

struct stage {              /* a store to be damaged, and what is in it */
    const char *name;
    struct image image, old;        /* old: the same store half-way through its script */
    uint32_t durable, steps;        /* the states that it may have without being damaged */
    bool closed, backup;
    uint64_t boot;
};

struct damager {
    struct trials *trials;
    const struct options *options;
    struct script script;
    struct image image;
    uint64_t number;
    bool touched[KEY_COUNT];        /* keys whose newest record the damage may have hit */
    uint64_t touched_from, touched_end;
};

/* ---- Which keys the damage may touch ---- */

static uint32_t key_number(const struct script *script, const uint8_t *bytes, size_t size)
{
    uint32_t key = 0;
    while (key < KEY_COUNT && (script->keys[key].size != size ||
                               (size > 0 && memcmp(script->keys[key].bytes, bytes, size) != 0)))
        key++;
    return key;
}

struct place { const struct image_file *file; uint64_t offset, end, frame, sequence; };

/* Walk the records of the undamaged segments; where each key's newest one lies, and its frame. */
static void find_places(const struct script *script, const struct image *image,
                        struct place places[KEY_COUNT])
{
    memset(places, 0, KEY_COUNT * sizeof *places);
    for (size_t i = 0; i < image->count; i++) {
        const struct image_file *file = &image->files[i];
        struct segment_header header;
        if (file->size < SEGMENT_HEADER_SIZE ||
            segment_header_decode(file->bytes, &header) != PYKV_OK)
            continue;
        struct record record;
        uint64_t frame = 0;
        for (uint64_t at = SEGMENT_HEADER_SIZE; at < file->size &&
             record_decode(file->bytes + at, file->size - at, &record) == PYKV_OK &&
             get_u32(file->bytes + at) != 0; at += record.size) {
            if ((record.flags & RECORD_FRAME) != 0)
                frame = at;
            if ((record.flags & (RECORD_FRAME | RECORD_MARK | RECORD_SEAL)) != 0)
                continue;
            uint32_t key = key_number(script, record.key, record.key_size);
            if (key == KEY_COUNT || record.sequence < places[key].sequence)
                continue;
            places[key] = (struct place){
                .file = file, .offset = at, .end = at + record.size, .sequence = record.sequence,
                .frame = (record.flags & RECORD_MEMBER) != 0 ? frame : 0,
            };
        }
    }
}

static void touch(struct damager *d, const struct image *image, const struct place *places,
                  size_t number, uint64_t from, uint64_t end)
{
    const struct image_file *file = &image->files[number];
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        const struct place *place = &places[key];
        if (place->file != file)
            continue;
        bool hit = from < place->end && place->offset < end;
        bool frame_hit = place->frame != 0 && from < place->frame + RECORD_BARE_SIZE &&
                         place->frame < end;
        bool header_hit = from < SEGMENT_HEADER_SIZE;    /* then all of the segment is lost */
        if (hit || frame_hit || header_hit)
            d->touched[key] = true;
    }
}

/* ---- Doing the damage ---- */

enum { BLOCK = 512 };

static void swap_bytes(uint8_t *a, uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

/* False if it changes nothing. */
static bool do_damage(struct damager *d, const struct stage *stage, const struct damage *damage,
                      const struct place *places)
{
    image_copy(&d->image, &stage->image);
    struct image_file *file = &d->image.files[damage->file];
    uint64_t old_size = file->size, from = damage->at * BLOCK, end = from + BLOCK;
    if (end > old_size)
        end = old_size;
    memset(d->touched, 0, sizeof d->touched);
    switch (damage->kind) {
    case FLIP:
        file->bytes[damage->at] ^= (uint8_t)damage->detail;
        from = damage->at;
        end = from + 1;
        break;
    case TRUNCATE:
        image_set_size(file, damage->at);
        from = damage->at;
        end = old_size;
        break;
    case ZERO:
        memset(file->bytes + from, 0, end - from);
        break;
    case DOUBLE:
    case SWAP: {
        uint64_t other = (uint64_t)damage->detail * BLOCK;
        if (other + BLOCK > old_size || from + BLOCK > old_size || other == from)
            return false;
        if (damage->kind == DOUBLE) {
            memcpy(file->bytes + from, file->bytes + other, BLOCK);
        } else {
            swap_bytes(file->bytes + from, file->bytes + other, BLOCK);
            touch(d, &stage->image, places, damage->file, other, other + BLOCK);
        }
        break;
    }
    case APPEND: {
        uint64_t random = damage->detail;
        image_set_size(file, old_size + damage->detail);
        for (uint64_t i = old_size; i < file->size; i++)
            file->bytes[i] = (uint8_t)next_random(&random);
        from = end = old_size;
        break;
    }
    case MISDIRECT: {       /* a record is written where another one of its size is */
        struct record record;
        if (record_decode(file->bytes + damage->detail, old_size - damage->detail, &record) !=
            PYKV_OK)
            return false;
        memcpy(file->bytes + damage->at, file->bytes + damage->detail, record.size);
        from = damage->at;
        end = from + record.size;
        break;
    }
    case EMPTY:
        image_set_size(file, 0);
        from = 0;
        end = old_size;
        break;
    case REMOVE:
        image_remove(&d->image, file);
        from = 0;
        end = old_size;
        break;
    case SWAP_FILES: {
        struct image_file *other = &d->image.files[damage->at];
        struct image_file first = *file;
        memcpy(first.name, other->name, sizeof first.name);
        memcpy(other->name, file->name, sizeof other->name);
        *file = *other;
        *other = first;
        touch(d, &stage->image, places, damage->at, 0, UINT64_MAX);
        from = 0;
        end = UINT64_MAX;
        break;
    }
    case OLD_COPY: {
        struct image_file *old = image_find((struct image *)&stage->old, file->name);
        if (old == NULL)
            return false;
        image_set_size(file, 0);
        image_set_size(file, old->size);
        if (old->size > 0)
            memcpy(file->bytes, old->bytes, old->size);
        from = 0;
        end = UINT64_MAX;
        break;
    }
    }
    touch(d, &stage->image, places, damage->file, from, end);
    d->touched_from = from;
    d->touched_end = end;
    return !image_equal(&d->image, &stage->image);
}

/* ---- Judging ---- */

struct outcome {
    bool reported, lost, wrong;
    enum counter where;
    struct state state;     /* -2: could not be read */
};

/* The record or frame around byte `at` of a segment: the place that a report has to name. */
static void find_record(const struct image_file *file, uint64_t at, uint64_t *from, uint64_t *end)
{
    struct record record;
    uint64_t frame_end = 0;
    *from = 0;
    *end = SEGMENT_HEADER_SIZE;
    for (uint64_t offset = SEGMENT_HEADER_SIZE; at >= *end && offset < file->size; offset = *end) {
        if (record_decode(file->bytes + offset, file->size - offset, &record) != PYKV_OK ||
            get_u32(file->bytes + offset) == 0) {
            *from = offset;         /* behind the last one: the rest of the file */
            *end = file->size;
            return;
        }
        if (offset >= frame_end)
            *from = offset;
        if ((record.flags & RECORD_FRAME) != 0)
            frame_end = offset + record.size + (uint64_t)record.value_size * RECORD_ALIGNMENT;
        *end = offset + record.size;
    }
}

static void note_place(struct damager *d, const struct stage *stage, const struct damage *damage,
                       const char *path, uint64_t offset, struct reason *reason)
{
    const struct image_file *file = &stage->image.files[damage->file];
    uint64_t from = 0, end = UINT64_MAX;
    if (damage->kind == FLIP && strncmp(file->name, "segment-", 8) == 0)
        find_record(file, damage->at, &from, &end);
    bool placed = strcmp(path, file->name) == 0 && from <= offset && offset < end;
    d->trials->counters[placed ? PLACED : MISPLACED]++;
    if (end != UINT64_MAX && !placed)
        fail(reason, "the damage is reported as %s at %llu, not in %llu..%llu", path,
             (unsigned long long)offset, (unsigned long long)from, (unsigned long long)end);
}

static void read_all(struct damager *d, struct pykv_store *store, const struct state *expected,
                     struct outcome *outcome, struct reason *reason)
{
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        int status = read_value(&d->script, store, key, &outcome->state.value[key]);
        if (status != PYKV_OK) {
            outcome->state.value[key] = -2;
            outcome->reported = true;
            outcome->where = AT_READ;
            if (status == PYKV_CORRUPT && pykv_last_error()->path[0] == 0)
                fail(reason, "get reports damage, but not in which file");
        } else if (outcome->state.value[key] == (int32_t)VALUES_MAX) {
            outcome->wrong = true;
            fail(reason, "WRONG: key %u has a value or an expiry that it never had, or that is over", key);
        }
        outcome->lost = outcome->lost || outcome->state.value[key] != expected->value[key];
    }
}

static void scan_all(struct damager *d, struct pykv_store *store, struct outcome *outcome,
                     struct reason *reason)
{
    struct pykv_scan *scan = NULL;
    struct pykv_rows *rows = pykv_rows_new();
    int status = pykv_scan_open(store, NULL, NULL, 0, 3, &scan);
    uint64_t rounds = 0;
    while (status == PYKV_OK && (status = pykv_scan_next(scan, rows)) == PYKV_OK) {
        size_t size, count = pykv_rows_count(rows);
        const uint8_t *data = pykv_rows_data(rows, &size);
        const char *format = pykv_rows_format(rows, &size);
        for (size_t i = 0; i + 1 < count; i += 2) {
            char *end;
            size_t key_size = strtoul(format, &end, 10);
            size_t value_size = strtoul(end + 1, &end, 10);
            format = end + 1;
            uint32_t key = key_number(&d->script, data, key_size);
            if (key == KEY_COUNT)
                fail(reason, "WRONG: the scan yields a key that was never put");
            else if (find_value(&d->script, key, data + key_size, value_size) ==
                     (int32_t)VALUES_MAX)
                fail(reason, "WRONG: the scan yields a value that key %u never had", key);
            data += key_size + value_size;
        }
        if (++rounds > 1000) {
            fail(reason, "the scan does not end");
            break;
        }
    }
    outcome->reported = outcome->reported || status < 0;
    pykv_scan_close(scan);
    pykv_rows_free(rows);
}

/* Whether the store has the state after j >= durable steps. */
static bool is_prefix(const struct damager *d, const struct stage *stage,
                      const struct state *state)
{
    for (uint32_t j = stage->durable; j <= stage->steps; j++) {
        const struct state seen = script_seen(&d->script, &d->script.states[j]);
        if (memcmp(&seen, state, sizeof *state) == 0)
            return true;
    }
    return false;
}

/* With `repair`, all keys but the touched ones are as they were. */
static void try_repair(struct damager *d, const struct stage *stage, const struct damage *damage,
                       uint64_t boot, const struct state *expected, struct reason *reason)
{
    struct sim *sim = sim_new(5);
    struct pykv_store *store = NULL;
    struct pykv_options options = d->script.options;
    static struct pykv_report report;
    options.repair = 1;
    sim_set_boot(sim, boot);
    sim_load(sim, STORE_PATH, &d->image);
    script_set_time(&d->script, sim, script_time(d->script.step_count));
    int status = pykv_open_with(sim_os(sim), STORE_PATH, &options, &store);
    if (status != PYKV_OK) {
        fail(reason, "repair cannot open: %d %s", status, pykv_last_error()->message);
        sim_free(sim);
        return;
    }
    struct outcome outcome = { .lost = false };
    read_all(d, store, expected, &outcome, reason);
    for (uint32_t key = 0; key < KEY_COUNT; key++) {
        if (outcome.state.value[key] != expected->value[key] && !d->touched[key] &&
            damage->kind != OLD_COPY && stage->closed) {
            fail(reason, "repair loses key %u (v%d, was v%d), which the damage did not touch", key,
                 outcome.state.value[key], expected->value[key]);
        }
    }
    pykv_free(store);
    store = NULL;
    options.repair = 0;
    status = pykv_open_with(sim_os(sim), STORE_PATH, &options, &store);
    if (status != PYKV_OK)
        fail(reason, "after a repair, open: %d %s", status, pykv_last_error()->message);
    else if (pykv_verify(store, &report) != PYKV_OK)
        fail(reason, "after a repair, verify: %s at %llu", report.damage[0].path,
             (unsigned long long)report.damage[0].offset);
    else
        d->trials->counters[REPAIRED]++;
    pykv_free(store);
    sim_free(sim);
}

static void judge(struct damager *d, const struct stage *stage, const struct damage *damage,
                  uint64_t boot)
{
    struct reason reason = { "" };
    struct sim *sim = sim_new(5);
    struct pykv_store *store = NULL;
    struct outcome outcome = { .where = HARMLESS };
    const struct state seen = script_seen(&d->script, &d->script.states[stage->steps]), *expected = &seen;
    struct pykv_options options = d->script.options;
    uint64_t *counters = d->trials->counters;
    static struct pykv_report report;
    sim_set_boot(sim, boot);
    sim_load(sim, STORE_PATH, &d->image);
    script_set_time(&d->script, sim, script_time(d->script.step_count));
    if (stage->backup && boot == stage->boot)
        options.flag = PYKV_FLAG_READ;
    int status = pykv_open_with(sim_os(sim), STORE_PATH, &options, &store);
    if (status != PYKV_OK) {
        store = NULL;
        outcome = (struct outcome){ .where = AT_OPEN, .reported = true, .lost = true };
        if (status == PYKV_CORRUPT && pykv_last_error()->path[0] == 0)
            fail(&reason, "open reports damage, but not in which file");
        note_place(d, stage, damage, pykv_last_error()->path, pykv_last_error()->offset, &reason);
    } else {
        read_all(d, store, expected, &outcome, &reason);
        scan_all(d, store, &outcome, &reason);
        status = pykv_verify(store, &report);
        if (status < 0 && !outcome.reported)
            outcome.where = AT_VERIFY;
        if (status < 0 && report.damage_count > 0)
            note_place(d, stage, damage, report.damage[0].path, report.damage[0].offset, &reason);
        outcome.reported = outcome.reported || status < 0;
        bool prefix = is_prefix(d, stage, &outcome.state);
        /* The keydir of a killed store, put back as it was a while ago in the same boot: nothing on
         * the disk tells that it is not the one that the process left. An older manifest of a backup is
         * the older backup: what else is there has no meaning until a manifest lists it. */
        bool is_rollback = damage->kind == OLD_COPY &&
                           strcmp(stage->image.files[damage->file].name, stage->backup ? "manifest" : "keydir") == 0;
        if (outcome.lost && !outcome.reported && prefix && !stage->closed)
            outcome.where = TAIL_CUT;
        else if (outcome.lost && !outcome.reported && !(is_rollback && (stage->backup || !stage->closed)))
            fail(&reason, "SILENT LOSS");
        /* It can be written to, or says that it cannot; and never crashes. */
        uint8_t name[3] = "new";
        bool acked = pykv_put(store, name, 3, name, 3, 0, PYKV_DURABILITY_COMMIT, NULL) == PYKV_OK;
        status = pykv_close(store);
        pykv_free(store);
        store = NULL;
        struct sim_usage usage = sim_usage(sim);
        if (usage.descriptors + usage.mappings + usage.allocations + usage.locks != 0)
            fail(&reason, "something is left open after the close");
        if (acked && status == PYKV_OK && !outcome.reported) {
            uint8_t value[3];
            status = pykv_open_with(sim_os(sim), STORE_PATH, &d->script.options, &store);
            if (status == PYKV_OK && pykv_get(store, name, 3, value, 3, NULL) != 3)
                fail(&reason, "what was put after the damage is gone");
            pykv_free(store);
        }
    }
    sim_free(sim);
    counters[TRIALS]++;
    counters[outcome.where]++;
    if (outcome.reported)
        try_repair(d, stage, damage, boot, expected, &reason);
    if (reason.text[0] != 0)
        trial_violation(d->trials, reason.text);
}

static void try_damage(struct damager *d, const struct stage *stage, const struct damage *damage,
                       const struct place *places)
{
    if (trials_enough(d->trials) || d->number++ < d->trials->resume)
        return;
    d->trials->resume = d->number;
    if (!do_damage(d, stage, damage, places))
        return;
    for (uint64_t boot = stage->boot; boot <= stage->boot + 1; boot++) {
        const struct image_file *file = &stage->image.files[damage->file];
        trial_begin(d->trials, "--seed %llu, %s store, %s %s %llu (%x) of %llu bytes, %s boot",
                    (unsigned long long)d->options->seed, stage->name, file->name,
                    damage_names[damage->kind], (unsigned long long)damage->at, damage->detail,
                    (unsigned long long)file->size, boot == stage->boot ? "same" : "other");
        judge(d, stage, damage, boot);
    }
}

/* Whether byte `at` is worth a trial of its own: all but the inner part of long runs of zeros, of
 * which every 61st is. */
static bool is_interesting(const struct image_file *file, uint64_t at, uint64_t stride)
{
    uint64_t from = at > 40 ? at - 40 : 0;
    uint64_t end = at + 24 < file->size ? at + 24 : file->size;
    bool zeros = true;
    for (uint64_t i = from; zeros && i < end; i++)
        zeros = file->bytes[i] == 0;
    if (zeros)
        return at % (61 * stride) == 0;
    return file->size > 65536 ? at % (7 * stride) == 0 : at % stride == 0;
}

/* Each record over each other one of its size: what a disk does that writes to the wrong place. */
static void misdirect_records(struct damager *d, const struct stage *stage, size_t number,
                              const struct place *places)
{
    enum { RECORDS_MAX = 400 };
    const struct image_file *file = &stage->image.files[number];
    uint64_t offsets[RECORDS_MAX], sizes[RECORDS_MAX];
    size_t count = 0;
    struct segment_header header;
    struct record record;
    if (file->size < SEGMENT_HEADER_SIZE || segment_header_decode(file->bytes, &header) != PYKV_OK)
        return;
    for (uint64_t at = SEGMENT_HEADER_SIZE; at < file->size && count < RECORDS_MAX &&
         record_decode(file->bytes + at, file->size - at, &record) == PYKV_OK &&
         get_u32(file->bytes + at) != 0; at += record.size) {
        offsets[count] = at;
        sizes[count++] = record.size;
    }
    for (size_t to = 0; to < count; to++) {
        for (size_t from = 0; from < count; from++) {
            struct damage damage = { MISDIRECT, number, offsets[to], (uint32_t)offsets[from] };
            if (to != from && sizes[to] == sizes[from])
                try_damage(d, stage, &damage, places);
        }
    }
}

static void damage_file(struct damager *d, const struct stage *stage, size_t number,
                        const struct place *places)
{
    static const uint8_t masks[3] = { 0x01, 0x80, 0xFF };
    const struct image_file *file = &stage->image.files[number];
    uint64_t blocks = (file->size + BLOCK - 1) / BLOCK;
    for (uint64_t at = 0; at < file->size; at++) {
        if (!is_interesting(file, at, d->options->stride))
            continue;
        d->trials->counters[BYTES]++;
        for (size_t i = 0; i < 3; i++)
            try_damage(d, stage, &(struct damage){ FLIP, number, at, masks[i] }, places);
        try_damage(d, stage, &(struct damage){ TRUNCATE, number, at, 0 }, places);
    }
    for (uint64_t block = 0; block < blocks; block += 1 + d->options->stride / 32) {
        bool zeros = true;
        for (uint64_t i = block * BLOCK; zeros && i < (block + 1) * BLOCK && i < file->size; i++)
            zeros = file->bytes[i] == 0;
        if (zeros && block % 16 != 0)
            continue;
        try_damage(d, stage, &(struct damage){ ZERO, number, block, 0 }, places);
        uint32_t step = (uint32_t)(blocks / 24 + 1);
        for (uint32_t other = (uint32_t)(block % step); other < blocks; other += step) {
            try_damage(d, stage, &(struct damage){ DOUBLE, number, block, other }, places);
            if (other > block)
                try_damage(d, stage, &(struct damage){ SWAP, number, block, other }, places);
        }
    }
    misdirect_records(d, stage, number, places);
    static const uint32_t sizes[] = { 1, 15, 16, 512, 4096, 70000 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        try_damage(d, stage, &(struct damage){ APPEND, number, 0, sizes[i] }, places);
    try_damage(d, stage, &(struct damage){ EMPTY, number, 0, 0 }, places);
    try_damage(d, stage, &(struct damage){ REMOVE, number, 0, 0 }, places);
    try_damage(d, stage, &(struct damage){ OLD_COPY, number, 0, 0 }, places);
    for (size_t other = number + 1; other < stage->image.count; other++)
        try_damage(d, stage, &(struct damage){ SWAP_FILES, number, other, 0 }, places);
}

/* A store of the script's steps, or its backup. */
static bool make_stage(struct damager *d, struct stage *stage)
{
    const char *path = stage->backup ? BACKUP_PATH : STORE_PATH;
    struct sim *sim = sim_new(3);
    struct pykv_store *store = NULL;
    stage->boot = 1;
    stage->steps = d->script.step_count;
    if (pykv_open_with(sim_os(sim), STORE_PATH, &d->script.options, &store) != PYKV_OK)
        return false;
    for (uint32_t i = 0; i < stage->steps; i++) {
        bool durable;
        if (script_do(&d->script, i, sim_os(sim), &store, &durable) != PYKV_OK)
            return false;
        if (durable)
            stage->durable = i + 1;
        bool half = i == stage->steps / 2, backs_up = stage->backup && (half || i + 1 == stage->steps);
        if (backs_up && script_back_up(store, half ? 0 : PYKV_BACKUP_COPY) != PYKV_OK)
            return false;
        if (half)
            sim_save(sim, path, &stage->old);
    }
    if (!stage->closed)
        sim_save(sim, path, &stage->image);
    if (pykv_close(store) != PYKV_OK)
        return false;
    pykv_free(store);
    if (stage->closed) {
        sim_save(sim, path, &stage->image);
        stage->durable = stage->steps;
    }
    sim_free(sim);
    return true;
}

static void work(struct trials *trials, void *context)
{
    struct damager *d = calloc(1, sizeof *d);
    if (d == NULL)
        abort();
    d->trials = trials;
    d->options = context;
    script_make(&d->script, d->options->seed, (enum flavour)d->options->flavour);
    d->script.options.segment_size = 65536;
    const struct stage stages[] = { { .name = "closed", .closed = true }, { .name = "killed" },
                                    { .name = "backup", .closed = true, .backup = true } };
    for (size_t number = 0; number < sizeof stages / sizeof *stages; number++) {
        struct stage stage = stages[number];
        struct place places[KEY_COUNT];
        if (d->options->stage != NULL && strcmp(stage.name, d->options->stage) != 0)
            continue;
        trial_begin(trials, "--seed %llu, making the %s store", (unsigned long long)d->options->seed, stage.name);
        if (!make_stage(d, &stage)) {
            trial_violation(trials, "the script fails on a healthy machine");
            break;
        }
        d->script.now_ms = script_time(stage.steps);
        find_places(&d->script, &stage.image, places);
        if (d->options->dump != NULL && number == 0)
            image_write(&stage.image, d->options->dump);
        for (size_t i = 0; i < stage.image.count; i++) {
            if (d->options->file == NULL ||
                strstr(stage.image.files[i].name, d->options->file) != NULL)
                damage_file(d, &stage, i, places);
        }
        image_release(&stage.image);
        image_release(&stage.old);
    }
    script_release(&d->script);
    image_release(&d->image);
    free(d);
}

int main(int argc, char **argv)
{
    struct options options = { .seed = 5, .stride = 1, .flavour = FLAVOUR_REOPEN };
    struct trials *trials = trials_new();
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--seed") == 0)
            options.seed = strtoull(value, NULL, 10);
        else if (strcmp(name, "--stride") == 0)
            options.stride = strtoull(value, NULL, 10);
        else if (strcmp(name, "--stage") == 0)
            options.stage = value;
        else if (strcmp(name, "--flavour") == 0)
            options.flavour = atoi(value);
        else if (strcmp(name, "--dump") == 0)
            options.dump = value;
        else if (strcmp(name, "--file") == 0)
            options.file = value;
        else if (strcmp(name, "--violations") == 0)
            trials->violations_max = strtoull(value, NULL, 10);
        else {
            fprintf(stderr, "unknown option %s\n", name);
            return 2;
        }
    }
    bool good = trials_run(trials, 20, work, &options);
    const uint64_t *c = trials->counters;
    printf("damage: %llu bytes, %llu trials: %llu harmless, %llu reported by open, %llu by a read, "
           "%llu by verify, %llu torn tails cut; %llu repaired; place named rightly %llu, wrongly "
           "%llu; %llu violations\n", (unsigned long long)c[BYTES], (unsigned long long)c[TRIALS],
           (unsigned long long)c[HARMLESS], (unsigned long long)c[AT_OPEN],
           (unsigned long long)c[AT_READ], (unsigned long long)c[AT_VERIFY],
           (unsigned long long)c[TAIL_CUT], (unsigned long long)c[REPAIRED],
           (unsigned long long)c[PLACED], (unsigned long long)c[MISPLACED],
           (unsigned long long)trials->violations);
    return good ? 0 : 1;
}
