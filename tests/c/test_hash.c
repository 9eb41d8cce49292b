/* hash.h: SipHash-1-3 by vectors. test_hash_vectors.py computes them a second way. */
#include "hash.h"
#include "test.h"

/* The key 00 01 ... 0f. */
static const struct hash_key key = { .k0 = 0x0706050403020100u, .k1 = 0x0F0E0D0C0B0A0908u };

/* vectors[n]: the hash of the n bytes 00 01 02 ... */
static const uint64_t vectors[64] = {
    UINT64_C(0xABAC0158050FC4DC), UINT64_C(0xC9F49BF37D57CA93), UINT64_C(0x82CB9B024DC7D44D),
    UINT64_C(0x8BF80AB8E7DDF7FB), UINT64_C(0xCF75576088D38328), UINT64_C(0xDEF9D52F49533B67),
    UINT64_C(0xC50D2B50C59F22A7), UINT64_C(0xD3927D989BB11140), UINT64_C(0x369095118D299A8E),
    UINT64_C(0x25A48EB36C063DE4), UINT64_C(0x79DE85EE92FF097F), UINT64_C(0x70C118C1F94DC352),
    UINT64_C(0x78A384B157B4D9A2), UINT64_C(0x306F760C1229FFA7), UINT64_C(0x605AA111C0F95D34),
    UINT64_C(0xD320D86D2A519956), UINT64_C(0xCC4FDD1A7D908B66), UINT64_C(0x9CF2689063DBD80C),
    UINT64_C(0x8FFC389CB473E63E), UINT64_C(0xF21F9DE58D297D1C), UINT64_C(0xC0DC2F46A6CCE040),
    UINT64_C(0xB992ABFE2B45F844), UINT64_C(0x7FFE7B9BA320872E), UINT64_C(0x525A0E7FDAE6C123),
    UINT64_C(0xF464AEB267349C8C), UINT64_C(0x45CD5928705B0979), UINT64_C(0x3A3E35E3CA9913A5),
    UINT64_C(0xA91DC74E4ADE3B35), UINT64_C(0xFB0BED02EF6CD00D), UINT64_C(0x88D93CB44AB1E1F4),
    UINT64_C(0x540F11D643C5E663), UINT64_C(0x2370DD1F8C21D1BC), UINT64_C(0x81157B6C16A7B60D),
    UINT64_C(0x4D54B9E57A8FF9BF), UINT64_C(0x759F12781F2A753E), UINT64_C(0xCEA1A3BEBF186B91),
    UINT64_C(0x2CF508D3ADA26206), UINT64_C(0xB6101C2DA3C33057), UINT64_C(0xB3F47496AE3A36A1),
    UINT64_C(0x626B57547B108392), UINT64_C(0xC1D2363299E41531), UINT64_C(0x667CC1923F1AD944),
    UINT64_C(0x65704FFEC8138825), UINT64_C(0x24F280D1C28949A6), UINT64_C(0xC2CA1CEDFAF8876B),
    UINT64_C(0xC2164BFC9F042196), UINT64_C(0xA16E9C9368B1D623), UINT64_C(0x49FB169C8B5114FD),
    UINT64_C(0x9F3143F8DF074C46), UINT64_C(0xC6FDAF2412CC86B3), UINT64_C(0x7EAF49D10A52098F),
    UINT64_C(0x1CF313559D292F9A), UINT64_C(0xC44A30DDA2F41F12), UINT64_C(0x36FAE98943A71ED0),
    UINT64_C(0x318FB34C73F0BCE6), UINT64_C(0xA27ABF3670A7E980), UINT64_C(0xB4BCC0DB243C6D75),
    UINT64_C(0x23F8D852FDB71513), UINT64_C(0x8F035F4DA67D8A08), UINT64_C(0xD89CD0E5B7E8F148),
    UINT64_C(0xF6F4E6BCF7A644EE), UINT64_C(0xAEC59AD80F1837F2), UINT64_C(0xC3B2F6154B6694E0),
    UINT64_C(0x9D199062B7BBB3A8),
};

static void agrees_with_the_vectors(void)
{
    uint8_t bytes[64];
    for (uint8_t i = 0; i < 64; i++)
        bytes[i] = i;
    for (size_t size = 0; size < 64; size++)
        CHECK_EQUAL(hash_bytes(&key, bytes, size), vectors[size]);
    CHECK_EQUAL(hash_bytes(&key, NULL, 0), vectors[0]);
}

static void does_not_care_for_alignment(void)
{
    uint8_t bytes[64 + 8];
    for (size_t start = 0; start < 8; start++) {
        for (uint8_t i = 0; i < 64; i++)
            bytes[start + i] = i;
        for (size_t size = 0; size < 64; size++)
            CHECK_EQUAL(hash_bytes(&key, bytes + start, size), vectors[size]);
    }
}

/* Of a long message only the size modulo 256 goes into the last word. */
static void tells_long_messages_apart(void)
{
    static uint8_t bytes[1024];
    CHECK(hash_bytes(&key, bytes, 256) != hash_bytes(&key, bytes, 512));
    CHECK(hash_bytes(&key, bytes, 255) != hash_bytes(&key, bytes, 256));
}

static void depends_on_both_halves_of_the_key(void)
{
    struct hash_key other = key;
    other.k0 ^= 1;
    CHECK(hash_bytes(&other, "k", 1) != hash_bytes(&key, "k", 1));
    other = key;
    other.k1 ^= 1;
    CHECK(hash_bytes(&other, "k", 1) != hash_bytes(&key, "k", 1));
}

TEST_MAIN(CASE(agrees_with_the_vectors), CASE(does_not_care_for_alignment),
          CASE(tells_long_messages_apart), CASE(depends_on_both_halves_of_the_key))
