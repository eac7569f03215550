"""Sets are told so that older nftables on the same host can read them."""

from ipaddress import IPv4Address, IPv4Network

from qemu_runner.bridge_network.adapters.nftables import by_typeof
from qemu_runner.bridge_network.firewall import Firewall

FIREWALL = Firewall("tests", "qc0", IPv4Network("10.76.0.0/24"), IPv4Address("10.76.0.1"))


def test_every_set_of_the_rules_can_be_told_by_an_expression() -> None:
    commands = [by_typeof(command) for command in FIREWALL.fresh_commands((), ("eth0",), dns=True)]
    types = [command["add"]["set"]["type"] for command in commands if "set" in command.get("add", {})]
    assert types
    assert all(set(kind) == {"typeof"} for kind in types)


def test_what_adds_no_set_stays_as_it_is() -> None:
    for command in FIREWALL.remove_commands():
        assert by_typeof(command) is command
