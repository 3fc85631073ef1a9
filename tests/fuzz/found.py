"""Inputs that a fuzzer found something with: (target, input)."""

FOUND: list[tuple[str, bytes]] = []
