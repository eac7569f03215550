"""Readiness: watches what a machine's contract asks of its guest, and tells how each probe stands.

Everything here looks at one guest and changes nothing. What events tell (the agent's port, console bytes,
QMP) is never asked for; the rest is tried with growing pauses, and only once the former holds. Attempts aim
at the guest's own address or at a port of this host that leads to it, at nothing else.
"""
