/* hash.h -- SipHash-1-3 with 64 bits of result (Aumasson and Bernstein, "SipHash: a fast short-input
 * PRF", 2012; 1 compression and 3 finalization rounds). Keyed with a secret of the store, so that
 * nobody outside can choose keys that all fall into one bucket. */
#ifndef PYKV_HASH_H
#define PYKV_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_key { uint64_t k0, k1; };

uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t size);

#endif
