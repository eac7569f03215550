"""Real implementations of what the package asks of the host."""
