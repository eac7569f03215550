"""`up`, `down` and `clean` of a native stack that runs in the background."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qcstack.answering import READY_WITHIN_S, StackError, ask_ready, wait_answering
from qcstack.layout import ENDING, StackLayout
from qcstack.processes import ProcessId
from qcstack.running import SUPERVISOR, ServiceStatus, StackStatus, processes, status, supervisor_arguments

__all__ = [
    "ServiceStatus",
    "StackError",
    "StackStatus",
    "arguments_of",
    "clean",
    "down",
    "end_leftovers",
    "launch_supervisor",
    "refuse_taken_ports",
    "status",
    "up",
    "wait_answering",
    "wait_ready",
]

_KILLED_WITHIN_S: Final = 10.0
_ASK_WITHIN_S: Final = 10.0


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
            except PermissionError as exc:
                raise StackError(
                    f"127.0.0.1:{port} needs a privilege that you lack; choose another with {variable}="
                ) from exc
            except OSError as exc:
                raise StackError(
                    f"127.0.0.1:{port} is taken ({exc.strerror}): another stack or program listens there. "
                    f"Stop it (`make down` for a stack of this checkout), or choose another with {variable}="
                ) from exc


def launch_supervisor(layout: StackLayout, *, owner: ProcessId | None = None) -> "subprocess.Popen[bytes]":
    """Create the layout and start a supervisor for it in a session of its own.

    However `owner` ends, if one is given, the stack ends with it.

    Raises:
        LayoutError: The state directory cannot hold a stack.
    """
    layout.create()
    with layout.log_file(SUPERVISOR).open("ab") as log:
        return subprocess.Popen(
            [
                sys.executable,
                *supervisor_arguments(layout),
                *arguments_of(layout),
                *([f"--owner={owner.pid}:{owner.start_ticks}"] if owner else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": _python_path()},
        )


def _python_path() -> str:
    """Return the caller's PYTHONPATH with this package's folder, which it may have found another way."""
    folder = str(Path(__file__).parents[1])
    return os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), folder)))


def arguments_of(layout: StackLayout) -> list[str]:
    """Return the command line options that describe `layout`, but for its state directory."""
    return [
        f"--port={layout.gateway_port}",
        f"--controller-port={layout.controller_port}",
        f"--image-store-port={layout.image_store_port}",
        f"--otlp-endpoint={layout.otlp_endpoint}",
        f"--stop-grace={layout.stop_grace}",
        f"--accelerator={layout.accelerator}",
        f"--default-network={layout.default_network}",
        f"--bridge={layout.bridge}",
        f"--bridge-subnet={layout.bridge_subnet}",
    ]


def up(layout: StackLayout) -> None:
    """Start a stack in the background and wait until /readyz says READY; a running one is left alone.

    Raises:
        StackError: A port is taken, the stack runs already on another port, or it is not ready in time (it
            is ended again).
        LayoutError: The state directory cannot hold a stack.
    """
    layout.claim()
    process = None
    try:
        with _alone(layout):
            running = status(layout)
            _refuse_other_port(layout, running)
            if running.supervisor is None:
                if running.left:
                    print(f"ending what a killed supervisor left: {', '.join(running.left)}", file=sys.stderr)
                    end_leftovers(layout)
                refuse_taken_ports(layout)
                process = launch_supervisor(layout)
        wait_ready(layout, process)
    except BaseException:
        if process is not None:
            down(layout)
        raise


def _refuse_other_port(layout: StackLayout, running: StackStatus) -> None:
    if running.supervisor is not None and running.base_url not in {"", layout.base_url}:
        raise StackError(
            f"the stack in {layout.state} runs already, at {running.base_url}: stop it first "
            "(`make down`), or give another STATE="
        )


def wait_ready(layout: StackLayout, process: "subprocess.Popen[bytes] | None") -> None:
    """Wait until /readyz says READY; `process` is the supervisor if the caller started it.

    Raises:
        StackError: It did not in time, or the supervisor ended.
    """
    last = "no answer yet"
    give_up = time.monotonic() + READY_WITHIN_S
    supervisor = None if process is not None else status(layout).supervisor
    while time.monotonic() < give_up:
        gone = process.poll() is not None if process is not None else not (supervisor and supervisor.alive())
        if gone:
            raise StackError(f"the supervisor ended: {_last_line(layout)}; see {layout.log_file(SUPERVISOR)}")
        ready, last = ask_ready(layout)
        if ready:
            return
        # Before the gateway listens there is nobody who could tell when it will.
        time.sleep(0.05)
    died = [
        f"{name} ({service.exits[-1]})" for name, service in status(layout).services.items() if service.exits
    ]
    raise StackError(
        f"not ready after {READY_WITHIN_S:.0f} s: {last}; "
        + (f"ended and restarted: {', '.join(died)}; " if died else "")
        + f"logs are in {layout.state / 'log'}"
    )


def down(layout: StackLayout) -> None:
    """End the stack: guests are powered down, no process, socket, bridge or rule stays.

    Raises:
        StackError: Something did not end.
        LayoutError: The state directory is somebody else's.
    """
    layout.refuse_foreign()
    with _alone(layout):
        supervisor = status(layout).supervisor
        if supervisor is not None:
            _end(supervisor, sum(map(layout.end_within_s, ENDING)) + _KILLED_WITHIN_S)
        end_leftovers(layout)
        _clean_behind_killed_runner(layout)
        left = {name: [one.pid for one in group] for name, group in processes(layout).items() if group}
        if left:
            raise StackError(f"these do not end: {left}; logs are in {layout.state / 'log'}")
        layout.clear_run()


def clean(layout: StackLayout) -> None:
    """End the stack and remove its state.

    Raises:
        StackError: Something did not end.
        LayoutError: The state directory is not a stack's, or cannot be removed.
    """
    down(layout)
    layout.remove()


def end_leftovers(layout: StackLayout) -> None:
    """End services that run without their supervisor, in the order in which it would have ended them."""
    for name in ENDING:
        for process in processes(layout)[name]:
            _end(process, layout.end_within_s(name))


def _clean_behind_killed_runner(layout: StackLayout) -> None:
    """Have one more runner take away what a killed one left on the host: told to end, a runner does that.

    vm-host has ended by now, so no machine needs any of it.
    """
    if not _left_bridge(layout):
        return
    socket_path = Path(layout.socket("controller-runner", "runner"))
    socket_path.unlink(missing_ok=True)
    with layout.log_file("qemu-runner").open("ab") as log:
        runner = subprocess.Popen(
            [sys.executable, *layout.service_arguments("qemu-runner")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    give_up = time.monotonic() + READY_WITHIN_S
    # Before it serves it could not hear.
    while not socket_path.exists() and runner.poll() is None and time.monotonic() < give_up:
        time.sleep(0.05)
    runner.terminate()
    try:
        runner.wait(layout.end_within_s("qemu-runner"))
    except subprocess.TimeoutExpired:
        runner.kill()
        runner.wait()
    if _left_bridge(layout):
        raise StackError(
            f"the bridge of the stack in {layout.state} is still there; see {layout.log_file('qemu-runner')}"
        )


def _left_bridge(layout: StackLayout) -> bool:
    """Tell whether the bridge that this stack was configured with stands, with its runner's mark."""
    try:
        settings = json.loads(layout.config_file("qemu-runner").read_text(encoding="utf-8"))
        bridge = str(settings["bridgeNetwork"]["interface"])
        # Not from /sys, which shows the network namespace that it was mounted in.
        words = ["ip", "-j", "link", "show", "dev", bridge]
        shown = subprocess.run(words, capture_output=True, check=False, timeout=_ASK_WITHIN_S)
        links = json.loads(shown.stdout) if shown.returncode == 0 else []
    except (FileNotFoundError, KeyError, ValueError):
        return False
    return any(str(layout.state / "runner") in link.get("ifalias", "") for link in links)


def _end(process: ProcessId, within_s: float) -> None:
    process.signal(signal.SIGTERM)
    # One that was stopped would not hear it.
    process.signal(signal.SIGCONT)
    if not process.wait_gone(within_s):
        process.signal(signal.SIGKILL)
        process.wait_gone(_KILLED_WITHIN_S)


@contextlib.contextmanager
def _alone(layout: StackLayout) -> Iterator[None]:
    """Keep other `up`s and `down`s of this stack waiting, until this process leaves or dies."""
    if not layout.state.is_dir():
        yield
        return
    with (layout.state / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another `up` or `down` of this stack", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _last_line(layout: StackLayout) -> str:
    try:
        lines = layout.log_file(SUPERVISOR).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "it left no log"
    return lines[-1] if lines else "it said nothing"
