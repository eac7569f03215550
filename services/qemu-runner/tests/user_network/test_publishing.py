"""Published ports: ranges, overlaps, and what a real socket says."""

import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from qemu_runner.user_network import (
    PortAddressError,
    PortPrivilegedError,
    PortTakenError,
    Protocol,
    PublishedPort,
    first_conflict,
)
from qemu_runner.user_network.adapters.port_binding import SocketPortBinding

HOST = IPv4Address("192.0.2.7")
ANY = IPv4Address("0.0.0.0")


def port(
    host: int, guest: int = 22, protocol: Protocol = Protocol.TCP, **address: IPv4Address
) -> PublishedPort:
    return PublishedPort(host, guest, protocol, **address)


@pytest.mark.parametrize(("host", "guest"), [(0, 22), (65536, 22), (2222, 0), (2222, 65536)])
def test_a_port_out_of_range_is_refused(host: int, guest: int) -> None:
    with pytest.raises(ValueError, match="not between"):
        PublishedPort(host, guest)


def test_ports_of_two_addresses_do_not_conflict() -> None:
    assert first_conflict([port(2222)], [port(2222, address=HOST)]) is None


def test_the_wildcard_address_conflicts_with_every_other() -> None:
    wanted, held = port(2222), port(2222, address=ANY)

    assert first_conflict([wanted], [held]) == (wanted, held)


def test_tcp_and_udp_do_not_conflict() -> None:
    assert first_conflict([port(2222), port(2222, protocol=Protocol.UDP)], []) is None


def test_one_machine_takes_a_host_port_once_whatever_the_address() -> None:
    first, second = port(2222), port(2222, address=HOST)

    assert first_conflict([first, second], []) == (second, first)


def test_the_same_port_twice_in_one_request_conflicts_with_itself() -> None:
    assert first_conflict([port(2222), port(2222)], []) is not None


async def test_a_port_that_something_listens_on_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(PortTakenError):
        await SocketPortBinding().try_bind(port(listener.getsockname()[1]))


async def test_a_udp_port_that_something_holds_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        with pytest.raises(PortTakenError):
            await SocketPortBinding().try_bind(port(holder.getsockname()[1], protocol=Protocol.UDP))


async def test_a_free_port_is_free_again_after_the_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
    await SocketPortBinding().try_bind(port(number))

    socket.create_server(("127.0.0.1", number)).close()


async def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(PortAddressError):
        await SocketPortBinding().try_bind(port(2222, address=HOST))


async def test_a_privileged_port_is_refused_to_root_too() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first <= 1:
        pytest.skip("this host has no privileged ports")

    with pytest.raises(PortPrivilegedError):
        await SocketPortBinding().try_bind(port(first - 1))
