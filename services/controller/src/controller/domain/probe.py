"""Probes: what a contract of readiness may ask to hold. Values, and what is wrong with them by themselves.

Whether a regular expression compiles, and whether the guest can be reached at all, only the runner can tell.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.fault import Fault

MAX_PROBES: Final = 16
DONE: Final = "done"
"""The one word that the probe of cloud-init knows."""
DEFAULT_HTTP_PORT: Final = 80

_MAX_MATCH_CHARACTERS: Final = 512
_MAX_PATH_CHARACTERS: Final = 1024
_MAX_ARGV: Final = 64
_MAX_ARGV_CHARACTERS: Final = 4096
_SHOWN_CHARACTERS: Final = 60
# RFC 3986, section 3.3 and 3.4, with every percent sign taken as it is.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")
_FIRST_STATUS, _LAST_STATUS = 100, 599
_LEAST_CODE, _MOST_CODE = 0, 255


class ProbeKind(StrEnum):
    """What can be asked."""

    AGENT = "agent"
    ADDRESS = "address"
    CLOUD_INIT = "cloudInit"
    TCP = "tcp"
    HTTP = "http"
    SERIAL = "serial"
    EXEC = "exec"


NEED_A_NIC: Final = frozenset({ProbeKind.ADDRESS, ProbeKind.TCP, ProbeKind.HTTP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe; what its kind does not know is empty.

    Attributes:
        port: The guest's.
        path: Of a GET, with its query.
        status: That it must answer; 0: any of 200 to 299.
        match: Regular expression.
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

    def __str__(self) -> str:
        """Name the probe in a sentence."""
        match self.kind:
            case ProbeKind.TCP:
                return f"tcp {self.port}"
            case ProbeKind.HTTP:
                return _short(f"http {self.port}{self.path}")
            case ProbeKind.SERIAL:
                return _short(f"serial {self.match!r}")
            case ProbeKind.EXEC:
                return _short(f"exec {' '.join(self.argv)}")
            case ProbeKind.AGENT | ProbeKind.ADDRESS | ProbeKind.CLOUD_INIT:
                return self.kind.value


AGENT: Final = Probe(kind=ProbeKind.AGENT)
ADDRESS: Final = Probe(kind=ProbeKind.ADDRESS)


def probe_faults(probes: tuple[Probe, ...]) -> list[Fault]:
    """Return what is wrong with probes."""
    faults = [] if len(probes) <= MAX_PROBES else [Fault("/readiness/all", f"must be at most {MAX_PROBES}")]
    for index, probe in enumerate(probes):
        faults += [
            Fault(f"/readiness/all/{index}/{probe.kind}{pointer}", detail)
            for pointer, detail in _faults(probe)
        ]
    return faults


def _faults(probe: Probe) -> Iterator[tuple[str, str]]:
    if probe.kind in {ProbeKind.TCP, ProbeKind.HTTP} and not 1 <= probe.port <= 65535:
        yield "/port", "must be 1 to 65535"
    match probe.kind:
        case ProbeKind.HTTP:
            if len(probe.path) > _MAX_PATH_CHARACTERS or _PATH.fullmatch(probe.path) is None:
                yield (
                    "/path",
                    f'must begin with "/", be percent-encoded and at most {_MAX_PATH_CHARACTERS} long',
                )
            if probe.status and not _FIRST_STATUS <= probe.status <= _LAST_STATUS:
                yield "/status", f"must be {_FIRST_STATUS} to {_LAST_STATUS}"
        case ProbeKind.SERIAL:
            if not 1 <= len(probe.match) <= _MAX_MATCH_CHARACTERS:
                yield "/match", f"must have 1 to {_MAX_MATCH_CHARACTERS} characters"
        case ProbeKind.EXEC:
            if not probe.argv or not probe.argv[0]:
                yield "/argv", "names no program"
            if len(probe.argv) > _MAX_ARGV or sum(map(len, probe.argv)) > _MAX_ARGV_CHARACTERS:
                yield (
                    "/argv",
                    f"must be at most {_MAX_ARGV} words of {_MAX_ARGV_CHARACTERS} characters together",
                )
            if any("\0" in word for word in probe.argv):
                yield "/argv", "must not contain NUL"
            if not _LEAST_CODE <= probe.exit_code <= _MOST_CODE:
                yield "/exitCode", f"must be {_LEAST_CODE} to {_MOST_CODE}"
        case ProbeKind.AGENT | ProbeKind.ADDRESS | ProbeKind.CLOUD_INIT | ProbeKind.TCP:
            pass


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
