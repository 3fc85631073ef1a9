# The state tree over a store, changed in memory. A Branch is loaded for each stored node on the
# way of a change, a Bucket of accounts at its end.

cdef enum:
    LIMIT = 16  # accounts: nodes over no more than this are not stored
    ADDRESS = 20
    STORED = 108  # address and account, as they are stored

NODE_LIMIT = LIMIT


@cython.final
@cython.no_gc  # no cycles: a tree
cdef class Branch:
    cdef uint8_t node[NODE]
    cdef object left  # Branch, Bucket, or None until it is loaded
    cdef object right
    cdef bint dirty


@cython.final
cdef class Bucket:
    cdef uint8_t *rows
    cdef size_t count

    def __dealloc__(self):
        PyMem_Free(self.rows)


cdef Bucket new_bucket(size_t count):
    cdef Bucket bucket = Bucket.__new__(Bucket)
    if count:
        bucket.rows = <uint8_t *>PyMem_Malloc(count * ROW)
        if bucket.rows == NULL:
            raise MemoryError
    bucket.count = count
    return bucket


cdef struct Change:
    uint8_t key[32]
    uint8_t leaf[32]
    PyObject *record  # address and account, held by `StateTree._records`; NULL: it is gone


cdef int by_key(const void *one, const void *other) noexcept nogil:
    return memcmp(one, other, 32)


cdef bytes node_name(const uint8_t *key, int depth):
    # What the node at `depth` on the way to a key is stored under.
    cdef uint8_t name[33]
    name[0] = <uint8_t>depth
    cut_key(name + 1, key, depth)
    return PyBytes_FromStringAndSize(<const char *>name, 33)


cdef bytes key_after(const uint8_t *prefix, int depth):
    # The first key behind all keys under a prefix of `depth` bits; None where there is none.
    cdef uint8_t out[32]
    cdef int at = (depth - 1) // 8
    cdef unsigned int total
    if depth == 0:
        return None
    memcpy(out, prefix, 32)
    total = 1u << (7 - (depth - 1) % 8)
    while at >= 0:
        total += out[at]
        out[at] = <uint8_t>total
        total >>= 8
        if not total:
            return hash_bytes(out)
        at -= 1
    return None


cdef void leaf_hash(const uint8_t *key, const uint8_t *stored, uint8_t *out) noexcept nogil:
    cdef uint8_t record[RECORD]
    memcpy(record, key, 32)
    memcpy(record + 32, stored + ADDRESS, ACCOUNT)
    record_hash(record, out)


cdef int hash_part(object part, int depth, Half *half) except -1:
    # The hash and count of a subtree at `depth`.
    cdef Bucket bucket
    cdef Branch branch
    if type(part) is Bucket:
        bucket = <Bucket>part
        half.count = bucket.count
        subtree(bucket.rows, bucket.count, depth, True, NULL, half.digest)
    else:
        branch = <Branch>part
        half.count = mt_load_be64(branch.node + 32) + mt_load_be64(branch.node + 72)
        node_hash(branch.node, half.digest)
    return 0


