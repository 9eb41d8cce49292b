/* sim_os.h and sim_disk.h: the simulated machine does what os.h promises, fails where it is told to,
 * and a power cut leaves every disk that the models allow and no other. */
#include "sim_os.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

static struct sim *sim;
static const struct os *os;
static int dir;

static void start(void)
{
    sim = sim_new(1);
    os = sim_os(sim);
    CHECK_EQUAL(os->dir_open(os, "/d", true, 0700, &dir), 0);
}

static int create(const char *name)
{
    int fd = -1;
    CHECK_EQUAL(os->file_open(os, dir, name, OS_CREATE, 0640, &fd), 0);
    return fd;
}

static void put(int fd, const char *text, uint64_t offset)
{
    CHECK_EQUAL(os->file_write(os, fd, text, strlen(text), offset), 0);
}

static uint64_t size_of(int fd)
{
    struct os_stat stat;
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    return stat.size;
}

static void files_hold_what_was_written(void)
{
    start();
    int fd = create("f"), other = -1;
    char bytes[16] = { 0 };
    size_t done;
    struct os_stat stat;
    put(fd, "hello", 3);
    CHECK_EQUAL(os->file_read(os, fd, bytes, 16, 0, &done), 0);
    CHECK_EQUAL(done, 8);
    CHECK_BYTES(bytes, "\0\0\0hello", 8);
    CHECK_EQUAL(os->file_truncate(os, fd, 5), 0);
    CHECK_EQUAL(os->file_truncate(os, fd, 8), 0);
    CHECK_EQUAL(os->file_read(os, fd, bytes, 16, 3, &done), 0);
    CHECK_BYTES(bytes, "he\0\0\0", 5);      /* what was cut off does not come back */
    CHECK_EQUAL(os->file_reserve(os, fd, 4096, 4096), 0);
    CHECK_EQUAL(size_of(fd), 8192);
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 16), 0);
    CHECK_EQUAL(size_of(fd), 8192);
    CHECK_EQUAL(os->file_stat(os, fd, &stat), 0);
    CHECK_EQUAL(stat.mode, 0640);

    CHECK_EQUAL(os->file_open(os, dir, "f", OS_CREATE, 0600, &other), EEXIST);
    CHECK_EQUAL(os->file_open(os, dir, "g", OS_READ, 0, &other), ENOENT);
    CHECK_EQUAL(os->file_open(os, dir, "g", OS_READ_WRITE, 0, &other), ENOENT);
    sim_make_special(sim, "/d", "fifo");
    CHECK_EQUAL(os->file_open(os, dir, "fifo", OS_READ, 0, &other), EINVAL);
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_OPEN_OR_CREATE, 0600, &other), 0);
    CHECK_EQUAL(os->file_close(os, other), 0);
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_OPEN_OR_CREATE, 0600, &other), 0);
    CHECK_EQUAL(os->file_close(os, other), 0);

    CHECK_EQUAL(os->file_rename(os, dir, "f", "lock"), 0);
    CHECK_EQUAL(os->file_open(os, dir, "f", OS_READ, 0, &other), ENOENT);
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_READ, 0, &other), 0);
    CHECK_EQUAL(size_of(other), 8192);
    CHECK_EQUAL(os->file_remove(os, dir, "lock"), 0);
    CHECK_EQUAL(os->file_remove(os, dir, "lock"), ENOENT);
    CHECK_EQUAL(size_of(other), 8192);      /* removed, but open */
    CHECK_EQUAL(os->dir_open(os, "/none", false, 0, &other), ENOENT);
    sim_free(sim);
}

static int count_name(void *context, const char *name)
{
    (void)name;
    return ++*(int *)context == 3 ? 33 : 0;
}

static void lists_a_directory(void)
{
    start();
    int count = 0;
    create("a");
    create("b");
    CHECK_EQUAL(os->dir_list(os, dir, count_name, &count), 0);
    CHECK_EQUAL(count, 2);
    create("c");
    count = 0;
    CHECK_EQUAL(os->dir_list(os, dir, count_name, &count), 33);
    sim_free(sim);
}

