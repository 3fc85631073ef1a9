# The bytes of a batch: where its headers lie, and the hashes known so far.

cdef extern from *:
    """
    /* A hash is published by its flag: whoever sees the flag sees the bytes, also from a thread
     * that checks the same headers at the same time and writes the same values. */
    #if defined(__GNUC__) || defined(__clang__)
    #define mt_prefetch(at) __builtin_prefetch(at)
    static inline int mt_is_known(const uint8_t *flag)
    {
        return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
    }
    static inline void mt_set_known(uint8_t *flag)
    {
        __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
    }
    #else
    #include <windows.h>
    #define mt_prefetch(at) ((void)(at)) /* a hint, no more */
    static inline int mt_is_known(const uint8_t *flag)
    {
        int known = *(const volatile uint8_t *)flag;
        MemoryBarrier();
        return known;
    }
    static inline void mt_set_known(uint8_t *flag)
    {
        MemoryBarrier();
        *(volatile uint8_t *)flag = 1;
    }
    #endif
    """
    void mt_prefetch(const uint8_t *at) noexcept nogil
    bint mt_is_known(const uint8_t *flag) noexcept nogil
    void mt_set_known(uint8_t *flag) noexcept nogil


cdef size_t header_end(const uint8_t *data, size_t size, size_t at) noexcept nogil:
    # Where the header at `at` ends, or 0 if it is malformed.
    cdef const uint8_t *header = span(data, size, at, MIN_SIZE)
    cdef size_t extra
    if header == NULL:
        return 0
    extra = header[EXTRA_SIZE_AT]
    if extra > MAX_EXTRA or span(data, size, at, MIN_SIZE + extra) == NULL:
        return 0
    return at + MIN_SIZE + extra


cdef void sign_digest(
    const uint8_t *header, const uint8_t *tag, size_t tag_size, uint8_t *out
) noexcept nogil:
    # What the signature of a header signs, 32 bytes.
    cdef mt_sha256_ctx ctx
    mt_sha256_init(&ctx)
    mt_sha256_update(&ctx, tag, tag_size)
    mt_sha256_update(&ctx, header, FIXED + <size_t>header[EXTRA_SIZE_AT])
    mt_sha256_final(&ctx, out)


cdef malformed(const uint8_t *data, size_t size, size_t at, size_t i):
    # The error for a header of which header_end says 0.
    cdef size_t left = size - at
    cdef size_t extra
    if left < MIN_SIZE:
        return DecodeError(f"HeaderBatch[{i}]: needs {MIN_SIZE} bytes at offset {at}, {left} left")
    extra = data[at + EXTRA_SIZE_AT]
    if extra > MAX_EXTRA:
        return DecodeError(f"HeaderBatch[{i}].extra_data: {extra} bytes, at most {MAX_EXTRA}")
    return DecodeError(
        f"HeaderBatch[{i}]: needs {MIN_SIZE + extra} bytes at offset {at}, {left} left"
    )


@cython.final
@cython.no_gc
cdef class _Headers:
    # The bytes of a batch, where each header starts, and the hashes known so far; shared by all
    # slices. `base` stays valid because `data` is held and immutable.
    cdef bytes data
    cdef const uint8_t *base
    cdef size_t size
    cdef size_t *offsets  # one more than there are headers: the end of the last
    cdef uint8_t *hashes
    cdef uint8_t *known
    cdef size_t count

    def __dealloc__(self):
        PyMem_Free(self.offsets)
        PyMem_Free(self.hashes)
        PyMem_Free(self.known)

    cdef int reserve(self, size_t start, size_t most) except -1:
        # Room for `most` headers, a number that the caller took from the bytes that are there.
        self.base = <const uint8_t *>PyBytes_AS_STRING(self.data)
        self.size = <size_t>PyBytes_GET_SIZE(self.data)
        self.offsets = <size_t *>PyMem_Malloc((most + 1) * sizeof(size_t))
        self.hashes = <uint8_t *>PyMem_Malloc(most * 32)
        self.known = <uint8_t *>PyMem_Calloc(most, 1)
        if self.offsets == NULL or self.hashes == NULL or self.known == NULL:
            raise MemoryError
        self.offsets[0] = start
        return 0

    cdef void read(self, size_t most) noexcept nogil:
        # Finds up to `most` headers, fewer if one is malformed. Where one starts depends on the
        # size of the one before, so without asking ahead each would wait for memory by itself.
        cdef size_t count = 0
        cdef size_t at = self.offsets[0]
        cdef size_t ahead = at
        while count < most:
            while ahead < at + PREFETCH and ahead < self.size:
                mt_prefetch(self.base + ahead)
                ahead += 64
            at = header_end(self.base, self.size, at)
            if at == 0:
                break
            count += 1
            self.offsets[count] = at
        self.count = count

    cdef malformed(self):
        # The error for the header after the last one found.
        return malformed(self.base, self.size, self.offsets[self.count], self.count)

    cdef void hash_run(self, size_t start, size_t stop) noexcept nogil:
        # Makes the hashes of start .. stop known, each once.
        cdef size_t end, i
        while start < stop:
            if mt_is_known(self.known + start):
                start += 1
                continue
            end = start + 1
            while end < stop and not mt_is_known(self.known + end):
                end += 1
            mt_sha256_run(
                self.base, self.offsets + start, end - start, BLOCKS, self.hashes + 32 * start)
            for i in range(start, end):
                mt_set_known(self.known + i)
            start = end


cdef _Headers read_list(data):
    need_bytes(data)
    cdef _Headers headers = _Headers.__new__(_Headers)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
    cdef const uint8_t *base = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef size_t count
    if size < 2:
        raise DecodeError(f"HeaderBatch: needs 2 bytes at offset 0, {size} left")
    count = <size_t>base[0] << 8 | base[1]
    if count * MIN_SIZE > size - 2:
        raise DecodeError(
            f"HeaderBatch: {count} items need {count * MIN_SIZE} bytes, {size - 2} left"
        )
    headers.data = data
    headers.reserve(2, count)
    headers.read(count)
    if headers.count != count:
        raise headers.malformed()
    if headers.offsets[count] != size:
        raise DecodeError(f"HeaderBatch: {size - headers.offsets[count]} trailing bytes")
    return headers


cdef _Headers NO_HEADERS = read_list(b"\0\0")
