# RFC 9162 lists: a byte 00 before a leaf, 01 before a node, nothing duplicated.
#
# Hashes that do not need each other are computed together: `mt_sha256_padded_run` does several at
# once where the processor can. Levels of a tree follow each other in the same memory.

cdef enum:
    LANES = 16  # messages put together for one run
    LEAF_BLOCKS = 4  # leaves that fill more are hashed where they lie, one by one
    CHUNK = 256  # leaves, a power of two: a whole subtree of the list
    SIGNATURE = 65  # v, r, s: the end of every transaction
    RECOVERY = 97  # of `signatures.recover_many`: a message and a signature


cdef void list_leaf(const uint8_t *data, size_t size, uint8_t *out) noexcept nogil:
    cdef mt_sha256_ctx ctx
    cdef uint8_t tag = 0
    mt_sha256_init(&ctx)
    mt_sha256_update(&ctx, &tag, 1)
    mt_sha256_update(&ctx, data, size)
    mt_sha256_final(&ctx, out)


cdef void start_node(uint8_t *blocks) noexcept nogil:
    # Two blocks for a list's node, all but the 64 bytes from blocks[1] on.
    memset(blocks, 0, 128)
    blocks[0] = 1
    blocks[65] = 0x80
    mt_store_be64(blocks + 120, 65 * 8)


cdef void list_node(const uint8_t *left, const uint8_t *right, uint8_t *out) noexcept nogil:
    cdef uint8_t blocks[128]
    start_node(blocks)
    memcpy(blocks + 1, left, 32)
    memcpy(blocks + 33, right, 32)
    mt_sha256_padded(blocks, 2, out)


cdef size_t next_level(uint8_t *hashes, size_t count) noexcept nogil:
    # Puts the nodes over `count` hashes in their place; how many there are.
    cdef uint8_t blocks[LANES * 128]
    cdef size_t pairs = count // 2, done = 0, some, i
    some = min(pairs, <size_t>LANES)
    for i in range(some):
        start_node(blocks + 128 * i)
    while done < pairs:
        some = min(pairs - done, <size_t>LANES)
        for i in range(some):
            memcpy(blocks + 128 * i + 1, hashes + 64 * (done + i), 64)
        mt_sha256_padded_run(blocks, some, 2, hashes + 32 * done)
        done += some
    if count % 2:
        memmove(hashes + 32 * pairs, hashes + 32 * (count - 1), 32)
    return pairs + count % 2


cdef struct ListHash:
    # A list in the middle of being hashed.
    uint8_t blocks[LANES * LEAF_BLOCKS * 64]  # leaves that wait to be hashed together
    size_t waiting
    size_t each  # their blocks
    uint8_t hashes[CHUNK * 32]  # of the leaves of this chunk
    size_t held  # the waiting ones included
    uint8_t roots[LEVELS][32]  # of complete subtrees of chunks, largest first
    size_t complete
    uint64_t chunks


cdef void start_list(ListHash *list_) noexcept nogil:
    list_.waiting = list_.each = list_.held = list_.complete = 0
    list_.chunks = 0


cdef void hash_waiting(ListHash *list_) noexcept nogil:
    if list_.waiting:
        mt_sha256_padded_run(
            list_.blocks, list_.waiting, list_.each,
            list_.hashes + 32 * (list_.held - list_.waiting))
        list_.waiting = 0


cdef void fold_chunk(ListHash *list_) noexcept nogil:
    # The chunk becomes its root. Each complete subtree is folded as soon as its right half is
    # there: after chunk n, as many times as n ends in ones.
    cdef size_t count = list_.held
    cdef uint64_t bits = list_.chunks
    hash_waiting(list_)
    while count > 1:
        count = next_level(list_.hashes, count)
    memcpy(list_.roots[list_.complete], list_.hashes, 32)
    list_.held = 0
    while bits & 1:
        list_.complete -= 1
        list_node(
            list_.roots[list_.complete], list_.roots[list_.complete + 1],
            list_.roots[list_.complete])
        bits >>= 1
    list_.complete += 1
    list_.chunks += 1


