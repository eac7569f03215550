"""The stack that cells are played on: a guest to work on, one that stands by, and the host's own word.

It owns how an operation is asked for, how its victim dies, and what is looked at afterwards.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from framework import guests
from framework.cloud import Cloud, Document, document
from framework.stack import Stack, eventually
from servicekit.failpoints import FREEZE

from realcells.cells import Cell

T = TypeVar("T")

SERVICES: Final = ("gateway", "controller", "image-store", "qemu-runner", "vm-host")
FINAL: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
# Which state an operation begins in, and where it leads.
BEGINS: Final = {
    "start": "STOPPED",
    "stop": "RUNNING",
    "restart": "RUNNING",
    "pause": "RUNNING",
    "resume": "PAUSED",
    "reset": "RUNNING",
    "update": "STOPPED",
    "delete": "RUNNING",
}
LEADS_TO: Final = {
    "launch": "RUNNING",
    "start": "RUNNING",
    "stop": "STOPPED",
    "restart": "RUNNING",
    "pause": "PAUSED",
    "resume": "RUNNING",
    "reset": "RUNNING",
    "update": "STOPPED",
    "delete": "",
}
_WITHIN_S: Final = 120.0
_BODY: Final = {"image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}


class Stand:
    """Plays cells on one stack.

    Args:
        cloud: The stack, through its API.
        stack: Its processes.
        moment: The file of fail points that its services were started with.
    """

    def __init__(self, cloud: Cloud, stack: Stack, moment: Path) -> None:
        self.cloud = cloud
        self.stack = stack
        self._moment = moment
        self._number = 0
        self._bystander = ""
        self._bystander_boot = ""

    def ready(self) -> None:
        """Have a guest stand by, booted, whose life no cell is about."""
        self._moment.unlink(missing_ok=True)
        self.stack.wait_ready()
        if not self._bystander:
            self._bystander = self.cloud.launch_ready("bystander")["name"]
        elif self._state(self._bystander) != "RUNNING":
            self.cloud.verb(self._bystander, "start")
        self.cloud.wait_ready(self._bystander)
        self._bystander_boot = self.cloud.boot_id(self._bystander)

    def play(self, cell: Cell) -> None:
        """Play one cell and judge it."""
        if cell.operation == "upload":
            self._play_upload(cell)
            return
        self._number += 1
        name = f"cell-{self._number}"
        instance = self._arranged(cell, name)
        before = self._starts(cell)
        # A key, as a careful client has one: the answer may be lost with the gateway.
        self._moment.write_text(cell.moment if cell.ends_itself else f"{cell.moment} {FREEZE}")
        operation = self._asked(cell, name)
        if not cell.ends_itself:
            with self._held():
                instance = instance or {}
                self._kill(cell.victim, self._id(name, instance))
        self._restarted(before)
        self.stack.wait_ready()
        assert not self._moment.exists(), f"{cell.moment} was reached"
        final = self._patiently(lambda: self._finished(operation), f"{operation} has ended")
        self._judge(cell, name, final)
        self._gone(name)

    def _judge(self, cell: Cell, name: str, final: Document) -> None:
        if not cell.harms_guests:
            assert final["state"] == "SUCCEEDED", final
        assert not final.get("needsAttention"), final
        self._patiently(lambda: self._is_true(name), f"what is shown of {name} is what is there")
        shown = self._state(name)
        if final["state"] == "SUCCEEDED" and not cell.harms_guests:
            assert shown == LEADS_TO[cell.operation], f"{cell} led to {shown}"
        if cell.victim != "vm-host":
            assert self._patiently(lambda: self.cloud.boot_id(self._bystander), "the bystander answers") == (
                self._bystander_boot
            ), "a guest that the cell is not about was not touched"
        self._patiently(lambda: self.cloud.leaks() == [], "nothing is leaked")

    def _arranged(self, cell: Cell, name: str) -> Document | None:
        """Have an instance in the state that the operation begins in."""
        begins = BEGINS.get(cell.operation)
        if begins is None:
            return None
        instance = self.cloud.launch(name, start=begins != "STOPPED")
        if begins == "PAUSED":
            instance = self.cloud.verb(name, "pause")
        assert instance["status"]["state"] == begins
        return instance

    def _asked(self, cell: Cell, name: str) -> str:
        """Ask for the operation and return its path."""
        headers = {"Idempotency-Key": f"{cell}-{name}"}
        path = f"/v1/instances/{name}"

        def ask() -> httpx.Response | None:
            with suppress(httpx.TransportError):
                match cell.operation:
                    case "launch":
                        body: Any = {"name": name, **_BODY}
                        return self.cloud.api.request("POST", "/v1/instances", json=body, headers=headers)
                    case "update":
                        body = {"vm": {"memory": "300M"}}
                        merge = {**headers, "Content-Type": "application/merge-patch+json"}
                        return self.cloud.api.request("PATCH", path, json=body, headers=merge)
                    case "delete":
                        force = {"force": "true"}
                        return self.cloud.api.request("DELETE", path, params=force, headers=headers)
                    case verb:
                        body = {"timeout": "2s"} if verb in {"stop", "restart"} else {}
                        return self.cloud.api.request("POST", f"{path}/{verb}", json=body, headers=headers)
            return None

        response = eventually(ask, "the gateway answers")
        assert response.status_code == 202, response.text
        return response.headers["Location"]

    def _held(self) -> "_Held":
        return _Held(self.stack)

    def _kill(self, victim: str, instance_id: str) -> None:
        match victim:
            case "QEMU":
                for pid in self.stack.qemu_processes(instance_id):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            case "dnsmasq":
                for pid in _children(self.stack.process("qemu-runner").pid, "dnsmasq"):
                    os.kill(pid, signal.SIGKILL)
            case service:
                starts = self.stack.starts(service)
                self.stack.kill(service)
                eventually(lambda: self.stack.starts(service) > starts, f"{service} is started again")

    def _starts(self, cell: Cell) -> dict[str, int]:
        return {cell.victim: self.stack.starts(cell.victim)} if cell.ends_itself else {}

    def _restarted(self, before: dict[str, int]) -> None:
        for service, starts in before.items():
            eventually(
                lambda service=service, starts=starts: self.stack.starts(service) > starts,  # type: ignore[misc]
                f"{service} has died and is started again",
            )

    def _id(self, name: str, instance: Document) -> str:
        """Return the id; while the controller stands still only the host can tell that of a new instance."""
        if "id" in instance:
            return str(instance["id"])
        machines = self.stack.layout.state / "runner" / "machines"
        for record in machines.glob("*/machine.json"):
            if f'"{name}"' in record.read_text():
                return record.parent.name
        return "no-machine-yet"

    def _finished(self, operation: str) -> Document | None:
        found = document(self.cloud.api.request("GET", operation))
        return found if found["state"] in FINAL else None

    def _state(self, name: str) -> str:
        response = self.cloud.api.request("GET", f"/v1/instances/{name}")
        return "" if response.status_code == 404 else str(document(response)["status"]["state"])

    def _is_true(self, name: str) -> bool:
        """Compare what the API shows with the host's process list and files."""
        response = self.cloud.api.request("GET", f"/v1/instances/{name}")
        if response.status_code == 404:
            found = self._id(name, {})
            return found == "no-machine-yet" and self._pins() <= {"bystander"}
        shown = document(response)
        processes = len(self.stack.qemu_processes(shown["id"]))
        state = shown["status"]["state"]
        if shown["status"].get("operation"):
            return False
        if state in {"RUNNING", "PAUSED"}:
            return processes == 1
        return state in {"STOPPED", "FAILED"} and processes == 0

    def _pins(self) -> set[str]:
        return set(document(self.cloud.api.request("GET", "/v1/images/tiny"))["usedBy"])

    def _gone(self, name: str) -> None:
        if self._state(name):
            self.cloud.delete(name)
        self._patiently(lambda: self._is_true(name), f"nothing is left of {name}")

    def _play_upload(self, cell: Cell) -> None:
        """Have an upload broken off at its moment; it is there whole or not at all, and can be had then."""
        name = "upload-cell"
        starts = self.stack.starts(cell.victim)
        self._moment.write_text(cell.moment if cell.ends_itself else f"{cell.moment} {FREEZE}")
        if cell.ends_itself:
            with suppress(AssertionError, httpx.TransportError):
                self.cloud.upload(name, guests.tiny())
        else:
            self._upload_with_a_dying_gateway(cell, name)
        eventually(lambda: self.stack.starts(cell.victim) > starts, f"{cell.victim} is started again")
        self.stack.wait_ready()
        assert not self._moment.exists(), f"{cell.moment} was reached"
        response = self.cloud.api.request("GET", f"/v1/images/{name}")
        if response.status_code == 200:
            assert document(response)["state"] == "READY"
        stored = self.cloud.upload(name, guests.tiny())
        whole = document(self.cloud.api.request("GET", "/v1/images/tiny"))
        assert stored["digest"] == whole["digest"]
        assert self.cloud.api.request("DELETE", f"/v1/images/{name}").status_code in {200, 204}
        uploads = self.stack.layout.state / "image-store" / "uploads"
        self._patiently(lambda: not any(uploads.iterdir()), "nothing of the upload is left")

    def _upload_with_a_dying_gateway(self, cell: Cell, name: str) -> None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        with ThreadPoolExecutor(1) as pool:
            upload = pool.submit(self.cloud.upload, name, guests.tiny())
            with _Held(self.stack, "image-store"):
                self.stack.kill(cell.victim)
            with suppress(AssertionError, httpx.TransportError):
                upload.result(_WITHIN_S)

    def _patiently(self, look: Callable[[], T | None], what: str) -> T:
        """Look until it is so; a gateway that has just come back may cut a connection."""

        def patient() -> T | None:
            with suppress(httpx.TransportError):
                return look()
            return None

        return eventually(patient, what, within_s=_WITHIN_S)


class _Held:
    """For the length of a block: wait until a service stands still at its moment; then let it go on."""

    def __init__(self, stack: Stack, service: str = "controller") -> None:
        self._process = stack.process(service)

    def __enter__(self) -> None:
        eventually(lambda: _stands_still(self._process.pid), "the moment is reached")

    def __exit__(self, *_: object) -> None:
        self._process.signal(signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _children(parent: int, program: str) -> list[int]:
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if Path(words[0].decode()).name.startswith(program):
            found.append(int(pid))
    return found
