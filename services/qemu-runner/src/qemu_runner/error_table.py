"""The one table from this service's errors to what a caller is told."""

from collections.abc import Mapping
from typing import Final

from grpc import StatusCode
from servicekit.rpc_errors import RpcProblem, Violation

from qemu_runner import errors

CODES: Final[Mapping[type[errors.RunnerError], tuple[StatusCode, str]]] = {
    errors.MachineNotFoundError: (StatusCode.NOT_FOUND, "MACHINE_NOT_FOUND"),
    errors.MachineStateError: (StatusCode.FAILED_PRECONDITION, "MACHINE_STATE_CONFLICT"),
    errors.StaleFenceError: (StatusCode.FAILED_PRECONDITION, "STALE_FENCE"),
    errors.SpecInvalidError: (StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
    errors.ArchUnsupportedError: (StatusCode.INVALID_ARGUMENT, "ARCH_UNSUPPORTED"),
    errors.NetworkUnavailableError: (StatusCode.FAILED_PRECONDITION, "NETWORK_UNAVAILABLE"),
    errors.PortUnavailableError: (StatusCode.FAILED_PRECONDITION, "PORT_IN_USE"),
    errors.AddressInUseError: (StatusCode.FAILED_PRECONDITION, "ADDRESS_IN_USE"),
    errors.HostCapacityError: (StatusCode.RESOURCE_EXHAUSTED, "HOST_CAPACITY_EXHAUSTED"),
    errors.ConsoleFullError: (StatusCode.RESOURCE_EXHAUSTED, "CONSOLE_VIEWERS_EXHAUSTED"),
    errors.DiskFullError: (StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"),
    errors.DiskUnsafeError: (StatusCode.FAILED_PRECONDITION, "DISK_UNSAFE"),
    errors.ImageStoreUnavailableError: (StatusCode.UNAVAILABLE, "IMAGE_STORE_UNAVAILABLE"),
    errors.ImageNotFoundError: (StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND"),
    errors.ImageCorruptError: (StatusCode.DATA_LOSS, "IMAGE_DIGEST_MISMATCH"),
    errors.VmHostUnavailableError: (StatusCode.UNAVAILABLE, "VM_HOST_UNAVAILABLE"),
    errors.QemuUnavailableError: (StatusCode.UNAVAILABLE, "QEMU_UNAVAILABLE"),
    errors.QemuStartError: (StatusCode.INTERNAL, "QEMU_START_FAILED"),
    errors.MonitorError: (StatusCode.UNAVAILABLE, "QEMU_UNRESPONSIVE"),
    errors.MachineStuckError: (StatusCode.DEADLINE_EXCEEDED, "MACHINE_STUCK"),
    errors.ConsoleFollowersError: (StatusCode.RESOURCE_EXHAUSTED, "CONSOLE_FOLLOWERS_EXHAUSTED"),
    errors.GuestAgentUnavailableError: (StatusCode.FAILED_PRECONDITION, "GUEST_AGENT_UNAVAILABLE"),
    errors.GuestAgentRefusedError: (StatusCode.FAILED_PRECONDITION, "GUEST_AGENT_REFUSED"),
    errors.GuestProgramNotFoundError: (StatusCode.INVALID_ARGUMENT, "GUEST_PROGRAM_NOT_FOUND"),
    errors.GuestExecTimeoutError: (StatusCode.DEADLINE_EXCEEDED, "GUEST_EXEC_TIMEOUT"),
    errors.GuestFileNotFoundError: (StatusCode.NOT_FOUND, "GUEST_FILE_NOT_FOUND"),
    errors.GuestFileRefusedError: (StatusCode.FAILED_PRECONDITION, "GUEST_FILE_REFUSED"),
    errors.GuestFileDigestError: (StatusCode.INVALID_ARGUMENT, "GUEST_FILE_DIGEST_MISMATCH"),
    errors.GuestFileTruncatedError: (StatusCode.INVALID_ARGUMENT, "UPLOAD_TRUNCATED"),
}


def translate(exc: Exception) -> RpcProblem | None:
    """Return what a caller is told of `exc`; None if no table knows it."""
    if not isinstance(exc, errors.RunnerError) or type(exc) not in CODES:
        return None
    code, reason = CODES[type(exc)]
    return RpcProblem(code, reason, str(exc), _metadata(exc), _violations(exc))


def _metadata(exc: Exception) -> dict[str, str]:
    match exc:
        case errors.MachineStateError(state=state):
            return {"state": state}
        case errors.StaleFenceError(fence=fence, highest=highest):
            return {"fence": str(fence), "highest": str(highest)}
        case errors.NetworkUnavailableError(network=network):
            return {"network": network}
        case errors.PortUnavailableError(port=port):
            return {"port": str(port)}
        case errors.AddressInUseError(address=address, holder=holder):
            return {"address": address, "holder": holder}
        case errors.HostCapacityError(resource=resource, wanted=wanted, available=available):
            return {"resource": resource, "wanted": str(wanted), "available": str(available)}
        case errors.ConsoleFullError(limit=limit) | errors.ConsoleFollowersError(limit=limit):
            return {"limit": str(limit)}
        case errors.QemuStartError(stderr_tail=tail):
            return {"stderrTail": tail[-1024:]}
        case errors.GuestFileNotFoundError(path=path) | errors.GuestFileRefusedError(path=path):
            return {"path": path}
        case _:
            return {}


def _violations(exc: Exception) -> tuple[Violation, ...]:
    match exc:
        case errors.SpecInvalidError(faults=faults):
            return tuple(Violation(fault.pointer, fault.detail) for fault in faults)
        case errors.PortUnavailableError(pointer=pointer) | errors.AddressInUseError(pointer=pointer):
            return (Violation(pointer, str(exc)),)
        case _:
            return ()
