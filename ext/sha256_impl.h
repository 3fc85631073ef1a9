/* What an implementation of SHA-256 is, between sha256.c, which chooses one, and the files that
 * hold those for particular processors. */
#ifndef MODERNTENSOR_SHA256_IMPL_H
#define MODERNTENSOR_SHA256_IMPL_H

#include "sha256.h"

/* Nothing is asked of the compiler's command line: a function that uses instructions beyond the
 * baseline says so itself. MSVC takes all intrinsics anywhere. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define MT_X86 1
#ifndef MT_TARGET
#define MT_TARGET(features) __attribute__((target(features)))
#endif
#elif defined(_MSC_VER) && defined(_M_X64)
#define MT_X86 1
#define MT_TARGET(features)
#endif

/* Clang before 16 has the intrinsics only where the whole file is compiled for them, as it always
 * is for Apple's processors. */
#if defined(__aarch64__) && !defined(__AARCH64EB__)
#if defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO)
#define MT_ARM 1
#define MT_ARM_TARGET
#elif defined(__clang__)
#if __clang_major__ >= 16
#define MT_ARM 1
#define MT_ARM_TARGET __attribute__((target("sha2")))
#endif
#elif defined(__GNUC__)
#define MT_ARM 1
#define MT_ARM_TARGET __attribute__((target("+crypto")))
#endif
#endif

#if defined(_MSC_VER)
#define MT_ALIGNED(n) __declspec(align(n))
#else
#define MT_ALIGNED(n) __attribute__((aligned(n)))
#endif

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC visibility push(hidden)
#endif

#define MT_SHA256_MAX_LANES 16

/* Takes `blocks` blocks into the state. */
typedef void (*mt_sha256_compress_fn)(uint32_t state[8], const uint8_t *data, size_t blocks);

/* Hashes as many messages at once as the implementation has lanes: of message i the `blocks`
 * blocks at bodies[i] and then the one at tails[i], its padding included. Hash i goes to
 * out + 32 * i. */
typedef void (*mt_sha256_lanes_fn)(const uint8_t *const *bodies, size_t blocks,
                                   const uint8_t *const *tails, uint8_t *out);

extern const uint32_t mt_sha256_start[8];
extern const uint32_t mt_sha256_k[64]; /* 16-byte aligned */

#ifdef MT_X86
int mt_sha256_has_sha_ni(void);
int mt_sha256_has_avx2(void);
int mt_sha256_has_avx512(void);
void mt_sha256_compress_sha_ni(uint32_t state[8], const uint8_t *data, size_t blocks);
void mt_sha256_two_sha_ni(const uint8_t *const *bodies, size_t blocks, const uint8_t *const *tails,
                          uint8_t *out);
void mt_sha256_eight_avx2(const uint8_t *const *bodies, size_t blocks, const uint8_t *const *tails,
                          uint8_t *out);
void mt_sha256_sixteen_avx512(const uint8_t *const *bodies, size_t blocks,
                              const uint8_t *const *tails, uint8_t *out);
#endif

#ifdef MT_ARM
int mt_sha256_has_armv8(void);
void mt_sha256_compress_armv8(uint32_t state[8], const uint8_t *data, size_t blocks);
#endif

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC visibility pop
#endif

#endif
