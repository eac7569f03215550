"""Instances and operations over REST."""

import base64
from typing import Any

import grpc
import pytest
from framework.api_client import ApiClient
from gateway_fakes import DIGEST, Stand, instance, not_found, operation
from qcontroller.controller.v1 import instance_pb2, operation_pb2
from servicekit.rpc_errors import RpcProblem

LAUNCH = {"name": "web-1", "image": "debian-12"}


async def test_a_launch_answers_the_operation(client: ApiClient) -> None:
    response = await client.post("/v1/instances", json=LAUNCH)
    assert (response.status_code, response.headers["location"]) == (202, "/v1/operations/op-1")
    assert response.json()["state"] == "RUNNING"


async def test_a_waited_launch_answers_the_instance(client: ApiClient) -> None:
    response = await client.post("/v1/instances", json=LAUNCH, headers={"Prefer": "wait=60"})
    assert (response.status_code, response.headers["location"]) == (201, "/v1/instances/web-1")
    assert response.headers["preference-applied"] == "wait=60"
    assert response.headers["etag"] == '"3-17"'


async def test_a_wait_that_runs_out_answers_the_operation(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["WaitOperation"] = operation_pb2.WaitOperationResponse(operation=operation())
    response = await client.post("/v1/instances", json=LAUNCH, headers={"Prefer": "wait=0"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=0")


async def test_a_wait_outlives_a_controller_that_restarts(client: ApiClient, rest: Stand) -> None:
    done = operation_pb2.WaitOperationResponse(
        operation=operation(state=operation_pb2.OPERATION_STATE_SUCCEEDED)
    )
    answers = iter([RpcProblem(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "Gone."), done])

    def answer(method: str, request: Any, default: Any, *, original: Any = rest.controller.answer) -> Any:
        if method == "WaitOperation":
            rest.controller.answers[method] = next(answers)
        return original(method, request, default)

    rest.controller.answer = answer  # type: ignore[method-assign]
    response = await client.post("/v1/instances", json=LAUNCH, headers={"Prefer": "wait=5"})
    assert response.status_code == 201


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        (operation_pb2.OPERATION_STATE_FAILED, "DISK_FULL", 503),
        (operation_pb2.OPERATION_STATE_CANCELLED, "SUPERSEDED", 409),
        (operation_pb2.OPERATION_STATE_CANCELLED, "", 409),
    ],
)
async def test_a_waited_operation_that_fails_answers_its_error(
    client: ApiClient, rest: Stand, state: int, reason: str, status: int
) -> None:
    failed = operation(state=state)
    failed.error.CopyFrom(operation_pb2.Problem(reason=reason, detail="Because."))
    rest.controller.answers["WaitOperation"] = operation_pb2.WaitOperationResponse(operation=failed)
    response = await client.post("/v1/instances", json=LAUNCH, headers={"Prefer": "wait=5"})
    problem = response.json()
    assert (response.status_code, problem["reason"]) == (status, reason or "OPERATION_CANCELLED")
    assert problem["metadata"]["operation"] == "/v1/operations/op-1"


async def test_the_whole_body_reaches_the_controller(client: ApiClient, rest: Stand) -> None:
    body = {
        **LAUNCH,
        "vm": {"cpus": 2, "memory": 512, "disk": "10G"},
        "cloudInit": {"userdata": "#cloud-config\n", "networkConfig": "version: 2"},
        "start": True,
        "labels": {"a": "b"},
        "readiness": {
            "all": [{"agent": {}}, {"cloudInit": "done"}, {"exec": {"argv": ["/bin/x"], "exitCode": 3}}],
            "deadline": 90,
        },
        "nics": [{"network": "user", "mac": "52:54:00:00:00:01"}],
        "ports": [{"host": 2222, "guest": 22}],
        "imageDigest": DIGEST,
        "arch": "x86_64",
        "sshKeys": ["ssh-ed25519 AAAA"],
        "hostname": "web.example.org",
        "packages": ["nginx"],
    }
    await client.post("/v1/instances", json=body, headers={"Idempotency-Key": "k1"})
    assert rest.controller.requests == [
        instance_pb2.LaunchInstanceRequest(
            name="web-1",
            image="debian-12",
            vm=instance_pb2.VmSpec(cpus=2, memory="512", disk="10G"),
            cloud_init=instance_pb2.CloudInit(userdata="#cloud-config\n", network_config="version: 2"),
            start=True,
            labels={"a": "b"},
            readiness=instance_pb2.Readiness(
                all=[
                    instance_pb2.Probe(agent=instance_pb2.AgentProbe()),
                    instance_pb2.Probe(cloud_init="done"),
                    instance_pb2.Probe(exec=instance_pb2.ExecProbe(argv=["/bin/x"], exit_code=3)),
                ],
                deadline="90",
            ),
            nics=[instance_pb2.NicSpec(network="user", mac="52:54:00:00:00:01")],
            ports=[instance_pb2.PortMapping(host=2222, guest=22)],
            image_digest=DIGEST,
            arch="x86_64",
            ssh_keys=["ssh-ed25519 AAAA"],
            hostname="web.example.org",
            packages=["nginx"],
            options=instance_pb2.MutationOptions(request_id="local:POST /v1/instances:k1"),
        )
    ]


async def test_a_user_data_of_bytes_is_sent_as_base64(client: ApiClient, rest: Stand) -> None:
    data = bytes(range(256))
    seed = {"userdataBase64": base64.b64encode(data).decode()}
    await client.post("/v1/instances", json={**LAUNCH, "cloudInit": seed})
    assert rest.controller.last(instance_pb2.LaunchInstanceRequest).cloud_init == instance_pb2.CloudInit(
        userdata_base64=data
    )


@pytest.mark.parametrize(
    ("seed", "patch"),
    [
        (None, {"userdata": "", "network_config": ""}),
        ({"userdata": None}, {"userdata": ""}),
        ({"userdataBase64": None}, {"userdata": ""}),
        ({"userdata": None, "userdataBase64": "AAH/"}, {"userdata_base64": b"\0\1\xff"}),
        ({"userdata": "x", "userdataBase64": None}, {"userdata": "x"}),
        ({"userdata": "x", "userdataBase64": "AA=="}, {"userdata": "x", "userdata_base64": b"\0"}),
        ({"networkConfig": None}, {"network_config": ""}),
        ({}, {}),
    ],
)
async def test_a_patch_of_cloud_init_gives_or_takes_away(
    client: ApiClient, rest: Stand, seed: Any, patch: dict[str, Any]
) -> None:
    await client.patch("/v1/instances/web-1", json={"cloudInit": seed})
    request = rest.controller.last(instance_pb2.UpdateInstanceRequest)
    assert request.HasField("cloud_init")
    assert request.cloud_init == instance_pb2.CloudInitPatch(**patch)


async def test_a_patch_tells_none_from_not_given(client: ApiClient, rest: Stand) -> None:
    await client.patch("/v1/instances/web-1", json={"sshKeys": None, "hostname": None, "packages": ["vim"]})
    request = rest.controller.last(instance_pb2.UpdateInstanceRequest)
    assert (request.HasField("ssh_keys"), list(request.ssh_keys.items)) == (True, [])
    assert (request.HasField("hostname"), request.hostname) == (True, "")
    assert list(request.packages.items) == ["vim"]
    await client.patch("/v1/instances/web-1", json={"labels": {"a": "b"}})
    request = rest.controller.last(instance_pb2.UpdateInstanceRequest)
    assert not any(request.HasField(field) for field in ("ssh_keys", "hostname", "packages", "cloud_init"))


@pytest.mark.parametrize(
    ("nics", "networks"), [([], ["none"]), ([{"network": "none"}], ["none"]), (None, []), ([{}], [""])]
)
async def test_no_nics_is_told_from_none_given(
    client: ApiClient, rest: Stand, nics: Any, networks: list[str]
) -> None:
    await client.post("/v1/instances", json=LAUNCH if nics is None else {**LAUNCH, "nics": nics})
    request = rest.controller.last(instance_pb2.LaunchInstanceRequest)
    assert [nic.network for nic in request.nics] == networks


async def test_validate_only_answers_the_plan(client: ApiClient, rest: Stand) -> None:
    plan = instance_pb2.LaunchPlan(instance=instance(), node="node-1", accelerator="tcg", steps=["image"])
    rest.controller.answers["Launch"] = instance_pb2.LaunchInstanceResponse(plan=plan)
    response = await client.post("/v1/instances?validateOnly=true", json=LAUNCH)
    assert (response.status_code, response.json()["steps"]) == (200, ["image"])
    assert rest.controller.last(instance_pb2.LaunchInstanceRequest).validate_only


async def test_a_replayed_answer_says_so(client: ApiClient, rest: Stand) -> None:
    mutation = instance_pb2.Mutation(operation=operation(), replayed=True)
    rest.controller.answers["Launch"] = instance_pb2.LaunchInstanceResponse(mutation=mutation)
    response = await client.post("/v1/instances", json=LAUNCH, headers={"Idempotency-Key": "k"})
    assert response.headers["idempotency-replayed"] == "true"


async def test_an_instance_is_shown_as_the_contract_says(client: ApiClient) -> None:
    document = (await client.get("/v1/instances/web-1")).json()
    assert document["vm"] == {"cpus": 2, "memory": 2048, "disk": 10240}
    assert document["status"]["conditions"][0]["status"] == "TRUE"
    assert document["createTime"] == "2026-01-01T00:00:00Z"
    assert document["readiness"] == {"all": [{"agent": {}}], "deadline": "180s"}
    assert "etag" not in document
    assert "consoleTail" not in document["status"]


@pytest.mark.parametrize("tag", ['"3-17"', 'W/"3-17"', '"x", "3-17"', "*"])
async def test_an_unchanged_instance_is_304(client: ApiClient, tag: str) -> None:
    response = await client.get("/v1/instances/web-1", headers={"If-None-Match": tag})
    assert (response.status_code, response.content) == (304, b"")


async def test_a_changed_instance_is_sent(client: ApiClient) -> None:
    response = await client.get("/v1/instances/web-1", headers={"If-None-Match": '"3-16"'})
    assert response.status_code == 200


async def test_head_is_get_without_a_body(wire: ApiClient) -> None:
    response = await wire.head("/v1/instances/web-1")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["etag"] == '"3-17"'


@pytest.mark.parametrize("path", ["/v1/instances", "/v1/instances/"])
async def test_a_list_answers_with_and_without_a_slash(client: ApiClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["nextPageToken"]) == (200, "t2")


async def test_filters_reach_the_controller(client: ApiClient, rest: Stand) -> None:
    await client.get("/v1/instances?label=a=b&label=c=&state=RUNNING&state=FAILED&pageSize=5&pageToken=x")
    assert rest.controller.requests == [
        instance_pb2.ListInstancesRequest(
            page_size=5,
            page_token="x",
            labels=["a=b", "c="],
            states=[instance_pb2.INSTANCE_STATE_RUNNING, instance_pb2.INSTANCE_STATE_FAILED],
        )
    ]


@pytest.mark.parametrize("media_type", ["application/merge-patch+json", "application/json"])
async def test_a_patch_is_a_merge_patch(client: ApiClient, rest: Stand, media_type: str) -> None:
    response = await client.patch(
        "/v1/instances/web-1",
        content=b'{"labels": {"a": "b", "old": null}, "vm": {"cpus": 4, "memory": "4G"}, "ports": []}',
        headers={"Content-Type": media_type, "If-Match": '"3-17"'},
    )
    assert response.status_code == 200
    assert rest.controller.requests == [
        instance_pb2.UpdateInstanceRequest(
            name="web-1",
            labels={"a": "b"},
            removed_labels=["old"],
            cpus=4,
            memory="4G",
            ports=instance_pb2.PortList(),
            options=instance_pb2.MutationOptions(if_match="3-17"),
        )
    ]


async def test_null_labels_clear_them_all(client: ApiClient, rest: Stand) -> None:
    await client.patch("/v1/instances/web-1", json={"labels": None})
    assert rest.controller.last(instance_pb2.UpdateInstanceRequest).clear_labels


async def test_a_patch_tells_what_takes_effect_later(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["Update"] = instance_pb2.UpdateInstanceResponse(
        mutation=instance_pb2.Mutation(instance=instance()), notes=["ports: at the next start"]
    )
    response = await client.patch("/v1/instances/web-1", json={"ports": []})
    assert response.json()["notes"] == ["ports: at the next start"]


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "pause", "resume", "reset"])
@pytest.mark.parametrize("body", [None, {}])
async def test_a_verb_answers_the_operation(client: ApiClient, verb: str, body: Any) -> None:
    response = await client.post(f"/v1/instances/web-1/{verb}", json=body)
    assert (response.status_code, response.json()["kind"]) == (202, verb)


