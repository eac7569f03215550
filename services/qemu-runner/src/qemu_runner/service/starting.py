"""Starts a machine, honestly: it has succeeded when QEMU's monitor says `running`, never before.

What a start makes on the host is named by its incarnation, which is recorded before anything is spawned;
so a runner that dies in the middle finds out what became of it.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final

from qemu_runner.domain.accelerator import AcceleratorMode
from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.argv import Launch, argv_hash, build_argv
from qemu_runner.domain.machine import MachinePhase
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.errors import (
    MachineStateError,
    MonitorError,
    QemuStartError,
    RunnerError,
    VmHostUnavailableError,
)
from qemu_runner.monitor import QmpSession
from qemu_runner.ports import VmHostError
from qemu_runner.service.capacity import Capacity
from qemu_runner.service.children import NET_FD, Children
from qemu_runner.service.ending import Ending, Settle
from qemu_runner.service.exits import Exits
from qemu_runner.service.hardware import choose_hardware
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.networking import Networking
from qemu_runner.service.plugging import Taps
from qemu_runner.service.power import WAITING
from qemu_runner.service.vm_host_link import VmHostLink
from qemu_runner.service.watching import Watching
from qemu_runner.store.machine_files import MachineFiles

_LOG = logging.getLogger(__name__)
START_DEADLINE_S: Final = 30.0
_LAST_WORDS_S: Final = 0.5


class Starting:
    """Starts machines.

    Args:
        machines: The machines.
        files: Their files.
        networking: Their networks.
        capacity: What the host has left.
        exits: Where ends are recorded.
        ending: Ends what a failed start leaves.
        watching: Begins to watch what runs.
        newest_link: Returns the vm-host that new machines go to.
        settle: Asks vm-host what became of a machine's process.
        accelerator: The setting.
        extra_arguments: The operator's own words for QEMU.
    """

    def __init__(
        self,
        machines: Machines,
        files: MachineFiles,
        networking: Networking,
        capacity: Capacity,
        exits: Exits,
        ending: Ending,
        watching: Watching,
        newest_link: Callable[[], VmHostLink],
        settle: Settle,
        accelerator: AcceleratorMode,
        extra_arguments: tuple[str, ...],
    ) -> None:
        self._machines = machines
        self._files = files
        self._networking = networking
        self._capacity = capacity
        self._exits = exits
        self._children = Children(ending, exits)
        self._ending = ending
        self._watching = watching
        self._newest_link = newest_link
        self._settle = settle
        self._accelerator = accelerator
        self._extra = extra_arguments

    async def start(self, machine: Machine, traceparent: str) -> None:
        """Make the machine run; its lock must be held. One that runs already is left as it is.

        Raises:
            MachineNotFoundError: There is none.
            MachineStateError: Its files are not complete.
            QemuStartError: QEMU ended or was silent before it ran; nothing of it is left.
            RunnerError: vm-host, QEMU, the network or the host's room does not allow it.
        """
        record = machine.require()
        if not record.prepared:
            raise MachineStateError(machine.machine_id, "not prepared", "prepare it first")
        if record.phase is MachinePhase.ACTIVE and await self._goes_on(machine):
            return
        record = machine.require()
        machine.bringing_up = True
        try:
            taps = await self._networking.attach(record)
            try:
                async with self._networking.guard:
                    run = await self._spawn(machine, record, traceparent)
                await self._bring_up(machine, run, taps)
            finally:
                # QEMU has copies of its own, or there is none: a tap must not outlive it by ours.
                taps.close()
                if machine.run is None:
                    await self._networking.detach(machine.machine_id)
        finally:
            machine.bringing_up = False

    async def _goes_on(self, machine: Machine) -> bool:
        """Tell whether the machine's process runs on; what cannot run any more is ended first."""
        if machine.live is None:
            await self._settle(machine)
        live = machine.live
        if machine.run is None:
            return False
        if live is None:
            raise VmHostUnavailableError("whether the machine runs is not known yet")
        state = await live.session.run_state()
        if machine.run.panicked:
            # It says that it runs: its CPUs turn in the kernel's last loop.
            state = "guest-panicked"
        if state == "running":
            return True
        if state in WAITING:
            await live.session.execute("cont")
            # Its event comes later than this answer, which must already say so.
            live.run_state = await live.session.run_state()
            self._machines.tell(machine)
            return True
        # Left by a start that was cut off, or stopped for good: a new process is the way on.
        await self._ending.kill(machine)
        return False

    async def _spawn(self, machine: Machine, record: MachineRecord, traceparent: str) -> Run:
        link = self._newest_link()
        try:
            hello = await link.connection.refresh_hello()
        except VmHostError as exc:
            raise VmHostUnavailableError(str(exc)) from exc
        if hello.stopping:
            raise VmHostUnavailableError("it is stopping")
        arch = ARCHES[record.spec.arch]
        hardware = choose_hardware(hello, arch, self._accelerator, record.machine_type)
        if record.machine_type not in {"", hardware.machine_type}:
            _LOG.warning(
                "machine type is gone from QEMU",
                extra={
                    "machine": machine.machine_id,
                    "before": record.machine_type,
                    "now": hardware.machine_type,
                },
            )
        self._capacity.require(record.spec)
        if record.spec.ports:
            await self._networking.check_ports(
                machine.machine_id, record.spec, self._machines.records(), bind=True
            )
        passt = await self._networking.prepare_start(record)
        directory = PurePosixPath(self._files.directory(machine.machine_id))
        argv = build_argv(
            Launch(
                machine_id=machine.machine_id,
                arch=arch,
                machine_type=hardware.machine_type,
                accelerator=hardware.accelerator,
                cpu_model=hardware.cpu_model,
                cpus=record.spec.cpus,
                memory_mib=record.spec.memory_mib,
                directory=directory,
                layers=record.layers,
                nic_netdevs=self._networking.netdev_options(
                    record.spec, record.user_index, f"{{fd:{NET_FD}}}"
                ),
                extra=self._extra,
            )
        )
        await self._files.keep_argv(machine.machine_id, argv)
        logs, console_offset = await self._files.open_logs(machine.machine_id, record.uid)
        with ExitStack() as stack:
            for descriptor in logs.values():
                stack.callback(os.close, descriptor)
            run = Run(
                incarnation=record.incarnation + 1,
                vm_host=str(link.socket_path),
                start_id=hello.start_id,
                boot_id=hello.boot_id,
                accelerator=hardware.accelerator,
                machine_type=hardware.machine_type,
                cpu_model=hardware.cpu_model,
                cpus=record.spec.cpus,
                memory_mib=record.spec.memory_mib,
                qemu_version=hardware.qemu_version,
                argv_hash=argv_hash(argv, directory),
                start_time=datetime.now(UTC),
                console_offset=console_offset,
                first_boot=record.boots + 1,
                traceparent=traceparent,
                extra_arguments=self._extra,
            )
            listening = await self._files.listen(machine.machine_id)
            for listener in listening.values():
                stack.callback(listener.close)
            # From here on the machine counts as having a process: whoever comes later looks for it.
            await self._machines.update(
                machine,
                lambda now: replace(
                    now,
                    incarnation=run.incarnation,
                    run=run,
                    exit=None,
                    boots=run.first_boot,
                    boot_time=run.start_time,
                ),
            )
            fds = {name: listener.fileno() for name, listener in listening.items()}
            await self._children.spawn(machine, run, link, argv, fds, logs, passt, record.uid)
        return run

    async def _bring_up(self, machine: Machine, run: Run, taps: Taps) -> None:
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await self._run_guest(machine, run, taps)
        except (RunnerError, TimeoutError) as exc:
            await self._give_up(machine, exc)

    async def _run_guest(self, machine: Machine, run: Run, taps: Taps) -> None:
        session = await self._session_or_end(machine)
        try:
            for number, nic in enumerate(machine.require().spec.nics):
                await taps.plug(session, number, nic.mac)
            taps.close()
            live = await self._watching.begin(machine, run, session)
        except BaseException:
            await session.close()
            raise
        await session.execute("cont")
        live.run_state = await session.run_state()
        if live.run_state != "running":
            raise MonitorError("cont", f"the machine is {live.run_state}")
        self._machines.tell(machine)

    async def _session_or_end(self, machine: Machine) -> QmpSession:
        """Open the monitor, or learn at once that the process has ended."""
        path = self._files.directory(machine.machine_id) / "qmp"
        opening = asyncio.create_task(
            QmpSession.open(path, deadline_s=START_DEADLINE_S, transcript=machine.transcript)
        )
        ended = asyncio.create_task(machine.ended.wait())
        try:
            await asyncio.wait({opening, ended}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                return opening.result()
            raise MonitorError("connect", "QEMU ended")
        finally:
            ended.cancel()
            if not opening.done():
                opening.cancel()
                await asyncio.wait({opening})

    async def _give_up(self, machine: Machine, cause: BaseException) -> None:
        """Leave nothing of a failed start running, and say why it failed.

        Raises:
            QemuStartError: Always, unless vm-host cannot be reached.
        """
        # A process that broke off has most likely ended by itself: its own words explain more than ours.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await machine.ended.wait()
        killed = machine.run is not None
        if killed:
            await self._ending.kill(machine, asked=False)
        exit_ = machine.require().exit
        detail = _sentence(cause) if exit_ is None or killed else exit_.message.rstrip(".")
        raise QemuStartError(machine.machine_id, detail, await self._exits.stderr_tail(machine)) from cause


def _sentence(cause: BaseException) -> str:
    if isinstance(cause, TimeoutError):
        return f"it did not run the machine within {START_DEADLINE_S:g} s"
    return str(cause).rstrip(".")
