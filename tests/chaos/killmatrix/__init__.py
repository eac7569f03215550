"""The kill matrix on the fake runner: thousands of operations, each hit by a fault somewhere in the middle.

A *cell* is one operation that was at work when a fault struck: which operation, at which step, which fault.
The controller is the real one in a process of its own; runner, image store and host are fakes in this one.
"""
