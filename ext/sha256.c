/* SHA-256 (FIPS 180-4): portable C, and the SHA instructions of x86.
 *
 * An implementation is one row of `implementations`: whether the CPU has it, how it compresses
 * blocks and, where it can do several messages at once, how it runs over many of them. */
#include "sha256.h"

#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define MT_X86_SHA 1
#include <cpuid.h>
#include <immintrin.h>
#endif

typedef void (*compress_fn)(uint32_t state[8], const uint8_t *data, size_t blocks);
typedef void (*run_fn)(const uint8_t *base, const size_t *offsets, size_t count, size_t blocks,
                       uint8_t *out);

static const uint32_t START[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

#if defined(__GNUC__) || defined(__clang__)
__attribute__((aligned(16)))
#endif
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* --- portable ----------------------------------------------------------------------------- */

static inline uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* One round; the caller renames the variables instead of moving them. */
#define ROUND(a, b, c, d, e, f, g, h, kw)                                              \
    do {                                                                               \
        uint32_t t = (h) + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) +                  \
                     ((g) ^ ((e) & ((f) ^ (g)))) + (kw);                               \
        (d) += t;                                                                      \
        (h) = t + (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + (((a) & (b)) | ((c) & ((a) | (b)))); \
    } while (0)

static void compress_portable(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    uint32_t w[64];
    int i;

    for (; blocks; blocks--, data += MT_SHA256_BLOCK) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

        for (i = 0; i < 16; i++)
            w[i] = mt_load_be32(data + 4 * i);
        for (; i < 64; i++) {
            uint32_t x = w[i - 15], y = w[i - 2];
            w[i] = w[i - 16] + (rotr(x, 7) ^ rotr(x, 18) ^ x >> 3) + w[i - 7] +
                   (rotr(y, 17) ^ rotr(y, 19) ^ y >> 10);
        }
        for (i = 0; i < 64; i += 8) {
            ROUND(a, b, c, d, e, f, g, h, K[i] + w[i]);
            ROUND(h, a, b, c, d, e, f, g, K[i + 1] + w[i + 1]);
            ROUND(g, h, a, b, c, d, e, f, K[i + 2] + w[i + 2]);
            ROUND(f, g, h, a, b, c, d, e, K[i + 3] + w[i + 3]);
            ROUND(e, f, g, h, a, b, c, d, K[i + 4] + w[i + 4]);
            ROUND(d, e, f, g, h, a, b, c, K[i + 5] + w[i + 5]);
            ROUND(c, d, e, f, g, h, a, b, K[i + 6] + w[i + 6]);
            ROUND(b, c, d, e, f, g, h, a, K[i + 7] + w[i + 7]);
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

static int always(void)
{
    return 1;
}

/* --- x86 SHA instructions ------------------------------------------------------------------ */

#ifdef MT_X86_SHA

static int has_x86_sha(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 9) || !(c & 1u << 19))
        return 0; /* SSSE3, SSE4.1 */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
}

/* Four rounds on the words in `m`, whose constants start at K[4 * n]. */
#define FOUR_ROUNDS(n, m)                                                              \
    do {                                                                               \
        __m128i kw = _mm_add_epi32(m, _mm_load_si128((const __m128i *)&K[4 * (n)]));   \
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, kw);                                  \
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(kw, 0x0e));         \
    } while (0)

/* The next four words of the message schedule take the place of the oldest four. */
#define SCHEDULE(m0, m1, m2, m3)                                                       \
    ((m0) = _mm_sha256msg2_epu32(                                                      \
         _mm_add_epi32(_mm_sha256msg1_epu32(m0, m1), _mm_alignr_epi8(m3, m2, 4)), m3))

