"""Images that are named by a URL: how they are told from names, called, and shown.

What a URL may be and where it may lead is the image store's to judge: it connects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class FetchWish:
    """An image that is to be fetched.

    Attributes:
        url: Secret, but for what `shown_url` leaves of it.
        digest: Of the file as served.
        arch: Empty: the store's default.
        only_new: Refuse to replace what has the name.
    """

    name: str
    url: str = field(repr=False)
    digest: str
    arch: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    only_new: bool = False


def is_url(image: str) -> bool:
    """Tell whether a launch's image is a URL; no name of an image has such characters."""
    return "://" in image


def name_of_digest(digest: str) -> str:
    """Return the name under which a launch from a URL imports the image: another for each content."""
    return digest.replace(":", "-")


def shown_url(url: str) -> str:
    """Return a URL without what may be secret: userinfo and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def shown_image(image: str) -> str:
    """Return a launch's image without what may be secret."""
    return shown_url(image) if is_url(image) else image
