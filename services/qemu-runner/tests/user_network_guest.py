"""A real guest for the tests of the user network: QEMU as vm-host starts it, its NIC plugged by QMP.

Just enough QMP and guest agent to plug a NIC and run a script; everything has a deadline.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from qemu_runner.user_network import STREAM_CONNECTED_EVENT, stream_netdev_arguments
from user_network_world import World

CHECKOUT = Path(__file__).resolve().parents[3]
IMAGE = CHECKOUT / ".cache/guests/qcontroller-tiny-amd64.qcow2"
BUILD = CHECKOUT / "packer/guests/tiny/build"
_BOOT_S = 60.0
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class LineChannel:
    """JSON lines on a Unix socket, read with deadlines."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self._pending = b""

    def send(self, message: dict[str, object]) -> None:
        self.stream.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, deadline: float) -> dict[str, object]:
        """Give the next line; raises TimeoutError at the deadline and EOFError at the end."""
        while b"\n" not in self._pending:
            self.stream.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self.stream.recv(65_536)
            if not chunk:
                raise EOFError("QEMU closed the channel")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        parsed = json.loads(line.lstrip(b"\xff"))
        assert isinstance(parsed, dict)
        return parsed


class Qmp:
    """QMP of one QEMU."""

    def __init__(self, stream: socket.socket) -> None:
        self._channel = LineChannel(stream)
        self._channel.receive(time.monotonic() + 10.0)
        self.call("qmp_capabilities")

    def call(self, command: str, arguments: dict[str, object] | None = None) -> object:
        """Execute a command; raises AssertionError with QEMU's words if it is refused."""
        message = json.dumps({"execute": command, "arguments": arguments or {}}).encode()
        self._channel.stream.sendall(message)
        deadline = time.monotonic() + 20.0
        while True:
            answer = self._channel.receive(deadline)
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]

    def wait_event(self, name: str, timeout_s: float, **data: object) -> None:
        """Wait for an event whose data holds what is given."""
        deadline = time.monotonic() + timeout_s
        while True:
            event = self._channel.receive(deadline)
            body = event.get("data", {})
            if event.get("event") == name and isinstance(body, dict) and data.items() <= body.items():
                return


class Agent:
    """The guest's agent."""

    def __init__(self, stream: socket.socket) -> None:
        self._channel = LineChannel(stream)

    def sync(self, timeout_s: float) -> None:
        """Wait until the agent answers."""
        deadline = time.monotonic() + timeout_s
        self._channel.send({"execute": "guest-sync", "arguments": {"id": 4711}})
        while self._channel.receive(deadline).get("return") != 4711:
            pass

    def start(self, script: str) -> None:
        """Start a shell script in the guest; it tells the outcome by what it sends over the network."""
        arguments: dict[str, object] = {"path": "/bin/sh", "arg": ["-c", script]}
        self._channel.send({"execute": "guest-exec", "arguments": arguments})
        answer = self._channel.receive(time.monotonic() + 10.0)
        assert "return" in answer, answer


@contextmanager
def booted_guest(world: World, netdev_fd: int) -> Iterator[tuple[Qmp, Agent]]:
    """Boot the small guest with its only NIC on a descriptor, plugged before its first instruction."""
    if not IMAGE.exists():
        subprocess.run([sys.executable, str(BUILD)], check=True, timeout=600)
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="qct-guest-"))
        stack.callback(shutil.rmtree, work)
        disk = work / "disk.qcow2"
        shutil.copyfile(IMAGE, disk)
        for path, mode in ((work, 0o755), (disk, 0o644)):
            path.chmod(mode)
        qmp_ours, qmp_theirs = _pair(stack)
        agent_ours, agent_theirs = _pair(stack)
        argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-S"]
        argv += ["-sandbox", _SANDBOX, "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256"]
        argv += ["-drive", f"file={disk},format=qcow2,if=virtio,snapshot=off,read-only=on"]
        argv += ["-chardev", f"socket,id=qmp,fd={qmp_theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
        argv += ["-device", "virtio-serial", "-chardev", f"socket,id=ga,fd={agent_theirs.fileno()}"]
        argv += ["-device", "virtserialport,id=agent,chardev=ga,name=org.qemu.guest_agent.0"]
        argv += ["-device", "pcie-root-port,id=nic-port"]
        qemu = world.spawn_as_machine(argv, [qmp_theirs.fileno(), agent_theirs.fileno(), netdev_fd])
        stack.callback(_end, qemu)
        qmp_theirs.close()
        agent_theirs.close()
        qmp = Qmp(qmp_ours)
        qmp.call("netdev_add", stream_netdev_arguments("n0", netdev_fd))
        qmp.wait_event(STREAM_CONNECTED_EVENT, 10.0, **{"netdev-id": "n0"})
        device: dict[str, object] = {
            "driver": "virtio-net-pci",
            "netdev": "n0",
            "bus": "nic-port",
            "id": "nic0",
        }
        qmp.call("device_add", {**device, "romfile": ""})
        qmp.call("cont")
        qmp.wait_event("VSERPORT_CHANGE", _BOOT_S, id="agent", open=True)
        agent = Agent(agent_ours)
        agent.sync(_BOOT_S)
        yield qmp, agent


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    return ours, theirs


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
