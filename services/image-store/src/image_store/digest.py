"""Names of content: "sha256:" and 64 lower-case hex digits, nothing else."""

import re
from typing import Final, NewType

Digest = NewType("Digest", str)
ALGORITHM: Final = "sha256"

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def parse_digest(text: str) -> Digest | None:
    """Return `text` as a digest, or None if it is none."""
    return Digest(text) if _DIGEST.fullmatch(text) else None


def digest_of_hex(digits: str) -> Digest:
    """Return the digest of a hash's `hexdigest`."""
    return Digest(f"{ALGORITHM}:{digits}")


def hex_of(digest: Digest) -> str:
    """Return the 64 hex digits; safe as a file name, since `Digest` is only made by this module."""
    return digest.removeprefix(f"{ALGORITHM}:")
