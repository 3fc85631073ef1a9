# cython: language_level=3
"""Signatures checked many at a time over packed bytes, without the GIL.

The compiled twin of `moderntensor/_pure/signatures.py`, which says what everything means. The
curve library is called at the addresses that a curve object carries, so nothing is linked.
Verification adds a shortcut that changes no result: `signatures_batch.pxi`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from moderntensor.errors import DecodeError

__all__ = ["RECOVERY_SIZE", "STRUCT_SIZES", "VERIFY_SIZE", "recover_many", "verify_many"]

cdef extern from *:
    """
    /* secp256k1: half of the group order, the highest s that is admitted. */
    static const unsigned char mt_half_order[32] = {
        0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b,
        0x20, 0xa0};
    """
    const uint8_t mt_half_order[32]

cdef enum:
    VERIFY = 128  # key 32, message 32, signature 64
    RECOVERY = 97  # message 32, v 1, r 32, s 32
    SERIALIZED = 65  # 0x04 and the 64 bytes of a public key
    UNCOMPRESSED = 2  # SECP256K1_EC_UNCOMPRESSED
    KEY_SLOTS = 256  # parsed keys kept during a call: 24 KiB of stack

# The library's structs are opaque bytes without alignment; `blockchain/crypto.py` compares sizes
# and signatures with those of the library in use before it hands over any address.
ctypedef struct xonly_key:
    uint8_t data[64]

ctypedef struct public_key:
    uint8_t data[64]

ctypedef struct recoverable_signature:
    uint8_t data[65]

ctypedef int (*parse_xonly_t)(const void *, xonly_key *, const uint8_t *) noexcept nogil
ctypedef int (*verify_t)(
    const void *, const uint8_t *, const uint8_t *, size_t, const xonly_key *) noexcept nogil
ctypedef int (*parse_t)(const void *, public_key *, const uint8_t *, size_t) noexcept nogil
ctypedef int (*combine_t)(
    const void *, public_key *, const public_key **, size_t) noexcept nogil
ctypedef int (*create_t)(const void *, public_key *, const uint8_t *) noexcept nogil
ctypedef int (*compare_t)(const void *, const public_key *, const public_key *) noexcept nogil
ctypedef int (*tweak_point_t)(const void *, public_key *, const uint8_t *) noexcept nogil
ctypedef int (*tweak_number_t)(const void *, uint8_t *, const uint8_t *) noexcept nogil
ctypedef int (*tagged_t)(
    const void *, uint8_t *, const uint8_t *, size_t, const uint8_t *, size_t) noexcept nogil
ctypedef int (*parse_recoverable_t)(
    const void *, recoverable_signature *, const uint8_t *, int) noexcept nogil
ctypedef int (*recover_t)(
    const void *, public_key *, const recoverable_signature *, const uint8_t *) noexcept nogil
ctypedef int (*serialize_t)(
    const void *, uint8_t *, size_t *, const public_key *, unsigned int) noexcept nogil

cdef struct Library:
    # What verification calls.
    const void *context
    parse_xonly_t parse_xonly
    verify_t verify
    parse_t parse
    combine_t combine
    create_t create
    compare_t compare
    tweak_point_t multiply
    tweak_number_t multiply_numbers
    tweak_number_t add_numbers
    tagged_t tagged

cdef struct KeySlot:
    uint8_t key[32]
    xonly_key parsed

VERIFY_SIZE = VERIFY
RECOVERY_SIZE = RECOVERY
STRUCT_SIZES = {
    "secp256k1_xonly_pubkey": sizeof(xonly_key),
    "secp256k1_pubkey": sizeof(public_key),
    "secp256k1_ecdsa_recoverable_signature": sizeof(recoverable_signature),
}


cdef uintptr_t address(curve, str name) except 0:
    cdef uintptr_t found = getattr(curve, name)
    if found == 0:
        raise ValueError(f"the curve has no address of {name}")
    return found


cdef Library library_of(curve) except *:
    cdef Library library
    library.context = <const void *>address(curve, "context")
    library.parse_xonly = <parse_xonly_t>address(curve, "xonly_pubkey_parse")
    library.verify = <verify_t>address(curve, "schnorrsig_verify")
    library.parse = <parse_t>address(curve, "ec_pubkey_parse")
    library.combine = <combine_t>address(curve, "ec_pubkey_combine")
    library.create = <create_t>address(curve, "ec_pubkey_create")
    library.compare = <compare_t>address(curve, "ec_pubkey_cmp")
    library.multiply = <tweak_point_t>address(curve, "ec_pubkey_tweak_mul")
    library.multiply_numbers = <tweak_number_t>address(curve, "ec_seckey_tweak_mul")
    library.add_numbers = <tweak_number_t>address(curve, "ec_seckey_tweak_add")
    library.tagged = <tagged_t>address(curve, "tagged_sha256")
    return library


cdef size_t item_count(str name, items, size_t size) except? 0:
    if type(items) is not bytes:
        raise TypeError(f"{name} needs bytes, not {type(items).__name__}")
    cdef size_t length = <size_t>PyBytes_GET_SIZE(items)
    if length % size:
        raise DecodeError(f"{name}: {length} bytes are no whole number of {size}-byte items")
    return length // size


include "signatures_batch.pxi"


cdef size_t first_bad_alone(
    const Library *library, const uint8_t *items, size_t count
) noexcept nogil:
    # The place of the first bad one, or `count`: each by itself.
    cdef KeySlot slots[KEY_SLOTS]
    cdef bint used[KEY_SLOTS]
    cdef const uint8_t *item
    cdef size_t i, at
    memset(used, 0, sizeof(used))
    for i in range(count):
        item = items + VERIFY * i
        at = item[31]  # the low byte of an x coordinate: as good as random
        if not used[at] or memcmp(slots[at].key, item, 32) != 0:
            used[at] = False
            if library.parse_xonly(library.context, &slots[at].parsed, item) != 1:
                return i
            memcpy(slots[at].key, item, 32)
            used[at] = True
        if library.verify(library.context, item + 64, item + 32, 32, &slots[at].parsed) != 1:
            return i
    return count


cdef size_t first_bad(
    const Library *library, Equation *equation, const uint8_t *items, size_t count
) noexcept nogil:
    # The place of the first bad one, or `count`: many together wherever that shows them good.
    # `equation` may be NULL for fewer than FEWEST.
    cdef size_t start = 0, n, bad
    while start < count:
        n = min(<size_t>CHUNK, count - start)
        if n < FEWEST or not shown_good(library, equation, items + VERIFY * start, n):
            bad = first_bad_alone(library, items + VERIFY * start, n)
            if bad < n:
                return start + bad
        start += n
    return count


def verify_many(curve, items):
    """The index of the first item whose BIP-340 signature is bad, None if all are good.

    DecodeError if `items` is no whole number of items. Not to be interrupted before its end.
    """
    cdef size_t count = item_count("verify_many", items, VERIFY)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(items)
    cdef Library library = library_of(curve)
    cdef size_t bad
    cdef Equation *equation = NULL
    if count >= FEWEST:
        equation = <Equation *>PyMem_Malloc(sizeof(Equation))
        if equation == NULL:
            raise MemoryError
    with nogil:
        bad = first_bad(&library, equation, data, count)
    PyMem_Free(equation)
    return None if bad == count else bad


def recover_many(curve, items):
    """The 64-byte public key (x ‖ y) behind each recoverable ECDSA signature.

    None where no key can have made it, where v is neither 0 nor 1, or where s is in the upper
    half of the group order. DecodeError if `items` is no whole number of items.
    """
    cdef size_t count = item_count("recover_many", items, RECOVERY)
    cdef const uint8_t *item = <const uint8_t *>PyBytes_AS_STRING(items)
    cdef const void *context = <const void *>address(curve, "context")
    cdef parse_recoverable_t parse = <parse_recoverable_t>address(
        curve, "recoverable_signature_parse_compact")
    cdef recover_t recover = <recover_t>address(curve, "ecdsa_recover")
    cdef serialize_t serialize = <serialize_t>address(curve, "ec_pubkey_serialize")
    cdef recoverable_signature signature
    cdef public_key key
    cdef size_t i, length
    cdef uint8_t *out
    cdef uint8_t *keys = <uint8_t *>PyMem_Malloc(SERIALIZED * count)
    if keys == NULL:
        raise MemoryError
    try:
        with nogil:
            for i in range(count):
                out = keys + SERIALIZED * i
                length = SERIALIZED
                if (
                    item[32] > 1
                    or memcmp(item + 65, mt_half_order, 32) > 0
                    or parse(context, &signature, item + 33, item[32]) != 1
                    or recover(context, &key, &signature, item) != 1
                    or serialize(context, out, &length, &key, UNCOMPRESSED) != 1
                ):
                    out[0] = 0  # where a key begins with 0x04
                item += RECOVERY
        return [
            PyBytes_FromStringAndSize(<const char *>keys + SERIALIZED * i + 1, SERIALIZED - 1)
            if keys[SERIALIZED * i] else None
            for i in range(count)
        ]
    finally:
        PyMem_Free(keys)
