# cython: binding=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Frames on a byte stream: `[length u32][type u8][payload]`, length = 1 + payload bytes.

The compiled twin of `moderntensor/_pure/framing.py`: the same results, the same errors.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from moderntensor.errors import EncodeError, FrameError

cdef extern from "Python.h":
    # Borrowed references, so that a walk over a list costs no counting.
    bint PyTuple_Check(PyObject*)
    Py_ssize_t PyTuple_GET_SIZE(PyObject*)
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    Py_ssize_t PyList_GET_SIZE(list)
    Py_ssize_t PySequence_Fast_GET_SIZE(object)
    PyObject** PySequence_Fast_ITEMS(object)
    bint PyBytes_CheckExact(PyObject*)
    Py_ssize_t PyBytes_GET_SIZE(PyObject*)
    char* PyBytes_AS_STRING(PyObject*)
    PyObject* PyBytes_FromStringAndSize_raw "PyBytes_FromStringAndSize"(
        const char*, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject**, Py_ssize_t) except -1
    Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "ints.h":
    int mt_as_byte(PyObject*) noexcept
    void mt_store(unsigned char*, int, uint64_t) noexcept

__all__ = [
    "DEFAULT_BUFFER_SIZE",
    "HEADER_SIZE",
    "MAX_PAYLOAD",
    "Frame",
    "FrameDecoder",
    "encode_frame",
    "encode_frames",
]

HEADER_SIZE = 5
MAX_PAYLOAD = 10 * 1024 * 1024  # the protocol: no cap exceeds 10 MiB
DEFAULT_BUFFER_SIZE = 256 * 1024  # one read; a secure record is at most this long

cdef enum:
    HEADER = 5
    LENGTH = 4
    TYPES = 256
    PAYLOAD_LIMIT = 10 * 1024 * 1024
    BUFFER_LIMIT = 16 * 1024 * 1024
    # What an admitted frame may take before its bytes are there.
    FIRST_ALLOCATION = 1024

include "frame.pxi"


