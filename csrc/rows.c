#include "rows.h"

#include <string.h>

#include "error.h"
#include "os.h"

#define FIELD_TEXT_MAX 24u      /* "18446744073709551615s" */

struct buffer {
    uint8_t *bytes;
    size_t size, capacity;
};

struct field {                  /* a size, and its text in the format */
    size_t size, text_size;
    uint8_t text[FIELD_TEXT_MAX];
};

struct pykv_rows {
    struct buffer data, format, missing;
    size_t count;
    struct field last[2];       /* of the last even and odd row: keys and values alternate, and most
                                 * are as long as the last one */
};

static int buffer_reserve(struct buffer *buffer, size_t more)
{
    if (__builtin_expect(more <= buffer->capacity - buffer->size, 1))
        return PYKV_OK;
    size_t capacity = buffer->capacity < 4096 ? 4096 : buffer->capacity;
    while (capacity - buffer->size < more) {
        if (capacity > SIZE_MAX / 2)
            return error_no_memory(more);
        capacity *= 2;
    }
    void *grown = os_posix.grow(&os_posix, buffer->bytes, buffer->size, capacity);
    if (grown == NULL)
        return error_no_memory(capacity);
    buffer->bytes = grown;
    buffer->capacity = capacity;
    return PYKV_OK;
}

static void field_set(struct field *field, size_t size)
{
    uint8_t digits[FIELD_TEXT_MAX];
    size_t n = 0, left = size;
    do {
        digits[n++] = (uint8_t)('0' + left % 10);
        left /= 10;
    } while (left != 0);
    for (size_t i = 0; i < n; i++)
        field->text[i] = digits[n - 1 - i];
    field->text[n] = 's';
    field->text_size = n + 1;
    field->size = size;
}

void rows_clear(struct pykv_rows *rows)
{
    rows->data.size = rows->format.size = rows->missing.size = 0;
    rows->count = 0;
}

int rows_append(struct pykv_rows *rows, const uint8_t *bytes, size_t size)
{
    int status = buffer_reserve(&rows->data, size);
    if (status == PYKV_OK)
        status = buffer_reserve(&rows->format, FIELD_TEXT_MAX);
    if (status != PYKV_OK)
        return status;
    struct field *field = &rows->last[rows->count & 1];
    if (size != field->size || field->text_size == 0)
        field_set(field, size);
    if (size != 0)
        memcpy(rows->data.bytes + rows->data.size, bytes, size);
    memcpy(rows->format.bytes + rows->format.size, field->text, FIELD_TEXT_MAX);
    rows->data.size += size;
    rows->format.size += field->text_size;
    rows->count++;
    return PYKV_OK;
}

int rows_append_missing(struct pykv_rows *rows)
{
    uint32_t at = (uint32_t)rows->count;
    int status = buffer_reserve(&rows->missing, sizeof at);
    if (status == PYKV_OK)
        status = rows_append(rows, NULL, 0);
    if (status != PYKV_OK)
        return status;
    memcpy(rows->missing.bytes + rows->missing.size, &at, sizeof at);
    rows->missing.size += sizeof at;
    return PYKV_OK;
}

size_t rows_size(const struct pykv_rows *rows) { return rows->data.size; }

struct pykv_rows *pykv_rows_new(void) { return os_posix.alloc(&os_posix, sizeof(struct pykv_rows)); }

void pykv_rows_free(struct pykv_rows *rows)
{
    if (rows == NULL)
        return;
    os_posix.release(&os_posix, rows->data.bytes);
    os_posix.release(&os_posix, rows->format.bytes);
    os_posix.release(&os_posix, rows->missing.bytes);
    os_posix.release(&os_posix, rows);
}

const uint8_t *pykv_rows_data(const struct pykv_rows *rows, size_t *size)
{
    *size = rows->data.size;
    return rows->data.bytes;
}

const char *pykv_rows_format(const struct pykv_rows *rows, size_t *size)
{
    *size = rows->format.size;
    return (const char *)rows->format.bytes;
}

const uint32_t *pykv_rows_missing(const struct pykv_rows *rows, size_t *count)
{
    *count = rows->missing.size / sizeof(uint32_t);
    return (const uint32_t *)(const void *)rows->missing.bytes;
}

size_t pykv_rows_count(const struct pykv_rows *rows) { return rows->count; }
