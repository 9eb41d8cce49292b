/* sim_record.c -- noting what happens to the files of the simulated machine, as a trace of effects. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__) && defined(__linux__)
#include <ucontext.h>
#endif

#include "sim_internal.h"

void sim_note(struct sim *sim, struct effect effect)
{
    if (sim->trace != NULL)
        trace_add(sim->trace, &effect);
}

void sim_note_file(struct sim *sim, const struct sim_file *file, struct effect effect)
{
    if (file->traced)
        sim_note(sim, effect);
}

void sim_note_name(struct sim *sim, int dir, struct effect effect)
{
    if (sim->trace != NULL && sim_dir_of(sim, dir) == &sim->dirs[sim->trace_dir])
        sim_note(sim, effect);
}

void sim_note_bytes(struct sim *sim, enum effect_kind kind, struct sim_file *file,
                         uint64_t offset, uint64_t size)
{
    if (sim->trace == NULL || size == 0)
        return;
    if (file->shadow_size < offset + size) {
        file->shadow = realloc(file->shadow, offset + size);
        if (file->shadow == NULL)
            sim_misuse("out of memory");
        memset(file->shadow + file->shadow_size, 0, offset + size - file->shadow_size);
        file->shadow_size = offset + size;
    }
    memcpy(file->shadow + offset, file->area->memory + offset, size);
    sim_note_file(sim, file, (struct effect){ .kind = kind, .inode = file->inode, .offset = offset,
                                              .size = size, .bytes = file->area->memory + offset });
}

/* Record the runs of 8-byte words in which the file and its shadow differ. */
static void compare_file(struct sim *sim, struct sim_file *file)
{
    static const uint8_t zeros[SIM_PAGE_SIZE];      /* what no shadow is there for was */
    const uint8_t *now = file->area->memory;
    for (uint64_t page = 0; page < file->size; page += SIM_PAGE_SIZE) {
        uint64_t end = page + SIM_PAGE_SIZE < file->size ? page + SIM_PAGE_SIZE : file->size;
        uint64_t known = file->shadow_size < page ? 0
                         : file->shadow_size < end ? file->shadow_size - page : end - page;
        if ((known == 0 || memcmp(now + page, file->shadow + page, known) == 0) &&
            memcmp(now + page + known, zeros, end - page - known) == 0)
            continue;
        for (uint64_t at = page; at < end; at += 8) {
            uint64_t size = end - at < 8 ? end - at : 8;
            uint8_t old[8] = { 0 };
            if (at < file->shadow_size) {
                memcpy(old, file->shadow + at,
                       file->shadow_size - at < size ? file->shadow_size - at : size);
            }
            if (memcmp(now + at, old, size) == 0)
                continue;
            if (file->noticed && file->traced)
                sim->trace->unannounced += size;
            sim_note_bytes(sim, EFFECT_SHARED, file, at, size);
        }
    }
}

void sim_note_others(struct sim *sim, const struct sim_file *but)
{
    if (sim->trace == NULL || sim->stepping)
        return;
    for (size_t i = 0; i < sim->file_count; i++) {
        if (sim->files[i]->writable_maps > 0 && sim->files[i] != but)
            compare_file(sim, sim->files[i]);
    }
}

void sim_compare(struct sim *sim)
{
    sim_note_others(sim, NULL);
}

void sim_record(struct sim *sim, const char *path, struct trace *trace)
{
    sim->trace = trace;
    if (trace == NULL)
        return;
    sim->trace_dir = sim_dir_find(sim, path, true);
    for (size_t i = 0; i < sim->file_count; i++) {
        struct sim_file *file = sim->files[i];
        file->noticed = file->traced = false;
        file->shadow = realloc(file->shadow, file->size > 0 ? file->size : 1);
        if (file->shadow == NULL)
            sim_misuse("out of memory");
        memcpy(file->shadow, file->area->memory, file->size);
        file->shadow_size = file->size;
    }
    const struct sim_dir *dir = &sim->dirs[sim->trace_dir];
    for (size_t i = 0; i < dir->count; i++)
        dir->entries[i].file->traced = true;
}

