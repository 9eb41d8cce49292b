/* reseal.h -- make the checksums of damaged files right again, as somebody would who means harm: then
 * what lies behind the checksums is reached. */
#ifndef PYKV_RESEAL_H
#define PYKV_RESEAL_H

#include "fuzz.h"

void reseal_segment(uint8_t *bytes, uint64_t size);     /* header and records, with its store and id */
void reseal_manifest(uint8_t *bytes, uint64_t size);
void reseal_checkpoint(uint8_t *bytes, uint64_t size);  /* header, blocks as far as they lead, trailer */
void reseal_keydir(uint8_t *bytes, uint64_t size);      /* its identity */

/* Whether a record or header of `bytes` verifies though `pristine` has other bytes there: libFuzzer
 * sees the checksums that are compared, and in time puts the right ones into its input. */
bool segment_is_forged(const uint8_t *bytes, uint64_t size, const uint8_t *pristine, uint64_t pristine_size);

#endif
