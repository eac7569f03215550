"""What dnsmasq is told, the rules in the engine's chain, and what a look at the host means."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from qemu_runner.bridge_network import BridgeNic, engine, names_service
from qemu_runner.bridge_network.adapters.changes import changed_tables
from qemu_runner.bridge_network.host_view import HostView, Link, Route, free_subnet
from qemu_runner.bridge_network.names_service import NamesService, reverse_zones
from qemu_runner.bridge_network.ports import Change

SERVICE = NamesService(
    "qc0",
    IPv4Network("10.76.0.0/16"),
    IPv4Address("10.76.0.1"),
    Path("/srv/qc/bridge-network"),
    Path("/etc/resolv.conf"),
)
NIC = BridgeNic("m-1", "web-1", "52:54:00:00:00:01", IPv4Address("10.76.0.2"))
DEFAULT = Route(IPv4Network("0.0.0.0/0"), (1,))
VIEW = HostView((Link(1, "eth0"), Link(2, "docker0"), Link(3, "qc0")), (), (DEFAULT,))


def test_dnsmasq_answers_known_cards_on_the_bridge_only() -> None:
    argv = SERVICE.argv("dnsmasq")

    assert {"--interface=qc0", "--except-interface=lo", "--bind-interfaces"} <= set(argv)
    assert "--dhcp-ignore=tag:!known" in argv
    assert "--dhcp-range=10.76.0.0,static,255.255.0.0,infinite" in argv


def test_dnsmasq_dies_with_the_runner_and_keeps_four_capabilities() -> None:
    argv = SERVICE.argv("dnsmasq")

    assert argv[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert "--bounding-set=-all,+net_admin,+net_raw,+net_bind_service,+setgid" in argv


def test_dnsmasq_reads_no_configuration_of_the_hosts_own() -> None:
    assert {"--conf-file=/dev/null", "--no-hosts", "--leasefile-ro"} <= set(SERVICE.argv("dnsmasq"))


def test_our_domain_and_subnet_are_never_asked_of_others() -> None:
    assert {"--local=/qc.internal/", "--local=/76.10.in-addr.arpa/"} <= set(SERVICE.argv("dnsmasq"))


def test_without_dns_guests_are_told_the_hosts_resolvers() -> None:
    argv = replace(SERVICE, dns=False, servers=(IPv4Address("192.0.2.53"),)).argv("dnsmasq")

    assert "--port=0" in argv
    assert "--dhcp-option=option:dns-server,192.0.2.53" in argv


def test_without_dns_and_resolvers_guests_are_told_none() -> None:
    assert "--dhcp-option=option:dns-server" in replace(SERVICE, dns=False).argv("dnsmasq")


def test_a_machines_first_card_has_its_name_and_a_further_one_none() -> None:
    further = replace(NIC, index=1)

    assert names_service.reservation(NIC) == "52:54:00:00:00:01,10.76.0.2,web-1\n"
    assert names_service.name_entry(NIC) == "10.76.0.2 web-1.qc.internal\n"
    assert names_service.reservation(further) == "52:54:00:00:00:01,10.76.0.2\n"
    assert names_service.name_entry(further) is None


def test_a_file_tells_its_machine() -> None:
    assert names_service.machine_of(names_service.file_name(NIC)) == "m-1"


@pytest.mark.parametrize(
    ("subnet", "zones"),
    [
        ("10.76.0.0/16", ["76.10.in-addr.arpa"]),
        ("10.76.4.0/23", ["4.76.10.in-addr.arpa", "5.76.10.in-addr.arpa"]),
        ("10.76.4.0/24", ["4.76.10.in-addr.arpa"]),
        ("10.76.4.64/26", ["4.76.10.in-addr.arpa"]),
    ],
)
def test_reverse_zones_cover_the_subnet(subnet: str, zones: list[str]) -> None:
    assert list(reverse_zones(IPv4Network(subnet))) == zones


def test_in_the_engines_chain_guests_are_accepted_towards_uplinks_only() -> None:
    towards = [rule for rule in engine.wanted("me", "qc0", ["eth0"]) if rule.startswith("-i qc0 -o")]

    assert [rule.split()[3] for rule in towards] == ["qc0", "eth0"]


def test_only_our_rules_are_read_from_the_engines_chain() -> None:
    ours = engine.wanted("me", "qc0", ["eth0"])
    listing = "\n".join(
        ["-N DOCKER-USER", *(f"-A DOCKER-USER {rule}" for rule in ours), "-A DOCKER-USER -j RETURN"]
    )
    assert engine.standing(listing, "me") == ours
    assert engine.standing(listing, "somebody else") == []


def test_rules_of_the_engines_chain_are_swapped_at_once_and_stand_first() -> None:
    assert engine.restore_input(["a"], ["b", "c"]).splitlines() == [
        "*filter",
        "-D DOCKER-USER a",
        "-I DOCKER-USER 1 b",
        "-I DOCKER-USER 2 c",
        "COMMIT",
    ]


def test_uplinks_are_where_default_routes_lead_but_never_the_bridge() -> None:
    view = replace(VIEW, routes=(DEFAULT, Route(IPv4Network("0.0.0.0/0"), (3,))))

    assert view.uplinks("qc0") == ("eth0",)


def test_a_clash_is_seen_unless_the_route_is_our_own_bridges() -> None:
    subnet = IPv4Network("10.76.0.0/16")
    taken = Route(IPv4Network("10.76.3.0/24"), (2,))

    assert replace(VIEW, routes=(DEFAULT, taken)).clash(subnet, "qc0") == taken
    assert replace(VIEW, routes=(DEFAULT, Route(subnet, (3,)))).clash(subnet, "qc0") is None


def test_a_proposal_overlaps_neither_routes_nor_our_other_networks() -> None:
    view = replace(VIEW, routes=(DEFAULT, Route(IPv4Network("10.76.0.0/14"), (2,))))

    assert free_subnet(view, 24, [IPv4Network("10.80.0.0/16")], "qc0") == IPv4Network("10.81.0.0/24")


def test_where_everything_is_taken_nothing_is_proposed() -> None:
    everything = (Route(IPv4Network("10.0.0.0/8"), (2,)), Route(IPv4Network("172.16.0.0/12"), (2,)))

    assert free_subnet(replace(VIEW, routes=everything), 24, [], "qc0") is None


def notice(kind: int, table: str) -> bytes:
    name = table.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), 1) + name + bytes(-len(name) % 4)
    body = bytes(4) + attribute
    return struct.pack("=IHHII", 16 + len(body), 10 << 8 | kind, 0, 0, 0) + body


def test_notices_of_our_tables_and_the_engines_are_told_apart() -> None:
    assert changed_tables(notice(2, "ours"), "ours") == {Change.RULES}
    assert changed_tables(notice(6, "filter"), "ours") == {Change.ENGINE}
    assert changed_tables(notice(6, "kube"), "ours") == set()
    assert changed_tables(notice(8, "filter") + notice(8, "ours"), "ours") == {Change.RULES, Change.ENGINE}


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_notice_that_was_cut_short_does_no_harm(cut: int) -> None:
    assert changed_tables(notice(2, "ours")[:cut], "ours") <= {Change.RULES}