static void mappings_are_the_file(void)
{
    start();
    int fd = create("f");
    void *first = NULL, *second = NULL, *private = NULL;
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 131072), 0);
    CHECK_EQUAL(os->map(os, fd, 0, 131072, true, &first), 0);
    CHECK_EQUAL(os->map(os, fd, 65536, 65536 * 4, false, &second), 0);
    memcpy((char *)first + 65536, "mapped", 6);
    CHECK_BYTES(second, "mapped", 6);
    put(fd, "written", 65536);
    CHECK_BYTES(second, "written", 7);
    CHECK_EQUAL(os->map(os, -1, 0, 4096, true, &private), 0);
    CHECK_EQUAL(*(char *)private, 0);
    CHECK_EQUAL(sim_usage(sim).mappings, 3);
    os->unmap(os, private, 4096);
    os->unmap(os, first, 131072);
    os->unmap(os, second, 65536 * 4);
    CHECK_EQUAL(sim_usage(sim).mappings, 0);
    sim_free(sim);
}

static void touch_behind_the_end(void *context)
{
    ((volatile char *)context)[8192] = 1;
}

static void touching_behind_the_end_is_death(void)
{
    start();
    int fd = create("f");
    void *memory = NULL;
    put(fd, "x", 8191);
    CHECK_EQUAL(os->map(os, fd, 0, 65536, true, &memory), 0);
    ((volatile char *)memory)[8191] = 1;
    int status = 0;
    CHECK_EQUAL(waitpid(test_fork(touch_behind_the_end, memory), &status, 0) > 0, true);
    CHECK(status != 0);
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 8193), 0);
    touch_behind_the_end(memory);
    sim_free(sim);
}

static void locks_belong_to_descriptors(void)
{
    start();
    int a = -1, b = -1;
    bool held = false;
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_OPEN_OR_CREATE, 0600, &a), 0);
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_OPEN_OR_CREATE, 0600, &b), 0);
    CHECK_EQUAL(os->lock(os, a, 10, 10, false), 0);
    CHECK_EQUAL(os->lock(os, a, 15, 10, false), 0);         /* our own is no obstacle */
    CHECK_EQUAL(os->lock(os, b, 24, 1, false), EAGAIN);
    CHECK_EQUAL(os->lock(os, b, 25, 1, false), 0);
    CHECK_EQUAL(os->lock_held(os, b, 0, 100, &held), 0);
    CHECK(held);
    CHECK_EQUAL(os->lock_held(os, a, 0, 25, &held), 0);
    CHECK(!held);
    CHECK_EQUAL(os->unlock(os, a, 12, 4), 0);               /* leaves 10..12 and 16..25 */
    CHECK_EQUAL(os->lock(os, b, 12, 4, false), 0);
    CHECK_EQUAL(os->lock(os, b, 11, 1, false), EAGAIN);
    CHECK_EQUAL(os->lock(os, b, 16, 1, false), EAGAIN);
    CHECK_EQUAL(os->file_close(os, a), 0);
    CHECK_EQUAL(os->lock(os, b, 0, 100, false), 0);
    int c = -1, d = -1;                                     /* two that were opened for reading */
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_READ, 0, &c), 0);
    CHECK_EQUAL(os->file_open(os, dir, "lock", OS_READ, 0, &d), 0);
    CHECK_EQUAL(os->lock(os, c, 99, 1, false), EAGAIN);
    CHECK_EQUAL(os->lock(os, c, 100, 1, false), 0);
    CHECK_EQUAL(os->lock(os, d, 100, 1, false), 0);
    CHECK_EQUAL(os->lock(os, b, 100, 1, false), EAGAIN);
    CHECK_EQUAL(os->file_close(os, c), 0);
    CHECK_EQUAL(os->file_close(os, d), 0);
    CHECK_EQUAL(os->lock(os, b, 100, 1, false), 0);
    CHECK_EQUAL(os->file_close(os, b), 0);
    CHECK_EQUAL(sim_usage(sim).locks, 0);
    sim_free(sim);
}

static void clocks_and_boots_are_the_test_s(void)
{
    start();
    struct os_identity first, second;
    uint64_t wall = os->wall_ms(os), monotonic = os->monotonic_ns(os);
    uint32_t word = 5;
    os->wait(os, &word, 4, 1000);
    CHECK_EQUAL(os->wall_ms(os), wall);
    os->wait(os, &word, 5, 1000);
    CHECK_EQUAL(os->wall_ms(os), wall + 1000);
    CHECK(os->monotonic_ns(os) >= monotonic + 1000000000);
    sim_set_wall_ms(sim, 3);
    CHECK_EQUAL(os->wall_ms(os), 3);
    CHECK_EQUAL(os->boot_id(os, &first), 0);
    sim_set_boot(sim, 2);
    CHECK_EQUAL(os->boot_id(os, &second), 0);
    CHECK(memcmp(&first, &second, sizeof first) != 0);
    sim_free(sim);
}

