"""Admission: what bytes may become an image, decided by reading them ourselves before any tool opens them.

A disk image can name other files for the program that opens it, ask for absurd amounts of memory, or be
something else altogether. Nothing here opens, runs or writes anything; it reads what it is given.
"""

from image_store.admission.inspection import Disk, inspect, inspect_head
from image_store.admission.source import HEAD_BYTES, ByteSource

__all__ = ["HEAD_BYTES", "ByteSource", "Disk", "inspect", "inspect_head"]
