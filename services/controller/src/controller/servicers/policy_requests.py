"""Policies of requests as the domain's wishes.

At a launch the default stands for what was not given, in a patch for what is empty (REST: null).
"""

from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.quantities import parse_duration_s

from controller.domain.policy import OnExpire, PolicyWish, RestartPolicy
from controller.servicers.reading import Reading


def launch_policies(reading: Reading, request: pb.LaunchInstanceRequest) -> PolicyWish:
    """Return the policies that a launch asks for."""
    return PolicyWish(
        restart=_restart(reading, request.restart_policy),
        autostart=request.autostart,
        ttl_s=_duration(reading, "/ttl", request.ttl),
        expire_time=reading.time("/expireTime", request.expire_time),
        on_expire=_on_expire(reading, request.on_expire),
        protected=request.protected,
        lease_s=_duration(reading, "/lease", request.lease),
    )


def patch_policies(reading: Reading, request: pb.UpdateInstanceRequest) -> PolicyWish:
    """Return the policies that an update asks for; an empty text is the default."""
    given = request.HasField
    ends = request.ttl or request.expire_time
    return PolicyWish(
        restart=_restart(reading, request.restart_policy) if given("restart_policy") else None,
        autostart=request.autostart if given("autostart") else None,
        ttl_s=_duration(reading, "/ttl", request.ttl),
        expire_time=reading.time("/expireTime", request.expire_time),
        endless=(given("ttl") or given("expire_time")) and not ends,
        on_expire=_on_expire(reading, request.on_expire) if given("on_expire") else None,
        protected=request.protected if given("protected") else None,
        lease_s=_duration(reading, "/lease", request.lease),
        leaseless=given("lease") and not request.lease,
    )


def _restart(reading: Reading, text: str) -> RestartPolicy | None:
    return reading.choice("/restartPolicy", text, RestartPolicy, RestartPolicy.NEVER)


def _on_expire(reading: Reading, text: str) -> OnExpire | None:
    return reading.choice("/onExpire", text, OnExpire, OnExpire.DELETE)


def _duration(reading: Reading, pointer: str, text: str) -> float | None:
    return reading.quantity(pointer, text, parse_duration_s, 0.0) if text else None
