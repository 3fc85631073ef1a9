# What the engines that hash share: SHA-256 in C, its choice by name, and one checked slice.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "sha256.h":
    ctypedef struct mt_sha256_ctx:
        pass
    void mt_sha256_setup() noexcept
    int mt_sha256_select(const char *name) noexcept
    const char *mt_sha256_implementation() noexcept
    const char *mt_sha256_available(size_t i) noexcept
    void mt_sha256_init(mt_sha256_ctx *ctx) noexcept nogil
    void mt_sha256_update(mt_sha256_ctx *ctx, const uint8_t *data, size_t size) noexcept nogil
    void mt_sha256_final(mt_sha256_ctx *ctx, uint8_t *out) noexcept nogil
    void mt_sha256(const uint8_t *data, size_t size, uint8_t *out) noexcept nogil
    void mt_sha256_padded(const uint8_t *blocks, size_t count, uint8_t *out) noexcept nogil
    void mt_sha256_padded_run(
        const uint8_t *data, size_t count, size_t blocks, uint8_t *out) noexcept nogil
    void mt_sha256_fixed(
        const uint8_t *data, size_t size, size_t blocks, uint8_t *out) noexcept nogil
    void mt_sha256_run(
        const uint8_t *base, const size_t *offsets, size_t count, size_t blocks,
        uint8_t *out) noexcept nogil
    uint32_t mt_load_be32(const uint8_t *at) noexcept nogil
    uint64_t mt_load_be64(const uint8_t *at) noexcept nogil
    void mt_store_be64(uint8_t *at, uint64_t value) noexcept nogil

mt_sha256_setup()


cdef inline const uint8_t *span(
    const uint8_t *data, size_t size, size_t at, size_t length
) noexcept nogil:
    # The `length` bytes at `at`, or NULL unless all of them lie inside `size`. The only way in
    # which lengths that came from outside turn into pointers.
    if at > size or length > size - at:
        return NULL
    return data + at


def sha256_implementation():
    """The SHA-256 in use: ``"avx512"``, ``"sha-ni"``, ``"avx2"``, ``"armv8"`` or ``"portable"``.

    ``"hashlib"`` in the pure twin.
    """
    return mt_sha256_implementation().decode("ascii")


def sha256_implementations():
    """Every SHA-256 that works on this machine, best first."""
    cdef size_t i = 0
    cdef const char *name
    names = []
    while True:
        name = mt_sha256_available(i)
        if name == NULL:
            return tuple(names)
        names.append(name.decode("ascii"))
        i += 1


def _force_sha256(name):
    """For `backend.force_sha256`: what this engine hashes with; the best again with None."""
    if name is None:
        mt_sha256_setup()
    elif not mt_sha256_select(name.encode("ascii")):
        raise ValueError(f"no SHA-256 implementation {name!r} on this machine")
