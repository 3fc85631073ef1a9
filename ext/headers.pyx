# cython: language_level=3
"""Batches of block headers over the bytes they came in, and the rules that need no state.

The compiled twin of `moderntensor/_pure/headers.py`, which says what everything means.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.string cimport memcmp, memcpy

from moderntensor.errors import DecodeError, EncodeError, HeaderChainError

include "sha256.pxi"
include "header_rules.pxi"

cdef extern from "Python.h":
    # With NULL for the error, numbers out of range are clipped: they are out of range here too.
    Py_ssize_t PyNumber_AsSsize_t(object number, void *error) except? -1

__all__ = [
    "RULES",
    "Anchor",
    "HeaderBatch",
    "HeaderRules",
    "header_hash",
    "sha256",
    "sha256_implementation",
    "sha256_implementations",
]

cdef enum:
    VERSION_AT = 0
    HEIGHT_AT = 4
    TIMESTAMP_AT = 12
    PREVIOUS_AT = 20
    STATE_ROOT_AT = 52
    TXS_ROOT_AT = 84
    RECEIPTS_ROOT_AT = 116
    VALIDATOR_AT = 148
    GAS_USED_AT = 180
    GAS_LIMIT_AT = 188
    EXTRA_SIZE_AT = 196
    FIXED = 197
    SIGNATURE = 64
    ITEM = 128  # validator, signing hash, signature
    MIN_SIZE = 261
    MAX_EXTRA = 32
    MAX_ENCODED = 65535  # what the count of a list16 can say
    VERSION = 1
    BLOCKS = 5  # SHA-256 blocks of a header, whatever its size
    PREFETCH = 2048  # bytes asked for ahead of the header being read
    CHUNK = 16  # headers hashed at a time, ahead of the rules

cdef uint64_t U64_TOP = 0xFFFFFFFFFFFFFFFF
cdef bytes SIGNING_TAG = b"moderntensor/header/1"
cdef const uint8_t *TAG = <const uint8_t *>PyBytes_AS_STRING(SIGNING_TAG)
cdef size_t TAG_SIZE = <size_t>PyBytes_GET_SIZE(SIGNING_TAG)


cdef need_bytes(data):
    if type(data) is not bytes:
        raise TypeError(f"HeaderBatch needs bytes, not {type(data).__name__}")


def sha256(data):
    """SHA-256 of any contiguous bytes, 32 bytes."""
    cdef uint8_t out[32]
    cdef Py_buffer view
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"sha256 needs bytes, not {type(data).__name__}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    if view.len > 4096:
        with nogil:
            mt_sha256(<const uint8_t *>view.buf, <size_t>view.len, out)
    else:
        mt_sha256(<const uint8_t *>view.buf, <size_t>view.len, out)
    PyBuffer_Release(&view)
    return PyBytes_FromStringAndSize(<char *>out, 32)


def header_hash(raw):
    """The hash of one encoded header, signature included, 32 bytes."""
    return sha256(raw)


def _hash_padded(data, blocks):
    """For benchmarks: the hashes of messages that carry their padding, 32 bytes each.

    `data` is `bytes`, one message after another, `blocks` blocks of 64 bytes each. Nothing is
    done but compressing them with what is in use, so this is how fast hashing can get here.
    """
    if type(data) is not bytes:
        raise TypeError(f"_hash_padded needs bytes, not {type(data).__name__}")
    cdef size_t each = number("blocks", blocks, 1, 1024, EncodeError)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
    cdef size_t count = size // (64 * each)
    if count * 64 * each != size:
        raise DecodeError(f"_hash_padded: {size} bytes, must be a multiple of {64 * each}")
    cdef const uint8_t *base = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef bytes hashes = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(32 * count))
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(hashes)
    with nogil:
        mt_sha256_padded_run(base, count, each, out)
    return hashes


include "header_store.pxi"


include "header_walk.pxi"


@cython.final
@cython.no_gc
cdef class HeaderBatch:
    """A run of headers over one `bytes` object, which slices share together with the hashes
    already computed. Nothing is made per header until somebody asks for it.

    `HeaderBatch(data)` reads a `list16[header]`: a u16 count and the headers. DecodeError if
    malformed or if bytes are left over. Indexes count from the start of the slice, negative
    ones from its end; IndexError outside.
    """

    cdef _Headers all
    cdef size_t start
    cdef size_t stop

    def __cinit__(self, data):
        # Here and not in __init__, so that no call can change a batch that others read.
        self.set(NO_HEADERS if data is NO_HEADERS else read_list(data))

    cdef void set(self, _Headers headers) noexcept:
        self.all = headers
        self.start = 0
        self.stop = headers.count

    @classmethod
    def from_concatenated(cls, data):
        """From headers one after another, without a count. DecodeError if malformed."""
        need_bytes(data)
        cdef _Headers headers = _Headers.__new__(_Headers)
        cdef HeaderBatch batch = HeaderBatch.__new__(HeaderBatch, NO_HEADERS)
        headers.data = data
        cdef size_t most = <size_t>PyBytes_GET_SIZE(data) // MIN_SIZE
        headers.reserve(0, most)
        headers.read(most)
        if headers.offsets[headers.count] != headers.size:
            raise headers.malformed()
        batch.set(headers)
        return batch

    @classmethod
    def join(cls, headers):
        """From encoded headers, one `bytes` each. DecodeError if one is malformed."""
        cdef list parts = list(headers)
        cdef size_t i, end, size
        cdef const uint8_t *raw
        for i in range(<size_t>len(parts)):
            need_bytes(parts[i])
            raw = <const uint8_t *>PyBytes_AS_STRING(parts[i])
            size = <size_t>PyBytes_GET_SIZE(parts[i])
            end = header_end(raw, size, 0)
            if end == 0:
                raise malformed(raw, size, 0, i)
            if end != size:
                raise DecodeError(f"HeaderBatch[{i}]: {size - end} trailing bytes")
        return HeaderBatch.from_concatenated(b"".join(parts))

    def __len__(self):
        return <Py_ssize_t>(self.stop - self.start)

    def __getitem__(self, where):
        """A slice of step 1, sharing the bytes and the hashes."""
        if not isinstance(where, slice):
            raise TypeError("HeaderBatch takes slices; raw(i) or header(i, layout) give one header")
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise ValueError("HeaderBatch takes slices of step 1 only")
        cdef HeaderBatch part = HeaderBatch.__new__(HeaderBatch, NO_HEADERS)
        part.all = self.all
        part.start = self.start + <size_t>start
        part.stop = self.start + <size_t>max(start, stop)
        return part

    def __repr__(self):
        return f"HeaderBatch({len(self)} headers)"

    def encode(self):
        """The `list16[header]` encoding of this slice. EncodeError over 65,535 headers."""
        cdef size_t count = self.stop - self.start
        if count > MAX_ENCODED:
            raise EncodeError(f"HeaderBatch: {count} items, at most {MAX_ENCODED}")
        cdef size_t at = self.all.offsets[self.start]
        cdef size_t size = self.all.offsets[self.stop] - at
        return count.to_bytes(2, "big") + PyBytes_FromStringAndSize(
            <const char *>self.all.base + at, <Py_ssize_t>size)

    # --- one header --------------------------------------------------------------------------

    cdef Py_ssize_t at(self, i) except -1:
        # The place of header `i` in the shared arrays.
        cdef Py_ssize_t count = <Py_ssize_t>(self.stop - self.start)
        cdef Py_ssize_t n = PyNumber_AsSsize_t(i, NULL)
        if n < 0:
            n += count
        if n < 0 or n >= count:
            raise IndexError("header index out of range")
        return <Py_ssize_t>self.start + n

    cdef const uint8_t *header_at(self, i) except NULL:
        return self.all.base + self.all.offsets[self.at(i)]

    cdef bytes bytes32(self, i, size_t where):
        return PyBytes_FromStringAndSize(<const char *>self.header_at(i) + where, 32)

    cdef bytes digest(self, size_t at):
        self.all.hash_run(at, at + 1)
        return PyBytes_FromStringAndSize(<char *>self.all.hashes + 32 * at, 32)

    def raw(self, i):
        """The bytes of header `i`, signature included."""
        cdef size_t at = <size_t>self.at(i)
        cdef size_t start = self.all.offsets[at]
        return PyBytes_FromStringAndSize(
            <const char *>self.all.base + start, <Py_ssize_t>(self.all.offsets[at + 1] - start))

    def hash(self, i):
        """The hash of header `i`, 32 bytes; computed once."""
        return self.digest(<size_t>self.at(i))

    def hashes(self):
        """The hashes of all headers of this slice."""
        cdef size_t at
        with nogil:
            self.all.hash_run(self.start, self.stop)
        return [self.digest(at) for at in range(self.start, self.stop)]

    def signing_hash(self, i):
        """What the signature of header `i` signs, 32 bytes."""
        cdef uint8_t out[32]
        sign_digest(self.header_at(i), TAG, TAG_SIZE, out)
        return PyBytes_FromStringAndSize(<char *>out, 32)

    def signature(self, i):
        """The signature of header `i`, 64 bytes."""
        cdef size_t end = self.all.offsets[self.at(i) + 1]
        return PyBytes_FromStringAndSize(<const char *>self.all.base + end - SIGNATURE, SIGNATURE)

    def signature_items(self, start=0, stop=None):
        """What the signatures of headers `start` … `stop` - 1 are checked by, as in a slice.

        128 bytes each, for `signatures.verify_many`: validator ‖ signing hash ‖ signature.
        """
        cdef HeaderBatch part = self[start:stop]
        cdef size_t at
        cdef const uint8_t *header
        cdef bytes items = PyBytes_FromStringAndSize(
            NULL, <Py_ssize_t>(ITEM * (part.stop - part.start)))
        cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(items)
        with nogil:
            for at in range(part.start, part.stop):
                header = part.all.base + part.all.offsets[at]
                memcpy(out, header + VALIDATOR_AT, 32)
                sign_digest(header, TAG, TAG_SIZE, out + 32)
                memcpy(
                    out + 64, part.all.base + part.all.offsets[at + 1] - SIGNATURE, SIGNATURE)
                out += ITEM
        return items

    def height(self, i):
        """The height of header `i`."""
        return mt_load_be64(self.header_at(i) + HEIGHT_AT)

    def timestamp(self, i):
        """The timestamp of header `i`, Unix seconds."""
        return mt_load_be64(self.header_at(i) + TIMESTAMP_AT)

    def previous_hash(self, i):
        """The previous_hash of header `i`, 32 bytes."""
        return self.bytes32(i, PREVIOUS_AT)

    def state_root(self, i):
        """The state_root of header `i`, 32 bytes."""
        return self.bytes32(i, STATE_ROOT_AT)

    def txs_root(self, i):
        """The txs_root of header `i`, 32 bytes."""
        return self.bytes32(i, TXS_ROOT_AT)

    def receipts_root(self, i):
        """The receipts_root of header `i`, 32 bytes."""
        return self.bytes32(i, RECEIPTS_ROOT_AT)

    def validator(self, i):
        """The validator's key of header `i`, 32 bytes."""
        return self.bytes32(i, VALIDATOR_AT)

    def gas_used(self, i):
        """The gas_used of header `i`."""
        return mt_load_be64(self.header_at(i) + GAS_USED_AT)

    def gas_limit(self, i):
        """The gas_limit of header `i`."""
        return mt_load_be64(self.header_at(i) + GAS_LIMIT_AT)

    def header(self, i, layout):
        """Header `i` as an object of the layout's class. DecodeError if the layout disagrees."""
        cdef size_t at = <size_t>self.at(i)
        found, end = layout.unpack_from(self.all.data, self.all.offsets[at])
        if end != self.all.offsets[at + 1]:
            raise DecodeError("HeaderBatch: the layout is not that of a header")
        return found

    # --- the rules ---------------------------------------------------------------------------

    def check(self, anchor, rules, now):
        """Every rule that needs neither state nor signatures, for every header in order.

        `now` is Unix seconds. Raises HeaderChainError for the first header that breaks a rule.
        """
        good, rule = self.check_prefix(anchor, rules, now)
        if rule is not None:
            raise HeaderChainError(good, anchor[1] + 1 + good, rule)

    def check_prefix(self, anchor, rules, now):
        """(how many headers obey all rules, the rule that the next one breaks or None)."""
        if type(rules) is not HeaderRules:
            raise TypeError(f"check needs HeaderRules, not {type(rules).__name__}")
        cdef HeaderRules by = rules
        cdef Walk at
        cdef Rule broken = R_NONE
        cdef uint64_t timestamp, limit
        cdef size_t first_bad
        parent, height, time = anchor
        hash32("Anchor.hash", parent, EncodeError)
        at.height = number("Anchor.height", height, 0, U64_MAX, EncodeError)
        timestamp = number("Anchor.timestamp", time, 0, U64_MAX, EncodeError)
        limit = number("now", now, 0, U64_MAX, EncodeError)
        at.latest = U64_TOP if limit > U64_TOP - by.max_drift else limit + by.max_drift
        at.parent = <const uint8_t *>PyBytes_AS_STRING(parent)
        at.slotted = timestamp >= by.genesis_timestamp
        at.slot = (timestamp - by.genesis_timestamp) // by.block_time if at.slotted else 0
        at.keys = <const uint8_t *>PyBytes_AS_STRING(by.keys)
        at.key_count = <size_t>PyBytes_GET_SIZE(by.keys) // 32
        at.point = <const uint8_t *>PyBytes_AS_STRING(by.points)
        at.points = <size_t>PyBytes_GET_SIZE(by.points) // CHECKPOINT
        with nogil:
            while at.points and mt_load_be64(at.point) <= at.height:
                at.point += CHECKPOINT
                at.points -= 1
            first_bad = walk(self.all, self.start, self.stop, by, &at, &broken)
        rule = None if broken == R_NONE else RULES[<int>broken]
        return first_bad - self.start, rule
