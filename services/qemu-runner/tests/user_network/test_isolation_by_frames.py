"""A hostile guest made of frames tries every address of the host through a real passt.

Needs root: host and world are network namespaces of the test's own.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from qemu_runner.user_network import (
    AddressPlan,
    PasstBehaviour,
    PublishedPort,
    ResolverPlan,
    passt_argv,
)
from qemu_runner.user_network.adapters.fake_guest import FakeGuest
from qemu_runner.user_network.adapters.nft import NftGuard
from qemu_runner.user_network.adapters.probe import CachedProbe
from qemu_runner.user_network.guard import GuardSpec
from user_network_world import HOST, UID_FIRST, UID_LAST, WORLD, World, made_world, reached

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
ANY = IPv4Address("0.0.0.0")
GUEST = AddressPlan(IPv4Network("10.77.0.0/16")).at(0)
TARGETS = (LOOPBACK, ANY, IPv4Address("127.0.0.2"), HOST, GUEST.gateway, GUEST.dns, GUEST.address)
PROBE_CHILD = "qemu_runner.user_network.adapters.probe_child"
NO_DNS = ResolverPlan()


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
def guest_of(
    world: World, behaviour: PasstBehaviour, *ports: PublishedPort, resolver: ResolverPlan = NO_DNS
) -> Iterator[FakeGuest]:
    ours, theirs = socket.socketpair()
    argv = passt_argv("passt", theirs.fileno(), GUEST, ports, resolver, behaviour.options)
    with ours, theirs:
        passt = world.spawn_as_machine(argv, [theirs.fileno()])
        theirs.close()
        try:
            guest = FakeGuest(ours, GUEST.address, GUEST.gateway)
            assert guest.resolve_gateway(5.0), "passt did not start"
            yield guest
        finally:
            passt.kill()
            passt.wait()


def attack(world: World, guest: FakeGuest) -> set[str]:
    """Try every address by TCP and UDP; give which of the host's listeners were reached.

    The world's listener is the positive control and comes last: passt takes frames in order.
    """
    listeners = {
        "loopback": world.listen(world.host, LOOPBACK),
        "wildcard": world.listen(world.host, ANY),
        "address": world.listen(world.host, HOST),
        "loopback-udp": world.receive_on(world.host, LOOPBACK),
        "wildcard-udp": world.receive_on(world.host, ANY),
        "address-udp": world.receive_on(world.host, HOST),
    }
    world_listener = world.listen(world.world, WORLD)
    source_port = 41_000
    for target in TARGETS:
        for name, listener in listeners.items():
            source_port += 1
            port = listener.getsockname()[1]
            if name.endswith("udp"):
                guest.send_udp(target, port, source_port, b"hostile")
            else:
                guest.send_syn(target, port, source_port)
    guest.send_syn(WORLD, world_listener.getsockname()[1], 42_000)
    assert reached(world_listener, 5.0), "the control failed: the guest reaches nothing at all"
    world_listener.close()
    found = {name for name, listener in listeners.items() if reached(listener)}
    for listener in listeners.values():
        listener.close()
    return found


async def test_behind_the_guard_a_hostile_guest_reaches_no_listener_of_the_host(
    world: World, guard: NftGuard, behaviour: PasstBehaviour
) -> None:
    await guard.ensure(NO_DNS)

    with guest_of(world, behaviour) as guest:
        assert attack(world, guest) == set()


async def test_without_the_guard_the_same_attack_reaches_what_the_probe_foretold(
    world: World, behaviour: PasstBehaviour
) -> None:
    with guest_of(world, behaviour) as guest:
        found = attack(world, guest)

    assert ("loopback" in found) is behaviour.leaks_loopback
    assert ("address" in found) is behaviour.reaches_host_addresses


async def test_a_published_tcp_port_leads_through_the_guard(
    world: World, guard: NftGuard, behaviour: PasstBehaviour
) -> None:
    await guard.ensure(NO_DNS)

    with guest_of(world, behaviour, PublishedPort(host=2222, guest=22)) as guest:
        client = world.connect(world.host, LOOPBACK, 2222)
        packet = guest.receive_opening(5.0)
        client.close()

    assert packet is not None
    assert packet.destination_port == 22


async def test_queries_pass_the_guard_to_a_resolver_on_the_loopback_and_nowhere_else(
    world: World, guard: NftGuard, behaviour: PasstBehaviour
) -> None:
    resolver = ResolverPlan(forward_to=LOOPBACK)
    await guard.ensure(resolver)
    server = world.receive_on(world.host, LOOPBACK, 53)
    other = world.receive_on(world.host, LOOPBACK, 5353)

    with server, other, guest_of(world, behaviour, resolver=resolver) as guest:
        guest.send_udp(LOOPBACK, 5353, 40_001, b"not dns")
        guest.send_udp(GUEST.dns, 53, 40_002, b"query")
        assert reached(server, 5.0)
        assert not reached(other)


async def test_a_guard_that_somebody_deleted_stands_again_after_ensure(world: World, guard: NftGuard) -> None:
    await guard.ensure(NO_DNS)
    world.run("nft", "delete", "table", "inet", guard.name.rpartition(" ")[2])

    await guard.ensure(NO_DNS)

    assert await guard.present()


async def test_a_removed_guard_leaves_no_table(world: World, guard: NftGuard) -> None:
    await guard.ensure(NO_DNS)

    await guard.remove()

    assert world.run("nft", "list", "tables") == ""


async def test_removing_a_guard_twice_is_harmless(guard: NftGuard) -> None:
    await guard.remove()

    await guard.remove()

    assert not await guard.present()


async def test_trying_whether_the_guard_can_be_had_leaves_nothing(world: World, guard: NftGuard) -> None:
    assert await guard.usable() is None

    assert world.run("nft", "list", "tables") == ""


async def test_guards_of_two_owners_stand_side_by_side(world: World, guard: NftGuard) -> None:
    other = NftGuard(GuardSpec("tests/2", UID_FIRST, UID_LAST), enter=world.enter(world.host))
    await guard.ensure(NO_DNS)
    await other.ensure(NO_DNS)

    await other.remove()

    assert await guard.present()


async def test_the_probe_sees_the_same_in_a_user_namespace(behaviour: PasstBehaviour) -> None:
    argv = ["unshare", "--user", "--map-root-user", "--net", "--", sys.executable, "-m", PROBE_CHILD, "passt"]

    done = subprocess.run(argv, capture_output=True, check=True, timeout=30)

    assert json.loads(done.stdout)["leaks_loopback"] is behaviour.leaks_loopback


async def test_the_guard_judges_before_a_container_engine_redirects(
    world: World, guard: NftGuard, behaviour: PasstBehaviour
) -> None:
    published = 8080
    await guard.ensure(NO_DNS)
    container = world.listen(world.world, WORLD)
    target = f"{WORLD}:{container.getsockname()[1]}"
    world.run("nft", "add table ip engine; add chain ip engine out { type nat hook output priority -100; }")
    world.run("nft", f"add rule ip engine out ip daddr {HOST} tcp dport {published} dnat to {target}")
    world.connect(world.host, HOST, published).close()
    assert reached(container), "the redirection does not work at all"

    with container, guest_of(world, behaviour) as guest:
        guest.send_syn(HOST, published, 41_000)
        guest.send_syn(WORLD, container.getsockname()[1], 41_001)
        assert reached(container, 5.0)
        assert not reached(container)
