"""Files that go into guests and come out of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileWish:
    """A file as it is to be in the guest.

    Attributes:
        path: Absolute.
        mode: Octal digits; empty: that of the file it replaces, else 0644.
        owner: "user", "user:group", by name or number; empty: that of the file it replaces, else the agent's.
        digest: "sha256:<hex>" that the bytes must have; empty: any.
    """

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
