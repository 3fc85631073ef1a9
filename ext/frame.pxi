# One frame, and its way onto the wire: alone, or many in one buffer.

@cython.final
@cython.freelist(4096)
cdef class Frame:
    """One frame: `type` 0..255 and `payload`. Immutable, compared by value.

    Raises `EncodeError` for what no frame can hold.
    """

    # Neither can refer back to the frame, so the collector need not track it.
    cdef readonly uint8_t type
    cdef readonly bytes payload

    def __init__(self, type, payload):
        cdef int number = mt_as_byte(<PyObject*>type)
        if number < 0 or not is_payload(<PyObject*>payload):
            refuse(type, payload)
        if self.payload is not None:
            raise AttributeError("Frame is read-only")
        self.type = <uint8_t>number
        self.payload = payload

    def __eq__(self, other):
        cdef Frame that
        if not isinstance(other, Frame):
            return NotImplemented
        that = <Frame>other
        return self.type == that.type and self.payload == that.payload

    def __hash__(self):
        return hash((self.type, self.payload))

    def __repr__(self):
        return f"Frame(type=0x{self.type:02x}, payload={self.payload!r})"

    def __reduce__(self):
        return Frame, (self.type, self.payload)


cdef inline Frame new_frame(uint8_t frame_type, bytes payload):
    cdef Frame frame = Frame.__new__(Frame)
    frame.type = frame_type
    frame.payload = payload
    return frame


# A frame without payload says nothing but its type: one object serves all of them.
cdef tuple EMPTY_FRAMES = tuple([Frame(number, b"") for number in range(TYPES)])

cdef object NO_VIEW = memoryview(b"")


cdef inline bint is_payload(PyObject* payload) noexcept:
    return PyBytes_CheckExact(payload) and PyBytes_GET_SIZE(payload) <= PAYLOAD_LIMIT


cdef object refuse(frame_type, payload):
    """Raise for what no frame can hold."""
    if not isinstance(frame_type, int) or isinstance(frame_type, bool):
        raise EncodeError(f"frame type must be an int, not {type(frame_type).__name__}")
    if mt_as_byte(<PyObject*>frame_type) < 0:
        raise EncodeError("frame type must be from 0 to 255")
    if type(payload) is not bytes:
        raise EncodeError(f"frame payload must be bytes, not {type(payload).__name__}")
    raise EncodeError(
        f"frame payload of {len(payload)} bytes is over the maximum of {PAYLOAD_LIMIT}"
    )


cdef object refuse_first(PyObject** items, Py_ssize_t count):
    """Raise for the first of the items that is no frame."""
    cdef PyObject* item
    cdef Py_ssize_t i
    for i in range(count):
        item = items[i]
        if not PyTuple_Check(item) or PyTuple_GET_SIZE(item) != 2:
            raise EncodeError("frame must be a tuple of type and payload")
        if mt_as_byte(PyTuple_GET_ITEM(item, 0)) < 0 or not is_payload(PyTuple_GET_ITEM(item, 1)):
            refuse(<object>PyTuple_GET_ITEM(item, 0), <object>PyTuple_GET_ITEM(item, 1))


cdef inline uint8_t* put_frame(uint8_t* to, int frame_type, PyObject* payload) noexcept:
    """Writes a checked frame; where the next one goes."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    mt_store(to, LENGTH, <uint64_t>size + 1)
    to[LENGTH] = <uint8_t>frame_type
    if size:
        memcpy(to + HEADER, PyBytes_AS_STRING(payload), <size_t>size)
    return to + HEADER + size


def encode_frame(type, payload):
    """The bytes of one frame: 5 more than `payload`.

    Raises `EncodeError` for a type outside 0..255, a payload that is not exactly `bytes`, or one
    over `MAX_PAYLOAD` (10 MiB).
    """
    cdef int number = mt_as_byte(<PyObject*>type)
    cdef bytes frame
    if number < 0 or not is_payload(<PyObject*>payload):
        refuse(type, payload)
    frame = PyBytes_FromStringAndSize(NULL, HEADER + PyBytes_GET_SIZE(<PyObject*>payload))
    put_frame(<uint8_t*>PyBytes_AS_STRING(<PyObject*>frame), number, <PyObject*>payload)
    return frame


def encode_frames(frames):
    """The bytes of `(type, payload)` tuples one after another, in one buffer.

    Raises `EncodeError` as `encode_frame` does, and for an item that is not such a tuple.
    """
    # No code of Python runs from here to the end, so that nobody can change what is walked twice.
    cdef object held = frames if type(frames) is list or type(frames) is tuple else list(frames)
    cdef PyObject** items = PySequence_Fast_ITEMS(held)
    cdef PyObject* item
    cdef Py_ssize_t i, count = PySequence_Fast_GET_SIZE(held), size = 0
    cdef int number
    cdef bytes out
    cdef uint8_t* to
    for i in range(count):
        item = items[i]
        if (
            not PyTuple_Check(item)
            or PyTuple_GET_SIZE(item) != 2
            or not is_payload(PyTuple_GET_ITEM(item, 1))
        ):
            refuse_first(items, count)
        size += HEADER + PyBytes_GET_SIZE(PyTuple_GET_ITEM(item, 1))
    out = PyBytes_FromStringAndSize(NULL, size)
    to = <uint8_t*>PyBytes_AS_STRING(<PyObject*>out)
    for i in range(count):
        item = items[i]
        number = mt_as_byte(PyTuple_GET_ITEM(item, 0))
        if number < 0:
            refuse_first(items, count)
        to = put_frame(to, number, PyTuple_GET_ITEM(item, 1))
    return out
