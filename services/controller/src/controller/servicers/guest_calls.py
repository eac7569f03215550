"""The calls of InstanceService that go into guests."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from qcontroller.controller.v1 import console_pb2, instance_pb2_grpc
from qcontroller.controller.v1 import instance_pb2 as pb

from controller.domain.console_talk import ConsoleCommand, ConsoleEnd, ConsoleViewer
from controller.domain.fault import Fault
from controller.domain.guest import ExecEnd, FileEnd, GuestFile
from controller.errors import RequestInvalid
from controller.instances.consoles import Consoles
from controller.instances.guests import Guests
from controller.servicers.convert import time_message
from controller.servicers.requests import exec_request, file_wish, freeze_seconds


class GuestCalls(instance_pb2_grpc.InstanceServiceServicer):
    """Reads requests, hands them on, writes answers; the rest of the service is its heir's."""

    def __init__(self, guests: Guests, consoles: Consoles) -> None:
        self._guests = guests
        self._consoles = consoles

    async def GetGuest(self, request: pb.GetGuestRequest, context: Any) -> pb.GetGuestResponse:
        report = await self._guests.read(request.name)
        return pb.GetGuestResponse(guest=pb.GuestReport.FromString(report))

    async def StreamExec(
        self, request: pb.StreamExecRequest, context: Any
    ) -> AsyncIterator[pb.StreamExecResponse]:
        wanted, faults = exec_request(request)
        async for part in self._guests.stream(request.name, wanted, faults):
            if isinstance(part, ExecEnd):
                end = pb.ExecEnd(exit_code=part.exit_code, truncated=part.truncated)
                yield pb.StreamExecResponse(end=end)
            elif part.stdout:
                yield pb.StreamExecResponse(stdout=part.stdout)
            elif part.stderr:
                yield pb.StreamExecResponse(stderr=part.stderr)
            else:
                # The program has begun.
                yield pb.StreamExecResponse()

    async def AttachConsole(
        self, request_iterator: AsyncIterator[pb.AttachConsoleRequest], context: Any
    ) -> AsyncIterator[pb.AttachConsoleResponse]:
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "attach":
            raise RequestInvalid([Fault("", "a console is attached to first")])
        viewer = ConsoleViewer(first.attach.viewer.SerializeToString())
        news = self._consoles.attach(first.attach.name, viewer, _commands(request_iterator))
        async with aclosing(news) as parts:
            async for part in parts:
                if isinstance(part, ConsoleEnd):
                    end = console_pb2.ConsoleEnd(reason=part.reason, detail=part.detail, offset=part.offset)
                    yield pb.AttachConsoleResponse(news=console_pb2.ConsoleNews(end=end))
                else:
                    yield pb.AttachConsoleResponse(news=console_pb2.ConsoleNews.FromString(part))

    async def PushFile(
        self, request_iterator: AsyncIterator[pb.PushFileRequest], context: Any
    ) -> pb.PushFileResponse:
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "push":
            raise RequestInvalid([Fault("", "a push begins with what is pushed")])
        file = await self._guests.push(first.push.name, file_wish(first.push), _parts(request_iterator))
        return pb.PushFileResponse(file=_file_message(file))

    async def PullFile(self, request: pb.PullFileRequest, context: Any) -> AsyncIterator[pb.PullFileResponse]:
        async for part in self._guests.pull(request.name, request.path):
            if isinstance(part, GuestFile):
                yield pb.PullFileResponse(file=_file_message(part))
            else:
                yield pb.PullFileResponse(chunk=part)

    async def SetGuestPassword(
        self, request: pb.SetGuestPasswordRequest, context: Any
    ) -> pb.SetGuestPasswordResponse:
        await self._guests.set_password(request.name, request.user, request.password, crypted=request.crypted)
        return pb.SetGuestPasswordResponse()

    async def AuthoriseSshKeys(
        self, request: pb.AuthoriseSshKeysRequest, context: Any
    ) -> pb.AuthoriseSshKeysResponse:
        await self._guests.authorise_keys(
            request.name, request.user, tuple(request.keys), replace=request.replace
        )
        return pb.AuthoriseSshKeysResponse()

    async def FreezeGuest(self, request: pb.FreezeGuestRequest, context: Any) -> pb.FreezeGuestResponse:
        frozen = await self._guests.freeze(request.name, freeze_seconds(request.timeout))
        return pb.FreezeGuestResponse(
            filesystems=frozen.filesystems, thaw_time=time_message(frozen.thaw_time)
        )

    async def ThawGuest(self, request: pb.ThawGuestRequest, context: Any) -> pb.ThawGuestResponse:
        return pb.ThawGuestResponse(filesystems=await self._guests.thaw(request.name))


async def _commands(messages: AsyncIterator[pb.AttachConsoleRequest]) -> AsyncIterator[ConsoleCommand]:
    """Yield commands; what is none becomes an empty one, which the runner refuses."""
    async for message in messages:
        yield ConsoleCommand(message.command.SerializeToString())


async def _parts(messages: AsyncIterator[pb.PushFileRequest]) -> AsyncIterator[bytes | FileEnd]:
    """Yield what is pushed; what is neither chunk nor end breaks it off, which the runner tells."""
    async for message in messages:
        match message.WhichOneof("part"):
            case "chunk":
                yield message.chunk
            case "end":
                yield FileEnd(message.end.total_bytes)
            case _:
                return


def _file_message(file: GuestFile) -> pb.GuestFile:
    return pb.GuestFile(
        path=file.path, size_bytes=file.size_bytes, digest=file.digest, mode=file.mode, owner=file.owner
    )
