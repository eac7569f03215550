"""What goes into guests and comes out of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType

GuestReport = NewType("GuestReport", bytes)
"""What a guest told when asked, as the contract's message of that name: handed on, never looked into."""


@dataclass(frozen=True, slots=True)
class ExecOutput:
    """What a program wrote; neither: it has begun."""

    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True)
class ExecEnd:
    """How a program ended; `truncated`: it wrote more than is passed on, and was ended for it."""

    exit_code: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class FileWish:
    """A file as it is to be in the guest; empty texts are defaults."""

    path: str
    mode: str = ""
    owner: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The end of a push: a stream that breaks off looks like one that ends, this does not."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file that is in the guest."""

    path: str
    size_bytes: int
    digest: str
    mode: str
    owner: str


@dataclass(frozen=True, slots=True)
class Frozen:
    """A guest whose filesystems stand still, and until when at the latest."""

    filesystems: int
    thaw_time: datetime