cdef void add_leaf(ListHash *list_, const uint8_t *data, size_t size) noexcept nogil:
    cdef size_t blocks = (1 + size + 8) // 64 + 1  # the tag before it; 80 and its length behind
    cdef uint8_t *at
    if list_.held == CHUNK:
        fold_chunk(list_)
    if list_.waiting == LANES or blocks != list_.each:
        hash_waiting(list_)
        list_.each = blocks
    if blocks > LEAF_BLOCKS:
        list_leaf(data, size, list_.hashes + 32 * list_.held)
    else:
        at = list_.blocks + list_.waiting * blocks * 64
        at[0] = 0
        memcpy(at + 1, data, size)
        at[1 + size] = 0x80
        memset(at + 2 + size, 0, blocks * 64 - size - 10)
        mt_store_be64(at + blocks * 64 - 8, (1 + size) * 8)
        list_.waiting += 1
    list_.held += 1


cdef void finish_list(ListHash *list_, uint8_t *out) noexcept nogil:
    # A last chunk that is not full is the right half of the smallest complete subtree, and so on.
    cdef size_t at
    if list_.held:
        list_.chunks = 0  # nothing is complete with it
        fold_chunk(list_)
    at = list_.complete
    if at == 0:
        memset(out, 0, 32)
        return
    memcpy(out, list_.roots[at - 1], 32)
    while at > 1:
        at -= 1
        list_node(list_.roots[at - 1], out, out)


cdef tuple checked_leaves(leaves):
    cdef tuple found = tuple(leaves)
    for leaf in found:
        need_bytes("leaf", leaf)
    return found


def list_root(leaves):
    """The RFC 9162 tree hash of the leaves; 32 zero bytes for none."""
    cdef ListHash list_
    cdef uint8_t out[32]
    start_list(&list_)
    for leaf in checked_leaves(leaves):
        add_leaf(&list_, raw(leaf), <size_t>PyBytes_GET_SIZE(leaf))
    finish_list(&list_, out)
    return hash_bytes(out)


def list_proof(leaves, index):
    """The inclusion proof of `leaves[index]`: sibling hashes from the leaf up.

    IndexError outside 0 to len(leaves) - 1.
    """
    cdef tuple found = checked_leaves(leaves)
    cdef size_t count = <size_t>len(found), at, i
    cdef bytearray room = bytearray(32 * len(found))
    cdef uint8_t *hashes = <uint8_t *>PyByteArray_AS_STRING(room)
    for i in range(count):
        leaf = found[i]
        list_leaf(raw(leaf), <size_t>PyBytes_GET_SIZE(leaf), hashes + 32 * i)
    index = need_int("index", index)
    if not 0 <= index < count:
        raise IndexError("leaf index out of range")
    at = index
    proof = []
    while count > 1:
        if at ^ 1 < count:  # else it moves up as it is
            proof.append(hash_bytes(hashes + 32 * (at ^ 1)))
        at //= 2
        count = next_level(hashes, count)
    return proof


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
    BODY_FINE, BODY_NO_LENGTH, BODY_LONG, BODY_SHORT, BODY_UNSIGNED


cdef struct Body:
    size_t item  # the one that is being read
    size_t at
    size_t length  # of the item, as declared
    BodyFault fault


cdef void open_body(Body *body) noexcept nogil:
    body.item = body.length = 0
    body.at = 4
    body.fault = BODY_FINE


cdef const uint8_t *next_item(const uint8_t *data, size_t size, Body *body) noexcept nogil:
    # The item at `body.at`, which goes behind it; NULL and a fault if there is none.
    cdef const uint8_t *field = span(data, size, body.at, 4)
    if field == NULL:
        body.fault = BODY_NO_LENGTH
        return NULL
    body.length = mt_load_be32(field)
    body.at += 4
    if body.length > MAX_TX:
        body.fault = BODY_LONG
        return NULL
    field = span(data, size, body.at, body.length)
    if field == NULL:
        body.fault = BODY_SHORT
        return NULL
    body.at += body.length
    return field


cdef void fold_body(
    const uint8_t *data, size_t size, size_t count, Body *body, uint8_t *out
) noexcept nogil:
    cdef ListHash list_
    cdef const uint8_t *item
    start_list(&list_)
    open_body(body)
    for body.item in range(count):
        item = next_item(data, size, body)
        if item == NULL:
            return
        add_leaf(&list_, item, body.length)
    finish_list(&list_, out)


