"""slirp is offered where vm-host's network is not the runner's, and publishes nothing."""

import os
import socket
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from qemu_runner.user_network import (
    CheckStatus,
    PublishedPort,
    PublishingUnsupportedError,
    Refused,
    SlirpAvailable,
    SlirpNetwork,
    UserBackend,
    UserNetworkUnavailableError,
)
from qemu_runner.user_network.adapters.unix_sockets import ProcVmHostNamespace, listening_paths
from qemu_runner.user_network.wiring import UserNetworkSettings, build_user_network
from user_network_fakes import FakeNamespace

SUBNET = IPv4Network("10.77.0.0/16")


def network(*, shared: bool = False) -> SlirpNetwork:
    return SlirpNetwork(SUBNET, FakeNamespace(shared))


async def test_slirp_is_offered_where_vm_host_has_a_network_of_its_own() -> None:
    assert isinstance(await network().availability(), SlirpAvailable)


async def test_slirp_is_refused_where_vm_host_shares_the_runners_network() -> None:
    assert isinstance(await network(shared=True).availability(), Refused)


async def test_a_start_looks_again_where_vm_host_is() -> None:
    namespace = FakeNamespace()
    offered = SlirpNetwork(SUBNET, namespace)
    await offered.prepare_start(0, ())
    namespace.shared = True
    with pytest.raises(UserNetworkUnavailableError, match="loopback"):
        await offered.prepare_start(0, ())


async def test_no_port_is_published() -> None:
    with pytest.raises(PublishingUnsupportedError):
        await network().check_ports([PublishedPort(2222, 22)], ())


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (0, "net=10.77.0.0/24,host=10.77.0.2,dns=10.77.0.3,dhcpstart=10.77.0.16"),
        (240, "net=10.77.1.0/24,host=10.77.1.2,dns=10.77.1.3,dhcpstart=10.77.1.17"),
    ],
)
def test_a_guest_gets_the_address_of_its_index(index: int, words: str) -> None:
    option = network().netdev_option("net0", index, "{fd:passt}")
    assert option == f"user,id=net0,restrict=off,ipv4=on,ipv6=off,{words}"


@pytest.mark.parametrize(("shared", "status"), [(False, CheckStatus.WARN), (True, CheckStatus.FAIL)])
async def test_the_doctor_tells_whose_loopback_guests_are_given(*, shared: bool, status: CheckStatus) -> None:
    (check,) = await network(shared=shared).checks()
    assert check.status is status
    assert check.fix


def test_slirp_is_built_only_where_the_settings_say_so(tmp_path: Path) -> None:
    assert not isinstance(build_user_network(UserNetworkSettings(tmp_path, "tests/1")), SlirpNetwork)
    settings = UserNetworkSettings(tmp_path, "tests/1", backend=UserBackend.SLIRP)
    assert isinstance(build_user_network(settings), SlirpNetwork)


async def test_a_socket_that_listens_in_this_namespace_is_found(tmp_path: Path) -> None:
    path = tmp_path / "vm host.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        assert not await ProcVmHostNamespace([path]).is_shared()
        listener.listen()
        assert await ProcVmHostNamespace([path]).is_shared()
        assert not await ProcVmHostNamespace([tmp_path / "vm"]).is_shared()


def test_the_servers_end_of_a_connection_does_not_count() -> None:
    # It is of its client's namespace, with the server's path.
    table = (
        b"Num       RefCount Protocol Flags    Type St Inode Path\n"
        b"0000000000000000: 00000003 00000000 00000000 0005 03  4711 /run/connected.sock\n"
        b"0000000000000000: 00000003 00000000 00000000 0005 03  4713\n"
        b"0000000000000000: 00000002 00000000 00010000 0005 01  4712 /run/listening.sock\n"
    )
    assert listening_paths(table) == {"/run/listening.sock"}
