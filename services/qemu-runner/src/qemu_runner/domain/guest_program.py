"""Programs that run in guests, as they tell of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run. `env` and `stdin` may be secret.

    Attributes:
        argv: The program and its arguments.
        env: Its whole environment; empty: the agent's own.
        stdin: What it reads.
        timeout_s: When it is ended.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: bytes
    timeout_s: float


class Channel(StrEnum):
    """Where a program wrote."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Output:
    """What a program wrote; empty: it has begun and has written nothing."""

    channel: Channel
    content: bytes


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How it ended.

    Attributes:
        exit_code: Its code, or 128 and the number of the signal that ended it.
        truncated: Whether it wrote more than is passed on, and was ended for it.
    """

    exit_code: int
    truncated: bool
