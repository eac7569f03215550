"""Probes: what must hold in a guest before its machine is ready, and how each stands. Values only."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class ProbeKind(StrEnum):
    """What is asked, in the words of the API."""

    AGENT = "agent"
    ADDRESS = "address"
    CLOUD_INIT = "cloudInit"
    TCP = "tcp"
    HTTP = "http"
    SERIAL = "serial"
    EXEC = "exec"


ATTEMPTED: Final = frozenset({ProbeKind.TCP, ProbeKind.HTTP, ProbeKind.EXEC})
"""Kinds that no event tells of: they are tried, once everything that events tell of holds."""
FOLLOWING: Final = frozenset({ProbeKind.AGENT, ProbeKind.ADDRESS})
"""Kinds that hold as long as what they name does; the others hold until the guest boots again."""
THROUGH_NETWORK: Final = frozenset({ProbeKind.TCP, ProbeKind.HTTP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe; what its kind does not know is empty.

    Attributes:
        port: The guest's.
        path: Of a GET, with its query.
        status: That it must answer; 0: any of 200 to 299.
        match: Regular expression for a line of the console.
        argv: Program and arguments.
        exit_code: The program's, if it holds.
    """

    kind: ProbeKind
    port: int = 0
    path: str = ""
    status: int = 0
    match: str = ""
    argv: tuple[str, ...] = ()
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How a probe stands since the guest began to boot.

    Attributes:
        evidence: What was seen last, a sentence; empty: nothing yet.
        since: When it was seen to; None: it does not, or did before this life of the service.
    """

    holds: bool = False
    evidence: str = ""
    since: datetime | None = None


class CloudInit(StrEnum):
    """How the guest's cloud-init ended in this boot."""

    UNSEEN = ""
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CloudInitState:
    """How cloud-init ended, and its errors."""

    result: CloudInit = CloudInit.UNSEEN
    detail: str = ""
