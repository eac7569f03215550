"""What was cut off leaves nothing in the guest once its agent answers again, and nobody else's is touched."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from local_agent import LocalAgent
from qemu_runner.domain.guest_file import FileEnd, FileWish
from qemu_runner.domain.guest_program import Program
from qemu_runner.domain.leftover import Leftover, leftover_in, leftover_of
from qemu_runner.domain.observation import AgentState
from qemu_runner.errors import GuestAgentRefusedError, GuestError
from qemu_runner.guest_agent import files, leftovers
from qemu_runner.guest_agent.client import GuestAgent
from qemu_runner.guest_agent.streaming import run
from qemu_runner.service.agent_watch import AgentWatch
from qemu_runner.service.live import Live
from qemu_runner.store.guest_ledger import GuestLedger
from scripted_agent import agent, client


@pytest.fixture
def host() -> LocalAgent:
    return LocalAgent()


@pytest.fixture
async def guest(host: LocalAgent, tmp_path: Path) -> AsyncIterator[GuestAgent]:
    async with agent(tmp_path, host) as path, client(path) as it:
        yield it
    await host.close()


async def next_life(guest: GuestAgent, tmp_path: Path) -> tuple[Leftover, ...]:
    """Remove what a new ledger finds, as a restarted runner does; return what it was."""
    ledger = GuestLedger(tmp_path / "in-guest", lambda: None)
    found = await ledger.left()
    for leftover in found:
        await leftovers.close(guest, leftover)
        await leftovers.remove(guest, leftover)
        await ledger.forget(leftover)
    assert await ledger.left() == ()
    return found


async def test_a_push_that_is_done_is_not_written_down_any_more(guest: GuestAgent, tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[bytes | FileEnd]:
        (entry,) = list((tmp_path / "in-guest").iterdir())
        assert leftover_of(entry.read_text()) is not None
        assert await guest.ledger.left() == (), "what somebody works with is not left"
        yield b"new"
        yield FileEnd(3)

    await files.push(guest, FileWish(str(tmp_path / "f")), parts())
    assert list((tmp_path / "in-guest").iterdir()) == []


async def test_a_push_that_was_cut_off_is_removed_by_the_next_life(
    guest: GuestAgent, host: LocalAgent, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()

    async def parts() -> AsyncIterator[bytes | FileEnd]:
        yield b"x" * files._PIECE_BYTES
        host.broken = {"guest-exec": "no more", "guest-file-close": "no more"}

    with pytest.raises(GuestError):
        await files.push(guest, FileWish(str(place / "f")), parts())
    assert (len(list(place.iterdir())), len(host.handles)) == (1, 1)
    host.broken = {}
    (found,) = await next_life(guest, tmp_path)
    assert found.path.startswith(f"{place}/.qcontroller-")
    assert (list(place.iterdir()), host.handles) == ([], {})


async def test_a_program_that_was_cut_off_is_ended_with_its_output(
    guest: GuestAgent, host: LocalAgent, tmp_path: Path
) -> None:
    parts = run(guest, Program(("/bin/sh", "-c", "exec sleep 60"), {}, b"", 60))
    await anext(parts)
    host.broken = dict.fromkeys(("guest-exec", "guest-exec-status", "guest-file-close"), "no more")
    await parts.aclose()
    host.broken = {}
    # Its shell may not yet have written down who it is.
    (entry,) = await GuestLedger(tmp_path / "in-guest", lambda: None).left()
    sleeper = next(process for process in host.processes.values() if process.returncode is None)
    while b"sleep" not in Path(f"/proc/{sleeper.pid}/cmdline").read_bytes().split(b"\0")[0]:
        await asyncio.wait({asyncio.create_task(guest.ping())})
    assert await next_life(guest, tmp_path) == (entry,)
    assert await asyncio.wait_for(sleeper.wait(), 10) == -9
    assert not Path(entry.path).exists()
    assert host.handles == {}


async def test_a_process_that_only_has_the_same_number_is_not_ended(
    guest: GuestAgent, tmp_path: Path
) -> None:
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(") ")[2].split()
        for directory, moment, of in (("a", str(int(stat[19]) - 1), boot), ("b", stat[19], "another-boot")):
            (tmp_path / directory).mkdir()
            left = leftover_in(str(tmp_path / directory), is_program=True)
            Path(left.path).mkdir()
            began = " ".join([*stat[:19], moment, *stat[20:]])
            Path(left.path, "process").write_text(f"{sleeper.pid} {of} {began}\n")
            await leftovers.remove(guest, left)
            assert not Path(left.path).exists()
        assert sleeper.returncode is None
        assert Path(f"/proc/{sleeper.pid}/cmdline").read_bytes() == b"sleep\x0060\0"
    finally:
        sleeper.kill()
        await sleeper.wait()


@pytest.mark.parametrize("way", ["a file's place", "a link"])
async def test_a_directory_that_somebody_put_there_ends_no_process(
    guest: GuestAgent, tmp_path: Path, way: str
) -> None:
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(") ")[2]
        left = leftover_in(str(tmp_path), is_program=way == "a link")
        theirs = tmp_path / "theirs" if left.is_program else Path(left.path)
        theirs.mkdir()
        (theirs / "process").write_text(f"{sleeper.pid} {boot} {stat}\n")
        if left.is_program:
            Path(left.path).symlink_to(theirs)
        await leftovers.remove(guest, left)
        assert (theirs / "process").exists(), "what is not ours stays"
        assert Path(f"/proc/{sleeper.pid}/cmdline").read_bytes() == b"sleep\x0060\0"
    finally:
        sleeper.kill()
        await sleeper.wait()


async def test_handles_are_closed_before_anybody_else_has_a_way_to_the_agent_and_once(
    host: LocalAgent, tmp_path: Path
) -> None:
    ledger = GuestLedger(tmp_path / "in-guest", lambda: None)
    async with ledger.entry(str(tmp_path)) as entry:
        await entry.opened(1000)
    live = cast("Live", SimpleNamespace(frozen=None, guest=None, agent=AgentState(), run_state="running"))
    seen: list[object] = []
    host.broken = {"guest-exec": "not allowed", "guest-get-host-name": "no", "guest-get-osinfo": "no"}
    host.broken |= {"guest-network-get-interfaces": "no", "guest-get-timezone": "no"}
    host.lies = {"guest-fsfreeze-status": "thawed"}

    async def answered() -> None:
        seen.append((host.commands.count("guest-file-close"), [one.handles for one in await ledger.left()]))

    async with agent(tmp_path, host) as path:
        watch = AgentWatch(path, tmp_path / "in-guest", live, ("a",), lambda: None, answered)
        watch.port_changed(is_open=True)
        task = asyncio.create_task(watch.run())
        async with asyncio.timeout(10):
            while host.commands.count("guest-exec") < 2:
                await watch.answers(within_s=1)
        task.cancel()
        await asyncio.wait({task})
    assert seen == [(1, [()])]
    assert host.commands.count("guest-file-close") == 1


async def test_a_program_gets_the_environment_that_it_was_given(guest: GuestAgent) -> None:
    env = {"boot": "1", "stat": "2", "directory": "3", "code": "4"}
    parts = run(guest, Program(("/usr/bin/env",), env, b"", 20))
    said = b"".join([part.content async for part in parts if hasattr(part, "content")])
    assert {b"boot=1", b"stat=2", b"directory=3", b"code=4"} <= set(said.splitlines())


async def test_a_leftover_of_a_guest_that_has_it_no_more_is_no_fault(
    guest: GuestAgent, tmp_path: Path
) -> None:
    for is_program in (False, True):
        left = Leftover(leftover_in(str(tmp_path / "no such")).path, (4711,), is_program)
        await leftovers.close(guest, left)
        await leftovers.remove(guest, left)


async def test_a_guest_that_runs_nothing_says_so(guest: GuestAgent, host: LocalAgent, tmp_path: Path) -> None:
    host.broken = {"guest-exec": "not allowed"}
    with pytest.raises(GuestAgentRefusedError):
        await leftovers.remove(guest, leftover_in(str(tmp_path)))


async def test_whoever_leaves_something_behind_is_heard(tmp_path: Path) -> None:
    heard = []
    ledger = GuestLedger(tmp_path / "in-guest", lambda: heard.append(1))
    async with ledger.entry("/tmp") as entry:
        entry.gone = True
    assert heard == []
    async with ledger.entry("/tmp"):
        pass
    assert heard == [1]


def test_what_is_written_down_is_read_again() -> None:
    for leftover in (leftover_in(""), leftover_in("/a\nb/c"), Leftover(leftover_in("/tmp").path, (0, 1001))):
        assert leftover_of(leftover.text()) == leftover


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"path": "/etc/passwd", "handles": [], "isProgram": false}',
        '{"path": "/tmp/.qcontroller-0123", "handles": [], "isProgram": false}',
        '{"path": "tmp/.qcontroller-0123456789abcdef", "handles": [], "isProgram": false}',
        '{"path": "/tmp/.qcontroller-0123456789abcdef/..", "handles": [], "isProgram": false}',
        '{"path": "/tmp/.qcontroller-0123456789abcdef", "handles": ["1"], "isProgram": false}',
        '{"path": "/tmp/.qcontroller-0123456789abcdef", "handles": [true], "isProgram": false}',
        '{"path": "/tmp/.qcontroller-0123456789abcdef", "isProgram": false, "handles": [0,1,2,3,4,5,6,7,8]}',
        '{"path": "/tmp/.qcontroller-0123456789abcdef", "handles": [], "isProgram": 1}',
        '{"path": 1, "handles": [], "isProgram": false}',
    ],
)
def test_what_was_not_written_by_us_is_nothing(text: str) -> None:
    assert leftover_of(text) is None
