"""Requests of the contract as values of the domain; what cannot be read becomes faults, all of them."""

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message
from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.quantities import parse_size_mib

from controller.domain.fault import Fault
from controller.domain.first_boot import FirstBoot, FirstBootPatch
from controller.domain.guest import FileWish
from controller.domain.launch_spec import DEFAULT_MEMORY_MIB, LaunchWish, NicWish
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import ExecRequest, Port
from controller.domain.readiness import Readiness
from controller.domain.ssh_key import normal_key
from controller.errors import RequestInvalid
from controller.instances.submitting import Options
from controller.instances.updating import Patch, SeedPatch
from controller.probe_messages import probes_of
from controller.records.instance_pages import InstanceFilter
from controller.servicers.policy_requests import launch_policies, patch_policies
from controller.servicers.reading import Reading
from controller.servicers.seed_texts import network_faults, user_data_faults, user_data_remarks

_MAX_DEADLINE_S = 24 * 3600.0
_MAX_STOP_S = 3600.0
_MAX_EXEC_S = 600.0
_EXEC_S = 30.0
_MAX_FREEZE_S = 300.0
_FREEZE_S = 30.0


def options_of(request: Message, options: pb.MutationOptions) -> Options:
    """Return identity and precondition; the hash covers all of the request but its key."""
    bare = type(request)()
    bare.CopyFrom(request)
    inner = getattr(bare, "options", None)
    if isinstance(inner, pb.MutationOptions):
        inner.request_id = ""
    kind = request.DESCRIPTOR.full_name.encode()
    digest = hashlib.sha256(kind + b"\0" + bare.SerializeToString(deterministic=True)).hexdigest()
    return Options(options.request_id, digest, options.if_match)


def launch_wish(request: pb.LaunchInstanceRequest, deadline_s: float) -> tuple[LaunchWish, list[Fault]]:
    """Return what a launch asks for; `deadline_s` is the default of its readiness."""
    reading = Reading()
    user_data = _user_data(reading, request.cloud_init) or b""
    reading.faults += network_faults(request.cloud_init.network_config)
    first_boot = FirstBoot(
        tuple(normal_key(key) for key in request.ssh_keys), request.hostname, tuple(request.packages)
    )
    wish = LaunchWish(
        name=request.name,
        image=request.image,
        image_digest=request.image_digest,
        cpus=request.vm.cpus or 1,
        memory_mib=reading.quantity("/vm/memory", request.vm.memory, parse_size_mib, DEFAULT_MEMORY_MIB),
        disk_mib=reading.quantity("/vm/disk", request.vm.disk, parse_size_mib, 0),
        user_data=user_data,
        network_config=request.cloud_init.network_config,
        first_boot=first_boot,
        remarks=user_data_remarks(user_data, first_boot),
        start=request.start,
        labels=dict(request.labels),
        readiness=_readiness(reading, request.readiness, deadline_s),
        nics=tuple(NicWish(nic.network, nic.mac, nic.address) for nic in request.nics),
        ports=ports_of(request.ports),
        arch=request.arch,
        policies=launch_policies(reading, request),
    )
    return wish, reading.faults


def patch_of(request: pb.UpdateInstanceRequest) -> Patch:
    """Return what an update asks for."""
    reading = Reading()
    memory = (
        reading.quantity("/vm/memory", request.memory or "0", parse_size_mib, 0)
        if request.HasField("memory")
        else None
    )
    disk = (
        reading.quantity("/vm/disk", request.disk or "0", parse_size_mib, 0)
        if request.HasField("disk")
        else None
    )
    seed = _seed_patch(reading, request.cloud_init) if request.HasField("cloud_init") else None
    first_boot = FirstBootPatch(
        tuple(normal_key(key) for key in request.ssh_keys.items) if request.HasField("ssh_keys") else None,
        request.hostname if request.HasField("hostname") else None,
        tuple(request.packages.items) if request.HasField("packages") else None,
    )
    return Patch(
        name=request.name,
        labels=dict(request.labels),
        removed_labels=tuple(request.removed_labels),
        clear_labels=request.clear_labels,
        cpus=request.cpus if request.HasField("cpus") else None,
        memory_mib=memory,
        disk_mib=disk,
        ports=ports_of(request.ports.ports) if request.HasField("ports") else None,
        seed=seed,
        first_boot=first_boot,
        remarks=user_data_remarks((seed and seed.user_data) or b"", first_boot.over(FirstBoot())),
        policies=patch_policies(reading, request),
        # Last: what is read above finds them.
        faults=tuple(reading.faults),
    )


