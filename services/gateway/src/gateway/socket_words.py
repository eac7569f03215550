"""What every WebSocket of the API says: documents, why it refuses, and its last word (RFC 6455)."""

import asyncio
import json
from typing import Any, Final

from starlette.types import Message, Send

from gateway.errors import GatewayError
from gateway.problems import problem_response

NORMAL: Final = 1000
UNSUPPORTED: Final = 1003
INTERNAL_ERROR: Final = 1011
RESTART: Final = 1012
TRY_AGAIN: Final = 1013
REFUSED: Final = 4400
_LAST_WORD_S: Final = 1.0


async def say(send: Send, document: dict[str, Any]) -> None:
    """Send a document as one text message; waits for as long as the client does not read."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    await send({"type": "websocket.send", "text": text})


async def refuse(send: Send, error: GatewayError, path: str, code: int = REFUSED) -> None:
    """Send the problem that `error` is, and close with its reason."""
    problem = bytes(problem_response(error, path).body).decode()
    if await _said(send, {"type": "websocket.send", "text": problem}):
        await close(send, code, error.reason)


async def close(send: Send, code: int, reason: str) -> None:
    """Close the socket."""
    await _said(send, {"type": "websocket.close", "code": code, "reason": reason})


async def _said(send: Send, message: Message) -> bool:
    """Tell whether the client has taken a message within a second: who does not read does not hear why."""
    try:
        async with asyncio.timeout(_LAST_WORD_S):
            await send(message)
    except TimeoutError:
        return False
    return True
