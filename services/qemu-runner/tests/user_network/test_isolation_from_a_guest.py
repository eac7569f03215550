"""From inside a real guest, no listener of the host can be reached, and the control can.

The control plane is played by listeners on the loopback, the wildcard address and the host's
address; what they saw is the evidence, not what the guest says. Needs root and boots QEMU.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from qemu_runner.user_network import (
    STREAM_DISCONNECTED_EVENT,
    AddressPlan,
    PasstBehaviour,
    PublishedPort,
    ResolverPlan,
    passt_argv,
)
from qemu_runner.user_network.adapters.nft import NftGuard
from qemu_runner.user_network.adapters.probe import CachedProbe
from qemu_runner.user_network.guard import GuardSpec
from user_network_guest import Agent, Qmp, booted_guest
from user_network_world import HOST, UID_FIRST, UID_LAST, WORLD, World, made_world, reached

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
ANY = IPv4Address("0.0.0.0")
GUEST = AddressPlan(IPv4Network("10.77.0.0/16")).at(5)
CONTROL_PLANE = {8009: LOOPBACK, 8010: LOOPBACK, 8080: LOOPBACK, 8081: ANY, 8082: HOST}
DONE_PORT = 9001
SSH = PublishedPort(host=2222, guest=7777)
TARGETS = (LOOPBACK, ANY, IPv4Address("127.0.0.2"), HOST, GUEST.gateway, GUEST.dns)

# Makes the guest's kernel send packets for 127.0.0.0/8 to its gateway instead of itself. The order
# matters: deleting the address also deletes the routes that keep the loopback local.
HOSTILE = f"""
for f in all default eth0; do
  echo 1 > /proc/sys/net/ipv4/conf/$f/route_localnet
  echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter
done
ip addr flush dev lo; ip link set lo down
ip route add 127.0.0.0/8 via {GUEST.gateway} dev eth0 src {GUEST.address}
"""


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with made_world() as world:
        yield world


@pytest.fixture(name="guard")
def _guard(world: World) -> NftGuard:
    return NftGuard(GuardSpec("tests/1", UID_FIRST, UID_LAST), enter=world.enter(world.host))


@pytest.fixture(name="behaviour")
async def _behaviour(tmp_path: Path) -> PasstBehaviour:
    return await CachedProbe("passt", tmp_path).behaviour()


@contextmanager
def machine(
    world: World, behaviour: PasstBehaviour
) -> Iterator[tuple[Qmp, Agent, "subprocess.Popen[bytes]"]]:
    """A booted guest behind passt, with one published port."""
    guest_end, passt_end = socket.socketpair()
    argv = passt_argv("passt", passt_end.fileno(), GUEST, (SSH,), ResolverPlan(), behaviour.options)
    with guest_end, passt_end:
        passt = world.spawn_as_machine(argv, [passt_end.fileno()])
        passt_end.close()
        try:
            with booted_guest(world, guest_end.fileno()) as (qmp, agent):
                guest_end.close()
                yield qmp, agent, passt
        finally:
            passt.kill()
            passt.wait()


def attack(world: World, agent: Agent) -> set[int]:
    """Try every port on every address, first as any guest would, then hostile; give the ports reached.

    The last attempt goes to the world's listener: the positive control, and the sign of the end.
    """
    listeners = {port: world.listen(world.host, address, port) for port, address in CONTROL_PLANE.items()}
    world_listener = world.listen(world.world, WORLD, DONE_PORT)
    ports = " ".join(map(str, CONTROL_PLANE))
    targets = " ".join(map(str, TARGETS))
    # In the background and together: a packet that nobody answers costs its time-out only once.
    tries = f"for a in {targets}; do for p in {ports}; do timeout 3 nc $a $p </dev/null & done; done; wait\n"
    wait_for_address = "until ip route | grep -q default; do usleep 100000; done\n"
    agent.start(f"{wait_for_address}{tries}{HOSTILE}{tries}nc -w 3 {WORLD} {DONE_PORT} </dev/null")
    assert reached(world_listener, 60.0), "the control failed: the guest reaches nothing at all"
    world_listener.close()
    found = {port for port, listener in listeners.items() if reached(listener)}
    for listener in listeners.values():
        listener.close()
    return found


async def test_behind_the_guard_a_guest_reaches_no_port_of_the_control_plane(
    world: World, guard: NftGuard, behaviour: PasstBehaviour
) -> None:
    await guard.ensure(ResolverPlan())

    with machine(world, behaviour) as (_, agent, _):
        assert attack(world, agent) == set()


async def test_without_the_guard_the_same_guest_reaches_what_the_probe_foretold(
    world: World, behaviour: PasstBehaviour
) -> None:
    with machine(world, behaviour) as (_, agent, _):
        found = attack(world, agent)

    assert (8080 in found) is behaviour.leaks_loopback
    assert (8082 in found) is behaviour.reaches_host_addresses


async def test_a_published_port_reaches_the_guest_through_the_guard(
    world: World, guard: NftGuard, behaviour: PasstBehaviour
) -> None:
    await guard.ensure(ResolverPlan())

    with machine(world, behaviour) as (_, agent, _):
        ready = world.listen(world.world, WORLD, DONE_PORT)
        agent.start(
            "until ip route | grep -q default; do usleep 100000; done\n"
            f"(echo from-the-guest | nc -l -p {SSH.guest}) &\n"
            f"until grep -q ':{SSH.guest:04X} ' /proc/net/tcp /proc/net/tcp6; do usleep 100000; done\n"
            f"nc -w 3 {WORLD} {DONE_PORT} </dev/null"
        )
        assert reached(ready, 30.0)
        with ready, world.connect(world.host, LOOPBACK, SSH.host) as client:
            # An old passt tells the guest of its client only when that speaks.
            client.sendall(b"hello\n")
            assert client.recv(64) == b"from-the-guest\n"


async def test_qemu_outlives_its_passt_and_says_so(
    world: World, guard: NftGuard, behaviour: PasstBehaviour
) -> None:
    await guard.ensure(ResolverPlan())

    with machine(world, behaviour) as (qmp, _, passt):
        passt.kill()
        qmp.wait_event(STREAM_DISCONNECTED_EVENT, 10.0)
        assert isinstance(status := qmp.call("query-status"), dict)
        assert status["status"] == "running"
