"""`InstanceService`: what REST's /v1/instances does."""

# ruff: noqa: N802 - the contract's names

from collections.abc import AsyncIterator
from typing import Any

from opentelemetry import trace
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1.instance_pb2_grpc import InstanceServiceServicer

from controller.domain.lifecycle import Verb
from controller.instances.guests import Guests
from controller.instances.launching import Launching, LaunchPreview
from controller.instances.queries import MAX_WAIT_S, Queries
from controller.instances.submitting import Mutated
from controller.instances.updating import Updating
from controller.instances.verbs import Command, Verbs, delete_verb, stop_verb
from controller.servicers.convert import instance_message
from controller.servicers.operation_messages import operation_message
from controller.servicers.requests import (
    exec_request,
    instance_filter,
    launch_wish,
    options_of,
    patch_of,
    stop_grace,
    wait_seconds,
)
from controller.settings import Settings

_WAIT_S = 60.0


class InstanceServicer(InstanceServiceServicer):
    """Serves clients and the gateway."""

    def __init__(
        self,
        launching: Launching,
        verbs: Verbs,
        updating: Updating,
        queries: Queries,
        guests: Guests,
        settings: Settings,
    ) -> None:
        self._launching = launching
        self._verbs = verbs
        self._updating = updating
        self._queries = queries
        self._guests = guests
        self._settings = settings

    async def LaunchInstance(
        self, request: pb.LaunchInstanceRequest, context: object
    ) -> pb.LaunchInstanceResponse:
        """Create from an image, and start if asked to."""
        del context
        _name(request.name)
        wish, faults = launch_wish(request, self._settings.readiness_deadline_s)
        if request.validate_only:
            preview = await self._launching.preview(wish, faults)
            return pb.LaunchInstanceResponse(plan=_plan(preview))
        mutated = await self._launching.launch(wish, faults, options_of(request, request.options))
        return pb.LaunchInstanceResponse(mutation=_mutation(mutated))

    async def GetInstance(self, request: pb.GetInstanceRequest, context: object) -> pb.GetInstanceResponse:
        """Show one."""
        del context
        return pb.GetInstanceResponse(instance=instance_message(await self._queries.get(request.name)))

    async def ListInstances(
        self, request: pb.ListInstancesRequest, context: object
    ) -> pb.ListInstancesResponse:
        """Show a page."""
        del context
        chosen = instance_filter(request)
        page = await self._queries.list(chosen, request.page_size, request.page_token)
        return pb.ListInstancesResponse(
            instances=[instance_message(instance) for instance in page.instances],
            next_page_token=page.next_page_token,
        )

    async def UpdateInstance(
        self, request: pb.UpdateInstanceRequest, context: object
    ) -> pb.UpdateInstanceResponse:
        """Patch labels, resources, ports."""
        del context
        _name(request.name)
        patch = patch_of(request)
        mutated = await self._updating.update(patch, options_of(request, request.options))
        return pb.UpdateInstanceResponse(mutation=_mutation(mutated), notes=patch.notes)

    async def StartInstance(
        self, request: pb.StartInstanceRequest, context: object
    ) -> pb.StartInstanceResponse:
        """Power on."""
        del context
        return pb.StartInstanceResponse(
            mutation=await self._accept(request, Command(request.name, Verb.START))
        )

    async def StopInstance(self, request: pb.StopInstanceRequest, context: object) -> pb.StopInstanceResponse:
        """Power off."""
        del context
        command = self._stopping(request.name, stop_verb(force=request.force), request.timeout)
        return pb.StopInstanceResponse(mutation=await self._accept(request, command))

    async def RestartInstance(
        self, request: pb.RestartInstanceRequest, context: object
    ) -> pb.RestartInstanceResponse:
        """Power off, then on."""
        del context
        command = self._stopping(request.name, Verb.RESTART, request.timeout)
        return pb.RestartInstanceResponse(mutation=await self._accept(request, command))

    async def PauseInstance(
        self, request: pb.PauseInstanceRequest, context: object
    ) -> pb.PauseInstanceResponse:
        """Have the guest stand still."""
        del context
        return pb.PauseInstanceResponse(
            mutation=await self._accept(request, Command(request.name, Verb.PAUSE))
        )

    async def ResumeInstance(
        self, request: pb.ResumeInstanceRequest, context: object
    ) -> pb.ResumeInstanceResponse:
        """Have the guest go on."""
        del context
        return pb.ResumeInstanceResponse(
            mutation=await self._accept(request, Command(request.name, Verb.RESUME))
        )

    async def ResetInstance(
        self, request: pb.ResetInstanceRequest, context: object
    ) -> pb.ResetInstanceResponse:
        """Press the guest's reset button."""
        del context
        return pb.ResetInstanceResponse(
            mutation=await self._accept(request, Command(request.name, Verb.RESET))
        )

    async def DeleteInstance(
        self, request: pb.DeleteInstanceRequest, context: object
    ) -> pb.DeleteInstanceResponse:
        """Leave nothing of it."""
        del context
        command = Command(request.name, delete_verb(force=request.force))
        return pb.DeleteInstanceResponse(mutation=await self._accept(request, command))

    async def WaitInstance(self, request: pb.WaitInstanceRequest, context: object) -> pb.WaitInstanceResponse:
        """Answer as soon as a condition is true."""
        del context
        _name(request.name)
        timeout_s = wait_seconds(request.timeout, _WAIT_S, MAX_WAIT_S)
        instance = await self._queries.wait(request.name, request.condition or "Ready", timeout_s)
        return pb.WaitInstanceResponse(instance=instance_message(instance))

    async def ReadConsole(
        self, request: pb.ReadConsoleRequest, context: object
    ) -> AsyncIterator[pb.ReadConsoleResponse]:
        """Send the console log."""
        del context
        async for chunk in self._guests.read_console(request.name, request.offset, request.length):
            yield pb.ReadConsoleResponse(
                chunk=chunk.chunk, offset=chunk.offset, total_bytes=chunk.total_bytes
            )

    async def ExecInstance(self, request: pb.ExecInstanceRequest, context: object) -> pb.ExecInstanceResponse:
        """Run a program in the guest."""
        del context
        _name(request.name)
        program, faults = exec_request(request)
        result = await self._guests.execute(request.name, program, faults)
        return pb.ExecInstanceResponse(
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
            truncated=result.truncated,
        )

    def _stopping(self, name: str, verb: Verb, timeout: str) -> Command:
        grace_s, faults = stop_grace(timeout, self._settings.stop_timeout_s)
        return Command(name, verb, 0.0 if verb is Verb.FORCE_STOP else grace_s, tuple(faults))

    async def _accept(self, request: Any, command: Command) -> pb.Mutation:
        _name(command.name)
        return _mutation(await self._verbs.accept(command, options_of(request, request.options)))


def _name(name: str) -> None:
    trace.get_current_span().set_attribute("qcontroller.instance.name", name)


def _mutation(mutated: Mutated) -> pb.Mutation:
    mutation = pb.Mutation(replayed=mutated.replayed)
    if mutated.operation is not None:
        mutation.operation.CopyFrom(operation_message(mutated.operation))
    if mutated.instance is not None:
        mutation.instance.CopyFrom(instance_message(mutated.instance))
    return mutation


def _plan(preview: LaunchPreview) -> pb.LaunchPlan:
    return pb.LaunchPlan(
        instance=instance_message(preview.instance),
        node=preview.instance.node,
        accelerator=preview.machine.accelerator,
        steps=preview.steps,
        qemu_argv=preview.machine.qemu_argv,
        warnings=preview.machine.warnings,
    )
