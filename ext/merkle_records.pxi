# Subtrees of the state as they travel: records of address and account, whose keys are hashed here.

cdef enum RecordFault:
    RECORD_FINE, RECORD_OUTSIDE, RECORD_ORDER, RECORD_NOTHING, RECORD_CONTRACT


cdef RecordFault record_fault(
    const uint8_t *record, const uint8_t *row, bint first, int depth, const uint8_t *prefix
) noexcept nogil:
    # What is wrong with a record whose key is in its row, the one before right ahead of it.
    cdef const uint8_t *account = record + ADDRESS
    if shared_bits(row, prefix) < depth:
        return RECORD_OUTSIDE
    if not first and memcmp(row, row - ROW, 32) <= 0:
        return RECORD_ORDER
    if not (mt_load_be64(account) | mt_load_be64(account + 8) | mt_load_be64(account + 16)):
        return RECORD_NOTHING
    if not is_zero(account + 24) or not is_zero(account + 56):
        return RECORD_CONTRACT
    return RECORD_FINE


cdef RecordFault hash_stored(
    const uint8_t *records, size_t count, int depth, const uint8_t *prefix, uint8_t *rows,
    size_t *at
) noexcept nogil:
    # The rows (key and leaf hash) of records, each checked; `at` is left at the first fault.
    cdef uint8_t keys[LANES * 64]  # of one block
    cdef uint8_t leaves[LANES * 192]
    cdef uint8_t digests[LANES * 32]
    cdef const uint8_t *record
    cdef uint8_t *row
    cdef size_t done = 0, some, i
    cdef RecordFault fault
    memset(keys, 0, sizeof(keys))
    for i in range(<size_t>LANES):
        keys[64 * i + ADDRESS] = 0x80
        mt_store_be64(keys + 64 * i + 56, ADDRESS * 8)
        start_record(leaves + 192 * i)
    while done < count:
        some = min(count - done, <size_t>LANES)
        for i in range(some):
            memcpy(keys + 64 * i, records + (done + i) * STORED, ADDRESS)
        mt_sha256_padded_run(keys, some, 1, digests)
        for i in range(some):
            record = records + (done + i) * STORED
            row = rows + (done + i) * ROW
            memcpy(row, digests + 32 * i, 32)
            at[0] = done + i
            fault = record_fault(record, row, at[0] == 0, depth, prefix)
            if fault != RECORD_FINE:
                return fault
            memcpy(leaves + 192 * i + 1, row, 32)
            memcpy(leaves + 192 * i + 33, record + ADDRESS, ACCOUNT)
        mt_sha256_padded_run(leaves, some, 3, digests)
        for i in range(some):
            memcpy(rows + (done + i) * ROW + 32, digests + 32 * i, 32)
        done += some
    return RECORD_FINE


cdef RecordFault hash_records_under(
    const uint8_t *records, size_t count, int depth, const uint8_t *prefix, uint8_t *rows,
    Nodes *nodes, size_t *at, uint8_t *out
) except? RECORD_CONTRACT nogil:
    cdef RecordFault fault = hash_stored(records, count, depth, prefix, rows, at)
    if fault == RECORD_FINE:
        subtree(rows, count, depth, True, nodes, out)
    return fault


cdef raise_record_fault(RecordFault fault, size_t at):
    if fault == RECORD_OUTSIDE:
        raise_key_fault(KEY_OUTSIDE, "records", at)
    if fault == RECORD_ORDER:
        raise_key_fault(KEY_ORDER, "records", at)
    if fault == RECORD_NOTHING:
        raise DecodeError(f"records[{at}]: an account of nonce 0 and balance 0 does not exist")
    if fault == RECORD_CONTRACT:
        raise DecodeError(f"records[{at}]: storage_root and code_hash must be zero")


def state_records(records, depth=0, prefix=ZERO, threshold=16, rows=True):
    """What a subtree of the state is, as it travels: (hash, count, nodes, rows).

    `records` are 108 bytes each, address ‖ account, ascending by key = SHA-256(address), all
    under the first `depth` bits (0 to 256) of `prefix`, whose other bits are zero. `nodes` are
    those over more than `threshold` accounts, (depth u8 ‖ prefix, 80 bytes), ascending. `rows`
    are (key, record) of all accounts, or none where `rows` is false.

    DecodeError, which names the first such record, where one is out of order, not under the
    prefix, or cannot be an account: one with nonce 0 and balance 0 does not exist, and
    storage_root and code_hash are zero for now.
    """
    cdef size_t count = counted_under("records", records, STORED, depth, prefix), at = 0, i
    cdef const uint8_t *data = raw(records)
    cdef const uint8_t *under = raw(prefix)
    cdef const uint8_t *kept
    cdef int level = depth
    cdef RecordFault fault
    cdef uint8_t out[32]
    cdef uint8_t *hashed
    cdef Nodes nodes
    memset(&nodes, 0, sizeof(nodes))
    nodes.threshold = checked_threshold(threshold)
    hashed = <uint8_t *>PyMem_RawMalloc(count * ROW)
    if hashed == NULL:
        raise MemoryError
    try:
        if count * STORED < BRIEF:
            fault = hash_records_under(data, count, level, under, hashed, &nodes, &at, out)
        else:
            with nogil:
                fault = hash_records_under(data, count, level, under, hashed, &nodes, &at, out)
        raise_record_fault(fault, at)
        found = []
        for i in range(nodes.count):
            kept = nodes.kept + i * KEPT
            found.append((
                PyBytes_FromStringAndSize(<const char *>kept, 33),
                PyBytes_FromStringAndSize(<const char *>kept + 33, NODE)))
        found.sort()
        made = []
        if rows:
            for i in range(count):
                made.append((
                    hash_bytes(hashed + i * ROW),
                    PyBytes_FromStringAndSize(<const char *>data + i * STORED, STORED)))
    finally:
        PyMem_RawFree(hashed)
        PyMem_RawFree(nodes.kept)
    return hash_bytes(out), count, found, made
