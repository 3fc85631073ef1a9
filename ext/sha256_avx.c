/* SHA-256 of sixteen messages at once in AVX-512 registers, and of eight in AVX2 ones. */
#include "sha256_impl.h"

#ifdef MT_X86

#include <immintrin.h>

#define PART(at, r, offset) _mm_loadu_si128((const __m128i *)((at)[r] + (offset)))

/* The hashes of the r-th message and of every fourth after it: their place in `out`. */
#define PLACE(out, r) ((__m128i *)((out) + MT_SHA256_SIZE * (r)))

/* For both: the bytes of a word turned around, in 16 bytes. */
#define TURN _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL)

/* --- AVX-512: a rotation and any function of three bits are one instruction each ------------ */

#define NAME mt_sha256_sixteen_avx512
#define TARGET MT_TARGET("avx512f,avx512bw")
#define V __m512i
#define LANES 16
#define ADD _mm512_add_epi32
#define SHR _mm512_srli_epi32
#define ROTR _mm512_ror_epi32
#define XOR3(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0x96)
#define CH(e, f, g) _mm512_ternarylogic_epi32(e, f, g, 0xca)
#define MAJ(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0xe8)
#define SPREAD(x) _mm512_set1_epi32((int)(x))
#define GATHER(at, r, offset)                                                                     \
    _mm512_inserti32x4(                                                                           \
        _mm512_inserti32x4(                                                                       \
            _mm512_inserti32x4(_mm512_castsi128_si512(PART(at, r, offset)),                       \
                               PART(at, (r) + 4, offset), 1),                                     \
            PART(at, (r) + 8, offset), 2),                                                        \
        PART(at, (r) + 12, offset), 3)
#define SWAP(a) _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(TURN))
#define LOW32 _mm512_unpacklo_epi32
#define HIGH32 _mm512_unpackhi_epi32
#define LOW64 _mm512_unpacklo_epi64
#define HIGH64 _mm512_unpackhi_epi64
#define SCATTER(a, out, r)                                                                        \
    do {                                                                                          \
        const V four = (a);                                                                       \
        _mm_storeu_si128(PLACE(out, r), _mm512_castsi512_si128(four));                            \
        _mm_storeu_si128(PLACE(out, (r) + 4), _mm512_extracti32x4_epi32(four, 1));                \
        _mm_storeu_si128(PLACE(out, (r) + 8), _mm512_extracti32x4_epi32(four, 2));                \
        _mm_storeu_si128(PLACE(out, (r) + 12), _mm512_extracti32x4_epi32(four, 3));               \
    } while (0)
#include "sha256_lanes.h"

/* --- AVX2 ---------------------------------------------------------------------------------- */

#define XOR _mm256_xor_si256
#define AND _mm256_and_si256
#define OR _mm256_or_si256

#define NAME mt_sha256_eight_avx2
#define TARGET MT_TARGET("avx2")
#define V __m256i
#define LANES 8
#define ADD _mm256_add_epi32
#define SHR _mm256_srli_epi32
#define ROTR(a, n) OR(_mm256_srli_epi32(a, n), _mm256_slli_epi32(a, 32 - (n)))
#define XOR3(a, b, c) XOR(XOR(a, b), c)
#define CH(e, f, g) XOR(g, AND(e, XOR(f, g)))
#define MAJ(a, b, c) OR(AND(a, b), AND(c, OR(a, b)))
#define SPREAD(x) _mm256_set1_epi32((int)(x))
#define GATHER(at, r, offset)                                                                     \
    _mm256_inserti128_si256(_mm256_castsi128_si256(PART(at, r, offset)),                          \
                            PART(at, (r) + 4, offset), 1)
#define SWAP(a) _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(TURN))
#define LOW32 _mm256_unpacklo_epi32
#define HIGH32 _mm256_unpackhi_epi32
#define LOW64 _mm256_unpacklo_epi64
#define HIGH64 _mm256_unpackhi_epi64
#define SCATTER(a, out, r)                                                                        \
    do {                                                                                          \
        const V two = (a);                                                                        \
        _mm_storeu_si128(PLACE(out, r), _mm256_castsi256_si128(two));                             \
        _mm_storeu_si128(PLACE(out, (r) + 4), _mm256_extracti128_si256(two, 1));                  \
    } while (0)
#include "sha256_lanes.h"

#endif
