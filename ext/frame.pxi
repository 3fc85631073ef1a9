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
        cdef int frame_type = check_type(type)
        check_payload(payload)
        if self.payload is not None:
            raise AttributeError("Frame is read-only")
        self.type = <uint8_t>frame_type
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


cdef inline int check_type(frame_type) except -1:
    cdef int overflow = 0
    cdef long value
    if not PyLong_Check(frame_type) or PyBool_Check(frame_type):
        raise EncodeError(f"frame type must be an int, not {type(frame_type).__name__}")
    value = PyLong_AsLongAndOverflow(frame_type, &overflow)
    if overflow or value < 0 or value >= TYPES:
        raise EncodeError("frame type must be from 0 to 255")
    return <int>value


cdef inline int check_payload(payload) except -1:
    if not PyBytes_CheckExact(payload):
        raise EncodeError(f"frame payload must be bytes, not {type(payload).__name__}")
    if PyBytes_GET_SIZE(payload) > PAYLOAD_LIMIT:
        raise EncodeError(
            f"frame payload of {PyBytes_GET_SIZE(payload)} bytes is over the maximum of "
            f"{PAYLOAD_LIMIT}"
        )
    return 0


cdef inline uint8_t* put_frame(uint8_t* to, int frame_type, PyObject* payload) noexcept:
    """Writes a checked frame; where the next one goes."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(<object>payload)
    cdef uint32_t length = <uint32_t>(size + 1)
    to[0] = <uint8_t>(length >> 24)
    to[1] = <uint8_t>(length >> 16)
    to[2] = <uint8_t>(length >> 8)
    to[3] = <uint8_t>length
    to[4] = <uint8_t>frame_type
    memcpy(to + HEADER, PyBytes_AS_STRING_raw(payload), <size_t>size)
    return to + HEADER + size


def encode_frame(type, payload):
    """The bytes of one frame: 5 more than `payload`.

    Raises `EncodeError` for a type outside 0..255, a payload that is not exactly `bytes`, or one
    over `MAX_PAYLOAD` (10 MiB).
    """
    cdef int frame_type = check_type(type)
    cdef bytes frame
    check_payload(payload)
    frame = PyBytes_FromStringAndSize(NULL, HEADER + PyBytes_GET_SIZE(payload))
    put_frame(<uint8_t*>PyBytes_AS_STRING(frame), frame_type, <PyObject*>payload)
    return frame


def encode_frames(frames):
    """The bytes of `(type, payload)` tuples one after another, in one buffer.

    Raises `EncodeError` as `encode_frame` does, and for an item that is not such a tuple.
    """
    # A list of our own: nobody can change it between the two walks.
    cdef list items = list(frames)
    cdef PyObject* item
    cdef Py_ssize_t i, count = len(items), size = 0
    cdef bytes out
    cdef uint8_t* to
    for i in range(count):
        item = PyList_GET_ITEM(<PyObject*>items, i)
        if not PyTuple_Check(<object>item) or PyTuple_GET_SIZE(<object>item) != 2:
            raise EncodeError("frame must be a tuple of type and payload")
        check_type(<object>PyTuple_GET_ITEM(item, 0))
        check_payload(<object>PyTuple_GET_ITEM(item, 1))
        size += HEADER + PyBytes_GET_SIZE(<object>PyTuple_GET_ITEM(item, 1))
    out = PyBytes_FromStringAndSize(NULL, size)
    to = <uint8_t*>PyBytes_AS_STRING(out)
    for i in range(count):
        item = PyList_GET_ITEM(<PyObject*>items, i)
        to = put_frame(
            to, check_type(<object>PyTuple_GET_ITEM(item, 0)), PyTuple_GET_ITEM(item, 1)
        )
    return out
