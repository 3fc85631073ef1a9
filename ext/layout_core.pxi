# The parts of the layout engine in plain C: compiled schemas, faults, slots.

cdef extern from *:
    """
    #include <structmember.h>

    /* More than can be allocated, yet no sum of two of them overflows. */
    #define MT_IMMENSE (PY_SSIZE_T_MAX / 2)

    /* For Cython: functions that hand over a reference, NULL with an exception set. */
    #define mt_owned(reference) (reference)
    #define mt_bytes(data, size) mt_new_bytes(data, size)
    #define mt_new_bytes(data, size) PyBytes_FromStringAndSize((const char *)(data), size)
    #define mt_content(bytes) ((unsigned char *)PyBytes_AS_STRING(bytes))

    #define MT_SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

    /* Most fixed fields are hashes; a constant size makes the copy two moves. */
    static inline void mt_copy(unsigned char *to, const unsigned char *from, Py_ssize_t size) {
        if (size == 32) memcpy(to, from, 32);
        else memcpy(to, from, size);
    }

    static inline PyObject *mt_new_fixed(const unsigned char *from, Py_ssize_t size) {
        PyObject *made = PyBytes_FromStringAndSize(NULL, size);
        if (made != NULL) mt_copy(mt_content(made), from, size);
        return made;
    }

    /* Index of the first character that is not printable ASCII, or -1; eight at a time. */
    static inline Py_ssize_t mt_unprintable(const unsigned char *p, Py_ssize_t size) {
        const uint64_t ones = 0x0101010101010101u, high = 0x80 * ones;
        Py_ssize_t i = 0;
        while (i < size) {
            uint64_t x = 0x20 * ones;  /* pads the last few */
            Py_ssize_t n = size - i < 8 ? size - i : 8;
            if (n == 8) memcpy(&x, p + i, 8);
            else memcpy(&x, p + i, n);
            /* high bit set, 0x7f, or below 0x20 in any byte (Hacker's Delight, 6-1) */
            if ((x | (x + ones) | ((x - 0x20 * ones) & ~x)) & high) {
                for (; i < size; i++)
                    if (p[i] < 0x20 || p[i] > 0x7e) return i;
                return -1;
            }
            i += n;
        }
        return -1;
    }

    /* Characters of a str; -1 with MemoryError. Only 3.11 has strings that are not ready. */
    static inline Py_ssize_t mt_text_size(PyObject *text) {
    #if PY_VERSION_HEX < 0x030C0000
        if (PyUnicode_READY(text) < 0) return -1;
    #endif
        return PyUnicode_GET_LENGTH(text);
    }

    /* Offset of a slot that holds any object, or -1 for another kind of member. */
    static Py_ssize_t mt_slot_offset(PyObject *descriptor) {
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        return member->type == T_OBJECT_EX ? member->offset : -1;
    }

    /* Decoded records and tuples hold only numbers, bytes, text and one another, and cannot
       be changed: no cycle can pass through them, so the collector need not visit them. */
    static inline void mt_untrack(PyObject *v) { PyObject_GC_UnTrack(v); }

    /* An object of a class that has slots (and so takes part in collection), all of them unset. */
    static inline PyObject *mt_new_record(PyTypeObject *type) {
        PyObject *made = PyObject_GC_New(PyObject, type);
        if (made != NULL)
            memset((char *)made + sizeof(PyObject), 0, type->tp_basicsize - sizeof(PyObject));
        return made;
    }
    """
    ctypedef struct PyObject
    ctypedef struct PyTypeObject
    PyObject *Py_None
    PyObject *MT_SLOT(PyObject *, Py_ssize_t) noexcept
    void mt_copy(unsigned char *, const unsigned char *, Py_ssize_t) noexcept
    PyObject *mt_new_fixed(const unsigned char *, Py_ssize_t) noexcept
    Py_ssize_t mt_text_size(PyObject *) noexcept
    Py_ssize_t mt_unprintable(const unsigned char *, Py_ssize_t) noexcept
    Py_ssize_t mt_slot_offset(PyObject *) noexcept
    void mt_untrack(PyObject *) noexcept
    PyObject *mt_new_record(PyTypeObject *) noexcept
    PyTypeObject *Py_TYPE(PyObject *) noexcept
    void Py_INCREF(PyObject *) noexcept
    void Py_DECREF(PyObject *) noexcept
    void Py_XDECREF(PyObject *) noexcept
    bint PyLong_CheckExact(PyObject *) noexcept
    bint PyLong_Check(PyObject *) noexcept
    bint PyBool_Check(PyObject *) noexcept
    bint PyBytes_CheckExact(PyObject *) noexcept
    Py_ssize_t PyBytes_GET_SIZE(PyObject *) noexcept
    unsigned char *mt_content(PyObject *) noexcept
    PyObject *mt_new_bytes(const void *, Py_ssize_t) noexcept
    bint PyUnicode_CheckExact(PyObject *) noexcept
    bint PyUnicode_IS_ASCII(PyObject *) noexcept
    unsigned char *PyUnicode_1BYTE_DATA(PyObject *) noexcept
    PyObject *PyUnicode_New(Py_ssize_t, Py_ssize_t) noexcept
    uint64_t PyUnicode_READ_CHAR(PyObject *, Py_ssize_t) noexcept
    bint PyTuple_CheckExact(PyObject *) noexcept
    bint PyList_CheckExact(PyObject *) noexcept
    PyObject *PyTuple_New(Py_ssize_t) noexcept
    void PyTuple_SET_ITEM(PyObject *, Py_ssize_t, PyObject *) noexcept
    Py_ssize_t PySequence_Fast_GET_SIZE(PyObject *) noexcept
    PyObject **PySequence_Fast_ITEMS(PyObject *) noexcept
    void PyErr_Clear() noexcept
    object mt_owned(PyObject *)
    object mt_bytes(const void *, Py_ssize_t)
    Py_ssize_t MT_IMMENSE
    Py_ssize_t PY_SSIZE_T_MAX


