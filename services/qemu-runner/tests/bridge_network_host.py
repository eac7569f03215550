"""A host in memory, for tests of the bridge network's service that touch nothing."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from qemu_runner.bridge_network import (
    AttachedTap,
    BridgeNic,
    BridgePortError,
    DnsmasqError,
    LinkError,
    Protocol,
    PublishedPort,
    RulesetError,
)
from qemu_runner.bridge_network.attaching import Attaching
from qemu_runner.bridge_network.firewall import Firewall
from qemu_runner.bridge_network.host_view import HostView, Link, Route
from qemu_runner.bridge_network.marks import Marks
from qemu_runner.bridge_network.names_service import NamesService
from qemu_runner.bridge_network.offering import Offering
from qemu_runner.bridge_network.pool import AddressPool
from qemu_runner.bridge_network.ports import BridgePlan, Change
from qemu_runner.bridge_network.service import OwnedBridgeNetwork
from qemu_runner.bridge_network.statements import Command
from qemu_runner.bridge_network.upkeep import Upkeep

SUBNET = IPv4Network("10.76.0.0/24")
UPLINK = Link(index=1, name="eth0")


@dataclass
class MemoryHost:
    """Plays every port of the package, and writes down what was done in order.

    Attributes:
        done: What was done, as words.
        refusing: Steps that are refused, by their first word.
    """

    done: list[str] = field(default_factory=list)
    refusing: set[str] = field(default_factory=set)
    view: HostView = field(
        default_factory=lambda: HostView((UPLINK,), (), (Route(IPv4Network("0.0.0.0/0"), (1,)),))
    )
    rules: dict[str, list[Command]] = field(default_factory=dict)
    forwarding: set[str] = field(default_factory=lambda: {"eth0"})
    sockets: dict[tuple[Protocol, IPv4Address, int], PublishedPort] = field(default_factory=dict)
    applied: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    taken_ports: dict[PublishedPort, BridgePortError] = field(default_factory=dict)
    forgotten: list[PublishedPort] = field(default_factory=list)
    notebook: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cards: list[BridgeNic] = field(default_factory=list)
    engine: list[str] | None = None
    running: bool = False
    capable: bool = True
    tun: str | None = None
    missing: set[str] = field(default_factory=set)
    dns_taken: bool = False
    reader: "MemoryReader | None" = None
    ended: Callable[[], None] | None = None

    @property
    def held_ports(self) -> set[int]:
        """Ports of the host that are reserved."""
        return {port.host for port in self.sockets.values()}

    # Links and taps

    async def look(self) -> HostView:
        return self.view

    async def mend_bridge(self, plan: BridgePlan) -> int:
        self._do("bridge", plan.name, LinkError)
        kept = tuple(link for link in self.view.links if link.name != plan.name)
        known = self.view.link(plan.name)
        index = known.index if known is not None else max(link.index for link in self.view.links) + 1
        made = Link(index, plan.name, "bridge", plan.alias, 0, up=True, mac=plan.mac)
        self.forwarding.add(plan.name)
        self.view = replace(self.view, links=(*kept, made), addresses=((index, plan.address),))
        return index

    async def mend_tap(self, name: str, alias: str, bridge: int) -> None:
        self._do("tap-up", name, LinkError)
        link = self.view.link(name)
        if link is None:
            raise LinkError(name, "there is no such interface")
        self._replace(replace(link, alias=alias, master=bridge, up=True))

    async def introduce(self, bridge: int, address: IPv4Address, mac: str) -> None:
        self._do("introduce", f"{address} {mac}", LinkError)

    async def remove(self, name: str) -> None:
        self._do("remove", name, LinkError)
        self.view = replace(self.view, links=tuple(link for link in self.view.links if link.name != name))

    async def forwards(self, name: str) -> bool:
        return name in self.forwarding

    async def set_forwarding(self, name: str, *, on: bool) -> None:
        self._do("forwarding", f"{name} {on}", LinkError)
        (self.forwarding.add if on else self.forwarding.discard)(name)

    async def open(self, name: str, queues: int) -> AttachedTap:
        self._do("tap", name, LinkError)
        self._replace(Link(len(self.view.links) + 10, name, "tun", up=False))
        return AttachedTap(name, tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(queues)))

    # Nftables and the engine's chain

    async def apply(self, commands: Sequence[Command]) -> None:
        self._do("rules", "", RulesetError)
        self.applied.set()
        for command in commands:
            if "delete" in command:
                table = command["delete"]["table"]
                self.rules.pop(f"{table['family']} {table['name']}", None)
                continue
            if "flush" in command:
                ((kind, body),) = command["flush"].items()
                if kind == "table":
                    name = f"{body['family']} {body['name']}"
                    self.rules[name] = [e for e in self.rules.get(name, []) if "rule" not in e]
                continue
            ((kind, body),) = command["add"].items()
            if kind == "element":
                continue
            name = body["name"] if kind == "table" else body["table"]
            standing = self.rules.setdefault(f"{body['family']} {name}", [])
            if {kind: body} not in standing or kind == "rule":
                standing.append({kind: body})

    async def listing(self, family: str, table: str) -> list[object] | None:
        found = self.rules.get(f"{family} {table}")
        return None if found is None else list(found)

    async def ensure(self, rules: Sequence[str]) -> bool:
        self._do("engine", "", LinkError)
        if self.engine is None:
            return False
        self.engine = list(rules)
        return True

    async def unannounced(self) -> bool:
        return False

    # Dnsmasq

    def when_ended(self, ended: Callable[[], None]) -> None:
        self.ended = ended

    async def start(self, service: NamesService) -> None:
        self._do("dnsmasq", "dns" if service.dns else "no-dns", DnsmasqError)
        self.started.set()
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def write(self, service: NamesService, nics: Iterable[BridgeNic]) -> None:
        self.cards = list(nics)

    async def add(self, service: NamesService, nic: BridgeNic) -> None:
        self._do("lease", str(nic.address), DnsmasqError)
        self.cards.append(nic)

    async def known(self, service: NamesService) -> list[str]:
        return [nic.machine_id for nic in self.cards]

    async def clear(self, service: NamesService) -> None:
        self.cards = []

    # Ports, flows, notices, notes, facts

    async def hold(self, port: PublishedPort) -> None:
        if port in self.taken_ports:
            raise self.taken_ports[port]
        self.sockets[port.protocol, port.address, port.host] = port

    async def release(self, port: PublishedPort) -> None:
        self.sockets.pop((port.protocol, port.address, port.host), None)

    def held(self, port: PublishedPort) -> bool:
        return (port.protocol, port.address, port.host) in self.sockets

    async def forget(self, ports: Iterable[PublishedPort]) -> None:
        self.forgotten += ports

    @asynccontextmanager
    async def watch(self, table: str) -> AsyncIterator["MemoryReader"]:
        self.reader = MemoryReader()
        yield self.reader

    async def read(self, name: str) -> tuple[str, ...]:
        return self.notebook.get(name, ())

    async def write_note(self, name: str, lines: Sequence[str]) -> None:
        self.notebook[name] = tuple(lines)

    async def has_net_admin(self) -> bool:
        return self.capable

    async def tap_obstacle(self) -> str | None:
        return self.tun

    async def program(self, name: str) -> str | None:
        return None if name in self.missing else f"/usr/bin/{name}"

    async def resolvers(self) -> tuple[IPv4Address, ...]:
        return (IPv4Address("192.0.2.53"),)

    async def port_53_taken(self, address: IPv4Address) -> bool:
        return self.dns_taken

    def _do(self, word: str, detail: str, refusal: type[LinkError | RulesetError | DnsmasqError]) -> None:
        if word in self.refusing:
            raise refusal(word, "refused")
        self.done.append(f"{word} {detail}".strip())

    def _replace(self, link: Link) -> None:
        kept = tuple(other for other in self.view.links if other.name != link.name)
        self.view = replace(self.view, links=(*kept, link))


class MemoryReader:
    """Notices that a test gives."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[set[Change]] = asyncio.Queue()

    async def next(self) -> set[Change]:
        return await self._queue.get()

    def put(self, changes: set[Change]) -> None:
        self._queue.put_nowait(changes)


