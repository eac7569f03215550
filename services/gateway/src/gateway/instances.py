"""Handlers of /v1/instances."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.quantities import parse_duration_s
from starlette.responses import Response

from gateway.answers import StreamedBytes, json_response, output_document
from gateway.backends import CONTROLLER, DEADLINE_S, Backends, ask, next_of
from gateway.calls import Call
from gateway.convert import enum_value, to_json
from gateway.errors import Fault, PreconditionFailedError, RequestInvalidError
from gateway.mutations import Mutations
from gateway.preferences import MAX_WAIT_S, is_fresh, range_of
from gateway.requests import exec_request, launch_request, options_of, update_request

_EXEC_TIMEOUT_S: Final = 30.0
_WAIT_TIMEOUT: Final = "60"
_STREAM_IDLE_S: Final = 30.0


class Instances:
    """Virtual machines over HTTP."""

    def __init__(self, peers: Backends, mutations: Mutations) -> None:
        self._stub = peers.instances
        self._mutations = mutations

    async def precheck(self, call: Call) -> None:
        """Refuse what goes before faults of the body: an unknown instance, another generation.

        Raises:
            RemoteError: There is no such instance.
            PreconditionFailedError: If-Match names another generation.
        """
        instance = await self._get(call.name)
        wanted = call.if_match
        if wanted not in {"", "*"} and wanted.split("-")[0] != instance.etag.split("-")[0]:
            raise PreconditionFailedError(wanted, instance.etag)

    async def launch(self, call: Call) -> Response:
        """POST /v1/instances."""
        answer = await ask(CONTROLLER, self._stub.LaunchInstance, launch_request(call))
        if answer.HasField("plan"):
            return json_response(to_json(answer.plan))
        return await self._mutations.answer(call, answer.mutation)

    async def take(self, call: Call) -> Response:
        """POST /v1/instances/import."""
        body = call.body
        request = pb.ImportInstanceRequest(
            node=body["node"], id=body["id"], name=body.get("name", ""), options=options_of(call)
        )
        return await self._answer(call, await ask(CONTROLLER, self._stub.ImportInstance, request))

    async def list(self, call: Call) -> Response:
        """GET /v1/instances."""
        states = pb.DESCRIPTOR.enum_types_by_name["InstanceState"]
        request = pb.ListInstancesRequest(
            page_size=call.query.get("pageSize", 0),
            page_token=call.query.get("pageToken", ""),
            labels=call.query.get("label", ()),
            states=[enum_value(states, name) for name in call.query.get("state", ())],  # type: ignore[misc]
        )
        answer = await ask(CONTROLLER, self._stub.ListInstances, request)
        return json_response(to_json(answer))

    async def get(self, call: Call) -> Response:
        """GET /v1/instances/{name}."""
        instance = await self._get(call.name)
        headers = {"ETag": f'"{instance.etag}"'}
        known = call.request.headers.get("if-none-match")
        if known is not None and is_fresh(known, instance.etag):
            return Response(status_code=304, headers=headers)
        return json_response(to_json(instance), headers=headers)

    async def update(self, call: Call) -> Response:
        """PATCH /v1/instances/{name}."""
        answer = await ask(CONTROLLER, self._stub.UpdateInstance, update_request(call))
        return await self._mutations.answer(call, answer.mutation, notes=answer.notes)

    async def delete(self, call: Call) -> Response:
        """DELETE /v1/instances/{name}."""
        request = pb.DeleteInstanceRequest(
            name=call.name, force=call.query.get("force", False), options=options_of(call)
        )
        answer = await ask(CONTROLLER, self._stub.DeleteInstance, request)
        return await self._mutations.answer(call, answer.mutation)

    async def start(self, call: Call) -> Response:
        """POST …/start."""
        request = pb.StartInstanceRequest(name=call.name, options=options_of(call))
        return await self._answer(call, await ask(CONTROLLER, self._stub.StartInstance, request))

    async def stop(self, call: Call) -> Response:
        """POST …/stop."""
        request = pb.StopInstanceRequest(
            name=call.name,
            force=call.body.get("force", False),
            timeout=str(call.body.get("timeout", "")),
            options=options_of(call),
        )
        return await self._answer(call, await ask(CONTROLLER, self._stub.StopInstance, request))

    async def restart(self, call: Call) -> Response:
        """POST …/restart."""
        request = pb.RestartInstanceRequest(
            name=call.name, timeout=str(call.body.get("timeout", "")), options=options_of(call)
        )
        return await self._answer(call, await ask(CONTROLLER, self._stub.RestartInstance, request))

    async def pause(self, call: Call) -> Response:
        """POST …/pause."""
        request = pb.PauseInstanceRequest(name=call.name, options=options_of(call))
        return await self._answer(call, await ask(CONTROLLER, self._stub.PauseInstance, request))

    async def resume(self, call: Call) -> Response:
        """POST …/resume."""
        request = pb.ResumeInstanceRequest(name=call.name, options=options_of(call))
        return await self._answer(call, await ask(CONTROLLER, self._stub.ResumeInstance, request))

    async def reset(self, call: Call) -> Response:
        """POST …/reset."""
        request = pb.ResetInstanceRequest(name=call.name, options=options_of(call))
        return await self._answer(call, await ask(CONTROLLER, self._stub.ResetInstance, request))

    async def wait(self, call: Call) -> Response:
        """GET …/wait."""
        timeout = call.query.get("timeout", _WAIT_TIMEOUT)
        timeout_s = parse_duration_s(timeout)
        if timeout_s > MAX_WAIT_S:
            raise RequestInvalidError([Fault("/query/timeout", f"must be at most {MAX_WAIT_S} s")])
        request = pb.WaitInstanceRequest(
            name=call.name, condition=call.query.get("condition", "Ready"), timeout=timeout
        )
        answer = await ask(CONTROLLER, self._stub.WaitInstance, request, deadline_s=timeout_s + DEADLINE_S)
        return json_response(to_json(answer.instance), headers={"ETag": f'"{answer.instance.etag}"'})

    async def execute(self, call: Call) -> Response:
        """POST …/exec."""
        timeout = call.body.get("timeout")
        timeout_s = _EXEC_TIMEOUT_S if timeout is None else parse_duration_s(str(timeout))
        answer = await ask(
            CONTROLLER, self._stub.ExecInstance, exec_request(call), deadline_s=timeout_s + DEADLINE_S
        )
        document: dict[str, Any] = {"exitCode": answer.exit_code}
        document |= output_document("stdout", answer.stdout) | output_document("stderr", answer.stderr)
        return json_response({**document, "truncated": answer.truncated})

    async def console(self, call: Call) -> Response:
        """GET …/console: the whole log as it is now, its tail, or one range of it."""
        tail = call.query.get("tail", 0)
        wanted = call.request.headers.get("range", "")
        if wanted and not tail:
            # The size is needed before the range has a meaning; one byte tells it.
            probe = await self._console_size(call.name)
            span = range_of(wanted, probe)
            if span is not None:
                request = pb.ReadConsoleRequest(name=call.name, offset=span.first, length=span.length)
                source = self._console_bytes(await self._open_console(request))
                return StreamedBytes(
                    source,
                    status=206,
                    media_type="text/plain",
                    headers={"Content-Range": span.content_range, "Accept-Ranges": "bytes"},
                    length=span.length,
                )
        opened = await self._open_console(pb.ReadConsoleRequest(name=call.name, offset=-tail))
        return StreamedBytes(
            self._console_bytes(opened),
            status=200,
            media_type="text/plain",
            headers={"Accept-Ranges": "bytes"},
            length=None,
        )

    async def _get(self, name: str) -> pb.Instance:
        answer = await ask(CONTROLLER, self._stub.GetInstance, pb.GetInstanceRequest(name=name))
        return answer.instance

    async def _answer(self, call: Call, answer: Any) -> Response:
        return await self._mutations.answer(call, answer.mutation)

    async def _console_size(self, name: str) -> int:
        stream = self._stub.ReadConsole(pb.ReadConsoleRequest(name=name, offset=-1))
        try:
            first = await next_of(CONTROLLER, stream, idle_s=_STREAM_IDLE_S)
            return first.total_bytes if first is not None else 0
        finally:
            stream.cancel()

    async def _open_console(
        self, request: pb.ReadConsoleRequest
    ) -> tuple[Any, pb.ReadConsoleResponse | None]:
        """Return the stream and its first message, so that a refusal comes before the answer's head."""
        stream = self._stub.ReadConsole(request)
        return stream, await next_of(CONTROLLER, stream, idle_s=_STREAM_IDLE_S)

    async def _console_bytes(
        self, opened: tuple[Any, pb.ReadConsoleResponse | None]
    ) -> AsyncGenerator[bytes, None]:
        stream, message = opened
        try:
            while message is not None:
                if message.chunk:
                    yield message.chunk
                message = await next_of(CONTROLLER, stream, idle_s=_STREAM_IDLE_S)
        finally:
            stream.cancel()
