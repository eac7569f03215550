"""Files into a guest and out of it, with an agent whose shell is this host's."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from local_agent import LocalAgent
from qemu_runner.domain.guest_file import FileEnd, FileWish, GuestFile
from qemu_runner.errors import (
    GuestAgentUnavailableError,
    GuestError,
    GuestFileDigestError,
    GuestFileNotFoundError,
    GuestFileRefusedError,
    GuestFileTruncatedError,
)
from qemu_runner.guest_agent import files
from qemu_runner.guest_agent.client import GuestAgent
from scripted_agent import agent, client

BIG = bytes(range(256)) * 4096 + b"end"


@pytest.fixture
def host() -> LocalAgent:
    return LocalAgent()


@pytest.fixture
async def guest(host: LocalAgent, tmp_path: Path) -> AsyncIterator[GuestAgent]:
    async with agent(tmp_path, host) as path, client(path) as it:
        yield it
    await host.close()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the guest."""
    directory = tmp_path / "guest dir; touch $(x)"
    directory.mkdir()
    return directory


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def parts(
    content: bytes, *, total: int | None = None, size: int = 100_000
) -> AsyncIterator[bytes | FileEnd]:
    for at in range(0, len(content), size):
        yield content[at : at + size]
    yield FileEnd(len(content) if total is None else total)


async def pulled(guest: GuestAgent, path: Path) -> tuple[GuestFile, bytes]:
    items = [item async for item in files.pull(guest, str(path))]
    (head,) = [item for item in items if isinstance(item, GuestFile)]
    return head, b"".join(item for item in items if isinstance(item, bytes))


@pytest.mark.parametrize("content", [b"", b"one", BIG])
async def test_what_is_pushed_is_there_and_comes_back(guest: GuestAgent, there: Path, content: bytes) -> None:
    path = there / "a file"
    file = await files.push(guest, FileWish(str(path), digest=digest_of(content)), parts(content))
    assert path.read_bytes() == content
    assert (file.size_bytes, file.digest, file.mode) == (len(content), digest_of(content), "0644")
    assert await pulled(guest, path) == (file, content)
    assert names(there) == ["a file"]


async def test_mode_and_owner_are_as_wished(guest: GuestAgent, there: Path) -> None:
    path = there / "program"
    wish = FileWish(str(path), mode="4750", owner=f"{os.getuid()}:{os.getgid()}")
    file = await files.push(guest, wish, parts(b"#!/bin/sh\n"))
    assert (file.mode, path.stat().st_mode & 0o7777) == ("4750", 0o4750)


async def test_a_file_that_is_replaced_keeps_its_mode(guest: GuestAgent, there: Path) -> None:
    path = there / "secret"
    path.write_bytes(b"old")
    path.chmod(0o600)
    await files.push(guest, FileWish(str(path)), parts(b"new"))
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)


async def test_nobody_can_read_what_is_half_there(guest: GuestAgent, there: Path) -> None:
    async def looking() -> AsyncIterator[bytes | FileEnd]:
        (beside,) = there.iterdir()
        assert beside.stat().st_mode & 0o777 == 0o600
        yield b"x"
        yield FileEnd(1)

    await files.push(guest, FileWish(str(there / "f")), looking())


async def test_bytes_of_another_digest_leave_what_was_there(guest: GuestAgent, there: Path) -> None:
    path = there / "f"
    path.write_bytes(b"old")
    with pytest.raises(GuestFileDigestError):
        await files.push(guest, FileWish(str(path), digest=digest_of(b"other")), parts(b"new"))
    assert (path.read_bytes(), names(there)) == (b"old", ["f"])


async def test_bytes_that_the_guest_loses_are_noticed(
    guest: GuestAgent, host: LocalAgent, there: Path
) -> None:
    host.lies["guest-file-write"] = {"count": 3, "eof": False}
    with pytest.raises(GuestFileDigestError):
        await files.push(guest, FileWish(str(there / "f")), parts(b"new"))
    assert names(there) == []


async def breaking() -> AsyncIterator[bytes | FileEnd]:
    yield BIG


