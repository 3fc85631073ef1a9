# Subtrees of the state over packed accounts: 120 bytes each, key and account, ascending.

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


cdef size_t counted_under(str name, data, size_t each, depth, prefix) except? <size_t>-1:
    # How many items of `each` bytes there are, once the place that they go to is known to be one.
    cdef const uint8_t *under
    cdef int level
    need_bytes(name, data)
    depth = need_int("depth", depth)
    if not 0 <= depth <= KEY_BITS:
        raise DecodeError(f"depth: {depth}, must be 0 to {KEY_BITS}")
    sized("prefix", prefix, 32)
    if PyBytes_GET_SIZE(data) % each:
        raise DecodeError(f"{name}: {len(data)} bytes, must be a multiple of {each}")
    under = raw(prefix)
    for level in range(<int>depth, KEY_BITS):
        if bit_at(under, <size_t>level):
            raise DecodeError(f"prefix: bits beyond depth {depth} must be zero")
    return <size_t>PyBytes_GET_SIZE(data) // each


cdef raise_key_fault(KeyFault fault, str name, size_t at):
    if fault == KEY_OUTSIDE:
        raise DecodeError(f"{name}[{at}]: key lies outside the prefix")
    if fault == KEY_ORDER:
        raise DecodeError(f"{name}[{at}]: keys must ascend strictly")


cdef size_t checked(packed, depth, prefix) except? <size_t>-1:
    # How many accounts are packed, once they are known to be in order and under the prefix.
    cdef size_t count = counted_under("packed", packed, RECORD, depth, prefix), at = 0
    cdef const uint8_t *data = raw(packed)
    cdef const uint8_t *under = raw(prefix)
    cdef int shared = depth
    cdef KeyFault fault
    with nogil:
        fault = check_keys(data, count, shared, under, &at)
    raise_key_fault(fault, "packed", at)
    return count


cdef uint64_t checked_threshold(threshold) except? <uint64_t>-1:
    threshold = need_int("threshold", threshold)
    if not 1 <= threshold <= MAX_COUNT:
        raise DecodeError(f"threshold: {threshold}, must be 1 to {MAX_COUNT}")
    return threshold


cdef enum:
    KEPT = 113  # depth, prefix and node


cdef struct Nodes:
    # Nodes over more than `threshold` accounts, in any order. They are not made into objects
    # until all are there: each would have to win the GIL back.
    uint8_t *kept
    size_t count
    size_t room
    uint64_t threshold


cdef int keep_node(Nodes *nodes, int depth, const uint8_t *key, const uint8_t *node) except -1 nogil:
    cdef uint8_t *to
    cdef size_t room
    if nodes.count == nodes.room:
        room = nodes.room * 2 + 64
        to = <uint8_t *>PyMem_RawRealloc(nodes.kept, room * KEPT)
        if to == NULL:
            with gil:
                raise MemoryError
        nodes.kept = to
        nodes.room = room
    to = nodes.kept + nodes.count * KEPT
    to[0] = <uint8_t>depth
    cut_key(to + 1, key, depth)
    memcpy(to + 33, node, NODE)
    nodes.count += 1
    return 0


cdef struct Half:
    # A subtree: the half of a node.
    uint8_t digest[32]
    uint64_t count


cdef enum:
    PAGE = 128  # accounts whose tree is built level by level; above that, half by half


cdef struct Item:
    # A subtree that is finished so far down.
    uint8_t digest[32]
    uint64_t count
    const uint8_t *key  # any one under it
    int gap  # bits shared with the next item; less than all depths of interest at the last


cdef struct Level:
    # Nodes of one depth, which are hashed together.
    uint8_t blocks[LANES * 128]
    uint8_t *out[LANES]
    size_t held


cdef void hash_level(Level *level) noexcept nogil:
    cdef uint8_t digests[LANES * 32]
    cdef size_t i
    mt_sha256_padded_run(level.blocks, level.held, 2, digests)
    for i in range(level.held):
        memcpy(level.out[i], digests + 32 * i, 32)
    level.held = 0


cdef void hash_records(const uint8_t *packed, size_t count, Item *items) noexcept nogil:
    cdef uint8_t blocks[LANES * 192]
    cdef uint8_t digests[LANES * 32]
    cdef size_t done = 0, some = min(count, <size_t>LANES), i
    for i in range(some):
        start_record(blocks + 192 * i)
    while done < count:
        some = min(count - done, <size_t>LANES)
        for i in range(some):
            memcpy(blocks + 192 * i + 1, packed + (done + i) * RECORD, RECORD)
        mt_sha256_padded_run(blocks, some, 3, digests)
        for i in range(some):
            memcpy(items[done + i].digest, digests + 32 * i, 32)
        done += some