/* The size changed: note it, and forget the shadow's bytes beyond. */
void sim_note_size(struct sim *sim, struct sim_file *file)
{
    if (file->shadow_size > file->size)
        file->shadow_size = file->size;
    sim_note_file(sim, file, (struct effect){ .kind = EFFECT_SIZE, .inode = file->inode, .size = file->size });
}

/* ---- Recording each store ----
 *
 * Mapped memory is shown read-only. A store faults; the handler lets it through for one instruction
 * (trap flag), and the trap after it compares the page and hides it again. So effects come in program
 * order, which is the order in which other processors of this kind see them. */

#if defined(__x86_64__) && defined(__linux__)

static struct {
    struct sim *sim;
    struct sim_file *file;
    uint64_t page;              /* first of the two that are open for one instruction */
    struct sigaction old_segv, old_trap;
} step;

static void on_fault(int number, siginfo_t *info, void *machine)
{
    ucontext_t *context = machine;
    const uint8_t *address = info->si_addr;
    for (size_t i = 0; step.sim != NULL && i < step.sim->file_count; i++) {
        struct sim_file *file = step.sim->files[i];
        if (address < file->area->shown || address >= file->area->shown + file->area->accessible)
            continue;
        step.file = file;
        step.page = (uint64_t)(address - file->area->shown) / SIM_PAGE_SIZE * SIM_PAGE_SIZE;
        uint64_t end = step.page + 2 * SIM_PAGE_SIZE;   /* a store may straddle pages */
        if (end > file->area->accessible)
            end = file->area->accessible;
        sim_protect(file->area, step.page, end, PROT_READ | PROT_WRITE);
        context->uc_mcontext.gregs[REG_EFL] |= 0x100;
        return;
    }
    sigaction(number, &step.old_segv, NULL);        /* not ours: happen again, as a crash */
}

static void on_trap(int number, siginfo_t *info, void *machine)
{
    ucontext_t *context = machine;
    (void)number;
    (void)info;
    context->uc_mcontext.gregs[REG_EFL] &= ~0x100LL;
    struct sim_file *file = step.file;
    if (file == NULL)
        return;
    uint64_t end = step.page + 2 * SIM_PAGE_SIZE;
    if (end > file->area->accessible)
        end = file->area->accessible;
    sim_protect(file->area, step.page, end, PROT_READ);
    uint64_t low = end, high = step.page;
    for (uint64_t at = step.page; at < end && at < file->size; at++) {
        uint8_t old = at < file->shadow_size ? file->shadow[at] : 0;
        if (file->area->memory[at] != old) {
            low = low < at ? low : at;
            high = at + 1;
        }
    }
    step.file = NULL;
    if (low < high)
        sim_note_bytes(step.sim, EFFECT_SHARED, file, low, high - low);
}

bool sim_record_stores(struct sim *sim, bool on)
{
    if (on == sim->stepping)
        return true;
    sim_compare(sim);
    sim->stepping = on;
    for (size_t i = 0; i < sim->file_count; i++) {
        struct area *area = sim->files[i]->area;
        sim_protect(area, 0, area->accessible, sim_protection(sim));
    }
    if (!on) {
        step.sim = NULL;
        sigaction(SIGSEGV, &step.old_segv, NULL);
        sigaction(SIGTRAP, &step.old_trap, NULL);
        return true;
    }
    step.sim = sim;
    step.file = NULL;
    struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    struct sigaction trap = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
    return sigaction(SIGSEGV, &fault, &step.old_segv) == 0 &&
           sigaction(SIGTRAP, &trap, &step.old_trap) == 0;
}

#else

bool sim_record_stores(struct sim *sim, bool on)
{
    (void)sim;
    return !on;
}

#endif