@pytest.mark.parametrize("source", [breaking(), parts(BIG, total=5)], ids=["no end", "another length"])
async def test_a_push_that_breaks_off_leaves_nothing(
    guest: GuestAgent, there: Path, source: AsyncIterator[bytes | FileEnd]
) -> None:
    with pytest.raises(GuestFileTruncatedError):
        await files.push(guest, FileWish(str(there / "f")), source)
    assert names(there) == []


async def test_a_push_whose_caller_goes_leaves_nothing(
    guest: GuestAgent, host: LocalAgent, there: Path
) -> None:
    begun = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes | FileEnd]:
        yield BIG
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(files.push(guest, FileWish(str(there / "f")), stalling()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (names(there), host.handles) == ([], {})


async def test_a_full_disk_is_told_in_the_guests_words(
    guest: GuestAgent, host: LocalAgent, there: Path
) -> None:
    host.broken["guest-file-flush"] = "failed to flush file: No space left on device"
    with pytest.raises(GuestFileRefusedError, match="No space left"):
        await files.push(guest, FileWish(str(there / "f")), parts(b"new"))
    assert names(there) == []


async def test_a_place_that_cannot_be_written_is_told_in_the_guests_words(guest: GuestAgent) -> None:
    with pytest.raises(GuestFileRefusedError, match=r"/proc/\.qcontroller"):
        await files.push(guest, FileWish("/proc/f"), parts(b"new"))


async def test_a_place_without_directory_is_not_found(guest: GuestAgent, there: Path) -> None:
    with pytest.raises(GuestFileNotFoundError):
        await files.push(guest, FileWish(str(there / "no" / "f")), parts(b"new"))


async def test_a_directory_is_no_file(guest: GuestAgent, there: Path) -> None:
    with pytest.raises(GuestFileRefusedError, match="no regular file"):
        await files.push(guest, FileWish(str(there)), parts(b"new"))
    with pytest.raises(GuestFileRefusedError, match="no regular file"):
        await pulled(guest, there)


async def test_what_is_not_there_cannot_be_pulled(guest: GuestAgent, there: Path) -> None:
    with pytest.raises(GuestFileNotFoundError):
        await pulled(guest, there / "no")


async def test_an_owner_that_the_guest_does_not_know_is_refused(guest: GuestAgent, there: Path) -> None:
    with pytest.raises(GuestFileRefusedError, match="nobody-of-this-name"):
        await files.push(guest, FileWish(str(there / "f"), owner="nobody-of-this-name"), parts(b"new"))
    assert names(there) == []


async def test_other_bytes_than_were_counted_fail_the_pull(
    guest: GuestAgent, host: LocalAgent, there: Path
) -> None:
    path = there / "f"
    path.write_bytes(b"right")
    host.lies["guest-file-read"] = {"count": 5, "buf-b64": "d3Jvbmc=", "eof": True}
    with pytest.raises(GuestFileDigestError):
        await pulled(guest, path)
    assert host.handles == {}


async def test_a_file_that_grows_meanwhile_is_pulled_as_it_was(guest: GuestAgent, there: Path) -> None:
    path = there / "log"
    path.write_bytes(BIG)
    got = b""
    async for item in files.pull(guest, str(path)):
        if isinstance(item, bytes):
            got += item
        else:
            with path.open("ab") as file:
                file.write(b"more")
    assert got == BIG


@pytest.mark.parametrize("answer", [None, "x", -5, 2**70, [], True])
async def test_a_handle_that_is_none_ends_the_push(
    guest: GuestAgent, host: LocalAgent, there: Path, answer: object
) -> None:
    host.lies["guest-file-open"] = answer
    with pytest.raises(GuestAgentUnavailableError):
        await files.push(guest, FileWish(str(there / "f")), parts(b"new"))
    assert names(there) == []


async def test_a_guest_that_lies_about_a_files_size_costs_an_error(
    guest: GuestAgent, host: LocalAgent, there: Path
) -> None:
    host.lies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": "YWFh" * 1000}
    with pytest.raises(GuestError):
        await pulled(guest, there / "f")
