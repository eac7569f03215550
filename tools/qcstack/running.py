"""What runs of a native stack.

It is read from the process list, not from files: a supervisor that was killed, or has only just been started,
left no file that could be trusted. What the supervisor noted is added.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from qcstack.layout import SERVICES, StackLayout
from qcstack.processes import ProcessId, find

SUPERVISOR: Final = "supervisor"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What is known of one service."""

    process: ProcessId | None
    starts: int = 0
    exits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StackStatus:
    """What is running: the supervisor, if it lives, and its services; `base_url` may be unknown ("")."""

    supervisor: ProcessId | None
    services: dict[str, ServiceStatus] = field(default_factory=dict)
    base_url: str = ""

    @property
    def left(self) -> list[str]:
        """Names of services that run although their supervisor does not."""
        if self.supervisor is not None:
            return []
        return [name for name, service in self.services.items() if service.process is not None]


def status(layout: StackLayout) -> StackStatus:
    """Look which processes of this stack run; what the supervisor noted of them is added."""
    found = processes(layout)
    noted = _noted(layout)
    supervisor = found[SUPERVISOR][0] if found[SUPERVISOR] else _noted_supervisor(noted)
    services = {}
    for name in SERVICES:
        entry = noted.get("services", {}).get(name, {})
        services[name] = ServiceStatus(
            found[name][0] if found[name] else None,
            int(entry.get("starts", 0)),
            tuple(entry.get("exits", ())),
        )
    return StackStatus(supervisor, services, str(noted.get("baseUrl", "")))


def processes(layout: StackLayout) -> dict[str, list[ProcessId]]:
    """Return the processes of the supervisor and of each service."""
    services = {name: layout.service_arguments(name) for name in SERVICES}
    return find({SUPERVISOR: supervisor_arguments(layout), **services})


def supervisor_arguments(layout: StackLayout) -> list[str]:
    """Return the words by which a supervisor is started, and known again."""
    return ["-m", "qcstack", "supervise", f"--state={layout.state}"]


def _noted(layout: StackLayout) -> dict[str, Any]:
    """Return what the supervisor wrote last; empty where there is nothing whole."""
    try:
        document = json.loads(layout.status_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _noted_supervisor(noted: dict[str, Any]) -> ProcessId | None:
    """Return the supervisor that wrote the file, if it lives: one started by hand has other arguments."""
    process = ProcessId(int(noted.get("pid", 0)), int(noted.get("startTicks", 0)))
    return process if process.pid and process.alive() else None
