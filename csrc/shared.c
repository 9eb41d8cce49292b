#include "shared.h"

#include <errno.h>
#include <string.h>

#include "checksum.h"
#include "error.h"

/* ---- Identity ---- */

static const uint8_t magic[8] = "pykvshm\n";

static uint32_t identity_crc(const struct shared_identity *identity)
{
    return crc32c(0, identity, offsetof(struct shared_identity, crc));
}

void shared_identity_seal(struct shared_identity *identity)
{
    memcpy(identity->magic, magic, sizeof magic);
    identity->layout = SHARED_LAYOUT;
    identity->size = (uint32_t)sizeof(struct shared);
    identity->zero = 0;
    identity->crc = identity_crc(identity);
}

bool shared_identity_matches(const struct shared_identity *identity, const struct os_identity *boot,
                             const struct os_stat *stat)
{
    return memcmp(identity->magic, magic, sizeof magic) == 0 && identity->layout == SHARED_LAYOUT &&
           identity->size == sizeof(struct shared) && identity->crc == identity_crc(identity) &&
           memcmp(identity->boot_id, boot->bytes, sizeof identity->boot_id) == 0 &&
           identity->device == stat->device && identity->inode == stat->inode;
}

/* ---- Processes: byte 0 of the lock file is the openers' lock, byte 1 that of one who writes a backup
 * there, byte 64 + slot proves a life ---- */

#define SETUP_OFFSET 0u
#define BACKUP_OFFSET 1u
#define SLOT_OFFSET 64u
#define READER_OFFSET (SLOT_OFFSET + PROCESS_SLOT_COUNT)    /* in the keydir */

int process_join(struct process *process)
{
    for (uint32_t slot = 0; slot < PROCESS_SLOT_COUNT; slot++) {
        int error = process->os->lock(process->os, process->lock_fd, SLOT_OFFSET + slot, 1, false);
        if (error == 0) {
            process->slot = slot;
            return PYKV_OK;
        }
        if (error != EAGAIN && error != EACCES)
            return error_os(error, "lock", SLOT_OFFSET + slot, "lock");
    }
    return error_set(PYKV_BUSY, 0, "lock", 0, "%u handles of the store are open: close some", PROCESS_SLOT_COUNT);
}

bool process_alive(const struct process *process, uint32_t slot)
{
    bool held = true;
    if (process->lock_fd < 0 || slot == process->slot)
        return true;
    if (process->os->lock_held(process->os, process->lock_fd, SLOT_OFFSET + slot, 1, &held) != 0)
        return true;    /* unknown: taking a lock from the living would be worse than waiting */
    return held;
}

int process_others(const struct process *process, bool *others)
{
    int error = process->os->lock_held(process->os, process->lock_fd, SLOT_OFFSET,
                                       PROCESS_SLOT_COUNT, others);
    return error == 0 ? PYKV_OK : error_os(error, "lock", SLOT_OFFSET, "test the locks of");
}

int process_hold(const struct process *process, int keydir_fd)
{
    int error = EAGAIN;
    /* Any free byte will do: ours may be held by a child of the one who had our slot. */
    for (uint32_t i = 0; i < PROCESS_SLOT_COUNT && error == EAGAIN; i++)
        error = process->os->lock(process->os, keydir_fd, SLOT_OFFSET + (process->slot + i) % PROCESS_SLOT_COUNT, 1, false);
    return error == 0 ? PYKV_OK : error_os(error, "keydir", SLOT_OFFSET, "lock");
}

int process_holds(const struct process *process, int keydir_fd, bool *held)
{
    int error = process->os->lock_held(process->os, keydir_fd, SLOT_OFFSET, PROCESS_SLOT_COUNT, held);
    return error == 0 ? PYKV_OK : error_os(error, "keydir", SLOT_OFFSET, "test the locks of");
}

/* Where there are no locks there are no writers either. */
void process_hold_reading(const struct process *process, int keydir_fd)
{
    (void)process->os->lock(process->os, keydir_fd, READER_OFFSET, 1, false);
}

