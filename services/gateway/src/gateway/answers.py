"""Answers other than problems: JSON, and bytes that are streamed from a peer."""

import base64
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# Set in the scope of a HEAD request, which handlers see as GET.
HEAD_KEY = "qcontroller.head"


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `document` as an answer."""
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, status_code=status, headers=headers, media_type="application/json")


def output_document(name: str, content: bytes) -> dict[str, str]:
    """Return a program's output under its name, or in Base64 where it is not UTF-8."""
    try:
        return {name: content.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(content).decode()}


class StreamedBytes(Response):
    """Bytes that come from a generator, one at a time; closing it is what releases its source."""

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        *,
        status: int,
        media_type: str,
        headers: Mapping[str, str],
        length: int | None,
    ) -> None:
        """Announce `length` bytes where it is known."""
        super().__init__(status_code=status, headers=headers, media_type=media_type)
        del self.headers["content-length"]
        if length is not None:
            self.headers["content-length"] = str(length)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then what the source yields."""
        del receive
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if not scope.get(HEAD_KEY):
                async for chunk in self._source:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._source.aclose()


async def client_gone(receive: Receive) -> None:
    """Return when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
