"""Files into a guest and out of it, through its agent, in pieces.

The agent opens, reads and writes; it cannot rename, or set mode and owner, or count a digest. For that it
runs its shell with the scripts below, which never change: what they work on are arguments. A file is pushed
under a name of its own beside its place, and gets its place only when the guest has counted the right digest.

Source: QEMU Guest Agent Protocol Reference, `guest-file-*`.
"""

import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from qemu_runner.domain.guest_file import FileEnd, FileWish, GuestFile
from qemu_runner.errors import (
    GuestAgentRefusedError,
    GuestAgentUnavailableError,
    GuestError,
    GuestFileDigestError,
    GuestFileNotFoundError,
    GuestFileRefusedError,
    GuestFileTruncatedError,
)
from qemu_runner.guest_agent.answers import clean, content, handle, member
from qemu_runner.guest_agent.client import ExecResult, GuestAgent
from qemu_runner.store.guest_ledger import Entry

# The agent takes its channel's bytes 4 KiB at a time, and other commands wait for the turn meanwhile.
_PIECE_BYTES: Final = 256 * 1024
_PIECE_S: Final = 60.0
_SCRIPT_S: Final = 30.0
_CLEAN_S: Final = 10.0
_DIGEST_BYTES_PER_S: Final = 2 * 1024 * 1024  # of a guest that is emulated on a loaded host

_NOT_THERE: Final = 20
_NO_FILE: Final = 21
_WRONG_DIGEST: Final = 24

_LOOK: Final = """\
[ -e "$1" ] || exit 20
[ -f "$1" ] || exit 21
exec stat -L -c '%s %a %U:%G' "$1"
"""
_DIGEST: Final = """\
head -c "$2" "$1" | sha256sum
"""
_BEGIN: Final = """\
directory=${2%/*}
[ -d "${directory:-/}" ] || exit 20
[ ! -d "$2" ] || exit 21
umask 077
set -C
true > "$1" || exit 22
"""
_PLACE: Final = """\
mode=$4 owner=$5
if [ -f "$2" ]; then
  : "${mode:=$(stat -L -c %a "$2")}" "${owner:=$(stat -L -c %u:%g "$2")}"
fi
counted=$(sha256sum < "$1") || exit 22
[ "${counted%% *}" = "$3" ] || exit 24
[ -z "$owner" ] || chown "$owner" "$1" || exit 22
chmod "${mode:-0644}" "$1" || exit 22
[ ! -d "$2" ] || exit 21
mv -f "$1" "$2" || exit 22
exec stat -L -c '%s %a %U:%G' "$2"
"""
_LOOKED: Final = re.compile(r"(\d{1,19}) ([0-7]{1,4}) (\S{1,200})\s*")


async def pull(agent: GuestAgent, path: str) -> AsyncGenerator[GuestFile | bytes, None]:
    """Yield what the file is, then its bytes.

    What is read is as long as the file was when it was looked at: one that only grows can be pulled.

    Raises:
        GuestFileNotFoundError: There is no such file.
        GuestFileRefusedError: It is no regular file, or may not be read.
        GuestFileDigestError: Other bytes came than the guest had counted; also after some have been yielded.
        GuestError: The agent refuses, or answers no more.
    """
    looked = await _script(agent, _LOOK, path)
    file = _looked_at(looked, path)
    counting_s = _SCRIPT_S + file.size_bytes / _DIGEST_BYTES_PER_S
    counted = await _script(agent, _DIGEST, path, str(file.size_bytes), within_s=counting_s)
    expected = counted.stdout[:64].decode("ascii", "replace")
    if not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise GuestFileRefusedError(path, _words(counted))
    yield GuestFile(path, file.size_bytes, f"sha256:{expected}", file.mode, file.owner)
    opened = await _open(agent, path, path, "rb")
    left, digest = file.size_bytes, hashlib.sha256()
    try:
        while left:
            arguments = {"handle": opened, "count": min(left, _PIECE_BYTES)}
            answer = await agent.call("guest-file-read", arguments, deadline_s=_PIECE_S)
            piece = content(member(answer, "buf-b64"), min(left, _PIECE_BYTES))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
            yield piece
    finally:
        await _close(agent, opened)
    if digest.hexdigest() != expected:
        raise GuestFileDigestError(path, f"sha256:{expected}", f"sha256:{digest.hexdigest()}")


async def push(agent: GuestAgent, wish: FileWish, parts: AsyncIterator[bytes | FileEnd]) -> GuestFile:
    """Put a file in its place, whole or not at all; what is not placed is removed, now or later.

    Raises:
        GuestFileNotFoundError: There is no such directory.
        GuestFileRefusedError: The place is a directory, or the guest may not write there.
        GuestFileDigestError: Other bytes came than `wish` says, or than the guest has counted.
        GuestFileTruncatedError: The parts broke off before the end.
        GuestError: The agent refuses, or answers no more.
        DiskFullError: There is no room on this host to write down what is in the guest.
    """
    async with agent.ledger.entry(wish.path.rpartition("/")[0]) as entry:
        return await _push(agent, wish, parts, entry)


