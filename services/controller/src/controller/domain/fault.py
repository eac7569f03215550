"""A fault of the input."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the input: JSON pointer (RFC 6901) into the REST body, and what is wrong there."""

    pointer: str
    detail: str
