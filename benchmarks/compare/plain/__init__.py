"""The design that people write first, honest and complete.

`struct.pack("!IB")` before a JSON payload, hashes in hexadecimal, `StreamReader.readexactly`,
`drain()` after every message, header hashes as SHA-256 of sorted JSON. It is what a careful
programmer has working after an afternoon: nothing in it is slow on purpose.
"""