static void counts_and_fails_calls(void)
{
    start();
    int fd = create("f");
    sim_fail(sim, &(struct sim_fault){ .call = SIM_FILE_WRITE, .at = 1, .os_errno = EDQUOT });
    put(fd, "a", 0);
    CHECK_EQUAL(os->file_write(os, fd, "b", 1, 1), EDQUOT);
    CHECK_EQUAL(size_of(fd), 1);
    put(fd, "b", 1);
    CHECK_EQUAL(sim_failed(sim, SIM_ANY), 1);
    CHECK_EQUAL(sim_first_failed(sim), SIM_FILE_WRITE);

    sim_fail(sim, &(struct sim_fault){ .call = SIM_FILE_WRITE, .os_errno = EIO, .variant = 1 });
    CHECK_EQUAL(os->file_write(os, fd, "long", 4, 2), EIO);
    CHECK_EQUAL(size_of(fd), 4);                            /* half of it was written */

    sim_fail(sim, &(struct sim_fault){ .call = SIM_ANY, .at = 1, .onwards = true });
    CHECK_EQUAL(size_of(fd), 4);
    CHECK(os->alloc(os, 10) == NULL);
    CHECK_EQUAL(os->file_sync(os, fd), EIO);
    sim_fail(sim, NULL);
    uint8_t *memory = os->alloc(os, 10);
    CHECK(memory != NULL && memory[9] == 0);
    memory[0] = 7;
    memory = os->grow(os, memory, 10, 1000);
    CHECK(memory != NULL && memory[0] == 7);
    CHECK_EQUAL(sim_usage(sim).allocations, 1);
    os->release(os, memory);
    CHECK_EQUAL(sim_usage(sim).allocations, 0);
    CHECK_EQUAL(sim_calls(sim, SIM_GROW), 1);

    sim_set_disk_size(sim, 8192);
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 8193), ENOSPC);
    CHECK_EQUAL(os->file_reserve(os, fd, 0, 8192), 0);
    sim_set_read_only(sim, true);
    CHECK_EQUAL(os->file_open(os, dir, "new", OS_CREATE, 0600, &fd), EROFS);
    sim_free(sim);
}

static void images_go_out_and_in(void)
{
    start();
    int fd = create("f");
    struct image image = { 0 }, copy = { 0 };
    put(fd, "some text", 5000);
    sim_save(sim, "/d", &image);
    CHECK_EQUAL(image.count, 1);
    CHECK_EQUAL(image.files[0].size, 5009);
    image_copy(&copy, &image);
    CHECK_EQUAL(image_hash(&copy, true), image_hash(&image, true));
    copy.files[0].bytes[3] = 1;
    CHECK(image_hash(&copy, true) != image_hash(&image, true));

    struct sim *other = sim_new(2);
    sim_load(other, "/d", &image);
    sim_save(other, "/d", &copy);
    CHECK_EQUAL(image_hash(&copy, true), image_hash(&image, true));
    CHECK_EQUAL(copy.files[0].inode, image.files[0].inode);
    sim_free(other);
    image_release(&image);
    image_release(&copy);
    sim_free(sim);
}

/* ---- Power cuts: all images of a trace's end, as text "name=first letter of each sector" ---- */

static struct trace trace;

static void start_recording(void)
{
    start();
    trace = (struct trace){ 0 };
    sim_record(sim, "/d", &trace);
}

static void describe(const struct image *image, char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (char name = 'a'; name <= 'z'; name++) {        /* in order of their names */
        for (size_t i = 0; i < image->count; i++) {
            const struct image_file *file = &image->files[i];
            if (file->name[0] != name)
                continue;
            at += (size_t)snprintf(out + at, size - at, "%s%s=", at > 0 ? " " : "", file->name);
            for (uint64_t sector = 0; sector < file->size; sector += DISK_SECTOR_SIZE) {
                uint8_t byte = file->bytes[sector];
                at += (size_t)snprintf(out + at, size - at, "%c", byte == 0 ? '.' : byte);
            }
        }
    }
}

/* Every legal image after the whole trace is among `expected` (separated by |), and each of these
 * is legal. */
