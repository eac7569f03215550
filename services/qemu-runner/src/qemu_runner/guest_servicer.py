"""The gRPC face of what is done inside guests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2 as pb
from qcontroller.runner.v1 import runner_pb2_grpc

from qemu_runner.console_talk_messages import command_of, news_message, wish_of
from qemu_runner.convert import machine_id_of
from qemu_runner.domain.console_talk import Command
from qemu_runner.domain.guest_file import FileEnd, FileWish, GuestFile
from qemu_runner.domain.guest_program import Channel, Output, Program, ProgramEnd
from qemu_runner.errors import SpecFault, SpecInvalidError
from qemu_runner.guest_messages import report_message, time_message
from qemu_runner.servicer import Services


class GuestServicer(runner_pb2_grpc.GuestServiceServicer):
    """`GuestService`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def ReadMachineGuest(
        self, request: pb.ReadMachineGuestRequest, _context: Any
    ) -> pb.ReadMachineGuestResponse:
        report = await self._services.guest_reports.read(machine_id_of(request.machine_id))
        return pb.ReadMachineGuestResponse(guest=report_message(report))

    async def AttachMachineConsole(
        self, request_iterator: AsyncIterator[pb.AttachMachineConsoleRequest], _context: Any
    ) -> AsyncIterator[pb.AttachMachineConsoleResponse]:
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "attach":
            raise SpecInvalidError((SpecFault("", "a console is attached to first."),))
        machine_id, wish = machine_id_of(first.attach.machine_id), wish_of(first.attach.viewer)
        async with self._services.console_sessions.attach(machine_id, wish) as session:
            obeying = asyncio.create_task(session.obey(_commands(request_iterator)))
            try:
                async with aclosing(session.news()) as news:
                    async for one in news:
                        yield pb.AttachMachineConsoleResponse(news=news_message(one))
            finally:
                obeying.cancel()
                await asyncio.gather(obeying, return_exceptions=True)

    async def StreamMachineExec(
        self, request: pb.StreamMachineExecRequest, _context: Any
    ) -> AsyncIterator[pb.StreamMachineExecResponse]:
        program = Program(tuple(request.argv), dict(request.env), request.stdin, request.timeout_ms / 1000)
        parts = self._services.guests.stream(machine_id_of(request.machine_id), program)
        # Closed at once when the caller hangs up: that ends the program.
        async with aclosing(parts):
            async for part in parts:
                yield _exec_part(part)

    async def PushMachineFile(
        self, request_iterator: AsyncIterator[pb.PushMachineFileRequest], _context: Any
    ) -> pb.PushMachineFileResponse:
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "push":
            raise SpecInvalidError((SpecFault("", "a push begins with what is pushed."),))
        push = first.push
        wish = FileWish(push.path, push.mode, push.owner, push.digest)
        machine_id = machine_id_of(push.machine_id)
        file = await self._services.guest_transfers.push(machine_id, wish, _parts(request_iterator))
        return pb.PushMachineFileResponse(file=_file_message(file))

    async def PullMachineFile(
        self, request: pb.PullMachineFileRequest, _context: Any
    ) -> AsyncIterator[pb.PullMachineFileResponse]:
        parts = self._services.guest_transfers.pull(machine_id_of(request.machine_id), request.path)
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, GuestFile):
                    yield pb.PullMachineFileResponse(file=_file_message(part))
                else:
                    yield pb.PullMachineFileResponse(chunk=part)

    async def SetMachinePassword(
        self, request: pb.SetMachinePasswordRequest, _context: Any
    ) -> pb.SetMachinePasswordResponse:
        await self._services.guest_accounts.set_password(
            machine_id_of(request.machine_id), request.user, request.password, crypted=request.crypted
        )
        return pb.SetMachinePasswordResponse()

    async def AuthoriseMachineKeys(
        self, request: pb.AuthoriseMachineKeysRequest, _context: Any
    ) -> pb.AuthoriseMachineKeysResponse:
        await self._services.guest_accounts.authorise_keys(
            machine_id_of(request.machine_id), request.user, tuple(request.keys), replace=request.replace
        )
        return pb.AuthoriseMachineKeysResponse()

    async def FreezeMachineGuest(
        self, request: pb.FreezeMachineGuestRequest, _context: Any
    ) -> pb.FreezeMachineGuestResponse:
        frozen = await self._services.freezing.freeze(
            machine_id_of(request.machine_id), request.timeout_ms / 1000
        )
        return pb.FreezeMachineGuestResponse(
            filesystems=frozen.filesystems, thaw_time=time_message(frozen.until)
        )

    async def ThawMachineGuest(
        self, request: pb.ThawMachineGuestRequest, _context: Any
    ) -> pb.ThawMachineGuestResponse:
        count = await self._services.freezing.thaw(machine_id_of(request.machine_id))
        return pb.ThawMachineGuestResponse(filesystems=count)


async def _parts(messages: AsyncIterator[pb.PushMachineFileRequest]) -> AsyncIterator[bytes | FileEnd]:
    async for message in messages:
        match message.WhichOneof("part"):
            case "chunk":
                yield message.chunk
            case "end":
                yield FileEnd(message.end.total_bytes)
            case _:
                raise SpecInvalidError((SpecFault("", "a push goes on with chunks and its end."),))


async def _commands(messages: AsyncIterator[pb.AttachMachineConsoleRequest]) -> AsyncIterator[Command]:
    async for message in messages:
        if message.WhichOneof("part") != "command":
            raise SpecInvalidError((SpecFault("", "a console goes on with commands."),))
        yield command_of(message.command)


def _exec_part(part: Output | ProgramEnd) -> pb.StreamMachineExecResponse:
    if isinstance(part, ProgramEnd):
        end = instance_pb2.ExecEnd(exit_code=part.exit_code, truncated=part.truncated)
        return pb.StreamMachineExecResponse(end=end)
    if not part.content:
        # The program has begun.
        return pb.StreamMachineExecResponse()
    match part.channel:
        case Channel.STDOUT:
            return pb.StreamMachineExecResponse(stdout=part.content)
        case Channel.STDERR:
            return pb.StreamMachineExecResponse(stderr=part.content)


def _file_message(file: GuestFile) -> instance_pb2.GuestFile:
    return instance_pb2.GuestFile(
        path=file.path, size_bytes=file.size_bytes, digest=file.digest, mode=file.mode, owner=file.owner
    )
