"""A web server on loopback whose every byte, break and silence is the test's own."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HOST = "127.0.0.1"
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass
class Request:
    """What a client asked for."""

    target: str
    headers: dict[str, str]

    @property
    def offset(self) -> int:
        """Where the range that is asked for begins."""
        found = _RANGE.fullmatch(self.headers.get("range", ""))
        return int(found[1]) if found else 0


@dataclass
class Answer:
    """What it gets.

    Attributes:
        breaks_after: Bytes of the body after which the connection is cut.
        hangs: Send nothing more, until the client hangs up.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: bool = True
    breaks_after: int | None = None
    hangs: bool = False


Handler = Callable[[Request], Answer]


@dataclass
class Source:
    """A running server; `routes` may change while it runs."""

    port: int
    routes: dict[str, Handler] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    scheme: str = "http"

    def url(self, path: str = "/disk", host: str = HOST) -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def serve(self, body: bytes, path: str = "/disk") -> str:
        """Serve a file, and return its URL."""
        self.routes[path] = lambda request: Answer(body=body)
        return self.url(path)

    def redirect(self, to: str, path: str = "/moved") -> str:
        """Redirect, and return the URL that does."""
        self.routes[path] = lambda request: Answer(302, {"Location": to})
        return self.url(path)


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Source]:
    """Serve until the context is left."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answer(source, reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, HOST, 0, ssl=tls)
    source = Source(server.sockets[0].getsockname()[1], scheme="http" if tls is None else "https")
    async with server:
        yield source


async def _answer(source: Source, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    pairs = (line.split(": ", maxsplit=1) for line in lines)
    request = Request(first.split(" ")[1], {name.lower(): value for name, value in pairs})
    source.requests.append(request)
    handler = source.routes.get(request.target.partition("?")[0])
    answer = Answer(404) if handler is None else handler(request)
    fields = {"Content-Length": str(len(answer.body)), **answer.headers} if answer.length else answer.headers
    writer.write(f"HTTP/1.1 {answer.status} Said\r\n".encode())
    writer.write("".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode() + b"\r\n")
    writer.write(answer.body[: answer.breaks_after])
    await writer.drain()
    source.reached.set()
    if answer.hangs:
        await reader.read()
        source.left.set()
