# --- writing -------------------------------------------------------------------------------
# Each function writes at `p` and gives the address behind what it wrote. NULL means that the
# buffer is too small (`full` is set) or that a fault was noted. The position is handed on as an
# argument, so that it stays in a register.


cdef inline bint is_int(PyObject *value) noexcept:
    return PyLong_CheckExact(value) or (PyLong_Check(value) and not PyBool_Check(value))


cdef inline bint is_sequence(PyObject *value) noexcept:
    return PyTuple_CheckExact(value) or PyList_CheckExact(value)


cdef unsigned char *wrong(Writer *w, Code code, const Op *op, PyObject *value) noexcept:
    blame_value(w.fault, code, op, value)
    return NULL


cdef inline bint room(Writer *w, unsigned char *p, Py_ssize_t size) noexcept:
    if w.end - p >= size:
        return True
    w.full = True
    return False


cdef inline bint write_size(Writer *w, const Op *op, Py_ssize_t size) noexcept:
    """Whether a length or count is within its bounds."""
    if <uint64_t>size < op.lo:
        blame(w.fault, TOO_FEW, op, <uint64_t>size, 0, 0, 0)
        return False
    if <uint64_t>size > op.hi:
        blame(w.fault, TOO_MANY, op, <uint64_t>size, 0, 0, 0)
        return False
    return True


