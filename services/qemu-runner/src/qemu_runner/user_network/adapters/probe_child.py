"""Questions passt in a network namespace of this process's own, and prints what it did as JSON.

Run as `unshare --net python -m …probe_child PASST`; it refuses to run where there is any interface
but the loopback, because passt would forward the hostile packets to the real network. The address
range is one for documentation; nothing leaves the namespace.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from pyroute2.iproute.linux import IPRoute

from qemu_runner.user_network.adapters.fake_guest import FakeGuest
from qemu_runner.user_network.addresses import AddressPlan
from qemu_runner.user_network.passt import PasstOptions, passt_argv
from qemu_runner.user_network.publishing import ANY, LOOPBACK, Protocol, PublishedPort
from qemu_runner.user_network.resolver import ResolverPlan

_T = TypeVar("_T")
_HOST = IPv4Address("198.51.100.10")
_ROUTER = "198.51.100.1"
_HOSTILE = (LOOPBACK, ANY, IPv4Address("127.0.0.2"))
_STARTED_S = 5.0
_ANSWER_S = 1.0
_TCP_PORT = PublishedPort(40_000, 50_000)
_UDP_PORTS = {
    LOOPBACK: PublishedPort(40_001, 50_001, Protocol.UDP),
    _HOST: PublishedPort(40_002, 50_002, Protocol.UDP, _HOST),
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the child prints; the fields are `PasstBehaviour`'s."""

    stderr: bool
    dns_host: bool
    leaks_loopback: bool
    reaches_host_addresses: bool
    udp_loopback_replies: bool
    udp_address_replies: bool
    greeting_first: bool


class InconclusiveError(Exception):
    """Passt did not behave as any passt should; its message says how."""


