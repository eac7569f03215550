"""Watches one running machine: what its monitor, its agent and its console tell becomes what is seen.

It never changes the machine, and it ends with the monitor's connection; that alone does not mean that the
machine has ended (vm-host tells that).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from qemu_runner.domain.argv import AGENT_CHARDEV_ID, AGENT_PORT_ID
from qemu_runner.domain.observation import PASST_EXITED
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.errors import MonitorError, RunnerError
from qemu_runner.monitor import Event, QmpSession
from qemu_runner.readiness.attempts import Target
from qemu_runner.readiness.probing import Probing
from qemu_runner.service.agent_watch import AgentWatch
from qemu_runner.service.boot import Boot, PhaseSink
from qemu_runner.service.consoles import Consoles
from qemu_runner.service.live import Live
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.power import WAITING
from qemu_runner.service.tasks import Tasks
from qemu_runner.store.guest_ledger import LEDGER
from qemu_runner.store.machine_files import MachineFiles
from qemu_runner.user_network import STREAM_DISCONNECTED_EVENT

_LOG = logging.getLogger(__name__)
_MOVES_RUN_STATE: Final = frozenset(
    {"STOP", "RESUME", "SHUTDOWN", "RESET", "GUEST_PANICKED", "SUSPEND", "WAKEUP", "BLOCK_IO_ERROR"}
)

_AGENT_DENIES_S: Final = 10.0

Reach = Callable[[MachineRecord, int], Target | None]
MonitorLost = Callable[[Machine], Awaitable[None]]


class Watching:
    """Begins to watch machines.

    Args:
        machines: The machines.
        files: Their files.
        consoles: Their consoles.
        sink: Is told each phase of each boot.
        reach: Tells where a port of a machine's guest is reached.
        monitor_lost: Awaited when a monitor's connection ends; most often the machine has, too.
        tasks: Owner of the watches.
    """

    def __init__(
        self,
        machines: Machines,
        files: MachineFiles,
        consoles: Consoles,
        sink: PhaseSink,
        reach: Reach,
        monitor_lost: MonitorLost,
        tasks: Tasks,
    ) -> None:
        self._machines = machines
        self._files = files
        self._consoles = consoles
        self._sink = sink
        self._reach = reach
        self._monitor_lost = monitor_lost
        self._tasks = tasks

    async def begin(self, machine: Machine, run: Run, session: QmpSession) -> Live:
        """Watch a process from now on; return what is seen of it.

        Raises:
            MonitorError: The monitor does not answer.
        """
        live = Live(session, run.incarnation, await session.run_state())
        agent_open = await session.channel_is_open(AGENT_CHARDEV_ID)
        if machine.lost_network == run.incarnation:
            live.network_fault = PASST_EXITED
        machine.live = live
        watch = _Watch(self._machines, machine, live)
        probing = self._probing(machine, run, watch)
        boot = Boot(
            self._machines,
            machine,
            run,
            self._consoles.of(machine.machine_id),
            self._sink,
            probing,
            watch.ask_agent_again,
            watch.panic_on_console,
        )
        directory = self._files.directory(machine.machine_id)
        macs = tuple(nic.mac for nic in machine.require().spec.nics)
        watch.agent = AgentWatch(
            directory / "agent",
            directory / LEDGER,
            live,
            macs,
            lambda: self._machines.tell(machine),
            boot.agent_answered,
        )
        watch.agent.port_changed(is_open=agent_open)
        watch.boot, live.probing = boot, probing
        self._machines.tell(machine)
        self._tasks.begin(self._keep(machine, watch), name=f"watch {machine.machine_id}")
        return live

    def _probing(self, machine: Machine, run: Run, watch: "_Watch") -> Probing:
        def target(port: int) -> Target | None:
            return None if machine.record is None else self._reach(machine.record, port)

        return Probing(
            machine.require().spec.probes,
            run.held,
            target,
            lambda: self._machines.tell(machine),
            watch.note_held,
            watch.ready,
        )

    async def _keep(self, machine: Machine, watch: "_Watch") -> None:
        await watch.run()
        if machine.run is not None:
            await self._monitor_lost(machine)


class _Watch:
    """One watch."""

    agent: AgentWatch
    boot: Boot

    def __init__(self, machines: Machines, machine: Machine, live: Live) -> None:
        self._machines = machines
        self._machine = machine
        self._live = live
        self._stood_still = live.run_state in WAITING

    def ask_agent_again(self) -> None:
        """Ask the agent again who the guest is."""
        self.agent.ask_again()

    async def note_held(self, held: tuple[int, ...]) -> None:
        """Record which probes have held."""
        await self._note(lambda run: replace(run, held=held))

    async def ready(self) -> None:
        """Record that all of them hold."""
        await self.boot.ready()

    async def run(self) -> None:
        """Watch until the monitor's connection ends."""
        if self._live.probing is None:
            raise AssertionError("nothing probes what is watched")
        sides = [
            asyncio.create_task(work)
            for work in (self.boot.follow(), self.agent.run(), self._live.probing.run())
        ]
        events = asyncio.create_task(self._events())
        try:
            await asyncio.wait({events, *sides}, return_when=asyncio.FIRST_COMPLETED)
            if not events.done():
                # A side ended by a defect or a vanished file; the events are what matters.
                await asyncio.wait({events})
        finally:
            for task in (events, *sides):
                task.cancel()
            await asyncio.wait({events, *sides})
            for task in (events, *sides):
                if not task.cancelled() and (failure := task.exception()) is not None:
                    _LOG.error("watch failed", exc_info=failure, extra={"machine": self._machine.machine_id})
            self._live.ended = True
            await self._live.session.close()
            if self._machine.live is self._live:
                self._machine.live = None
                self._machines.tell(self._machine)

    async def _events(self) -> None:
        if self._live.run_state == "running":
            await self._confirm()
        async for event in self._live.session.events():
            await self._take(event)

    async def _take(self, event: Event) -> None:
        data = event.get("data", {})
        match event["event"]:
            case "VSERPORT_CHANGE" if data.get("id") == AGENT_PORT_ID:
                if data["open"]:
                    self.boot.port_opened()
                self.agent.port_changed(is_open=bool(data["open"]))
            case "STOP":
                self._stood_still = True
            case "RESUME":
                if self._stood_still:
                    # The start is a RESUME too, with nothing before it that a clock could have missed.
                    self._stood_still = False
                    self.agent.resumed()
                self._live.io_error = ""
                await self._confirm()
            case "SHUTDOWN":
                cause = str(data.get("reason", ""))
                await self._note(lambda run: replace(run, shutdown_cause=cause))
            case "GUEST_PANICKED":
                await self._note(lambda run: replace(run, panicked=True))
            case "RESET":
                await self._begun_again(by_guest=data.get("reason") == "guest-reset")
            case "BLOCK_IO_ERROR" if data.get("action") == "stop":
                self._live.io_error = _disk_fault(data)
            case name if name == STREAM_DISCONNECTED_EVENT:
                self._live.network_fault = PASST_EXITED
            case _:
                pass
        if event["event"] in _MOVES_RUN_STATE:
            await self._look()
        self._machines.tell(self._machine)

    async def _confirm(self) -> None:
        """Record that the guest was seen to run; no start waits for it, since it only explains an exit."""
        await self._note(lambda run: replace(run, confirmed=True))

    async def panic_on_console(self) -> None:
        """Believe the console's last word, unless the guest's agent answers: anybody can print that line."""
        if await self.agent.answers(within_s=_AGENT_DENIES_S):
            _LOG.info("panic on the console, and the agent answers", extra=self._named())
            return
        await self._note(lambda run: replace(run, panicked=True))

    async def _begun_again(self, *, by_guest: bool) -> None:
        """Count another boot; until the guest opens its agent's port again, nobody answers there."""
        self._live.agent = replace(self._live.agent, connected=False, since=datetime.now(UTC))
        await self.boot.begun_again(by_guest=by_guest)

    async def _note(self, change: Callable[[Run], Run]) -> None:
        """Record something of the run."""
        await self._change(
            lambda record: record if record.run is None else record.with_run(change(record.run))
        )

    async def _change(self, change: Callable[[MachineRecord], MachineRecord]) -> None:
        def mine(record: MachineRecord) -> MachineRecord:
            if record.run is None or record.run.incarnation != self._live.incarnation:
                return record
            return change(record)

        try:
            await self._machines.update(self._machine, mine)
        except RunnerError as exc:
            # A full disk must not end what watches the machine.
            _LOG.warning("not recorded", extra={**self._named(), "error": str(exc)})

    def _named(self) -> dict[str, str]:
        return {"machine": self._machine.machine_id}

    async def _look(self) -> None:
        try:
            self._live.run_state = await self._live.session.run_state()
        except MonitorError as exc:
            # A machine that is ending answers no more; vm-host will tell.
            _LOG.debug("run state unknown", extra={"machine": self._machine.machine_id, "error": str(exc)})


def _disk_fault(data: dict[str, Any]) -> str:
    """Return what QEMU tells of a disk that it stopped the guest for (QAPI `BLOCK_IO_ERROR`)."""
    what = "written" if data.get("operation") == "write" else "read"
    why = "the host's disk is full" if data.get("nospace") else str(data.get("reason", "I/O error"))[:200]
    return f"The disk could not be {what}: {why.rstrip('.')}."
