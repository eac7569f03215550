"""Who may speak to the gateway: Host and Origin must name it.

A web page that the user happens to open must not drive it, neither directly (Origin) nor by a name that its
owner points to this address (Host; DNS rebinding).
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from gateway.errors import HostNotAllowedError, OriginNotAllowedError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AccessRule:
    """The names under which the gateway may be reached, at any port."""

    def __init__(self, external_names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in (*_LOOPBACK, *external_names))

    def check(self, host: str, origin: str | None) -> None:
        """Let a request pass or refuse it.

        Raises:
            HostNotAllowedError: Host names something else.
            OriginNotAllowedError: It was sent by a page of another origin.
        """
        if not self._is_ours(f"//{host}"):
            raise HostNotAllowedError(host)
        if origin is not None and not self._is_ours(origin):
            raise OriginNotAllowedError(origin)

    def _is_ours(self, url: str) -> bool:
        try:
            name = urlsplit(url).hostname
        except ValueError:
            return False
        return name is not None and name.rstrip(".") in self._names
