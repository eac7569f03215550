"""InstanceService: instances for gRPC clients and the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2 as pb

from controller.domain.condition import ConditionType
from controller.domain.console import ConsoleWish
from controller.domain.lifecycle import Verb
from controller.instances.console_reading import ConsoleReading
from controller.instances.consoles import Consoles
from controller.instances.guests import Guests
from controller.instances.importing import Importing
from controller.instances.launching import Launching
from controller.instances.queries import MAX_WAIT_S, Queries
from controller.instances.updating import Updating
from controller.instances.verbs import Verbs, command, delete_verb, stop_verb
from controller.policies.leases import Leases
from controller.records.instance_pages import token_after
from controller.records.readiness_documents import duration_text
from controller.servicers.convert import console_message, instance_message, time_message
from controller.servicers.guest_calls import GuestCalls
from controller.servicers.operation_messages import mutation_message
from controller.servicers.requests import (
    exec_request,
    instance_filter,
    launch_wish,
    options_of,
    patch_of,
    stop_grace,
    wait_seconds,
)

_WAIT_S: Final = 60.0
# gRPC takes messages of 4 MiB unless told otherwise.
_MOST_PAGE_BYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceParts:
    """What the servicer hands requests to."""

    queries: Queries
    importing: Importing
    launching: Launching
    verbs: Verbs
    updating: Updating
    guests: Guests
    consoles: Consoles
    console_reading: ConsoleReading
    leases: Leases
    stop_timeout_s: float
    readiness_deadline_s: float


class InstanceServicer(GuestCalls):
    """Reads requests, hands them on, writes answers; errors pass through to the service's one table."""

    def __init__(self, parts: InstanceParts) -> None:
        super().__init__(parts.guests, parts.consoles)
        self._parts = parts

    async def LaunchInstance(
        self, request: pb.LaunchInstanceRequest, context: Any
    ) -> pb.LaunchInstanceResponse:
        # In a thread: it may have to read half a mebibyte of YAML.
        wish, faults = await asyncio.to_thread(launch_wish, request, self._parts.readiness_deadline_s)
        if not request.validate_only:
            mutated = await self._parts.launching.launch(wish, faults, options_of(request, request.options))
            return pb.LaunchInstanceResponse(mutation=mutation_message(mutated))
        preview = await self._parts.launching.preview(wish, faults)
        plan = pb.LaunchPlan(
            instance=instance_message(preview.instance),
            node=preview.instance.node,
            accelerator=preview.machine.accelerator,
            steps=preview.steps,
            qemu_argv=preview.machine.qemu_argv,
            warnings=preview.machine.warnings,
        )
        return pb.LaunchInstanceResponse(plan=plan)

    async def ImportInstance(
        self, request: pb.ImportInstanceRequest, context: Any
    ) -> pb.ImportInstanceResponse:
        mutated = await self._parts.importing.take(
            request.node, request.id, request.name, options_of(request, request.options)
        )
        return pb.ImportInstanceResponse(mutation=mutation_message(mutated))

    async def GetInstance(self, request: pb.GetInstanceRequest, context: Any) -> pb.GetInstanceResponse:
        found = await self._parts.queries.get(request.name)
        return pb.GetInstanceResponse(instance=instance_message(found))

    async def ListInstances(self, request: pb.ListInstancesRequest, context: Any) -> pb.ListInstancesResponse:
        chosen = instance_filter(request)
        page = await self._parts.queries.list(chosen, request.page_size, request.page_token)
        answer = pb.ListInstancesResponse(next_page_token=page.next_page_token)
        size_bytes = 0
        for instance in page.instances:
            message = instance_message(instance)
            size_bytes += message.ByteSize()
            if answer.instances and size_bytes > _MOST_PAGE_BYTES:
                answer.next_page_token = token_after(answer.instances[-1].name, chosen)
                break
            answer.instances.append(message)
        return answer

    async def UpdateInstance(
        self, request: pb.UpdateInstanceRequest, context: Any
    ) -> pb.UpdateInstanceResponse:
        patch = await asyncio.to_thread(patch_of, request)
        mutated = await self._parts.updating.update(patch, options_of(request, request.options))
        return pb.UpdateInstanceResponse(mutation=mutation_message(mutated), notes=patch.notes(mutated))

    async def StartInstance(self, request: pb.StartInstanceRequest, context: Any) -> pb.StartInstanceResponse:
        return pb.StartInstanceResponse(mutation=await self._simple(request, Verb.START))

    async def StopInstance(self, request: pb.StopInstanceRequest, context: Any) -> pb.StopInstanceResponse:
        verb = stop_verb(force=request.force)
        return pb.StopInstanceResponse(mutation=await self._powering_down(request, verb))

    async def RestartInstance(
        self, request: pb.RestartInstanceRequest, context: Any
    ) -> pb.RestartInstanceResponse:
        return pb.RestartInstanceResponse(mutation=await self._powering_down(request, Verb.RESTART))

    async def PauseInstance(self, request: pb.PauseInstanceRequest, context: Any) -> pb.PauseInstanceResponse:
        return pb.PauseInstanceResponse(mutation=await self._simple(request, Verb.PAUSE))

    async def ResumeInstance(
        self, request: pb.ResumeInstanceRequest, context: Any
    ) -> pb.ResumeInstanceResponse:
        return pb.ResumeInstanceResponse(mutation=await self._simple(request, Verb.RESUME))

    async def ResetInstance(self, request: pb.ResetInstanceRequest, context: Any) -> pb.ResetInstanceResponse:
        return pb.ResetInstanceResponse(mutation=await self._simple(request, Verb.RESET))

    async def DeleteInstance(
        self, request: pb.DeleteInstanceRequest, context: Any
    ) -> pb.DeleteInstanceResponse:
        verb = delete_verb(force=request.force)
        return pb.DeleteInstanceResponse(mutation=await self._simple(request, verb))

    async def WaitInstance(self, request: pb.WaitInstanceRequest, context: Any) -> pb.WaitInstanceResponse:
        timeout_s = wait_seconds(request.timeout, _WAIT_S, MAX_WAIT_S)
        condition = request.condition or ConditionType.READY.value
        instance = await self._parts.queries.wait(request.name, condition, timeout_s)
        return pb.WaitInstanceResponse(instance=instance_message(instance))

    async def ReadConsole(
        self, request: pb.ReadConsoleRequest, context: Any
    ) -> AsyncIterator[pb.ReadConsoleResponse]:
        wish = ConsoleWish(
            request.offset, request.length, follow=request.follow, timestamps=request.timestamps
        )
        # Closed at once when the caller hangs up: the runner counts who follows.
        async with aclosing(self._parts.console_reading.read(request.name, wish)) as pieces:
            async for piece in pieces:
                yield console_message(piece)

    async def ExecInstance(self, request: pb.ExecInstanceRequest, context: Any) -> pb.ExecInstanceResponse:
        wanted, faults = exec_request(request)
        result = await self._parts.guests.execute(request.name, wanted, faults)
        return pb.ExecInstanceResponse(
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
            truncated=result.truncated,
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:
        lease = await self._parts.leases.renew(request.name)
        return pb.RenewLeaseResponse(
            lease=duration_text(lease.duration_s), expire_time=time_message(lease.expire_time)
        )

    async def HoldLease(
        self, request: pb.HoldLeaseRequest, context: Any
    ) -> AsyncIterator[pb.HoldLeaseResponse]:
        async for lease in self._parts.leases.hold(request.name):
            yield pb.HoldLeaseResponse(
                lease=duration_text(lease.duration_s), expire_time=time_message(lease.expire_time)
            )

    async def _simple(
        self,
        request: pb.StartInstanceRequest
        | pb.PauseInstanceRequest
        | pb.ResumeInstanceRequest
        | pb.ResetInstanceRequest
        | pb.DeleteInstanceRequest,
        verb: Verb,
    ) -> pb.Mutation:
        mutated = await self._parts.verbs.accept(
            command(request.name, verb), options_of(request, request.options)
        )
        return mutation_message(mutated)

    async def _powering_down(
        self, request: pb.StopInstanceRequest | pb.RestartInstanceRequest, verb: Verb
    ) -> pb.Mutation:
        grace_s, faults = stop_grace(request.timeout, self._parts.stop_timeout_s)
        mutated = await self._parts.verbs.accept(
            command(request.name, verb, grace_s=grace_s, faults=faults),
            options_of(request, request.options),
        )
        return mutation_message(mutated)
