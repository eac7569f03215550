"""Policies over REST: what a launch and a merge patch hand on, and what is refused before."""

from typing import Any

import pytest
from framework.api_client import ApiClient
from gateway_fakes import Stand
from qcontroller.controller.v1 import instance_pb2

LAUNCH = {"name": "web-1", "image": "debian-12"}


async def test_a_launch_hands_its_policies_on(client: ApiClient, rest: Stand) -> None:
    policies = {
        "restartPolicy": "on-failure",
        "autostart": True,
        "ttl": 7200,
        "onExpire": "stop",
        "lease": "60s",
        "protected": True,
    }
    response = await client.post("/v1/instances", json={**LAUNCH, **policies})
    assert response.status_code == 202
    request = rest.controller.last(instance_pb2.LaunchInstanceRequest)
    assert (request.restart_policy, request.ttl, request.on_expire) == ("on-failure", "7200", "stop")
    assert (request.lease, request.autostart, request.protected) == ("60s", True, True)


async def test_a_patch_tells_null_from_what_is_absent(client: ApiClient, rest: Stand) -> None:
    response = await client.patch(
        "/v1/instances/web-1", json={"restartPolicy": None, "ttl": None, "protected": None, "autostart": True}
    )
    assert response.status_code == 200
    request = rest.controller.last(instance_pb2.UpdateInstanceRequest)
    given = {field.name for field, _ in request.ListFields()} - {"name", "options"}
    assert given == {"restart_policy", "autostart", "ttl", "protected"}
    assert (request.restart_policy, request.ttl, request.protected) == ("", "", False)
    assert request.autostart


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("restartPolicy", "Always"),
        ("restartPolicy", 1),
        ("autostart", "yes"),
        ("ttl", "2 days"),
        ("ttl", -1),
        ("expireTime", "tomorrow"),
        ("expireTime", "2030-01-01"),
        ("expireTime", "2030-02-30T00:00:00Z"),
        ("expireTime", 1),
        ("onExpire", "explode"),
        ("lease", "a while"),
        ("protected", 1),
    ],
)
async def test_a_policy_of_another_form_is_refused(client: ApiClient, field: str, value: Any) -> None:
    for response in (
        await client.post("/v1/instances", json={**LAUNCH, field: value}),
        await client.patch("/v1/instances/web-1", json={field: value}),
    ):
        assert response.status_code == 400, response.text
        assert {fault["pointer"] for fault in response.json()["errors"]} == {f"/{field}"}
