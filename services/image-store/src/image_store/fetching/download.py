"""A file on its way from a URL: redirects followed, addresses checked, broken connections resumed."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from image_store.errors import (
    InvalidRequestError,
    SourceBrokenError,
    SourceForbiddenError,
    SourceRefusedError,
)
from image_store.fetching.address_policy import AddressPolicy
from image_store.fetching.exchange import Exchange, Patience
from image_store.fetching.source_url import SourceUrl

Resolver = Callable[[str, int], Awaitable[list[str]]]

_REDIRECTS: Final = 5
_RESUMPTIONS: Final = 8
_REDIRECTING: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({408, 425, 429})
_OK, _PARTIAL, _ERRORS, _SERVER_ERRORS = 200, 206, 400, 500
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


async def system_resolver(host: str, port: int) -> list[str]:
    """Return the addresses of `host` in the order that the system prefers.

    Raises:
        OSError: There are none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Downloads:
    """Opens downloads."""

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        ca_file: Path | None = None,
        patience: Patience | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._policy = policy
        self._ca_file = ca_file
        self._patience = patience or Patience()
        self._resolver = resolver

    async def check(self, url: SourceUrl) -> None:
        """Refuse what `open` would refuse for its address; a name that is not known now may be later.

        Raises:
            SourceForbiddenError: It has no address that may be connected to.
        """
        try:
            await self._addresses(url)
        except SourceBrokenError:
            return

    @asynccontextmanager
    async def open(self, url: SourceUrl) -> AsyncIterator["Download"]:
        """Ask for the file at `url`.

        Raises:
            SourceForbiddenError: An address on the way may not be connected to.
            SourceRefusedError: There is no such file, or no way to it.
            SourceBrokenError: The server cannot be used now.
        """
        download = Download(self, *await self.ask(url, {}))
        try:
            yield download
        finally:
            await download.close()

    async def ask(self, url: SourceUrl, headers: dict[str, str]) -> tuple[SourceUrl, Exchange]:
        """Follow redirects from `url`; return where they led and its answer, which is none of an error."""
        for _ in range(_REDIRECTS + 1):
            exchange = await self._exchange(url, headers)
            try:
                following = _judged(url, exchange)
            except BaseException:
                await exchange.close()
                raise
            if following is None:
                return url, exchange
            await exchange.close()
            url = following
        raise SourceRefusedError(url.shown, f"it redirects more than {_REDIRECTS} times")

    async def _exchange(self, url: SourceUrl, headers: dict[str, str]) -> Exchange:
        addresses = await self._addresses(url)
        # Read again for each connection: the file may be replaced, and reading it blocks.
        context = await asyncio.to_thread(self._tls) if url.secure else None
        for position, address in enumerate(addresses, start=1):
            try:
                return await Exchange.open(url, address, context, headers, self._patience)
            except SourceBrokenError:
                if position == len(addresses):
                    raise
        raise AssertionError("a host without addresses is refused before")

    async def _addresses(self, url: SourceUrl) -> list[str]:
        """Return the addresses that may be connected to: no name is looked up again after this."""
        try:
            async with asyncio.timeout(self._patience.connect_s):
                found = await self._resolver(url.host, url.port)
        except TimeoutError as exc:
            raise SourceBrokenError(url.shown, "its host's name was not resolved in time") from exc
        except OSError as exc:
            raise SourceBrokenError(url.shown, "its host is not known") from exc
        permitted = [address for address in found if self._policy.permits(url.host, address)]
        if not permitted:
            raise SourceForbiddenError(url.host, found[0] if found else "")
        return permitted

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=None if self._ca_file is None else str(self._ca_file))


class Download:
    """A file being read; `total_bytes` is None if the server does not say."""

    def __init__(self, downloads: Downloads, url: SourceUrl, exchange: Exchange) -> None:
        """Use `Downloads.open`."""
        self._downloads = downloads
        self._url = url
        self._exchange = exchange
        length = exchange.headers.get("content-length", "")
        self.total_bytes = int(length) if length.isdecimal() else None
        self._validator = _validator_of(exchange)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file; a connection that breaks is taken up where it broke, if the server can.

        Raises:
            SourceBrokenError: It broke too often, or the file has changed meanwhile.
        """
        received, resumptions = 0, 0
        while True:
            try:
                async for chunk in self._exchange.body():
                    received += len(chunk)
                    yield chunk
            except SourceBrokenError:
                if not self._validator or resumptions == _RESUMPTIONS:
                    raise
            else:
                return
            resumptions += 1
            await self._resume(received)

    async def close(self) -> None:
        """Hang up."""
        await self._exchange.close()

    async def _resume(self, offset: int) -> None:
        await self._exchange.close()
        headers = {"Range": f"bytes={offset}-", "If-Range": self._validator}
        _, self._exchange = await self._downloads.ask(self._url, headers)
        given = _CONTENT_RANGE.fullmatch(self._exchange.headers.get("content-range", ""))
        if self._exchange.status != _PARTIAL or given is None or int(given[1]) != offset:
            raise SourceBrokenError(self._url.shown, "the rest of a broken transfer is not to be had")


def _judged(url: SourceUrl, exchange: Exchange) -> SourceUrl | None:
    """Return where an answer redirects to, None for one that brings the file."""
    status = exchange.status
    if status in _REDIRECTING:
        try:
            return url.follow(exchange.headers.get("location", ""))
        except InvalidRequestError as exc:
            raise SourceForbiddenError(url.host, "", "it redirects to what is no http(s) URL") from exc
    if status in {_OK, _PARTIAL}:
        return None
    if status in _PASSING or status >= _SERVER_ERRORS:
        raise SourceBrokenError(url.shown, f"it answers {status}")
    raise SourceRefusedError(url.shown, f"it answers {status}", status)


def _validator_of(exchange: Exchange) -> str:
    """Return what a resumed transfer is bound to (RFC 9110, section 13.1.5); empty: it cannot be."""
    if exchange.headers.get("accept-ranges", "").lower() == "none":
        return ""
    etag = exchange.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else exchange.headers.get("last-modified", "")
