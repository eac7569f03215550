"""Claims about reading and following a console's log, on real files and real inotify."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from qemu_runner.domain.console import ConsolePiece, Reading
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import ConsoleFollowersError
from qemu_runner.service.consoles import MOST_FOLLOWERS, Console, Consoles
from qemu_runner.store.file_growth import FileGrowth
from qemu_runner.store.machine_files import MachineFiles

LIMIT = 64 * 1024


@dataclass
class Desk:
    """Consoles, and the log of one machine that a test writes as QEMU does."""

    consoles: Consoles
    machine_id: MachineId
    path: Path

    @property
    def console(self) -> Console:
        return self.consoles.of(self.machine_id)

    def prints(self, text: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(text)

    def follow(self, **wish: object) -> AsyncGenerator[ConsolePiece, None]:
        return self.console.read(Reading(follow=True, **wish))  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    machine_id = MachineId(str(uuid.uuid4()))
    directory = tmp_path / "machines" / machine_id
    directory.mkdir(parents=True)
    with FileGrowth() as growth:
        consoles = Consoles(MachineFiles(tmp_path), growth, LIMIT)
        yield Desk(consoles, machine_id, directory / "console.log")


async def until(pieces: AsyncIterator[ConsolePiece], end: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(10):
        while not seen.endswith(end):
            seen += (await anext(pieces)).data
    return seen


async def test_what_is_written_comes_at_once_to_all_who_follow(desk: Desk) -> None:
    desk.prints(b"one\n")
    first, second = desk.follow(), desk.follow(offset=4)
    async with aclosing(first), aclosing(second):
        assert await until(first, b"one\n") == b"one\n"
        assert (await anext(second)).offset == 4
        desk.prints(b"two\n")
        assert await until(first, b"two\n") == b"two\n"
        assert await until(second, b"two\n") == b"two\n"
        await first.aclose()
        desk.prints(b"three\n")
        assert await until(second, b"three\n") == b"three\n", "one who leaves takes nothing from the others"


async def test_who_follows_is_let_go_when_the_log_is_removed(desk: Desk) -> None:
    desk.prints(b"one\n")
    pieces = desk.follow()
    async with aclosing(pieces), asyncio.timeout(4):
        await until(pieces, b"one\n")
        desk.path.unlink()
        assert [piece async for piece in pieces] == []


async def test_without_a_log_there_is_nothing_to_follow(desk: Desk) -> None:
    async with asyncio.timeout(4):
        assert [piece async for piece in desk.follow()] == [ConsolePiece(0, b"", 0, 0)]


async def test_as_many_follow_as_may_and_who_leaves_makes_room(desk: Desk) -> None:
    desk.prints(b"one\n")
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(aclosing(desk.follow())) for _ in range(MOST_FOLLOWERS)]
        for pieces in many:
            await anext(pieces)
        with pytest.raises(ConsoleFollowersError):
            await anext(desk.follow())
        assert [piece.data async for piece in desk.console.read(Reading())] == [b"one\n"]
        await many[0].aclose()
        another = await stack.enter_async_context(aclosing(desk.follow()))
        assert (await anext(another)).data == b"one\n"


async def test_a_part_is_followed_to_its_end(desk: Desk) -> None:
    desk.prints(b"0123")
    pieces = desk.follow(offset=2, length=4)
    assert await until(pieces, b"23") == b"23"
    desk.prints(b"456789")
    assert await until(pieces, b"45") == b"45"
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


async def test_what_was_given_back_is_skipped_and_offsets_tell(desk: Desk) -> None:
    desk.prints(b"a" * LIMIT + b"b" * 8192)
    await desk.console.log.trim()
    pieces = [piece async for piece in desk.console.read(Reading(offset=0, length=LIMIT))]
    assert pieces[0].offset == pieces[0].first_kept == 8192
    assert sum(len(piece.data) for piece in pieces) == LIMIT - 8192, "the length counts from what was asked"
    following = desk.follow(offset=0)
    async with aclosing(following):
        assert (await anext(following)).offset == 8192


async def test_no_zero_of_a_hole_is_ever_read(desk: Desk) -> None:
    desk.prints(b"a" * (LIMIT // 2))
    pieces = desk.follow()
    async with aclosing(pieces):
        assert (await anext(pieces)).offset == 0
        # Far more than is kept, before the reader comes back.
        desk.prints(b"b" * (LIMIT * 3))
        await desk.console.log.trim()
        piece = await anext(pieces)
        assert piece.offset == piece.first_kept
        assert set(piece.data) == {ord("b")}


async def test_times_are_noted_as_the_log_grows_and_rarely_enough(desk: Desk) -> None:
    desk.prints(b"away\n")
    console = desk.console
    with console.growing():
        assert await console.resume(0) == 0
        desk.prints(b"one\n")
        assert await console.note(9) is None
        desk.prints(b"two\n")
        pause_s = await console.note(13)
        assert pause_s is not None
        assert 0 < pause_s <= 0.1
        following = desk.follow(timestamps=True)
        async with aclosing(following):
            first = await anext(following)
            assert first.data == b"away\none\n", "who wants times waits for them"
            assert [(mark.end, mark.approximate) for mark in first.times] == [(5, True), (9, False)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(pause_s + 0.01):
                    await asyncio.Event().wait()
            assert await console.note(13) is None
            second = await anext(following)
            assert (second.data, second.times[0].end, second.times[0].approximate) == (b"two\n", 13, False)
    desk.prints(b"three\n")
    *_, last = [piece async for piece in console.read(Reading(timestamps=True))]
    assert (last.times[-1].end, last.times[-1].approximate) == (19, True), "nobody watches any more"