int process_readers(const struct process *process, int keydir_fd, bool *readers)
{
    int error = process->os->lock_held(process->os, keydir_fd, READER_OFFSET, 1, readers);
    return error == 0 ? PYKV_OK : error_os(error, "keydir", READER_OFFSET, "test the locks of");
}

uint64_t process_count(const struct process *process)
{
    uint64_t count = 1;
    if (process->lock_fd < 0)
        return count;
    for (uint32_t slot = 0; slot < PROCESS_SLOT_COUNT; slot++) {
        bool held = false;
        (void)process->os->lock_held(process->os, process->lock_fd, SLOT_OFFSET + slot, 1, &held);
        count += held && slot != process->slot;
    }
    return count;
}

int process_setup_lock(const struct process *process)
{
    int error = process->os->lock(process->os, process->lock_fd, SETUP_OFFSET, 1, true);
    return error == 0 ? PYKV_OK : error_os(error, "lock", SETUP_OFFSET, "lock");
}

void process_setup_unlock(const struct process *process)
{
    (void)process->os->unlock(process->os, process->lock_fd, SETUP_OFFSET, 1);
}

int process_backup_lock(const struct process *process)
{
    int error = process->os->lock(process->os, process->lock_fd, BACKUP_OFFSET, 1, false);
    if (error == EAGAIN)
        return error_set(PYKV_BUSY, 0, "lock", BACKUP_OFFSET, "a backup is being written to the directory");
    return error == 0 ? PYKV_OK : error_os(error, "lock", BACKUP_OFFSET, "lock");
}

void process_backup_unlock(const struct process *process)
{
    (void)process->os->unlock(process->os, process->lock_fd, BACKUP_OFFSET, 1);
}

/* ---- Locks ---- */

#define OWNER_MASK 0xFFFu
#define COUNT_ONE 0x1000u
#define COUNT_MASK 0x7FFFF000u
#define WAITERS 0x80000000u

#define SPIN_COUNT 100
#define WAIT_MS 5u

/* The count in the word makes every acquisition a new value, so that one who found an owner dead
 * cannot take the lock from an owner that came after. */
static bool lock_take(struct shared_lock *lock, uint32_t word, uint32_t flags,
                      const struct process *process)
{
    uint32_t next = ((word + COUNT_ONE) & COUNT_MASK) | (process->slot + 1) | flags;
    return atomic_compare_exchange_strong_explicit(&lock->word, &word, next, memory_order_acquire,
                                                   memory_order_relaxed);
}

bool shared_lock_try(struct shared_lock *lock, const struct process *process, bool *died)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    *died = false;
    return (word & OWNER_MASK) == 0 && lock_take(lock, word, word & WAITERS, process);
}

static bool owner_alive(uint32_t word, const struct process *process)
{
    uint32_t owner = word & OWNER_MASK;
    /* A number that no process can have is damage: nobody holds the lock. */
    return owner <= PROCESS_SLOT_COUNT && process_alive(process, owner - 1);
}

void shared_lock_acquire(struct shared_lock *lock, const struct process *process, bool *died)
{
    *died = false;
    for (int spin = 0; spin < SPIN_COUNT; spin++) {
        if (shared_lock_try(lock, process, died))
            return;
#if defined __x86_64__ || defined __i386__
        __builtin_ia32_pause();
#endif
    }
    for (;;) {
        uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
        if ((word & OWNER_MASK) == 0) {
            if (lock_take(lock, word, WAITERS, process))
                return;
            continue;
        }
        if ((word & WAITERS) == 0 &&
            !atomic_compare_exchange_strong_explicit(&lock->word, &word, word | WAITERS,
                                                     memory_order_relaxed, memory_order_relaxed))
            continue;
        word |= WAITERS;
        process->os->wait(process->os, (const uint32_t *)&lock->word, word, WAIT_MS);
        if (atomic_load_explicit(&lock->word, memory_order_relaxed) == word &&
            !owner_alive(word, process) && lock_take(lock, word, WAITERS, process)) {
            *died = true;
            return;
        }
    }
}