def exec_request(request: pb.ExecInstanceRequest | pb.StreamExecRequest) -> tuple[ExecRequest, list[Fault]]:
    """Return the program that is to run."""
    reading = Reading()
    timeout_s = reading.duration_s("/timeout", request.timeout, _EXEC_S, _MAX_EXEC_S)
    # The guest's exec(2) would end each string at a NUL and take the first "=" for the end of the name.
    for index, word in enumerate(request.argv):
        if "\0" in word:
            reading.faults.append(Fault(f"/argv/{index}", "must not contain NUL"))
    for name, value in request.env.items():
        pointer = "/env/" + name.replace("~", "~0").replace("/", "~1")
        if not name or "=" in name:
            reading.faults.append(Fault(pointer, 'the name of a variable is not empty and has no "="'))
        if "\0" in name + value:
            reading.faults.append(Fault(pointer, "must not contain NUL"))
    return ExecRequest(tuple(request.argv), dict(request.env), request.stdin, timeout_s), reading.faults


def file_wish(push: pb.FilePush) -> FileWish:
    """Return the file that is to be in the guest; whether it can be is the runner's to say."""
    return FileWish(push.path, push.mode, push.owner, push.digest)


def freeze_seconds(text: str) -> float:
    """Return how long a freeze may last.

    Raises:
        RequestInvalid: It cannot be read, or is too long.
    """
    reading = Reading()
    seconds = reading.duration_s("/timeout", text, _FREEZE_S, _MAX_FREEZE_S)
    if reading.faults:
        raise RequestInvalid(reading.faults)
    return seconds


def stop_grace(text: str, default_s: float) -> tuple[float, list[Fault]]:
    """Return how long the guest may take to power down."""
    reading = Reading()
    return reading.duration_s("/timeout", text, default_s, _MAX_STOP_S), reading.faults


def wait_seconds(text: str, default_s: float, most_s: float) -> float:
    """Return how long to wait.

    Raises:
        RequestInvalid: It cannot be read, or is too long.
    """
    reading = Reading()
    seconds = reading.duration_s("/query/timeout", text, default_s, most_s)
    if reading.faults:
        raise RequestInvalid(reading.faults)
    return seconds


def instance_filter(request: pb.ListInstancesRequest) -> InstanceFilter:
    """Return which instances are asked for.

    Raises:
        RequestInvalid: A label has no "=", or is asked for with two values.
    """
    faults: list[Fault] = []
    labels: dict[str, str] = {}
    for label in request.labels:
        key, equals, value = label.partition("=")
        if not equals or not key or labels.get(key, value) != value:
            faults.append(Fault("/query/label", f"{label!r} must be key=value, each key once"))
        labels[key] = value
    states = {pb.InstanceState.Name(state).removeprefix("INSTANCE_STATE_") for state in request.states}
    if "UNSPECIFIED" in states:
        faults.append(Fault("/query/state", "must be a state"))
    if faults:
        raise RequestInvalid(faults)
    return InstanceFilter(labels, frozenset(InstanceState(state) for state in states))


def ports_of(ports: Iterable[pb.PortMapping]) -> tuple[Port, ...]:
    """Return published ports with their defaults."""
    return tuple(
        Port(port.host, port.guest, port.protocol or "tcp", port.address or "127.0.0.1") for port in ports
    )


def _user_data(reading: Reading, given: pb.CloudInit | pb.CloudInitPatch) -> bytes | None:
    """Return the user-data as bytes, whichever way it was given; None: not at all."""
    if isinstance(given, pb.CloudInitPatch):
        as_text, as_bytes = given.HasField("userdata"), given.HasField("userdata_base64")
    else:
        as_text, as_bytes = bool(given.userdata), bool(given.userdata_base64)
    if as_text and as_bytes:
        reading.faults.append(Fault("/cloudInit/userdataBase64", "excludes userdata: give one of the two"))
    if not as_text and not as_bytes:
        return None
    data = given.userdata_base64 if as_bytes else given.userdata.encode()
    at = "/cloudInit/userdataBase64" if as_bytes else "/cloudInit/userdata"
    reading.faults += user_data_faults(data, at)
    return data


def _seed_patch(reading: Reading, patch: pb.CloudInitPatch) -> SeedPatch:
    reading.faults += network_faults(patch.network_config)
    return SeedPatch(
        _user_data(reading, patch),
        patch.network_config if patch.HasField("network_config") else None,
    )


def _readiness(reading: Reading, readiness: pb.Readiness, default_s: float) -> Readiness:
    probes = probes_of(readiness.all, reading.faults)
    deadline_s = reading.duration_s("/readiness/deadline", readiness.deadline, default_s, _MAX_DEADLINE_S)
    return Readiness(probes, deadline_s)
