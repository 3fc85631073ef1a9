# The rules that need neither state nor signatures, over a run of headers.

cdef struct Walk:
    const uint8_t *parent  # its hash
    uint64_t height
    bint slotted  # false: the parent lies before genesis, so any slot is later
    uint64_t slot
    uint64_t latest
    const uint8_t *keys  # of the validators
    size_t key_count
    const uint8_t *point  # the first checkpoint that is still ahead
    size_t points


cdef size_t walk(
    _Headers headers, size_t start, size_t stop, HeaderRules rules, Walk *at, Rule *broken
) noexcept nogil:
    # Checks headers start .. stop and gives the place of the first bad one, or stop. Everything
    # that the loop needs lies in locals: what is stored might be any of the fields otherwise.
    cdef const uint8_t *base = headers.base
    cdef const size_t *offsets = headers.offsets
    cdef const uint8_t *digest = headers.hashes + 32 * start
    cdef const uint8_t *parent = at.parent
    cdef const uint8_t *header
    cdef uint64_t gas_limit = rules.gas_limit
    cdef uint64_t genesis = rules.genesis_timestamp
    cdef uint64_t block_time = rules.block_time
    cdef uint64_t latest = at.latest
    cdef uint64_t height = at.height
    cdef bint slotted = at.slotted
    cdef uint64_t slot = at.slot
    cdef uint64_t slot_start = genesis + slot * block_time
    cdef const uint8_t *keys = at.keys
    cdef size_t key_count = at.key_count
    cdef size_t turn = slot % key_count if key_count else 0  # whose slot it is
    cdef uint64_t next_point = mt_load_be64(at.point) if at.points else 0
    cdef uint64_t timestamp, later
    cdef size_t i
    for i in range(start, stop):
        if (i - start) % CHUNK == 0:
            headers.hash_run(i, min(i + CHUNK, stop))
        header = base + offsets[i]
        if mt_load_be32(header + VERSION_AT) != VERSION:
            broken[0] = R_VERSION
            return i
        if mt_load_be64(header + GAS_LIMIT_AT) != gas_limit:
            broken[0] = R_GAS_LIMIT
            return i
        if mt_load_be64(header + GAS_USED_AT) > gas_limit:
            broken[0] = R_GAS_USED
            return i
        if height == U64_TOP or mt_load_be64(header + HEIGHT_AT) != height + 1:
            broken[0] = R_HEIGHT
            return i
        if memcmp(header + PREVIOUS_AT, parent, 32) != 0:
            broken[0] = R_PREVIOUS_HASH
            return i
        timestamp = mt_load_be64(header + TIMESTAMP_AT)
        if (
            slotted
            and timestamp >= slot_start  # else the difference wraps round
            and block_time <= timestamp - slot_start < 2 * block_time
        ):
            # The slot after the parent's, as most are: no need to divide.
            slot += 1
            slot_start += block_time
            turn += 1
            if turn == key_count:
                turn = 0
        else:
            if timestamp < genesis:
                broken[0] = R_SLOT
                return i
            later = (timestamp - genesis) // block_time
            if slotted and later <= slot:
                broken[0] = R_SLOT
                return i
            slotted = True
            slot = later
            slot_start = genesis + slot * block_time
            if key_count:
                turn = slot % key_count
        if timestamp > latest:
            broken[0] = R_FUTURE
            return i
        height += 1
        if height == next_point:
            if memcmp(at.point + 8, digest, 32) != 0:
                broken[0] = R_CHECKPOINT
                return i
            at.point += CHECKPOINT
            at.points -= 1
            next_point = mt_load_be64(at.point) if at.points else 0
        if key_count and memcmp(keys + 32 * turn, header + VALIDATOR_AT, 32) != 0:
            broken[0] = R_VALIDATOR
            return i
        parent = digest
        digest += 32
    broken[0] = R_NONE
    return stop