cdef extern from "ints.h":
    uint64_t mt_load(const unsigned char *, int) noexcept
    void mt_store(unsigned char *, int, uint64_t) noexcept
    int mt_as_u64(PyObject *, uint64_t *) noexcept
    int mt_as_u128(PyObject *, uint64_t *, uint64_t *) noexcept
    PyObject *mt_from_u64(uint64_t) noexcept
    PyObject *mt_from_u128(const unsigned char *) noexcept


cdef enum Kind:
    UINT
    UINT16
    FIXED
    BYTES
    STR
    LIST
    OPTIONAL
    TUPLE
    RECORD
    SIZED
    RAW


cdef struct Op:
    Kind kind
    int width              # of an int, a length or a count
    bint bounded           # an int that must be compared with lo and hi
    bint constant          # every value takes min_size bytes
    Py_ssize_t min_size
    uint64_t lo
    uint64_t hi
    uint64_t lo_high       # upper halves for ints of 16 bytes
    uint64_t hi_high
    Py_ssize_t slot        # where the record that this is a field of keeps it
    PyObject *name         # of that field; borrowed from Layout._keep
    PyTypeObject *type     # of a record; borrowed from Layout._keep
    Py_ssize_t first
    Py_ssize_t count
    Op *items              # ops + first, once the array no longer moves
    Py_ssize_t plain       # bytes of the run of items from here on in which any byte may stand,
    Py_ssize_t plain_items  # and how many they are


cdef enum Code:
    MEMORY                 # the exception is set already
    NEED                   # size, offset, left
    RANGE                  # value
    TOO_FEW                # size
    TOO_MANY               # size
    MUST_BE                # size, the right one
    TYPE                   # value
    UNSET
    CHARACTER              # code, index
    PRESENCE               # byte
    TRAILING               # size
    COUNT                  # items, bytes, offset, left


cdef enum:
    TRAIL = 48             # more path entries than MAX_DEPTH levels can add


cdef struct Fault:
    Code code
    const Op *op
    uint64_t a
    uint64_t b
    uint64_t c
    uint64_t d
    PyObject *value        # owned
    int depth
    const Op *fields[TRAIL]      # innermost first: a field, or NULL for
    Py_ssize_t indices[TRAIL]    # an index


