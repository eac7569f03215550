"""Log files that stay bounded while their writers hold them open.

A service writes to its stderr and cannot be told to open another file: what is beyond the limit moves to
`<name>.1` by copying, and the file is cut. Lines written in that instant are lost. It must never be given a
file whose writer does not append.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 16 * 1024 * 1024


def bound(files: Iterable[Path], limit_bytes: int = LIMIT_BYTES) -> None:
    """Cut each file that is larger than `limit_bytes`; its last `limit_bytes` are kept beside it.

    Raises:
        OSError: A file cannot be copied, on a full disk for example; it was cut nevertheless.
    """
    for path in files:
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            continue
        if size_bytes > limit_bytes:
            _turn(path, size_bytes - limit_bytes)


def _turn(path: Path, begin: int) -> None:
    older = path.with_name(path.name + ".1")
    try:
        with path.open("rb") as source, older.open("wb") as target:
            source.seek(begin)
            shutil.copyfileobj(source, target)
    finally:
        os.truncate(path, 0)
