"""A host and a world for the tests of the user network: two namespaces joined by a cable.

The host's side has an address and a default route, as a machine has; the world's side stands for
everything beyond. Nothing in either reaches the machine that runs the tests. Needs root.
"""

import ctypes
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

HOST = IPv4Address("198.51.100.10")
WORLD = IPv4Address("198.51.100.1")
UID_FIRST = 61_000
UID_LAST = 61_099
UID = 61_007
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """Names of the two namespaces."""

    host: str
    world: str

    def enter(self, namespace: str) -> list[str]:
        """Give the words that run a command in a namespace."""
        return ["ip", "netns", "exec", namespace]

    def run(self, *argv: str) -> str:
        """Run a command on the host's side."""
        return _run(*self.enter(self.host), *argv)

    def run_in(self, namespace: str, *argv: str) -> str:
        """Run a command in a namespace."""
        return _run(*self.enter(namespace), *argv)

    def inside(self, namespace: str, action: Callable[[], T]) -> T:
        """Call a function in a thread of its own that has entered a namespace.

        A socket stays in the namespace it was made in.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def body() -> None:
            try:
                _enter(namespace)
                outcome.append(action())
            except BaseException as error:  # noqa: BLE001 - handed to the caller below
                failure.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def listen(self, namespace: str, address: IPv4Address, port: int = 0) -> socket.socket:
        """Open a TCP listener."""
        return self.inside(namespace, lambda: socket.create_server((str(address), port), backlog=128))

    def receive_on(self, namespace: str, address: IPv4Address, port: int = 0) -> socket.socket:
        """Open a UDP socket."""

        def bind() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((str(address), port))
            return made

        return self.inside(namespace, bind)

    def connect(self, namespace: str, address: IPv4Address, port: int) -> socket.socket:
        """Connect by TCP."""
        return self.inside(namespace, lambda: socket.create_connection((str(address), port), timeout=5))

    def spawn_as_machine(self, argv: Sequence[str], fds: Sequence[int]) -> "subprocess.Popen[bytes]":
        """Spawn on the host's side as vm-host does: own uid, no capability."""
        drop = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--no-new-privs"]
        drop += ["--bounding-set=-all", "--pdeathsig", "KILL", "--"]
        return subprocess.Popen(
            [*self.enter(self.host), *drop, *argv],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def made_world() -> Iterator[World]:
    """Make the two namespaces, and remove them with all that is in them."""
    if os.geteuid() != 0:
        raise PermissionError("this test makes network namespaces: run it as root")
    tag = uuid.uuid4().hex[:8]
    world = World(host=f"qct-host-{tag}", world=f"qct-world-{tag}")
    try:
        for name in (world.host, world.world):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run(
            "ip", "-n", world.host, "link", "add", "up0", "type", "veth", "peer", "up0", "netns", world.world
        )
        for name, address in ((world.host, HOST), (world.world, WORLD)):
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "up0")
            _run("ip", "-n", name, "link", "set", "up0", "up")
        _run("ip", "-n", world.host, "route", "add", "default", "via", str(WORLD))
        yield world
    finally:
        for name in (world.host, world.world):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def reached(listener: socket.socket, timeout_s: float = 0.2) -> bool:
    """Tell whether anybody connected to a listener, or sent to a UDP socket."""
    listener.settimeout(timeout_s)
    try:
        if listener.type == socket.SOCK_DGRAM:
            return bool(listener.recv(64))
        connection, _ = listener.accept()
    except TimeoutError:
        return False
    connection.close()
    return True


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as handle:  # noqa: PTH123 - a descriptor is wanted
        if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
