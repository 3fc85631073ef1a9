"""Talk to a running node over its HTTP API."""
