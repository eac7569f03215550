"""What instances are and how they live: values, tables and pure functions on the standard library alone."""
