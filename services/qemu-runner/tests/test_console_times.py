"""Claims about the times beside a console's log, on real files."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from qemu_runner.domain.console import TimeMark
from qemu_runner.store.console_times import ConsoleTimes

T0 = datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)


def at(second: int) -> datetime:
    return T0 + timedelta(seconds=second)


async def noted(path: Path, count: int, most: int = 1024) -> ConsoleTimes:
    times = ConsoleTimes(path, most)
    await times.resume(0, T0)
    for n in range(1, count + 1):
        await times.note(TimeMark(n * 10, at(n)), 0)
    return times


async def test_each_byte_has_the_time_at_which_it_was_there(tmp_path: Path) -> None:
    times = await noted(tmp_path / "times", 5)
    assert await times.between(10, 30) == (TimeMark(20, at(2)), TimeMark(30, at(3)))
    assert await times.between(15, 16) == (TimeMark(20, at(2)),)
    assert (await times.between(45, 99))[-1].end == 50, "what has no time yet has none"
    assert await times.between(50, 60) == ()


async def test_what_came_while_nobody_watched_is_approximate(tmp_path: Path) -> None:
    path = tmp_path / "times"
    await noted(path, 2)
    again = ConsoleTimes(path)
    await again.resume(90, at(50))
    assert await again.between(0, 90) == (
        TimeMark(10, at(1)),
        TimeMark(20, at(2)),
        TimeMark(90, at(50), approximate=True),
    )
    await again.note(TimeMark(95, at(60)), 0)
    assert await again.between(90, 95) == (TimeMark(95, at(60)),)


async def test_what_is_read_again_keeps_its_first_time(tmp_path: Path) -> None:
    path = tmp_path / "times"
    times = await noted(path, 3)
    await times.note(TimeMark(20, at(99)), 0)
    assert len(await times.between(0, 30)) == 3


async def test_a_record_that_broke_off_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "times"
    await noted(path, 3)
    with path.open("ab") as file:
        file.write(b"\xff" * 7)
    again = ConsoleTimes(path)
    await again.resume(30, T0)
    await again.note(TimeMark(40, at(4)), 0)
    assert [mark.end for mark in await again.between(0, 40)] == [10, 20, 30, 40]


async def test_times_of_another_log_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "times"
    await noted(path, 3)
    for damage in (b"\xff" * 16 * 8, b"\x00" * 16 * 8):
        path.write_bytes(path.read_bytes() + damage)
        again = ConsoleTimes(path)
        await again.resume(5, at(7))
        assert await again.between(0, 5) == (TimeMark(5, at(7), approximate=True),)


async def test_the_file_is_bounded_and_bytes_are_shown_late_but_never_early(tmp_path: Path) -> None:
    path = tmp_path / "times"
    times = await noted(path, 1000, most=64)
    assert path.stat().st_size <= 64 * 16
    marks = await times.between(0, 10_000)
    assert marks[-1] == TimeMark(10_000, at(1000))
    assert all(later.end > earlier.end for earlier, later in pairwise(marks))
    assert all(mark.time == at(mark.end // 10) for mark in marks)
    assert marks[0].approximate
    assert not any(mark.approximate for mark in marks[-16:])


async def test_times_of_what_was_given_back_go_first(tmp_path: Path) -> None:
    path = tmp_path / "times"
    times = await noted(path, 64, most=64)
    await times.note(TimeMark(650, at(65)), 500)
    marks = await times.between(0, 650)
    assert [mark.end for mark in marks] == [*range(510, 660, 10)]
    assert not any(mark.approximate for mark in marks)
