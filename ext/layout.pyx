# cython: binding=False, cdivision=True
"""A tiny codec compiler: the compiled twin of `moderntensor._pure.layout`, which explains it.

A schema becomes an array of `Op`s, the children of each lying side by side. Slots of records
are read and written at their fixed offsets in the object, and objects are made without their
`__init__`. What goes wrong is noted in a `Fault` of plain C; text is made of it only at the top.

Safety rests on these: an object is touched only if its type is exactly the class whose slots
were looked up; a slot may be NULL; no Python code runs between looking at a value and using
it (exact built-in types only, subclasses of int read by int's own functions); the GIL is held.
"""

import types

cimport cython
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from moderntensor.errors import DecodeError, EncodeError

__all__ = ["MAX_DEPTH", "Layout", "encode_method"]

MAX_DEPTH = 16  # of nested schemas; records of the protocol need five

include "layout_core.pxi"
include "layout_read.pxi"
include "layout_write.pxi"


# --- compiling -----------------------------------------------------------------------------

_ARITY = {
    "u": 3,
    "fixed": 1,
    "bytes": 3,
    "str": 2,
    "list": 3,
    "optional": 1,
    "tuple": 1,
    "record": 2,
    "sized": 3,
    "raw": 1,
}
_PREFIXED = {"bytes": BYTES, "str": STR, "list": LIST, "sized": SIZED}


def _bounds(kind, size, lo, hi, sizes):
    if size not in sizes:
        raise ValueError(f"{kind}: width {size!r} is not one of {sizes}")
    if type(lo) is not int or type(hi) is not int or not 0 <= lo <= hi < 1 << (8 * size):
        raise ValueError(f"{kind}: bounds {lo!r}..{hi!r} do not fit a width of {size}")


def _check_class(cls, fields, partial):
    if not isinstance(cls, type):
        raise TypeError(f"record: {cls!r} is not a class")
    base = cls
    while base is not None and base is not object:
        if not base.__flags__ & 1 << 9:  # Py_TPFLAGS_HEAPTYPE: not one written in C
            raise TypeError(f"{cls.__name__}: is built on {base.__name__}")
        base = base.__base__
    if cls.__dictoffset__:
        raise TypeError(f"{cls.__name__}: has a __dict__, records have slots only")
    if type(fields) is not tuple or not fields:
        raise ValueError(f"{cls.__name__}: no fields in {fields!r}")
    whole = getattr(cls, "__fields__", fields)
    if fields != (whole[: len(fields)] if partial else whole):
        raise ValueError(f"{cls.__name__}: fields differ from its declaration")


