/* SHA-256 with the SHA instructions of x86, one message or two at once, and what a CPU has.
 *
 * The rounds of one message wait for each other: 32 instructions in a row, four cycles each. A
 * second message fits between them where the CPU can start one every other cycle. */
#include "sha256_impl.h"

#ifdef MT_X86

#include <immintrin.h>

#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif

/* --- what the CPU has ---------------------------------------------------------------------- */

typedef struct {
    uint32_t a, b, c, d;
} registers;

static registers cpuid(uint32_t leaf)
{
    registers r = {0, 0, 0, 0};
#ifdef _MSC_VER
    int found[4];

    __cpuid(found, 0);
    if ((uint32_t)found[0] >= leaf) {
        __cpuidex(found, (int)leaf, 0);
        r.a = (uint32_t)found[0], r.b = (uint32_t)found[1];
        r.c = (uint32_t)found[2], r.d = (uint32_t)found[3];
    }
#else
    __get_cpuid_count(leaf, 0, &r.a, &r.b, &r.c, &r.d);
#endif
    return r;
}

/* Which registers the operating system keeps over a change of tasks: bits of XCR0. */
static uint64_t kept_by_system(void)
{
    if (!(cpuid(1).c & 1u << 27)) /* OSXSAVE */
        return 0;
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    {
        uint32_t low, high;

        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return (uint64_t)high << 32 | low;
    }
#endif
}

int mt_sha256_has_sha_ni(void)
{
    const uint32_t needed = 1u << 9 | 1u << 19; /* SSSE3, SSE4.1 */

    return (cpuid(1).c & needed) == needed && (cpuid(7).b & 1u << 29);
}

int mt_sha256_has_avx2(void)
{
    return (kept_by_system() & 0x6) == 0x6 && (cpuid(7).b & 1u << 5); /* XMM and YMM */
}

int mt_sha256_has_avx512(void)
{
    const uint32_t needed = 1u << 16 | 1u << 30; /* F, BW */

    /* XMM, YMM, the mask registers and both halves of ZMM */
    return (kept_by_system() & 0xe6) == 0xe6 && (cpuid(7).b & needed) == needed;
}

/* --- rounds -------------------------------------------------------------------------------- */

#define SHA_NI MT_TARGET("sha,sse4.1,ssse3")

/* Four rounds on the words in `m`, whose constants start at k[4 * n]. */
#define FOUR_ROUNDS(abef, cdgh, n, m)                                                             \
    do {                                                                                          \
        __m128i kw = _mm_add_epi32(m, _mm_load_si128((const __m128i *)&mt_sha256_k[4 * (n)]));    \
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, kw);                                             \
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(kw, 0x0e));                    \
    } while (0)

/* The next four words of the message schedule take the place of the oldest four. */
#define SCHEDULE(m0, m1, m2, m3)                                                                  \
    ((m0) = _mm_sha256msg2_epu32(                                                                 \
         _mm_add_epi32(_mm_sha256msg1_epu32(m0, m1), _mm_alignr_epi8(m3, m2, 4)), m3))

/* All rounds of a block whose words lie in four registers: ROUNDS(n, a) does four of them on
 * register a; NEXT(n, a, b, c, d) first makes the words that come after those. */
#define BLOCK(ROUNDS, NEXT)                                                                       \
    do {                                                                                          \
        ROUNDS(0, 0);                                                                             \
        ROUNDS(1, 1);                                                                             \
        ROUNDS(2, 2);                                                                             \
        ROUNDS(3, 3);                                                                             \
        NEXT(4, 0, 1, 2, 3);                                                                      \
        NEXT(5, 1, 2, 3, 0);                                                                      \
        NEXT(6, 2, 3, 0, 1);                                                                      \
        NEXT(7, 3, 0, 1, 2);                                                                      \
        NEXT(8, 0, 1, 2, 3);                                                                      \
        NEXT(9, 1, 2, 3, 0);                                                                      \
        NEXT(10, 2, 3, 0, 1);                                                                     \
        NEXT(11, 3, 0, 1, 2);                                                                     \
        NEXT(12, 0, 1, 2, 3);                                                                     \
        NEXT(13, 1, 2, 3, 0);                                                                     \
        NEXT(14, 2, 3, 0, 1);                                                                     \
        NEXT(15, 3, 0, 1, 2);                                                                     \
    } while (0)

