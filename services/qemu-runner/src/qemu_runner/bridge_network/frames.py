"""Who a guest may claim to be: the rules on frames that come in through the taps.

Each tap speaks with one MAC and one IPv4 address, by ARP too, and never as a DHCP server. Frames that
are neither ARP nor IPv4 are dropped, since nothing here could vouch for them. Pure.
"""

from collections.abc import Sequence
from typing import Final

from qemu_runner.bridge_network.nic import BridgeNic
from qemu_runner.bridge_network.statements import Statement, Table, concat, match, meta, payload

_NOWHERE: Final = "0.0.0.0"  # noqa: S104 - what a guest without an address calls itself
_ACCEPT: Final[Statement] = {"accept": None}
_DROP: Final[Statement] = {"drop": None}
_CHAIN: Final = "spoofing"


def fill(table: Table, cards: Sequence[tuple[str, BridgeNic]]) -> None:
    """Fill the `bridge` table for the attached cards.

    `meta ibrname` would spare the set of taps, but not every kernel has it.
    """
    table.set("taps", "ifname", [tap for tap, _ in cards])
    table.set("macs", ["ifname", "ether_addr"], [concat_of(tap, nic.mac) for tap, nic in cards])
    table.set(
        "addresses",
        ["ifname", "ether_addr", "ipv4_addr"],
        [concat_of(tap, nic.mac, str(nic.address)) for tap, nic in cards],
    )
    tap = meta("iifname")
    table.base_chain(_CHAIN, "filter", "prerouting", -300)
    table.rule(_CHAIN, match(tap, "@taps", "!="), _ACCEPT)
    table.rule(_CHAIN, match(concat(tap, payload("ether", "saddr")), "@macs", "!="), _DROP)
    arp_mac, arp_ip = payload("arp", "saddr ether"), payload("arp", "saddr ip")
    table.rule(_CHAIN, match(concat(tap, arp_mac, arp_ip), "@addresses"), _ACCEPT)
    # RFC 5227: whoever probes an address does not claim one yet.
    table.rule(_CHAIN, match(arp_ip, _NOWHERE), match(concat(tap, arp_mac), "@macs"), _ACCEPT)
    from_server, to_client = match(payload("udp", "sport"), 67), match(payload("udp", "dport"), 68)
    table.rule(_CHAIN, match(meta("protocol"), "ip"), from_server, _DROP)
    table.rule(_CHAIN, match(meta("protocol"), "ip"), to_client, _DROP)
    table.rule(
        _CHAIN,
        match(payload("ip", "saddr"), _NOWHERE),
        match(payload("udp", "sport"), 68),
        match(payload("udp", "dport"), 67),
        _ACCEPT,
    )
    source = concat(tap, payload("ether", "saddr"), payload("ip", "saddr"))
    table.rule(_CHAIN, match(source, "@addresses"), _ACCEPT)
    table.rule(_CHAIN, _DROP)


def concat_of(*values: str) -> object:
    """Give an element of a set whose key has several parts."""
    return {"concat": list(values)}
