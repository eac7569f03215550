"""The rules as libnftables JSON: what is accepted, for whom, and how damage is seen."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from qemu_runner.bridge_network import BridgeNic, Protocol, PublishedPort
from qemu_runner.bridge_network.firewall import Firewall, counts, fingerprint, refresh_commands

WALL = Firewall("node-1 /srv/qc", "qc0", IPv4Network("10.76.0.0/16"), IPv4Address("10.76.0.1"))
NIC = BridgeNic("m-1", "web-1", "52:54:00:00:00:01", IPv4Address("10.76.0.2"), (PublishedPort(2222, 22),))


def commands(*, dns: bool = True, uplinks: tuple[str, ...] = ("eth0",)) -> list[Any]:
    return WALL.fresh_commands([("qc1-0", NIC)], uplinks, dns=dns)


def rules(chain: str, **how: Any) -> list[list[Any]]:
    added = [command["add"].get("rule") for command in commands(**how)]
    return [rule["expr"] for rule in added if rule is not None and rule["chain"] == chain]


def elements(name: str) -> list[Any]:
    added = [command["add"].get("set") for command in commands()]
    (found,) = [body for body in added if body is not None and body["name"] == name]
    return list(found.get("elem", []))


def verdict(expression: list[Any]) -> str:
    return str(next(iter(expression[-1])))


def test_what_the_host_does_not_offer_to_guests_is_rejected_last() -> None:
    assert verdict(rules("input")[-1]) == "reject"


def test_the_host_accepts_answers_dhcp_and_dns_and_nothing_else() -> None:
    ports = {str(part) for rule in rules("input") for part in rule if "dport" in str(part)}

    assert len(ports) == 3
    assert [verdict(rule) for rule in rules("input")].count("accept") == 5


def test_without_dns_no_query_is_accepted() -> None:
    assert not any("53" in str(rule) for rule in rules("input", dns=False))


def test_guests_are_forwarded_through_uplinks_only() -> None:
    assert elements("uplinks") == ["eth0"]
    new = [rule for rule in rules("forward") if verdict(rule) == "accept" and "ct" not in str(rule)]
    assert [rule[1]["match"]["right"] for rule in new] == ["qc0", "@uplinks"]


def test_without_a_default_route_there_is_no_uplink() -> None:
    added = [command["add"].get("set") for command in commands(uplinks=())]
    (uplinks,) = [body for body in added if body is not None and body["name"] == "uplinks"]

    assert "elem" not in uplinks


def test_the_loopback_is_dropped_in_both_directions_before_anything_else() -> None:
    (chain,) = [
        body
        for command in commands()
        if (body := command["add"].get("chain")) is not None and body["name"] == "early"
    ]
    assert (chain["hook"], chain["prio"]) == ("prerouting", -300)
    from_bridge = [rule for rule in rules("early") if len(rule) == 3]
    assert {rule[1]["match"]["left"]["payload"]["field"] for rule in from_bridge} == {"saddr", "daddr"}
    assert {verdict(rule) for rule in rules("early")} == {"drop"}


def test_a_port_leads_to_its_guest() -> None:
    ((address, port, target),) = rules("publish")

    assert address["match"]["right"] == "127.0.0.1"
    assert port["match"]["right"] == 2222
    assert target == {"dnat": {"family": "ip", "addr": "10.76.0.2", "port": 22}}


def test_a_port_on_every_address_asks_whether_the_address_is_the_hosts() -> None:
    everywhere = PublishedPort(5353, 53, Protocol.UDP, IPv4Address("0.0.0.0"))
    nic = BridgeNic("m-1", "web-1", "52:54:00:00:00:01", IPv4Address("10.76.0.2"), (everywhere,))
    text = str(WALL.fresh_commands([("t", nic)], (), dns=True))

    assert "'flags': ['daddr']" in text
    assert "'protocol': 'udp', 'field': 'dport'}}, 'right': 5353" in text


def test_a_tap_speaks_with_one_mac_and_one_address() -> None:
    assert elements("macs") == [{"concat": ["qc1-0", "52:54:00:00:00:01"]}]
    assert elements("addresses") == [{"concat": ["qc1-0", "52:54:00:00:00:01", "10.76.0.2"]}]


def test_what_no_rule_knows_of_a_guest_is_dropped() -> None:
    assert rules("spoofing")[-1] == [{"drop": None}]


def test_every_rule_carries_its_owner_within_what_nft_takes() -> None:
    long = Firewall("x" * 500, "qc0", WALL.subnet, WALL.gateway)
    comments = {
        command["add"]["rule"]["comment"]
        for command in [*commands(), *long.fresh_commands((), (), dns=True)]
        if "rule" in command["add"]
    }
    assert all(comment.startswith("qcontroller owner=") and len(comment) <= 128 for comment in comments)


def test_owners_have_tables_of_their_own() -> None:
    assert Firewall("a", "qc0", WALL.subnet, WALL.gateway).table != WALL.table


def test_a_trial_removes_what_it_added_and_names_no_table_of_ours() -> None:
    trial: list[Any] = WALL.trial_commands()

    assert WALL.table not in str(trial)
    assert [next(iter(command)) for command in trial[-4:]] == ["add", "delete", "add", "delete"]


@pytest.mark.parametrize("family", ["inet", "bridge"])
def test_removing_adds_first_so_that_it_cannot_fail(family: str) -> None:
    mine = [c for c in WALL.remove_commands() if next(iter(c.values()))["table"]["family"] == family]

    assert [next(iter(command)) for command in mine] == ["add", "delete"]


def test_a_refresh_keeps_the_chains_and_empties_them_before_it_fills_them() -> None:
    refresh = refresh_commands(commands())
    words = [f"{next(iter(command))} {next(iter(next(iter(command.values()))))}" for command in refresh]

    assert "delete table" not in words
    last_object = max(at for at, word in enumerate(words) if word in {"add chain", "add set", "add table"})
    first_content = min(at for at, word in enumerate(words) if word in {"add rule", "add element"})
    assert last_object < words.index("flush table") < first_content


def test_a_refresh_writes_every_rule_and_element() -> None:
    refresh = refresh_commands(commands())
    written = counts(command["add"] for command in refresh if "add" in command)
    elements = sum(len(c["add"]["element"]["elem"]) for c in refresh if "element" in c.get("add", {}))

    assert {**written, "element": elements} == counts(command["add"] for command in commands())


def test_a_fingerprint_ignores_what_changes_by_itself() -> None:
    one = [{"nftables": [{"rule": {"handle": 4, "expr": [{"counter": {"packets": 1}}, {"drop": None}]}}]}]
    other = [{"nftables": [{"rule": {"handle": 9, "expr": [{"counter": {"packets": 7}}, {"drop": None}]}}]}]
    assert fingerprint(one) == fingerprint(other)


def test_a_fingerprint_sees_a_changed_verdict() -> None:
    assert fingerprint([{"rule": {"expr": [{"drop": None}]}}]) != fingerprint(
        [{"rule": {"expr": [{"accept": None}]}}]
    )


def test_a_lost_element_is_counted() -> None:
    whole = [{"set": {"elem": ["a", "b"]}}]
    assert counts(whole) != counts([{"set": {"elem": ["a"]}}])
    assert counts(whole) == {"set": 1, "element": 2}
