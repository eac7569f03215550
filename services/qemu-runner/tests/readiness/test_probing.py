"""How probes come to hold: by events, by attempts once events allow them, and anew with every boot."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from qemu_runner.domain.probe import CloudInit, Probe, ProbeKind, ProbeResult
from qemu_runner.guest_agent.client import ExecResult
from qemu_runner.readiness import pause, probing
from qemu_runner.readiness.attempts import Seen, Target
from qemu_runner.readiness.probing import Probing, Standing

AGENT = Probe(kind=ProbeKind.AGENT)
TCP = Probe(kind=ProbeKind.TCP, port=22)
SERIAL = Probe(kind=ProbeKind.SERIAL, match="login:")
EXEC = Probe(kind=ProbeKind.EXEC, argv=("/bin/true",))
CLOUD_INIT = Probe(kind=ProbeKind.CLOUD_INIT)
DEADLINE_S = 5.0


class Guest:
    """A guest of which the test decides what an attempt sees; also its agent."""

    def __init__(self, *probes: Probe, held: tuple[int, ...] = ()) -> None:
        self.listens = False
        self.exit_code = 1
        self.result = b""
        self.attempts: list[int] = []
        self.ran: list[str] = []
        self.recorded: list[tuple[int, ...]] = []
        self.readies = 0
        self.running, self.connected = False, False
        self._changed = asyncio.Event()
        self.probing = Probing(probes, held, self._target, self.observe, self._record, self._ready)

    def observe(self) -> None:
        """Do as the runner does after every change."""
        results = tuple(
            ProbeResult(self.connected) if probe.kind is ProbeKind.AGENT else result
            for probe, result in zip(self.probing.probes, self.probing.results, strict=True)
        )
        self.probing.observed(Standing(self.running, self if self.connected else None, results))
        self._changed.set()

    def now(self, *, running: bool = True, connected: bool = False) -> None:
        self.running, self.connected = running, connected
        self.observe()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await self._changed.wait()
                self._changed.clear()

    async def execute(
        self, argv: tuple[str, ...], env: Mapping[str, str], stdin: bytes, timeout_s: float
    ) -> ExecResult:
        self.ran.append(argv[0])
        self._changed.set()
        if argv[0] == "/bin/cat":
            return ExecResult(0 if self.result else 1, self.result, b"", truncated=False)
        return ExecResult(self.exit_code, b"", b"", truncated=False)

    def holds(self, number: int) -> bool:
        return self.probing.results[number].holds

    async def connects(self, target: Target) -> Seen:
        self.attempts.append(target.port)
        self._changed.set()
        return Seen(self.listens, "listens" if self.listens else "connection refused")

    def _target(self, port: int) -> Target:
        return Target("192.0.2.1", port)

    async def _record(self, held: tuple[int, ...]) -> None:
        self.recorded.append(held)
        self._changed.set()

    async def _ready(self) -> None:
        self.readies += 1
        self._changed.set()


@asynccontextmanager
async def probed(monkeypatch: pytest.MonkeyPatch, *probes: Probe, **more: Any) -> AsyncIterator[Guest]:
    guest = Guest(*probes, **more)
    monkeypatch.setattr(probing, "connects", guest.connects)
    monkeypatch.setattr(pause, "_LEAST_PAUSE_S", 0)
    monkeypatch.setattr(pause, "_FIRST_PAUSE_S", 0.001)
    task = asyncio.create_task(guest.probing.run())
    try:
        yield guest
    finally:
        task.cancel()
        await asyncio.wait({task})


async def at_rest() -> None:
    """Let everything run that need not wait for something."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_is_tried_before_what_events_tell_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, AGENT, SERIAL, TCP) as guest:
        guest.listens = True
        guest.now(running=True, connected=True)
        await at_rest()
        assert guest.attempts == []
        guest.probing.console(b"web-1 login: ")
        await guest.until(lambda: guest.readies == 1)
        assert guest.attempts == [22]


