"""Rows of instances and of what belongs to them. Everything here runs inside a transaction of the caller."""
