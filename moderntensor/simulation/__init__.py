"""The real node under virtual time, in an in-memory network."""
