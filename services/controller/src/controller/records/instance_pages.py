"""Pages of instances, by name.

A page begins after a name, so that rows that come or go meanwhile neither repeat nor hide others. The token
is opaque and bound to its filter.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, exists

from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.errors import PageTokenForeign
from controller.records.instance_rows import SELECTION, to_instance
from controller.records.schema import instance_labels, instances

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
_DIGEST_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """All `labels` must hold, and any of `states`; an empty member does not restrict."""

    labels: Mapping[str, str] = field(default_factory=dict)
    states: frozenset[InstanceState] = frozenset()

    def digest(self) -> str:
        """Return what binds a page token to this filter."""
        members = [sorted(self.labels.items()), sorted(self.states)]
        return hashlib.sha256(json.dumps(members).encode()).hexdigest()[:_DIGEST_CHARACTERS]


@dataclass(frozen=True, slots=True)
class InstancePage:
    """In order of name; `next_page_token` is "" on the last page."""

    instances: tuple[Instance, ...]
    next_page_token: str


def page(conn: Connection, chosen: InstanceFilter, page_size: int, page_token: str) -> InstancePage:
    """Read one page; `page_size` 0 is the default.

    Raises:
        PageTokenForeign: The token is not ours or belongs to another filter.
    """
    size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    query = SELECTION.order_by(instances.c.name).limit(size + 1)
    if page_token:
        query = query.where(instances.c.name > _decode(page_token, chosen))
    if chosen.states:
        query = query.where(instances.c.state.in_(sorted(chosen.states)))
    for key, value in sorted(chosen.labels.items()):
        query = query.where(
            exists().where(
                instance_labels.c.instance_id == instances.c.id,
                instance_labels.c.key == key,
                instance_labels.c.value == value,
            )
        )
    found = [to_instance(row) for row in conn.execute(query)]
    shown = tuple(found[:size])
    return InstancePage(shown, token_after(shown[-1].name, chosen) if len(found) > size else "")


def token_after(name: str, chosen: InstanceFilter) -> str:
    """Return the token of the page that begins after this name."""
    return base64.urlsafe_b64encode(f"{chosen.digest()}:{name}".encode()).decode().rstrip("=")


def _decode(token: str, chosen: InstanceFilter) -> str:
    try:
        padded = token + "=" * (-len(token) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except ValueError as exc:
        raise PageTokenForeign from exc
    digest, _, name = raw.partition(":")
    if digest != chosen.digest() or not name:
        raise PageTokenForeign
    return name
