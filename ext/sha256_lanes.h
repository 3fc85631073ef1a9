/* SHA-256 of many messages at once, each in its own lane of vector registers: the text of one
 * function, for a file that says what the vectors are and includes it once for each width.
 *
 *   NAME, TARGET    the function and what it is compiled for
 *   V, LANES        a vector of 32-bit words, and how many of them it has
 *   ADD(a, b)  SHR(a, n)  ROTR(a, n)  XOR3(a, b, c)  CH(e, f, g)  MAJ(a, b, c)
 *   SPREAD(x)       x in all lanes
 *   GATHER(at, r, offset)   16 bytes from at[r] + offset, at[r + 4] + offset, ... side by side
 *   SWAP(a)         the bytes of each word turned around
 *   LOW32(a, b)  HIGH32(a, b)  LOW64(a, b)  HIGH64(a, b)
 *                   unpack the halves of each 16 bytes, as the instructions of that name do
 *   SCATTER(a, out, r)      the 16 bytes of a go to hashes r, r + 4, ... of out
 */

/* Four vectors of which each holds four words of every fourth message become four that hold one
 * word of all messages; and the way back, for it is a transposition. */
#define TRANSPOSE(to0, to1, to2, to3, a, b, c, d)                                                 \
    do {                                                                                          \
        const V low_ab = LOW32(a, b), high_ab = HIGH32(a, b);                                     \
        const V low_cd = LOW32(c, d), high_cd = HIGH32(c, d);                                     \
        to0 = LOW64(low_ab, low_cd), to1 = HIGH64(low_ab, low_cd);                                \
        to2 = LOW64(high_ab, high_cd), to3 = HIGH64(high_ab, high_cd);                            \
    } while (0)

#define LOAD_FOUR(i)                                                                              \
    TRANSPOSE(w[i], w[(i) + 1], w[(i) + 2], w[(i) + 3], SWAP(GATHER(at, 0, 4 * (i))),             \
              SWAP(GATHER(at, 1, 4 * (i))), SWAP(GATHER(at, 2, 4 * (i))),                         \
              SWAP(GATHER(at, 3, 4 * (i))))

#define STORE_FOUR(a, b, c, d, out)                                                               \
    do {                                                                                          \
        V to0, to1, to2, to3;                                                                     \
        TRANSPOSE(to0, to1, to2, to3, a, b, c, d);                                                \
        SCATTER(SWAP(to0), out, 0);                                                               \
        SCATTER(SWAP(to1), out, 1);                                                               \
        SCATTER(SWAP(to2), out, 2);                                                               \
        SCATTER(SWAP(to3), out, 3);                                                               \
    } while (0)

/* One round; the caller renames the variables instead of moving them. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                          \
    do {                                                                                          \
        const V t = ADD(ADD(h, ADD(w[i], SPREAD(k[i]))),                                          \
                        ADD(XOR3(ROTR(e, 6), ROTR(e, 11), ROTR(e, 25)), CH(e, f, g)));            \
        d = ADD(d, t);                                                                            \
        h = ADD(t, ADD(XOR3(ROTR(a, 2), ROTR(a, 13), ROTR(a, 22)), MAJ(a, b, c)));                \
    } while (0)

#define EIGHT_ROUNDS(i)                                                                           \
    do {                                                                                          \
        ROUND(a, b, c, d, e, f, g, h, (i));                                                       \
        ROUND(h, a, b, c, d, e, f, g, (i) + 1);                                                   \
        ROUND(g, h, a, b, c, d, e, f, (i) + 2);                                                   \
        ROUND(f, g, h, a, b, c, d, e, (i) + 3);                                                   \
        ROUND(e, f, g, h, a, b, c, d, (i) + 4);                                                   \
        ROUND(d, e, f, g, h, a, b, c, (i) + 5);                                                   \
        ROUND(c, d, e, f, g, h, a, b, (i) + 6);                                                   \
        ROUND(b, c, d, e, f, g, h, a, (i) + 7);                                                   \
    } while (0)

/* The word sixteen places on takes the place of word i. */
#define SCHEDULE(i)                                                                               \
    do {                                                                                          \
        const V x = w[((i) + 1) % 16], y = w[((i) + 14) % 16];                                    \
        w[i] = ADD(ADD(w[i], w[((i) + 9) % 16]),                                                  \
                   ADD(XOR3(ROTR(x, 7), ROTR(x, 18), SHR(x, 3)),                                  \
                       XOR3(ROTR(y, 17), ROTR(y, 19), SHR(y, 10))));                              \
    } while (0)

#define FOUR_SCHEDULES(i)                                                                         \
    do {                                                                                          \
        SCHEDULE(i);                                                                              \
        SCHEDULE((i) + 1);                                                                        \
        SCHEDULE((i) + 2);                                                                        \
        SCHEDULE((i) + 3);                                                                        \
    } while (0)

TARGET void NAME(const uint8_t *const *bodies, size_t blocks, const uint8_t *const *tails,
                 uint8_t *out)
{
    const uint32_t *const start = mt_sha256_start;
    V a = SPREAD(start[0]), b = SPREAD(start[1]), c = SPREAD(start[2]), d = SPREAD(start[3]);
    V e = SPREAD(start[4]), f = SPREAD(start[5]), g = SPREAD(start[6]), h = SPREAD(start[7]);
    const uint8_t *at[LANES];
    size_t n;
    int i;

    for (i = 0; i < LANES; i++)
        at[i] = blocks ? bodies[i] : tails[i];
    for (n = 0; n <= blocks; n++) {
        const V a0 = a, b0 = b, c0 = c, d0 = d, e0 = e, f0 = f, g0 = g, h0 = h;
        const uint32_t *k = mt_sha256_k;
        V w[16];

        LOAD_FOUR(0);
        LOAD_FOUR(4);
        LOAD_FOUR(8);
        LOAD_FOUR(12);
        for (i = 0; i < LANES; i++)
            at[i] = n + 1 < blocks ? at[i] + MT_SHA256_BLOCK : tails[i];

        EIGHT_ROUNDS(0);
        EIGHT_ROUNDS(8);
        for (i = 16; i < 64; i += 16) {
            k += 16;
            FOUR_SCHEDULES(0);
            FOUR_SCHEDULES(4);
            EIGHT_ROUNDS(0);
            FOUR_SCHEDULES(8);
            FOUR_SCHEDULES(12);
            EIGHT_ROUNDS(8);
        }
        a = ADD(a, a0), b = ADD(b, b0), c = ADD(c, c0), d = ADD(d, d0);
        e = ADD(e, e0), f = ADD(f, f0), g = ADD(g, g0), h = ADD(h, h0);
    }
    STORE_FOUR(a, b, c, d, out);
    STORE_FOUR(e, f, g, h, out + 16);
}

#undef TRANSPOSE
#undef LOAD_FOUR
#undef STORE_FOUR
#undef ROUND
#undef EIGHT_ROUNDS
#undef SCHEDULE
#undef FOUR_SCHEDULES
#undef NAME
#undef TARGET
#undef V
#undef LANES
#undef ADD
#undef SHR
#undef ROTR
#undef XOR3
#undef CH
#undef MAJ
#undef SPREAD
#undef GATHER
#undef SWAP
#undef LOW32
#undef HIGH32
#undef LOW64
#undef HIGH64
#undef SCATTER