async def _push(
    agent: GuestAgent, wish: FileWish, parts: AsyncIterator[bytes | FileEnd], entry: Entry
) -> GuestFile:
    beside = entry.path
    try:
        begun = await _script(agent, _BEGIN, beside, wish.path)
        entry.gone = begun.exit_code != 0
        _check(begun, wish.path)
        opened = await _open(agent, wish.path, beside, "r+b")
        try:
            await entry.opened(opened)
            total, digest = await _write(agent, wish.path, opened, parts)
            await _told(agent, wish.path, "guest-file-flush", {"handle": opened})
        finally:
            await _close(agent, opened)
        if wish.digest not in {"", f"sha256:{digest}"}:
            raise GuestFileDigestError(wish.path, wish.digest, f"sha256:{digest}")
        within_s = _SCRIPT_S + total / _DIGEST_BYTES_PER_S
        done = await _script(
            agent, _PLACE, beside, wish.path, digest, wish.mode, wish.owner, within_s=within_s
        )
        if done.exit_code == _WRONG_DIGEST:
            raise GuestFileDigestError(wish.path, f"sha256:{digest}", "other bytes in the guest")
        seen = _looked_at(done, wish.path)
        entry.gone = True
        return GuestFile(wish.path, seen.size_bytes, f"sha256:{digest}", seen.mode, seen.owner)
    finally:
        if not entry.gone:
            with contextlib.suppress(GuestError):
                removed = await agent.execute(("rm", "-f", beside), {}, b"", _CLEAN_S)
                entry.gone = removed.exit_code == 0


async def _write(
    agent: GuestAgent, path: str, opened: int, parts: AsyncIterator[bytes | FileEnd]
) -> tuple[int, str]:
    total, digest, pending = 0, hashlib.sha256(), bytearray()
    async for part in parts:
        if isinstance(part, FileEnd):
            if part.total_bytes != total:
                break
            await _write_piece(agent, path, opened, bytes(pending))
            return total, digest.hexdigest()
        total += len(part)
        digest.update(part)
        pending += part
        while len(pending) >= _PIECE_BYTES:
            await _write_piece(agent, path, opened, bytes(pending[:_PIECE_BYTES]))
            del pending[:_PIECE_BYTES]
    raise GuestFileTruncatedError(path)


async def _write_piece(agent: GuestAgent, path: str, opened: int, piece: bytes) -> None:
    if not piece:
        return
    arguments = {"handle": opened, "buf-b64": base64.b64encode(piece).decode()}
    answer = await _told(agent, path, "guest-file-write", arguments)
    if member(answer, "count") != len(piece):
        raise GuestFileRefusedError(path, "not all of it was written")


async def _open(agent: GuestAgent, path: str, opened: str, mode: str) -> int:
    return handle(await _told(agent, path, "guest-file-open", {"path": opened, "mode": mode}))


async def _close(agent: GuestAgent, opened: int) -> None:
    with contextlib.suppress(GuestError):
        await agent.call("guest-file-close", {"handle": opened})


async def _told(agent: GuestAgent, path: str, command: str, arguments: dict[str, object]) -> object:
    try:
        return await agent.call(command, arguments, deadline_s=_PIECE_S)
    except GuestAgentRefusedError as exc:
        raise GuestFileRefusedError(path, clean(exc.detail)) from exc


async def _script(agent: GuestAgent, script: str, *words: str, within_s: float = _SCRIPT_S) -> ExecResult:
    return await agent.execute(("/bin/sh", "-c", script, "sh", *words), {}, b"", within_s)


def _looked_at(result: ExecResult, path: str) -> GuestFile:
    _check(result, path)
    found = _LOOKED.fullmatch(result.stdout[:512].decode("utf-8", "replace"))
    if found is None:
        raise GuestAgentUnavailableError("its answer is of the wrong shape")
    size, mode, owner = found.groups()
    return GuestFile(path, int(size), "", mode.rjust(4, "0"), clean(owner))


def _check(result: ExecResult, path: str) -> None:
    if result.exit_code == _NOT_THERE:
        raise GuestFileNotFoundError(path)
    if result.exit_code == _NO_FILE:
        raise GuestFileRefusedError(path, "it is no regular file")
    if result.exit_code != 0:
        raise GuestFileRefusedError(path, _words(result))


def _words(result: ExecResult) -> str:
    said = clean(result.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])
    return said or f"the guest's shell ended with {result.exit_code}"
