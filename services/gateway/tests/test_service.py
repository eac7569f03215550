"""What the gateway says of itself: health, metrics, specification, Swagger UI, its port."""

import asyncio
import os
import re
import socket
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from framework.api_client import SPECIFICATION, ApiClient
from gateway.app import application
from gateway.server import http_server
from gateway_fakes import NOW, Stand, stand
from httpx import ASGITransport
from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import host_pb2
from qcontroller.settings.v1.settings_pb2 import GatewaySettings
from servicekit.server import AddressInUseError


def nodelay_of_accepted(port: int) -> list[int]:
    """Return TCP_NODELAY of each connection that this process has accepted at `port`."""
    found = []
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as one:
                # The listener has no peer, and the client's end another port.
                if one.family == socket.AF_INET and one.getpeername() and one.getsockname()[1] == port:
                    found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return found


async def test_it_is_alive(client: ApiClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ALIVE"}


async def test_it_is_ready_when_everything_is_up(client: ApiClient) -> None:
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "READY")
    names = [entry["name"] for entry in response.json()["dependencies"]]
    assert names == ["controller", "image-store", "controller/image-store"]


async def test_it_is_not_ready_when_the_controller_misses_something(client: ApiClient, rest: Stand) -> None:
    down = host_pb2.Dependency(name="runner", up=False, since=NOW, detail="gone")
    rest.controller.answers["Readiness"] = host_pb2.GetReadinessResponse(dependencies=[down])
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["reason"]) == (503, "SERVICE_NOT_READY")
    assert response.json()["dependencies"][-1] == {
        "name": "runner", "status": "DOWN", "since": "2026-01-01T00:00:00Z", "detail": "gone",
    }  # fmt: skip


async def test_a_dependency_of_unknown_age_dates_from_when_it_was_first_seen(
    client: ApiClient, rest: Stand
) -> None:
    database = host_pb2.Dependency(name="database", up=True)
    rest.controller.answers["Readiness"] = host_pb2.GetReadinessResponse(dependencies=[database])
    first, second = [(await client.get("/readyz")).json()["dependencies"][-1] for _ in range(2)]
    assert first["since"] == second["since"] != ""


async def test_a_peer_that_does_not_serve_is_down_for_the_reason_that_it_gives(
    client: ApiClient, rest: Stand
) -> None:
    await rest.health.say(serving=False, detail="The bucket is gone.")
    response = await client.get("/readyz")
    assert response.status_code == 503
    store = next(entry for entry in response.json()["dependencies"] if entry["name"] == "image-store")
    assert (store["status"], store["detail"]) == ("DOWN", "The bucket is gone.")


async def test_without_its_peers_it_lives_and_says_what_is_down() -> None:
    with TemporaryDirectory(prefix="qcg") as folder:
        settings = GatewaySettings(
            listen="127.0.0.1:0", controller=f"unix:{folder}/c.sock", image_store=f"unix:{folder}/i.sock"
        )
        async with application(settings, CollectorRegistry()) as work:
            assert not work.done()


async def test_calls_without_a_peer_are_503() -> None:
    from gateway.backends import CONTROLLER, ask, backends  # noqa: PLC0415
    from gateway.errors import PeerUnavailableError  # noqa: PLC0415
    from qcontroller.controller.v1 import instance_pb2  # noqa: PLC0415

    async with backends("unix:/nonexistent/c.sock", "unix:/nonexistent/i.sock") as peers:
        with pytest.raises(PeerUnavailableError) as caught:
            await ask(CONTROLLER, peers.instances.GetInstance, instance_pb2.GetInstanceRequest(name="a"))
    assert caught.value.reason == "CONTROLLER_UNAVAILABLE"


async def test_metrics_are_by_route_and_not_by_path(client: ApiClient) -> None:
    await client.get("/v1/instances/web-1")
    await client.get("/v1/instances/absent")
    text = (await client.get("/metrics")).text
    labels = 'method="GET",route="/v1/instances/{name}"'
    assert f'http_server_request_duration_seconds_count{{{labels},status="200"}} 1.0' in text
    assert f'http_server_request_duration_seconds_count{{{labels},status="404"}} 1.0' in text
    assert "web-1" not in text


async def test_the_specification_is_served_as_it_was_written(client: ApiClient) -> None:
    assert (await client.get("/openapi.yaml")).content == SPECIFICATION.read_bytes()


async def test_swagger_needs_nothing_from_elsewhere(client: ApiClient) -> None:
    page = await client.get("/v1/swagger/index.html")
    assert page.status_code == 200
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) >= 5
    for asset in assets:
        assert not asset.startswith(("http", "//"))
        assert (await client.get(f"/v1/swagger/{asset.removeprefix('./')}")).status_code == 200
    initializer = (await client.get("/v1/swagger/swagger-initializer.js")).text
    assert 'url: "/openapi.yaml"' in initializer
    assert "http" not in initializer


@pytest.mark.parametrize("path", ["/v1/swagger", "/v1/swagger/"])
async def test_swagger_is_found_without_its_file_name(client: ApiClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.headers["location"]) == (307, "/v1/swagger/index.html")


async def test_swagger_can_be_switched_off() -> None:
    with TemporaryDirectory(prefix="qcg") as folder:
        async with stand(Path(folder), settings=GatewaySettings(swagger_disabled=True)) as found:
            transport = ASGITransport(app=found.app)
            async with ApiClient(transport=transport, base_url="http://localhost") as client:
                assert (await client.get("/v1/swagger/index.html")).status_code == 404


async def test_an_external_name_is_a_host_and_an_origin() -> None:
    with TemporaryDirectory(prefix="qcg") as folder:
        async with stand(Path(folder), settings=GatewaySettings(external_names=["vm.example"])) as found:
            transport = ASGITransport(app=found.app)
            async with ApiClient(transport=transport, base_url="http://vm.example") as client:
                headers = {"Origin": "https://vm.example:8443"}
                assert (await client.get("/healthz", headers=headers)).status_code == 200


async def test_the_type_of_a_problem_leads_to_its_page(client: ApiClient) -> None:
    problem = (await client.get("/nothing")).json()
    path, anchor = problem["type"].split("#")
    assert f'id="{anchor}"' in (await client.get(path)).text


async def test_a_taken_port_is_told_plainly(rest: Stand, port: int) -> None:
    with pytest.raises(AddressInUseError, match=f"127.0.0.1:{port} is taken"):
        async with http_server(rest.app, f"127.0.0.1:{port}", asyncio.Event()):
            pass


async def test_answers_are_not_held_back_by_nagle(port: int, wire: ApiClient) -> None:
    await wire.get("/healthz")
    assert nodelay_of_accepted(port) == [1]
