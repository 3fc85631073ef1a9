/* SHA-256 with run-time dispatch, shared by the compiled engines.
 *
 * Each extension module links its own copy. Call mt_sha256_setup() once, while the module is
 * imported; all but it and mt_sha256_select() may run without the GIL. No function
 * reads outside [data, data + size) and none allocates.
 *
 * sha256.c: portable C, the choice, messages. sha256_x86.c, sha256_avx.c, sha256_arm.c: the rest. */
#ifndef MODERNTENSOR_SHA256_H
#define MODERNTENSOR_SHA256_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC visibility push(hidden)
#endif

#define MT_SHA256_BLOCK 64
#define MT_SHA256_SIZE 32

typedef struct {
    uint32_t state[8];
    uint64_t size;                   /* bytes taken so far */
    uint8_t block[MT_SHA256_BLOCK];  /* the unfinished block, size % 64 bytes of it */
} mt_sha256_ctx;

/* Finds out what works on this CPU and chooses the best. */
void mt_sha256_setup(void);

/* Chooses one by name; 0 if it is unknown or does not work here. */
int mt_sha256_select(const char *name);

/* The one in use. */
const char *mt_sha256_implementation(void);

/* The i-th one that works here, best first; NULL past the last. */
const char *mt_sha256_available(size_t i);

void mt_sha256_init(mt_sha256_ctx *ctx);
void mt_sha256_update(mt_sha256_ctx *ctx, const uint8_t *data, size_t size);
void mt_sha256_final(mt_sha256_ctx *ctx, uint8_t out[MT_SHA256_SIZE]);

/* A message in one piece. */
void mt_sha256(const uint8_t *data, size_t size, uint8_t out[MT_SHA256_SIZE]);

/* A message known to fill `blocks` blocks with its last one holding message bytes and all of the
 * padding: 64 * (blocks - 1) <= size <= 64 * blocks - 9 and blocks >= 2. Full blocks are hashed
 * where they lie and the tail is padded without branches. */
void mt_sha256_fixed(const uint8_t *data, size_t size, size_t blocks, uint8_t out[MT_SHA256_SIZE]);

/* Whole blocks that already carry their padding. */
void mt_sha256_padded(const uint8_t *blocks, size_t count, uint8_t out[MT_SHA256_SIZE]);

/* `count` messages that lie one after another, message i at base + offsets[i] up to
 * base + offsets[i + 1], each fit for mt_sha256_fixed with the same `blocks`;
 * hash i goes to out + 32 * i. Several at once where the implementation can. */
void mt_sha256_run(const uint8_t *base, const size_t *offsets, size_t count, size_t blocks,
                   uint8_t *out);

/* `count` messages of `blocks` >= 1 whole blocks each, one after another, that already carry
 * their padding; hash i goes to out + 32 * i. Several at once where the implementation can. */
void mt_sha256_padded_run(const uint8_t *data, size_t count, size_t blocks, uint8_t *out);

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC visibility pop
#endif

/* Big-endian numbers at any alignment. */

static inline void mt_store_be64(uint8_t *at, uint64_t value)
{
    int i;
    for (i = 7; i >= 0; i--) {
        at[i] = (uint8_t)value;
        value >>= 8;
    }
}

static inline uint64_t mt_load_be64(const uint8_t *at)
{
    return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 |
           (uint64_t)at[3] << 32 | (uint64_t)at[4] << 24 | (uint64_t)at[5] << 16 |
           (uint64_t)at[6] << 8 | (uint64_t)at[7];
}

static inline uint32_t mt_load_be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

#endif
