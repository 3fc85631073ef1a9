# --- reading -------------------------------------------------------------------------------
# Everything here leaves r.p behind what was read, or notes a fault.


cdef inline bint has(Reader *r, const Op *op, uint64_t size) noexcept:
    return <uint64_t>(r.end - r.p) >= size or need(r, op, size)


cdef bint in_bounds(Reader *r, const Op *op, uint64_t high, uint64_t low) noexcept:
    cdef PyObject *value
    if (high > op.lo_high or (high == op.lo_high and low >= op.lo)) and (
        high < op.hi_high or (high == op.hi_high and low <= op.hi)
    ):
        return True
    value = mt_from_u128(r.p) if op.kind == UINT16 else mt_from_u64(low)
    if value == NULL:
        blame(r.fault, MEMORY, op, 0, 0, 0, 0)
    else:
        blame_value(r.fault, RANGE, op, value)
        Py_DECREF(value)
    return False


cdef inline bint read_size(Reader *r, const Op *op, uint64_t *size) noexcept:
    """A length or count within its bounds; nothing is said of the bytes behind it."""
    if not has(r, op, <uint64_t>op.width):
        return False
    size[0] = mt_load(r.p, op.width)
    if size[0] < op.lo:
        blame(r.fault, TOO_FEW, op, size[0], 0, 0, 0)
        return False
    if size[0] > op.hi:
        blame(r.fault, TOO_MANY, op, size[0], 0, 0, 0)
        return False
    r.p += op.width
    return True


cdef inline bint read_count(Reader *r, const Op *op, uint64_t *count) noexcept:
    cdef uint64_t least
    if not read_size(r, op, count):
        return False
    # No overflow: a count is below 2**32 and a least size far below that.
    least = count[0] * <uint64_t>op.items.min_size
    if least > <uint64_t>(r.end - r.p):
        blame(r.fault, COUNT, op, count[0], least, <uint64_t>(r.p - r.base),
              <uint64_t>(r.end - r.p))
        return False
    return True


cdef inline PyObject *made(Reader *r, const Op *op, PyObject *value, uint64_t size) noexcept:
    if value == NULL:
        blame(r.fault, MEMORY, op, 0, 0, 0, 0)
    else:
        r.p += size
    return value


cdef inline PyObject *read_uint(Reader *r, const Op *op) noexcept:
    cdef uint64_t number
    if not has(r, op, <uint64_t>op.width):
        return NULL
    number = mt_load(r.p, op.width)
    if op.bounded and (number < op.lo or number > op.hi) and not in_bounds(r, op, 0, number):
        return NULL
    return made(r, op, mt_from_u64(number), <uint64_t>op.width)


cdef inline PyObject *read_fixed(Reader *r, const Op *op) noexcept:
    if not has(r, op, <uint64_t>op.min_size):
        return NULL
    return made(r, op, mt_new_fixed(r.p, op.min_size), <uint64_t>op.min_size)


cdef PyObject *read(Reader *r, const Op *op) noexcept:
    """A new reference to the value, or NULL."""
    cdef uint64_t size
    cdef PyObject *value
    cdef const unsigned char *end
    cdef Py_ssize_t bad
    if op.kind == UINT:
        return read_uint(r, op)
    elif op.kind == FIXED:
        return read_fixed(r, op)
    elif op.kind == BYTES:
        if not read_size(r, op, &size) or not has(r, op, size):
            return NULL
        return made(r, op, mt_new_bytes(r.p, <Py_ssize_t>size), size)
    elif op.kind == RECORD:
        return read_record(r, op)
    elif op.kind == LIST:
        return read_list(r, op)
    elif op.kind == TUPLE:
        return read_tuple(r, op)
    elif op.kind == OPTIONAL:
        if not has(r, op, 1):
            return NULL
        if r.p[0] > 1:
            blame(r.fault, PRESENCE, op, r.p[0], 0, 0, 0)
            return NULL
        r.p += 1
        if (r.p - 1)[0] == 1:
            return read(r, op.items)
        Py_INCREF(Py_None)
        return Py_None
    elif op.kind == STR:
        if not read_size(r, op, &size) or not has(r, op, size):
            return NULL
        bad = mt_unprintable(r.p, <Py_ssize_t>size)
        if bad >= 0:
            blame(r.fault, CHARACTER, op, r.p[bad], <uint64_t>bad, 0, 0)
            return NULL
        value = PyUnicode_New(<Py_ssize_t>size, 127)
        if value != NULL and size:
            memcpy(PyUnicode_1BYTE_DATA(value), r.p, size)
        return made(r, op, value, size)
    elif op.kind == UINT16:
        if not has(r, op, 16):
            return NULL
        size = mt_load(r.p, 8)
        if op.bounded and not in_bounds(r, op, size, mt_load(r.p + 8, 8)):
            return NULL
        return made(r, op, mt_from_u128(r.p) if size else mt_from_u64(mt_load(r.p + 8, 8)), 16)
    elif op.kind == SIZED:
        if not read_size(r, op, &size) or not has(r, op, size):
            return NULL
        end = r.end
        r.end = r.p + size
        value = read(r, op.items)
        if value != NULL and r.p != r.end:
            Py_DECREF(value)
            blame(r.fault, TRAILING, op, <uint64_t>(r.end - r.p), 0, 0, 0)
            return NULL
        r.end = end
        return value
    else:  # RAW
        end = r.p
        if not skip(r, op.items):
            return NULL
        return made(r, op, mt_new_bytes(end, r.p - end), 0)


