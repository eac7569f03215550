"""The stack that cells are played on: a guest to work on, one that stands by, and the host's own word.

It owns how a cell is played and what is looked at afterwards.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
from framework import guests
from framework.cloud import Cloud, Document, document
from framework.stack import Stack, eventually
from servicekit.failpoints import FREEZE

from realcells.asking import LEADS_TO, Asking
from realcells.cells import Cell
from realcells.strikes import Strikes, held

_IMAGE: Final = "tiny"
_BYSTANDER: Final = "bystander"
_WITHIN_S: Final = 120.0
# At which a launch is that is called off.
_CALLED_OFF_AT: Final = "runner.start.before"


class Stand:
    """Plays cells on one stack.

    Args:
        cloud: The stack, through its API.
        stack: Its processes.
        bucket: The directory of its object store.
        strikes: What can be done to it.
        moment: The file of fail points that its services were started with.
    """

    def __init__(self, cloud: Cloud, stack: Stack, bucket: Path, strikes: Strikes, moment: Path) -> None:
        self.cloud = cloud
        self.stack = stack
        self._bucket = bucket
        self._strikes = strikes
        self._asking = Asking(cloud)
        self._moment = moment
        self._number = 0
        self._bystander_boot = ""

    def ready(self) -> None:
        """Have a guest stand by, booted, whose life no cell is about."""
        self._moment.unlink(missing_ok=True)
        self._strikes.set_clock_right()
        self.stack.wait_ready()
        if not self._bystander_boot:
            self.cloud.launch(_BYSTANDER)
        elif self._state(_BYSTANDER) != "RUNNING":
            self.cloud.verb(_BYSTANDER, "start")
        self.cloud.wait_ready(_BYSTANDER)
        self._bystander_boot = self.cloud.boot_id(_BYSTANDER)

    def play(self, cell: Cell, lasting_s: float) -> None:
        """Play one cell and judge it; what passes by itself lasts `lasting_s`."""
        self._number += 1
        with ThreadPoolExecutor(2) as pool:
            if cell.operation == "upload":
                self._play_upload(cell, lasting_s, pool)
            else:
                self._play(cell, lasting_s, pool)

    def _play(self, cell: Cell, lasting_s: float, pool: ThreadPoolExecutor) -> None:
        name = f"cell-{self._number}"
        instance = self._asking.arranged(cell, name) or {}
        with self._image(cell) as image:
            before = self._starts(cell)
            if cell.operation == "cancelled":
                asked = self._called_off(cell, name, image, pool)
            else:
                self._arm(cell)
                asked = pool.submit(self._asking.ask, cell.operation, name, image)
            if not cell.ends_itself:
                self._strikes.strike(cell, lambda: self._id(name, instance), lasting_s)
            self._restarted(before)
            self.stack.wait_ready()
            operation = asked.result(_WITHIN_S)
            final = self._asking.finished(operation)
            self._strikes.set_clock_right()
            assert not self._moment.exists(), f"{cell.moment} was reached"
            self._judge(cell, name, image, final)
            if self._state(name):
                self.cloud.delete(name)
            self._asking.patiently(lambda: self._is_true(name, image), f"nothing is left of {name}")

    def _judge(self, cell: Cell, name: str, image: str, final: Document) -> None:
        wanted = "CANCELLED" if cell.operation == "cancelled" else "SUCCEEDED"
        assert final["state"] == wanted or cell.excuses_failure, final
        assert not final.get("needsAttention"), final
        look = self._asking.patiently
        look(lambda: self._is_true(name, image), f"what is shown of {name} is what is there")
        shown = self._state(name)
        if final["state"] == wanted and not cell.harms_guests:
            assert shown == LEADS_TO[cell.operation], f"{cell} led to {shown}"
        if not (cell.harms_guests and cell.victim == "vm-host"):
            boot = look(lambda: self.cloud.boot_id(_BYSTANDER), "the bystander answers")
            assert boot == self._bystander_boot, "a guest that the cell is not about was not touched"
        look(lambda: self.cloud.leaks() == [], "nothing is leaked")

    def _called_off(self, cell: Cell, name: str, image: str, pool: ThreadPoolExecutor) -> "Future[str]":
        """Have a launch called off while the runner starts its machine, which waits until that is known."""
        self._moment.write_text(f"{_CALLED_OFF_AT} {FREEZE}")
        asked = pool.submit(self._asking.ask, cell.operation, name, image)
        with held(self.stack, "qemu-runner"):
            operation = asked.result(_WITHIN_S)
            self._arm(cell)
            called_off = pool.submit(self._asking.cancel, operation)
            eventually(
                lambda: called_off.done() or not self._moment.exists(),
                "the controller knows that it is called off",
            )
        return asked

    def _arm(self, cell: Cell) -> None:
        self._moment.write_text(cell.moment if cell.ends_itself else f"{cell.moment} {FREEZE}")

    @contextmanager
    def _image(self, cell: Cell) -> Iterator[str]:
        """Name the image of the cell's machine: one that the host has, or one of which it knows nothing."""
        if not cell.needs_a_new_image:
            yield _IMAGE
            return
        name = f"image-{self._number}"
        self.cloud.upload(name, self._another_image())
        yield name
        assert self.cloud.api.request("DELETE", f"/v1/images/{name}").status_code == 204

    def _another_image(self) -> Path:
        """Return a file with the same disk in it and other bytes: those after a qcow2's end mean nothing."""
        file = self._moment.with_name("another.qcow2")
        shutil.copyfile(guests.tiny(), file)
        with file.open("ab") as added:
            added.write(self._number.to_bytes(8, "big") * 64)
        return file

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
        for record in self.stack.machines_dir.glob("*/machine.json"):
            if f'"{name}"' in record.read_text():
                return record.parent.name
        return "no-machine-yet"

    def _state(self, name: str) -> str:
        found = self._asking.patiently(
            lambda: [self._asking.found(f"/v1/instances/{name}")], f"{name} is told"
        )[0]
        return "" if found is None else str(found["status"]["state"])

    def _is_true(self, name: str, image: str) -> bool:
        """Compare what the API shows with the host's process list and files."""
        shown = self._asking.found(f"/v1/instances/{name}")
        if shown is None:
            used_by = set(document(self.cloud.api.request("GET", f"/v1/images/{image}"))["usedBy"])
            return self._id(name, {}) == "no-machine-yet" and used_by <= {_BYSTANDER}
        processes = len(self.stack.qemu_processes(shown["id"]))
        state = shown["status"]["state"]
        if shown["status"].get("operation"):
            return False
        if state in {"RUNNING", "PAUSED"}:
            return processes == 1
        return state in {"STOPPED", "FAILED"} and processes == 0

    def _play_upload(self, cell: Cell, lasting_s: float, pool: ThreadPoolExecutor) -> None:
        """Have an upload struck at its moment; it is there whole or not at all, and can be had then."""
        name, file = f"upload-{self._number}", self._another_image()
        before, objects = self._starts(cell), self._objects()
        self._arm(cell)
        upload = pool.submit(self._attempt, name, file)
        if not cell.ends_itself:
            self._strikes.strike(cell, lambda: "", lasting_s)
        self._restarted(before)
        wait([upload], _WITHIN_S)
        self.stack.wait_ready()
        assert not self._moment.exists(), f"{cell.moment} was reached"
        found = self._asking.patiently(lambda: [self._asking.found(f"/v1/images/{name}")], f"{name} is told")[
            0
        ]
        if found is not None:
            assert found["state"] == "READY"
        whole = self.cloud.upload(name, file)
        assert found is None or found["digest"] == whole["digest"]
        assert self.cloud.api.request("DELETE", f"/v1/images/{name}").status_code == 204
        self._asking.patiently(lambda: self._objects() == objects, "nothing of the upload is left")

    def _attempt(self, name: str, file: Path) -> None:
        with suppress(AssertionError, httpx.TransportError):
            self.cloud.upload(name, file)

    def _objects(self) -> set[str]:
        """Return what the bucket holds, parts that are not yet objects too, by the host's word."""
        roots = (self._bucket / "images", self._bucket / ".minio.sys" / "multipart")
        return {str(path) for root in roots for path in root.glob("**/*") if path.is_file()}