@cython.final
cdef class FrameDecoder:
    """Turns a byte stream, however it is split, into frames.

    `caps` maps each admitted type to its payload cap in bytes (at most `MAX_PAYLOAD`); a type that
    is absent is not admitted. The cap is looked up once, when the fifth byte of a frame is there:
    over it nothing more is kept. A frame within it is collected into memory that grows as its
    bytes arrive.

    Bad bytes do not raise from the call that meets them: that call returns the frames before them
    and sets `error`; every later call raises that error.

    After a frame of type `pause_after` decoding pauses, once: what follows is kept unread, up to
    `buffer_size` bytes, until `resume()`. So caps can be changed before what is glued behind.

    `frames_left` counts down with every frame (below 0: it does not). At 0 decoding pauses as soon
    as more bytes are there; at most twice `buffer_size` are then kept, as one read may complete
    what an earlier one began. So no stream takes the loop for long.
    """

    cdef uint32_t _limits[TYPES]  # greatest length field admitted: cap + 1; 0: not admitted
    cdef Py_ssize_t _buffer_size
    cdef object _view  # of the read buffer; made when a socket first asks
    cdef uint8_t _header[HEADER]
    cdef int _header_size  # bytes of a frame that is not admitted yet; less than 5
    cdef uint8_t _type
    cdef PyObject* _payload  # a bytes object that nobody else has seen, or NULL
    cdef Py_ssize_t _payload_size  # how much of it is filled
    cdef Py_ssize_t _payload_room
    cdef Py_ssize_t _expected
    cdef bytearray _held
    cdef Py_ssize_t _hold_limit
    cdef bint _paused
    cdef object _error
    cdef uint64_t _frames_decoded
    cdef uint64_t _bytes_decoded
    cdef public int pause_after
    cdef public int frames_left

    def __cinit__(self, caps, *, buffer_size=256 * 1024, pause_after=-1):
        """Raises ValueError for a cap over `MAX_PAYLOAD`, a type outside 0..255, or a
        `buffer_size` outside 1 byte to 16 MiB."""
        if not 1 <= buffer_size <= BUFFER_LIMIT:
            raise ValueError(f"buffer_size must be from 1 to {BUFFER_LIMIT}")
        self._buffer_size = buffer_size
        self._held = bytearray()
        self._hold_limit = buffer_size
        self.pause_after = pause_after
        self.frames_left = -1
        for frame_type, cap in caps.items():
            self.set_cap(frame_type, cap)

    def __dealloc__(self):
        Py_XDECREF(self._payload)

    # --- caps ------------------------------------------------------------------------------

    def set_cap(self, type, cap):
        """Admit frames of `type` with up to `cap` payload bytes, or none (None), from now on.

        A frame whose header was admitted before is still read to its end. Raises ValueError for a
        type outside 0..255 or a cap outside 0..`MAX_PAYLOAD`.
        """
        if not 0 <= type < TYPES:
            raise ValueError("frame type must be from 0 to 255")
        if cap is None:
            self._limits[<uint8_t>type] = 0
            return
        if not 0 <= cap <= PAYLOAD_LIMIT:
            raise ValueError(f"cap must be from 0 to {PAYLOAD_LIMIT} bytes")
        self._limits[<uint8_t>type] = <uint32_t>cap + 1

    def cap(self, type):
        """The payload cap of `type` in bytes, or None if it is not admitted."""
        if not 0 <= type < TYPES:
            raise ValueError("frame type must be from 0 to 255")
        cdef uint32_t limit = self._limits[<uint8_t>type]
        return None if limit == 0 else limit - 1

    # --- bytes in, frames out --------------------------------------------------------------

    def get_buffer(self, sizehint):
        """The decoder's own read buffer, `buffer_size` bytes, for `asyncio.BufferedProtocol`.

        It is valid as long as the decoder lives and is overwritten by the next read; `sizehint`
        is not used.
        """
        if self._view is None:
            self._view = memoryview(PyByteArray_FromStringAndSize(NULL, self._buffer_size))
        return self._view

    def buffer_updated(self, Py_ssize_t n):
        """The frames completed by the first `n` bytes of the read buffer.

        Raises the `FrameError` that an earlier call met; ValueError if `n` is not within the
        buffer.
        """
        cdef Py_buffer buffer
        if self._error is not None:
            raise self._error.with_traceback(None)
        # Whoever was given the view may have released it, and with it the memory.
        PyObject_GetBuffer(NO_VIEW if self._view is None else self._view, &buffer, PyBUF_SIMPLE)
        try:
            if n < 0 or n > buffer.len:
                raise ValueError("more bytes than the read buffer holds")
            return self._take(<uint8_t*>buffer.buf, n)
        finally:
            PyBuffer_Release(&buffer)

    def feed(self, data):
        """The frames completed by `data`, of any length. Raises as `buffer_updated` does."""
        cdef Py_buffer buffer
        if self._error is not None:
            raise self._error.with_traceback(None)
        if PyBytes_CheckExact(<PyObject*>data):
            return self._take(
                <uint8_t*>PyBytes_AS_STRING(<PyObject*>data), PyBytes_GET_SIZE(<PyObject*>data)
            )
        view = memoryview(data)
        if not view.c_contiguous:
            return self.feed(bytes(view))
        PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
        try:
            return self._take(<uint8_t*>buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)

    def resume(self):
        """Go on after a pause: the frames in what was kept unread. Raises as `feed` does."""
        cdef bytearray held
        if self._error is not None:
            raise self._error.with_traceback(None)
        if not self._paused:
            return []
        self._paused = False
        held, self._held = self._held, bytearray()
        return self._take(<uint8_t*>PyByteArray_AS_STRING(held), len(held))

    cdef list _take(self, const uint8_t* data, Py_ssize_t size):
        cdef list frames = []
        cdef const uint8_t* end
        cdef Py_ssize_t wanted
        cdef Py_ssize_t most = self.frames_left if self.frames_left >= 0 else PY_SSIZE_T_MAX
        if size == 0:
            return frames  # there may be no address either
        end = data + size
        while self._error is None:
            if PyList_GET_SIZE(frames) >= most and not self._paused and data < end:
                self._paused = True
                self._hold_limit = 2 * self._buffer_size
            if self._paused:
                self._hold(data, end - data)
                break
            if self._payload != NULL:
                data += self._collect(data, end - data)
                if self._payload_size < self._expected:
                    break
                self._emit_collected(frames)
            elif self._header_size or end - data < HEADER:
                wanted = min(HEADER - self._header_size, end - data)
                memcpy(self._header + self._header_size, data, <size_t>wanted)
                self._header_size += <int>wanted
                data += wanted
                if self._header_size < HEADER:
                    if self._header_size == LENGTH and length_of(self._header) == 0:
                        self._fail(FrameError("empty"))
                    break
                self._header_size = 0
                self._admit(frames, length_of(self._header), self._header[LENGTH])
            else:
                data = self._take_whole(data, end, frames, most)
        if self.frames_left > 0:
            self.frames_left -= <int>PyList_GET_SIZE(frames)
        return frames

    cdef const uint8_t* _take_whole(
        self, const uint8_t* data, const uint8_t* end, list frames, Py_ssize_t most
    ) except NULL:
        """Frames that lie whole between `data` and `end`; where to go on after them."""
        cdef const uint32_t* limits = self._limits
        cdef const uint8_t* start = data
        cdef int pause_after = self.pause_after
        cdef uint64_t count = 0
        cdef uint32_t size
        cdef uint8_t frame_type
        while end - data >= HEADER:
            size = length_of(data) - 1  # length 0 wraps to what no limit admits
            frame_type = data[LENGTH]
            if size >= limits[frame_type] or end - data - HEADER < <Py_ssize_t>size:
                self._frames_decoded += count
                self._bytes_decoded += <uint64_t>(data - start)
                self._admit(frames, size + 1, frame_type)
                return data + HEADER
            if size == 0:
                frames.append(<object>PyTuple_GET_ITEM(<PyObject*>EMPTY_FRAMES, frame_type))
            else:
                frames.append(
                    new_frame(frame_type, PyBytes_FromStringAndSize(<char*>data + HEADER, size))
                )
            count += 1
            data += HEADER + <Py_ssize_t>size
            if frame_type == pause_after:
                self.pause_after = -1
                self._paused = True
                self._hold_limit = self._buffer_size
                break
            if PyList_GET_SIZE(frames) >= most:
                break
        self._frames_decoded += count
        self._bytes_decoded += <uint64_t>(data - start)
        return data

    cdef int _admit(self, list frames, uint32_t length, uint8_t frame_type) except -1:
        """Judge a frame by its five bytes: collect its payload, or fail."""
        cdef uint32_t limit = self._limits[frame_type]
        if length == 0:
            self._fail(FrameError("empty"))
        elif limit == 0:
            self._fail(FrameError("unknown", frame_type, length - 1, 0))
        elif length > limit:
            self._fail(FrameError("too-large", frame_type, length - 1, limit - 1))
        else:
            self._type = frame_type
            self._expected = length - 1
            self._payload_size = 0
            self._payload_room = min(self._expected, FIRST_ALLOCATION)
            if self._expected == 0:
                self._emit(frames, <object>PyTuple_GET_ITEM(<PyObject*>EMPTY_FRAMES, frame_type))
            else:
                self._payload = PyBytes_FromStringAndSize_raw(NULL, self._payload_room)
        return 0

    cdef Py_ssize_t _collect(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Add to the unfinished payload what is there of it; how many bytes were taken."""
        cdef Py_ssize_t taken = min(size, self._expected - self._payload_size)
        cdef Py_ssize_t needed = self._payload_size + taken
        if needed > self._payload_room:
            self._payload_room = min(self._expected, 2 * needed)
            try:
                _PyBytes_Resize(&self._payload, self._payload_room)
            except MemoryError:
                # Bytes of the stream are lost: it must not be read on.
                self._fail(FrameError("too-large", self._type, self._expected, needed))
                raise
        memcpy(PyBytes_AS_STRING(self._payload) + self._payload_size, data, <size_t>taken)
        self._payload_size = needed
        return taken

    cdef int _emit_collected(self, list frames) except -1:
        # The room never exceeds what is expected, so a full payload has exactly its size.
        cdef bytes payload = <bytes>self._payload
        Py_XDECREF(self._payload)
        self._payload = NULL
        self._emit(frames, new_frame(self._type, payload))
        return 0

    cdef int _emit(self, list frames, Frame frame) except -1:
        frames.append(frame)
        self._frames_decoded += 1
        self._bytes_decoded += <uint64_t>(HEADER + self._expected)
        self._expected = 0
        if frame.type == self.pause_after:
            self.pause_after = -1
            self._paused = True
            self._hold_limit = self._buffer_size
        return 0

    cdef int _hold(self, const uint8_t* data, Py_ssize_t size) except -1:
        if len(self._held) + size > self._hold_limit:
            # How far over it went depends on the split of the stream; that it did, does not.
            self._fail(FrameError("too-large", 0, self._hold_limit + 1, self._hold_limit))
        else:
            self._held += PyBytes_FromStringAndSize(<char*>data, size)
        return 0

    cdef int _fail(self, error) except -1:
        self._error = error
        self.discard()
        return 0

    def discard(self):
        """Free what is held of an unfinished frame and behind a pause: the stream has ended."""
        self._header_size = 0
        self._expected = 0
        Py_XDECREF(self._payload)
        self._payload = NULL
        self._held = bytearray()

    # --- what it holds and did -------------------------------------------------------------

    @property
    def error(self):
        """What made the stream unreadable, or None."""
        return self._error

    @property
    def paused(self):
        """Whether decoding waits for `resume()`."""
        return self._paused

    @property
    def pending(self):
        """Bytes that are held of an unfinished frame, its header included."""
        if self._payload != NULL:
            return HEADER + self._payload_size
        return self._header_size

    @property
    def held(self):
        """Bytes kept unread because decoding is paused."""
        return len(self._held)

    @property
    def expected(self):
        """Payload bytes that the unfinished frame announced; 0 while that is not known."""
        return self._expected

    @property
    def frames_decoded(self):
        """Frames returned so far."""
        return self._frames_decoded

    @property
    def bytes_decoded(self):
        """Bytes of the frames returned so far, headers included."""
        return self._bytes_decoded


cdef inline uint32_t length_of(const uint8_t* header) noexcept:
    return (
        (<uint32_t>header[0] << 24)
        | (<uint32_t>header[1] << 16)
        | (<uint32_t>header[2] << 8)
        | <uint32_t>header[3]
    )
