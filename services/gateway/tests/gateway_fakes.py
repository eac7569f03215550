"""Fake controller and image store behind a real gRPC server, and the gateway before them."""

# ruff: noqa: N802 - gRPC names its methods so

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
from gateway.app import rest_app
from gateway.backends import Backends, backends
from gateway.contract import Contract, load_contract
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import console_pb2, host_pb2, image_import_pb2, instance_pb2, operation_pb2
from qcontroller.controller.v1.host_pb2_grpc import (
    EventServiceServicer,
    NodeServiceServicer,
    add_EventServiceServicer_to_server,
    add_NodeServiceServicer_to_server,
)
from qcontroller.controller.v1.image_import_pb2_grpc import (
    ImageImportServiceServicer,
    add_ImageImportServiceServicer_to_server,
)
from qcontroller.controller.v1.instance_pb2_grpc import (
    InstanceServiceServicer,
    add_InstanceServiceServicer_to_server,
)
from qcontroller.controller.v1.operation_pb2_grpc import (
    OperationServiceServicer,
    add_OperationServiceServicer_to_server,
)
from qcontroller.event.v1.event_pb2 import Event
from qcontroller.image.v1 import image_pb2
from qcontroller.image.v1.image_pb2_grpc import ImageServiceServicer, add_ImageServiceServicer_to_server
from qcontroller.settings.v1.settings_pb2 import GatewaySettings
from servicekit.health import Health
from servicekit.rpc_errors import RpcProblem, Violation
from servicekit.server import grpc_server

NOW = Timestamp(seconds=1_767_225_600)
DIGEST = "sha256:" + "ab" * 32


def instance(name: str = "web-1", *, generation: int = 3, revision: int = 17) -> instance_pb2.Instance:
    """Return a running instance."""
    return instance_pb2.Instance(
        name=name,
        id="7d0c3f5e-2a41-4c8b-9f0e-3b1d5a6c7e80",
        image="debian-12",
        image_digest=DIGEST,
        vm=instance_pb2.VmResources(cpus=2, memory=2048, disk=10240),
        labels={"team": "web"},
        desired_power=instance_pb2.DESIRED_POWER_RUNNING,
        generation=generation,
        create_time=NOW,
        arch="x86_64",
        readiness=instance_pb2.Readiness(
            all=[instance_pb2.Probe(agent=instance_pb2.AgentProbe())], deadline="180s"
        ),
        etag=f"{generation}-{revision}",
        restart_policy="never",
        on_expire="delete",
        status=instance_pb2.InstanceStatus(
            state=instance_pb2.INSTANCE_STATE_RUNNING,
            observed_generation=generation,
            node="node-1",
            accelerator="tcg",
            nics=[
                instance_pb2.NicStatus(
                    network="user",
                    mac="52:54:00:00:00:01",
                    addresses=[instance_pb2.NicAddress(address="10.77.0.15", family="ipv4", source="user")],
                    ports=[
                        instance_pb2.PortMapping(host=2222, guest=22, protocol="tcp", address="127.0.0.1")
                    ],
                )
            ],
            conditions=[
                instance_pb2.Condition(
                    type="Ready",
                    status=instance_pb2.CONDITION_STATUS_TRUE,
                    reason="ProbesHold",
                    last_transition_time=NOW,
                )
            ],
            guest=instance_pb2.GuestInfo(hostname=name, os=instance_pb2.GuestOs(id="debian")),
            boot_phases=[instance_pb2.BootPhase(name="kernel", start_time=NOW, duration_ms=900)],
            cloud_init=instance_pb2.CloudInitStatus(
                state="error",
                datasource="DataSourceNoCloud",
                stages=[instance_pb2.CloudInitStage(name="init", start_time=NOW, finish_time=NOW)],
                errors=["('runcmd', RuntimeError())"],
                failed_modules=["runcmd"],
                warnings=["WARNING: cloud-config failed schema validation!"],
                schema_errors=["write_files.0: unexpected contnt"],
            ),
        ),
    )


