/* fuzz.h -- what the targets share. A target is a file fuzz_*.c that defines LLVMFuzzerTestOneInput()
 * and fuzz_seed(); libFuzzer has the main(). Started as `target --seeds folder` it writes its first
 * inputs into the folder instead, so that no binary files need to be kept for that. */
#ifndef PYKV_FUZZ_H
#define PYKV_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Seed number `number` into `out`; how many bytes it has, 0 behind the last one. */
#define FUZZ_SEED_SIZE_MAX 16384u
size_t fuzz_seed(unsigned number, uint8_t out[FUZZ_SEED_SIZE_MAX]);

/* The condition holds; else say what does not, and die: that is a finding. */
#define FUZZ_CHECK(condition, ...) \
    ((condition) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #condition, __VA_ARGS__))
_Noreturn void fuzz_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The input is consumed from front to back. Behind its end all numbers are 0. */
struct input {
    const uint8_t *bytes;
    size_t size;
};
uint64_t input_number(struct input *input, unsigned size);      /* little-endian, of 1 to 8 bytes */
/* The next `size` bytes, or as many as there are: *size is corrected. */
const uint8_t *input_bytes(struct input *input, size_t *size);

/* A growing buffer, for what a target makes of its input. */
struct buffer {
    uint8_t *bytes;
    size_t size, capacity;
};
void buffer_set_size(struct buffer *buffer, size_t size);       /* new bytes are zero */
void buffer_append(struct buffer *buffer, const void *bytes, size_t size);
void buffer_append_number(struct buffer *buffer, uint64_t number, unsigned size);

#endif
