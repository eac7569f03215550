"""Bodies of requests: JSON read whole within a limit, anything else as chunks with a deadline for each."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn

from starlette.requests import Request

from gateway.errors import (
    BodyMalformedError,
    BodyTooLargeError,
    Fault,
    UploadStalledError,
    UploadTruncatedError,
)
from gateway.schema import pointer_of

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_READ_DEADLINE_S: Final = 30.0


class _Doubled(dict[str, Any]):
    """An object in which a key occurred twice."""

    doubles: tuple[str, ...] = ()


async def read_whole(request: Request, limit_bytes: int) -> bytes:
    """Return the body of `request`.

    Raises:
        BodyTooLargeError: It has more than `limit_bytes`.
        UploadTruncatedError: The client went away.
        UploadStalledError: It did not come within 30 s.
    """
    if int(request.headers.get("content-length") or 0) > limit_bytes:
        raise BodyTooLargeError(limit_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_DEADLINE_S):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise UploadTruncatedError
                body += message.get("body", b"")
                if len(body) > limit_bytes:
                    raise BodyTooLargeError(limit_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as exc:
        raise UploadStalledError(_READ_DEADLINE_S) from exc


async def chunks(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    """Yield the body as it comes, never holding more than what the server has read.

    Raises:
        UploadTruncatedError: The client went away before the end.
        UploadStalledError: Nothing came for `idle_s`.
    """
    while True:
        try:
            async with asyncio.timeout(idle_s):
                message = await request.receive()
        except TimeoutError as exc:
            raise UploadStalledError(idle_s) from exc
        if message["type"] == "http.disconnect":
            raise UploadTruncatedError
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body", False):
            return


def parse_json(body: bytes) -> tuple[Any, list[Fault]]:
    """Return the document in `body`, behind a byte order mark or not, and the keys that occur twice in it.

    Raises:
        BodyMalformedError: It is not JSON (RFC 8259): NaN, broken UTF-8 and lone surrogates included.
    """
    seen_double = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal seen_double
        document = _Doubled(items)
        if len(document) == len(items):
            return dict(items)
        seen_double = True
        names = [name for name, _ in items]
        document.doubles = tuple(dict.fromkeys(name for name in names if names.count(name) > 1))
        return document

    try:
        text = body.decode("utf-8-sig")
        document = json.loads(text, object_pairs_hook=pairs, parse_constant=_refuse_constant)
        if "\\u" in text and _SURROGATE.search(json.dumps(document, ensure_ascii=False)):
            raise BodyMalformedError("holds half of a surrogate pair")
    except UnicodeDecodeError as exc:
        raise BodyMalformedError(f"is not UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise BodyMalformedError(f"is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}") from exc
    except (ValueError, RecursionError) as exc:
        raise BodyMalformedError(
            "is not JSON that can be read: a number or the nesting is beyond all bounds"
        ) from exc
    return document, list(_doubles(document, [])) if seen_double else []


def _doubles(node: Any, path: list[object]) -> list[Fault]:
    found: list[Fault] = []
    if isinstance(node, dict):
        if isinstance(node, _Doubled):
            found += [Fault(pointer_of([*path, name]), "is given more than once") for name in node.doubles]
        for key, value in node.items():
            found += _doubles(value, [*path, key])
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += _doubles(value, [*path, index])
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise BodyMalformedError(f"is not JSON: {name} is no number")