static void check_images(enum disk_model model, const char *expected)
{
    struct image empty = { 0 }, image = { 0 };
    struct disk *disk = disk_new(model, &empty);
    for (size_t i = 0; i < trace.count; i++)
        disk_apply(disk, &trace.effects[i]);
    size_t count = disk_pending(disk);
    CHECK(count < 16);
    char seen[4096] = "|", wanted[4096];
    snprintf(wanted, sizeof wanted, "|%s|", expected);
    for (size_t mask = 0; mask < (size_t)1 << count; mask++) {
        bool keep[16];
        char text[256], bounded[260];
        for (size_t i = 0; i < count; i++)
            keep[i] = (mask >> i & 1) != 0;
        disk_cut(disk, &(struct disk_choice){ .keep = keep }, &image);
        describe(&image, text, sizeof text);
        snprintf(bounded, sizeof bounded, "|%s|", text);
        if (strstr(wanted, bounded) == NULL)
            test_fail(__FILE__, __LINE__, "an image that should not be: '%s'", text);
        if (strstr(seen, bounded) == NULL)
            strcat(strcat(seen, text), "|");
    }
    for (char *one = strtok(wanted, "|"); one != NULL; one = strtok(NULL, "|")) {
        char bounded[260];
        snprintf(bounded, sizeof bounded, "|%s|", one);
        if (strstr(seen, bounded) == NULL)
            test_fail(__FILE__, __LINE__, "an image that should be possible: '%s'", one);
    }
    image_release(&image);
    disk_free(disk);
}

static void end_recording(void)
{
    trace_release(&trace);
    sim_free(sim);
}

