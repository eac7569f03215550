"""`up`, `down` and `status` of a native stack that runs in the background."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qcstack.layout import StackLayout
from qcstack.processes import ProcessId

_READY_WITHIN_S: Final = 60.0
_DOWN_WITHIN_S: Final = 160.0


class StackError(Exception):
    """Something that keeps a stack from starting or ending; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What the supervisor tells of one service."""

    process: ProcessId | None
    starts: int
    exits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StackStatus:
    """What is running: the supervisor, if it lives, and its services."""

    supervisor: ProcessId | None
    services: dict[str, ServiceStatus] = field(default_factory=dict)


def status(layout: StackLayout) -> StackStatus:
    """Read the supervisor's status file; processes that have ended are not shown."""
    try:
        document = json.loads(layout.status_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return StackStatus(None)
    services = {
        name: ServiceStatus(_living(entry), int(entry["starts"]), tuple(entry["exits"]))
        for name, entry in document["services"].items()
    }
    return StackStatus(_living(document), services)


def refuse_taken_ports(layout: StackLayout) -> None:
    """Check that the stack's ports are free.

    Raises:
        StackError: One is taken; nothing was touched.
    """
    for port, variable in (
        (layout.gateway_port, "PORT"),
        (layout.controller_port, "CONTROLLER_PORT"),
        (layout.image_store_port, "IMAGE_STORE_PORT"),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as exc:
                raise StackError(
                    f"127.0.0.1:{port} is taken ({exc.strerror}): another stack or program listens there. "
                    f"Stop it (`make down` for a stack of this checkout), or choose another with {variable}="
                ) from exc


def launch_supervisor(layout: StackLayout) -> "subprocess.Popen[bytes]":
    """Create the layout and start a supervisor for it in a session of its own."""
    layout.create()
    with layout.log_file("supervisor").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "qcstack", "supervise", *arguments_of(layout)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # The package is run from the checkout, not installed.
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )


def arguments_of(layout: StackLayout) -> list[str]:
    """Return the command line options that describe `layout`."""
    return [
        f"--state={layout.state}",
        f"--port={layout.gateway_port}",
        f"--controller-port={layout.controller_port}",
        f"--image-store-port={layout.image_store_port}",
        f"--otlp-endpoint={layout.otlp_endpoint}",
        f"--stop-grace={layout.stop_grace}",
        f"--accelerator={layout.accelerator}",
    ]


def up(layout: StackLayout) -> None:
    """Start a stack in the background and wait until /readyz says READY; a running one is left alone.

    Raises:
        StackError: A port is taken, or the stack is not ready in time (it is ended again).
    """
    if status(layout).supervisor is not None:
        wait_ready(layout, None)
        return
    end_leftovers(layout)
    refuse_taken_ports(layout)
    process = launch_supervisor(layout)
    try:
        wait_ready(layout, process)
    except BaseException:
        down(layout)
        raise


def wait_ready(layout: StackLayout, process: "subprocess.Popen[bytes] | None") -> None:
    """Wait until /readyz answers 200.

    Raises:
        StackError: It did not in time, or the supervisor ended.
    """
    last = "no answer yet"
    give_up = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < give_up:
        if process is not None and process.poll() is not None:
            raise StackError(f"the supervisor ended; see {layout.log_file('supervisor')}")
        ready, last = _ask_ready(layout)
        if ready:
            return
        # Before the gateway listens there is nobody who could tell when it will.
        time.sleep(0.05)
    raise StackError(f"not ready after {_READY_WITHIN_S:.0f} s: {last}; logs are in {layout.state / 'log'}")


def down(layout: StackLayout) -> None:
    """End the stack: guests are powered down, no process, socket or rule stays.

    Raises:
        StackError: Something did not end.
    """
    supervisor = status(layout).supervisor
    if supervisor is not None:
        supervisor.signal(signal.SIGTERM)
        if not supervisor.wait_gone(_DOWN_WITHIN_S):
            raise StackError(
                f"the supervisor (pid {supervisor.pid}) does not end; see {layout.state / 'log'}"
            )
    end_leftovers(layout)
    run = layout.state / "run"
    if run.is_dir():
        shutil.rmtree(run)


def end_leftovers(layout: StackLayout) -> None:
    """End services whose supervisor was killed."""
    left = [service.process for service in status(layout).services.values() if service.process is not None]
    for process in left:
        process.signal(signal.SIGTERM)
    for process in left:
        if not process.wait_gone(_DOWN_WITHIN_S):
            process.signal(signal.SIGKILL)
            process.wait_gone(5)
    layout.status_file.unlink(missing_ok=True)


def _living(entry: dict[str, int]) -> ProcessId | None:
    process = ProcessId(entry["pid"], entry["startTicks"])
    return process if process.pid and process.alive() else None


def _ask_ready(layout: StackLayout) -> tuple[bool, str]:
    connection = http.client.HTTPConnection("127.0.0.1", layout.gateway_port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            return response.status == http.HTTPStatus.OK, response.read().decode(errors="replace")
        except OSError as exc:
            return False, os.strerror(exc.errno) if exc.errno else str(exc)
