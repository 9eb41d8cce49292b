/* Pins of scans: whoever dies with one, at whatever instruction, leaves nothing that stays; and while
 * somebody has one, it is seen.
 *
 * shared.c is compiled into this program with its read-modify-writes replaced, so that a forked child
 * can die before any of them, on memory that it shares with its parent. */
#define _GNU_SOURCE 1

#include <sys/mman.h>
#include <unistd.h>

#include "error.h"
#include "shared.h"
#include "test.h"

static unsigned countdown;              /* steps until death; 0: immortal */

static void step(void)
{
    if (countdown != 0 && --countdown == 0)
        _exit(9);
}

static bool hooked_exchange(_Atomic uint64_t *word, uint64_t *expected, uint64_t value)
{
    step();
    return atomic_compare_exchange_strong(word, expected, value);
}

static uint32_t hooked_add(_Atomic uint32_t *word, uint32_t value)
{
    step();
    return atomic_fetch_add(word, value);
}

static bool hooked_raise(_Atomic uint32_t *word, uint32_t *expected, uint32_t value)
{
    step();
    return atomic_compare_exchange_strong(word, expected, value);
}

#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#undef atomic_fetch_add
#undef atomic_fetch_sub
#define atomic_compare_exchange_strong(word, expected, value) hooked_exchange(word, expected, value)
#define atomic_compare_exchange_weak(word, expected, value) hooked_raise(word, expected, value)
#define atomic_fetch_add(word, value) hooked_add(word, value)
#define atomic_fetch_sub(word, value) hooked_add(word, 0u - (value))
#include "shared.c"

static struct shared *shared;
static bool dead[8];                    /* process slots whose owners are gone */

static int slot_held(const struct os *os, int fd, uint64_t offset, uint64_t size, bool *held)
{
    (void)os, (void)fd, (void)size;
    *held = !dead[offset - SLOT_OFFSET];
    return 0;
}

static struct os os;
static const struct process us = { .os = &os, .lock_fd = 0, .slot = 0 }, other = { .os = &os, .lock_fd = 0, .slot = 1 };

static void set_up(void)
{
    os = os_posix;
    os.lock_held = slot_held;
    memset(dead, 0, sizeof dead);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
}

static void pin_and_unpin(void *context)
{
    uint32_t pins[3];
    struct shared_counters instants[3];
    countdown = *(unsigned *)context;
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(shared_pin(shared, &other, &pins[i], &instants[i]), PYKV_OK);
    shared_pins_copy(shared, other.slot, 2);
    for (int i = 0; i < 3; i++)
        shared_unpin(shared, &other, pins[i], instants[i].sequence);
    shared_unpin_process(shared, 2);
    _exit(7);
}

static void a_death_leaves_no_pin(void)
{
    int status = 9;
    for (unsigned k = 1; status == 9; k++) {
        for (int ours = 0; ours < 2; ours++) {
            uint32_t pin;
            struct shared_counters instant;
            set_up();
            if (ours == 1)
                CHECK_EQUAL(shared_pin(shared, &us, &pin, &instant), PYKV_OK);
            status = test_wait(test_fork(pin_and_unpin, &k));
            CHECK(status == 9 || status == 7);
            dead[1] = dead[2] = true;
            shared_unpin_dead(shared, &us);
            CHECK_EQUAL(shared_pinned(shared), ours == 1);
            if (ours == 1)
                shared_unpin(shared, &us, pin, instant.sequence);
            CHECK(!shared_pinned(shared));
            for (uint32_t i = 0; i < PIN_COUNT; i++)
                CHECK_EQUAL(atomic_load(&shared->pins[i].owner), 0);
            munmap(shared, sizeof *shared);
        }
    }
}

static void as_many_as_there_is_room_for(void)
{
    static uint32_t pins[PIN_COUNT];
    static struct shared_counters instants[PIN_COUNT];
    uint32_t pin;
    struct shared_counters instant;
    set_up();
    CHECK(!shared_pinned(shared));
    for (uint32_t i = 0; i < PIN_COUNT; i++) {
        shared_counters_publish(shared, &(struct shared_counters){ .sequence = i });
        CHECK_EQUAL(shared_pin(shared, &us, &pins[i], &instants[i]), PYKV_OK);
        CHECK_EQUAL(instants[i].sequence, i);
    }
    CHECK_EQUAL(shared_pin(shared, &us, &pin, &instant), PYKV_BUSY);
    for (uint32_t i = 0; i < PIN_COUNT; i++) {
        CHECK(shared_pinned(shared));
        shared_unpin(shared, &us, pins[i], instants[i].sequence);
    }
    CHECK(!shared_pinned(shared));
    munmap(shared, sizeof *shared);
}

TEST_MAIN(CASE(a_death_leaves_no_pin), CASE(as_many_as_there_is_room_for))