async def test_a_verb_whose_goal_holds_answers_the_instance(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["Start"] = instance_pb2.StartInstanceResponse(
        mutation=instance_pb2.Mutation(instance=instance())
    )
    response = await client.post("/v1/instances/web-1/start")
    assert (response.status_code, response.json()["name"]) == (200, "web-1")


async def test_stop_passes_force_and_timeout(client: ApiClient, rest: Stand) -> None:
    await client.post("/v1/instances/web-1/stop", json={"force": True, "timeout": 45})
    request = rest.controller.last(instance_pb2.StopInstanceRequest)
    assert (request.force, request.timeout) == (True, "45")


async def test_a_waited_delete_answers_204(client: ApiClient, rest: Stand) -> None:
    done = operation("delete", operation_pb2.OPERATION_STATE_SUCCEEDED)
    rest.controller.answers["WaitOperation"] = operation_pb2.WaitOperationResponse(operation=done)
    response = await client.delete("/v1/instances/web-1?force=true", headers={"Prefer": "wait=5"})
    assert response.status_code == 204
    assert rest.controller.last(instance_pb2.DeleteInstanceRequest).force


async def test_wait_names_condition_and_time(client: ApiClient, rest: Stand) -> None:
    response = await client.get("/v1/instances/web-1/wait?condition=AgentConnected&timeout=5m")
    assert response.status_code == 200
    assert rest.controller.requests == [
        instance_pb2.WaitInstanceRequest(name="web-1", condition="AgentConnected", timeout="5m")
    ]


async def test_a_wait_that_runs_out_is_504_with_the_evidence(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["Wait"] = RpcProblem(
        grpc.StatusCode.DEADLINE_EXCEEDED, "READINESS_TIMEOUT", "No agent.", {"condition": "AgentConnected"}
    )
    response = await client.get("/v1/instances/web-1/wait?timeout=1")
    assert (response.status_code, response.json()["metadata"]) == (504, {"condition": "AgentConnected"})


async def test_exec_shows_bytes_that_are_no_text_as_base64(client: ApiClient) -> None:
    response = await client.post("/v1/instances/web-1/exec", json={"argv": ["uname"], "stdin": "ä"})
    assert response.json() == {
        "exitCode": 0, "stdout": "Linux\n", "stderrBase64": "/w==", "truncated": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "headers", "status", "body"),
    [
        ("", {}, 200, b"Linux\nlogin: "),
        ("?tail=7", {}, 200, b"login: "),
        ("", {"Range": "bytes=0-4"}, 206, b"Linux"),
        ("", {"Range": "bytes=-7"}, 206, b"login: "),
        ("", {"Range": "bytes=6-"}, 206, b"login: "),
        ("", {"Range": "lines=1-2"}, 200, b"Linux\nlogin: "),
    ],
)
async def test_the_console_is_read_whole_or_in_part(
    client: ApiClient, query: str, headers: dict[str, str], status: int, body: bytes
) -> None:
    response = await client.get(f"/v1/instances/web-1/console{query}", headers=headers)
    assert (response.status_code, response.content) == (status, body)
    assert response.headers["content-type"].startswith("text/plain")


async def test_a_range_behind_the_console_is_416(client: ApiClient) -> None:
    response = await client.get("/v1/instances/web-1/console", headers={"Range": "bytes=99-"})
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */13")


async def test_the_console_of_no_instance_is_404(client: ApiClient) -> None:
    assert (await client.get("/v1/instances/absent/console")).status_code == 404


async def test_operations_are_listed_and_shown(client: ApiClient, rest: Stand) -> None:
    failed = operation(state=operation_pb2.OPERATION_STATE_FAILED)
    failed.error.CopyFrom(operation_pb2.Problem(reason="DISK_FULL", detail="Full."))
    rest.controller.answers["GetOperation"] = operation_pb2.GetOperationResponse(operation=failed)
    assert len((await client.get("/v1/operations?instance=web-1&state=FAILED")).json()["operations"]) == 1
    error = (await client.get("/v1/operations/op-1")).json()["error"]
    assert (error["status"], error["reason"], error["instance"]) == (503, "DISK_FULL", "/v1/operations/op-1")


async def test_a_cancel_that_is_being_carried_out_is_202(client: ApiClient, rest: Stand) -> None:
    response = await client.post("/v1/operations/op-1/cancel", headers={"Idempotency-Key": "c"})
    assert response.status_code == 202
    request = rest.controller.last(operation_pb2.CancelOperationRequest)
    assert request.request_id == "local:POST /v1/operations/op-1/cancel:c"


async def test_a_cancel_that_has_been_carried_out_is_200(client: ApiClient, rest: Stand) -> None:
    ended = operation(state=operation_pb2.OPERATION_STATE_CANCELLED)
    rest.controller.answers["Cancel"] = operation_pb2.CancelOperationResponse(operation=ended)
    assert (await client.post("/v1/operations/op-1/cancel")).status_code == 200


async def test_nodes_are_shown_as_the_contract_says(client: ApiClient) -> None:
    cpus = (await client.get("/v1/nodes")).json()["nodes"][0]["cpus"]
    assert cpus == {"total": 2, "allocated": 0, "limit": 0}
    assert (await client.get("/v1/nodes/node-1")).json()["speedFactor"] == 0.5
    assert (await client.get("/v1/nodes/node-1/leaks")).json()["leaks"][0]["kind"] == "tap"
    assert (await client.get("/v1/nodes/node-1/doctor")).json()["checks"][0]["status"] == "WARN"


async def test_a_bundle_is_streamed_as_a_file_named_after_its_operation(
    client: ApiClient, rest: Stand
) -> None:
    response = await client.get("/v1/operations/op-1/bundle")
    assert (response.status_code, response.content) == (200, b"\x1f\x8bthe rest")
    assert response.headers["content-disposition"] == 'attachment; filename="op-1.tar.gz"'
    rest.controller.answers["GetOperationBundle"] = not_found("op-1")
    assert (await client.get("/v1/operations/op-1/bundle")).status_code == 404


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"userdata": "u"}, instance_pb2.CloudInitPatch(userdata="u")),
        ({"userdata": None}, instance_pb2.CloudInitPatch(userdata="")),
        ({"networkConfig": "n"}, instance_pb2.CloudInitPatch(network_config="n")),
        (None, instance_pb2.CloudInitPatch(userdata="", network_config="")),
    ],
)
async def test_a_patch_of_cloud_init_tells_absent_from_null(
    client: ApiClient, rest: Stand, body: Any, sent: instance_pb2.CloudInitPatch
) -> None:
    await client.patch("/v1/instances/web-1", json={"cloudInit": body})
    assert rest.controller.last(instance_pb2.UpdateInstanceRequest).cloud_init == sent


async def test_a_patch_of_an_unknown_field_of_cloud_init_is_a_fault(client: ApiClient) -> None:
    problem = (await client.patch("/v1/instances/web-1", json={"cloudInit": {"meta": "x"}})).json()
    assert (problem["status"], problem["reason"]) == (400, "FIELD_INVALID")