cdef void tagged(
    const uint8_t *domain, size_t domain_size, const uint8_t *data, size_t size, uint8_t *out
) noexcept nogil:
    cdef mt_sha256_ctx ctx
    mt_sha256_init(&ctx)
    mt_sha256_update(&ctx, domain, domain_size)
    mt_sha256_update(&ctx, data, size)
    mt_sha256_final(&ctx, out)


cdef int digest_body(
    const uint8_t *data, size_t size, size_t count, Body *body, bytes id_domain,
    bytes signing_domain, uint8_t *ids, uint8_t *items
) except -1:
    cdef const uint8_t *item
    cdef size_t signed
    open_body(body)
    for body.item in range(count):
        item = next_item(data, size, body)
        if item == NULL:
            return 0
        if body.length < SIGNATURE:
            body.fault = BODY_UNSIGNED
            return 0
        signed = body.length - SIGNATURE
        tagged(raw(id_domain), <size_t>len(id_domain), item, body.length, ids)
        tagged(raw(signing_domain), <size_t>len(signing_domain), item, signed, items)
        memcpy(items + 32, item + signed, SIGNATURE)
        ids += 32
        items += RECOVERY
    return 0


cdef uint64_t counted(body) except? <uint64_t>-1:
    # How many items a body says that it has; no more than there is room for.
    cdef uint64_t count
    cdef Py_ssize_t size
    need_bytes("body", body)
    size = PyBytes_GET_SIZE(body)
    if size < 4:
        raise DecodeError(f"body: needs 4 bytes at offset 0, {size} left")
    count = mt_load_be32(raw(body))
    if count * 4 > <uint64_t>size - 4:
        raise DecodeError(f"body: {count} items need {count * 4} bytes, {size - 4} left")
    return count


cdef int check_body(const Body *at, size_t size) except -1:
    if at.fault == BODY_NO_LENGTH:
        raise DecodeError(f"body[{at.item}]: needs 4 bytes at offset {at.at}, {size - at.at} left")
    if at.fault == BODY_LONG:
        raise DecodeError(f"body[{at.item}]: {at.length} bytes, at most {MAX_TX}")
    if at.fault == BODY_SHORT:
        raise DecodeError(
            f"body[{at.item}]: needs {at.length} bytes at offset {at.at}, {size - at.at} left"
        )
    if at.fault == BODY_UNSIGNED:
        raise DecodeError(f"body[{at.item}]: {at.length} bytes, a signature has {SIGNATURE}")
    if at.at != size:
        raise DecodeError(f"body: {size - at.at} trailing bytes")
    return 0


def body_root(body):
    """The root over the transactions of an encoded block body, and how many there are.

    A body is a `list32[bytes32]`: a u32 count, then each transaction behind its u32 length,
    at most 131,068 bytes. DecodeError if it is anything else.
    """
    cdef uint64_t count = counted(body)
    cdef const uint8_t *data = raw(body)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(body)
    cdef Body at
    cdef uint8_t out[32]
    if size < BRIEF:
        fold_body(data, size, <size_t>count, &at, out)
    else:
        with nogil:
            fold_body(data, size, <size_t>count, &at, out)
    check_body(&at, size)
    return hash_bytes(out), count


def body_digests(body, id_domain, signing_domain):
    """The hashes that name a body's transactions, and what their senders signed.

    A hash is SHA-256(id_domain ‖ transaction). The second result is packed as
    `signatures.recover_many` takes it: for each transaction SHA-256(signing_domain ‖ all but its
    last 65 bytes), and those. DecodeError as `body_root`, or where one is shorter.
    """
    cdef uint64_t count, i
    cdef const uint8_t *data
    cdef size_t size
    cdef Body at
    cdef bytes ids, items
    need_bytes("body", body)
    need_bytes("id_domain", id_domain)
    need_bytes("signing_domain", signing_domain)
    count = counted(body)
    data = raw(body)
    size = <size_t>PyBytes_GET_SIZE(body)
    ids = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count * 32))
    items = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count * RECOVERY))
    digest_body(
        data, size, <size_t>count, &at, id_domain, signing_domain,
        <uint8_t *>PyBytes_AS_STRING(ids), <uint8_t *>PyBytes_AS_STRING(items))
    check_body(&at, size)
    return [hash_bytes(raw(ids) + 32 * i) for i in range(count)], items
