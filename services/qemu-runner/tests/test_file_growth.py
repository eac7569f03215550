"""Growth of one file is told to everybody who watches it, whoever else comes or goes."""

import asyncio
from pathlib import Path

import pytest
from qemu_runner.store.file_growth import FileGrowth


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


async def told(path: Path, *events: asyncio.Event) -> None:
    for event in events:
        event.clear()
    await asyncio.to_thread(append, path)
    async with asyncio.timeout(5):
        for event in events:
            await event.wait()


async def test_each_of_several_watchers_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path)
    with FileGrowth() as growth, growth.watching(path) as one, growth.watching(path) as two:
        await told(path, one, two)


async def test_a_watcher_that_goes_takes_nothing_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path)
    with FileGrowth() as growth, growth.watching(path) as one:
        with growth.watching(path) as two:
            await told(path, one, two)
        await told(path, one)


async def test_one_event_may_stand_for_several_files(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        append(path)
    event = asyncio.Event()
    with FileGrowth() as growth, growth.watching(files[0], event), growth.watching(files[1], event):
        for path in files:
            await told(path, event)


async def test_a_file_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with FileGrowth() as growth, pytest.raises(FileNotFoundError), growth.watching(tmp_path / "none"):
        pass