__attribute__((target("sha,sse4.1,ssse3"))) static void
compress_x86_sha(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    /* The instructions want the words as ABEF and CDGH, highest lane first. */
    __m128i dcba = _mm_loadu_si128((const __m128i *)&state[0]);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)&state[4]);
    __m128i abef = _mm_unpacklo_epi64(_mm_shuffle_epi32(hgfe, 0xb1), _mm_shuffle_epi32(dcba, 0xb1));
    __m128i cdgh = _mm_unpackhi_epi64(_mm_shuffle_epi32(hgfe, 0xb1), _mm_shuffle_epi32(dcba, 0xb1));

    for (; blocks; blocks--, data += MT_SHA256_BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        const __m128i *in = (const __m128i *)data;
        __m128i m0 = _mm_shuffle_epi8(_mm_loadu_si128(in), big_endian);
        __m128i m1 = _mm_shuffle_epi8(_mm_loadu_si128(in + 1), big_endian);
        __m128i m2 = _mm_shuffle_epi8(_mm_loadu_si128(in + 2), big_endian);
        __m128i m3 = _mm_shuffle_epi8(_mm_loadu_si128(in + 3), big_endian);

        FOUR_ROUNDS(0, m0);
        FOUR_ROUNDS(1, m1);
        FOUR_ROUNDS(2, m2);
        FOUR_ROUNDS(3, m3);
        FOUR_ROUNDS(4, SCHEDULE(m0, m1, m2, m3));
        FOUR_ROUNDS(5, SCHEDULE(m1, m2, m3, m0));
        FOUR_ROUNDS(6, SCHEDULE(m2, m3, m0, m1));
        FOUR_ROUNDS(7, SCHEDULE(m3, m0, m1, m2));
        FOUR_ROUNDS(8, SCHEDULE(m0, m1, m2, m3));
        FOUR_ROUNDS(9, SCHEDULE(m1, m2, m3, m0));
        FOUR_ROUNDS(10, SCHEDULE(m2, m3, m0, m1));
        FOUR_ROUNDS(11, SCHEDULE(m3, m0, m1, m2));
        FOUR_ROUNDS(12, SCHEDULE(m0, m1, m2, m3));
        FOUR_ROUNDS(13, SCHEDULE(m1, m2, m3, m0));
        FOUR_ROUNDS(14, SCHEDULE(m2, m3, m0, m1));
        FOUR_ROUNDS(15, SCHEDULE(m3, m0, m1, m2));

        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    dcba = _mm_unpackhi_epi64(cdgh, abef); /* D C B A from the lowest lane */
    hgfe = _mm_unpacklo_epi64(cdgh, abef);
    _mm_storeu_si128((__m128i *)&state[0], _mm_shuffle_epi32(dcba, 0x1b));
    _mm_storeu_si128((__m128i *)&state[4], _mm_shuffle_epi32(hgfe, 0x1b));
}

#endif

/* --- choice -------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int (*works)(void);
    compress_fn compress;
    run_fn run; /* NULL: one message after another */
} implementation;

/* Best first; the last one always works. */
static const implementation implementations[] = {
#ifdef MT_X86_SHA
    {"sha-ni", has_x86_sha, compress_x86_sha, NULL},
#endif
    {"portable", always, compress_portable, NULL},
};

#define COUNT (sizeof implementations / sizeof implementations[0])

static const implementation *chosen = &implementations[COUNT - 1];

void mt_sha256_setup(void)
{
    mt_sha256_select(mt_sha256_available(0));
}

const char *mt_sha256_available(size_t i)
{
    size_t n;

    for (n = 0; n < COUNT; n++)
        if (implementations[n].works() && i-- == 0)
            return implementations[n].name;
    return NULL;
}

int mt_sha256_select(const char *name)
{
    size_t n;

    for (n = 0; n < COUNT; n++)
        if (strcmp(implementations[n].name, name) == 0 && implementations[n].works()) {
            chosen = &implementations[n];
            return 1;
        }
    return 0;
}

const char *mt_sha256_implementation(void)
{
    return chosen->name;
}

/* --- messages ------------------------------------------------------------------------------ */

static void store_state(const uint32_t state[8], uint8_t out[MT_SHA256_SIZE])
{
    int i;

    for (i = 0; i < 8; i++) {
        out[4 * i] = (uint8_t)(state[i] >> 24);
        out[4 * i + 1] = (uint8_t)(state[i] >> 16);
        out[4 * i + 2] = (uint8_t)(state[i] >> 8);
        out[4 * i + 3] = (uint8_t)state[i];
    }
}

