"""What whoever reads a console's log is promised while the guest goes on printing."""

from pathlib import Path

import pytest
from qemu_runner.store.console_log import ConsoleChunk, ConsoleLog

BLOCK = 4096


class GrowingLog(ConsoleLog):
    """A log that is longer each time somebody looks."""

    def _size(self) -> int:
        with self.path.open("ab") as file:
            file.write(b"x" * 100)
        return super()._size()


async def read(log: ConsoleLog, offset: int, length: int) -> list[ConsoleChunk]:
    return [chunk async for chunk in log.read(offset, length)]


async def test_as_many_bytes_come_as_the_first_piece_promises(tmp_path: Path) -> None:
    log = GrowingLog(tmp_path / "console.log", limit_bytes=100 * BLOCK)
    chunks = await read(log, 0, 0)
    assert sum(len(chunk.data) for chunk in chunks) == chunks[0].total_bytes - chunks[0].offset > 0


@pytest.mark.parametrize("offset", [0, BLOCK])
async def test_what_is_given_back_while_it_is_read_is_one_empty_piece(tmp_path: Path, offset: int) -> None:
    log = GrowingLog(tmp_path / "console.log", limit_bytes=BLOCK)
    log.path.write_bytes(b"y" * 10 * BLOCK)
    chunks = await read(log, offset, 100)
    assert [chunk.data for chunk in chunks] == [b""]
    assert chunks[0].offset >= 9 * BLOCK
