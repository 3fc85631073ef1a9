/* SHA-256 (FIPS 180-4): portable C, the choice between the implementations, and whole messages.
 *
 * An implementation is one row of `table`: whether it works here, how it takes blocks in and,
 * where it can hash several messages at once, how it does that. */
#include "sha256_impl.h"

#include <string.h>

const uint32_t mt_sha256_start[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

MT_ALIGNED(16) const uint32_t mt_sha256_k[64] = {
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
            ROUND(a, b, c, d, e, f, g, h, mt_sha256_k[i] + w[i]);
            ROUND(h, a, b, c, d, e, f, g, mt_sha256_k[i + 1] + w[i + 1]);
            ROUND(g, h, a, b, c, d, e, f, mt_sha256_k[i + 2] + w[i + 2]);
            ROUND(f, g, h, a, b, c, d, e, mt_sha256_k[i + 3] + w[i + 3]);
            ROUND(e, f, g, h, a, b, c, d, mt_sha256_k[i + 4] + w[i + 4]);
            ROUND(d, e, f, g, h, a, b, c, mt_sha256_k[i + 5] + w[i + 5]);
            ROUND(c, d, e, f, g, h, a, b, mt_sha256_k[i + 6] + w[i + 6]);
            ROUND(b, c, d, e, f, g, h, a, mt_sha256_k[i + 7] + w[i + 7]);
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

static int always(void)
{
    return 1;
}

/* --- choice -------------------------------------------------------------------------------- */

typedef struct implementation {
    const char *name;
    int (*has)(void);
    mt_sha256_compress_fn compress; /* NULL: it only hashes several messages at once */
    mt_sha256_lanes_fn together;    /* NULL: it only hashes one after another */
    size_t lanes;                   /* how many messages `together` takes */
    size_t fewest;                  /* from how many on it pays to leave the other lanes unused */
    const struct implementation *next; /* the next that works, for what `compress` is missing */
    int works;
} implementation;

/* Best first; the last one always works. */
static implementation table[] = {
#ifdef MT_X86
    {"avx512", mt_sha256_has_avx512, NULL, mt_sha256_sixteen_avx512, 16, 9, NULL, 0},
    {"sha-ni", mt_sha256_has_sha_ni, mt_sha256_compress_sha_ni, mt_sha256_two_sha_ni, 2, 2, NULL, 0},
    {"avx2", mt_sha256_has_avx2, NULL, mt_sha256_eight_avx2, 8, 3, NULL, 0},
#endif
#ifdef MT_ARM
    {"armv8", mt_sha256_has_armv8, mt_sha256_compress_armv8, NULL, 1, 1, NULL, 0},
#endif
    {"portable", always, compress_portable, NULL, 1, 1, NULL, 0},
};

#define COUNT (sizeof table / sizeof table[0])

static const implementation *chosen = &table[COUNT - 1];
static mt_sha256_compress_fn compress = compress_portable; /* for one message */

static void choose(const implementation *row)
{
    chosen = row;
    while (row->compress == NULL)
        row = row->next;
    compress = row->compress;
}

void mt_sha256_setup(void)
{
    const implementation *next = NULL;
    size_t n;

    for (n = COUNT; n-- > 0;) {
        table[n].works = table[n].has();
        table[n].next = next;
        if (table[n].works)
            next = &table[n];
    }
    choose(next);
}

const char *mt_sha256_available(size_t i)
{
    size_t n;

    for (n = 0; n < COUNT; n++)
        if (table[n].works && i-- == 0)
            return table[n].name;
    return NULL;
}

int mt_sha256_select(const char *name)
{
    size_t n;

    for (n = 0; n < COUNT; n++)
        if (table[n].works && strcmp(table[n].name, name) == 0) {
            choose(&table[n]);
            return 1;
        }
    return 0;
}

const char *mt_sha256_implementation(void)
{
    return chosen->name;
}

/* --- one message --------------------------------------------------------------------------- */

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
    memcpy(ctx->state, mt_sha256_start, sizeof ctx->state);
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
        compress(ctx->state, ctx->block, 1);
        data += room;
        size -= room;
    }
    compress(ctx->state, data, size / MT_SHA256_BLOCK);
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
    compress(ctx->state, tail, blocks);
    store_state(ctx->state, out);
}

void mt_sha256(const uint8_t *data, size_t size, uint8_t out[MT_SHA256_SIZE])
{
    mt_sha256_ctx ctx;

    mt_sha256_init(&ctx);
    mt_sha256_update(&ctx, data, size);
    mt_sha256_final(&ctx, out);
}

