"""A real QEMU for the tests of the guests, with the NIC plugged as the product plugs it.

Every wait is a blocking read with a deadline; nothing polls and nothing sleeps.
"""

import base64
import contextlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOOT_DEADLINE_S = 60.0
ANSWER_DEADLINE_S = 30.0


class DeadlineError(AssertionError):
    """What a test waited for did not come; carries the console's tail."""


@dataclass(slots=True)
class Machine:
    """One running QEMU; made by ``machine``."""

    process: subprocess.Popen[bytes]
    qmp: "JsonChannel"
    agent: "JsonChannel"
    console: "Console"
    started: float = field(default_factory=time.monotonic)

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a QMP command and return its result."""
        return self.qmp.ask({"execute": name, "arguments": arguments}, ANSWER_DEADLINE_S)

    def event(self, name: str, timeout_s: float = ANSWER_DEADLINE_S, **data: Any) -> dict[str, Any]:
        """Wait for a QMP event whose data holds at least ``data``."""
        return self.qmp.event(name, timeout_s, data)

    def wait_agent(self, timeout_s: float = BOOT_DEADLINE_S) -> None:
        """Wait until the guest agent answers."""
        deadline = time.monotonic() + timeout_s
        self.event("VSERPORT_CHANGE", timeout_s, id="agent", open=True)
        self.agent.ask({"execute": "guest-ping"}, deadline - time.monotonic())

    def exec(self, *argv: str, timeout_s: float = ANSWER_DEADLINE_S) -> tuple[int, str]:
        """Run a command in the guest; return its exit status and its output.

        The guest agent has no event for a command's end, so its state is asked for again and again: each
        question is answered by a round trip to the guest, which paces the loop.
        """
        started = self.ask_agent("guest-exec", path=argv[0], arg=list(argv[1:]), **{"capture-output": True})
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = self.ask_agent("guest-exec-status", pid=started["pid"])
            if state["exited"]:
                text = "".join(
                    base64.b64decode(state.get(name, "")).decode() for name in ("out-data", "err-data")
                )
                return int(state.get("exitcode", -1)), text
        raise DeadlineError(f"{argv} still runs after {timeout_s} s\n{self.console.text[-2000:]}")

    def ask_agent(self, name: str, **arguments: Any) -> Any:
        """Run one guest agent command and return its result."""
        return self.agent.ask({"execute": name, "arguments": arguments}, ANSWER_DEADLINE_S)

    def wait_exit(self, timeout_s: float = ANSWER_DEADLINE_S) -> int:
        """Wait until QEMU has ended and return its exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise DeadlineError(f"QEMU still runs after {timeout_s} s\n{self.console.text[-2000:]}") from exc


