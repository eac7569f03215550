"""A host, a world and guests for the tests of the bridge network, each a network namespace of its own.

The host's side runs the real service in a process of its own. A guest is a whole kernel: a tap in its
namespace whose frames are carried to and from the tap that the service opened, as QEMU would. Needs root.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bridge_network_child import encode_nic, encode_ports
from qemu_runner.bridge_network import BridgeNic, PublishedPort
from user_network_world import HOST, WORLD, World, made_world

BRIDGE = "qct0"
SUBNET = "10.76.0.0/24"
GATEWAY = IPv4Address("10.76.0.1")
OWNER = "tests/1"
_DEADLINE_S = 20.0


class CallError(Exception):
    """The service raised an error; `kind` is its class."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {text}")


@dataclass
class Service:
    """The service under test, in a process of its own in the host's namespace."""

    world: World
    state_dir: Path
    subnet: str = SUBNET
    _process: "subprocess.Popen[bytes] | None" = None
    _channel: socket.socket | None = None

    def start(self, *, dnsmasq: str = "dnsmasq", drop: str = "") -> None:
        """Start it.

        Args:
            dnsmasq: The program it is told to use.
            drop: A capability that it does not have, with setpriv's minus before it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        resolv_conf = self.state_dir / "resolv.conf"
        resolv_conf.write_text(f"nameserver {WORLD}\n")
        settings = {
            "state_dir": str(self.state_dir),
            "owner": OWNER,
            "interface": BRIDGE,
            "subnet": self.subnet,
            "resolv_conf": str(resolv_conf),
            "dnsmasq": dnsmasq,
        }
        without = ["setpriv", f"--bounding-set={drop}", "--"] if drop else []
        child = Path(__file__).with_name("bridge_network_child.py")
        self._process = subprocess.Popen(
            [
                *self.world.enter(self.world.host),
                *without,
                sys.executable,
                str(child),
                str(theirs.fileno()),
                json.dumps(settings),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        ours.settimeout(_DEADLINE_S)
        self._channel = ours

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it as a runner ends that is only restarted."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.wait(_DEADLINE_S)

    def _end(self, number: int) -> None:
        assert self._process is not None
        assert self._channel is not None
        self._process.send_signal(number)
        self._process.wait()
        self._channel.close()

    def call(self, name: str, given: Any = None) -> Any:
        result, fds = self._call(name, given)
        for fd in fds:
            os.close(fd)
        return result

    def attach(self, nic: BridgeNic) -> tuple[str, int]:
        """Attach a card; give its tap's name and descriptor."""
        name, fds = self._call("attach", encode_nic(nic))
        (fd,) = fds
        return name, fd

    def adopt(self, *nics: BridgeNic) -> None:
        self.call("adopt", [encode_nic(nic) for nic in nics])

    def publish(self, machine: str, *ports: PublishedPort) -> None:
        self.call("publish", {"machine": machine, "ports": encode_ports(ports)})

    def _call(self, name: str, given: Any) -> tuple[Any, list[int]]:
        assert self._channel is not None
        self._channel.send(json.dumps({"call": name, "given": given}).encode())
        data, fds, _, _ = socket.recv_fds(self._channel, 1 << 20, 8)
        answer = json.loads(data)
        if "error" in answer:
            raise CallError(answer["error"], answer["text"])
        return answer["result"], fds


@dataclass
class Guest:
    """A guest's kernel: a namespace with `eth0`, whose other end is the service's tap."""

    bench: "Bench"
    nic: BridgeNic
    namespace: str
    tap: str
    _stop: threading.Event = field(default_factory=threading.Event)
    _pump: threading.Thread | None = None

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            [*self.bench.world.enter(self.namespace), *argv],
            check=False,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def configure(self) -> None:
        """Set the reserved address by hand, as a guest without DHCP would."""
        self.run("ip", "addr", "add", f"{self.nic.address}/24", "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", str(GATEWAY))

    def listen(self, port: int, address: IPv4Address | None = None) -> socket.socket:
        return self.bench.world.listen(self.namespace, address or self.nic.address, port)

    def connect(self, address: IPv4Address, port: int, timeout_s: float = 5.0) -> socket.socket:
        return self.bench.world.inside(
            self.namespace, lambda: socket.create_connection((str(address), port), timeout=timeout_s)
        )

    def reaches(self, address: IPv4Address, port: int, timeout_s: float = 1.0) -> bool:
        """Tell whether a TCP connection comes about."""
        try:
            self.connect(address, port, timeout_s).close()
        except OSError:
            return False
        return True

    def packet_socket(self) -> socket.socket:
        """Open a socket that sends and receives whole frames on `eth0`."""

        def opened() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            made.bind(("eth0", 0))
            return made

        return self.bench.world.inside(self.namespace, opened)

    def udp_socket(self, port: int = 0) -> socket.socket:
        return self.bench.world.receive_on(self.namespace, self.nic.address, port)

    def begin(self, host_fd: int) -> None:
        guest_fd = self.bench.world.inside(self.namespace, lambda: _open_tap("eth0"))
        self.run("ip", "link", "set", "eth0", "address", self.nic.mac)
        # Frames of the guest's own kernel alone; IPv6's noise is of no use here.
        self.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "set", "eth0", "up")
        self._pump = threading.Thread(target=_carry, args=(host_fd, guest_fd, self._stop))
        self._pump.start()

    def end(self) -> None:
        """Close the tap, as QEMU does when it ends."""
        self._stop.set()
        if self._pump is not None:
            self._pump.join()
            self._pump = None


