"""The verbs of the tests, over the validating client: upload, launch, wait, exec, stop, delete."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from framework.api_client import BlockingApiClient
from framework.subject import Subject

_NUMBERS: Final = itertools.count(1)
_LONGEST_POLL_S: Final = 590
Document = dict[str, Any]


class Cloud:
    """What a user of one gateway does."""

    def __init__(self, stack: Subject, api: BlockingApiClient) -> None:
        """Talk to `stack` through `api`, which validates every answer against openapi.yaml."""
        self.stack = stack
        self.api = api

    def upload(self, name: str, file: Path) -> Document:
        """PUT `file` as image `name`."""
        with file.open("rb") as body:
            response = self.api.request(
                "PUT",
                f"/v1/images/{name}",
                content=iter(lambda: body.read(1 << 20), b""),
                headers={
                    "Content-Length": str(file.stat().st_size),
                    "Content-Type": "application/octet-stream",
                },
            )
        assert response.status_code in {200, 201}, response.text
        return document(response)

    def launch(self, name: str | None = None, *, wait_s: int = 60, **body: Any) -> Document:
        """Launch on the tiny image, by default started with 256 MiB; return the instance."""
        name = name or f"vm-{os.getpid()}-{next(_NUMBERS)}"
        spec = {"name": name, "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True, **body}
        response = self.api.request("POST", "/v1/instances", json=spec, headers={"Prefer": f"wait={wait_s}"})
        assert response.status_code == 201, response.text
        return document(response)

    def launch_ready(self, name: str | None = None, **body: Any) -> Document:
        """Launch and wait until the guest agent answers; return the instance."""
        return self.wait_ready(self.launch(name, **body)["name"])

    def wait_ready(self, name: str, timeout_s: int = 120) -> Document:
        """Long-poll until `name` is Ready; several times where one poll may not take so long."""
        until = time.monotonic() + timeout_s
        while True:
            left = max(1, min(_LONGEST_POLL_S, int(until - time.monotonic())))
            response = self.api.request(
                "GET", f"/v1/instances/{name}/wait", params={"condition": "Ready", "timeout": left}
            )
            if response.status_code != 504 or time.monotonic() >= until:
                break
        assert response.status_code == 200, response.text
        return document(response)

    def get(self, name: str) -> Document:
        """GET the instance."""
        response = self.api.request("GET", f"/v1/instances/{name}")
        assert response.status_code == 200, response.text
        return document(response)

    def verb(self, name: str, verb: str, *, wait_s: int = 90, **body: Any) -> Document:
        """POST one of start, stop, restart, pause, resume, reset and return the finished instance."""
        response = self.api.request(
            "POST", f"/v1/instances/{name}/{verb}", json=body, headers={"Prefer": f"wait={wait_s}"}
        )
        assert response.status_code == 200, response.text
        return document(response)

    def delete(self, name: str, *, force: bool = True) -> None:
        """DELETE the instance and wait until it is gone."""
        response = self.api.request(
            "DELETE",
            f"/v1/instances/{name}",
            params={"force": "true"} if force else {},
            headers={"Prefer": "wait=60"},
        )
        assert response.status_code == 204, response.text

    def exec(self, name: str, *argv: str, **more: object) -> Document:
        """Run `argv` in the guest."""
        response = self.api.request("POST", f"/v1/instances/{name}/exec", json={"argv": argv, **more})
        assert response.status_code == 200, response.text
        return document(response)

    def boot_id(self, name: str) -> str:
        """Return the id that the guest's kernel made at this boot."""
        answer = self.exec(name, "/bin/cat", "/proc/sys/kernel/random/boot_id")
        assert answer["exitCode"] == 0, answer
        return str(answer["stdout"]).strip()

    def leaks(self) -> list[Document]:
        """Return what the node lists as leaked."""
        response = self.api.request("GET", "/v1/nodes/node-1/leaks")
        assert response.status_code == 200, response.text
        return list(document(response)["leaks"])

    @contextmanager
    def instance(self, **body: Any) -> Iterator[Document]:
        """Launch an instance for the length of the context."""
        instance = self.launch(**body)
        try:
            yield instance
        finally:
            self.delete(instance["name"])


def document(response: httpx.Response) -> Document:
    """Return the JSON object of `response`."""
    body: Document = response.json()
    return body
