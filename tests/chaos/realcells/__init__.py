"""The kill matrix with real QEMU: one operation, one moment of it, one thing that is struck there.

Whoever passes the moment stands still at it (a fail point, ADR 16) while the other is struck, so that a cell
means what it says on any host, however slow.
"""
