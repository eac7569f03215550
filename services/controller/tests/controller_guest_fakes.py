"""The guests of a runner in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from controller.domain.guest import ExecEnd, ExecOutput, FileEnd, FileWish, Frozen, GuestFile, GuestReport
from controller.domain.machine import ExecRequest
from controller.errors import PeerRefused, Refusal
from qcontroller.controller.v1 import instance_pb2 as pb

FROZEN_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakeGuests:
    """Implements `GuestAccess`; `enter` notes the call and raises what the test has set."""

    enter: Callable[[str], Awaitable[None]]
    files: dict[str, bytes] = field(default_factory=dict)
    wishes: list[FileWish] = field(default_factory=list)
    passwords: dict[str, str] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)

    async def report(self, machine_id: str) -> GuestReport:
        await self.enter("read_guest")
        report = pb.GuestReport(hostname=machine_id, agent_version="7.2")
        return GuestReport(report.SerializeToString())

    async def stream(self, machine_id: str, request: ExecRequest) -> AsyncIterator[ExecOutput | ExecEnd]:
        await self.enter("stream")
        yield ExecOutput()
        yield ExecOutput(stdout=" ".join(request.argv).encode())
        yield ExecOutput(stderr=request.stdin)
        yield ExecEnd(3, truncated=False)

    async def push(self, machine_id: str, wish: FileWish, parts: AsyncIterator[bytes | FileEnd]) -> GuestFile:
        await self.enter("push")
        content, whole = b"", False
        async for part in parts:
            if isinstance(part, FileEnd):
                whole = part.total_bytes == len(content)
            else:
                content += part
        if not whole:
            raise PeerRefused(Refusal("INVALID_ARGUMENT", "UPLOAD_TRUNCATED", "It broke off."))
        self.files[wish.path] = content
        self.wishes.append(wish)
        return self._file(wish.path)

    async def pull(self, machine_id: str, path: str) -> AsyncIterator[GuestFile | bytes]:
        await self.enter("pull")
        yield self._file(path)
        yield self.files[path]

    async def set_password(self, machine_id: str, user: str, password: str, *, crypted: bool) -> None:
        await self.enter("password")
        self.passwords[user] = password

    async def authorise_keys(self, machine_id: str, user: str, keys: Sequence[str], *, replace: bool) -> None:
        await self.enter("keys")
        self.keys[user] = [*([] if replace else self.keys.get(user, [])), *keys]

    async def freeze(self, machine_id: str, timeout_s: float) -> Frozen:
        await self.enter("freeze")
        return Frozen(2, FROZEN_AT + timedelta(seconds=timeout_s))

    async def thaw(self, machine_id: str) -> int:
        await self.enter("thaw")
        return 2

    def _file(self, path: str) -> GuestFile:
        return GuestFile(path, len(self.files[path]), "sha256:" + "ab" * 32, "0644", "root:root")