/* What is hashed of a message after its whole blocks: what is left, and the padding. */
typedef uint8_t last_block[2 * MT_SHA256_BLOCK];

static inline const uint8_t *pad(const uint8_t *data, size_t size, size_t blocks, last_block room)
{
    /* The last 64 bytes of the message, then zeros. Starting to read so that only the `rest`
     * bytes of the unfinished block precede the zeros gives the block without a loop or a branch
     * that depends on the size. */
    size_t rest = size - (blocks - 1) * MT_SHA256_BLOCK;
    uint8_t *last = room + MT_SHA256_BLOCK - rest;

    memcpy(room, data + size - MT_SHA256_BLOCK, MT_SHA256_BLOCK);
    memset(room + MT_SHA256_BLOCK, 0, MT_SHA256_BLOCK);
    room[MT_SHA256_BLOCK] = 0x80;
    mt_store_be64(last + MT_SHA256_BLOCK - 8, (uint64_t)size * 8);
    return last;
}

static inline void hash_one(mt_sha256_compress_fn with, const uint8_t *body, size_t blocks,
                            const uint8_t *tail, uint8_t *out)
{
    uint32_t state[8];

    memcpy(state, mt_sha256_start, sizeof state);
    with(state, body, blocks);
    with(state, tail, 1);
    store_state(state, out);
}

void mt_sha256_fixed(const uint8_t *data, size_t size, size_t blocks, uint8_t out[MT_SHA256_SIZE])
{
    last_block room;

    hash_one(compress, data, blocks - 1, pad(data, size, blocks, room), out);
}

void mt_sha256_padded(const uint8_t *blocks, size_t count, uint8_t out[MT_SHA256_SIZE])
{
    uint32_t state[8];

    memcpy(state, mt_sha256_start, sizeof state);
    compress(state, blocks, count);
    store_state(state, out);
}

/* --- many messages ------------------------------------------------------------------------- */

#define CHUNK MT_SHA256_MAX_LANES

/* Up to CHUNK messages, each of `blocks` blocks at bodies[i] and one at tails[i]. */
static void hash_chunk(const implementation *with, const uint8_t **bodies, size_t blocks,
                       const uint8_t **tails, size_t count, uint8_t *out)
{
    uint8_t spare[CHUNK * MT_SHA256_SIZE];
    size_t i, now;

    for (;; with = with->next) {
        for (; with->together && count >= with->fewest; count -= now, out += now * MT_SHA256_SIZE) {
            now = count < with->lanes ? count : with->lanes;
            for (i = now; i < with->lanes; i++)
                bodies[i] = bodies[0], tails[i] = tails[0];
            with->together(bodies, blocks, tails, now == with->lanes ? out : spare);
            if (now < with->lanes)
                memcpy(out, spare, now * MT_SHA256_SIZE);
            bodies += now;
            tails += now;
        }
        if (with->compress)
            break;
    }
    for (i = 0; i < count; i++)
        hash_one(with->compress, bodies[i], blocks, tails[i], out + i * MT_SHA256_SIZE);
}

void mt_sha256_run(const uint8_t *base, const size_t *offsets, size_t count, size_t blocks,
                   uint8_t *out)
{
    const implementation *with = chosen;
    const uint8_t *bodies[CHUNK], *tails[CHUNK];
    last_block rooms[CHUNK];
    size_t i, now;

    for (; count; count -= now, offsets += now, out += now * MT_SHA256_SIZE) {
        now = count < CHUNK ? count : CHUNK;
        /* All of them before the first is hashed: what was just written in small pieces cannot be
         * read back in large ones without waiting. */
        for (i = 0; i < now; i++) {
            bodies[i] = base + offsets[i];
            tails[i] = pad(bodies[i], offsets[i + 1] - offsets[i], blocks, rooms[i]);
        }
        hash_chunk(with, bodies, blocks - 1, tails, now, out);
    }
}

void mt_sha256_padded_run(const uint8_t *data, size_t count, size_t blocks, uint8_t *out)
{
    const implementation *with = chosen;
    const uint8_t *bodies[CHUNK], *tails[CHUNK];
    const size_t size = blocks * MT_SHA256_BLOCK;
    size_t i, now;

    for (; count; count -= now, data += now * size, out += now * MT_SHA256_SIZE) {
        now = count < CHUNK ? count : CHUNK;
        for (i = 0; i < now; i++) {
            bodies[i] = data + i * size;
            tails[i] = bodies[i] + size - MT_SHA256_BLOCK;
        }
        hash_chunk(with, bodies, blocks - 1, tails, now, out);
    }
}
