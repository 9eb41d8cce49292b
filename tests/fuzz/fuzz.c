/* fuzz.c -- see fuzz.h. */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fuzz_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list arguments;
    fprintf(stderr, "FINDING: %s:%d: %s: ", file, line, condition);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (*argc != 3 || strcmp((*argv)[1], "--seeds") != 0)
        return 0;
    uint8_t bytes[FUZZ_SEED_SIZE_MAX];
    size_t size;
    for (unsigned i = 0; (size = fuzz_seed(i, bytes)) != 0; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/seed-%u", (*argv)[2], i);
        FILE *file = fopen(path, "wb");
        FUZZ_CHECK(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0,
                   "cannot write %s", path);
    }
    exit(0);
}

uint64_t input_number(struct input *input, unsigned size)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < size && input->size > 0; i++) {
        number |= (uint64_t)*input->bytes++ << (8 * i);
        input->size--;
    }
    return number;
}

const uint8_t *input_bytes(struct input *input, size_t *size)
{
    const uint8_t *bytes = input->bytes;
    if (*size > input->size)
        *size = input->size;
    input->bytes += *size;
    input->size -= *size;
    return bytes;
}

void buffer_set_size(struct buffer *buffer, size_t size)
{
    if (size > buffer->capacity) {
        size_t capacity = size * 2;
        buffer->bytes = realloc(buffer->bytes, capacity);
        FUZZ_CHECK(buffer->bytes != NULL, "out of memory");
        buffer->capacity = capacity;
    }
    if (size > buffer->size)
        memset(buffer->bytes + buffer->size, 0, size - buffer->size);
    buffer->size = size;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t size)
{
    size_t at = buffer->size;
    buffer_set_size(buffer, at + size);
    if (size > 0)
        memcpy(buffer->bytes + at, bytes, size);
}

void buffer_append_number(struct buffer *buffer, uint64_t number, unsigned size)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(number >> (8 * i));
    buffer_append(buffer, bytes, size);
}