cdef PyObject *read_record(Reader *r, const Op *op) noexcept:
    cdef PyObject *value
    cdef PyObject *record = mt_new_record(op.type)
    cdef const Op *field = op.items
    cdef const Op *stop = op.items + op.count
    if record == NULL:
        blame(r.fault, MEMORY, op, 0, 0, 0, 0)
        return NULL
    while field != stop:
        if field.kind == UINT:
            value = read_uint(r, field)
        elif field.kind == FIXED:
            value = read_fixed(r, field)
        else:
            value = read(r, field)
        if value == NULL:
            at_field(r.fault, field)
            Py_DECREF(record)
            return NULL
        (<PyObject **>(<char *>record + field.slot))[0] = value
        field += 1
    return record


cdef PyObject *read_list(Reader *r, const Op *op) noexcept:
    cdef uint64_t count
    cdef Py_ssize_t i
    cdef PyObject *value
    cdef PyObject *items
    cdef const Op *item = op.items
    if not read_count(r, op, &count):
        return NULL
    items = PyTuple_New(<Py_ssize_t>count)
    if items == NULL:
        blame(r.fault, MEMORY, op, 0, 0, 0, 0)
        return NULL
    if count:  # the empty tuple is shared
        mt_untrack(items)
    if item.kind == FIXED:
        if fill_fixed(r, item, items, <Py_ssize_t>count):
            return items
        Py_DECREF(items)
        return NULL
    for i in range(<Py_ssize_t>count):
        value = read(r, item)
        if value == NULL:
            at_index(r.fault, i)
            Py_DECREF(items)
            return NULL
        PyTuple_SET_ITEM(items, i, value)
    return items


cdef bint fill_fixed(Reader *r, const Op *item, PyObject *items, Py_ssize_t count) noexcept:
    """The items of most lists: hashes, whose bytes are all there, as the count was held to."""
    cdef const unsigned char *p = r.p
    cdef Py_ssize_t size = item.min_size
    cdef Py_ssize_t i
    cdef PyObject *value
    for i in range(count):
        value = mt_new_fixed(p, size)
        if value == NULL:
            blame(r.fault, MEMORY, item, 0, 0, 0, 0)
            return False
        PyTuple_SET_ITEM(items, i, value)
        p += size
    r.p = p
    return True


cdef PyObject *read_tuple(Reader *r, const Op *op) noexcept:
    cdef Py_ssize_t i
    cdef PyObject *value
    cdef PyObject *items = PyTuple_New(op.count)
    if items == NULL:
        blame(r.fault, MEMORY, op, 0, 0, 0, 0)
        return NULL
    mt_untrack(items)
    for i in range(op.count):
        value = read(r, op.items + i)
        if value == NULL:
            at_index(r.fault, i)
            Py_DECREF(items)
            return NULL
        PyTuple_SET_ITEM(items, i, value)
    return items


cdef inline bint skip_plain(Reader *r, const Op *op) noexcept:
    """Past a whole run of items that need nothing but bytes, if there are such and enough of
    them; where there are not enough, item by item tells which one lacks them."""
    if op.plain_items == 0 or r.end - r.p < op.plain:
        return False
    r.p += op.plain
    return True


cdef bint skip(Reader *r, const Op *op) noexcept:
    """Verifies like `read`, but makes nothing."""
    cdef uint64_t size
    cdef Py_ssize_t i
    cdef const unsigned char *end
    if op.kind == UINT:
        if not has(r, op, <uint64_t>op.width):
            return False
        if op.bounded and not in_bounds(r, op, 0, mt_load(r.p, op.width)):
            return False
        r.p += op.width
    elif op.kind == UINT16:
        if not has(r, op, 16):
            return False
        if op.bounded and not in_bounds(r, op, mt_load(r.p, 8), mt_load(r.p + 8, 8)):
            return False
        r.p += 16
    elif op.kind == FIXED:
        if not has(r, op, <uint64_t>op.min_size):
            return False
        r.p += op.min_size
    elif op.kind == BYTES:
        if not read_size(r, op, &size) or not has(r, op, size):
            return False
        r.p += size
    elif op.kind == STR:
        if not read_size(r, op, &size) or not has(r, op, size):
            return False
        i = mt_unprintable(r.p, <Py_ssize_t>size)
        if i >= 0:
            blame(r.fault, CHARACTER, op, r.p[i], <uint64_t>i, 0, 0)
            return False
        r.p += size
    elif op.kind == RECORD:
        i = 0
        while i < op.count:
            if skip_plain(r, op.items + i):
                i += op.items[i].plain_items
                continue
            if not skip(r, op.items + i):
                at_field(r.fault, op.items + i)
                return False
            i += 1
    elif op.kind == LIST:
        if not read_count(r, op, &size):
            return False
        for i in range(<Py_ssize_t>size):
            if not skip(r, op.items):
                at_index(r.fault, i)
                return False
    elif op.kind == TUPLE:
        i = 0
        while i < op.count:
            if skip_plain(r, op.items + i):
                i += op.items[i].plain_items
                continue
            if not skip(r, op.items + i):
                at_index(r.fault, i)
                return False
            i += 1
    elif op.kind == OPTIONAL:
        if not has(r, op, 1):
            return False
        if r.p[0] > 1:
            blame(r.fault, PRESENCE, op, r.p[0], 0, 0, 0)
            return False
        r.p += 1
        if (r.p - 1)[0] == 1:
            return skip(r, op.items)
    elif op.kind == SIZED:
        if not read_size(r, op, &size) or not has(r, op, size):
            return False
        end = r.end
        r.end = r.p + size
        if not skip(r, op.items):
            return False
        if r.p != r.end:
            blame(r.fault, TRAILING, op, <uint64_t>(r.end - r.p), 0, 0, 0)
            return False
        r.end = end
    else:  # RAW
        return skip(r, op.items)
    return True