/* A file with a durable name and `size` durable bytes of zeros. */
static int durable_file(const char *name, uint64_t size)
{
    int fd = create(name);
    CHECK_EQUAL(os->file_reserve(os, fd, 0, size), 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    CHECK_EQUAL(os->dir_sync(os, dir), 0);
    return fd;
}

static void a_cut_takes_any_unsynced_sectors(void)
{
    start_recording();
    int fd = durable_file("f", 1024);
    put(fd, "A", 0);
    put(fd, "B", 512);
    put(fd, "C", 0);
    for (int model = DISK_POSIX; model <= DISK_EXT4; model++)
        check_images((enum disk_model)model, "f=..|f=A.|f=C.|f=.B|f=AB|f=CB");
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    put(fd, "D", 512);
    check_images(DISK_POSIX, "f=CB|f=CD");
    end_recording();
}

static void a_cut_takes_stores_into_mappings(void)
{
    start_recording();
    int fd = durable_file("f", 65536);
    void *memory = NULL;
    CHECK_EQUAL(os->file_truncate(os, fd, 1024), 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    CHECK_EQUAL(os->map(os, fd, 0, 65536, true, &memory), 0);
    memcpy((char *)memory + 511, "AB", 2);
    os->stored(os, fd, 511, (char *)memory + 511, 2);
    CHECK_EQUAL(trace.unannounced, 0);
    ((char *)memory)[0] = 'a';
    os->stored(os, fd, 0, memory, 1);
    check_images(DISK_POSIX, "f=..|f=.B|f=a.|f=aB");
    ((char *)memory)[8] = 'x';                  /* without a notice, in a file that had some */
    sim_compare(sim);
    CHECK_EQUAL(trace.unannounced, 8);
    end_recording();
}

static void a_size_is_any_since_the_sync(void)
{
    start_recording();
    int fd = durable_file("f", 512);
    put(fd, "A", 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    put(fd, "B", 1023);
    CHECK_EQUAL(os->file_truncate(os, fd, 0), 0);
    check_images(DISK_POSIX, "f=A|f=A.|f=");
    end_recording();
    start_recording();
    fd = durable_file("f", 512);
    put(fd, "A", 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    CHECK_EQUAL(os->file_truncate(os, fd, 0), 0);
    CHECK_EQUAL(os->file_truncate(os, fd, 512), 0);
    check_images(DISK_POSIX, "f=A|f=|f=.");     /* old bytes never come back with a new size */
    end_recording();
}

static void names_come_and_go(void)
{
    start_recording();
    durable_file("a", 512);
    create("b");
    CHECK_EQUAL(os->file_remove(os, dir, "a"), 0);
    check_images(DISK_POSIX, "a=.|a=. b=|b=||");
    check_images(DISK_EXT4, "a=.|a=. b=|b=");
    CHECK_EQUAL(os->dir_sync(os, dir), 0);
    check_images(DISK_POSIX, "b=");
    end_recording();
}

static void a_rename_is_atomic(void)
{
    start_recording();
    int fd = durable_file("a", 512);
    put(fd, "A", 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    fd = durable_file("b", 512);
    put(fd, "B", 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    CHECK_EQUAL(os->file_rename(os, dir, "b", "a"), 0);
    check_images(DISK_POSIX, "a=A b=B|a=B b=B|a=B");
    check_images(DISK_EXT4, "a=A b=B|a=B");
    end_recording();
}

static void a_sync_orders_metadata_in_ext4(void)
{
    start_recording();
    create("a");
    int fd = create("b");
    put(fd, "B", 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    check_images(DISK_EXT4, "a= b=B");
    check_images(DISK_POSIX, "|a=|b=B|a= b=B");
    CHECK_EQUAL(os->file_remove(os, dir, "a"), 0);
    put(fd, "C", 0);
    CHECK_EQUAL(os->file_sync(os, fd), 0);      /* data alone: the removal is not committed */
    check_images(DISK_EXT4, "a= b=C|b=C");
    end_recording();
}

static void a_failed_sync_is_made_good_by_a_write_alone(void)
{
    start_recording();
    int fd = durable_file("f", 1024);
    put(fd, "A", 0);
    sim_fail(sim, &(struct sim_fault){ .call = SIM_FILE_SYNC });
    CHECK_EQUAL(os->file_sync(os, fd), EIO);
    put(fd, "B", 512);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    check_images(DISK_POSIX, "f=.B|f=AB");
    CHECK_EQUAL(os->file_sync(os, fd), 0);      /* a second sync has nothing to do, and lies */
    check_images(DISK_POSIX, "f=.B|f=AB");
    put(fd, "A", 0);                            /* the same bytes, but the page is dirty again */
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    check_images(DISK_POSIX, "f=AB");
    end_recording();
}

static void lies_are_believed_but_not_recorded(void)
{
    start_recording();
    int fd = durable_file("f", 512);
    put(fd, "A", 0);
    sim_lie(sim, LIE_FILE_SYNC);
    CHECK_EQUAL(os->file_sync(os, fd), 0);
    check_images(DISK_POSIX, "f=.|f=A");
    end_recording();
}

/* What a kill at each point leaves is what was there at that point, unannounced stores and all. */
static void kills_see_every_store(void)
{
    start_recording();
    int fd = durable_file("f", 65536);
    void *memory = NULL;
    CHECK_EQUAL(os->map(os, fd, 0, 65536, true, &memory), 0);
    if (sim_record_stores(sim, true)) {
        size_t before = trace.count;
        volatile uint64_t *words = memory;
        for (uint64_t i = 0; i < 10; i++)
            words[100 * i] = i + 1;
        words[0] = 99;
        sim_record_stores(sim, false);
        CHECK_EQUAL(trace.count, before + 11);
        CHECK_EQUAL(trace.effects[before + 9].offset, 7200);
        CHECK_EQUAL(trace.effects[before + 10].bytes[0], 99);
        struct image empty = { 0 }, image = { 0 };
        struct disk *disk = disk_new(DISK_POSIX, &empty);
        for (size_t i = 0; i < before + 3; i++)
            disk_apply(disk, &trace.effects[i]);
        disk_current(disk, &image);
        CHECK_EQUAL(image.files[0].bytes[1600], 3);
        CHECK_EQUAL(image.files[0].bytes[2400], 0);
        image_release(&image);
        disk_free(disk);
    }
    end_recording();
}

TEST_MAIN(CASE(files_hold_what_was_written), CASE(lists_a_directory), CASE(mappings_are_the_file),
          CASE(touching_behind_the_end_is_death), CASE(locks_belong_to_descriptors),
          CASE(clocks_and_boots_are_the_test_s), CASE(counts_and_fails_calls),
          CASE(images_go_out_and_in), CASE(a_cut_takes_any_unsynced_sectors),
          CASE(a_cut_takes_stores_into_mappings), CASE(a_size_is_any_since_the_sync),
          CASE(names_come_and_go), CASE(a_rename_is_atomic),
          CASE(a_sync_orders_metadata_in_ext4), CASE(a_failed_sync_is_made_good_by_a_write_alone),
          CASE(lies_are_believed_but_not_recorded), CASE(kills_see_every_store))