def guest_report() -> instance_pb2.GuestReport:
    """Return what a guest tells that has everything but sizes of one filesystem."""
    return instance_pb2.GuestReport(
        time=NOW,
        agent_version="7.2.22",
        hostname="web-1",
        os=instance_pb2.GuestOs(id="debian"),
        time_zone=instance_pb2.GuestTimeZone(name="CET", offset_seconds=3600),
        interfaces=[
            instance_pb2.GuestInterface(
                name="eth0",
                mac="52:54:00:00:00:01",
                addresses=[instance_pb2.NicAddress(address="fe80::1", family="ipv6", source="agent")],
            )
        ],
        users=[instance_pb2.GuestUser(name="ada", login_time=NOW)],
        filesystems=[
            instance_pb2.GuestFilesystem(
                mountpoint="/", device="vda1", type="ext4", total_bytes=2**40, used_bytes=0
            ),
            instance_pb2.GuestFilesystem(mountpoint="/mnt", device="vdb", type="iso9660"),
        ],
        load=instance_pb2.GuestLoad(one_minute=0.5, five_minutes=0.25, fifteen_minutes=0),
        memory=instance_pb2.GuestMemory(source="balloon", total_bytes=2**31),
    )


def told(**news: Any) -> instance_pb2.AttachConsoleResponse:
    """Return what a console's viewer is told."""
    return instance_pb2.AttachConsoleResponse(news=console_pb2.ConsoleNews(**news))


