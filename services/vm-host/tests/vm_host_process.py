"""A real vm-host process, and a raw client that says exactly what a test wants to say."""

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from vm_host.cgroups import Cgroups

DEADLINE_S = 20.0
PROGRAMS = ("sh", "cat", "sleep", "true")

_uids = itertools.count(20001)

FAKE_QEMU = Path(__file__).with_name("fake_qemu.py")


class RefusedAnswer(Exception):  # noqa: N818  # what the server said, not a fault of the test
    """The answer to a request was an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class RawClient:
    """A blocking client; every wait has a deadline."""

    def __init__(self, path: Path, *, hello: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(str(path))
        self.ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = self.call("hello", versions=[1]) if hello else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()

    def send(self, op: str, descriptors: Sequence[int] = (), /, **body: Any) -> int:
        request_id = next(self.ids)
        message = json.dumps({"id": request_id, "op": op, **body}).encode()
        socket.send_fds(self.sock, [message], list(descriptors))
        return request_id

    def receive(self) -> dict[str, Any]:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        message: dict[str, Any] = json.loads(data)
        return message

    def answer(self) -> dict[str, Any]:
        while "event" in (message := self.receive()):
            self.events.append(message)
        if "error" in message:
            raise RefusedAnswer(message["error"]["code"], message["error"]["message"])
        result: dict[str, Any] = message["result"]
        return result

    def call(self, op: str, descriptors: Sequence[int] = (), /, **body: Any) -> dict[str, Any]:
        self.send(op, descriptors, **body)
        return self.answer()

    def spawn(self, *argv: str, **fields: Any) -> dict[str, Any]:
        passed: dict[str, int] = fields.pop("fds", {})
        body: dict[str, Any] = {"handle": handle(), "argv": list(argv), "fds": list(passed)}
        return self.call("spawn", tuple(passed.values()), **{**body, **identity(), **fields})

    def event(self) -> dict[str, Any]:
        return self.events.pop(0) if self.events else self.receive()

    def exit_of(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Wait for the exit of this handle; the client must be watching."""
        while True:
            event = self.event()
            if event["event"] == "exit" and event["child"]["handle"] == wanted:
                ended: dict[str, Any] = event["child"]["exit"]
                return ended


class VmHostProcess:
    """One ``python -m vm_host``."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.socket_path = directory / "vm-host.sock"
        config = directory / "vm-host.json"
        values = {"socketPath": str(self.socket_path), "allowedPrograms": list(PROGRAMS), "stopGrace": "2s"}
        config.write_text(json.dumps({**values, **settings}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vm_host", "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("QC_")},
        )
        self.log: list[dict[str, Any]] = []

    def wait_until_listening(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == "listening":
                return
        raise AssertionError(f"vm-host ended: {self.log}")

    def client(self, *, hello: bool = True) -> RawClient:
        return RawClient(self.socket_path, hello=hello)

    def watcher(self) -> RawClient:
        client = self.client()
        client.call("watch")
        return client

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        # communicate drains the log: a full pipe would block vm-host.
        _out, err = self.process.communicate(timeout=DEADLINE_S)
        self.log.extend(json.loads(line) for line in err.splitlines())
        return self.process.returncode


@contextlib.contextmanager
def running_vm_host(directory: Path, **settings: Any) -> Iterator[VmHostProcess]:
    """Run a vm-host until the block ends, however it ends; its log must hold no defect."""
    host = VmHostProcess(directory, **settings)
    try:
        host.wait_until_listening()
        yield host
        if host.process.poll() is None:
            host.stop()
        defects = [line for line in host.log if "exception" in line]
        assert not defects, defects
    finally:
        if host.process.poll() is None:
            host.process.kill()
        if host.process.stderr is not None and not host.process.stderr.closed:
            host.process.communicate(timeout=DEADLINE_S)
        remove_cgroups(host.socket_path)


def remove_cgroups(socket_path: Path) -> None:
    """Remove what a vm-host that was killed could not, once its children have ended."""
    root = Cgroups.of(socket_path).root
    if root is None:
        return
    for events in root.glob("*/cgroup.events"):
        with events.open() as file:
            poll = select.poll()
            poll.register(file, select.POLLPRI)
            while "populated 1" in file.read() and poll.poll(DEADLINE_S * 1000):
                file.seek(0)
    Cgroups(root).close()


def handle(role: str = "qemu", machine_id: str | None = None, incarnation: int = 1) -> dict[str, Any]:
    return {"machineId": machine_id or str(uuid.uuid4()), "role": role, "incarnation": incarnation}


def identity() -> dict[str, int]:
    """Return a uid and gid of its own for a child, where vm-host is root."""
    if os.getuid() != 0:
        return {}
    uid = next(_uids)
    return {"uid": uid, "gid": uid}


def wait_until_gone(pidfd: int) -> bool:
    """Wait for the end of a process that is not ours to reap."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(DEADLINE_S * 1000))
