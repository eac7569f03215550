"""Handlers of what is asked of a guest through its agent: /v1/instances/{name}/guest and …/files."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2 as pb
from starlette.responses import Response

from gateway.answers import StreamedBytes, json_response
from gateway.backends import CONTROLLER, Backends, ask, next_of
from gateway.bodies import chunks
from gateway.calls import Call
from gateway.convert import to_json
from gateway.errors import Fault, PeerUnavailableError, RequestInvalidError, SocketRequiredError
from gateway.uploads import gathered, send_all

_REPORT_S: Final = 30.0
_ACCOUNT_S: Final = 45.0
_FREEZE_S: Final = 110.0
_CLIENT_IDLE_S: Final = 60.0
# The guest counts the digest of the whole file before its first byte.
_PULL_IDLE_S: Final = 1800.0


class Guests:
    """Guests over HTTP."""

    def __init__(self, peers: Backends, *, client_idle_s: float = _CLIENT_IDLE_S) -> None:
        """Give up a push of which nothing came for `client_idle_s`."""
        self._stub = peers.instances
        self._client_idle_s = client_idle_s

    async def report(self, call: Call) -> Response:
        """GET …/guest."""
        request = pb.GetGuestRequest(name=call.name)
        answer = await ask(CONTROLLER, self._stub.GetGuest, request, deadline_s=_REPORT_S)
        return json_response(to_json(answer.guest))

    async def stream_exec(self, call: Call) -> Response:
        """GET …/exec without an Upgrade.

        Raises:
            SocketRequiredError: Always.
        """
        raise SocketRequiredError(call.request.scope["path"])

    async def push(self, call: Call) -> Response:
        """PUT …/files: the body is the file, all of it (RFC 9110, section 14.5)."""
        _require_path(call)
        if "content-range" in call.request.headers:
            raise RequestInvalidError(
                [Fault("/header/Content-Range", "is not taken: a file is sent whole, from its first byte")]
            )
        push = pb.FilePush(
            name=call.name,
            path=call.query["path"],
            mode=call.query.get("mode", ""),
            owner=call.query.get("owner", ""),
            digest=call.query.get("digest", ""),
        )
        body = chunks(call.request, self._client_idle_s)
        answer = await send_all(CONTROLLER, self._stub.PushFile, _messages(push, body), _end)
        return json_response(to_json(answer.file))

    async def pull(self, call: Call) -> Response:
        """GET …/files; what is refused is answered before the first byte."""
        _require_path(call)
        stream = self._stub.PullFile(pb.PullFileRequest(name=call.name, path=call.query["path"]))
        file = await _file_of(stream)
        digest = base64.b64encode(bytes.fromhex(file.digest.removeprefix("sha256:"))).decode()
        return StreamedBytes(
            _bytes(stream),
            status=200,
            media_type="application/octet-stream",
            headers={
                "Repr-Digest": f"sha-256=:{digest}:",
                "Guest-File-Mode": file.mode,
                # The guest's word: what a header cannot carry is left out.
                "Guest-File-Owner": file.owner.encode("ascii", "ignore").decode(),
                "Cache-Control": "no-store",
            },
            length=file.size_bytes,
        )

    async def set_password(self, call: Call) -> Response:
        """POST …/guest/password."""
        body = call.body
        request = pb.SetGuestPasswordRequest(
            name=call.name, user=body["user"], password=body["password"], crypted=body.get("crypted", False)
        )
        await ask(CONTROLLER, self._stub.SetGuestPassword, request, deadline_s=_ACCOUNT_S)
        return Response(status_code=204)

    async def authorise_keys(self, call: Call) -> Response:
        """POST …/guest/ssh-keys."""
        body = call.body
        request = pb.AuthoriseSshKeysRequest(
            name=call.name, user=body["user"], keys=body["keys"], replace=body.get("replace", False)
        )
        await ask(CONTROLLER, self._stub.AuthoriseSshKeys, request, deadline_s=_ACCOUNT_S)
        return Response(status_code=204)

    async def freeze(self, call: Call) -> Response:
        """POST …/guest/freeze."""
        request = pb.FreezeGuestRequest(name=call.name, timeout=str(call.body.get("timeout", "")))
        return json_response(
            to_json(await ask(CONTROLLER, self._stub.FreezeGuest, request, deadline_s=_FREEZE_S))
        )

    async def thaw(self, call: Call) -> Response:
        """POST …/guest/thaw."""
        request = pb.ThawGuestRequest(name=call.name)
        return json_response(
            to_json(await ask(CONTROLLER, self._stub.ThawGuest, request, deadline_s=_FREEZE_S))
        )


def _require_path(call: Call) -> None:
    if "path" not in call.query:
        raise RequestInvalidError([Fault("/query/path", "is missing")])


async def _messages(push: pb.FilePush, body: AsyncIterator[bytes]) -> AsyncIterator[pb.PushFileRequest]:
    yield pb.PushFileRequest(push=push)
    async for chunk in gathered(body):
        yield pb.PushFileRequest(chunk=chunk)


def _end(total_bytes: int) -> pb.PushFileRequest:
    return pb.PushFileRequest(end=pb.FileEnd(total_bytes=total_bytes))


async def _file_of(stream: Any) -> pb.GuestFile:
    first: pb.PullFileResponse | None = None
    try:
        first = await next_of(CONTROLLER, stream, idle_s=_PULL_IDLE_S)
    finally:
        if first is None or not first.HasField("file"):
            stream.cancel()
    if first is None or not first.HasField("file"):
        raise PeerUnavailableError(CONTROLLER.absence, CONTROLLER.name, "a file without a beginning")
    file: pb.GuestFile = first.file
    return file


async def _bytes(stream: Any) -> AsyncGenerator[bytes, None]:
    try:
        while (message := await next_of(CONTROLLER, stream, idle_s=_PULL_IDLE_S)) is not None:
            if message.chunk:
                yield message.chunk
    finally:
        stream.cancel()