def main() -> int:
    """Probe the passt named by the first argument; print one JSON object."""
    program = sys.argv[1]
    try:
        _make_world()
        print(json.dumps(asdict(look(program))))
    except (InconclusiveError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def look(program: str) -> Sighting:
    """Question passt in the present namespace, whose address must be the probe's.

    Raises:
        InconclusiveError: If not even what every passt does was seen.
    """
    options = _options(program)

    def ask(question: Callable[[FakeGuest], _T], *ports: PublishedPort) -> _T:
        with _passt(program, options, ports) as guest:
            return question(guest)

    # Each of a passt of its own: what an old one never does is waited for to the end, and once only.
    with ThreadPoolExecutor() as pool:
        leaks = pool.submit(ask, _tcp_and_udp_leaks)
        loopback = pool.submit(ask, lambda guest: _udp_comes_back(guest, LOOPBACK), _UDP_PORTS[LOOPBACK])
        elsewhere = pool.submit(ask, lambda guest: _udp_comes_back(guest, _HOST), _UDP_PORTS[_HOST])
        greeting = pool.submit(ask, _handshake_ends, _TCP_PORT)
    leaks_loopback, reaches_host = leaks.result()
    return Sighting(
        stderr=options.stderr,
        dns_host=options.dns_host,
        leaks_loopback=leaks_loopback,
        reaches_host_addresses=reaches_host,
        udp_loopback_replies=loopback.result(),
        udp_address_replies=elsewhere.result(),
        greeting_first=greeting.result(),
    )


def _make_world() -> None:
    """Give the namespace an address and a default route, without which passt refuses to start.

    A route through the loopback would do for passt, but then replies sent to made-up addresses come
    back to the host and look as if they had arrived.
    """
    with IPRoute() as netlink:  # type: ignore[no-untyped-call]
        if len(netlink.get_links()) > 1:
            raise InconclusiveError("the probe needs a network namespace of its own")
        netlink.link("add", ifname="world0", kind="veth", peer={"ifname": "world1"})
        index = {link.get_attr("IFLA_IFNAME"): link["index"] for link in netlink.get_links()}
        netlink.addr("add", index=index["world0"], address=str(_HOST), prefixlen=24)
        for name in ("lo", "world0", "world1"):
            netlink.link("set", index=index[name], state="up")
        netlink.route("add", dst="default", gateway=_ROUTER, oif=index["world0"])


def _options(program: str) -> PasstOptions:
    # Old ones complain about syslog between the lines and end with an error: only the words count.
    shown = subprocess.run(
        [program, "--help"], capture_output=True, text=True, check=False, timeout=_STARTED_S
    )
    words = set((shown.stdout + shown.stderr).split())
    return PasstOptions(stderr="--stderr" in words, dns_host="--dns-host" in words)


@contextmanager
def _passt(program: str, options: PasstOptions, ports: Sequence[PublishedPort]) -> Iterator[FakeGuest]:
    address = AddressPlan(IPv4Network("10.77.0.0/16")).at(0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = passt_argv(program, theirs.fileno(), address, tuple(ports), ResolverPlan(), options)
        process = subprocess.Popen(
            argv,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        try:
            guest = FakeGuest(ours, address.address, address.gateway)
            if not guest.resolve_gateway(_STARTED_S):
                raise InconclusiveError(f"passt did not answer its guest: {_last_words(process)}")
            yield guest
        finally:
            process.kill()
            process.communicate()


def _last_words(process: "subprocess.Popen[bytes]") -> str:
    process.kill()
    _, stderr = process.communicate()
    lines = [line for line in stderr.decode(errors="replace").splitlines() if "syslog" not in line]
    return " / ".join(lines[-3:]) or "it said nothing"


def _tcp_and_udp_leaks(guest: FakeGuest) -> tuple[bool, bool]:
    """Give whether anything reached the loopback, and whether the host's address was reached."""
    loopback = socket.create_server((str(LOOPBACK), 0))
    everywhere = socket.create_server((str(ANY), 0))
    address = socket.create_server((str(_HOST), 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with loopback, everywhere, address, datagrams:
        datagrams.bind((str(ANY), 0))
        source_port = 41_000
        for target in _HOSTILE:
            for listener in (loopback, everywhere):
                source_port += 1
                guest.send_syn(target, listener.getsockname()[1], source_port)
            guest.send_udp(target, datagrams.getsockname()[1], source_port, b"probe")
        # passt takes frames in order: once this last one was accepted, the others have been decided.
        guest.send_syn(_HOST, address.getsockname()[1], 42_000)
        reached = _accepts(address, _ANSWER_S)
        leaked = any(_accepts(listener, 0.1) for listener in (loopback, everywhere)) or _receives(
            datagrams, 0.1
        )
    # A guest that reaches nothing at all proves nothing: suspect the worst.
    return leaked or not reached, reached


def _udp_comes_back(guest: FakeGuest, where: IPv4Address) -> bool:
    port = _UDP_PORTS[where]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((str(where), port.host))
        client.send(b"ping")
        deadline = time.monotonic() + _ANSWER_S
        while (packet := guest.receive(deadline)) is not None:
            if packet.is_udp and packet.destination_port == port.guest:
                guest.send_udp(packet.source, packet.source_port, packet.destination_port, b"pong")
                return _receives(client, _ANSWER_S)
    return False


def _handshake_ends(guest: FakeGuest) -> bool:
    """Tell whether a server in the guest sees a client that says nothing."""
    with socket.create_connection((str(LOOPBACK), _TCP_PORT.host), timeout=_ANSWER_S):
        opening = guest.receive_opening(_ANSWER_S)
        if opening is None:
            return False
        guest.accept(opening)
        deadline = time.monotonic() + _ANSWER_S
        while (packet := guest.receive(deadline)) is not None:
            if packet.acknowledges and packet.destination_port == _TCP_PORT.guest:
                return True
    return False


def _accepts(listener: socket.socket, timeout_s: float) -> bool:
    listener.settimeout(timeout_s)
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return False
    connection.close()
    return True


def _receives(datagrams: socket.socket, timeout_s: float) -> bool:
    datagrams.settimeout(timeout_s)
    with suppress(TimeoutError, ConnectionError):
        return bool(datagrams.recv(64))
    return False


if __name__ == "__main__":
    sys.exit(main())
