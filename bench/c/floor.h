/* floor.h -- what memory itself costs: the cache misses, copies and checksums that an operation of a store
 * cannot avoid, without a store. Memory of the size of a keydir and of a log, in pages of 4 KiB as files are
 * mapped, read at random places. */
#ifndef FLOOR_H
#define FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLOOR_RECORD_SIZE 144       /* of a key of 16 bytes and a value of 100 */
#define FLOOR_VALUE_SIZE 100
#define FLOOR_GROUP_MAX 64

struct floor {
    uint8_t *table, *log, *tail;
    size_t line_count, record_count;
};

struct floor_step {
    size_t group;       /* so many overlap, FLOOR_GROUP_MAX at most; the next begin when they have ended */
    bool table;         /* a line of the table, which tells the place in the log */
    bool key;           /* a line of the log there */
    bool record;        /* all of the record there: its checksum, and a copy of its value */
    bool append;        /* a record with its checksum behind the last one */
};

/* Memory for so many keys. False: there is not enough. */
bool floor_init(struct floor *out, size_t key_count);
void floor_release(struct floor *floor);

/* Nanoseconds of one such step, by a round of as many as there are keys. */
double floor_ns(const struct floor *floor, const struct floor_step *step);

double now_ns(void);

#endif