cdef int page(
    const uint8_t *accounts, size_t count, int depth, bint hashed, Nodes *nodes,
    uint8_t *out
) except -1 nogil:
    # As `subtree`, for 1 to PAGE accounts: first the leaves, then the nodes of each depth.
    cdef Item items[PAGE]
    cdef Level level
    cdef Item *item
    cdef Item *to
    cdef uint8_t *node
    cdef size_t stride = ROW if hashed else RECORD
    cdef size_t i
    cdef int deepest = depth - 1, at
    level.held = 0
    for i in range(count):
        item = &items[i]
        item.key = accounts + i * stride
        item.count = 1
        item.gap = shared_bits(item.key, item.key + stride) if i + 1 < count else depth - 1
        deepest = max(deepest, item.gap)
        if hashed:
            memcpy(item.digest, item.key + 32, 32)
    if not hashed:
        hash_records(accounts, count, items)
    for at in range(deepest, depth - 1, -1):
        item = to = items
        while item < items + count:
            if item.gap != at and item.count == 1:  # an account alone is a leaf at any depth
                to[0] = item[0]
                item += 1
                to += 1
                continue
            if level.held == LANES:
                hash_level(&level)
            node = level.blocks + 128 * level.held
            start_state_node(node)
            level.out[level.held] = to.digest
            level.held += 1
            if item.gap == at:
                pack_node(node + 1, item.digest, item.count, item[1].digest, item[1].count)
                item[1].count += item.count
                item += 1
            elif bit_at(item.key, <size_t>at):
                pack_node(node + 1, NO_HASH, 0, item.digest, item.count)
            else:
                pack_node(node + 1, item.digest, item.count, NO_HASH, 0)
            if nodes != NULL and item.count > nodes.threshold:
                keep_node(nodes, at, item.key, node + 1)
            to.count = item.count
            to.key = item.key
            to.gap = item.gap
            item += 1
            to += 1
        hash_level(&level)
        count = <size_t>(to - items)
    memcpy(out, items[0].digest, 32)
    return 0


cdef int subtree(
    const uint8_t *accounts, size_t count, int depth, bint hashed, Nodes *nodes, uint8_t *out
) except -1 nogil:
    # The hash of the subtree at `depth` over checked accounts: packed records or, if `hashed`,
    # rows of key and leaf hash. Large nodes go to `nodes`, unless it is NULL.
    cdef uint8_t node[NODE]
    cdef size_t stride = ROW if hashed else RECORD
    cdef size_t split
    if count == 0:
        memset(out, 0, 32)
        return 0
    if count <= PAGE:
        return page(accounts, count, depth, hashed, nodes, out)
    split = turn(accounts, stride, 0, count, depth)
    subtree(accounts, split, depth + 1, hashed, nodes, node)
    subtree(accounts + split * stride, count - split, depth + 1, hashed, nodes, node + 40)
    mt_store_be64(node + 32, split)
    mt_store_be64(node + 72, count - split)
    if nodes != NULL and count > nodes.threshold:
        keep_node(nodes, depth, accounts, node)
    node_hash(node, out)
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
    if count * RECORD < BRIEF:
        subtree(data, count, level, False, NULL, out)
    else:
        with nogil:
            subtree(data, count, level, False, NULL, out)
    return hash_bytes(out), count


def last_under(node):
    # Sorts halves before what they are halves of: by the last key under a node, deepest first.
    depth, prefix, _ = node
    return int.from_bytes(prefix, "big") + (1 << KEY_BITS - depth), -depth


def state_nodes(packed, depth=0, prefix=ZERO, threshold=16):
    """Like `state_subtree`, with a list of all nodes that hold more than `threshold` accounts.

    Each is (depth, prefix 32 bytes, left ‖ left_count u64 ‖ right ‖ right_count u64); halves
    come before what they are halves of.
    """
    cdef size_t count = checked(packed, depth, prefix), i
    cdef const uint8_t *data = raw(packed)
    cdef const uint8_t *kept
    cdef int level = depth
    cdef uint8_t out[32]
    cdef Nodes nodes
    memset(&nodes, 0, sizeof(nodes))
    nodes.threshold = checked_threshold(threshold)
    made = []
    try:
        with nogil:
            subtree(data, count, level, False, &nodes, out)
        for i in range(nodes.count):
            kept = nodes.kept + i * KEPT
            made.append((
                kept[0], hash_bytes(kept + 1),
                PyBytes_FromStringAndSize(<const char *>kept + 33, NODE)))
    finally:
        PyMem_RawFree(nodes.kept)
    made.sort(key=last_under)
    return hash_bytes(out), count, made
