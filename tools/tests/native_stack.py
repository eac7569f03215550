"""Stacks of five stand-in services, driven by the real command line and the real supervisor.

The stand-ins are found before the real packages on PYTHONPATH. Each writes what happens to it to a journal.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from qcstack import lifecycle
from qcstack.layout import SERVICES, StackLayout
from qcstack.processes import ProcessId

DEADLINE_S = 20.0
TOOLS = Path(__file__).resolve().parents[1]
STAND_IN = """
import http.server, json, os, signal, sys, threading
name = sys.argv[0].rpartition("/")[2].removesuffix(".py")
def note(what):
    with open(os.environ["STAND_IN_JOURNAL"], "a") as journal:
        journal.write(f"{name} {what}\\n")
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "READY"}')
    def do_PUT(self):
        note("is sent a body")
        threading.Event().wait()
    def log_message(self, *words):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if name == "gateway":
    port = int(json.load(open(sys.argv[2]))["listen"].rpartition(":")[2])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Ready)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
note("begins")
signal.sigwait([signal.SIGTERM])
note("ends")
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NativeStack:
    """One state directory, and the commands for it."""

    layout: StackLayout
    journal: Path
    environment: dict[str, str]

    def argv(self, command: str, *more: str) -> list[str]:
        options = [f"--state={self.layout.state}", *lifecycle.arguments_of(self.layout)]
        return [sys.executable, "-m", "qcstack", command, *options, *more]

    def begin(self, command: str, *more: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.argv(command, *more),
            env=self.environment | environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, *more: str, **environment: str) -> tuple[int, str]:
        process = self.begin(command, *more, **environment)
        output, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, output

    def up(self) -> None:
        code, output = self.run("up")
        assert code == 0, output

    @property
    def supervisor(self) -> ProcessId:
        found = lifecycle.status(self.layout).supervisor
        assert found is not None
        return found

    def service(self, name: str) -> ProcessId:
        return eventually(lambda: lifecycle.status(self.layout).services[name].process)

    def running(self) -> set[str]:
        found = lifecycle.status(self.layout)
        names = {name for name, service in found.services.items() if service.process is not None}
        return names | ({"supervisor"} if found.supervisor else set())

    def events(self, what: str) -> list[str]:
        lines = self.journal.read_text(encoding="utf-8").splitlines()
        return [line.removesuffix(f" {what}") for line in lines if line.endswith(f" {what}")]


@contextmanager
def native_stack() -> Iterator[NativeStack]:
    """Give a stack that has not been started; kill whatever is left of it afterwards."""
    with ExitStack() as stack:
        # Sockets have little room for long paths.
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qc-t-", dir="/var/tmp")))
        stand_ins = parent / "stand-ins"
        stand_ins.mkdir()
        for package in SERVICES.values():
            (stand_ins / f"{package}.py").write_text(STAND_IN, encoding="utf-8")
        journal = parent / "journal"
        journal.touch()
        gateway, controller, image_store = free_ports(3)
        layout = StackLayout(parent / "s", gateway, controller, image_store, stop_grace="1s")
        environment = {
            **os.environ,
            "PYTHONPATH": f"{stand_ins}:{TOOLS}",
            "STAND_IN_JOURNAL": str(journal),
        }
        native = NativeStack(layout, journal, environment)
        try:
            yield native
        finally:
            found = lifecycle.status(layout)
            for process in [found.supervisor, *(service.process for service in found.services.values())]:
                if process is not None:
                    process.signal(signal.SIGKILL)
                    process.wait_gone(DEADLINE_S)


def free_ports(count: int) -> Sequence[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def eventually(look: Callable[[], T | None]) -> T:
    """Return what `look` finds as soon as it does: other processes have no event to wait for."""
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        with suppress(FileNotFoundError):
            if found := look():
                return found
        time.sleep(0.01)
    raise AssertionError("not in time")
