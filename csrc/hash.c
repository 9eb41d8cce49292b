/* SipHash-1-3. The state is four words; each 8 bytes of input, the last ones padded with zeros and
 * the size in the top byte, go in before and after one round. Three more rounds finish it. */
#include "hash.h"

#include <string.h>

static inline uint64_t load_u64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The 0 to 7 bytes behind the last whole word. */
static inline uint64_t load_rest(const uint8_t *p, size_t size)
{
    uint64_t word = 0;
    for (size_t i = 0; i < size; i++)
        word |= (uint64_t)p[i] << 8 * i;
    return word;
}

static inline uint64_t rotate(uint64_t word, unsigned count)
{
    return word << count | word >> (64 - count);
}

struct state { uint64_t v0, v1, v2, v3; };

static inline void sip_round(struct state *s)
{
    s->v0 += s->v1; s->v1 = rotate(s->v1, 13); s->v1 ^= s->v0; s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3; s->v3 = rotate(s->v3, 16); s->v3 ^= s->v2;
    s->v0 += s->v3; s->v3 = rotate(s->v3, 21); s->v3 ^= s->v0;
    s->v2 += s->v1; s->v1 = rotate(s->v1, 17); s->v1 ^= s->v2; s->v2 = rotate(s->v2, 32);
}

static inline void absorb(struct state *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    struct state s = {
        .v0 = key->k0 ^ UINT64_C(0x736F6D6570736575),   /* "somepseudorandomlygeneratedbytes" */
        .v1 = key->k1 ^ UINT64_C(0x646F72616E646F6D),
        .v2 = key->k0 ^ UINT64_C(0x6C7967656E657261),
        .v3 = key->k1 ^ UINT64_C(0x7465646279746573),
    };
    uint64_t last = (uint64_t)size << 56;

    for (; size >= 8; p += 8, size -= 8)
        absorb(&s, load_u64(p));
    absorb(&s, last | load_rest(p, size));

    s.v2 ^= 0xFF;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
