"""A URL that an image is fetched from, read strictly: what clients read differently is refused.

Userinfo and query may hold secrets: only `shown` may go into messages and logs.
"""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from image_store.errors import InvalidRequestError

_PORTS: Final = {"http": 80, "https": 443}
_MAX_CHARACTERS: Final = 4096
_PRINTABLE: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_.])?")
_FORBIDDEN: Final = re.compile(r'[\\"<>^`{|}]')


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """Where a file is.

    Attributes:
        host: Lower-case name or address, IPv6 without brackets.
        target: Path and query, as they are asked for.
        authorization: Value of the header that userinfo makes; empty: none.
    """

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    authorization: str = field(repr=False, default="")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL.

        Raises:
            InvalidRequestError: It cannot be used; the fault repeats nothing of it.
        """
        fault = _fault_of(text)
        if fault is not None:
            raise InvalidRequestError.at("/url", fault)
        parts = urlsplit(text)
        target = parts.path or "/"
        return cls(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            target=f"{target}?{parts.query}" if parts.query else target,
            authorization=_authorization(parts),
        )

    @property
    def authority(self) -> str:
        """Host and port for the Host header, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.scheme == "https"

    @property
    def shown(self) -> str:
        """The URL without what may be secret."""
        path, _, query = self.target.partition("?")
        return f"{self.scheme}://{self.authority}{path}{'?…' if query else ''}"

    def follow(self, location: str) -> "SourceUrl":
        """Return where a redirect leads; credentials stay with the server that they were given for.

        Raises:
            InvalidRequestError: Nowhere that could be followed.
        """
        try:
            there = urljoin(f"{self.scheme}://{self.authority}{self.target}", location)
        except ValueError:
            there = ""
        return self._with_credentials(SourceUrl.parse(there))

    def _with_credentials(self, there: "SourceUrl") -> "SourceUrl":
        if there.authorization or (there.scheme, there.host, there.port) != (
            self.scheme,
            self.host,
            self.port,
        ):
            return there
        return SourceUrl(there.scheme, there.host, there.port, there.target, self.authorization)


def _fault_of(text: str) -> str | None:
    if not text:
        return "is required"
    if len(text) > _MAX_CHARACTERS:
        return f"must have at most {_MAX_CHARACTERS} characters"
    if _PRINTABLE.fullmatch(text) is None or _FORBIDDEN.search(text) is not None:
        return "must be a URL: other characters are written as %XX, other hosts as xn--…"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "must be a URL: its host or its port is none"
    if parts.scheme not in _PORTS:
        return "must begin with http:// or https://"
    if port == 0 or not _is_host(parts.hostname or ""):
        return "must name a host, and no port but 1 to 65535"
    return None


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            return IPv6Address(host).scope_id is None
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None


def _authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    # RFC 7617; UTF-8 as every server of today reads it.
    return "Basic " + b64encode(pair.encode()).decode()
