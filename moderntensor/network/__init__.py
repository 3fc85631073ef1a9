"""How the chain travels: frames, messages, peers, gossip, sync."""
