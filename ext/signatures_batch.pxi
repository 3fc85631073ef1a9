# Many BIP-340 signatures in one equation, as BIP-340 has it under "Batch Verification":
#
#     (a1 s1 + a2 s2 + …) G  =  a1 R1 + a2 R2 + …  +  (the sum of its a e) P for each key P
#
# with factors a of 128 bits that come out of a hash of all keys, messages and signatures, so that
# nobody can choose one of these knowing them. It holds if every signature is good; if one is not,
# it does so once in 2^128. Alone each signature takes a multiplication of 128 doublings; here all
# of them share one: what is left for each is 32 additions, one for every four bits of its factor
# (Pippenger's buckets), and the square root that makes R of its x.
#
# Only public functions of the library are called. Whatever one of them refuses (there is no point
# with that x, a sum is the point at infinity, a number is zero or too great) means "not shown", and
# then the signatures are checked one by one: nothing is ever called bad here.

cdef enum:
    CHUNK = 1024  # signatures in one equation, at most: 118 KiB
    FEWEST = 64  # below, the 128 doublings cost more than they save
    PER_KEY = 4  # at least, on average: each key takes a whole multiplication
    MAX_KEYS = 256  # CHUNK // PER_KEY
    TABLE = 512  # where keys are looked for: twice as many
    FACTOR = 16  # bytes of a factor a
    BUCKETS = 16  # four bits of a factor choose one

cdef struct Equation:
    size_t count
    size_t keys
    const uint8_t *key[MAX_KEYS]
    uint8_t key_factor[MAX_KEYS][32]  # the sum of its a e
    public_key key_point[MAX_KEYS]
    uint16_t table[TABLE]  # the number of a key and one, or 0
    uint16_t key_of[CHUNK]
    uint8_t factor[CHUNK][FACTOR]  # a
    public_key point[CHUNK]  # R
    public_key bucket[BUCKETS]
    bint filled[BUCKETS]
    const public_key *terms[CHUNK]  # of the sum being made


cdef bint find_keys(Equation *equation, const uint8_t *items) noexcept nogil:
    # Numbers the keys. False if there are too many for so few signatures.
    cdef size_t i, at, most = equation.count // PER_KEY
    cdef const uint8_t *key
    memset(equation.table, 0, sizeof(equation.table))
    equation.keys = 0
    for i in range(equation.count):
        key = items + VERIFY * i
        at = (key[31] | <size_t>key[30] << 8) % TABLE
        while equation.table[at] and memcmp(equation.key[equation.table[at] - 1], key, 32) != 0:
            at = (at + 1) % TABLE
        if not equation.table[at]:
            if equation.keys == most:
                return False
            equation.key[equation.keys] = key
            equation.keys += 1
            equation.table[at] = <uint16_t>equation.keys
        equation.key_of[i] = <uint16_t>(equation.table[at] - 1)
    return True


cdef bint parse_even(const Library *library, public_key *point, const uint8_t *x) noexcept nogil:
    cdef uint8_t compressed[33]
    compressed[0] = 2
    memcpy(compressed + 1, x, 32)
    return library.parse(library.context, point, compressed, 33) == 1


cdef bint draw_factors(
    const Library *library, Equation *equation, const uint8_t *items
) noexcept nogil:
    cdef uint8_t seed[34]
    cdef size_t i
    if library.tagged(
        library.context, seed, b"moderntensor/batch", 18, items, VERIFY * equation.count
    ) != 1:
        return False
    for i in range(0, equation.count, 2):  # a hash is two factors; CHUNK is even
        seed[32] = <uint8_t>(i >> 8)
        seed[33] = <uint8_t>i
        if library.tagged(
            library.context, equation.factor[i], b"moderntensor/batch/factors", 26, seed, 34
        ) != 1:
            return False
    return True


cdef bint add_product(
    const Library *library, uint8_t *total, bint first, const uint8_t *factor, const uint8_t *other
) noexcept nogil:
    # total += factor * other, modulo the group order.
    cdef uint8_t product[32]
    memset(product, 0, 32 - FACTOR)
    memcpy(product + 32 - FACTOR, factor, FACTOR)
    if library.multiply_numbers(library.context, product, other) != 1:
        return False
    if first:
        memcpy(total, product, 32)
        return True
    return library.add_numbers(library.context, total, product) == 1