void mt_sha256_init(mt_sha256_ctx *ctx)
{
    memcpy(ctx->state, START, sizeof START);
    ctx->size = 0;
}

void mt_sha256_update(mt_sha256_ctx *ctx, const uint8_t *data, size_t size)
{
    size_t held = (size_t)(ctx->size % MT_SHA256_BLOCK);
    size_t room = MT_SHA256_BLOCK - held;

    if (size == 0)
        return; /* data may be NULL */
    ctx->size += size;
    if (size < room) {
        memcpy(ctx->block + held, data, size);
        return;
    }
    if (held) {
        memcpy(ctx->block + held, data, room);
        chosen->compress(ctx->state, ctx->block, 1);
        data += room;
        size -= room;
    }
    chosen->compress(ctx->state, data, size / MT_SHA256_BLOCK);
    memcpy(ctx->block, data + size / MT_SHA256_BLOCK * MT_SHA256_BLOCK, size % MT_SHA256_BLOCK);
}

void mt_sha256_final(mt_sha256_ctx *ctx, uint8_t out[MT_SHA256_SIZE])
{
    uint8_t tail[2 * MT_SHA256_BLOCK] = {0};
    size_t held = (size_t)(ctx->size % MT_SHA256_BLOCK);
    size_t blocks = 1 + (held > MT_SHA256_BLOCK - 9);

    memcpy(tail, ctx->block, held);
    tail[held] = 0x80;
    mt_store_be64(tail + blocks * MT_SHA256_BLOCK - 8, ctx->size * 8);
    chosen->compress(ctx->state, tail, blocks);
    store_state(ctx->state, out);
}

void mt_sha256(const uint8_t *data, size_t size, uint8_t out[MT_SHA256_SIZE])
{
    mt_sha256_ctx ctx;

    mt_sha256_init(&ctx);
    mt_sha256_update(&ctx, data, size);
    mt_sha256_final(&ctx, out);
}

static inline void fixed(compress_fn compress, const uint8_t *data, size_t size, size_t blocks,
                         uint8_t *out)
{
    /* The last 64 bytes of the message, then zeros. Starting to read so that only the `rest`
     * bytes of the unfinished block precede the zeros gives the tail without a loop or a branch
     * that depends on the size. */
    uint8_t pad[2 * MT_SHA256_BLOCK];
    uint32_t state[8];
    size_t rest = size - (blocks - 1) * MT_SHA256_BLOCK;
    uint8_t *tail = pad + MT_SHA256_BLOCK - rest;

    memcpy(pad, data + size - MT_SHA256_BLOCK, MT_SHA256_BLOCK);
    memset(pad + MT_SHA256_BLOCK, 0, MT_SHA256_BLOCK);
    pad[MT_SHA256_BLOCK] = 0x80;
    mt_store_be64(tail + MT_SHA256_BLOCK - 8, (uint64_t)size * 8);
    memcpy(state, START, sizeof START);
    compress(state, data, blocks - 1);
    compress(state, tail, 1);
    store_state(state, out);
}

void mt_sha256_fixed(const uint8_t *data, size_t size, size_t blocks, uint8_t out[MT_SHA256_SIZE])
{
    fixed(chosen->compress, data, size, blocks, out);
}

void mt_sha256_padded(const uint8_t *blocks, size_t count, uint8_t out[MT_SHA256_SIZE])
{
    uint32_t state[8];

    memcpy(state, START, sizeof START);
    chosen->compress(state, blocks, count);
    store_state(state, out);
}

void mt_sha256_run(const uint8_t *base, const size_t *offsets, size_t count, size_t blocks,
                   uint8_t *out)
{
    const implementation *with = chosen;
    size_t i;

    if (with->run) {
        with->run(base, offsets, count, blocks, out);
        return;
    }
    for (i = 0; i < count; i++)
        fixed(with->compress, base + offsets[i], offsets[i + 1] - offsets[i], blocks,
              out + i * MT_SHA256_SIZE);
}
