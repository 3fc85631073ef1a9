# Proofs that a key of the state holds its account, or none.


def state_proof(packed, key):
    """The proof that `key` holds its account, or none, in the tree over all packed accounts.

    First the nodes (80 bytes, as in `state_nodes`) from the root down along the key's bits.
    Where they end, the subtree holds at most one account: the key's own, or nothing, or
    another one, which then follows as the last item (120 bytes, key ‖ account).
    """
    cdef size_t count = checked(packed, 0, ZERO)
    cdef const uint8_t *data = raw(packed)
    cdef const uint8_t *target
    cdef size_t low = 0, high = count, first
    cdef int depth = 0
    cdef Half others[KEY_BITS]  # the other halves on the way down
    cdef uint8_t digest[32]
    cdef uint8_t node[NODE]
    cdef uint64_t under
    sized("key", key, 32)
    target = raw(key)
    while high - low > 1:
        first = turn(data, RECORD, low, high, depth)
        if bit_at(target, <size_t>depth):
            others[depth].count = first - low
            subtree(
                data + low * RECORD, first - low, depth + 1, False, NULL, others[depth].digest)
            low = first
        else:
            others[depth].count = high - first
            subtree(
                data + first * RECORD, high - first, depth + 1, False, NULL,
                others[depth].digest)
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
        if bit_at(target, <size_t>depth):
            pack_node(node, others[depth].digest, others[depth].count, digest, under)
        else:
            pack_node(node, digest, under, others[depth].digest, others[depth].count)
        proof.append(PyBytes_FromStringAndSize(<const char *>node, NODE))
        node_hash(node, digest)
        under += others[depth].count
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
