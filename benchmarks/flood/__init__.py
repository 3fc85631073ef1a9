"""What thirty hostile peers leave of a node's service, and what they make it hold."""