/* The instructions want the state as ABEF and CDGH, highest word first. */
SHA_NI static inline void load_state(const uint32_t state[8], __m128i *abef, __m128i *cdgh)
{
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[0]), 0xb1);
    __m128i fehg = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[4]), 0xb1);

    *abef = _mm_unpacklo_epi64(fehg, badc);
    *cdgh = _mm_unpackhi_epi64(fehg, badc);
}

SHA_NI static inline void store_state(__m128i abef, __m128i cdgh, uint32_t state[8])
{
    _mm_storeu_si128((__m128i *)&state[0],
                     _mm_shuffle_epi32(_mm_unpackhi_epi64(cdgh, abef), 0x1b));
    _mm_storeu_si128((__m128i *)&state[4],
                     _mm_shuffle_epi32(_mm_unpacklo_epi64(cdgh, abef), 0x1b));
}

SHA_NI static inline void store_hash(__m128i abef, __m128i cdgh, uint8_t *out)
{
    const __m128i reverse = _mm_set_epi64x(0x0001020304050607LL, 0x08090a0b0c0d0e0fLL);

    _mm_storeu_si128((__m128i *)out,
                     _mm_shuffle_epi8(_mm_unpackhi_epi64(cdgh, abef), reverse));
    _mm_storeu_si128((__m128i *)(out + 16),
                     _mm_shuffle_epi8(_mm_unpacklo_epi64(cdgh, abef), reverse));
}

SHA_NI static inline __m128i load_words(const uint8_t *data)
{
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data),
                            _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL));
}

SHA_NI void mt_sha256_compress_sha_ni(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    __m128i abef, cdgh;

    load_state(state, &abef, &cdgh);
    for (; blocks; blocks--, data += MT_SHA256_BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i m0 = load_words(data), m1 = load_words(data + 16);
        __m128i m2 = load_words(data + 32), m3 = load_words(data + 48);

#define ROUNDS(n, a) FOUR_ROUNDS(abef, cdgh, n, m##a)
#define NEXT(n, a, b, c, d)                                                                       \
    SCHEDULE(m##a, m##b, m##c, m##d);                                                             \
    ROUNDS(n, a)
        BLOCK(ROUNDS, NEXT);
#undef ROUNDS
#undef NEXT
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    store_state(abef, cdgh, state);
}

SHA_NI void mt_sha256_two_sha_ni(const uint8_t *const *bodies, size_t blocks,
                                 const uint8_t *const *tails, uint8_t *out)
{
    const uint8_t *one = bodies[0], *two = bodies[1];
    __m128i abef, cdgh, abef2, cdgh2;

    load_state(mt_sha256_start, &abef, &cdgh);
    load_state(mt_sha256_start, &abef2, &cdgh2);
    for (;; blocks--, one += MT_SHA256_BLOCK, two += MT_SHA256_BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        const __m128i abef2_before = abef2, cdgh2_before = cdgh2;
        __m128i m0, m1, m2, m3, w0, w1, w2, w3;

        if (blocks == 0)
            one = tails[0], two = tails[1];
        m0 = load_words(one), m1 = load_words(one + 16);
        m2 = load_words(one + 32), m3 = load_words(one + 48);
        w0 = load_words(two), w1 = load_words(two + 16);
        w2 = load_words(two + 32), w3 = load_words(two + 48);

#define ROUNDS(n, a)                                                                              \
    FOUR_ROUNDS(abef, cdgh, n, m##a);                                                             \
    FOUR_ROUNDS(abef2, cdgh2, n, w##a)
#define NEXT(n, a, b, c, d)                                                                       \
    SCHEDULE(m##a, m##b, m##c, m##d);                                                             \
    SCHEDULE(w##a, w##b, w##c, w##d);                                                             \
    ROUNDS(n, a)
        BLOCK(ROUNDS, NEXT);
#undef ROUNDS
#undef NEXT
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
        abef2 = _mm_add_epi32(abef2, abef2_before);
        cdgh2 = _mm_add_epi32(cdgh2, cdgh2_before);
        if (blocks == 0)
            break;
    }
    store_hash(abef, cdgh, out);
    store_hash(abef2, cdgh2, out + MT_SHA256_SIZE);
}

#endif
