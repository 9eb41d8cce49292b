/* rows.h -- the results of a call that returns many, as pykv.h describes them. */
#ifndef PYKV_ROWS_H
#define PYKV_ROWS_H

#include "pykv.h"

void rows_clear(struct pykv_rows *rows);
int rows_append(struct pykv_rows *rows, const uint8_t *bytes, size_t size);
int rows_append_missing(struct pykv_rows *rows);
size_t rows_size(const struct pykv_rows *rows);     /* bytes of data so far */

#endif
