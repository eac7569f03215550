"""The guests of one runner's machines over gRPC. Every call has a deadline."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC
from typing import Final

import grpc
from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2 as pb
from qcontroller.runner.v1.runner_pb2_grpc import GuestServiceStub

from controller.adapters.peer import MessageT, Peer
from controller.domain.guest import (
    ExecEnd,
    ExecOutput,
    FileEnd,
    FileWish,
    Frozen,
    GuestFile,
    GuestReport,
)
from controller.domain.machine import ExecRequest

_REPORT_S: Final = 25.0
_ACCOUNT_S: Final = 40.0
_FREEZE_S: Final = 100.0
# What a stream needs before and behind its program: a directory in the guest, and its removal.
_STREAM_MARGIN_S: Final = 60.0
_TRANSFER_S: Final = 24 * 3600.0
# The guest counts the digest of the whole file before its first byte.
_TRANSFER_IDLE_S: Final = 1800.0


class GuestClient:
    """Implements `GuestAccess` for one node."""

    def __init__(self, peer: Peer, channel: grpc.aio.Channel) -> None:
        self._peer = peer
        self._stub = GuestServiceStub(channel)

    async def report(self, machine_id: str) -> GuestReport:
        request = pb.ReadMachineGuestRequest(machine_id=machine_id)
        answer = await self._call(self._stub.ReadMachineGuest(request, timeout=_REPORT_S))
        return GuestReport(answer.guest.SerializeToString())

    async def stream(self, machine_id: str, request: ExecRequest) -> AsyncIterator[ExecOutput | ExecEnd]:
        message = pb.StreamMachineExecRequest(
            machine_id=machine_id,
            argv=request.argv,
            env=dict(request.env),
            stdin=request.stdin,
            timeout_ms=int(request.timeout_s * 1000),
        )
        call = self._stub.StreamMachineExec(message, timeout=request.timeout_s + _STREAM_MARGIN_S)
        async for part in self._peer.messages(call, idle_s=None):
            if part.WhichOneof("part") == "end":
                yield ExecEnd(part.end.exit_code, part.end.truncated)
            else:
                yield ExecOutput(part.stdout, part.stderr)

    async def push(self, machine_id: str, wish: FileWish, parts: AsyncIterator[bytes | FileEnd]) -> GuestFile:
        messages = _push_messages(machine_id, wish, parts)
        answer = await self._call(self._stub.PushMachineFile(messages, timeout=_TRANSFER_S))
        return _file(answer.file)

    async def pull(self, machine_id: str, path: str) -> AsyncIterator[GuestFile | bytes]:
        request = pb.PullMachineFileRequest(machine_id=machine_id, path=path)
        call = self._stub.PullMachineFile(request, timeout=_TRANSFER_S)
        async for part in self._peer.messages(call, idle_s=_TRANSFER_IDLE_S):
            if part.WhichOneof("part") == "file":
                yield _file(part.file)
            else:
                yield part.chunk

    async def set_password(self, machine_id: str, user: str, password: str, *, crypted: bool) -> None:
        request = pb.SetMachinePasswordRequest(
            machine_id=machine_id, user=user, password=password, crypted=crypted
        )
        await self._call(self._stub.SetMachinePassword(request, timeout=_ACCOUNT_S))

    async def authorise_keys(self, machine_id: str, user: str, keys: Sequence[str], *, replace: bool) -> None:
        request = pb.AuthoriseMachineKeysRequest(machine_id=machine_id, user=user, keys=keys, replace=replace)
        await self._call(self._stub.AuthoriseMachineKeys(request, timeout=_ACCOUNT_S))

    async def freeze(self, machine_id: str, timeout_s: float) -> Frozen:
        request = pb.FreezeMachineGuestRequest(machine_id=machine_id, timeout_ms=int(timeout_s * 1000))
        answer = await self._call(self._stub.FreezeMachineGuest(request, timeout=_FREEZE_S))
        return Frozen(answer.filesystems, answer.thaw_time.ToDatetime(UTC))

    async def thaw(self, machine_id: str) -> int:
        request = pb.ThawMachineGuestRequest(machine_id=machine_id)
        answer = await self._call(self._stub.ThawMachineGuest(request, timeout=_FREEZE_S))
        return answer.filesystems

    async def _call(self, call: Awaitable[MessageT]) -> MessageT:
        with self._peer.errors():
            return await call


async def _push_messages(
    machine_id: str, wish: FileWish, parts: AsyncIterator[bytes | FileEnd]
) -> AsyncIterator[pb.PushMachineFileRequest]:
    push = pb.MachineFilePush(
        machine_id=machine_id, path=wish.path, mode=wish.mode, owner=wish.owner, digest=wish.digest
    )
    yield pb.PushMachineFileRequest(push=push)
    async for part in parts:
        if isinstance(part, FileEnd):
            end = instance_pb2.FileEnd(total_bytes=part.total_bytes)
            yield pb.PushMachineFileRequest(end=end)
        else:
            yield pb.PushMachineFileRequest(chunk=part)


def _file(message: instance_pb2.GuestFile) -> GuestFile:
    return GuestFile(message.path, message.size_bytes, message.digest, message.mode, message.owner)