def guest_file(path: str, content: bytes) -> instance_pb2.GuestFile:
    """Return a file that is in a guest."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return instance_pb2.GuestFile(
        path=path, size_bytes=len(content), digest=digest, mode="0644", owner="root:root"
    )


def operation(kind: str = "launch", state: int = operation_pb2.OPERATION_STATE_RUNNING) -> Any:
    """Return an operation on web-1."""
    return operation_pb2.Operation(
        id="op-1",
        kind=kind,
        instance="web-1",
        initiator="user",
        state=state,  # type: ignore[arg-type]
        stages=[
            operation_pb2.Stage(
                name="image", state=operation_pb2.STAGE_STATE_SUCCEEDED, start_time=NOW, duration_ms=12
            )
        ],
        progress=operation_pb2.Progress(done=1, total=4, unit="steps"),
        result="/v1/instances/web-1",
        create_time=NOW,
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )


def image(name: str = "debian-12", content: bytes = b"") -> image_pb2.Image:
    """Return a ready image."""
    return image_pb2.Image(
        name=name,
        digest="sha256:" + hashlib.sha256(content).hexdigest(),
        stored_digest="sha256:" + hashlib.sha256(content).hexdigest(),
        format="qcow2",
        state=image_pb2.IMAGE_STATE_READY,
        size_bytes=len(content),
        virtual_size_bytes=1 << 40,
        arch="x86_64",
        create_time=NOW,
        used_by=["web-1"],
        etag="i7",
    )


@dataclass
class FakeController(
    InstanceServiceServicer,
    OperationServiceServicer,
    EventServiceServicer,
    NodeServiceServicer,
    ImageImportServiceServicer,
):
    """Remembers requests; answers what the test set, by method name, or something plausible."""

    requests: list[Any] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    console: bytes = b"Linux\nlogin: "
    console_kept: int = 0
    skipped: int = 0
    printed: "asyncio.Queue[bytes | Exception | None]" = field(default_factory=asyncio.Queue)
    readers_gone: asyncio.Event = field(default_factory=asyncio.Event)
    events: "asyncio.Queue[Event | None]" = field(default_factory=asyncio.Queue)
    watchers_gone: asyncio.Event = field(default_factory=asyncio.Event)
    lease_ends: "asyncio.Queue[Exception | None]" = field(default_factory=asyncio.Queue)
    holders_gone: asyncio.Event = field(default_factory=asyncio.Event)
    files: dict[str, bytes] = field(default_factory=dict)
    listeners_gone: asyncio.Event = field(default_factory=asyncio.Event)
    pushes_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def last(self, kind: type[Any]) -> Any:
        """Return the latest request of a message type."""
        return [request for request in self.requests if isinstance(request, kind)][-1]

    def answer(self, method: str, request: Any, default: Callable[[], Any]) -> Any:
        self.requests.append(request)
        answer = self.answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else default()

    async def LaunchInstance(self, request: Any, context: Any) -> Any:
        mutation = instance_pb2.Mutation(operation=operation(), instance=instance(request.name))
        return self.answer("Launch", request, lambda: instance_pb2.LaunchInstanceResponse(mutation=mutation))

    async def ImportInstance(self, request: Any, context: Any) -> Any:
        mutation = instance_pb2.Mutation(operation=operation("import"), instance=instance())
        return self.answer("Import", request, lambda: instance_pb2.ImportInstanceResponse(mutation=mutation))

    async def ImportImage(self, request: Any, context: Any) -> Any:
        answer = image_import_pb2.ImportImageResponse(operation=operation("import-image"))
        return self.answer("ImportImage", request, lambda: answer)

    async def GetInstance(self, request: Any, context: Any) -> Any:
        if request.name == "absent":
            raise not_found(request.name)
        return self.answer(
            "Get", request, lambda: instance_pb2.GetInstanceResponse(instance=instance(request.name))
        )

    async def ListInstances(self, request: Any, context: Any) -> Any:
        return self.answer(
            "List",
            request,
            lambda: instance_pb2.ListInstancesResponse(instances=[instance()], next_page_token="t2"),
        )

    async def UpdateInstance(self, request: Any, context: Any) -> Any:
        mutation = instance_pb2.Mutation(instance=instance(request.name))
        return self.answer("Update", request, lambda: instance_pb2.UpdateInstanceResponse(mutation=mutation))

    async def DeleteInstance(self, request: Any, context: Any) -> Any:
        mutation = instance_pb2.Mutation(operation=operation("delete"))
        return self.answer("Delete", request, lambda: instance_pb2.DeleteInstanceResponse(mutation=mutation))

    async def StartInstance(self, request: Any, context: Any) -> Any:
        return self._verb("Start", request)

    async def StopInstance(self, request: Any, context: Any) -> Any:
        return self._verb("Stop", request)

    async def RestartInstance(self, request: Any, context: Any) -> Any:
        return self._verb("Restart", request)

    async def PauseInstance(self, request: Any, context: Any) -> Any:
        return self._verb("Pause", request)

    async def ResumeInstance(self, request: Any, context: Any) -> Any:
        return self._verb("Resume", request)

    async def ResetInstance(self, request: Any, context: Any) -> Any:
        return self._verb("Reset", request)

    def _verb(self, name: str, request: Any) -> Any:
        response = getattr(instance_pb2, f"{name}InstanceResponse")
        mutation = instance_pb2.Mutation(operation=operation(name.lower()), instance=instance(request.name))
        return self.answer(name, request, lambda: response(mutation=mutation))

    async def WaitInstance(self, request: Any, context: Any) -> Any:
        return self.answer("Wait", request, lambda: instance_pb2.WaitInstanceResponse(instance=instance()))

    async def ExecInstance(self, request: Any, context: Any) -> Any:
        return self.answer(
            "Exec", request, lambda: instance_pb2.ExecInstanceResponse(stdout=b"Linux\n", stderr=b"\xff")
        )

    async def GetGuest(self, request: Any, context: Any) -> Any:
        if request.name == "absent":
            raise not_found(request.name)
        return self.answer("GetGuest", request, lambda: instance_pb2.GetGuestResponse(guest=guest_report()))

    async def StreamExec(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.answer("StreamExec", request, lambda: request)
        try:
            yield instance_pb2.StreamExecResponse()
            yield instance_pb2.StreamExecResponse(stdout="grüße\n".encode())
            if request.argv[0] == "endless":
                await asyncio.Event().wait()
            yield instance_pb2.StreamExecResponse(stderr=b"\xff")
            end = instance_pb2.ExecEnd(exit_code=3, truncated=True)
            yield instance_pb2.StreamExecResponse(end=end)
        finally:
            self.listeners_gone.set()

    async def AttachConsole(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        first = await anext(request_iterator)
        self.answer("AttachConsole", first.attach, lambda: first)
        try:
            opened = console_pb2.ConsoleOpened(
                offset=first.attach.viewer.offset, label="viewer 1", end_offset=first.attach.viewer.offset
            )
            yield told(opened=opened)
            yield told(role=console_pb2.ConsoleRole(writer=first.attach.viewer.write, since=NOW))
            async for request in request_iterator:
                self.requests.append(request.command)
                match request.command.WhichOneof("part"):
                    case "input" if request.command.input == b"poweroff\n":
                        end = console_pb2.ConsoleEnd(reason="GUEST_SHUTDOWN", offset=9)
                        yield told(end=end)
                        return
                    case "input" if request.command.input == b"crash":
                        raise RpcProblem(grpc.StatusCode.UNAVAILABLE, "RUNNER_UNAVAILABLE", "It is away.")
                    case "input":
                        yield told(output=request.command.input)
                    case "resize":
                        size = request.command.resize
                        yield told(resized=console_pb2.ConsoleResized(columns=size.columns, rows=size.rows))
                    case "role":
                        yield told(role=console_pb2.ConsoleRole(writer=request.command.role.take))
        finally:
            self.listeners_gone.set()

    async def PushFile(self, request_iterator: Any, context: Any) -> Any:
        content, whole, push = b"", False, None
        try:
            async for message in request_iterator:
                match message.WhichOneof("part"):
                    case "push":
                        push = message.push
                        self.answer("PushFile", push, instance_pb2.PushFileResponse)
                    case "chunk":
                        content += message.chunk
                    case "end":
                        whole = message.end.total_bytes == len(content)
        finally:
            self.pushes_ended.set()
        if push is None or not whole:
            raise RpcProblem(grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_TRUNCATED", "It broke off.")
        self.files[push.path] = content
        return instance_pb2.PushFileResponse(file=guest_file(push.path, content))

    async def PullFile(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.answer("PullFile", request, lambda: request)
        content = self.files[request.path]
        yield instance_pb2.PullFileResponse(file=guest_file(request.path, content))
        for at in range(0, len(content), 2**16):
            yield instance_pb2.PullFileResponse(chunk=content[at : at + 2**16])

    async def SetGuestPassword(self, request: Any, context: Any) -> Any:
        return self.answer("SetGuestPassword", request, instance_pb2.SetGuestPasswordResponse)

    async def AuthoriseSshKeys(self, request: Any, context: Any) -> Any:
        return self.answer("AuthoriseSshKeys", request, instance_pb2.AuthoriseSshKeysResponse)

    async def FreezeGuest(self, request: Any, context: Any) -> Any:
        frozen = instance_pb2.FreezeGuestResponse(filesystems=2, thaw_time=NOW)
        return self.answer("FreezeGuest", request, lambda: frozen)

    async def ThawGuest(self, request: Any, context: Any) -> Any:
        return self.answer("ThawGuest", request, lambda: instance_pb2.ThawGuestResponse(filesystems=2))

    async def ReadConsole(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        if request.name == "absent":
            raise not_found(request.name)
        if isinstance(refusal := self.answers.get("ReadConsole"), Exception):
            raise refusal
        total, kept = len(self.console), self.console_kept
        start = request.offset if request.offset >= 0 else max(total + request.offset, 0)
        end = min(start + request.length if request.length else total, total)
        start = max(min(start, total), kept)
        told: dict[str, Any] = {"total_bytes": total, "first_kept": kept}
        if request.timestamps:
            told["times"] = [
                instance_pb2.ConsoleTime(end=6, time=NOW),
                instance_pb2.ConsoleTime(end=99, time=NOW, approximate=True),
            ]
        try:
            for at in range(start, end, 4):
                yield instance_pb2.ReadConsoleResponse(
                    chunk=self.console[at : min(at + 4, end)], offset=at, **told
                )
            if start >= end:
                yield instance_pb2.ReadConsoleResponse(offset=start, **told)
            while request.follow and (more := await self.printed.get()) is not None:
                if isinstance(more, Exception):
                    raise more
                end += self.skipped
                yield instance_pb2.ReadConsoleResponse(chunk=more, offset=end, **told)
                end += len(more)
        finally:
            self.readers_gone.set()

    async def RenewLease(self, request: Any, context: Any) -> Any:
        term = instance_pb2.RenewLeaseResponse(lease="60s", expire_time=NOW)
        return self.answer("RenewLease", request, lambda: term)

    async def HoldLease(self, request: Any, context: Any) -> AsyncIterator[Any]:
        term = instance_pb2.HoldLeaseResponse(lease="60s", expire_time=NOW)
        yield self.answer("HoldLease", request, lambda: term)
        try:
            end = await self.lease_ends.get()
            if end is not None:
                raise end
        finally:
            self.holders_gone.set()

    async def GetOperation(self, request: Any, context: Any) -> Any:
        return self.answer(
            "GetOperation", request, lambda: operation_pb2.GetOperationResponse(operation=operation())
        )

    async def ListOperations(self, request: Any, context: Any) -> Any:
        return self.answer(
            "ListOperations", request, lambda: operation_pb2.ListOperationsResponse(operations=[operation()])
        )

    async def CancelOperation(self, request: Any, context: Any) -> Any:
        return self.answer(
            "Cancel", request, lambda: operation_pb2.CancelOperationResponse(operation=operation())
        )

    async def WaitOperation(self, request: Any, context: Any) -> Any:
        done = operation(state=operation_pb2.OPERATION_STATE_SUCCEEDED)
        return self.answer(
            "WaitOperation", request, lambda: operation_pb2.WaitOperationResponse(operation=done)
        )

    async def GetOperationBundle(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.answer("GetOperationBundle", request, lambda: request)
        for chunk in (b"\x1f\x8b", b"the rest"):
            yield operation_pb2.GetOperationBundleResponse(chunk=chunk)

    async def ListNodes(self, request: Any, context: Any) -> Any:
        return host_pb2.ListNodesResponse(nodes=[node()])

    async def GetNode(self, request: Any, context: Any) -> Any:
        return self.answer("GetNode", request, lambda: host_pb2.GetNodeResponse(node=node()))

    async def ListLeaks(self, request: Any, context: Any) -> Any:
        leak = host_pb2.Leak(kind="tap", name="qct0", owner="qcontroller", since=NOW)
        return host_pb2.ListLeaksResponse(leaks=[leak])

    async def ListOrphans(self, request: Any, context: Any) -> Any:
        orphan = host_pb2.Orphan(
            id="7d0c0c0c-0000-4000-8000-000000000000",
            name="web-1",
            running=True,
            since=NOW,
            size_bytes=2**33,
            reason="OTHER_DATABASE",
            message="It was made under another database of a controller.",
            importable=True,
        )
        return self.answer("ListOrphans", request, lambda: host_pb2.ListOrphansResponse(orphans=[orphan]))

    async def DeleteOrphan(self, request: Any, context: Any) -> Any:
        mutation = instance_pb2.Mutation(operation=operation("discard"))
        return self.answer("DeleteOrphan", request, lambda: host_pb2.DeleteOrphanResponse(mutation=mutation))

    async def RunDoctor(self, request: Any, context: Any) -> Any:
        check = host_pb2.Check(name="tun", status=host_pb2.CHECK_STATUS_WARN, detail="d", fix="f")
        return host_pb2.RunDoctorResponse(checks=[check])

    async def GetReadiness(self, request: Any, context: Any) -> Any:
        up = host_pb2.Dependency(name="image-store", up=True, since=NOW)
        return self.answer("Readiness", request, lambda: host_pb2.GetReadinessResponse(dependencies=[up]))

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        answer = self.answers.get("WatchEvents")
        if isinstance(answer, Exception):
            raise answer
        try:
            await context.send_initial_metadata((("qcontroller-cursor", "start"),))
            while (event := await self.events.get()) is not None:
                yield host_pb2.WatchEventsResponse(event=event)
        finally:
            self.watchers_gone.set()


@dataclass
class FakeImageStore(ImageServiceServicer):
    """Keeps what was uploaded whole; refuses what does not begin with QFI."""

    images: dict[str, bytes] = field(default_factory=dict)
    uploads: list[Any] = field(default_factory=list)
    largest_chunk: int = 0
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    async def UploadImage(self, request_iterator: Any, context: Any) -> Any:
        content = bytearray()
        name = ""
        whole = False
        try:
            async for message in request_iterator:
                match message.WhichOneof("part"):
                    case "upload":
                        self.uploads.append(message.upload)
                        name = message.upload.name
                    case "chunk":
                        self.largest_chunk = max(self.largest_chunk, len(message.chunk))
                        content += message.chunk
                        if not content.startswith(b"QFI"):
                            raise unsafe()
                    case "name":
                        name = message.name
                    case "end":
                        whole = message.end.total_bytes == len(content)
        except asyncio.CancelledError:
            self.broken.set()
            raise
        if not whole:  # a cancelled call may end the stream as if it were whole
            self.broken.set()
            raise RpcProblem(grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_TRUNCATED", "It broke off.")
        if name.isupper():
            raise RpcProblem(
                grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "No.", {}, (Violation("/name", "is loud"),)
            )
        created = name not in self.images
        self.images[name] = bytes(content)
        return image_pb2.UploadImageResponse(image=image(name, bytes(content)), created=created)

    async def GetImage(self, request: Any, context: Any) -> Any:
        return image_pb2.GetImageResponse(image=image(request.name, self._content(request.name)))

    async def ListImages(self, request: Any, context: Any) -> Any:
        return image_pb2.ListImagesResponse(images=[image(name) for name in sorted(self.images)])

    async def DeleteImage(self, request: Any, context: Any) -> Any:
        self._content(request.name)
        del self.images[request.name]
        return image_pb2.DeleteImageResponse()

    async def DownloadImage(self, request: Any, context: Any) -> AsyncIterator[Any]:
        content = self._content(request.name)
        end = request.offset + request.length if request.length else len(content)
        yield image_pb2.DownloadImageResponse(image=image(request.name, content))
        for at in range(request.offset, end, 3):
            yield image_pb2.DownloadImageResponse(chunk=content[at : min(at + 3, end)])

    def _content(self, name: str) -> bytes:
        if name not in self.images:
            raise RpcProblem(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", f"There is no image {name}.")
        return self.images[name]


def node() -> host_pb2.Node:
    """Return a node without hardware virtualisation."""
    return host_pb2.Node(
        name="node-1",
        state=host_pb2.NODE_STATE_READY,
        arch="x86_64",
        qemu_version="7.2.22",
        accelerators=[host_pb2.Accelerator(name="kvm", usable=False, reason="no vmx")],
        accelerator="tcg",
        speed_factor=0.5,
        cpus=host_pb2.CpuCapacity(total=2),
        memory=host_pb2.MemoryCapacity(total=24000),
        disk=host_pb2.DiskCapacity(total=80000, free=52000),
        vm_hosts=[
            host_pb2.VmHost(
                name="vm-host",
                generation="1",
                qemu_version="7.2.22",
                state=host_pb2.NODE_STATE_READY,
                since=NOW,
            )
        ],
    )


def not_found(name: str) -> RpcProblem:
    """Return the controller's refusal of a name."""
    return RpcProblem(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", f"There is no instance {name}.")


def unsafe() -> RpcProblem:
    """Return the image store's refusal of bytes."""
    return RpcProblem(
        grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNSAFE", "It has a backing file.", {"rule": "backing-file"}
    )


def event(cursor: str, kind: str = "instance.updated") -> Event:
    """Return one event with a resource."""
    resource = Struct()
    resource.update({"name": "web-1", "vm": {"cpus": 2}, "speed": 0.5})
    return Event(cursor=cursor, time=NOW, type=kind, instance="web-1", operation="op-1", resource=resource)


def gap(cursor: str) -> Event:
    """Return the end of a watch that was too slow."""
    why = Struct()
    why.update({"reason": "READER_TOO_SLOW", "detail": "Too slow."})
    return Event(cursor=cursor, time=NOW, type="stream.gap", resource=why)


@dataclass
class Stand:
    """The gateway with its fakes."""

    app: Any
    controller: FakeController
    store: FakeImageStore
    peers: Backends
    closing: asyncio.Event
    health: Health


@asynccontextmanager
async def stand(
    folder: Path, *, settings: GatewaySettings | None = None, heartbeat_s: float = 15.0
) -> AsyncIterator[Stand]:
    """Serve fakes on a unix socket in `folder` and build the gateway before them."""
    controller, store = FakeController(), FakeImageStore()
    target = f"unix:{folder}/peer.sock"
    services = [
        ("controller", lambda server: _add_controller(controller, server)),
        ("images", lambda server: add_ImageServiceServicer_to_server(store, server)),
    ]
    registry = CollectorRegistry()
    contract = _contract()
    closing = asyncio.Event()
    async with (
        grpc_server(
            [target], services=services, translate=lambda exc: None, registry=CollectorRegistry()
        ) as health,
        backends(target, target) as peers,
    ):
        # The document is validated by a test of its own, not again for every other one.
        with patch("connexion.spec.OpenAPISpecification._validate_spec"):
            app = rest_app(
                settings or GatewaySettings(), contract, peers, registry, closing, heartbeat_s=heartbeat_s
            )
        yield Stand(app, controller, store, peers, closing, health)


@cache
def _contract() -> Contract:
    return load_contract()


def _add_controller(controller: FakeController, server: grpc.aio.Server) -> None:
    add_InstanceServiceServicer_to_server(controller, server)
    add_OperationServiceServicer_to_server(controller, server)
    add_ImageImportServiceServicer_to_server(controller, server)
    add_EventServiceServicer_to_server(controller, server)
    add_NodeServiceServicer_to_server(controller, server)
