/* libFuzzer on the SHA-256 of ext/ as it is, without an interpreter: every implementation that this
 * machine has gives what the portable one gives, in one piece, in pieces and many at a time, and
 * reads nothing that is not there. `.ci/fuzz sha256` builds and runs it. */
#include "sha256.h"

#include <stdlib.h>
#include <string.h>

#define MOST 40 /* messages at a time: more than the sixteen that one call works on */

static void must(int holds)
{
    if (!holds)
        abort();
}

/* A copy that ends where its memory ends. */
static uint8_t *exact(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    memcpy(copy, data, size);
    return copy;
}

static void in_pieces(const uint8_t *data, size_t size, size_t step, uint8_t out[32])
{
    mt_sha256_ctx ctx;
    size_t at;

    mt_sha256_init(&ctx);
    for (at = 0; at < size; at += step)
        mt_sha256_update(&ctx, data + at, size - at < step ? size - at : step);
    mt_sha256_final(&ctx, out);
}

/* The message cut into runs of messages that all fill `blocks` blocks. */
static void many(const uint8_t *data, size_t size, size_t blocks, const char *name)
{
    size_t most = 64 * blocks - 9, least = 64 * (blocks - 1);
    size_t offsets[MOST + 1], count = 0, at = 0;
    uint8_t found[32 * MOST], right[32 * MOST];

    offsets[0] = 0;
    while (count < MOST && size - at > least) {
        size_t length = least + data[at] % (most - least + 1);
        if (length > size - at)
            break;
        at += length;
        offsets[++count] = at;
    }
    must(mt_sha256_select("portable"));
    mt_sha256_run(data, offsets, count, blocks, right);
    must(mt_sha256_select(name));
    mt_sha256_run(data, offsets, count, blocks, found);
    must(memcmp(found, right, 32 * count) == 0);

    count = size / (64 * blocks) < MOST ? size / (64 * blocks) : MOST;
    mt_sha256_padded_run(data, count, blocks, found);
    must(mt_sha256_select("portable"));
    mt_sha256_padded_run(data, count, blocks, right);
    must(memcmp(found, right, 32 * count) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *given, size_t size)
{
    static int ready;
    const char *name;
    uint8_t right[32], found[32], *data;
    size_t i, step, blocks;

    if (!ready) {
        mt_sha256_setup();
        ready = 1;
    }
    if (size < 2)
        return 0;
    step = given[0] + 1u;
    blocks = 2 + given[1] % 5;
    data = exact(given + 2, size - 2);
    size -= 2;
    must(mt_sha256_select("portable"));
    mt_sha256(data, size, right);
    for (i = 0; (name = mt_sha256_available(i)) != NULL; i++) {
        must(mt_sha256_select(name));
        mt_sha256(data, size, found);
        must(memcmp(found, right, 32) == 0);
        in_pieces(data, size, step, found);
        must(memcmp(found, right, 32) == 0);
        many(data, size, blocks, name);
    }
    free(data);
    return 0;
}