@dataclass
class MemoryNotes:
    """The host's notebook under the names of the port."""

    host: MemoryHost

    async def read(self, name: str) -> tuple[str, ...]:
        return await self.host.read(name)

    async def write(self, name: str, lines: Sequence[str]) -> None:
        await self.host.write_note(name, lines)


def network_on(host: MemoryHost, owner: str = "tests") -> OwnedBridgeNetwork:
    """Build the real service on a host in memory."""
    pool, marks = AddressPool(SUBNET), Marks(owner)
    firewall = Firewall(owner, "qc0", SUBNET, pool.gateway)
    plan = BridgePlan("qc0", marks.bridge_mac, marks.bridge_alias, pool.gateway, SUBNET.prefixlen)
    names = NamesService("qc0", SUBNET, pool.gateway, Path("/nowhere"), Path("/etc/resolv.conf"))
    notes = MemoryNotes(host)
    upkeep = Upkeep(
        marks,
        plan,
        firewall,
        names,
        links=host,
        ruleset=host,
        server=host,
        engine_rules=host,
        facts=host,
        notes=notes,
    )
    return OwnedBridgeNetwork(
        pool,
        Offering(marks, firewall, (), "dnsmasq", host, host, host),
        upkeep,
        Attaching(upkeep, host, host, host, host, host),
        server=host,
        engine_rules=host,
        changes=host,
        notes=notes,
    )