cdef inline unsigned char *write_uint(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef uint64_t number
    if not is_int(value):
        return wrong(w, TYPE, op, value)
    if mt_as_u64(value, &number) < 0 or number < op.lo or number > op.hi:
        return wrong(w, RANGE, op, value)
    if not room(w, p, op.width):
        return NULL
    mt_store(p, op.width, number)
    return p + op.width


cdef inline unsigned char *write_fixed(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    if not PyBytes_CheckExact(value):
        return wrong(w, TYPE, op, value)
    if PyBytes_GET_SIZE(value) != op.min_size:
        blame(w.fault, MUST_BE, op, <uint64_t>PyBytes_GET_SIZE(value),
              <uint64_t>op.min_size, 0, 0)
        return NULL
    if not room(w, p, op.min_size):
        return NULL
    mt_copy(p, mt_content(value), op.min_size)
    return p + op.min_size


cdef unsigned char *write(Writer *w, unsigned char *p, const Op *op, PyObject *value) noexcept:
    if op.kind == UINT:
        return write_uint(w, p, op, value)
    elif op.kind == FIXED:
        return write_fixed(w, p, op, value)
    elif op.kind == BYTES:
        if not PyBytes_CheckExact(value):
            return wrong(w, TYPE, op, value)
        if not write_size(w, op, PyBytes_GET_SIZE(value)):
            return NULL
        if not room(w, p, PyBytes_GET_SIZE(value) + op.width):
            return NULL
        mt_store(p, op.width, <uint64_t>PyBytes_GET_SIZE(value))
        memcpy(p + op.width, mt_content(value), PyBytes_GET_SIZE(value))
        return p + op.width + PyBytes_GET_SIZE(value)
    elif op.kind == RECORD:
        return write_record(w, p, op, value)
    elif op.kind == LIST:
        return write_list(w, p, op, value)
    elif op.kind == TUPLE:
        return write_tuple(w, p, op, value)
    elif op.kind == OPTIONAL:
        if not room(w, p, 1):
            return NULL
        p[0] = value != Py_None
        return p + 1 if value == Py_None else write(w, p + 1, op.items, value)
    elif op.kind == STR:
        return write_str(w, p, op, value)
    elif op.kind == UINT16:
        return write_uint16(w, p, op, value)
    elif op.kind == SIZED:
        return write_sized(w, p, op, value)
    else:  # RAW
        return write_raw(w, p, op, value)


cdef unsigned char *write_record(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef PyObject *part
    cdef const Op *field = op.items
    cdef const Op *stop = op.items + op.count
    if Py_TYPE(value) != op.type:
        return wrong(w, TYPE, op, value)
    while field != stop:
        part = MT_SLOT(value, field.slot)
        if part == NULL:
            blame(w.fault, UNSET, field, 0, 0, 0, 0)
            p = NULL
        elif field.kind == UINT:
            p = write_uint(w, p, field, part)
        elif field.kind == FIXED:
            p = write_fixed(w, p, field, part)
        else:
            p = write(w, p, field, part)
        if p == NULL:
            if not w.full:
                at_field(w.fault, field)
            return NULL
        field += 1
    return p


cdef unsigned char *write_list(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef Py_ssize_t i
    cdef Py_ssize_t count
    cdef PyObject **items
    cdef const Op *item = op.items
    if not is_sequence(value):
        return wrong(w, TYPE, op, value)
    count = PySequence_Fast_GET_SIZE(value)
    if not write_size(w, op, count):
        return NULL
    if not room(w, p, op.width):
        return NULL
    mt_store(p, op.width, <uint64_t>count)
    p += op.width
    items = PySequence_Fast_ITEMS(value)
    for i in range(count):
        if item.kind == FIXED:
            p = write_fixed(w, p, item, items[i])
        else:
            p = write(w, p, item, items[i])
        if p == NULL:
            if not w.full:
                at_index(w.fault, i)
            return NULL
    return p


cdef unsigned char *write_tuple(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef Py_ssize_t i
    cdef PyObject **items
    if not is_sequence(value):
        return wrong(w, TYPE, op, value)
    if PySequence_Fast_GET_SIZE(value) != op.count:
        blame(w.fault, MUST_BE, op, <uint64_t>PySequence_Fast_GET_SIZE(value),
              <uint64_t>op.count, 0, 0)
        return NULL
    items = PySequence_Fast_ITEMS(value)
    for i in range(op.count):
        p = write(w, p, op.items + i, items[i])
        if p == NULL:
            if not w.full:
                at_index(w.fault, i)
            return NULL
    return p


cdef unsigned char *write_str(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef Py_ssize_t size
    cdef Py_ssize_t bad
    if not PyUnicode_CheckExact(value):
        return wrong(w, TYPE, op, value)
    size = mt_text_size(value)
    if size < 0:
        blame(w.fault, MEMORY, op, 0, 0, 0, 0)
        return NULL
    if not write_size(w, op, size):
        return NULL
    if PyUnicode_IS_ASCII(value):
        bad = mt_unprintable(PyUnicode_1BYTE_DATA(value), size)
    else:
        bad = 0
        while 0x20 <= PyUnicode_READ_CHAR(value, bad) <= 0x7e:
            bad += 1
    if bad >= 0:
        blame(w.fault, CHARACTER, op, PyUnicode_READ_CHAR(value, bad), <uint64_t>bad, 0, 0)
        return NULL
    if not room(w, p, size + op.width):
        return NULL
    mt_store(p, op.width, <uint64_t>size)
    memcpy(p + op.width, PyUnicode_1BYTE_DATA(value), size)
    return p + op.width + size


cdef unsigned char *write_uint16(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef uint64_t high
    cdef uint64_t low
    if not is_int(value):
        return wrong(w, TYPE, op, value)
    if mt_as_u128(value, &high, &low) < 0 or high < op.lo_high or high > op.hi_high or (
        high == op.lo_high and low < op.lo
    ) or (high == op.hi_high and low > op.hi):
        return wrong(w, RANGE, op, value)
    if not room(w, p, 16):
        return NULL
    mt_store(p, 8, high)
    mt_store(p + 8, 8, low)
    return p + 16


cdef unsigned char *write_sized(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef unsigned char *start
    if not room(w, p, op.width):
        return NULL
    start = p + op.width
    p = write(w, start, op.items, value)
    if p == NULL or not write_size(w, op, p - start):
        return NULL
    mt_store(start - op.width, op.width, <uint64_t>(p - start))
    return p


cdef unsigned char *write_raw(
    Writer *w, unsigned char *p, const Op *op, PyObject *value
) noexcept:
    cdef Reader r
    cdef Py_ssize_t size
    if not PyBytes_CheckExact(value):
        return wrong(w, TYPE, op, value)
    size = PyBytes_GET_SIZE(value)
    if not room(w, p, size):
        return NULL
    r.base = r.p = mt_content(value)
    r.end = r.p + size
    r.fault = w.fault
    if not skip(&r, op.items):
        return NULL
    if r.p != r.end:
        blame(w.fault, TRAILING, op, <uint64_t>(r.end - r.p), 0, 0, 0)
        return NULL
    memcpy(p, mt_content(value), size)
    return p + size


cdef Py_ssize_t measure(const Op *op, PyObject *value) noexcept:
    """The bytes that `write` would need. What is wrong counts as little as it likes: `write`
    looks again, in order, and finds it."""
    cdef Py_ssize_t total
    cdef Py_ssize_t i
    cdef PyObject *part
    if op.constant:
        return op.min_size
    if op.kind == BYTES:
        return op.width + (PyBytes_GET_SIZE(value) if PyBytes_CheckExact(value) else 0)
    elif op.kind == STR:
        return op.width + (mt_text_size(value) if PyUnicode_CheckExact(value) else 0)
    elif op.kind == RAW:
        return PyBytes_GET_SIZE(value) if PyBytes_CheckExact(value) else 0
    elif op.kind == OPTIONAL:
        return 1 if value == Py_None else 1 + measure(op.items, value)
    elif op.kind == SIZED:
        return op.width + measure(op.items, value)
    elif op.kind == RECORD:
        total = 0
        if Py_TYPE(value) == op.type:
            for i in range(op.count):
                part = MT_SLOT(value, op.items[i].slot)
                if part != NULL:
                    total += measure(op.items + i, part)
                    if total > MT_IMMENSE:
                        return MT_IMMENSE
        return total
    total = op.width  # LIST or TUPLE
    if is_sequence(value):
        for i in range(PySequence_Fast_GET_SIZE(value)):
            if op.kind == TUPLE and i == op.count:
                break
            total += measure(
                op.items + (i if op.kind == TUPLE else 0), PySequence_Fast_ITEMS(value)[i]
            )
            if total > MT_IMMENSE:
                return MT_IMMENSE
    return total
