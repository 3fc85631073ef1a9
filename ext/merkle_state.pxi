# The state tree: accounts at their 32-byte keys, with counts that the root proves.

cdef enum:
    ACCOUNT = 88
    RECORD = 120  # key and account
    NODE = 80  # left hash, left count u64, right hash, right count u64
    ROW = 64  # key and leaf hash
    KEY_BITS = 256

cdef bytes ZERO = bytes(32)


cdef void record_hash(const uint8_t *record, uint8_t *out) noexcept nogil:
    # 121 bytes and their padding: three blocks.
    cdef uint8_t blocks[192]
    blocks[0] = 0
    memcpy(blocks + 1, record, RECORD)
    memset(blocks + 121, 0, 63)
    blocks[121] = 0x80
    mt_store_be64(blocks + 184, 121 * 8)
    mt_sha256_padded(blocks, 3, out)


cdef void node_hash(const uint8_t *node, uint8_t *out) noexcept nogil:
    # 81 bytes and their padding: two blocks.
    cdef uint8_t blocks[128]
    blocks[0] = 1
    memcpy(blocks + 1, node, NODE)
    memset(blocks + 81, 0, 39)
    blocks[81] = 0x80
    mt_store_be64(blocks + 120, 81 * 8)
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


# --- subtrees --------------------------------------------------------------------------------

cdef enum KeyFault:
    KEYS_FINE, KEY_OUTSIDE, KEY_ORDER


cdef KeyFault check_keys(
    const uint8_t *packed, size_t count, int depth, const uint8_t *prefix, size_t *at
) noexcept nogil:
    # Every key under the prefix, each greater than the one before; `at` is left at the fault.
    for at[0] in range(count):
        if shared_bits(packed + at[0] * RECORD, prefix) < depth:
            return KEY_OUTSIDE
        if at[0] and memcmp(packed + at[0] * RECORD, packed + (at[0] - 1) * RECORD, 32) <= 0:
            return KEY_ORDER
    return KEYS_FINE


cdef size_t checked(packed, depth, prefix) except? <size_t>-1:
    # How many accounts are packed, once they are known to be in order and under the prefix.
    cdef size_t count, at = 0
    cdef int level, shared
    cdef const uint8_t *data
    cdef const uint8_t *under
    cdef KeyFault fault
    need_bytes("packed", packed)
    depth = need_int("depth", depth)
    if not 0 <= depth <= KEY_BITS:
        raise DecodeError(f"depth: {depth}, must be 0 to {KEY_BITS}")
    sized("prefix", prefix, 32)
    if PyBytes_GET_SIZE(packed) % RECORD:
        raise DecodeError(f"packed: {len(packed)} bytes, must be a multiple of {RECORD}")
    under = raw(prefix)
    for level in range(<int>depth, KEY_BITS):
        if bit_at(under, <size_t>level):
            raise DecodeError(f"prefix: bits beyond depth {depth} must be zero")
    count = <size_t>PyBytes_GET_SIZE(packed) // RECORD
    data = raw(packed)
    shared = depth
    with nogil:
        fault = check_keys(data, count, shared, under, &at)
    if fault == KEY_OUTSIDE:
        raise DecodeError(f"packed[{at}]: key lies outside the prefix")
    if fault == KEY_ORDER:
        raise DecodeError(f"packed[{at}]: keys must ascend strictly")
    return count


cdef struct Half:
    # A finished left half that waits for its right one.
    uint8_t digest[32]
    uint64_t count
    int depth


cdef struct Climb:
    Half stack[KEY_BITS + 1]
    int held


cdef int subtree(
    const uint8_t *accounts, size_t count, int depth, bint hashed, uint64_t threshold, void *nodes,
    uint8_t *out
) except -1 nogil:
    # The hash of the subtree at `depth` over checked accounts, left to right in one pass. They
    # are packed records or, if `hashed`, rows of key and leaf hash. After an account, everything
    # that ends with it is folded: up to where the next key turns away. Nodes with more than
    # `threshold` accounts go to the list `nodes`, unless it is NULL.
    cdef Climb climb
    cdef size_t i
    cdef size_t stride = ROW if hashed else RECORD
    cdef int shared, shared_left = depth - 1, level
    cdef const uint8_t *key
    cdef uint8_t digest[32]
    cdef uint8_t node[NODE]
    cdef uint8_t zero[32]
    cdef uint64_t under
    memset(zero, 0, 32)
    memset(out, 0, 32)
    climb.held = 0
    for i in range(count):
        key = accounts + i * stride
        shared = shared_bits(key, key + stride) if i + 1 < count else depth - 1
        if hashed:
            memcpy(digest, key + 32, 32)
        else:
            record_hash(key, digest)
        under = 1
        level = max(shared_left, shared)
        while level > shared:
            if not bit_at(key, <size_t>level):
                pack_node(node, digest, under, zero, 0)
            elif climb.held and climb.stack[climb.held - 1].depth == level + 1:
                climb.held -= 1
                pack_node(
                    node, climb.stack[climb.held].digest, climb.stack[climb.held].count,
                    digest, under)
                under += climb.stack[climb.held].count
            else:
                pack_node(node, zero, 0, digest, under)
            node_hash(node, digest)
            if nodes != NULL and under > threshold:
                keep_node(nodes, level, key, node)
            level -= 1
        memcpy(climb.stack[climb.held].digest, digest, 32)
        climb.stack[climb.held].count = under
        climb.stack[climb.held].depth = shared + 1
        climb.held += 1
        shared_left = shared
    if count:
        memcpy(out, digest, 32)
    return 0


