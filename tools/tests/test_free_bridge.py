"""A bridge is chosen beside what the host has."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from qcstack.free_bridge import choose_bridge, taken_networks

HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
OWN = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
WHOLE_RANGE = "vpn0\t0000800A\t00000000\t0001\t0\t0\t0\t0000C0FF\t0\t0\t0\n"


def test_routes_are_read_and_the_default_one_takes_nothing() -> None:
    assert taken_networks(HEADER + DEFAULT + OWN) == [IPv4Network("192.0.2.0/24")]


def test_a_bridge_has_a_private_subnet_and_a_name_that_the_kernel_takes(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text(HEADER + DEFAULT + OWN)
    chosen = choose_bridge(routes)
    assert IPv4Network(chosen.subnet).is_private
    assert len(chosen.name) <= 15
    assert choose_bridge(routes) != chosen


def test_where_everything_is_taken_nothing_is_chosen(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text(HEADER + WHOLE_RANGE)
    with pytest.raises(LookupError, match="free"):
        choose_bridge(routes)