@cython.final
@cython.no_gc_clear  # the ops borrow the classes and names in _keep
cdef class Layout:
    """Packs objects of `cls` and unpacks bytes into them, strictly, by one schema.

    `fields` is ``((name, schema), ...)`` in wire order, each name a slot of exactly `cls`.
    Where `cls` has a `__fields__` and `fields` is only the beginning of it, the layout packs
    (for what a signature covers) but does not unpack. `min_size` is the least number of bytes;
    `max_size`, if given, the most that `unpack` takes.

    Raises ValueError for a schema that makes no sense, TypeError for a class that will not do.
    """

    cdef readonly object cls
    cdef readonly tuple names
    cdef readonly Py_ssize_t min_size
    cdef readonly object max_size
    cdef Py_ssize_t _most
    cdef bint _complete
    cdef list _keep
    cdef Op *_ops
    cdef Py_ssize_t _used

    def __cinit__(self, cls, fields, max_size=None):
        cdef Py_ssize_t i
        self._keep = []
        self._reserve(1)
        self._fill_record(0, 0, cls, fields, True)
        for i in range(self._used):  # the array has its last address now
            self._ops[i].items = self._ops + self._ops[i].first
        self._complete = len(fields) == len(getattr(cls, "__fields__", fields))
        self.cls = cls
        self.names = tuple([name for name, _ in fields])
        self.min_size = self._ops.min_size
        self.max_size = max_size
        self._most = PY_SSIZE_T_MAX if max_size is None else max_size

    def __dealloc__(self):
        free(self._ops)

    cdef Py_ssize_t _reserve(self, Py_ssize_t count) except -1:
        """Make room for `count` ops side by side; the index of the first."""
        cdef Py_ssize_t first = self._used
        cdef Op *ops = <Op *>realloc(self._ops, (first + count) * sizeof(Op))
        if ops == NULL:
            raise MemoryError
        memset(ops + first, 0, count * sizeof(Op))
        self._ops = ops
        self._used = first + count
        return first

    cdef int _fill(self, Py_ssize_t at, int depth, schema) except -1:
        if depth > MAX_DEPTH:
            raise ValueError(f"schemas nest at most {MAX_DEPTH} deep")
        if type(schema) is not tuple or not schema or schema[0] not in _ARITY:
            raise ValueError(f"not a schema: {schema!r}")
        kind, *arguments = schema
        if len(arguments) != _ARITY[kind]:
            raise ValueError(f"{kind}: {len(arguments)} arguments, must be {_ARITY[kind]}")
        if kind == "record":
            self._fill_record(at, depth, arguments[0], arguments[1], False)
        elif kind == "u":
            self._fill_uint(at, arguments[0], arguments[1], arguments[2])
        elif kind == "fixed":
            size = arguments[0]
            if type(size) is not int or not 1 <= size <= 0xFFFF:
                raise ValueError(f"fixed: size {size!r} is not within 1..65535")
            self._ops[at].kind = FIXED
            self._ops[at].constant = True
            self._ops[at].min_size = self._ops[at].plain = size
            self._ops[at].plain_items = 1
        elif kind == "tuple":
            if type(arguments[0]) is not tuple or not arguments[0]:
                raise ValueError(f"tuple: no items in {arguments[0]!r}")
            self._ops[at].kind = TUPLE
            self._fill_items(at, depth, arguments[0])
        elif kind in ("optional", "raw"):
            self._ops[at].kind = OPTIONAL if kind == "optional" else RAW
            self._fill_items(at, depth, (arguments[0],))
            # What is given for a raw value may have any size.
            self._ops[at].constant = False
            if kind == "optional":
                if self._ops[self._ops[at].first].kind == OPTIONAL:
                    raise ValueError(
                        "optional: an optional item would have two ways to be None"
                    )
                self._ops[at].min_size = 1
        else:
            self._fill_prefixed(at, depth, kind, arguments)
        return 0

    cdef int _fill_uint(self, Py_ssize_t at, size, lo, hi) except -1:
        cdef Op *op = self._ops + at
        _bounds("u", size, lo, hi, (1, 2, 4, 8, 16))
        op.kind = UINT16 if size == 16 else UINT
        op.width = size
        op.min_size = size
        op.constant = True
        op.lo = lo & 0xFFFFFFFFFFFFFFFF
        op.lo_high = lo >> 64
        op.hi = hi & 0xFFFFFFFFFFFFFFFF
        op.hi_high = hi >> 64
        op.bounded = lo > 0 or hi < (1 << (8 * size)) - 1
        if not op.bounded:
            op.plain = size
            op.plain_items = 1
        return 0

    cdef int _fill_prefixed(self, Py_ssize_t at, int depth, kind, list arguments) except -1:
        """bytes (width, lo, hi), str (width, hi), list and sized (width, hi, item)."""
        width = arguments[0]
        lo, hi = arguments[1:] if kind == "bytes" else (0, arguments[1])
        _bounds(kind, width, lo, hi, (1, 2, 4))
        self._ops[at].kind = _PREFIXED[kind]
        self._ops[at].width = width
        self._ops[at].lo = lo
        self._ops[at].hi = hi
        if kind in ("bytes", "str"):
            self._ops[at].min_size = width + lo
            return 0
        self._fill_items(at, depth, (arguments[2],))
        if kind == "list":
            self._ops[at].min_size = width
            self._ops[at].constant = False
        else:
            self._ops[at].min_size += width
        return 0

    cdef int _fill_items(self, Py_ssize_t at, int depth, tuple schemas) except -1:
        """The children of an op, and from them its least size."""
        cdef Py_ssize_t first = self._reserve(len(schemas))
        cdef Py_ssize_t i
        cdef Py_ssize_t min_size = 0
        cdef bint constant = True
        self._ops[at].first = first
        self._ops[at].count = len(schemas)
        for i in range(len(schemas)):
            self._fill(first + i, depth + 1, schemas[i])
            min_size += self._ops[first + i].min_size
            constant = constant and self._ops[first + i].constant
        self._ops[at].min_size = min_size
        self._ops[at].constant = constant
        for i in range(len(schemas) - 2, -1, -1):
            self._lengthen_plain(first + i)
        return 0

    cdef void _lengthen_plain(self, Py_ssize_t at) noexcept:
        """Join the run of plain items that begins behind an item to it."""
        cdef Op *op = self._ops + at
        if op.plain_items and op[1].plain_items:
            op.plain += op[1].plain
            op.plain_items += op[1].plain_items

    cdef int _fill_record(self, Py_ssize_t at, int depth, cls, fields, bint partial) except -1:
        cdef Py_ssize_t i
        _check_class(cls, fields, partial)
        slots = []
        names = []
        schemas = []
        for name, schema in fields:
            slot = cls.__dict__.get(name)
            if type(slot) is not types.MemberDescriptorType or slot.__objclass__ is not cls:
                raise TypeError(f"{cls.__name__}.{name}: is not a slot of this class")
            offset = mt_slot_offset(<PyObject *>slot)
            if offset < 0:
                raise TypeError(f"{cls.__name__}.{name}: is not a slot of this class")
            slots.append(offset)
            names.append(name)
            schemas.append(schema)
        self._keep.append((cls, tuple(names)))
        self._ops[at].kind = RECORD
        self._ops[at].type = <PyTypeObject *>cls
        self._fill_items(at, depth, tuple(schemas))
        for i in range(len(slots)):
            self._ops[self._ops[at].first + i].slot = slots[i]
            self._ops[self._ops[at].first + i].name = <PyObject *>names[i]
        return 0

    def __repr__(self):
        return f"<Layout of {self.cls.__name__}: {', '.join(self.names)}>"

    @cython.always_allow_keywords(False)
    def pack(self, obj, /):
        """The encoding of `obj`, whose type is exactly `cls` (else TypeError).

        Raises EncodeError naming the field for a value that is missing, of the wrong type,
        out of range or too long.
        """
        return self._pack(<PyObject *>obj)

    cdef bytes _pack(self, PyObject *obj):
        # What fits is written once and copied; what does not is measured, then written
        # in place.
        cdef unsigned char small[4096]
        cdef Writer w
        cdef Fault fault
        cdef unsigned char *p
        cdef Py_ssize_t size
        if Py_TYPE(obj) != self._ops.type:
            raise TypeError(f"must be {self.cls.__name__}, not {type(<object>obj).__name__}")
        w.end = small + sizeof(small)
        w.full = False
        w.fault = &fault
        p = write_record(&w, small, self._ops, obj)
        if p != NULL:
            return mt_bytes(small, p - small)
        if w.full:
            size = measure(self._ops, obj)
            out = mt_bytes(NULL, size)
            w.end = mt_content(<PyObject *>out) + size
            w.full = False
            p = write_record(&w, mt_content(<PyObject *>out), self._ops, obj)
            if p != NULL and p == w.end:
                return out
            if p != NULL or w.full:
                raise SystemError(f"{self.cls.__name__}: measured {size} bytes wrongly")
        raise_fault(&fault, EncodeError, self.cls)

    @cython.always_allow_keywords(False)
    def unpack(self, data, /):
        """The object that `data` encodes; DecodeError unless all of it is that encoding, or if
        it is over `max_size`."""
        cdef Py_ssize_t end = 0
        cdef Py_ssize_t size = 0
        if PyBytes_CheckExact(<PyObject *>data):
            size = PyBytes_GET_SIZE(<PyObject *>data)
            if size > self._most:
                raise DecodeError(
                    f"{self.cls.__name__}: {_plural(size, 'byte')}, at most {self.max_size}"
                )
        obj = self._unpack(data, &end)
        if end != size:
            raise DecodeError(f"{self.cls.__name__}: {_plural(size - end, 'trailing byte')}")
        return obj

    def unpack_from(self, data, offset=0, /):
        """The object encoded at `offset`, and the offset behind it; more may follow.

        Raises DecodeError naming the field, ValueError for an offset outside of `data`.
        """
        cdef Py_ssize_t end = 0
        if type(data) is bytes and self._complete:
            offset = PyNumber_Index(offset)  # exactly an int: what it says of itself is true
            if not 0 <= offset <= len(data):
                raise ValueError(f"offset {offset} is outside of {_plural(len(data), 'byte')}")
            end = offset
        obj = self._unpack(data, &end)
        return obj, end

    cdef object _unpack(self, data, Py_ssize_t *pos):
        cdef Reader r
        cdef Fault fault
        cdef PyObject *obj
        if not PyBytes_CheckExact(<PyObject *>data):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if not self._complete:
            raise TypeError(
                f"{self.cls.__name__}: this layout covers only its first "
                f"{_plural(len(self.names), 'field')} and cannot unpack"
            )
        r.base = mt_content(<PyObject *>data)
        r.p = r.base + pos[0]
        r.end = r.base + PyBytes_GET_SIZE(<PyObject *>data)
        r.fault = &fault
        obj = read_record(&r, self._ops)
        if obj == NULL:
            raise_fault(&fault, DecodeError, self.cls)
        pos[0] = r.p - r.base
        return mt_owned(obj)


include "layout_front.pxi"
