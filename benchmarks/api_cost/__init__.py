"""What a node under a full-speed sync pays for being watched: see `__main__`."""