@cython.final
cdef class StateTree:
    """The state tree in the middle of its changes.

    `count` is how many accounts the store holds. `read_node(key)` gets a stored node (80 bytes,
    as in `state_nodes`) by its depth u8 ‖ prefix, or None. `read_accounts(start, stop)` gets
    (key, address ‖ account) of all keys in [start, stop), ascending; a `stop` of None is the end.
    What they raise passes through. After any error the tree must not be used again.

    StorageError where stored nodes and accounts contradict each other.
    """

    cdef object _read_node
    cdef object _read_accounts
    cdef dict _accounts  # changed ones, for the store
    cdef set _gone  # keys of nodes that are no longer there
    cdef object _top
    cdef Half _half
    cdef Change *_changes  # those being applied, ascending
    cdef uint64_t _effective  # changes that made a difference

    def __init__(self, count, read_node, read_accounts):
        count = need_int("count", count)
        if not 0 <= count <= MAX_COUNT:
            raise DecodeError(f"count: {count}, must be 0 to {MAX_COUNT}")
        self._read_node = read_node
        self._read_accounts = read_accounts
        self._accounts = {}
        self._gone = set()
        self._effective = 0
        self._top = self._load(count, 0, raw(ZERO))
        hash_part(self._top, 0, &self._half)

    @property
    def root(self):
        """The root over all accounts; 32 zero bytes for none."""
        return hash_bytes(self._half.digest)

    @property
    def count(self):
        """How many accounts there are."""
        return self._half.count

    def apply(self, changes):
        """Set accounts (address, 20 bytes, to 88 bytes; None: it is gone); the new root."""
        cdef dict pending = dict(changes)
        cdef list records = []  # holds what the changes point to
        cdef size_t count = <size_t>len(pending), at = 0
        cdef Change *change
        cdef bytes record
        if self._changes != NULL:
            raise RuntimeError("the state tree is changed from within a change")
        self._changes = <Change *>PyMem_Malloc((count + 1) * sizeof(Change))
        if self._changes == NULL:
            raise MemoryError
        try:
            for address, account in pending.items():
                sized("address", address, ADDRESS)
                change = &self._changes[at]
                mt_sha256(raw(address), ADDRESS, change.key)
                change.record = NULL
                if account is not None:
                    sized("account", account, ACCOUNT)
                    record = <bytes>address + <bytes>account
                    records.append(record)
                    change.record = <PyObject *>record
                    leaf_hash(change.key, raw(record), change.leaf)
                at += 1
            qsort(self._changes, count, sizeof(Change), by_key)
            if count:
                self._top = self._update(self._top, &self._half, 0, 0, count)
        finally:
            PyMem_Free(self._changes)
            self._changes = NULL
        return hash_bytes(self._half.digest)

    def take_changes(self):
        """What the store has to be told since the last call: nodes by depth u8 ‖ prefix, accounts
        (address ‖ account) by key, both ascending; None for what is no longer there."""
        cdef list nodes = [(key, None) for key in self._gone]
        cdef list accounts = sorted(self._accounts.items())
        cdef uint8_t prefix[32]
        memset(prefix, 0, 32)
        self._collect(self._top, 0, prefix, nodes)
        nodes.sort()
        self._gone = set()
        self._accounts = {}
        return nodes, accounts

    cdef int _collect(self, part, int depth, uint8_t *prefix, list nodes) except -1:
        cdef Branch branch
        if type(part) is not Branch or not (<Branch>part).dirty:
            return 0
        branch = <Branch>part
        branch.dirty = False
        nodes.append((
            node_name(prefix, depth), PyBytes_FromStringAndSize(<const char *>branch.node, NODE)))
        self._collect(branch.left, depth + 1, prefix, nodes)
        prefix[depth // 8] |= <uint8_t>(0x80 >> (depth % 8))
        self._collect(branch.right, depth + 1, prefix, nodes)
        prefix[depth // 8] &= <uint8_t>~(0x80 >> (depth % 8))
        return 0

    cdef object _load(self, uint64_t count, int depth, const uint8_t *key):
        # The subtree of `count` accounts at `depth` on the way to `key`, from the store.
        cdef uint8_t prefix[32]
        cdef Branch branch
        cdef Bucket bucket
        cdef size_t at = 0
        cdef uint64_t left = 0
        cdef list rows
        if not count:
            return new_bucket(0)
        cut_key(prefix, key, depth)
        start = hash_bytes(prefix)
        if count > LIMIT:
            if depth == KEY_BITS:
                raise StorageError(f"the state tree counts {count} accounts of one key")
            node = self._read_node(node_name(prefix, depth))
            if node is None:
                raise StorageError(f"the state tree lacks its node {start.hex()}/{depth}")
            need_bytes("node", node)
            branch = Branch.__new__(Branch)
            if PyBytes_GET_SIZE(node) == NODE:
                memcpy(branch.node, raw(node), NODE)
                left = mt_load_be64(branch.node + 32)
            if (
                PyBytes_GET_SIZE(node) != NODE or not is_node(branch.node)
                or left > count or mt_load_be64(branch.node + 72) != count - left
            ):
                raise StorageError(
                    f"the state tree's node {start.hex()}/{depth} is not over {count}")
            return branch
        rows = list(self._read_accounts(start, key_after(prefix, depth)))
        bucket = new_bucket(<size_t>len(rows))
        for found, record in rows:
            need_bytes("key", found)
            need_bytes("record", record)
            if PyBytes_GET_SIZE(found) != 32 or PyBytes_GET_SIZE(record) != STORED:
                raise StorageError(
                    f"the state tree has an account of {len(found)} and {len(record)} bytes")
            if shared_bits(raw(found), prefix) < depth or (
                at and memcmp(raw(found), bucket.rows + (at - 1) * ROW, 32) <= 0
            ):
                raise StorageError(f"the state tree has account {found.hex()} out of order")
            memcpy(bucket.rows + at * ROW, raw(found), 32)
            leaf_hash(raw(found), raw(record), bucket.rows + at * ROW + 32)
            at += 1
        if at != count:
            raise StorageError(
                f"the state tree counts {count} accounts where {at} are stored")
        return bucket

    cdef object _update(self, part, Half *half, int depth, size_t low, size_t high):
        # A subtree, whose hash and count were `half`, after the changes low to high.
        cdef const uint8_t *key = self._changes[low].key
        cdef uint64_t seen = self._effective
        cdef Branch branch
        cdef Half below
        cdef size_t split
        if part is None:
            part = self._load(half.count, depth, key)
        if type(part) is Bucket:
            part = self._change_rows(<Bucket>part, low, high)
            if self._effective == seen:
                return part
            if (<Bucket>part).count > LIMIT:
                part = self._split((<Bucket>part).rows, (<Bucket>part).count, depth)
            hash_part(part, depth, half)
            return part
        branch = <Branch>part
        split = turn(self._changes[0].key, sizeof(Change), low, high, depth)
        if low < split:
            memcpy(below.digest, branch.node, 32)
            below.count = mt_load_be64(branch.node + 32)
            branch.left = self._update(branch.left, &below, depth + 1, low, split)
            memcpy(branch.node, below.digest, 32)
            mt_store_be64(branch.node + 32, below.count)
        if split < high:
            memcpy(below.digest, branch.node + 40, 32)
            below.count = mt_load_be64(branch.node + 72)
            branch.right = self._update(branch.right, &below, depth + 1, split, high)
            memcpy(branch.node + 40, below.digest, 32)
            mt_store_be64(branch.node + 72, below.count)
        if self._effective == seen:
            return branch
        branch.dirty = True
        part = branch
        if mt_load_be64(branch.node + 32) + mt_load_be64(branch.node + 72) <= LIMIT:
            part = self._merge(branch, depth, key)
        hash_part(part, depth, half)
        return part

    cdef Bucket _change_rows(self, Bucket bucket, size_t low, size_t high):
        # The two in one pass, as both are ascending.
        cdef Bucket new = new_bucket(bucket.count + high - low)
        cdef Change *change = &self._changes[low]
        cdef Change *end = &self._changes[high]
        cdef const uint8_t *row = bucket.rows
        cdef const uint8_t *last = bucket.rows + bucket.count * ROW
        cdef uint8_t *out = new.rows
        cdef int order
        while row < last or change < end:
            order = -1 if change == end else 1 if row == last else memcmp(row, change.key, 32)
            if order < 0:
                memcpy(out, row, ROW)
                out += ROW
                row += ROW
                continue
            if change.record != NULL:
                memcpy(out, change.key, ROW)
                if order or memcmp(row + 32, change.leaf, 32) != 0:
                    self._accounts[hash_bytes(change.key)] = <object>change.record
                    self._effective += 1
                out += ROW
            elif order == 0:
                self._accounts[hash_bytes(change.key)] = None
                self._effective += 1
            if order == 0:
                row += ROW
            change += 1
        new.count = <size_t>(out - new.rows) // ROW
        return new

    cdef object _split(self, const uint8_t *rows, size_t count, int depth):
        # A subtree over rows, with branches down to where few enough are left.
        cdef Bucket bucket
        cdef Branch branch
        cdef Half half
        cdef size_t split
        if count <= LIMIT:
            bucket = new_bucket(count)
            if count:
                memcpy(bucket.rows, rows, count * ROW)
            return bucket
        branch = Branch.__new__(Branch)
        split = turn(rows, ROW, 0, count, depth)
        branch.left = self._split(rows, split, depth + 1)
        hash_part(branch.left, depth + 1, &half)
        memcpy(branch.node, half.digest, 32)
        mt_store_be64(branch.node + 32, half.count)
        branch.right = self._split(rows + split * ROW, count - split, depth + 1)
        hash_part(branch.right, depth + 1, &half)
        memcpy(branch.node + 40, half.digest, 32)
        mt_store_be64(branch.node + 72, half.count)
        branch.dirty = True
        self._gone.discard(node_name(rows, depth))
        return branch

    cdef Bucket _merge(self, Branch branch, int depth, const uint8_t *key):
        # The bucket of a branch that has become small, whose node goes.
        cdef uint8_t middle[32]
        cdef Bucket left, right, both
        cut_key(middle, key, depth)
        if branch.left is None:
            branch.left = self._load(mt_load_be64(branch.node + 32), depth + 1, middle)
        if branch.right is None:
            middle[depth // 8] |= <uint8_t>(0x80 >> (depth % 8))
            branch.right = self._load(mt_load_be64(branch.node + 72), depth + 1, middle)
        left = <Bucket?>branch.left
        right = <Bucket?>branch.right
        both = new_bucket(left.count + right.count)
        if left.count:
            memcpy(both.rows, left.rows, left.count * ROW)
        if right.count:
            memcpy(both.rows + left.count * ROW, right.rows, right.count * ROW)
        self._gone.add(node_name(key, depth))
        return both
