/* SHA-256 with the SHA-2 instructions of ARMv8. */
#include "sha256_impl.h"

#ifdef MT_ARM

#include <arm_neon.h>

#if defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_SHA2
#define HWCAP_SHA2 (1 << 6)
#endif
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

int mt_sha256_has_armv8(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0;
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;

    /* A system that does not know the question runs on processors that all have them. */
    return sysctlbyname("hw.optional.arm.FEAT_SHA256", &has, &size, NULL, 0) != 0 || has;
#elif defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO)
    return 1; /* this file needs them anyway */
#else
    return 0;
#endif
}

/* Four rounds on the words in `m`, whose constants start at k[4 * n]. */
#define ROUNDS(n, m)                                                                              \
    do {                                                                                          \
        const uint32x4_t kw = vaddq_u32(m, vld1q_u32(&mt_sha256_k[4 * (n)]));                     \
        const uint32x4_t before = abcd;                                                           \
        abcd = vsha256hq_u32(abcd, efgh, kw);                                                     \
        efgh = vsha256h2q_u32(efgh, before, kw);                                                  \
    } while (0)

/* The same after the next four words of the message schedule took the place of the oldest. */
#define NEXT(n, m0, m1, m2, m3)                                                                   \
    do {                                                                                          \
        m0 = vsha256su1q_u32(vsha256su0q_u32(m0, m1), m2, m3);                                    \
        ROUNDS(n, m0);                                                                            \
    } while (0)

MT_ARM_TARGET void mt_sha256_compress_armv8(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    uint32x4_t abcd = vld1q_u32(&state[0]);
    uint32x4_t efgh = vld1q_u32(&state[4]);

    for (; blocks; blocks--, data += MT_SHA256_BLOCK) {
        const uint32x4_t abcd_before = abcd, efgh_before = efgh;
        uint32x4_t m0 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data)));
        uint32x4_t m1 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16)));
        uint32x4_t m2 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 32)));
        uint32x4_t m3 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 48)));

        ROUNDS(0, m0);
        ROUNDS(1, m1);
        ROUNDS(2, m2);
        ROUNDS(3, m3);
        NEXT(4, m0, m1, m2, m3);
        NEXT(5, m1, m2, m3, m0);
        NEXT(6, m2, m3, m0, m1);
        NEXT(7, m3, m0, m1, m2);
        NEXT(8, m0, m1, m2, m3);
        NEXT(9, m1, m2, m3, m0);
        NEXT(10, m2, m3, m0, m1);
        NEXT(11, m3, m0, m1, m2);
        NEXT(12, m0, m1, m2, m3);
        NEXT(13, m1, m2, m3, m0);
        NEXT(14, m2, m3, m0, m1);
        NEXT(15, m3, m0, m1, m2);

        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(&state[0], abcd);
    vst1q_u32(&state[4], efgh);
}

#endif
