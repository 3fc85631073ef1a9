"""Inputs that a fuzzer found something with: (target, input)."""

FOUND: list[tuple[str, bytes]] = [
    ("addresses", b"[[@]]:1"),  # a name in brackets, which came out as another
    ("addresses", b"[name]:1"),
]
