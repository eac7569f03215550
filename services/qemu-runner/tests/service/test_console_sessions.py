"""Viewers of a console: output from the log, one writer, bounds, and why it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
from qemu_runner.domain.console_talk import (
    Command,
    End,
    Gap,
    Input,
    InputRefused,
    News,
    Opened,
    Output,
    Refusal,
    Resize,
    Resized,
    Role,
    RoleRequest,
    ViewerWish,
)
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import (
    ConsoleFullError,
    GuestAgentUnavailableError,
    MachineNotFoundError,
    MachineStateError,
    SpecInvalidError,
)
from qemu_runner.guest_agent.client import ExecResult
from qemu_runner.service import console_session, console_sessions
from qemu_runner.service.console_sizes import ConsoleSizes
from qemu_runner.service.guest import Guests
from qemu_runner.service.machines import Machine
from qemu_runner.store.machine_files import CONSOLE_LOG
from runner_fakes import DEADLINE_S, Runner, World, new_id

_T = TypeVar("_T")


@dataclass
class Viewer:
    """Somebody attached: what was told, and the way to ask."""

    told: "asyncio.Queue[News]" = field(default_factory=asyncio.Queue)
    asked: "asyncio.Queue[Command]" = field(default_factory=asyncio.Queue)
    ended: "asyncio.Event" = field(default_factory=asyncio.Event)

    async def ask(self, command: Command) -> None:
        await self.asked.put(command)

    async def until(self, kind: type[_T], so: Callable[[_T], bool] = lambda _: True) -> _T:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                one = await self.told.get()
                if isinstance(one, kind) and so(one):
                    return one

    async def until_text(self, text: bytes) -> bytes:
        seen = b""
        while text not in seen:
            seen += (await self.until(Output)).data
        return seen

    async def commands(self) -> AsyncIterator[Command]:
        while True:
            yield await self.asked.get()


@asynccontextmanager
async def attached(runner: Runner, machine_id: MachineId, **wish: Any) -> AsyncIterator[Viewer]:
    viewer = Viewer()
    async with runner.services.console_sessions.attach(machine_id, ViewerWish(**wish)) as session:

        async def listen() -> None:
            async with aclosing(session.news()) as news:
                async for one in news:
                    viewer.told.put_nowait(one)
            viewer.ended.set()

        tasks = [asyncio.create_task(listen()), asyncio.create_task(session.obey(viewer.commands()))]
        try:
            yield viewer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def say(world: World, machine_id: MachineId, text: bytes) -> None:
    with log_of(world, machine_id).open("ab") as log:
        log.write(text)


def log_of(world: World, machine_id: MachineId) -> Path:
    return world.directory / "machines" / machine_id / CONSOLE_LOG


async def told_text(world: World, machine_id: MachineId, text: bytes) -> None:
    await asyncio.to_thread(say, world, machine_id, text)


async def test_every_viewer_is_told_what_the_guest_says(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        await told_text(world, machine_id, b"booted\n")
        async with attached(runner, machine_id) as one, attached(runner, machine_id, offset=3) as two:
            assert await one.until(Opened, lambda o: o.offset == 0)
            assert (await two.until(Opened)).offset == 3
            await one.until_text(b"booted\n")
            assert await two.until_text(b"\n") == b"ted\n"
            await told_text(world, machine_id, b"login: ")
            await asyncio.gather(one.until_text(b"login: "), two.until_text(b"login: "))


async def test_the_writers_bytes_reach_the_guest_and_nobody_elses(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with (
            attached(runner, machine_id, write=True, label="ada") as ada,
            attached(runner, machine_id) as eve,
        ):
            assert await ada.until(Role, lambda role: role.writer)
            assert (await eve.until(Role)).holder == "ada"
            await eve.ask(Input(b"rm -rf /\n"))
            refused = await eve.until(InputRefused)
            assert (refused.reason, "ada" in refused.detail) == (Refusal.NOT_THE_WRITER, True)
            for piece in (b"ls\n", b"x" * 5000, b"\n"):
                await ada.ask(Input(piece))
            # Answered behind them.
            await ada.ask(RoleRequest(take=False))
            await ada.until(Role, lambda role: not role.writer)
            assert world.vm_host.qemu.serial == b"ls\n" + b"x" * 5000 + b"\n"


async def test_the_role_is_refused_with_who_has_it_and_since_when(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with attached(runner, machine_id, write=True, label="ada") as ada:
            mine = await ada.until(Role)
            async with attached(runner, machine_id, write=True, label="eve") as eve:
                role = await eve.until(Role)
                assert (role.refused, role.writer, role.holder, role.since) == (
                    True,
                    False,
                    "ada",
                    mine.since,
                )
                await eve.ask(RoleRequest(take=True))
                assert (await eve.until(Role)).refused


async def test_who_takes_it_by_force_has_it_and_the_loser_is_told(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with (
            attached(runner, machine_id, write=True, label="ada") as ada,
            attached(runner, machine_id, label="eve") as eve,
        ):
            await ada.until(Role, lambda role: role.writer)
            await eve.until(Role)
            await eve.ask(RoleRequest(take=True, force=True))
            assert (await eve.until(Role)).writer
            lost = await ada.until(Role)
            assert (lost.lost, lost.writer, lost.holder) == (True, False, "eve")
            await ada.ask(Input(b"x"))
            assert (await ada.until(InputRefused)).reason is Refusal.NOT_THE_WRITER


async def test_a_writer_that_goes_leaves_the_role_behind(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with attached(runner, machine_id) as eve:
            async with attached(runner, machine_id, write=True, label="ada"):
                await eve.until(Role, lambda role: role.holder == "ada")
            assert (await eve.until(Role)).since is None
            await eve.ask(RoleRequest(take=True))
            assert (await eve.until(Role)).writer


async def test_a_guest_that_does_not_read_costs_an_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.runner() as runner:
        monkeypatch.setattr(runner.services.console_sessions, "_input_s", 0.05)
        machine_id = await runner.running()
        world.vm_host.qemu.reading.clear()
        async with attached(runner, machine_id, write=True) as ada:
            await ada.ask(Input(b"x"))
            assert (await ada.until(InputRefused)).reason is Refusal.INPUT_NOT_TAKEN
        world.vm_host.qemu.reading.set()


async def test_a_paused_guest_takes_no_input(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        machine = runner.services.machines.find(machine_id)
        assert machine is not None
        await runner.services.power.pause(machine)
        async with attached(runner, machine_id, write=True) as ada:
            await ada.ask(Input(b"x"))
            assert (await ada.until(InputRefused)).reason is Refusal.MACHINE_NOT_RUNNING
            assert world.vm_host.qemu.serial == b""


async def test_too_much_at_once_is_refused(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with attached(runner, machine_id, write=True) as ada:
            await ada.ask(Input(b"x" * 65_537))
            assert (await ada.until(InputRefused)).reason is Refusal.INPUT_TOO_LARGE


async def test_a_stop_ends_it_with_the_reason_behind_the_last_bytes(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with attached(runner, machine_id) as viewer:
            await viewer.until(Opened)
            await told_text(world, machine_id, b"bye\n")
            await runner.stop(machine_id)
            await viewer.until_text(b"bye\n")
            end = await viewer.until(End)
            assert (end.reason, end.offset) == ("STOPPED", 4)
            await asyncio.wait_for(viewer.ended.wait(), DEADLINE_S)


async def test_a_restart_of_the_machine_ends_it_too(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with attached(runner, machine_id) as viewer:
            await viewer.until(Opened)
            await runner.stop(machine_id)
            await runner.start(machine_id)
            assert (await viewer.until(End)).reason in {"STOPPED", "RESTARTED"}


async def test_a_reset_does_not_end_it(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        machine = runner.services.machines.find(machine_id)
        assert machine is not None
        async with attached(runner, machine_id, write=True) as viewer:
            await viewer.until(Role, lambda role: role.writer)
            await runner.services.power.reset(machine, "r")
            await told_text(world, machine_id, b"again\n")
            await viewer.until_text(b"again\n")
            await viewer.ask(RoleRequest(take=True))
            assert (await viewer.until(Role)).writer


async def test_what_the_log_does_not_hold_is_a_gap(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        await told_text(world, machine_id, b"x" * (2 * 2**20) + b"end\n")
        async with attached(runner, machine_id, offset=10) as viewer:
            opened, gap = await viewer.until(Opened), await viewer.until(Gap)
            assert (gap.begin, gap.end) == (10, opened.offset)
            await viewer.until_text(b"end\n")


async def test_a_viewer_that_does_not_read_is_moved_on_and_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_session, "_MOST_BEHIND_BYTES", 4096)
    monkeypatch.setattr(console_session, "_MOVED_TO_BYTES", 100)
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with runner.services.console_sessions.attach(machine_id, ViewerWish()) as session:
            news = session.news()
            async with aclosing(news):
                assert isinstance(await anext(news), Opened)
                # It reads nothing while the guest says much.
                await told_text(world, machine_id, b"x" * 10_000)
                rest = [await anext(news) for _ in range(3)]
        assert rest[1:] == [Gap(0, 9900), Output(b"x" * 100)]


async def test_an_offset_beyond_the_end_begins_there(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        await told_text(world, machine_id, b"abc")
        async with attached(runner, machine_id, offset=2**63) as viewer:
            assert (await viewer.until(Opened)).offset == 3


async def test_only_so_many_are_let_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_sessions, "MOST_VIEWERS_A_MACHINE", 2)
    monkeypatch.setattr(console_sessions, "MOST_VIEWERS", 3)
    async with world.runner() as runner, AsyncExitStack() as stack:
        first, second = await runner.running(), await runner.running()
        attach = runner.services.console_sessions.attach
        for _ in range(2):
            await stack.enter_async_context(attach(first, ViewerWish()))
        with pytest.raises(ConsoleFullError):
            await stack.enter_async_context(attach(first, ViewerWish()))
        await stack.enter_async_context(attach(second, ViewerWish()))
        with pytest.raises(ConsoleFullError):
            await stack.enter_async_context(attach(second, ViewerWish()))
        await stack.aclose()
        assert runner.services.console_sessions.viewers == 0


@pytest.mark.parametrize("label", ["x" * 65, "two\nlines", "\x1b[2J", "\u202eright"])
async def test_a_label_that_could_mislead_others_is_refused(world: World, label: str) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        with pytest.raises(SpecInvalidError):
            async with runner.services.console_sessions.attach(machine_id, ViewerWish(label=label)):
                pass


async def test_a_machine_without_a_process_has_no_console_to_attach_to(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        with pytest.raises(MachineNotFoundError):
            await runner.services.console_sessions.attach(machine_id, ViewerWish()).__aenter__()
        await runner.prepare(machine_id)
        with pytest.raises(MachineStateError):
            await runner.services.console_sessions.attach(machine_id, ViewerWish()).__aenter__()


async def test_what_cannot_be_read_ends_the_news_with_the_error(world: World) -> None:
    async def commands() -> AsyncIterator[Command]:
        yield RoleRequest(take=True)
        raise SpecInvalidError(())

    async with world.runner() as runner:
        machine_id = await runner.running()
        async with runner.services.console_sessions.attach(machine_id, ViewerWish()) as session:
            obeying = asyncio.create_task(session.obey(commands()))
            with pytest.raises(SpecInvalidError):
                async for _ in session.news():
                    pass
            await obeying


class AgentOf:
    """The guest's agent as `Guests`: what it was asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.answer: ExecResult | Exception = ExecResult(0, b"", b"", truncated=False)

    async def execute(self, _id: MachineId, argv: tuple[str, ...], *_rest: object) -> ExecResult:
        self.asked.append(argv)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(("arch", "tty"), [("x86_64", "/dev/ttyS0"), ("aarch64", "/dev/ttyAMA0")])
