"""The processes of a start, as vm-host is asked for them: QEMU, and before it the passt of its network."""

import socket
from contextlib import ExitStack
from typing import Final

from qemu_runner.domain.machine import USER_NETWORK
from qemu_runner.domain.record import Run
from qemu_runner.errors import NetworkUnavailableError, QemuUnavailableError, VmHostUnavailableError
from qemu_runner.ports import (
    ChildHandle,
    ChildRole,
    RefusalCode,
    SpawnRequest,
    VmHostError,
    VmHostRefused,
)
from qemu_runner.service.ending import Ending
from qemu_runner.service.exits import Exits
from qemu_runner.service.machines import Machine
from qemu_runner.service.vm_host_link import VmHostLink
from qemu_runner.store.machine_files import PASST_LOG, QEMU_LOG
from qemu_runner.user_network import PasstStart

NET_FD: Final = "passt"
"""Name of QEMU's end of the connection to its passt."""

_MISSING_PROGRAM: Final = frozenset({RefusalCode.PROGRAM_UNAVAILABLE, RefusalCode.PROGRAM_NOT_ALLOWED})


class Children:
    """Asks for the processes of a machine.

    Args:
        ending: Ends the passt of a QEMU that was refused.
        exits: Where it is recorded that there was none.
    """

    def __init__(self, ending: Ending, exits: Exits) -> None:
        self._ending = ending
        self._exits = exits

    async def spawn(
        self,
        machine: Machine,
        run: Run,
        link: VmHostLink,
        argv: tuple[str, ...],
        fds: dict[str, int],
        logs: dict[str, int],
        passt: PasstStart | None,
        uid: int | None,
    ) -> None:
        """Have vm-host spawn them; the run must be recorded before.

        Raises:
            NetworkUnavailableError, QemuUnavailableError: The host lacks the program.
            VmHostUnavailableError: It was refused, or whether it was done is unknown.
        """
        try:
            with ExitStack() as stack:
                if passt is not None:
                    ours, theirs = socket.socketpair()
                    stack.enter_context(ours)
                    stack.enter_context(theirs)
                    request = SpawnRequest(
                        ChildHandle(machine.machine_id, ChildRole.PASST, run.incarnation),
                        tuple(passt.argv(f"{{fd:{NET_FD}}}")),
                        {NET_FD: theirs.fileno()},
                        stderr_fd=logs[PASST_LOG],
                        uid=uid,
                        gid=uid,
                    )
                    await link.connection.spawn(request)
                    fds = {**fds, NET_FD: ours.fileno()}
                request = SpawnRequest(
                    ChildHandle(machine.machine_id, ChildRole.QEMU, run.incarnation),
                    argv,
                    fds,
                    stderr_fd=logs[QEMU_LOG],
                    uid=uid,
                    gid=uid,
                )
                await link.connection.spawn(request)
        except VmHostRefused as exc:
            # Refused means without effect: there is no process, but perhaps a passt.
            await self._ending.end_passt(machine, run)
            await self._exits.record_never_started(machine, run)
            if exc.code in _MISSING_PROGRAM and request.handle.role is ChildRole.PASST:
                raise NetworkUnavailableError(USER_NETWORK, f"{exc.message}.") from exc
            if exc.code in _MISSING_PROGRAM:
                raise QemuUnavailableError(exc.message) from exc
            raise VmHostUnavailableError(str(exc)) from exc
        except VmHostError as exc:
            # Whether it was started is unknown; the run stays recorded until vm-host can be asked.
            raise VmHostUnavailableError(str(exc)) from exc