class JsonChannel:
    """Line-separated JSON on a stream socket: QMP, or the guest agent."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._buffer = b""
        self._events: list[dict[str, Any]] = []

    def ask(self, request: dict[str, Any], timeout_s: float) -> Any:
        """Send a request and return its ``return`` member; events that come meanwhile are kept."""
        self.send(request)
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._message(deadline)
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise AssertionError(f"{request} was answered with {message['error']}")
            elif "return" in message:
                return message["return"]

    def send(self, request: dict[str, Any]) -> None:
        """Send a request that is not answered, as one that ends the guest."""
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def event(self, name: str, timeout_s: float, data: dict[str, Any]) -> dict[str, Any]:
        """Return the first event, kept or coming, of that name and data; it is taken out."""
        deadline = time.monotonic() + timeout_s
        while True:
            for message in self._events:
                if message["event"] == name and data.items() <= message.get("data", {}).items():
                    self._events.remove(message)
                    return message
            message = self._message(deadline)
            if "event" in message:
                self._events.append(message)

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineError("no message in time")
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError as exc:
                raise DeadlineError("no message in time") from exc
            if not chunk:
                raise DeadlineError("the channel was closed")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Console:
    """The guest's serial console: everything it said, and a way to wait for more.

    A thread of its own keeps reading: a console that nobody drains stalls the guest after some hundred bytes.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._news = threading.Condition()
        self._open = True
        self.text = ""
        self._reader = threading.Thread(target=self._read, name="console", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        chunk = b"..."
        while chunk:
            try:
                chunk = self._socket.recv(65536)
            except OSError:
                chunk = b""
            with self._news:
                self.text += chunk.decode(errors="replace").replace("\r", "")
                self._open = bool(chunk)
                self._news.notify_all()

    def expect(self, pattern: str, timeout_s: float = BOOT_DEADLINE_S, *, since: int = 0) -> re.Match[str]:
        """Wait until the text from position ``since`` on matches ``pattern``."""
        found: list[re.Match[str]] = []

        def settled() -> bool:
            found.extend(re.compile(pattern, re.MULTILINE).finditer(self.text, since))
            return bool(found) or not self._open

        with self._news:
            self._news.wait_for(settled, timeout_s)
        if not found:
            raise DeadlineError(f"the console never said {pattern!r}:\n{self.text[-4000:]}")
        return found[0]

    def send(self, line: str) -> None:
        """Type a line."""
        self._socket.sendall(line.encode() + b"\r")

    def close(self) -> None:
        """Close the socket and let the reader end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(ANSWER_DEADLINE_S)
        self._socket.close()


@contextlib.contextmanager
def machine(
    image: Path,
    directory: Path,
    *,
    memory_mib: int = 256,
    nic: bool = True,
    disk_mib: int | None = None,
    seed: Path | None = None,
) -> Iterator[Machine]:
    """Run a guest on an overlay of ``image`` until the block ends.

    The NIC is plugged by QMP into a PCIe root port before the processor runs, as the product plugs it.
    """
    overlay = directory / "disk.qcow2"
    if not overlay.exists():
        size = [] if disk_mib is None else [f"{disk_mib}M"]
        create = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            str(image),
            "-F",
            "qcow2",
            str(overlay),
            *size,
        ]
        subprocess.run(create, check=True)
    paths = {name: directory / f"{name}.sock" for name in ("qmp", "agent", "console")}
    listeners = {name: _listener(path) for name, path in paths.items()}
    argv = [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", str(memory_mib), "-smp", "1",
        "-nodefaults", "-no-user-config", "-display", "none", "-S",
        "-chardev", f"socket,id=qmp,fd={listeners['qmp'].fileno()},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=console,fd={listeners['console'].fileno()},server=on,wait=off",
        "-serial", "chardev:console",
        "-blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={overlay}",
        "-device", "virtio-blk-pci,drive=disk,bootindex=0",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,fd={listeners['agent'].fileno()},server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0,id=agent",
        "-device", "virtio-rng-pci",
        "-device", "pcie-root-port,id=port0,chassis=1,slot=1",
    ]  # fmt: skip
    if seed is not None:
        argv += ["-blockdev", f"driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename={seed}"]
        argv += ["-device", "virtio-blk-pci,drive=seed"]
    if nic:
        argv += ["-netdev", "user,restrict=on,id=net0"]
    with (directory / "qemu.stderr").open("wb") as stderr:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stderr=stderr, pass_fds=[s.fileno() for s in listeners.values()]
        )
    for listener in listeners.values():
        listener.close()
    try:
        running = Machine(
            process, JsonChannel(paths["qmp"]), JsonChannel(paths["agent"]), Console(paths["console"])
        )
        try:
            running.command("qmp_capabilities")
            if nic:
                running.command("device_add", driver="virtio-net-pci", bus="port0", netdev="net0", romfile="")
            running.started = time.monotonic()
            running.command("cont")
            yield running
        finally:
            for channel in (running.qmp, running.agent, running.console):
                channel.close()
    finally:
        process.kill()
        process.wait()


def seed_disk(directory: Path, *, user_data: str | None, meta_data: str = "", kind: str = "iso9660") -> Path:
    """Make a NoCloud disk labelled ``cidata`` as an ISO 9660 or a FAT file system."""
    source = directory / "seed"
    source.mkdir()
    (source / "meta-data").write_text(meta_data)
    names = ["meta-data"]
    if user_data is not None:
        (source / "user-data").write_text(user_data)
        names.append("user-data")
    seed = directory / f"seed.{kind}"
    if kind == "iso9660":
        command = [
            "genisoimage",
            "-quiet",
            "-output",
            str(seed),
            "-volid",
            "cidata",
            "-joliet",
            "-rock",
            *names,
        ]
        subprocess.run(command, cwd=source, check=True, stderr=subprocess.DEVNULL)
    else:
        subprocess.run(
            ["/usr/sbin/mkfs.fat", "-C", "-n", "CIDATA", str(seed), "1024"], check=True, capture_output=True
        )
        subprocess.run(["mcopy", "-i", str(seed), *names, "::"], cwd=source, check=True)
    return seed


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener
