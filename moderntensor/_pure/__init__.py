"""The engines in readable Python: the reference that their compiled twins must equal."""
