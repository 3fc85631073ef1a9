# The state tree: accounts at their 32-byte keys, with counts that the root proves.

cdef enum:
    ACCOUNT = 88
    RECORD = 120  # key and account
    NODE = 80  # left hash, left count u64, right hash, right count u64
    ROW = 64  # key and leaf hash
    KEY_BITS = 256

cdef bytes ZERO = bytes(32)
cdef uint8_t NO_HASH[32]
memset(NO_HASH, 0, 32)


cdef void start_record(uint8_t *blocks) noexcept nogil:
    # 121 bytes and their padding: three blocks, all but the 120 bytes from blocks[1] on.
    blocks[0] = 0
    memset(blocks + 121, 0, 63)
    blocks[121] = 0x80
    mt_store_be64(blocks + 184, 121 * 8)


cdef void record_hash(const uint8_t *record, uint8_t *out) noexcept nogil:
    cdef uint8_t blocks[192]
    start_record(blocks)
    memcpy(blocks + 1, record, RECORD)
    mt_sha256_padded(blocks, 3, out)


cdef void start_state_node(uint8_t *blocks) noexcept nogil:
    # 81 bytes and their padding: two blocks, all but the 80 bytes from blocks[1] on.
    blocks[0] = 1
    memset(blocks + 81, 0, 39)
    blocks[81] = 0x80
    mt_store_be64(blocks + 120, 81 * 8)


cdef void node_hash(const uint8_t *node, uint8_t *out) noexcept nogil:
    cdef uint8_t blocks[128]
    start_state_node(blocks)
    memcpy(blocks + 1, node, NODE)
    mt_sha256_padded(blocks, 2, out)


cdef void pack_node(
    uint8_t *node, const uint8_t *left, uint64_t left_count, const uint8_t *right,
    uint64_t right_count
) noexcept nogil:
    memcpy(node, left, 32)
    mt_store_be64(node + 32, left_count)
    memcpy(node + 40, right, 32)
    mt_store_be64(node + 72, right_count)


cdef bint is_zero(const uint8_t *digest) noexcept nogil:
    cdef int i
    cdef uint8_t bits = 0
    for i in range(32):
        bits |= digest[i]
    return bits == 0


cdef bint is_node(const uint8_t *node) noexcept nogil:
    # Zero hash if and only if count 0; two accounts or more; a sum within 64 bits.
    cdef uint64_t left = mt_load_be64(node + 32), right = mt_load_be64(node + 72)
    return (
        is_zero(node) == (left == 0)
        and is_zero(node + 40) == (right == 0)
        and left + right >= left
        and left + right >= 2
    )


cdef inline int bit_at(const uint8_t *key, size_t level) noexcept nogil:
    return key[level >> 3] >> (7 - (level & 7)) & 1


cdef int shared_bits(const uint8_t *one, const uint8_t *other) noexcept nogil:
    # How many leading bits two keys share.
    cdef int bits = 0
    cdef uint8_t away
    while bits < KEY_BITS and one[bits >> 3] == other[bits >> 3]:
        bits += 8
    if bits == KEY_BITS:
        return bits
    away = one[bits >> 3] ^ other[bits >> 3]
    while not away & 0x80:
        away <<= 1
        bits += 1
    return bits


cdef void cut_key(uint8_t *out, const uint8_t *key, int depth) noexcept nogil:
    # The first `depth` bits of a key, zeros behind them.
    memset(out, 0, 32)
    memcpy(out, key, <size_t>(depth // 8))
    if depth % 8:
        out[depth // 8] = key[depth // 8] & <uint8_t>(0xFF00 >> (depth % 8))


cdef size_t turn(
    const uint8_t *keys, size_t stride, size_t low, size_t high, int depth
) noexcept nogil:
    # The first of low to high whose key has the bit at `depth` set.
    cdef size_t middle
    while low < high:
        middle = low + (high - low) // 2
        if bit_at(keys + middle * stride, <size_t>depth):
            high = middle
        else:
            low = middle + 1
    return low


def state_leaf(key, account):
    """The hash of a subtree with one account: key 32 bytes, account 88."""
    cdef uint8_t record[RECORD]
    cdef uint8_t out[32]
    sized("key", key, 32)
    sized("account", account, ACCOUNT)
    memcpy(record, raw(key), 32)
    memcpy(record + 32, raw(account), ACCOUNT)
    record_hash(record, out)
    return hash_bytes(out)


def state_node(left, left_count, right, right_count):
    """The hash of a subtree with two accounts or more, of its halves' hashes and counts.

    DecodeError where no such node exists: a zero hash without count 0 or the reverse, fewer
    than two accounts, a sum over 64 bits.
    """
    cdef uint8_t node[NODE]
    cdef uint8_t out[32]
    sized("left", left, 32)
    sized("right", right, 32)
    for name, count in (("left_count", left_count), ("right_count", right_count)):
        if not 0 <= need_int(name, count) <= MAX_COUNT:
            raise DecodeError(f"{name}: {count}, must be 0 to {MAX_COUNT}")
    pack_node(node, raw(left), left_count, raw(right), right_count)
    if not is_node(node):
        raise DecodeError(
            f"state node: counts {left_count} and {right_count} do not go with the hashes"
        )
    node_hash(node, out)
    return hash_bytes(out)
