"""What travels between nodes, and the rules that it obeys."""
