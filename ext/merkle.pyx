# cython: language_level=3
"""Merkle trees: RFC 9162 lists, and the state tree with its proved counts.

The compiled twin of `moderntensor/_pure/merkle.py`, `state_tree.py`, `state_records.py` and
`state_update.py`, which say what everything means.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy, memmove, memset

from moderntensor.errors import DecodeError, StorageError

include "sha256.pxi"

__all__ = [
    "NODE_LIMIT",
    "StateTree",
    "body_digests",
    "body_root",
    "list_proof",
    "list_root",
    "state_leaf",
    "state_node",
    "state_nodes",
    "state_proof",
    "state_records",
    "state_subtree",
    "verify_list_proof",
    "verify_state_proof",
]

cdef enum:
    MAX_TX = 131068  # a signed transaction at its largest
    LEVELS = 65  # subtrees that can wait for their right half in a list of 2**64 chunks
    BRIEF = 32768  # bytes that are hashed before a thread would have won the GIL back

cdef object MAX_COUNT = (1 << 64) - 1


cdef need_bytes(str name, value):
    if type(value) is not bytes:
        raise TypeError(f"{name} needs bytes, not {type(value).__name__}")


cdef need_int(str name, value):
    # Exactly an int: a subclass may compare as it likes, and bounds are checked by comparing.
    if not isinstance(value, int):
        raise TypeError(f"{name} needs an int, not {type(value).__name__}")
    return PyNumber_Index(value)


cdef sized(str name, value, Py_ssize_t size):
    need_bytes(name, value)
    if PyBytes_GET_SIZE(value) != size:
        raise DecodeError(f"{name}: {len(value)} bytes, must be {size}")


cdef inline const uint8_t *raw(value) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(value)


cdef inline bytes hash_bytes(const uint8_t *digest):
    return PyBytes_FromStringAndSize(<const char *>digest, 32)


include "merkle_list.pxi"
include "merkle_state.pxi"
include "merkle_subtree.pxi"
include "merkle_proof.pxi"
include "merkle_update.pxi"
include "merkle_records.pxi"
