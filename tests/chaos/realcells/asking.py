"""How each operation is asked for, by a careful user's client: under a key, until it is answered."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import httpx
from framework.cloud import Cloud, Document, document
from framework.stack import eventually

from realcells.cells import Cell

T = TypeVar("T")

# Which state an operation begins in, and where it leads; "" is that there is no such instance.
BEGINS: Final = {
    "start": "STOPPED",
    "stop": "RUNNING",
    "restart": "RUNNING",
    "pause": "RUNNING",
    "resume": "PAUSED",
    "reset": "RUNNING",
    "update": "STOPPED",
    "delete": "RUNNING",
}
LEADS_TO: Final = {
    "launch": "RUNNING",
    "cancelled": "",
    "start": "RUNNING",
    "stop": "STOPPED",
    "restart": "RUNNING",
    "pause": "PAUSED",
    "resume": "RUNNING",
    "reset": "RUNNING",
    "update": "STOPPED",
    "delete": "",
}
FINAL: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
# What the gateway says of a peer that is away, and asks to be asked again.
_AGAIN: Final = frozenset({502, 503, 504})
_WITHIN_S: Final = 120.0


class Asking:
    """Asks one gateway."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def arranged(self, cell: Cell, name: str) -> Document | None:
        """Have an instance in the state that the operation begins in."""
        begins = BEGINS.get(cell.operation)
        if begins is None:
            return None
        instance = self._cloud.launch(name, start=begins != "STOPPED")
        if begins == "PAUSED":
            instance = self._cloud.verb(name, "pause")
        assert instance["status"]["state"] == begins
        return instance

    def ask(self, operation: str, name: str, image: str) -> str:
        """Ask for the operation and return its path."""
        method, path, request = _request(operation, name, image)
        headers = {**request.pop("headers", {}), "Idempotency-Key": f"{operation}-{name}"}

        def ask() -> httpx.Response | None:
            with suppress(httpx.TransportError):
                response = self._cloud.api.request(method, path, headers=headers, **request)
                return None if response.status_code in _AGAIN else response
            return None

        response = eventually(ask, "the gateway answers", within_s=_WITHIN_S)
        assert response.status_code == 202, response.text
        return response.headers["Location"]

    def cancel(self, operation: str) -> None:
        """Have it called off."""

        def ask() -> bool:
            with suppress(httpx.TransportError):
                return self._cloud.api.request("POST", f"{operation}/cancel").status_code not in _AGAIN
            return False

        eventually(ask, f"{operation} is called off", within_s=_WITHIN_S)

    def finished(self, operation: str) -> Document:
        """Wait for the operation's end."""

        def look() -> Document | None:
            found = self.found(operation)
            return found if found is not None and found["state"] in FINAL else None

        return self.patiently(look, f"{operation} has ended")

    def found(self, path: str) -> Document | None:
        """GET what is there; None: there is no such thing.

        Raises:
            httpx.TransportError: Nobody answered, or not for the one that would know.
        """
        response = self._cloud.api.request("GET", path)
        if response.status_code in _AGAIN:
            raise httpx.TransportError(response.text)
        return None if response.status_code == 404 else document(response)

    def patiently(self, look: Callable[[], T | None], what: str) -> T:
        """Look until it is so; who has just come back may cut a connection."""

        def patient() -> T | None:
            with suppress(httpx.TransportError):
                return look()
            return None

        return eventually(patient, what, within_s=_WITHIN_S)


def _request(operation: str, name: str, image: str) -> tuple[str, str, dict[str, Any]]:
    path = f"/v1/instances/{name}"
    match operation:
        case "launch" | "cancelled":
            vm = {"cpus": 1, "memory": "256M"}
            return "POST", "/v1/instances", {"json": {"name": name, "image": image, "vm": vm, "start": True}}
        case "update":
            merge = {"Content-Type": "application/merge-patch+json"}
            return "PATCH", path, {"json": {"vm": {"memory": "300M"}}, "headers": merge}
        case "delete":
            return "DELETE", path, {"params": {"force": "true"}}
        case verb:
            return (
                "POST",
                f"{path}/{verb}",
                {"json": {"timeout": "2s"} if verb in {"stop", "restart"} else {}},
            )
