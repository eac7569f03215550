"""Handlers of /healthz, /readyz, /metrics and /openapi.yaml: the service about itself."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from qcontroller.controller.v1 import host_pb2
from servicekit.health import DETAIL_KEY
from starlette.responses import Response

from gateway.answers import json_response
from gateway.backends import CONTROLLER, IMAGE_STORE, Backends, Peer, ask
from gateway.calls import Call
from gateway.contract import Contract
from gateway.convert import to_json
from gateway.errors import GatewayError
from gateway.problems import problem_response

_CHECK_DEADLINE_S: Final = 2.0


class NotReadyError(GatewayError):
    """Something that the service depends on is down."""

    def __init__(self, down: list[str]) -> None:
        super().__init__("SERVICE_NOT_READY", f"Down: {', '.join(down)}.")


class Health:
    """What the service says of itself."""

    def __init__(self, peers: Backends, contract: Contract, registry: CollectorRegistry) -> None:
        self._peers = peers
        self._contract = contract
        self._registry = registry
        # When what nobody else dates, the gateway's own peers above all, was first seen in its present state.
        self._since: dict[str, tuple[bool, Timestamp]] = {}

    async def alive(self, call: Call) -> Response:
        """GET /healthz."""
        del call
        return json_response({"status": "ALIVE"})

    async def ready(self, call: Call) -> Response:
        """GET /readyz: the gateway's peers and, as it reports them, those of the controller."""
        dependencies = await self.dependencies()
        down = [entry["name"] for entry in dependencies if entry["status"] == "DOWN"]
        if not down:
            return json_response({"status": "READY", "dependencies": dependencies})
        extensions = {"dependencies": dependencies}
        return problem_response(NotReadyError(down), call.request.url.path, extensions=extensions)

    async def metrics(self, call: Call) -> Response:
        """GET /metrics."""
        del call
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def specification(self, call: Call) -> Response:
        """GET /openapi.yaml."""
        del call
        return Response(self._contract.text, media_type="application/yaml")

    async def dependencies(self) -> list[dict[str, Any]]:
        """Return every dependency, the gateway's own first."""
        controller, image_store, further = await asyncio.gather(
            self._own(CONTROLLER, self._peers.controller_health),
            self._own(IMAGE_STORE, self._peers.image_store_health),
            self._of_controller(),
        )
        own = [controller, image_store]
        names = {entry["name"] for entry in own}
        for entry in further:
            if entry["name"] in names:
                entry["name"] = f"controller/{entry['name']}"
        return [*own, *further]

    async def _own(self, peer: Peer, stub: Any) -> dict[str, Any]:
        detail = ""
        try:
            check = stub.Check(health_pb2.HealthCheckRequest(), timeout=_CHECK_DEADLINE_S)
            up = (await check).status == health_pb2.HealthCheckResponse.SERVING
            if not up:
                detail = dict(await check.trailing_metadata()).get(
                    DETAIL_KEY, "it says that it is not serving"
                )
        except grpc.aio.AioRpcError as exc:
            up, detail = False, f"{exc.code().name}: {exc.details()}"
        return self._entry(peer.name, detail, up=up)

    def _entry(self, name: str, detail: str, *, up: bool) -> dict[str, Any]:
        known = self._since.get(name)
        if known is None or known[0] != up:
            now = Timestamp()
            now.FromDatetime(datetime.now(UTC))
            known = self._since[name] = (up, now)
        return {"name": name, "status": _word(up=up), "since": known[1].ToJsonString(), "detail": detail}

    async def _of_controller(self) -> list[dict[str, Any]]:
        try:
            answer = await ask(
                CONTROLLER,
                self._peers.nodes.GetReadiness,
                host_pb2.GetReadinessRequest(),
                deadline_s=2 * _CHECK_DEADLINE_S,
            )
        except GatewayError:
            return []  # the controller's own entry tells that it is down
        return [
            {**to_json(entry), "status": _word(up=entry.up)}
            if entry.HasField("since")
            else self._entry(entry.name, entry.detail, up=entry.up)
            for entry in answer.dependencies
        ]


def _word(*, up: bool) -> str:
    return "UP" if up else "DOWN"
