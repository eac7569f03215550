"""The health service of a server, which can also say why it does not serve.

grpc.health.v1 has no place for a reason, so it goes with the answer as trailing metadata.
"""

from collections.abc import Iterable
from typing import Any, Final

from grpc_health.v1 import health, health_pb2

DETAIL_KEY: Final = "health-detail"
_MAX_DETAIL: Final = 1000


class Health(health.aio.HealthServicer):
    """Health of some services, which serve or do not serve together, and of "", which stands for all."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._detail = ""

    async def say(self, *, serving: bool, detail: str = "") -> None:
        """Tell everybody who asks or watches; `detail` is why, in a sentence."""
        self._detail = detail
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in self._services:
            await self.set(service, status)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Answer, with the detail if there is one."""
        if self._detail:
            # Metadata is ASCII.
            detail = self._detail.encode("ascii", "replace").decode("ascii")[:_MAX_DETAIL]
            context.set_trailing_metadata(((DETAIL_KEY, detail),))
        return await super().Check(request, context)
