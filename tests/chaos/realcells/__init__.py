"""The kill matrix with real QEMU: one operation, one moment of it, one process that dies there by SIGKILL.

Whoever carries the operation out stands still at the moment (a fail point, ADR 16) while the other is killed,
so that a cell means what it says on any host, however slow.
"""
