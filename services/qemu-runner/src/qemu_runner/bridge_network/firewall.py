"""The nftables rules of the bridge network: NAT, forwarding, what the host accepts, who may be whom.

Two tables of the owner's, `inet` for packets and `bridge` for frames, always written whole in one
transaction: after a change within the chains that stand, after damage in place of everything. Pure: it
builds libnftables JSON and reads listings; applying belongs to `adapters.nftables`.

Source: libnftables-json(5), nft(8).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from qemu_runner.bridge_network import frames
from qemu_runner.bridge_network.nic import BridgeNic, owner_tag
from qemu_runner.bridge_network.statements import (
    Command,
    Statement,
    Table,
    ct,
    is_local,
    match,
    meta,
    payload,
    prefix,
)
from qemu_runner.user_network import PublishedPort
from qemu_runner.user_network.publishing import ANY

TABLE_PREFIX: Final = "qcontroller_bridge"
FAMILIES: Final = ("inet", "bridge")
_LOOPBACK_NET: Final = IPv4Network("127.0.0.0/8")
_REJECT: Final[Statement] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
_ACCEPT: Final[Statement] = {"accept": None}
_DROP: Final[Statement] = {"drop": None}
_MASQUERADE: Final[Statement] = {"masquerade": None}
_ANSWER: Final = ct("state", ["established", "related"])
_REDIRECTED: Final = ct("status", "dnat")


@dataclass(frozen=True, slots=True)
class Firewall:
    """What does not change while a runner lives.

    Attributes:
        owner: Mark on rules; one runner on this host has it.
        interface: Name of the bridge.
        subnet: Network of the guests.
        gateway: The bridge's address.
    """

    owner: str
    interface: str
    subnet: IPv4Network
    gateway: IPv4Address

    @property
    def table(self) -> str:
        """Name of both tables."""
        return f"{TABLE_PREFIX}_{owner_tag(self.owner)}"

    def fresh_commands(
        self, cards: Iterable[tuple[str, BridgeNic]], uplinks: Sequence[str], *, dns: bool
    ) -> list[Command]:
        """Give what makes both tables where there are none; see `replace_commands` and `refresh_commands`.

        Args:
            cards: Attached cards with the names of their taps.
            uplinks: Interfaces of the default routes, the only ones that guests are forwarded to.
            dns: Whether guests' queries to the gateway are accepted.
        """
        attached = sorted(cards, key=lambda card: card[0])
        packets = Table("inet", self.table, self.owner)
        packets.set("uplinks", "ifname", sorted(uplinks))
        packets.set("taps", "ifname", [tap for tap, _ in attached])
        self._early(packets)
        self._input(packets, dns=dns)
        self._forward(packets)
        self._nat(packets, [(nic, port) for _, nic in attached for port in nic.ports])
        guests = Table("bridge", self.table, self.owner)
        frames.fill(guests, attached)
        return [*packets.commands, *guests.commands]

    def replace_commands(self, fresh: Sequence[Command]) -> list[Command]:
        """Give one transaction that makes both tables anew, whatever stands now: it mends any damage."""
        return [*self.remove_commands(), *fresh]

    def remove_commands(self) -> list[Command]:
        """Give one transaction that removes both tables, whether they stand or not."""
        tables: list[Command] = [{"table": {"family": family, "name": self.table}} for family in FAMILIES]
        return [command for table in tables for command in ({"add": table}, {"delete": table})]

    def trial_commands(self) -> list[Command]:
        """Give a transaction that uses every feature of the rules and leaves nothing.

        It stands under a name of its own: the rules themselves must not vanish for an instant. Its hooks
        see packets of no interface that could exist.
        """
        trial = Firewall(f"{self.owner} trial", "qc-no-such-if", self.subnet, self.gateway)
        removed = trial.remove_commands()
        return [*removed, *trial.fresh_commands((), (), dns=True), *removed]

    def _early(self, table: Table) -> None:
        # Packets come in through the bridge. A tap that somebody took off it would be an interface of
        # the host like any other, and its guest unjudged.
        table.base_chain("early", "filter", "prerouting", -300)
        table.rule("early", match(meta("iifname"), "@taps"), _DROP)
        # Publishing on 127.0.0.1 needs route_localnet on the bridge, and with it the kernel would take a
        # guest's packet for 127.0.0.1 to the host's own loopback.
        for side in ("saddr", "daddr"):
            table.rule("early", self._from_guests(), match(payload("ip", side), prefix(_LOOPBACK_NET)), _DROP)

    def _input(self, table: Table, *, dns: bool) -> None:
        table.base_chain("input", "filter", "input", 0)
        table.rule("input", match(meta("iifname"), self.interface, "!="), _ACCEPT)
        table.rule("input", _ANSWER, _ACCEPT)
        table.rule("input", match(payload("udp", "sport"), 68), match(payload("udp", "dport"), 67), _ACCEPT)
        for protocol in ("udp", "tcp") if dns else ():
            query = match(payload(protocol, "dport"), 53)
            table.rule("input", match(payload("ip", "daddr"), str(self.gateway)), query, _ACCEPT)
        table.rule("input", _REJECT)

    def _forward(self, table: Table) -> None:
        to_guests = match(meta("oifname"), self.interface)
        table.base_chain("forward", "filter", "forward", 0)
        table.rule("forward", self._from_guests(), to_guests, _ACCEPT)
        table.rule("forward", self._from_guests(), match(meta("oifname"), "@uplinks"), _ACCEPT)
        table.rule(
            "forward", self._from_guests(), _ANSWER, match(meta("oifname"), self.interface, "!="), _ACCEPT
        )
        table.rule("forward", self._from_guests(), _REJECT)
        table.rule("forward", to_guests, _ANSWER, _ACCEPT)
        table.rule("forward", to_guests, _REDIRECTED, _ACCEPT)
        table.rule("forward", to_guests, _REJECT)

    def _nat(self, table: Table, published: Sequence[tuple[BridgeNic, PublishedPort]]) -> None:
        # One rule for each port. A map from address and port to address and port would be one rule for
        # all, but libnftables 1.0.6 dies of it when it comes as JSON.
        table.chain("publish")
        for nic, port in published:
            everywhere = port.address == ANY
            table.rule(
                "publish",
                is_local("daddr") if everywhere else match(payload("ip", "daddr"), str(port.address)),
                match(payload(port.protocol.value, "dport"), port.host),
                {"dnat": {"family": "ip", "addr": str(nic.address), "port": port.guest}},
            )
        # From outside nothing may be sent to the loopback's ports: redirecting happens before the kernel
        # would discard such a packet.
        table.base_chain("incoming", "nat", "prerouting", -100)
        table.rule("incoming", match(payload("ip", "daddr"), prefix(_LOOPBACK_NET)), _ACCEPT)
        table.rule("incoming", {"jump": {"target": "publish"}})
        table.base_chain("own", "nat", "output", -100)
        table.rule("own", {"jump": {"target": "publish"}})
        to_guests = match(meta("oifname"), self.interface)
        table.base_chain("leaving", "nat", "postrouting", 100)
        table.rule("leaving", to_guests, match(payload("ip", "saddr"), prefix(_LOOPBACK_NET)), _MASQUERADE)
        # A guest that uses another's published port: the answer must come back through here.
        from_subnet = match(payload("ip", "saddr"), prefix(self.subnet))
        table.rule("leaving", to_guests, from_subnet, _REDIRECTED, _MASQUERADE)
        table.rule("leaving", from_subnet, match(meta("oifname"), "@uplinks"), _MASQUERADE)

    def _from_guests(self) -> Statement:
        return match(meta("iifname"), self.interface)


def refresh_commands(fresh: Sequence[Command]) -> list[Command]:
    """Give one transaction that writes all rules and elements anew into the tables and chains that stand.

    The kernel runs each chain in its old or its new form. Chains that are made anew stand beside the old
    ones for an instant, and a packet between the two could pass both while they are empty.

    Args:
        fresh: What `Firewall.fresh_commands` gave.
    """
    objects: list[Command] = []
    flushes: list[Command] = []
    contents: list[Command] = []
    for command in fresh:
        ((kind, body),) = command["add"].items()
        if kind == "rule":
            contents.append(command)
            continue
        objects.append({"add": {kind: {key: value for key, value in body.items() if key != "elem"}}})
        if kind == "chain":
            continue
        place = {key: body[key] for key in ("family", "table", "name") if key in body}
        flushes.append({"flush": {kind: place}})
        if body.get("elem"):
            contents.append({"add": {"element": {**place, "elem": body["elem"]}}})
    return [*objects, *flushes, *contents]


def fingerprint(listings: Iterable[object]) -> str:
    """Give a hash of what listings say, without the numbers that change by themselves."""
    text = json.dumps([_settled(listing) for listing in listings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def counts(entries: Iterable[object]) -> dict[str, int]:
    """Count the objects of a listing by kind, elements of sets included.

    Compared with those of the commands that made them, they tell whether anything was lost before the
    listing that a fingerprint is taken from.
    """
    found: dict[str, int] = {}
    for entry in entries:
        for kind, body in entry.items() if isinstance(entry, dict) else ():
            if kind in {"table", "chain", "rule", "set", "map"}:
                found[kind] = found.get(kind, 0) + 1
                elements = body.get("elem", ()) if isinstance(body, dict) else ()
                found["element"] = found.get("element", 0) + len(elements)
    return found


def _settled(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: _settled(item) for key, item in value.items() if key not in {"handle", "counter", "metainfo"}
        }
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value