bool shared_lock_replace(struct shared_lock *lock, const struct process *process)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    return (word & OWNER_MASK) != 0 && !owner_alive(word, process) && lock_take(lock, word, word & WAITERS, process);
}

void shared_lock_release(struct shared_lock *lock, const struct process *process)
{
    uint32_t word = atomic_fetch_and_explicit(&lock->word, COUNT_MASK, memory_order_release);
    if (word & WAITERS)
        process->os->wake(process->os, (const uint32_t *)&lock->word, false);
}

bool shared_lock_inherit(struct shared_lock *lock, const struct process *process)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    return (word & OWNER_MASK) == process->slot + 1 && lock_take(lock, word, WAITERS, process);
}

/* ---- Counters ---- */

struct shared_counters shared_counters(const struct shared *shared)
{
    struct shared_counters out;
    for (;;) {
        uint64_t before = atomic_load_explicit(&shared->published, memory_order_acquire);
        const _Atomic uint64_t *half = shared->counters[before & 1];
        out.position = atomic_load_explicit(&half[0], memory_order_acquire);
        out.sequence = atomic_load_explicit(&half[1], memory_order_acquire);
        out.keys = atomic_load_explicit(&half[2], memory_order_acquire);
        out.live_bytes = atomic_load_explicit(&half[3], memory_order_acquire);
        /* Two batches later this half is written again: then what we have is of no one batch. */
        if (atomic_load_explicit(&shared->published, memory_order_relaxed) == before)
            return out;
    }
}

void shared_counters_publish(struct shared *shared, const struct shared_counters *counters)
{
    uint64_t half = !(atomic_load_explicit(&shared->published, memory_order_relaxed) & 1);
    atomic_store_explicit(&shared->counters[half][0], counters->position, memory_order_release);
    atomic_store_explicit(&shared->counters[half][1], counters->sequence, memory_order_release);
    atomic_store_explicit(&shared->counters[half][2], counters->keys, memory_order_release);
    atomic_store_explicit(&shared->counters[half][3], counters->live_bytes, memory_order_release);
    atomic_store_explicit(&shared->published, counters->sequence << 1 | half, memory_order_release);
}

uint64_t shared_bytes_since(const struct shared *shared, uint64_t position)
{
    uint64_t tail = atomic_load(&shared->tail), sum = position_offset(tail);
    if (position >= tail)
        return 0;
    for (size_t i = 0; i < SEGMENT_SLOT_COUNT && position_segment(tail) != position_segment(position); i++) {
        uint64_t id = atomic_load(&shared->segments[i].id);
        if (id >= position_segment(position) && id < position_segment(tail) && atomic_load(&shared->segments[i].kind) == SEGMENT_LOG)
            sum += atomic_load(&shared->segments[i].length);
    }
    return sum > position_offset(position) ? sum - position_offset(position) : 0;
}

/* ---- Pins ---- */

static uint64_t pin_value(uint32_t slot, uint64_t sequence) { return (uint64_t)(slot + 1) << 48 | sequence; }

static bool pin_take(struct shared *shared, uint64_t value, uint64_t position, uint64_t since_ms, uint32_t *pin)
{
    for (uint32_t i = 0; i < PIN_COUNT; i++) {
        uint64_t none = 0;
        if (atomic_load_explicit(&shared->pins[i].owner, memory_order_relaxed) != 0 ||
            !atomic_compare_exchange_strong(&shared->pins[i].owner, &none, value))
            continue;
        uint32_t limit = atomic_load(&shared->pin_limit);
        while (limit <= i && !atomic_compare_exchange_weak(&shared->pin_limit, &limit, i + 1))
            ;
        atomic_fetch_add(&shared->pin_changes, 1);
        atomic_store_explicit(&shared->pins[i].position, position, memory_order_relaxed);
        atomic_store_explicit(&shared->pins[i].since_ms, since_ms, memory_order_relaxed);
        *pin = i;
        return true;
    }
    return false;
}

