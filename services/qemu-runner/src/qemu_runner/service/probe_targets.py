"""Where a probe may aim: the guest's own address on the runner's bridge, or a published port of it.

Nothing that a guest says is ever an address to connect to: it could name anybody's.
"""

from typing import Final

from qemu_runner.domain.machine import MachineSpec, PortMapping
from qemu_runner.domain.probe import THROUGH_NETWORK, ProbeKind
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import SpecFault, SpecInvalidError
from qemu_runner.readiness.attempts import Target
from qemu_runner.readiness.serial_match import ExpressionError, compiled

_LOOPBACK: Final = "127.0.0.1"
_ANY: Final = frozenset({"", "0.0.0.0"})  # noqa: S104 - what listens there is reached by the loopback


def probe_target(record: MachineRecord, port: int) -> Target | None:
    """Return where the guest's port is reached; None: nowhere."""
    for nic in record.spec.nat_nics:
        if address := record.address_of(nic.mac):
            return Target(address, port)
    mapping = _published(record.spec, port)
    if mapping is None:
        return None
    host = _LOOPBACK if mapping.address in _ANY else mapping.address
    return Target(host, mapping.host, forwarded=True)


def check_probes(spec: MachineSpec) -> None:
    """Refuse probes that could never hold; the spec's networks must be resolved.

    Raises:
        SpecInvalidError: With all their faults.
    """
    faults = []
    for index, probe in enumerate(spec.probes):
        at = f"/readiness/all/{index}/{probe.kind}"
        if probe.kind is ProbeKind.SERIAL:
            try:
                compiled(probe.match)
            except ExpressionError as exc:
                faults.append(SpecFault(f"{at}/match", f"is no regular expression of RE2: {exc}."))
        if probe.kind in THROUGH_NETWORK and not spec.nat_nics and _published(spec, probe.port) is None:
            faults.append(SpecFault(f"{at}/port", _way_out(spec, probe.port)))
    if faults:
        raise SpecInvalidError(tuple(faults))


def _published(spec: MachineSpec, port: int) -> PortMapping | None:
    ports = () if spec.user_nic is None else spec.user_nic.ports
    return next((one for one in ports if one.guest == port and one.protocol == "tcp"), None)


def _way_out(spec: MachineSpec, port: int) -> str:
    if spec.user_nic is not None:
        return (
            "a guest on the user network is reached through published ports alone: add "
            f'{{"host": …, "guest": {port}}} to "ports", or probe by agent, exec or serial.'
        )
    return (
        "only a guest on qc0, or with a published port on user, is reached from here: "
        "probe by agent, exec or serial."
    )