async def test_a_guest_that_is_paused_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, TCP) as guest:
        guest.now(running=False)
        await at_rest()
        assert guest.attempts == []
        guest.now(running=True)
        await guest.until(lambda: bool(guest.attempts))


async def test_what_does_not_hold_is_tried_again_and_tells_what_it_saw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with probed(monkeypatch, TCP) as guest:
        guest.now()
        await guest.until(lambda: len(guest.attempts) > 3)
        assert guest.probing.results[0].evidence == "connection refused"
        guest.listens = True
        await guest.until(lambda: guest.holds(0))
        assert guest.probing.results[0].since is not None


async def test_an_event_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, TCP) as guest:
        monkeypatch.setattr(pause, "_FIRST_PAUSE_S", 3600.0)
        guest.now()
        await guest.until(lambda: guest.attempts == [22])
        guest.listens = True
        await guest.until(lambda: bool(guest.probing.results[0].evidence))
        guest.probing.nudge()
        await guest.until(lambda: guest.holds(0))


async def test_what_a_guest_prints_ends_a_pause_of_its_servers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, TCP, EXEC) as guest:
        monkeypatch.setattr(pause, "_FIRST_PAUSE_S", 3600.0)
        guest.now(connected=True)
        await guest.until(lambda: all(result.evidence for result in guest.probing.results))
        guest.probing.console(b"[ OK ] Started a server\n")
        await guest.until(lambda: guest.attempts == [22, 22])
        assert guest.ran == ["/bin/true"]


async def test_evidence_that_differs_each_time_hurries_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, EXEC) as guest:
        monkeypatch.setattr(pause, "_FIRST_PAUSE_S", 3600.0)
        guest.now(connected=True)
        await guest.until(lambda: bool(guest.probing.results[0].evidence))
        await at_rest()
        assert guest.ran == ["/bin/true"]


async def test_a_program_runs_only_while_the_agent_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, EXEC) as guest:
        guest.now(connected=False)
        await at_rest()
        assert guest.ran == []
        guest.exit_code = 0
        guest.now(connected=True)
        await guest.until(lambda: guest.holds(0))


async def test_cloud_init_is_done_by_the_consoles_word(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, CLOUD_INIT) as guest:
        guest.now()
        guest.probing.cloud_init_finished(failed=False)
        await guest.until(lambda: guest.holds(0))
        assert guest.probing.cloud_init.result is CloudInit.DONE


async def test_errors_of_cloud_init_are_asked_of_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, CLOUD_INIT) as guest:
        guest.result = b'{"v1": {"errors": ["a module failed"]}}'
        guest.now(connected=True)
        await guest.until(lambda: guest.probing.cloud_init.result is CloudInit.ERROR)
        assert not guest.holds(0)
        assert guest.probing.results[0].evidence == "failed: a module failed"


async def test_without_a_probe_of_it_cloud_init_is_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, AGENT) as guest:
        guest.now(connected=True)
        await guest.until(lambda: guest.readies == 1)
        assert guest.ran == []


async def test_another_boot_begins_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, SERIAL, TCP) as guest:
        guest.listens = True
        guest.now()
        guest.probing.console(b"login:")
        await guest.until(lambda: guest.readies == 1)
        guest.listens = False
        guest.probing.begin_anew()
        assert [result.holds for result in guest.probing.results] == [False, False]
        guest.listens = True
        guest.probing.console(b"login:")
        await guest.until(lambda: guest.readies == 2)


async def test_what_held_is_recorded_and_believed_by_the_next_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(monkeypatch, AGENT, SERIAL, TCP) as guest:
        guest.listens = True
        guest.now(connected=True)
        guest.probing.console(b"login:")
        await guest.until(lambda: guest.recorded[-1:] == [(1, 2)])
    async with probed(monkeypatch, AGENT, SERIAL, TCP, held=(1, 2)) as guest:
        guest.now(connected=True)
        await guest.until(lambda: guest.readies == 1)
        assert guest.attempts == []
