"""Nodes in processes of their own, ours and others', that do the same work on command."""
