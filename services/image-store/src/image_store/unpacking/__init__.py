"""Compressed uploads: told by their first bytes, unpacked piece by piece under limits.

It knows streams of bytes only; what is in them is for admission to say.
"""

from image_store.unpacking.compression import MAGIC_BYTES, Compression, compression_of
from image_store.unpacking.unpacker import Unpacker, UnpackLimits

__all__ = ["MAGIC_BYTES", "Compression", "UnpackLimits", "Unpacker", "compression_of"]