cdef int keep_node(void *nodes, int depth, const uint8_t *key, const uint8_t *node) except -1 with gil:
    cdef uint8_t prefix[32]
    cut_key(prefix, key, depth)
    (<list>nodes).append(
        (depth, hash_bytes(prefix), PyBytes_FromStringAndSize(<const char *>node, NODE)))
    return 0


def state_subtree(packed, depth=0, prefix=ZERO):
    """(hash, count) of the subtree at `depth` (0 to 256) that holds the packed accounts.

    All keys lie under the first `depth` bits of `prefix`, whose other bits are zero.
    DecodeError if they do not, or if the accounts are not sorted.
    """
    cdef size_t count = checked(packed, depth, prefix)
    cdef const uint8_t *data = raw(packed)
    cdef int level = depth
    cdef uint8_t out[32]
    with nogil:
        subtree(data, count, level, False, 0, NULL, out)
    return hash_bytes(out), count


def state_nodes(packed, depth=0, prefix=ZERO, threshold=16):
    """Like `state_subtree`, with a list of all nodes that hold more than `threshold` accounts.

    Each is (depth, prefix 32 bytes, left ‖ left_count u64 ‖ right ‖ right_count u64); halves
    come before what they are halves of.
    """
    cdef size_t count = checked(packed, depth, prefix)
    cdef const uint8_t *data = raw(packed)
    cdef int level = depth
    cdef uint64_t over
    cdef uint8_t out[32]
    cdef list nodes = []
    threshold = need_int("threshold", threshold)
    if not 1 <= threshold <= MAX_COUNT:
        raise DecodeError(f"threshold: {threshold}, must be 1 to {MAX_COUNT}")
    over = threshold
    with nogil:
        subtree(data, count, level, False, over, <void *>nodes, out)
    return hash_bytes(out), count, nodes


# --- proofs ----------------------------------------------------------------------------------


def state_proof(packed, key):
    """The proof that `key` holds its account, or none, in the tree over all packed accounts.

    First the nodes (80 bytes, as in `state_nodes`) from the root down along the key's bits.
    Where they end, the subtree holds at most one account: the key's own, or nothing, or
    another one, which then follows as the last item (120 bytes, key ‖ account).
    """
    cdef size_t count = checked(packed, 0, ZERO)
    cdef const uint8_t *data = raw(packed)
    cdef const uint8_t *target
    cdef size_t low = 0, high = count, first, last, middle
    cdef int depth = 0
    cdef Climb other  # the other halves on the way down; `depth` is our own side
    cdef uint8_t digest[32]
    cdef uint8_t node[NODE]
    cdef uint64_t under
    sized("key", key, 32)
    target = raw(key)
    while high - low > 1:
        first = low
        last = high
        while first < last:  # the first key on the right side
            middle = first + (last - first) // 2
            if bit_at(data + middle * RECORD, <size_t>depth):
                last = middle
            else:
                first = middle + 1
        other.stack[depth].depth = bit_at(target, <size_t>depth)
        if other.stack[depth].depth:
            other.stack[depth].count = first - low
            subtree(
                data + low * RECORD, first - low, depth + 1, False, 0, NULL,
                other.stack[depth].digest)
            low = first
        else:
            other.stack[depth].count = high - first
            subtree(
                data + first * RECORD, high - first, depth + 1, False, 0, NULL,
                other.stack[depth].digest)
            high = first
        depth += 1
    proof = []
    under = high - low
    memset(digest, 0, 32)
    if under:
        record_hash(data + low * RECORD, digest)
        if memcmp(data + low * RECORD, target, 32) != 0:
            proof.append(PyBytes_FromStringAndSize(<const char *>data + low * RECORD, RECORD))
    while depth:
        depth -= 1
        if other.stack[depth].depth:
            pack_node(node, other.stack[depth].digest, other.stack[depth].count, digest, under)
        else:
            pack_node(node, digest, under, other.stack[depth].digest, other.stack[depth].count)
        proof.append(PyBytes_FromStringAndSize(<const char *>node, NODE))
        node_hash(node, digest)
        under += other.stack[depth].count
    return proof[::-1]


def verify_state_proof(root, key, account, proof):
    """Whether `key` (32 bytes) holds `account` (88 bytes), or none where `account` is None,
    in the state under `root`. The proof is as `state_proof` makes it."""
    cdef const uint8_t *target
    cdef const uint8_t *node
    cdef uint8_t digest[32]
    cdef uint8_t expected[32]
    cdef uint64_t under = 0
    cdef bint promised = False  # nothing promises the count of the root
    cdef size_t depth
    cdef list path
    sized("root", root, 32)
    sized("key", key, 32)
    if account is not None:
        sized("account", account, ACCOUNT)
    path = list(proof)
    for item in path:
        need_bytes("proof", item)
    other = path.pop() if path and PyBytes_GET_SIZE(path[-1]) == RECORD else None
    if len(path) > KEY_BITS:
        return False
    target = raw(key)
    memcpy(expected, raw(root), 32)
    for depth in range(<size_t>len(path)):
        if PyBytes_GET_SIZE(path[depth]) != NODE:
            return False
        node = raw(path[depth])
        node_hash(node, digest)
        if memcmp(digest, expected, 32) != 0 or not is_node(node):
            return False
        if promised and under != mt_load_be64(node + 32) + mt_load_be64(node + 72):
            return False
        node += 40 * bit_at(target, depth)
        memcpy(expected, node, 32)
        under = mt_load_be64(node + 32)
        promised = True
    if account is None and other is None:
        return not under and is_zero(expected)
    if promised and under != 1:
        return False
    if account is not None:
        return other is None and state_leaf(key, account) == hash_bytes(expected)
    if len(path) > shared_bits(target, raw(other)) or memcmp(target, raw(other), 32) == 0:
        return False
    record_hash(raw(other), digest)
    return memcmp(digest, expected, 32) == 0
