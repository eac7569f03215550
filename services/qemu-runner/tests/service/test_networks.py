"""What a NIC gets on which network: decided at launch, held by the machine, given back behind it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bridge_network_fakes import NO_NET_ADMIN, FakeBridgeNetwork
from qemu_runner.bridge_network import (
    AttachedTap,
    BridgeNic,
    BridgePortTakenError,
    Leak,
    LinkError,
    PublishedPort,
)
from qemu_runner.bridge_network.pool import AddressPool
from qemu_runner.domain.default_network import DefaultNetwork
from qemu_runner.domain.machine import MachineId, MachinePhase, MachineSpec, Nic, PortMapping
from qemu_runner.domain.observation import Observation
from qemu_runner.errors import (
    AddressInUseError,
    HostCapacityError,
    MachineStateError,
    NetworkUnavailableError,
    PortUnavailableError,
    QemuStartError,
    SpecInvalidError,
)
from qemu_runner.ports import ChildRole
from qemu_runner.user_network import UserBackend
from runner_fakes import SPEC, Runner, World, new_id

MAC = "52:54:00:00:00:01"
OTHER_MAC = "52:54:00:00:00:02"
SSH = PortMapping(2222, 22)
WEB = PortMapping(8081, 80)


class KeepingBridgeNetwork(FakeBridgeNetwork):
    """Remembers the descriptors that it gave away."""

    opened: tuple[int, ...] = ()

    async def attach(self, nic: BridgeNic, *, queues: int = 1) -> AttachedTap:
        tap = await super().attach(nic, queues=queues)
        self.opened += tap.taps
        return tap


def on(network: str, mac: str = MAC, *ports: PortMapping) -> MachineSpec:
    return replace(SPEC, nics=(Nic(network, mac, ports),))


def addresses(seen: Observation) -> list[tuple[str, str]]:
    return [(one.address, one.source) for nic in seen.nics for one in nic.addresses]


def opened_as(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except FileNotFoundError:
        return ""


def netdevs(argv: Sequence[str]) -> list[str]:
    return [value for word, value in pairwise(argv) if word == "-netdev"]


async def plan_of(runner: Runner, spec: MachineSpec) -> Any:
    return await runner.services.planning.plan(new_id(), spec)


async def prepared(runner: Runner, spec: MachineSpec) -> MachineId:
    machine_id = new_id()
    await runner.prepare(machine_id, spec)
    return machine_id


async def test_default_is_qc0_where_it_can_be_made(world: World) -> None:
    async with world.runner() as runner:
        plan = await runner.services.planning.plan(new_id(), on("default"))
        assert plan.networks == ("qc0",)
        assert "qc0" not in " ".join(plan.warnings)


async def test_else_default_is_user_and_the_plan_says_why(world: World) -> None:
    world.nat.refused = NO_NET_ADMIN
    async with world.runner() as runner:
        plan = await runner.services.planning.plan(new_id(), on("default"))
        assert plan.networks == ("user",)
        assert "CAP_NET_ADMIN" in plan.warnings[0]


@pytest.mark.parametrize(("setting", "stands_for"), [("user", "user"), ("qc0", "qc0")])
async def test_the_setting_decides_what_default_is(world: World, setting: str, stands_for: str) -> None:
    world.default_network = DefaultNetwork(setting)
    async with world.runner() as runner:
        assert (await runner.services.planning.plan(new_id(), on("default"))).networks == (stands_for,)


async def test_qc0_by_name_is_refused_where_it_cannot_be_had(world: World) -> None:
    world.nat.refused = NO_NET_ADMIN
    async with world.runner() as runner:
        with pytest.raises(NetworkUnavailableError, match=r"CAP_NET_ADMIN.* To mend it: grant it"):
            await runner.services.planning.plan(new_id(), on("qc0"))


async def test_qc0_that_is_switched_off_is_refused_with_the_setting(world: World) -> None:
    world.nat_enabled = False
    async with world.runner() as runner:
        with pytest.raises(NetworkUnavailableError, match="bridgeNetwork"):
            await prepared(runner, on("qc0"))


@pytest.mark.parametrize(
    ("network", "said"),
    [("bridge:br9", "no interface of that name"), ("bridge:qc0", "node's own"), ("lan", "no network 'lan'")],
)
async def test_networks_that_are_not_there_are_refused(world: World, network: str, said: str) -> None:
    async with world.runner() as runner:
        with pytest.raises((NetworkUnavailableError, SpecInvalidError), match=said):
            await runner.services.planning.plan(new_id(), on(network))


async def test_the_address_is_shown_as_soon_as_the_machine_is_known(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await prepared(runner, on("qc0"))
        seen = runner.seen(machine_id)
        assert seen.phase is MachinePhase.PREPARED
        assert addresses(seen) == [("10.76.0.2", "reserved")]


async def test_the_address_stays_over_stop_start_and_a_restart_of_the_service(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0"))
        before = addresses(runner.seen(machine_id))
        await runner.stop(machine_id)
        assert addresses(runner.seen(machine_id)) == before
    async with world.runner() as runner:
        await runner.start(machine_id)
        assert addresses(runner.seen(machine_id)) == before
        assert [str(nic.address) for nic in world.nat.attached.values()] == ["10.76.0.2"]


async def test_a_released_address_is_not_given_again_at_once(world: World) -> None:
    async with world.runner() as runner:
        first = await prepared(runner, on("qc0"))
        await runner.delete(first)
        second = await prepared(runner, on("qc0"))
        assert addresses(runner.seen(second)) == [("10.76.0.3", "reserved")]


async def test_without_an_address_left_nothing_is_made(world: World) -> None:
    world.nat.pool = AddressPool(IPv4Network("10.76.0.0/29"))
    async with world.runner() as runner:
        for number in range(5):
            await prepared(runner, on("qc0", f"52:54:00:00:01:0{number}"))
        with pytest.raises(HostCapacityError, match="addresses"):
            await runner.services.planning.plan(new_id(), on("qc0"))
        with pytest.raises(HostCapacityError, match="addresses"):
            await prepared(runner, on("qc0"))
        assert len(runner.services.machines.records()) == 5


def static(address: str, network: str = "qc0", mac: str = "52:54:00:00:09:01") -> MachineSpec:
    spec = on(network, mac)
    return replace(spec, nics=(replace(spec.nics[0], address=address),))


async def test_a_static_address_is_the_cards_own_before_boot_and_while_it_runs(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await prepared(runner, static("10.76.0.77"))
        assert addresses(runner.seen(machine_id)) == [("10.76.0.77", "static")]
        await runner.start(machine_id)
        assert [str(nic.address) for nic in world.nat.attached.values()] == ["10.76.0.77"]
    async with world.runner() as runner:
        assert addresses(runner.seen(machine_id)) == [("10.76.0.77", "static")]


async def test_a_static_address_is_given_to_nobody_else(world: World) -> None:
    world.nat.pool = AddressPool(IPv4Network("10.76.0.0/29"))
    async with world.runner() as runner:
        await prepared(runner, static("10.76.0.2"))
        other = await prepared(runner, on("qc0"))
        assert addresses(runner.seen(other)) == [("10.76.0.3", "reserved")]


@pytest.mark.parametrize("ask", [plan_of, prepared])
async def test_an_address_that_another_has_is_refused_with_its_name(world: World, ask: Any) -> None:
    async with world.runner() as runner:
        held = await prepared(runner, replace(on("qc0"), name="db-1"))
        ((address, _),) = addresses(runner.seen(held))
        with pytest.raises(AddressInUseError) as caught:
            await ask(runner, static(address))
    assert (caught.value.pointer, caught.value.holder) == ("/nics/0/address", "db-1")


@pytest.mark.parametrize("ask", [plan_of, prepared])
@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.76.0.0", "qc0"),
        ("10.76.0.1", "qc0"),
        ("10.76.0.255", "qc0"),
        ("10.77.0.9", "qc0"),
        ("nonsense", "qc0"),
        ("10.76.0.9", "bridge:br0"),
        ("10.76.0.9", "user"),
    ],
)
async def test_an_address_that_no_guest_of_the_network_can_have_is_refused(
    world: World, ask: Any, address: str, network: str
) -> None:
    async with world.runner() as runner:
        with pytest.raises(SpecInvalidError, match="/nics/0/address"):
            await ask(runner, static(address, network))


def planned(address: str, mac: str = MAC) -> MachineSpec:
    spec = on("qc0", mac)
    return replace(spec, nics=(replace(spec.nics[0], planned=address),))


async def test_a_plan_sets_an_address_aside_that_the_prepare_then_gives(world: World) -> None:
    async with world.runner() as runner:
        first, second = new_id(), new_id()
        planning = runner.services.planning
        assert (await planning.plan(first, on("qc0"), reserve=True)).addresses == ("10.76.0.2",)
        assert (await planning.plan(second, on("qc0", OTHER_MAC), reserve=True)).addresses == ("10.76.0.3",)
        await runner.prepare(second, planned("10.76.0.3", OTHER_MAC))
        await runner.prepare(first, planned("10.76.0.2"))
        assert addresses(runner.seen(first)) == [("10.76.0.2", "reserved")]
        assert addresses(runner.seen(second)) == [("10.76.0.3", "reserved")]


async def test_a_plan_that_is_only_asked_sets_nothing_aside(world: World) -> None:
    async with world.runner() as runner:
        assert (await runner.services.planning.plan(new_id(), on("qc0"))).addresses == ()
        assert world.nat.last is None


async def test_what_is_set_aside_is_nobody_elses_when_the_turn_comes_round(world: World) -> None:
    world.nat.pool = AddressPool(IPv4Network("10.76.0.0/29"))
    async with world.runner() as runner:
        await runner.services.planning.plan(new_id(), on("qc0"), reserve=True)
        given = [await prepared(runner, on("qc0", f"52:54:00:00:01:0{number}")) for number in range(4)]
        assert "10.76.0.2" not in {addresses(runner.seen(one))[0][0] for one in given}


async def test_what_was_planned_before_a_restart_is_still_given(world: World) -> None:
    machine_id = new_id()
    async with world.runner() as runner:
        await runner.services.planning.plan(machine_id, on("qc0"), reserve=True)
    async with world.runner() as runner:
        await prepared(runner, on("qc0", OTHER_MAC))
        await runner.prepare(machine_id, planned("10.76.0.2"))
        assert addresses(runner.seen(machine_id)) == [("10.76.0.2", "reserved")]


async def test_a_planned_address_that_another_has_by_now_is_replaced(world: World) -> None:
    async with world.runner() as runner:
        await prepared(runner, static("10.76.0.2"))
        machine_id = await prepared(runner, planned("10.76.0.2"))
        assert addresses(runner.seen(machine_id)) == [("10.76.0.3", "reserved")]


async def test_a_mac_that_another_machine_has_on_the_network_is_refused(world: World) -> None:
    async with world.runner() as runner:
        await prepared(runner, on("qc0"))
        with pytest.raises(SpecInvalidError, match="/nics/0/mac"):
            await prepared(runner, on("qc0"))
        await prepared(runner, on("bridge:br0"))


async def test_a_tap_is_given_to_qemu_before_the_guest_runs_and_closed_here(world: World) -> None:
    world.nat = nat = KeepingBridgeNetwork()
    async with world.runner() as runner:
        await runner.running(replace(on("qc0"), cpus=2))
        commands = world.vm_host.qemu.commands
        wanted = ["getfd", "getfd", "netdev_add", "device_add", "cont"]
        assert [one for one in commands if one in wanted] == wanted
        assert not any("netdev" in word for word in world.vm_host.spawned[-1].argv)
        assert len(nat.opened) == 2
        # A number may be in use again, but not for what the fake opened.
        assert [one for one in nat.opened if opened_as(one) == os.devnull] == []


async def test_what_a_machine_had_on_the_bridge_goes_with_its_process(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0"))
        world.vm_host.end(world.vm_host.qemu.handle, code=0)
        await runner.until(machine_id, lambda seen: seen.phase is MachinePhase.EXITED)
        assert world.nat.attached == {}


async def test_a_start_that_fails_leaves_nothing_on_the_bridge(world: World) -> None:
    world.vm_host.dies = 1
    async with world.runner() as runner:
        machine_id = await prepared(runner, on("qc0"))
        with pytest.raises(QemuStartError):
            await runner.start(machine_id)
        assert world.nat.attached == {}


async def test_a_spawn_that_is_refused_leaves_nothing_on_the_bridge(world: World) -> None:
    world.vm_host.programs = ("passt",)
    async with world.runner() as runner:
        machine_id = await prepared(runner, on("qc0"))
        with pytest.raises(Exception, match="QEMU cannot be run"):
            await runner.start(machine_id)
        assert world.nat.attached == {}


async def test_a_bridge_that_cannot_be_had_any_more_is_said_before_qemu_is_spawned(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await prepared(runner, on("qc0"))
        world.nat.refused = NO_NET_ADMIN
        with pytest.raises(NetworkUnavailableError, match="CAP_NET_ADMIN"):
            await runner.start(machine_id)
        assert world.vm_host.spawned == []
        assert runner.seen(machine_id).phase is MachinePhase.PREPARED


async def test_ports_on_qc0_change_while_the_machine_runs(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0", MAC, SSH))
        await runner.prepare(machine_id, on("qc0", MAC, WEB))
        assert world.nat.attached[machine_id, 0].ports == (PublishedPort(8081, 80),)
        assert runner.services.machines.records()[0].spec.ports == (WEB,)


async def test_a_taken_port_leaves_ports_and_record_as_they_were(world: World) -> None:
    taken = PublishedPort(8081, 80)
    world.nat.taken_ports[taken] = BridgePortTakenError(taken, "something listens there.")
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0", MAC, SSH))
        with pytest.raises(PortUnavailableError, match="8081"):
            await runner.prepare(machine_id, on("qc0", MAC, WEB))
        with pytest.raises(PortUnavailableError, match="8081"):
            await runner.services.planning.plan_network(machine_id, on("qc0", MAC, WEB))
        assert world.nat.attached[machine_id, 0].ports == (PublishedPort(2222, 22),)
        assert runner.services.machines.records()[0].spec.ports == (SSH,)


async def test_ports_that_the_host_refuses_to_change_are_recorded_as_they_were(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0", MAC, SSH))
        world.nat.failing = LinkError("nftables", "no")
        with pytest.raises(NetworkUnavailableError):
            await runner.prepare(machine_id, on("qc0", MAC, WEB))
        assert runner.services.machines.records()[0].spec.ports == (SSH,)


async def test_a_port_is_reserved_across_networks_and_while_its_machine_is_off(world: World) -> None:
    async with world.runner() as runner:
        await prepared(runner, on("user", MAC, SSH))
        with pytest.raises(PortUnavailableError, match="2222"):
            await prepared(runner, on("qc0", OTHER_MAC, SSH))


async def test_a_running_machine_keeps_its_networks(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0"))
        with pytest.raises(MachineStateError):
            await runner.prepare(machine_id, on("user"))


async def test_only_the_first_nic_on_the_bridge_publishes(world: World) -> None:
    nics = (Nic("qc0", MAC), Nic("qc0", OTHER_MAC, (SSH,)))
    async with world.runner() as runner:
        with pytest.raises(SpecInvalidError, match="cannot publish"):
            await prepared(runner, replace(SPEC, nics=nics))


async def test_what_runs_is_adopted_with_its_address_and_its_ports(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0", MAC, SSH))
        await prepared(runner, on("qc0", OTHER_MAC))
    async with world.runner():
        assert world.nat.adopted is not None
        (nic,) = world.nat.adopted
        assert (nic.machine_id, nic.mac, str(nic.address)) == (machine_id, MAC, "10.76.0.2")
        assert nic.ports == (PublishedPort(2222, 22),)


async def test_what_ended_while_the_service_was_away_is_not_adopted(world: World) -> None:
    async with world.runner() as runner:
        await runner.running(on("qc0"))
    world.vm_host.end(world.vm_host.qemu.handle, code=0)
    async with world.runner():
        assert world.nat.adopted == ()


async def test_leaks_of_the_bridge_are_listed(world: World) -> None:
    world.nat.found_leaks = [Leak(kind="tap", name="qc0123456789-0", owner="tests")]
    async with world.runner() as runner:
        assert [(leak.kind, leak.name) for leak in await runner.services.host.leaks()] == [
            ("tap", "qc0123456789-0")
        ]


async def test_the_bridge_goes_with_the_service_when_nothing_runs(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("qc0"))
        await runner.stop(machine_id, force=True)
    assert world.nat.left


async def test_the_bridge_stays_under_what_runs_on(world: World) -> None:
    async with world.runner() as runner:
        await runner.running(on("qc0"))
    assert not world.nat.left


async def test_a_guest_on_a_bridge_of_others_is_known_by_its_neighbours(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running(on("bridge:br0"))
        assert [bridge for bridge, _ in world.bridges.attached] == ["br0"]
        world.bridges.learn("br0", MAC, "192.0.2.77")
        seen = await runner.until(machine_id, lambda seen: bool(addresses(seen)))
        assert addresses(seen) == [("192.0.2.77", "neighbour")]
        await runner.stop(machine_id)
        assert addresses(runner.seen(machine_id)) == []


async def test_taps_of_one_machine_have_names_of_their_own(world: World) -> None:
    nics = (Nic("bridge:br0", MAC), Nic("qc0", OTHER_MAC))
    async with world.runner() as runner:
        await prepared(runner, replace(SPEC, nics=nics))
        (record,) = runner.services.machines.records()
        taps = [holding.tap for holding in record.holdings]
        assert len(set(taps)) == 2
        assert all(0 < len(tap) <= 15 for tap in taps)


async def test_by_slirp_nothing_is_spawned_beside_qemu(world: World) -> None:
    world.user_backend = UserBackend.SLIRP
    async with world.runner() as runner:
        machine_id = await runner.running(on("user"))
        assert addresses(runner.seen(machine_id)) == [("10.77.0.16", "user")]
        assert {request.handle.role for request in world.vm_host.spawned} == {ChildRole.QEMU}
        (netdev,) = netdevs(world.vm_host.spawned[-1].argv)
        assert netdev.startswith("user,id=net0,")
        assert not world.guard.standing


async def test_by_slirp_a_plan_shows_what_a_start_gives_qemu(world: World) -> None:
    world.user_backend = UserBackend.SLIRP
    async with world.runner() as runner:
        await prepared(runner, on("user"))
        machine_id = new_id()
        plan = await runner.services.planning.plan(machine_id, on("user", OTHER_MAC))
        await runner.prepare(machine_id, on("user", OTHER_MAC))
        await runner.start(machine_id)
        assert netdevs(plan.qemu_argv) == netdevs(world.vm_host.spawned[-1].argv)


async def test_by_slirp_ports_are_refused_with_their_pointer(world: World) -> None:
    world.user_backend = UserBackend.SLIRP
    async with world.runner() as runner:
        with pytest.raises(SpecInvalidError) as refused:
            await runner.prepare(new_id(), on("user", MAC, SSH))
        assert [fault.pointer for fault in refused.value.faults] == ["/ports/0"]


async def test_slirp_is_refused_where_it_would_give_guests_the_hosts_loopback(world: World) -> None:
    world.user_backend = UserBackend.SLIRP
    world.namespace.shared = True
    async with world.runner() as runner:
        with pytest.raises(NetworkUnavailableError, match="loopback"):
            await runner.services.planning.plan(new_id(), on("user"))


async def test_the_user_networks_netdev_has_the_number_of_its_nic(world: World) -> None:
    async with world.runner() as runner:
        spec = replace(SPEC, nics=(Nic("qc0", MAC), Nic("user", OTHER_MAC)))
        await runner.running(spec)
        (netdev,) = netdevs(world.vm_host.spawned[-1].argv)
        assert netdev.startswith("stream,id=net1,")
