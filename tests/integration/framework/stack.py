"""One native stack for tests: ports and state of its own, services that can be killed and are waited for.

Uses only what a user has too: the supervisor, its status file, signals.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest import mock

from qcstack import lifecycle
from qcstack.free_bridge import choose_bridge
from qcstack.layout import StackLayout
from qcstack.processes import ProcessId

from framework.databases import databases

T = TypeVar("T")
_WITHIN_S: Final = 60.0
_KEPT_PER_MACHINE: Final = ("machine.json", "console.log", "stderr.log", "qmp.log")


class NotInTimeError(AssertionError):
    """What a test waits for did not come about."""


def eventually(look: Callable[[], T | None], what: str, within_s: float = _WITHIN_S) -> T:
    """Return the first value of `look` that is neither None nor False.

    For things of the host that announce nothing (processes, files); the API has waits of its own.
    """
    give_up = time.monotonic() + within_s
    while True:
        value = look()
        if value is not None and value is not False:
            return value
        if time.monotonic() > give_up:
            raise NotInTimeError(f"not within {within_s:.0f} s: {what}")
        time.sleep(0.02)


@dataclass(slots=True)
class Stack:
    """A stack under test."""

    layout: StackLayout

    @property
    def base_url(self) -> str:
        """URL of the gateway."""
        return self.layout.base_url

    def process(self, service: str) -> ProcessId:
        """Return the process that runs `service` now; wait for it where it is being restarted."""
        return eventually(
            lambda: lifecycle.status(self.layout).services[service].process, f"{service} is running"
        )

    def starts(self, service: str) -> int:
        """Return how many times `service` has been started."""
        return lifecycle.status(self.layout).services[service].starts

    def kill(self, service: str) -> None:
        """End `service` by SIGKILL and wait until its process is gone."""
        process = self.process(service)
        assert process.signal(signal.SIGKILL)
        assert process.wait_gone(10)

    def kill_and_wait_restarted(self, service: str) -> None:
        """End `service` by SIGKILL and wait until the stack is ready again with a new one."""
        starts = self.starts(service)
        self.kill(service)
        eventually(lambda: self.starts(service) > starts, f"{service} is started again")
        self.wait_ready()

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """Hold `service` still (SIGSTOP): it neither answers nor hangs up."""
        process = self.process(service)
        assert process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)

    @contextmanager
    def away(self, service: str) -> Iterator[None]:
        """Keep `service` from running: the supervisor is held still so that it starts no other."""
        supervisor = lifecycle.status(self.layout).supervisor
        assert supervisor is not None
        assert supervisor.signal(signal.SIGSTOP)
        try:
            self.kill(service)
            yield
        finally:
            supervisor.signal(signal.SIGCONT)

    def wait_ready(self) -> None:
        """Wait until /readyz says READY."""
        lifecycle.wait_ready(self.layout, None)

    def qemu_processes(self, instance_id: str) -> list[int]:
        """Return the pids of the QEMU processes that run `instance_id`, as the host sees them."""
        return qemu_processes(instance_id)

    @property
    def machines_dir(self) -> Path:
        """Where the runner keeps its machines."""
        return self.layout.state / "runner" / "machines"

    def machine_dir(self, instance_id: str) -> Path:
        """Return where the runner keeps the machine's files."""
        return self.machines_dir / instance_id

    def pending_uploads(self) -> list[str]:
        """Return the files of uploads that are not yet images."""
        return [path.name for path in (self.layout.state / "image-store" / "uploads").glob("*")]

    def logs(self) -> dict[str, str]:
        """Return what each service has said so far."""
        files = (self.layout.state / "log").glob("*.log")
        return {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in files}

    def gateways(self) -> list[str]:
        """Return none: plain processes have the host's own addresses."""
        return []

    def inner_doors(self) -> list[tuple[str, int]]:
        """Return none: plain processes meet on unix sockets."""
        return []

    def keep_evidence(self, folder: Path) -> None:
        """Copy logs, records and consoles."""
        for service, text in self.logs().items():
            (folder / f"{service}.log").write_text(text, encoding="utf-8")
        keep_machines(self.machines_dir, folder)


def qemu_processes(instance_id: str) -> list[int]:
    """Return the pids of the QEMU processes that run `instance_id`, in whatever container they are."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            program = os.path.basename(words[0]).decode(errors="replace")  # noqa: PTH119 - argv, not a path
            if program.startswith("qemu-system-") and instance_id.encode() in words:
                found.append(int(entry.name))
    return found


def keep_machines(machines: Path, folder: Path) -> None:
    """Copy what tells of each machine below `machines`."""
    for machine in machines.glob("*"):
        target = folder / machine.name
        target.mkdir()
        for name in _KEPT_PER_MACHINE:
            if (machine / name).is_file():
                shutil.copy(machine / name, target)


def _nothing(layout: StackLayout) -> AbstractContextManager[None]:
    del layout
    return nullcontext()


@contextmanager
def running_stack(
    prefix: str = "qc-it-",
    *,
    state_mib: int | None = None,
    beside: Callable[[StackLayout], AbstractContextManager[None]] = _nothing,
    **settings: Any,
) -> Iterator[Stack]:
    """Run a stack on free ports, in a directory and on a bridge of its own; end and remove it afterwards.

    `settings` are fields of StackLayout (otlp_endpoint, stop_grace, accelerator, default_network, bridge).
    With `state_mib` the directory is a file system of its own of that size, which can run full; that needs
    root. What stands `beside` the stack is there before it is waited for, and until it is ended.
    """
    state = Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp"))
    gateway_port, controller_port, image_store_port = free_ports(3)
    bridge = choose_bridge()
    layout = StackLayout(
        state,
        gateway_port=gateway_port,
        controller_port=controller_port,
        image_store_port=image_store_port,
        **{"stop_grace": "10s", "bridge": bridge.name, "bridge_subnet": bridge.subnet, **settings},
    )
    if state_mib is not None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={state_mib}m", "qc-test", state], check=True)
    try:
        with databases() as environment:
            with mock.patch.dict(os.environ, environment):
                process = lifecycle.launch_supervisor(layout)
            try:
                with beside(layout):
                    lifecycle.wait_ready(layout, process)
                    yield Stack(layout)
            finally:
                lifecycle.down(layout)
                _reap(process)
    finally:
        if state_mib is not None:
            subprocess.run(["umount", state], check=True)
        shutil.rmtree(state)


def _reap(process: "subprocess.Popen[bytes]") -> None:
    process.wait(timeout=30)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
