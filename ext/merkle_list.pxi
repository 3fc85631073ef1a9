# RFC 9162 lists: a byte 00 before a leaf, 01 before a node, nothing duplicated.


cdef void list_leaf(const uint8_t *data, size_t size, uint8_t *out) noexcept nogil:
    cdef mt_sha256_ctx ctx
    cdef uint8_t tag = 0
    mt_sha256_init(&ctx)
    mt_sha256_update(&ctx, &tag, 1)
    mt_sha256_update(&ctx, data, size)
    mt_sha256_final(&ctx, out)


cdef void list_node(const uint8_t *left, const uint8_t *right, uint8_t *out) noexcept nogil:
    # 65 bytes and their padding: two blocks, put together in place.
    cdef uint8_t blocks[128]
    blocks[0] = 1
    memcpy(blocks + 1, left, 32)
    memcpy(blocks + 33, right, 32)
    memset(blocks + 65, 0, 55)
    blocks[65] = 0x80
    mt_store_be64(blocks + 120, 65 * 8)
    mt_sha256_padded(blocks, 2, out)


cdef struct Fold:
    # Roots of the complete subtrees that wait for their right half, largest first.
    uint8_t roots[LEVELS][32]
    size_t held
    uint64_t count


cdef void fold_leaf(Fold *fold, const uint8_t *digest) noexcept nogil:
    # Each complete subtree is folded as soon as its right half is there: after leaf n, as many
    # times as n ends in ones.
    cdef uint64_t bits = fold.count
    memcpy(fold.roots[fold.held], digest, 32)
    while bits & 1:
        fold.held -= 1
        list_node(fold.roots[fold.held], fold.roots[fold.held + 1], fold.roots[fold.held])
        bits >>= 1
    fold.held += 1
    fold.count += 1


cdef void fold_root(Fold *fold, uint8_t *out) noexcept nogil:
    cdef size_t at = fold.held
    if at == 0:
        memset(out, 0, 32)
        return
    memcpy(out, fold.roots[at - 1], 32)
    while at > 1:
        at -= 1
        list_node(fold.roots[at - 1], out, out)


cdef bytes leaf_hashes(tuple leaves):
    # The hashes of the leaves, 32 bytes each.
    cdef size_t i
    cdef size_t count = <size_t>len(leaves)
    for leaf in leaves:
        need_bytes("leaf", leaf)
    cdef bytes hashes = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count * 32))
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(hashes)
    for i in range(count):
        leaf = leaves[i]
        list_leaf(raw(leaf), <size_t>PyBytes_GET_SIZE(leaf), out + 32 * i)
    return hashes


cdef void root_of(const uint8_t *hashes, size_t count, uint8_t *out) noexcept nogil:
    cdef Fold fold
    cdef size_t i
    fold.held = 0
    fold.count = 0
    for i in range(count):
        fold_leaf(&fold, hashes + 32 * i)
    fold_root(&fold, out)


def list_root(leaves):
    """The RFC 9162 tree hash of the leaves; 32 zero bytes for none."""
    cdef bytes hashes = leaf_hashes(tuple(leaves))
    cdef uint8_t out[32]
    root_of(raw(hashes), <size_t>PyBytes_GET_SIZE(hashes) // 32, out)
    return hash_bytes(out)


def list_proof(leaves, index):
    """The inclusion proof of `leaves[index]`: sibling hashes from the leaf up.

    IndexError outside 0 to len(leaves) - 1.
    """
    cdef bytes hashes = leaf_hashes(tuple(leaves))
    cdef const uint8_t *low = raw(hashes)
    cdef size_t count = <size_t>PyBytes_GET_SIZE(hashes) // 32
    cdef size_t at, split
    cdef uint8_t out[32]
    index = need_int("index", index)
    if not 0 <= index < count:
        raise IndexError("leaf index out of range")
    at = index
    proof = []
    while count > 1:
        split = 1
        while split * 2 < count:
            split *= 2  # the largest power of two below
        if at < split:
            root_of(low + 32 * split, count - split, out)
            count = split
        else:
            root_of(low, split, out)
            low += 32 * split
            count -= split
            at -= split
        proof.append(hash_bytes(out))
    return proof[::-1]


def verify_list_proof(root, leaf, index, count, proof):
    """Whether `leaf` is item `index` of the list of `count` items under `root`."""
    cdef uint64_t at, last
    cdef uint8_t node[32]
    need_bytes("root", root)
    need_bytes("leaf", leaf)
    index = need_int("index", index)
    count = need_int("count", count)
    cdef tuple path = tuple(proof)
    for sibling in path:
        need_bytes("proof", sibling)
    if not 0 <= index < count <= MAX_COUNT or len(root) != 32:
        return False
    for sibling in path:
        if PyBytes_GET_SIZE(sibling) != 32:
            return False
    at = index
    last = count - 1
    list_leaf(raw(leaf), <size_t>PyBytes_GET_SIZE(leaf), node)
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            list_node(raw(sibling), node, node)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            list_node(node, raw(sibling), node)
        at >>= 1
        last >>= 1
    return last == 0 and memcmp(node, raw(root), 32) == 0


cdef enum BodyFault:
    BODY_FINE, BODY_NO_LENGTH, BODY_LONG, BODY_SHORT


cdef struct Body:
    size_t item  # the one that is being read
    size_t at
    size_t length  # of the item, as declared
    BodyFault fault


cdef void fold_body(
    const uint8_t *data, size_t size, size_t count, Body *body, uint8_t *out
) noexcept nogil:
    cdef Fold fold
    cdef const uint8_t *field
    cdef uint8_t digest[32]
    fold.held = 0
    fold.count = 0
    body.at = 4
    for body.item in range(count):
        field = span(data, size, body.at, 4)
        if field == NULL:
            body.fault = BODY_NO_LENGTH
            return
        body.length = mt_load_be32(field)
        body.at += 4
        if body.length > MAX_TX:
            body.fault = BODY_LONG
            return
        field = span(data, size, body.at, body.length)
        if field == NULL:
            body.fault = BODY_SHORT
            return
        list_leaf(field, body.length, digest)
        fold_leaf(&fold, digest)
        body.at += body.length
    fold_root(&fold, out)


def body_root(body):
    """The root over the transactions of an encoded block body, and how many there are.

    A body is a `list32[bytes32]`: a u32 count, then each transaction behind its u32 length,
    at most 131,068 bytes. DecodeError if it is anything else.
    """
    need_bytes("body", body)
    cdef const uint8_t *data = raw(body)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(body)
    cdef uint64_t count
    cdef Body at
    cdef uint8_t out[32]
    if size < 4:
        raise DecodeError(f"body: needs 4 bytes at offset 0, {size} left")
    count = mt_load_be32(data)
    if count * 4 > size - 4:
        raise DecodeError(f"body: {count} items need {count * 4} bytes, {size - 4} left")
    at.fault = BODY_FINE
    with nogil:
        fold_body(data, size, <size_t>count, &at, out)
    if at.fault == BODY_NO_LENGTH:
        raise DecodeError(f"body[{at.item}]: needs 4 bytes at offset {at.at}, {size - at.at} left")
    if at.fault == BODY_LONG:
        raise DecodeError(f"body[{at.item}]: {at.length} bytes, at most {MAX_TX}")
    if at.fault == BODY_SHORT:
        raise DecodeError(
            f"body[{at.item}]: needs {at.length} bytes at offset {at.at}, {size - at.at} left"
        )
    if at.at != size:
        raise DecodeError(f"body: {size - at.at} trailing bytes")
    return hash_bytes(out), count