cdef struct Reader:
    const unsigned char *base
    const unsigned char *p
    const unsigned char *end
    Fault *fault


cdef struct Writer:
    unsigned char *end
    bint full              # there was not enough room
    Fault *fault


# --- faults --------------------------------------------------------------------------------


cdef void blame(Fault *fault, Code code, const Op *op, uint64_t a, uint64_t b, uint64_t c,
                uint64_t d) noexcept:
    fault.code = code
    fault.op = op
    fault.a = a
    fault.b = b
    fault.c = c
    fault.d = d
    fault.value = NULL
    fault.depth = 0


cdef void blame_value(Fault *fault, Code code, const Op *op, PyObject *value) noexcept:
    blame(fault, code, op, 0, 0, 0, 0)
    Py_INCREF(value)
    fault.value = value


cdef inline void at_field(Fault *fault, const Op *field) noexcept:
    if fault.depth < TRAIL:
        fault.fields[fault.depth] = field
        fault.depth += 1


cdef inline void at_index(Fault *fault, Py_ssize_t index) noexcept:
    if fault.depth < TRAIL:
        fault.fields[fault.depth] = NULL
        fault.indices[fault.depth] = index
        fault.depth += 1


cdef bint need(Reader *r, const Op *op, uint64_t size) noexcept:
    """Notes that bytes are missing; always false, for the tail of a comparison."""
    blame(r.fault, NEED, op, size, <uint64_t>(r.p - r.base), <uint64_t>(r.end - r.p), 0)
    return False


# --- texts, word for word those of the pure twin -------------------------------------------


def _number(value):
    return str(value) if value.bit_length() <= 128 else f"an int of {value.bit_length()} bits"


def _plural(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


cdef str noun_of(const Op *op):
    return {LIST: "item", TUPLE: "item", STR: "character"}.get(op.kind, "byte")


cdef str text_of(Fault *fault):
    cdef const Op *op = fault.op
    if fault.code == NEED:
        return f"needs {_plural(fault.a, 'byte')} at offset {fault.b}, {fault.c} left"
    if fault.code == RANGE:
        value = int.__int__(<object>fault.value)
        lo = (<object>op.lo_high << 64) | op.lo
        hi = (<object>op.hi_high << 64) | op.hi
        bound = f"at least {lo}" if value < lo else f"at most {hi}"
        return f"{_number(value)}, {bound}"
    if fault.code == TOO_FEW:
        return f"{_plural(fault.a, noun_of(op))}, at least {op.lo}"
    if fault.code == TOO_MANY:
        return f"{_plural(fault.a, noun_of(op))}, at most {op.hi}"
    if fault.code == MUST_BE:
        return f"{_plural(fault.a, noun_of(op))}, must be {fault.b}"
    if fault.code == TYPE:
        if op.kind == RECORD:
            expected = (<object>op.type).__name__
        else:
            expected = {UINT: "int", UINT16: "int", STR: "str", LIST: "tuple or list",
                        TUPLE: "tuple or list"}.get(op.kind, "bytes")
        return f"must be {expected}, not {type(<object>fault.value).__name__}"
    if fault.code == UNSET:
        return "is not set"
    if fault.code == CHARACTER:
        return f"character 0x{fault.a:02x} at {fault.b} is not printable ASCII"
    if fault.code == PRESENCE:
        return f"presence byte {fault.a}, must be 0 or 1"
    if fault.code == TRAILING:
        return _plural(fault.a, "trailing byte")
    return (f"needs at least {_plural(fault.b, 'byte')} for {_plural(fault.a, 'item')} "
            f"at offset {fault.c}, {fault.d} left")


cdef raise_fault(Fault *fault, error, cls):
    cdef int i
    if fault.code == MEMORY:
        PyErr_Clear()
        raise MemoryError
    path = []
    for i in range(fault.depth - 1, -1, -1):
        if fault.fields[i] == NULL:
            path.append(f"[{fault.indices[i]}]")
        else:
            path.append(f".{<object>fault.fields[i].name}")
    try:
        text = text_of(fault)
    finally:
        Py_XDECREF(fault.value)
    raise error(f"{cls.__name__}{''.join(path)}: {text}")
