"""A live node in a process of its own, played by a client that shares no code with it."""
