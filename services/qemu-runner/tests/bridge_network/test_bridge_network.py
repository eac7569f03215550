"""The service's order of things and its undoing, on a host in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from bridge_network_fakes import FakeBridgeNetwork
from bridge_network_host import MemoryHost, network_on
from qemu_runner.bridge_network import (
    AddressOutsideError,
    AddressTakenError,
    BridgeNetwork,
    BridgeNic,
    BridgePortTakenError,
    BridgeUnavailableError,
    HostRefusedError,
    NotAttachedError,
    NotesError,
    Offered,
    Protocol,
    PublishedPort,
    Refused,
)
from qemu_runner.bridge_network.adapters.notes import FileNotes
from qemu_runner.bridge_network.host_view import Link
from qemu_runner.bridge_network.marks import Marks
from qemu_runner.bridge_network.ports import Change
from qemu_runner.bridge_network.supervision import Supervision

SSH = PublishedPort(2222, 22)
DNS = PublishedPort(5353, 53, Protocol.UDP)
NIC = BridgeNic("m-1", "web-1", "52:54:00:00:00:01", IPv4Address("10.76.0.2"))
OTHER = BridgeNic("m-2", "web-2", "52:54:00:00:00:02", IPv4Address("10.76.0.3"))


@pytest.fixture(name="host")
def _host() -> MemoryHost:
    return MemoryHost()


@asynccontextmanager
async def running(network: BridgeNetwork) -> AsyncIterator[BridgeNetwork]:
    task = asyncio.create_task(network.run())
    try:
        yield network
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(name="network")
async def _network(host: MemoryHost) -> AsyncIterator[BridgeNetwork]:
    async with running(network_on(host)) as network:
        yield network


async def attach(network: BridgeNetwork, nic: BridgeNic) -> None:
    (await network.attach(nic)).close()


async def test_a_tap_is_guarded_before_it_is_up(host: MemoryHost, network: BridgeNetwork) -> None:
    await attach(network, NIC)
    host.done.clear()
    await attach(network, OTHER)

    words = [step.split()[0] for step in host.done]
    assert words == ["tap", "rules", "lease", "tap-up", "introduce"]


async def test_rules_stand_before_the_bridge_does(host: MemoryHost, network: BridgeNetwork) -> None:
    await attach(network, NIC)

    words = [step.split()[0] for step in host.done]
    assert words.index("rules") < words.index("bridge") < words.index("dnsmasq")


@pytest.mark.parametrize("step", ["tap", "lease", "tap-up"])
async def test_an_attachment_that_fails_leaves_nothing_of_the_card(
    host: MemoryHost, network: BridgeNetwork, step: str
) -> None:
    await attach(network, OTHER)
    host.refusing.add(step)
    with pytest.raises(HostRefusedError):
        await network.attach(replace(NIC, ports=(SSH,)))
    host.refusing.clear()

    assert host.held_ports == set()
    assert [nic.machine_id for nic in host.cards] == ["m-2"]
    assert await network.leaks(["m-2"]) == []


async def test_a_taken_port_is_told_before_anything_is_made(host: MemoryHost, network: BridgeNetwork) -> None:
    host.taken_ports[SSH] = BridgePortTakenError(SSH, "in use")
    with pytest.raises(BridgePortTakenError):
        await network.attach(replace(NIC, ports=(DNS, SSH)))

    assert host.held_ports == set()
    assert await network.leaks([]) == []


async def test_a_card_that_another_machine_has_the_address_of_is_refused(network: BridgeNetwork) -> None:
    await attach(network, NIC)
    with pytest.raises(AddressTakenError):
        await network.attach(replace(OTHER, address=NIC.address))


async def test_ports_are_changed_at_once_and_their_udp_flows_forgotten(
    host: MemoryHost, network: BridgeNetwork
) -> None:
    await attach(network, replace(NIC, ports=(SSH,)))
    await network.publish("m-1", [DNS])

    assert host.held_ports == {5353}
    assert set(host.forgotten) == {SSH, DNS}


async def test_a_port_that_leads_elsewhere_now_stays_reserved(
    host: MemoryHost, network: BridgeNetwork
) -> None:
    await attach(network, replace(NIC, ports=(SSH,)))
    await network.publish("m-1", [PublishedPort(2222, 2200)])

    assert host.held_ports == {2222}


async def test_a_change_that_is_refused_leaves_the_ports_as_they_were(
    host: MemoryHost, network: BridgeNetwork
) -> None:
    await attach(network, replace(NIC, ports=(SSH,)))
    host.refusing.add("rules")
    with pytest.raises(HostRefusedError):
        await network.publish("m-1", [DNS])

    assert host.held_ports == {2222}


async def test_a_detachment_that_was_refused_can_be_repeated(
    host: MemoryHost, network: BridgeNetwork
) -> None:
    await attach(network, replace(NIC, ports=(SSH,)))
    host.refusing.add("rules")
    with pytest.raises(HostRefusedError):
        await network.detach("m-1")
    host.refusing.clear()
    await network.detach("m-1")

    assert host.held_ports == set()
    assert await network.leaks([]) == []


async def test_forwarding_that_was_switched_on_is_switched_back_at_the_end(host: MemoryHost) -> None:
    host.forwarding.clear()
    async with running(network_on(host)) as network:
        await attach(network, NIC)
        assert "eth0" in host.forwarding
    async with running(network_on(host)) as successor:
        await successor.leave()

    assert "eth0" not in host.forwarding


async def test_forwarding_that_everything_has_by_now_stays(host: MemoryHost) -> None:
    host.forwarding.clear()
    async with running(network_on(host)) as network:
        await attach(network, NIC)
        host.forwarding.add("all")
        await network.leave()

    assert "eth0" in host.forwarding


async def test_leaving_goes_on_when_a_step_is_refused(host: MemoryHost, network: BridgeNetwork) -> None:
    await attach(network, NIC)
    host.refusing.add("remove")
    with pytest.raises(HostRefusedError):
        await network.leave()

    assert host.rules == {}
    assert not host.running


async def test_nothing_is_attached_unless_somebody_supervises(
    host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qemu_runner.bridge_network.service._WATCH_TIMEOUT_S", 0.01)
    with pytest.raises(BridgeUnavailableError, match="nobody watches"):
        await network_on(host).attach(NIC)


async def test_a_notice_of_a_lost_table_has_it_written_anew(host: MemoryHost, network: BridgeNetwork) -> None:
    await attach(network, NIC)
    host.rules.clear()
    host.applied.clear()
    assert host.reader is not None
    host.reader.put({Change.RULES})
    async with asyncio.timeout(5):
        await host.applied.wait()

    assert len(host.rules) == 2


async def test_what_was_refused_before_supervision_began_is_tried_again(host: MemoryHost) -> None:
    network = network_on(host)
    host.refusing.add("bridge")
    with pytest.raises(HostRefusedError):
        await network.adopt([NIC])
    host.refusing.clear()
    async with running(network), asyncio.timeout(5):
        await host.started.wait()

    assert host.view.link("qc0") is not None


async def test_an_engine_may_finish_before_its_chain_is_looked_at(host: MemoryHost) -> None:
    mended: asyncio.Queue[set[Change]] = asyncio.Queue()
    supervision = Supervision(host, "ours", mended.put)
    supervision.notice({Change.ENGINE, Change.RULES})
    task = asyncio.create_task(supervision.run())
    try:
        async with asyncio.timeout(5):
            assert [await mended.get(), await mended.get()] == [{Change.RULES}, {Change.ENGINE}]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_engine_that_cannot_be_asked_does_not_keep_dnsmasq_away(
    host: MemoryHost, network: BridgeNetwork
) -> None:
    await attach(network, NIC)
    host.refusing.add("engine")
    host.running = False
    host.started.clear()
    assert host.reader is not None
    host.reader.put({Change.ENGINE, Change.NAMES})
    async with asyncio.timeout(5):
        await host.started.wait()


async def test_a_full_disk_is_told_as_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(NotesError):
        await FileNotes(tmp_path / "a file").write("turn", ["10.76.0.2"])


async def test_a_note_is_remembered_until_it_is_emptied(tmp_path: Path) -> None:
    notes = FileNotes(tmp_path / "notes")
    await notes.write("turn", ["10.76.0.2"])
    assert await notes.read("turn") == ("10.76.0.2",)
    await notes.write("turn", [])
    assert await notes.read("turn") == ()


async def test_without_the_capability_adopting_and_leaving_do_nothing(host: MemoryHost) -> None:
    host.capable = False
    network = network_on(host)
    await network.adopt([])
    await network.leave()

    assert host.done == []


@pytest.mark.parametrize(
    ("trouble", "word"),
    [
        ({"capable": False}, "CAP_NET_ADMIN"),
        ({"tun": "/dev/net/tun: No such file or directory"}, "/dev/net/tun"),
        ({"missing": {"dnsmasq"}}, "dnsmasq is not installed"),
        ({"refusing": {"rules"}}, "nftables"),
    ],
)
async def test_what_is_in_the_way_is_said(trouble: dict[str, object], word: str) -> None:
    verdict = await network_on(MemoryHost(**trouble)).availability()  # type: ignore[arg-type] # any of its fields

    assert isinstance(verdict, Refused)
    assert word in verdict.reason
    assert verdict.fix


async def test_a_taken_dns_port_is_offered_with_a_remark(host: MemoryHost) -> None:
    host.dns_taken = True
    verdict = await network_on(host).availability()

    assert isinstance(verdict, Offered)
    assert not verdict.dns
    assert "192.0.2.53" in verdict.remarks[0]


async def test_a_bridge_of_another_runner_is_foreign(host: MemoryHost) -> None:
    async with running(network_on(host, "one")) as network:
        await attach(network, NIC)
        verdict = await network_on(host, "another").availability()

    assert isinstance(verdict, Refused)


async def test_the_taps_of_another_runner_are_left_alone(host: MemoryHost) -> None:
    async with running(network_on(host, "one")) as network:
        await attach(network, NIC)
        other = network_on(host, "another")
        await other.adopt([])
        assert await other.leaks([]) == []
        await other.leave()
        taps = [link for link in host.view.links if link.kind == "tun"]

    assert len(taps) == 1


class TestContract:
    """What the fake of other packages' tests has to answer as the real network does."""

    @pytest.fixture(name="either", params=["real", "fake"])
    async def _either(self, request: pytest.FixtureRequest) -> AsyncIterator[BridgeNetwork]:
        made: BridgeNetwork = network_on(MemoryHost()) if request.param == "real" else FakeBridgeNetwork()
        async with running(made) as network:
            yield network

    async def test_addresses_are_given_in_turn(self, either: BridgeNetwork) -> None:
        assert await either.reserve([]) != await either.reserve([])

    async def test_an_address_outside_is_refused(self, either: BridgeNetwork) -> None:
        with pytest.raises(AddressOutsideError):
            await either.reserve([], IPv4Address("192.0.2.1"))

    async def test_an_attached_machine_is_no_leak_and_can_be_published(self, either: BridgeNetwork) -> None:
        await attach(either, NIC)
        await either.publish("m-1", [SSH])
        await either.check_ports("m-1", [SSH], [])

        assert await either.leaks(["m-1"]) == []

    async def test_a_reserved_port_is_refused(self, either: BridgeNetwork) -> None:
        with pytest.raises(BridgePortTakenError):
            await either.check_ports("m-1", [SSH], [SSH])

    async def test_a_detached_machine_has_no_ports(self, either: BridgeNetwork) -> None:
        await attach(either, NIC)
        await either.detach("m-1")
        await either.detach("m-1")
        with pytest.raises(NotAttachedError):
            await either.publish("m-1", [])

    async def test_an_adopted_machine_can_be_published(self, either: BridgeNetwork) -> None:
        await either.adopt([NIC])
        await either.publish("m-1", [SSH])

    async def test_it_is_offered_with_its_subnet(self, either: BridgeNetwork) -> None:
        verdict = await either.availability()

        assert isinstance(verdict, Offered)
        assert (verdict.subnet, verdict.gateway) == (either.subnet, either.gateway)


def test_a_bridge_that_was_made_and_not_marked_yet_is_ours() -> None:
    marks = Marks("tests")
    assert marks.owns_bridge(Link(1, "qc0", "bridge", mac=marks.bridge_mac))
    assert not marks.owns_bridge(Link(1, "qc0", "bridge", mac="02:00:00:00:00:01"))
    assert not marks.owns_bridge(Link(1, "qc0", "dummy", alias=marks.bridge_alias))
