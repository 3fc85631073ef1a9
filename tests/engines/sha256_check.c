/* Every SHA-256 of ext/ that works on the machine that runs this, against published hashes and
 * against the portable one. `.ci/sha256` builds it for several machines; the arguments are the
 * implementations that have to be there. Each message ends at a page that must not be read. */
#include "sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROOM (64 * 1024)

static uint8_t *fence; /* the first byte that must not be read */
static unsigned long checks, failures;

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint32_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

static void fill(uint8_t *at, size_t size)
{
    while (size--)
        *at++ = (uint8_t)draw();
}

static void expect(const uint8_t *found, const uint8_t *right, size_t size, const char *what,
                   size_t which)
{
    checks++;
    if (memcmp(found, right, size) != 0) {
        failures++;
        printf("%s: %s %lu differs\n", mt_sha256_implementation(), what, (unsigned long)which);
    }
}

/* FIPS 180-2 and NIST's additional examples. */
static const struct {
    const char *text; /* repeated */
    size_t size;
    const char *hash;
} PUBLISHED[] = {
    {"", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
     "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu", 112,
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    {"A", 1000, "c2e686823489ced2017f6059b8b239318b6364f6dcd835d0a519105a1eadd6e4"},
    {"U", 1005, "f4d62ddec0f3dd90ea1380fa16a5ff8dc4c54b21740650f24afc4120903552b0"},
    {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
};

static void published(void)
{
    size_t n, i;

    for (n = 0; n < sizeof PUBLISHED / sizeof PUBLISHED[0]; n++) {
        uint8_t *message = malloc(PUBLISHED[n].size + 1), out[32];
        char hex[65];

        for (i = 0; i < PUBLISHED[n].size; i++)
            message[i] = (uint8_t)PUBLISHED[n].text[i % strlen(PUBLISHED[n].text)];
        mt_sha256(message, PUBLISHED[n].size, out);
        for (i = 0; i < 32; i++)
            sprintf(hex + 2 * i, "%02x", out[i]);
        expect((uint8_t *)hex, (const uint8_t *)PUBLISHED[n].hash, 64, "published hash", n);
        free(message);
    }
}

/* The hash by portable C; then `name` again. */
static void reference(const char *name, const uint8_t *data, size_t size, uint8_t out[32])
{
    mt_sha256_select("portable");
    mt_sha256(data, size, out);
    mt_sha256_select(name);
}

/* Every length up to five blocks, and some around larger ones; in one piece and in pieces. */
static void lengths(const char *name)
{
    static const size_t large[] = {511, 512, 513, 4096 - 9, 4096 - 8, 4096, 40000};
    size_t n;

    for (n = 0; n < 330 + sizeof large / sizeof large[0]; n++) {
        size_t size = n < 330 ? n : large[n - 330], cut = size ? draw() % size : 0;
        const uint8_t *data = fence - size;
        uint8_t right[32], out[32];
        mt_sha256_ctx ctx;

        reference(name, data, size, right);
        mt_sha256(data, size, out);
        expect(out, right, 32, "length", size);
        mt_sha256_init(&ctx);
        mt_sha256_update(&ctx, data, cut);
        mt_sha256_update(&ctx, data + cut, size - cut);
        mt_sha256_final(&ctx, out);
        expect(out, right, 32, "length in two pieces", size);
    }
}

/* Every number of messages up to 50, of every length that has as many blocks, at any alignment. */
static void runs(const char *name)
{
    static uint8_t out[50 * 32 + 1], right[32];
    size_t count, blocks, i;
    size_t offsets[51];

    for (blocks = 2; blocks <= 6; blocks++)
        for (count = 0; count <= 50; count++) {
            const uint8_t *base;

            offsets[0] = draw() % 64;
            for (i = 0; i < count; i++)
                offsets[i + 1] = offsets[i] + 64 * (blocks - 1) + (count + i) % 56;
            base = fence - offsets[count];
            out[32 * count] = 0x5a;
            mt_sha256_run(base, offsets, count, blocks, out);
            for (i = 0; i < count; i++) {
                size_t size = offsets[i + 1] - offsets[i];

                reference(name, base + offsets[i], size, right);
                expect(out + 32 * i, right, 32, "message of a run", i);
                mt_sha256_fixed(base + offsets[i], size, blocks, out + 32 * i);
                expect(out + 32 * i, right, 32, "message by itself", i);
            }
            checks++;
            failures += out[32 * count] != 0x5a;
        }
}

/* Messages that carry their padding, as the nodes of trees do. */
static void padded(const char *name)
{
    static uint8_t out[50 * 32], right[32];
    size_t count, blocks, i;

    for (blocks = 1; blocks <= 5; blocks++)
        for (count = 0; count <= 50; count++) {
            uint8_t *data = fence - 64 * blocks * count;

            fill(data, 64 * blocks * count);
            for (i = 0; i < count; i++) {
                uint8_t *end = data + 64 * blocks * (i + 1);

                memset(end - 9, 0, 9);
                end[-9] = 0x80;
                mt_store_be64(end - 8, 8 * (64 * blocks - 9));
            }
            mt_sha256_padded_run(data, count, blocks, out);
            for (i = 0; i < count; i++) {
                const uint8_t *message = data + 64 * blocks * i;

                reference(name, message, 64 * blocks - 9, right);
                expect(out + 32 * i, right, 32, "padded message of a run", i);
                mt_sha256_padded(message, blocks, out + 32 * i);
                expect(out + 32 * i, right, 32, "padded message", i);
            }
        }
}

int main(int argc, char **argv)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), i;
    uint8_t *room = mmap(NULL, ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0);
    const char *name;
    int n;

    if (room == MAP_FAILED || mprotect(room + ROOM, page, PROT_NONE) != 0)
        return 2;
    fence = room + ROOM;
    mt_sha256_setup();
    for (i = 0; (name = mt_sha256_available(i)) != NULL; i++) {
        unsigned long before = checks;

        mt_sha256_select(name);
        fill(room, ROOM);
        published();
        lengths(name);
        runs(name);
        padded(name);
        printf("%s: %lu checks\n", name, checks - before);
    }
    for (n = 1; n < argc; n++)
        if (!mt_sha256_select(argv[n])) {
            printf("%s is missing on this machine\n", argv[n]);
            failures++;
        }
    printf(failures ? "%lu FAILED\n" : "all equal\n", failures);
    return failures != 0;
}
