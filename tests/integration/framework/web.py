"""A web server on loopback that images are fetched from; what it serves and holds back is the test's."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

HOST: Final = "127.0.0.1"
_SHOWN_BYTES: Final = 100_000


@dataclass
class Web:
    """A running server.

    Attributes:
        files: What is served, by path.
        redirects: Where paths lead instead.
        held: Paths of which only the beginning comes, until the client hangs up.
        asked: Paths that were asked for, in order.
        begun: Set when the beginning of a held file has been sent.
        left: Set when the client of a held file has hung up.
    """

    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://{HOST}:{self.port}{path}"


@contextmanager
def serving() -> Iterator[Web]:
    """Serve until the context is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            web.asked.append(path)
            if path in web.redirects:
                self.send_response(302)
                self.send_header("Location", web.redirects[path])
                self.end_headers()
            elif path in web.files:
                content = web.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self._send(content, held=path in web.held)
            else:
                self.send_error(404)

        def _send(self, content: bytes, *, held: bool) -> None:
            if not held:
                self.wfile.write(content)
                return
            self.wfile.write(content[:_SHOWN_BYTES])
            self.wfile.flush()
            web.begun.set()
            # Nothing more comes from a client that waits; its end does.
            self.connection.recv(1)
            web.left.set()

        def log_message(self, *_args: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    web = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
