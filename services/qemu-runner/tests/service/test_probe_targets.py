"""Where probes may aim, and which are refused with what to do instead."""

from dataclasses import replace

import pytest
from qemu_runner.domain.machine import MachineId, MachineSpec, Nic, PortMapping
from qemu_runner.domain.probe import Probe, ProbeKind
from qemu_runner.domain.record import Holding, MachineRecord
from qemu_runner.errors import SpecInvalidError
from qemu_runner.readiness.attempts import Target
from qemu_runner.service.probe_targets import check_probes, probe_target
from runner_fakes import SPEC

MAC = "52:54:00:00:00:01"
TCP = Probe(kind=ProbeKind.TCP, port=22)


def spec(network: str, *ports: PortMapping, probes: tuple[Probe, ...] = (TCP,)) -> MachineSpec:
    return replace(SPEC, nics=(Nic(network, MAC, ports),), probes=probes)


def record(of: MachineSpec, address: str = "") -> MachineRecord:
    return MachineRecord(MachineId("m"), 1, of, holdings=(Holding(MAC, address),))


def refusals(of: MachineSpec) -> dict[str, str]:
    with pytest.raises(SpecInvalidError) as caught:
        check_probes(of)
    return {fault.pointer: fault.detail for fault in caught.value.faults}


def test_a_guest_on_the_runners_bridge_is_reached_at_its_reserved_address() -> None:
    assert probe_target(record(spec("qc0"), "10.76.0.9"), 22) == Target("10.76.0.9", 22)


def test_a_guest_on_the_user_network_is_reached_through_its_published_port() -> None:
    published = spec("user", PortMapping(2222, 22, "tcp", "0.0.0.0"))
    check_probes(published)
    assert probe_target(record(published), 22) == Target("127.0.0.1", 2222, forwarded=True)


def test_without_a_published_port_a_probe_there_is_refused_with_what_to_do() -> None:
    udp = spec("user", PortMapping(2222, 22, "udp"))
    assert '"guest": 22' in refusals(udp)["/readiness/all/0/tcp/port"]
    assert probe_target(record(udp), 22) is None


def test_a_guest_on_somebody_elses_bridge_is_never_connected_to() -> None:
    assert "probe by agent" in refusals(spec("bridge:br0"))["/readiness/all/0/tcp/port"]


def test_a_guest_without_a_card_is_refused_network_probes_alone() -> None:
    probes = (
        Probe(kind=ProbeKind.AGENT),
        Probe(kind=ProbeKind.HTTP, port=80, path="/"),
        Probe(kind=ProbeKind.SERIAL, match="login:"),
    )
    assert set(refusals(replace(SPEC, nics=(), probes=probes))) == {"/readiness/all/1/http/port"}


def test_an_expression_that_does_not_compile_is_refused_with_the_reason() -> None:
    bad = spec("qc0", probes=(Probe(kind=ProbeKind.SERIAL, match="(a"), TCP))
    assert "missing )" in refusals(bad)["/readiness/all/0/serial/match"]
