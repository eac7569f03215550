"""A container engine's FORWARD chain drops what it does not know. Needs root.

The engine is played by iptables as dockerd uses it.
"""

import subprocess

import pytest
from bridge_network_world import HOST, WORLD, Bench, Guest, until
from qemu_runner.bridge_network import PublishedPort

pytestmark = pytest.mark.netns

SSH = PublishedPort(2222, 22, address=HOST)


def iptables(bench: Bench, *arguments: str, check: bool = True, flavour: str = "nft") -> str:
    done = subprocess.run(
        [*bench.world.enter(bench.world.host), f"iptables-{flavour}", "-w", "5", *arguments],
        check=check,
        capture_output=True,
        text=True,
    )
    return done.stdout


def engine_starts(bench: Bench, flavour: str = "nft") -> None:
    """Do what dockerd does to the chains that concern us, the first time and every time."""
    iptables(bench, "-P", "FORWARD", "DROP", flavour=flavour)
    iptables(bench, "-N", "DOCKER-USER", check=False, flavour=flavour)
    if "RETURN" not in iptables(bench, "-S", "DOCKER-USER", flavour=flavour):
        iptables(bench, "-A", "DOCKER-USER", "-j", "RETURN", flavour=flavour)
    iptables(bench, "-D", "FORWARD", "-j", "DOCKER-USER", check=False, flavour=flavour)
    iptables(bench, "-I", "FORWARD", "-j", "DOCKER-USER", flavour=flavour)


def engine_is_reset(bench: Bench) -> None:
    """Do what a flush of iptables and a start of dockerd after it do."""
    iptables(bench, "-F")
    iptables(bench, "-X")
    engine_starts(bench)


def our_rules(bench: Bench, flavour: str = "nft") -> list[str]:
    listing = iptables(bench, "-S", "DOCKER-USER", check=False, flavour=flavour)
    return [line for line in listing.splitlines() if "qcontroller:" in line]


def reaches_world(bench: Bench, guest: Guest) -> bool:
    with bench.world.listen(bench.world.world, WORLD) as listener:
        return guest.reaches(WORLD, listener.getsockname()[1])


def is_reached(bench: Bench, guest: Guest) -> bool:
    with guest.listen(22):
        try:
            bench.world.connect(bench.world.world, HOST, 2222).close()
        except OSError:
            return False
        return True


def test_beside_an_engine_that_ran_before_traffic_flows(own_bench: Bench) -> None:
    engine_starts(own_bench)
    guest, other = own_bench.boot(5, SSH), own_bench.boot(6)

    assert reaches_world(own_bench, guest)
    assert is_reached(own_bench, guest)
    with other.listen(7777):
        assert guest.reaches(other.nic.address, 7777)


def test_beside_an_engine_of_the_legacy_flavour_traffic_flows(own_bench: Bench) -> None:
    engine_starts(own_bench, "legacy")
    guest = own_bench.boot(5, SSH)

    assert reaches_world(own_bench, guest)
    assert is_reached(own_bench, guest)
    own_bench.service.call("leave")
    assert our_rules(own_bench, "legacy") == []


def test_a_legacy_engine_that_starts_afterwards_is_noticed_by_its_bridge(own_bench: Bench) -> None:
    guest = own_bench.boot(5)
    engine_starts(own_bench, "legacy")
    own_bench.host("ip", "link", "add", "docker0", "type", "bridge")

    assert until(lambda: bool(our_rules(own_bench, "legacy")))
    assert reaches_world(own_bench, guest)


def test_without_an_engine_no_table_of_iptables_is_made(own_bench: Bench) -> None:
    own_bench.boot(5)

    assert own_bench.host("cat", "/proc/self/net/ip_tables_names") == ""
    assert "table ip filter" not in own_bench.host("nft", "list", "tables")


def test_without_our_rules_the_engine_drops_the_same_traffic(own_bench: Bench) -> None:
    engine_starts(own_bench)
    guest = own_bench.boot(5)
    own_bench.service.kill()
    iptables(own_bench, "-F", "DOCKER-USER")

    assert not reaches_world(own_bench, guest)


def test_an_engine_that_starts_afterwards_is_noticed(own_bench: Bench) -> None:
    guest = own_bench.boot(5, SSH)
    with own_bench.talking(guest):
        engine_starts(own_bench)
        assert until(lambda: bool(our_rules(own_bench)))

    assert reaches_world(own_bench, guest)
    assert is_reached(own_bench, guest)


def test_rules_that_an_engine_lost_are_back(own_bench: Bench) -> None:
    engine_starts(own_bench)
    guest = own_bench.boot(5)
    before = our_rules(own_bench)
    assert before, "the control failed"
    with own_bench.talking(guest):
        engine_is_reset(own_bench)
        assert until(lambda: our_rules(own_bench) == before)

    assert reaches_world(own_bench, guest)


def test_an_engine_that_starts_again_finds_our_rules_once(own_bench: Bench) -> None:
    engine_starts(own_bench)
    own_bench.boot(5)
    before = our_rules(own_bench)
    engine_starts(own_bench)
    own_bench.boot(6)

    assert our_rules(own_bench) == before


def test_our_rules_in_the_engines_chain_let_no_guest_reach_its_networks(own_bench: Bench) -> None:
    engine_starts(own_bench)
    own_bench.boot(5)

    accepted = our_rules(own_bench)
    assert accepted
    new = [rule for rule in accepted if "--ctstate" not in rule]
    assert {tuple(rule.split()[2:6]) for rule in new} == {
        ("-i", "qct0", "-o", "qct0"),
        ("-i", "qct0", "-o", "up0"),
    }


def test_leaving_leaves_the_engines_chain_as_it_was(own_bench: Bench) -> None:
    engine_starts(own_bench)
    before = iptables(own_bench, "-S")
    own_bench.boot(5)
    own_bench.service.call("leave")

    assert iptables(own_bench, "-S") == before


def test_another_firewall_that_drops_is_told_by_the_doctor(own_bench: Bench) -> None:
    iptables(own_bench, "-P", "FORWARD", "DROP")
    (check,) = [c for c in own_bench.service.call("checks") if c["name"] == "bridge-network-forward"]

    assert check["status"] == "WARN"
