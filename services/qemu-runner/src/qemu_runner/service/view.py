"""Puts together what is told of a machine: its record and what is seen of its process. Pure."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address

from qemu_runner.domain.machine import Nic
from qemu_runner.domain.observation import Address, AgentState, NicState, Observation
from qemu_runner.domain.probe import CloudInitState, ProbeKind, ProbeResult
from qemu_runner.domain.record import MachineRecord
from qemu_runner.readiness.probing import Probing
from qemu_runner.service.live import Live

UserAddress = Callable[[int], str]
"""Gives the user network's address of an index."""

Neighbours = Callable[[str, str], tuple[str, ...]]
"""Gives the addresses under which the host knows a NIC, by network and MAC."""


def observe(
    record: MachineRecord, live: Live | None, user_address: UserAddress, neighbours: Neighbours
) -> Observation:
    """Return the observation of a machine that has a record."""
    run = record.run or record.last_run
    probing = live.probing if live is not None else None
    agent = live.agent if live is not None else AgentState()
    nics = tuple(_nic(nic, record, agent, user_address, neighbours) for nic in record.spec.nics)
    return Observation(
        machine_id=record.machine_id,
        phase=record.phase,
        fence=record.fence,
        run_state=live.run_state if live is not None and record.run is not None else "",
        incarnation=record.incarnation,
        exit=record.exit,
        accelerator=run.accelerator if run is not None else "",
        nics=nics,
        agent=agent,
        boot_phases=run.phases if run is not None else (),
        start_time=run.start_time if run is not None else None,
        spec=record.spec,
        network_fault=live.network_fault if live is not None else "",
        boots=record.boots,
        boot_time=record.boot_time,
        panicked=record.run is not None and record.run.panicked,
        io_error=live.io_error if live is not None else "",
        probes=() if probing is None else tuple(_probes(probing, nics, agent)),
        cloud_init=CloudInitState() if probing is None else probing.cloud_init,
        troubles=run.troubles if run is not None else (),
        cloud_init_report=None if probing is None else probing.report,
    )


def _probes(probing: Probing, nics: tuple[NicState, ...], agent: AgentState) -> Iterator[ProbeResult]:
    for probe, result in zip(probing.probes, probing.results, strict=True):
        match probe.kind:
            case ProbeKind.AGENT:
                yield ProbeResult(agent.connected, since=agent.since if agent.connected else None)
            case ProbeKind.ADDRESS:
                yield ProbeResult(any(nic.addresses for nic in nics))
            case _:
                yield result


def _nic(
    nic: Nic, record: MachineRecord, agent: AgentState, user_address: UserAddress, neighbours: Neighbours
) -> NicState:
    found: dict[str, Address] = {}
    if reserved := record.address_of(nic.mac):
        # Its own whether it runs or not.
        found[reserved] = Address(reserved, "ipv4", "static" if nic.address else "reserved")
    if record.run is not None:
        if nic is record.spec.user_nic and record.user_index is not None:
            given = user_address(record.user_index)
            found[given] = Address(given, "ipv4", "user")
        for address in _told_by_agent(nic, agent):
            found.setdefault(address.address, address)
        for text in neighbours(nic.network, nic.mac.lower()) if not found else ():
            found[text] = Address(text, f"ipv{ip_address(text).version}", "neighbour")
    return NicState(nic, tuple(found.values()))


def _told_by_agent(nic: Nic, agent: AgentState) -> Iterator[Address]:
    interfaces = agent.info.interfaces if agent.info is not None else ()
    for interface in interfaces:
        if interface.mac == nic.mac.lower():
            for address in interface.addresses:
                if not ip_address(address.address).is_link_local:
                    yield address
