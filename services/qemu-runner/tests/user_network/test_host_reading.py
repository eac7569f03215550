"""Reading the host: resolvers and default routes."""

from ipaddress import IPv4Address
from pathlib import Path

from qemu_runner.user_network import ResolverPlan, parse_resolv_conf
from qemu_runner.user_network.adapters.host_network import ProcHostNetwork, parse_default_routes
from qemu_runner.user_network.resolver import choose_resolver

SERVER = IPv4Address("192.0.2.53")
STUB = IPv4Address("127.0.0.53")
ROUTES = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
    "down0\t00000000\t010200C0\t0002\t0\t0\t600\t00000000\t0\t0\t0\n"
    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)


def test_servers_keep_their_order() -> None:
    plan = parse_resolv_conf("nameserver 192.0.2.53\nnameserver 192.0.2.54 # second\n")

    assert plan.servers == (SERVER, IPv4Address("192.0.2.54"))


def test_a_loopback_server_is_not_handed_out() -> None:
    assert parse_resolv_conf("nameserver 127.0.0.53\n") == ResolverPlan(forward_to=STUB)


def test_nothing_is_forwarded_when_guests_can_ask_themselves() -> None:
    assert parse_resolv_conf("nameserver 127.0.0.53\nnameserver 192.0.2.53\n").forward_to is None


def test_ipv6_servers_comments_and_nonsense_are_passed_over() -> None:
    assert not parse_resolv_conf(
        "nameserver fd00::1\n; nameserver 192.0.2.1\nnameserver\nnameserver x\n"
    ).usable


def test_the_last_search_line_counts() -> None:
    assert parse_resolv_conf("search a b\ndomain c\n").search == ("c",)


def test_the_servers_behind_a_local_resolver_are_preferred_to_forwarding() -> None:
    assert choose_resolver("nameserver 127.0.0.53\n", "nameserver 192.0.2.53\n").servers == (SERVER,)


def test_a_local_resolver_that_tells_nothing_is_forwarded_to() -> None:
    assert choose_resolver("nameserver 127.0.0.53\n", "").forward_to == STUB


def test_default_routes_that_are_up_are_found() -> None:
    assert parse_default_routes(ROUTES) == ("eth0", "wlan0")


async def test_missing_files_mean_no_resolver_and_no_route(tmp_path: Path) -> None:
    host = ProcHostNetwork(tmp_path / "a", tmp_path / "b", tmp_path / "c")

    assert not (await host.resolver()).usable
    assert await host.default_route_interfaces() == ()