async def test_a_size_is_told_to_the_terminal_on_the_line(arch: str, tty: str) -> None:
    agent = AgentOf()
    assert await sized(agent, 80, 24, arch) == Resized(Resize(80, 24), applied=True)
    assert agent.asked == [("stty", "-F", tty, "cols", "80", "rows", "24")]


async def sized(agent: AgentOf, columns: int, rows: int, arch: str = "x86_64") -> Resized:
    machine = SimpleNamespace(machine_id="m", record=SimpleNamespace(spec=SimpleNamespace(arch=arch)))
    return await ConsoleSizes(cast("Guests", agent)).apply(cast("Machine", machine), Resize(columns, rows))


@pytest.mark.parametrize(("columns", "rows"), [(0, 24), (80, 0), (1001, 24), (80, 2**31)])
async def test_a_size_out_of_bounds_is_not_passed_on(columns: int, rows: int) -> None:
    agent = AgentOf()
    assert not (await sized(agent, columns, rows)).applied
    assert agent.asked == []


@pytest.mark.parametrize(
    "answer",
    [ExecResult(1, b"", b"stty: no such tty", truncated=False), GuestAgentUnavailableError("no such tty")],
)
async def test_a_size_that_cannot_be_set_is_told_so(answer: ExecResult | Exception) -> None:
    agent = AgentOf()
    agent.answer = answer
    result = await sized(agent, 80, 24)
    assert (result.applied, "no such tty" in result.detail) == (False, True)


async def test_a_resize_is_answered_also_where_nobody_listens_in_the_guest(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        async with attached(runner, machine_id, write=True) as ada, attached(runner, machine_id) as eve:
            await ada.until(Role, lambda role: role.writer)
            await ada.ask(Resize(80, 24))
            assert not (await ada.until(Resized)).applied
            await eve.ask(Resize(80, 24))
            assert (await eve.until(Resized)).detail == "Only the writer sets the size."
