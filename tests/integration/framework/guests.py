"""Guest images of the tests, built by this repository."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@functools.cache
def tiny() -> Path:
    """Return the small guest's image; it is built where it is not cached."""
    return _build("tiny")


@functools.cache
def debian() -> Path:
    """Return the full Debian guest's image; it is built where it is not cached."""
    return _build("debian")


def _build(guest: str) -> Path:
    result = subprocess.run(
        [ROOT / "packer" / "guests" / guest / "build"], stdout=subprocess.PIPE, check=True, text=True
    )
    return Path(result.stdout.strip().splitlines()[-1])
