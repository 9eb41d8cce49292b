/* The stores of tests/golden, read by the engine alone: also where there is no Python for the machine
 * that it is built for, of 32 bits or with the other order of bytes. tests/golden has the long test. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pykv.h"
#include "sim_os.h"
#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH "/store"

static uint8_t bytes[1u << 20], value[1u << 20];
static char text[1u << 20];

/* Beside this file's folder. */
static const char *golden(const char *store, const char *rest)
{
    static char path[4096];
    const char *end = strstr(__FILE__, "tests/c/test_golden.c");
    CHECK(end != NULL);
    snprintf(path, sizeof path, "%.*stests/golden/pykv-0.1/%s%s", (int)(end - __FILE__), __FILE__, store, rest);
    return path;
}

static size_t read_file(const char *path, void *out, size_t capacity)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        test_fail(__FILE__, __LINE__, "cannot open %s", path);
    size_t size = fread(out, 1, capacity, file);
    CHECK(size < capacity);
    fclose(file);
    return size;
}

static void load(const char *store, struct image *image)
{
    char path[4096];
    uint64_t inode = 100;
    snprintf(path, sizeof path, "%s", golden(store, ""));
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        char name[5000];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        size_t size = read_file(name, bytes, sizeof bytes);
        struct image_file *file = image_add(image, entry->d_name, inode++, 0600, size);
        memcpy(file->bytes, bytes, size);
    }
    closedir(dir);
}

/* The digits up to the quotation mark, as bytes. */
static size_t unhex(const char *from, uint8_t *out)
{
    size_t size = 0;
    for (unsigned byte; *from != '"'; from += 2) {
        CHECK(sscanf(from, "%2x", &byte) == 1);
        out[size++] = (uint8_t)byte;
    }
    return size;
}

/* Each line of "contents" is a key and its value in hex. */
static void check_contents(const char *store, struct pykv_store *open)
{
    static uint8_t got[1u << 20];
    uint64_t count = 0, keys = 0;
    text[read_file(golden(store, ".json"), text, sizeof text)] = 0;
    char *line = strstr(text, "\"contents\": {"), *stop = line == NULL ? NULL : strchr(line, '}');
    CHECK(line != NULL && stop != NULL);
    *stop = 0;
    for (line = strchr(line, '\n'); (line = strchr(line, '"')) != NULL; count++) {
        size_t key_size = unhex(line + 1, bytes);
        line = strstr(line, "\": \"");
        size_t value_size = unhex(line + 4, value);
        CHECK_EQUAL(pykv_get(open, bytes, key_size, got, sizeof got, NULL), value_size);
        CHECK_BYTES(got, value, value_size);
        line = strchr(line, '\n');
    }
    CHECK(count > 20);
    CHECK_EQUAL(pykv_count(open, &keys), PYKV_OK);
    CHECK(keys >= count);
}

static void read_store(const char *store, const char *without)
{
    static struct pykv_report report;
    struct image image = { 0 };
    struct pykv_options options = { .flag = PYKV_FLAG_WRITE };
    struct pykv_store *open = NULL;
    struct sim *sim = sim_new(1);
    options.segment_size = 65536;       /* of the one that it begins */
    load(store, &image);
    if (image_find(&image, without) != NULL)
        image_remove(&image, image_find(&image, without));
    sim_load(sim, PATH, &image);
    int status = pykv_open_with(sim_os(sim), PATH, &options, &open);
    if (status != PYKV_OK)
        test_fail(__FILE__, __LINE__, "open: %d %s", status, pykv_last_error()->message);
    check_contents(store, open);
    CHECK_EQUAL(pykv_verify(open, &report), PYKV_OK);
    pykv_free(open);
    sim_free(sim);
    image_release(&image);
}

static void closed(void) { read_store("closed", ""); }
static void closed_without_checkpoint(void) { read_store("closed", "checkpoint-0000000001"); }
static void closed_without_manifest(void) { read_store("closed", "manifest"); }
static void killed(void) { read_store("killed", ""); }
static void long_values(void) { read_store("long", ""); }
static void torn(void) { read_store("torn", ""); }

TEST_MAIN(CASE(closed), CASE(closed_without_checkpoint), CASE(closed_without_manifest), CASE(killed), CASE(torn),
          CASE(long_values))