cdef bint add_up(
    const Library *library, const public_key **terms, size_t count, public_key *total
) noexcept nogil:
    # The sum of at least one point; `total` may be one of them, which the library does not allow.
    cdef public_key made
    if count == 1:
        total[0] = terms[0][0]
        return True
    if library.combine(library.context, &made, terms, count) != 1:
        return False
    total[0] = made
    return True


cdef inline int digit_of(const uint8_t *factor, int place) noexcept nogil:
    # Four bits, the highest at place 0.
    return factor[place >> 1] & 15 if place & 1 else factor[place >> 1] >> 4


cdef bint add_points(
    const Library *library, Equation *equation, public_key *total
) noexcept nogil:
    # total = the sum of all a R: four bits of every factor after another, the highest first. What
    # agrees in them is added up; then, bit by bit, the total is doubled and takes in every bucket
    # whose digit has that bit.
    cdef size_t start[BUCKETS + 1]
    cdef size_t i, n
    cdef int place, digit, power
    cdef bint begun = False
    for place in range(2 * FACTOR):
        memset(start, 0, sizeof(start))
        for i in range(equation.count):
            start[digit_of(equation.factor[i], place)] += 1
        for digit in range(1, BUCKETS + 1):
            start[digit] += start[digit - 1]
        for i in range(equation.count):  # from the end of each bucket to its start
            digit = digit_of(equation.factor[i], place)
            start[digit] -= 1
            equation.terms[start[digit]] = &equation.point[i]
        for digit in range(1, BUCKETS):
            n = start[digit + 1] - start[digit]
            equation.filled[digit] = n != 0
            if n and not add_up(
                library, equation.terms + start[digit], n, &equation.bucket[digit]
            ):
                return False
        for power in range(3, -1, -1):
            n = 0
            if begun:
                equation.terms[0] = equation.terms[1] = total
                n = 2
            for digit in range(1, BUCKETS):
                if digit >> power & 1 and equation.filled[digit]:
                    equation.terms[n] = &equation.bucket[digit]
                    n += 1
            if n:
                if not add_up(library, equation.terms, n, total):
                    return False
                begun = True
    return begun


cdef bint shown_good(
    const Library *library, Equation *equation, const uint8_t *items, size_t count
) noexcept nogil:
    # Whether the equation of `count` signatures, at most CHUNK, can be made and holds.
    cdef public_key left, right
    cdef uint8_t total[32]
    cdef uint8_t challenge[32]
    cdef uint8_t signed[96]
    cdef const uint8_t *item
    cdef bint first_of_key
    cdef size_t i, key, met = 0
    equation.count = count
    if not find_keys(equation, items) or not draw_factors(library, equation, items):
        return False
    for i in range(count):
        item = items + VERIFY * i
        if not parse_even(library, &equation.point[i], item + 64):
            return False
        memcpy(signed, item + 64, 32)
        memcpy(signed + 32, item, 64)
        key = equation.key_of[i]
        first_of_key = key == met  # keys are numbered as they come
        met += first_of_key
        if not (
            library.tagged(library.context, challenge, b"BIP0340/challenge", 17, signed, 96) == 1
            and add_product(library, total, i == 0, equation.factor[i], item + 96)
            and add_product(
                library, equation.key_factor[key], first_of_key, equation.factor[i], challenge)
        ):
            return False
    if not add_points(library, equation, &right):
        return False
    equation.terms[0] = &right
    for key in range(equation.keys):
        if (
            not parse_even(library, &equation.key_point[key], equation.key[key])
            or library.multiply(
                library.context, &equation.key_point[key], equation.key_factor[key]) != 1
        ):
            return False
        equation.terms[key + 1] = &equation.key_point[key]
    return (
        add_up(library, equation.terms, equation.keys + 1, &right)
        and library.create(library.context, &left, total) == 1
        and library.compare(library.context, &left, &right) == 0
    )