static bool pin_give(struct shared *shared, uint32_t pin, uint64_t value)
{
    return atomic_compare_exchange_strong(&shared->pins[pin].owner, &value, 0);
}

static int pin_enter(struct shared *shared, const struct process *process, const struct shared_counters *instant,
                     uint32_t *pin)
{
    uint64_t now_ms = process->os->monotonic_ns(process->os) / 1000000;
    if (pin_take(shared, pin_value(process->slot, instant->sequence), instant->position, now_ms, pin))
        return PYKV_OK;
    return error_set(PYKV_BUSY, 0, NULL, 0, "%u snapshots and iterations are open: close some", PIN_COUNT);
}

int shared_pin(struct shared *shared, const struct process *process, uint32_t *pin,
               struct shared_counters *instant)
{
    struct shared_counters now = shared_counters(shared);
    int status = pin_enter(shared, process, &now, pin);
    if (status != PYKV_OK)
        return status;
    now = shared_counters(shared);      /* after the pin: see shared_past_pinned() */
    atomic_store(&shared->pins[*pin].position, now.position);
    atomic_store(&shared->pins[*pin].owner, pin_value(process->slot, now.sequence));
    *instant = now;
    return PYKV_OK;
}

int shared_pin_too(struct shared *shared, const struct process *process, uint32_t *pin,
                   const struct shared_counters *instant)
{
    return pin_enter(shared, process, instant, pin);
}

void shared_unpin(struct shared *shared, const struct process *process, uint32_t pin, uint64_t sequence)
{
    uint64_t value = pin_value(process->slot, sequence);
    bool given = pin_give(shared, pin, value);
    for (uint32_t i = 0; i < PIN_COUNT && !given; i++)
        given = pin_give(shared, i, value);
}

void shared_unpin_process(struct shared *shared, uint32_t slot)
{
    for (uint32_t i = 0; i < PIN_COUNT; i++) {
        uint64_t value = atomic_load(&shared->pins[i].owner);
        if (value >> 48 == slot + 1)
            (void)pin_give(shared, i, value);
    }
}

void shared_unpin_dead(struct shared *shared, const struct process *process)
{
    for (uint32_t i = 0; i < PIN_COUNT; i++) {
        uint64_t value = atomic_load(&shared->pins[i].owner);
        if (value != 0 && !process_alive(process, (uint32_t)(value >> 48) - 1))
            (void)pin_give(shared, i, value);
    }
}

void shared_pins_copy(struct shared *shared, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0, pin; i < PIN_COUNT; i++) {
        uint64_t value = atomic_load(&shared->pins[i].owner);
        if (value >> 48 != from + 1)
            continue;
        uint64_t copy = pin_value(to, value & SEQUENCE_MAX);
        if (pin_take(shared, copy, atomic_load(&shared->pins[i].position), atomic_load(&shared->pins[i].since_ms), &pin) &&
            atomic_load(&shared->pins[i].owner) != value)
            (void)pin_give(shared, pin, copy);
    }
}

bool shared_pin_held(const struct shared *shared, const struct process *process, uint64_t sequence)
{
    uint32_t limit = atomic_load(&shared->pin_limit);
    for (uint32_t i = 0; i < limit && i < PIN_COUNT; i++)
        if (atomic_load(&shared->pins[i].owner) == pin_value(process->slot, sequence))
            return true;
    return false;
}

uint64_t shared_oldest_pin(struct shared *shared)
{
    uint64_t oldest;
    uint32_t changes;
    do {
        changes = atomic_fetch_add(&shared->pin_changes, 0);
        uint32_t limit = atomic_load(&shared->pin_limit);
        oldest = UINT64_MAX;
        for (uint32_t i = 0; i < limit && i < PIN_COUNT; i++) {
            uint64_t owner = atomic_load(&shared->pins[i].owner);
            if (owner != 0 && (owner & SEQUENCE_MAX) < oldest)
                oldest = owner & SEQUENCE_MAX;
        }
    } while (atomic_load(&shared->pin_changes) != changes);
    return oldest;
}
