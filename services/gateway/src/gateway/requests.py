"""Bodies of the contract as protobuf requests; they have been checked by then."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from qcontroller.controller.v1 import instance_pb2 as pb

from gateway.calls import Call

_NO_NIC = ({"network": "none"},)
# Fields of a patch by their names in REST; null stands for the default, which is empty.
_WORDS = {
    "restartPolicy": "restart_policy",
    "ttl": "ttl",
    "expireTime": "expire_time",
    "onExpire": "on_expire",
    "lease": "lease",
    "hostname": "hostname",
}
_NOTHING: Mapping[str, Any] = {"userdata": None, "networkConfig": None}
_SWITCHES = ("autostart", "protected")


def options_of(call: Call) -> pb.MutationOptions:
    """Return the identity and the precondition of the mutation that `call` asks for."""
    return pb.MutationOptions(request_id=call.request_id, if_match=call.if_match)


def launch_request(call: Call) -> pb.LaunchInstanceRequest:
    """Return the launch that `call` asks for."""
    body: Mapping[str, Any] = call.body
    request = pb.LaunchInstanceRequest(
        name=body["name"],
        image=body["image"],
        start=body.get("start", False),
        labels=body.get("labels", {}),
        ports=ports_of(body.get("ports", ())),
        image_digest=body.get("imageDigest", ""),
        arch=body.get("arch", ""),
        restart_policy=body.get("restartPolicy", ""),
        autostart=body.get("autostart", False),
        ttl=str(body.get("ttl", "")),
        expire_time=body.get("expireTime", ""),
        on_expire=body.get("onExpire", ""),
        lease=str(body.get("lease", "")),
        protected=body.get("protected", False),
        ssh_keys=body.get("sshKeys", ()),
        hostname=body.get("hostname", ""),
        packages=body.get("packages", ()),
        validate_only=call.query.get("validateOnly", False),
        options=options_of(call),
    )
    if "vm" in body:
        vm = body["vm"]
        request.vm.CopyFrom(
            pb.VmSpec(cpus=vm.get("cpus", 0), memory=str(vm.get("memory", "")), disk=str(vm.get("disk", "")))
        )
    if "cloudInit" in body:
        seed = body["cloudInit"]
        request.cloud_init.CopyFrom(
            pb.CloudInit(
                userdata=seed.get("userdata", ""),
                userdata_base64=base64.b64decode(seed.get("userdataBase64", "")),
                network_config=seed.get("networkConfig", ""),
            )
        )
    if "readiness" in body:
        readiness = body["readiness"]
        request.readiness.CopyFrom(
            pb.Readiness(
                all=[probe_of(probe) for probe in readiness.get("all", ())],
                deadline=str(readiness.get("deadline", "")),
            )
        )
    if "nics" in body:
        request.nics.extend(
            pb.NicSpec(network=nic.get("network", ""), mac=nic.get("mac", ""), address=nic.get("address", ""))
            for nic in body["nics"] or _NO_NIC
        )
    return request


def update_request(call: Call) -> pb.UpdateInstanceRequest:
    """Return the merge patch (RFC 7396) that `call` asks for."""
    body: Mapping[str, Any] = call.body
    request = pb.UpdateInstanceRequest(name=call.name, options=options_of(call))
    if "labels" in body:
        labels = body["labels"]
        request.clear_labels = labels is None
        for key, value in (labels or {}).items():
            if value is None:
                request.removed_labels.append(key)
            else:
                request.labels[key] = value
    for field, value in body.get("vm", {}).items():
        setattr(request, field, value if field == "cpus" else str(value))
    if "cloudInit" in body:
        # A null is what takes away; the whole being null takes all.
        seed = body["cloudInit"]
        request.cloud_init.CopyFrom(_seed_patch(_NOTHING if seed is None else seed))
    for name, field in _WORDS.items():
        if name in body:
            setattr(request, field, "" if body[name] is None else str(body[name]))
    for name, items in (("sshKeys", request.ssh_keys), ("packages", request.packages)):
        if name in body:
            items.CopyFrom(pb.StringList(items=body[name] or ()))
    for name in _SWITCHES:
        if name in body:
            setattr(request, name, bool(body[name]))
    if "ports" in body:
        request.ports.CopyFrom(pb.PortList(ports=ports_of(body["ports"] or ())))
    return request


def _seed_patch(seed: Mapping[str, Any]) -> pb.CloudInitPatch:
    """Return the change; a null beside the other form of user-data takes nothing away from it."""
    patch = pb.CloudInitPatch()
    text, encoded = seed.get("userdata"), seed.get("userdataBase64")
    if encoded is not None:
        patch.userdata_base64 = base64.b64decode(encoded)
    if text is not None:
        patch.userdata = text
    elif encoded is None and ("userdata" in seed or "userdataBase64" in seed):
        patch.userdata = ""
    if "networkConfig" in seed:
        patch.network_config = seed["networkConfig"] or ""
    return patch


def exec_request(call: Call) -> pb.ExecInstanceRequest:
    """Return the program run that `call` asks for."""
    return pb.ExecInstanceRequest(**_exec_fields(call.name, call.body))


def stream_request(name: str, body: Mapping[str, Any]) -> pb.StreamExecRequest:
    """Return the program run that the first message of a socket asks for."""
    return pb.StreamExecRequest(**_exec_fields(name, body))


def _exec_fields(name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "argv": body["argv"],
        "env": body.get("env", {}),
        "stdin": body.get("stdin", "").encode(),
        "timeout": str(body.get("timeout", "")),
    }


def probe_of(probe: Mapping[str, Any]) -> pb.Probe:
    """Return a probe of readiness; its names in REST are those of its JSON in protobuf."""
    return json_format.ParseDict(dict(probe), pb.Probe())


def ports_of(ports: Sequence[Mapping[str, Any]]) -> list[pb.PortMapping]:
    """Return published ports as protobuf."""
    return [
        pb.PortMapping(
            host=port["host"],
            guest=port["guest"],
            protocol=port.get("protocol", ""),
            address=port.get("address", ""),
        )
        for port in ports
    ]
