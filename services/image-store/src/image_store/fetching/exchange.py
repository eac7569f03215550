"""One HTTP/1.1 request to one address, and its answer as it comes.

It connects to the address that it is given, never to a name; the name is what TLS is verified against and
what the Host header says. No proxy is used, whatever the environment names.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

import h11

from image_store.errors import SourceBrokenError, SourceRefusedError
from image_store.fetching.source_url import SourceUrl

_READ_BYTES: Final = 256 * 1024
_HEAD_BYTES: Final = 64 * 1024
_CLOSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take, in seconds: to be connected to, and between two bytes."""

    connect_s: float = 15.0
    idle_s: float = 60.0


class Exchange:
    """An open connection with its answer's head read; `close` it."""

    def __init__(
        self, url: SourceUrl, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle_s: float
    ) -> None:
        """Use `open`."""
        self._url = url
        self._reader = reader
        self._writer = writer
        self._idle_s = idle_s
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        self.status = 0
        self.headers: Mapping[str, str] = {}

    @classmethod
    async def open(
        cls,
        url: SourceUrl,
        address: str,
        context: ssl.SSLContext | None,
        headers: Mapping[str, str],
        patience: Patience,
    ) -> Self:
        """Ask for `url` at `address` and return when the answer's head is there.

        Raises:
            SourceBrokenError: It cannot be connected to, breaks off, is silent or speaks no HTTP.
            SourceRefusedError: Its certificate is not valid for the host.
        """
        with _translated(url):
            async with asyncio.timeout(patience.connect_s):
                reader, writer = await asyncio.open_connection(
                    address,
                    url.port,
                    limit=_READ_BYTES,
                    ssl=context,
                    server_hostname=url.host if context is not None else None,
                )
        exchange = cls(url, reader, writer, patience.idle_s)
        try:
            await exchange._ask(headers)
        except BaseException:
            await exchange.close()
            raise
        return exchange

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the answer's body as it comes.

        Raises:
            SourceBrokenError: It breaks off, or is silent for too long.
        """
        while True:
            with _translated(self._url):
                event = await self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        # TLS says goodbye, which the other side may not wait for.
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.wait_closed()

    async def _ask(self, headers: Mapping[str, str]) -> None:
        fields = {
            "Host": self._url.authority,
            "User-Agent": "qcontroller",
            "Accept": "*/*",
            # The file as it is: its digest is over these bytes.
            "Accept-Encoding": "identity",
            "Connection": "close",
            **({"Authorization": self._url.authorization} if self._url.authorization else {}),
            **headers,
        }
        request = h11.Request(method="GET", target=self._url.target, headers=list(fields.items()))
        with _translated(self._url):
            head = (self._state.send(request) or b"") + (self._state.send(h11.EndOfMessage()) or b"")
            self._writer.write(head)
            async with asyncio.timeout(self._idle_s):
                await self._writer.drain()
            event = await self._event()
            while not isinstance(event, h11.Response):
                event = await self._event()
        self.status = event.status_code
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers
        }

    async def _event(self) -> h11.Event:
        while True:
            event = self._state.next_event()
            if isinstance(event, h11.ConnectionClosed):
                raise SourceBrokenError(self._url.shown, "it closed the connection")
            if isinstance(event, h11.Event):
                return event
            async with asyncio.timeout(self._idle_s):
                data = await self._reader.read(_READ_BYTES)
            self._state.receive_data(data)


@contextlib.contextmanager
def _translated(url: SourceUrl) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise SourceRefusedError(url.shown, f"its certificate is not valid: {exc.verify_message}") from exc
    except TimeoutError as exc:
        raise SourceBrokenError(url.shown, "it was silent for too long") from exc
    except (OSError, h11.RemoteProtocolError) as exc:
        raise SourceBrokenError(url.shown, _words_of(exc)) from exc


def _words_of(error: OSError | h11.RemoteProtocolError) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return text or type(error).__name__
