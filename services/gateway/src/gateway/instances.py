"""Handlers of /v1/instances."""

from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.quantities import parse_duration_s
from starlette.responses import Response

from gateway.answers import json_response, output_document
from gateway.backends import CONTROLLER, DEADLINE_S, Backends, ask
from gateway.calls import Call
from gateway.convert import enum_value, to_json
from gateway.errors import Fault, PreconditionFailedError, RequestInvalidError
from gateway.mutations import Mutations
from gateway.preferences import MAX_WAIT_S, is_fresh
from gateway.requests import exec_request, launch_request, options_of, update_request

_EXEC_TIMEOUT_S: Final = 30.0
_WAIT_TIMEOUT: Final = "60"


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

    async def _get(self, name: str) -> pb.Instance:
        answer = await ask(CONTROLLER, self._stub.GetInstance, pb.GetInstanceRequest(name=name))
        return answer.instance

    async def _answer(self, call: Call, answer: Any) -> Response:
        return await self._mutations.answer(call, answer.mutation)
