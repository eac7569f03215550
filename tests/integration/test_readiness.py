"""The contract of readiness, kept by a real guest: what is missing is named, what holds is proved in it."""

import time

import pytest
from framework.cloud import Cloud, Document, document
from framework.stack import free_ports

PORT = 8080
SERVE = f"mkdir -p /www && echo served > /www/index.html && httpd -p {PORT} -h /www"
USER_DATA = "#cloud-config\nruncmd:\n  - touch /run/checked\n"
CONTRACT = [
    {"agent": {}},
    {"address": {}},
    {"cloudInit": "done"},
    {"serial": {"match": "^qcontroller-phase: cloud-init .*result=ok"}},
    {"exec": {"argv": ["/bin/sh", "-c", "exit $(($(ls /run/checked | wc -l) + 2))"], "exitCode": 3}},
    {"tcp": {"port": PORT}},
    {"http": {"port": PORT, "path": "/index.html", "status": 200}},
]


def wait(cloud: Cloud, name: str, timeout: str) -> tuple[int, Document]:
    response = cloud.api.request(
        "GET", f"/v1/instances/{name}/wait", params={"condition": "Ready", "timeout": timeout}
    )
    return response.status_code, document(response)


def until_missing_only_the_server(cloud: Cloud, name: str) -> Document:
    """Wait, each time shortly, until nothing but the server is missing; return that refusal."""
    until = time.monotonic() + 120
    while True:
        status, problem = wait(cloud, name, "1s")
        assert status == 504, problem
        if problem["metadata"]["evidence"].startswith(f"Still missing: tcp {PORT} ("):
            return problem
        assert time.monotonic() < until, problem


def test_a_guest_is_ready_when_all_that_was_asked_holds_and_not_before(cloud: Cloud) -> None:
    (host_port,) = free_ports(1)
    name = cloud.launch(
        cloudInit={"userdata": USER_DATA},
        ports=[{"host": host_port, "guest": PORT}],
        readiness={"all": CONTRACT, "deadline": "600s"},
    )["name"]

    problem = until_missing_only_the_server(cloud, name)
    assert (problem["reason"], problem["metadata"]["condition"]) == ("READINESS_TIMEOUT", "Ready")
    assert "connection refused" in problem["metadata"]["evidence"]
    assert "qcontroller-phase" in problem["metadata"]["console"]

    assert cloud.exec(name, "/bin/sh", "-c", SERVE)["exitCode"] == 0
    instance = cloud.wait_ready(name)
    assert cloud.exec(name, "/bin/ls", "/run/checked")["exitCode"] == 0
    conditions = {one["type"]: one["status"] for one in instance["status"]["conditions"]}
    assert conditions["CloudInitDone"] == "TRUE"
    assert instance["readiness"]["all"][6] == CONTRACT[6]

    phases = {phase["name"]: phase for phase in cloud.get(name)["status"]["bootPhases"]}
    assert {"firmware", "kernel", "userspace", "cloud-init", "agent", "ready"} <= set(phases)
    assert phases["firmware"]["startTime"] <= phases["kernel"]["startTime"] <= phases["ready"]["startTime"]
    cloud.delete(name)


def test_an_expression_that_does_not_compile_is_refused_at_launch(cloud: Cloud) -> None:
    spec = {"name": "never", "image": "tiny", "readiness": {"all": [{"serial": {"match": "(login"}}]}}
    response = cloud.api.request("POST", "/v1/instances", json=spec)
    assert response.status_code == 400, response.text
    (fault,) = document(response)["errors"]
    assert fault["pointer"] == "/readiness/all/0/serial/match"
    assert "missing )" in fault["detail"]


@pytest.mark.native("containers have no passt")
def test_a_port_that_nothing_leads_to_is_refused_with_what_to_do(cloud: Cloud) -> None:
    spec = {
        "name": "never",
        "image": "tiny",
        "nics": [{"network": "user"}],
        "readiness": {"all": [{"tcp": {"port": 22}}]},
    }
    response = cloud.api.request("POST", "/v1/instances", json=spec)
    assert response.status_code == 400, response.text
    (fault,) = document(response)["errors"]
    assert fault["pointer"] == "/readiness/all/0/tcp/port"
    assert '"guest": 22' in fault["detail"]