@dataclass
class Bench:
    """A host with the service, a world, and guests as they are booted.

    Attributes:
        extra: Further namespaces that a test made, removed at the end.
        undoing: What else a test has to have undone.
    """

    world: World
    service: Service
    guests: list[Guest] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    undoing: list[Callable[[], object]] = field(default_factory=list)

    def boot(
        self,
        number: int,
        *ports: PublishedPort,
        configured: bool = True,
        address: IPv4Address | None = None,
    ) -> Guest:
        """Attach a card and begin a guest behind it."""
        nic = card(number, *ports)
        if address is not None:
            nic = replace(nic, address=address)
        tap, fd = self.service.attach(nic)
        namespace = f"{self.world.host}-g{number}"
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        guest = Guest(self, nic, namespace, tap)
        self.guests.append(guest)
        guest.begin(fd)
        if configured:
            guest.configure()
        return guest

    def undo(self, action: Callable[[], object]) -> None:
        """Have something undone when the test is over."""
        self.undoing.append(action)

    def clear(self) -> None:
        """End all guests, and let the service know."""
        while self.undoing:
            self.undoing.pop()()
        machines = [guest.nic.machine_id for guest in self.guests]
        _remove_namespaces(self)
        for machine in machines:
            self.service.call("detach", machine)

    def host(self, *argv: str) -> str:
        return self.world.run(*argv)

    def tables(self) -> list[tuple[str, str]]:
        """Give the families and names of our tables."""
        lines = [line.split() for line in self.host("nft", "list", "tables").splitlines()]
        return [(words[1], words[2]) for words in lines if "qcontroller" in words[2]]

    def has_address(self) -> bool:
        """Tell whether the host has the guests' gateway's address."""
        links = json.loads(self.host("ip", "-j", "-4", "addr", "show"))
        return any(a["local"] == str(GATEWAY) for link in links for a in link.get("addr_info", []))

    def is_port(self, tap: str) -> bool:
        """Tell whether a tap is on the bridge."""
        links = json.loads(self.host("ip", "-j", "link", "show"))
        return any(link["ifname"] == tap and link.get("master") == BRIDGE for link in links)

    def processes(self, name: str) -> list[str]:
        """Give the pids of the host's processes of a name."""
        pids = self.host("ip", "netns", "pids", self.world.host).split()
        return [pid for pid in pids if _name(pid) == name]

    @contextmanager
    def talking(self, guest: Guest) -> Iterator[None]:
        """Hold a connection of a guest into the world, and prove at the end that it goes on."""
        with (
            self.world.listen(self.world.world, WORLD) as listener,
            guest.connect(WORLD, listener.getsockname()[1]) as ours,
            listener.accept()[0] as theirs,
        ):
            yield
            for near, far in ((ours, theirs), (theirs, ours)):
                near.sendall(b"still here")
                far.settimeout(_DEADLINE_S)
                assert far.recv(16) == b"still here"

    def listen_on_host(self, address: IPv4Address, port: int = 0) -> socket.socket:
        return self.world.listen(self.world.host, address, port)

    def connect_from_host(self, address: IPv4Address, port: int) -> socket.socket:
        return self.world.connect(self.world.host, address, port)

    def links(self) -> list[str]:
        return [link["ifname"] for link in json.loads(self.host("ip", "-j", "link"))]


def card(number: int, *ports: PublishedPort) -> BridgeNic:
    """Give the card of guest `number`."""
    return BridgeNic(
        machine_id=f"00000000-0000-0000-0000-{number:012d}",
        name=f"guest-{number}",
        mac=f"52:54:00:00:00:{number:02x}",
        address=IPv4Address(f"10.76.0.{number}"),
        ports=ports,
    )


@contextmanager
def made_bench(state_dir: Path) -> Iterator[Bench]:
    """Make host and world, start the service, and remove everything at the end."""
    with made_world() as world, ExitStack() as stack:
        service = Service(world, state_dir)
        bench = Bench(world, service)
        stack.callback(_remove_namespaces, bench)
        service.start()
        stack.callback(service.close)
        yield bench


def until(holds: Callable[[], bool], timeout_s: float = _DEADLINE_S) -> bool:
    """Look until something holds; tell whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _remove_namespaces(bench: Bench) -> None:
    for guest in bench.guests:
        guest.end()
    for namespace in [*(guest.namespace for guest in bench.guests), *bench.extra]:
        subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
    bench.guests.clear()
    bench.extra.clear()


def _open_tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000 | 0x4000))
    return fd


def _carry(host_fd: int, guest_fd: int, stop: threading.Event) -> None:
    other = {host_fd: guest_fd, guest_fd: host_fd}
    try:
        while not stop.is_set():
            for fd in select.select(list(other), [], [], 0.05)[0]:
                try:
                    frame = os.read(fd, 1 << 16)
                except BlockingIOError:
                    continue
                except OSError:
                    # The tap was deleted under us.
                    return
                # A tap that is down refuses frames; a cable loses them too.
                with contextlib.suppress(OSError):
                    os.write(other[fd], frame)
    finally:
        os.close(host_fd)
        os.close(guest_fd)


__all__ = ["BRIDGE", "GATEWAY", "HOST", "WORLD", "Bench", "CallError", "Guest", "card", "made_bench", "until"]
