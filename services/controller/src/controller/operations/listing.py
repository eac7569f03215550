"""Pages of operations.

It owns the page token, which is opaque and bound to its filter. Pages go by `seq` downwards, so that rows
that come or go meanwhile neither repeat nor hide others.
"""

import base64
import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import Connection, select

from controller.operations import store
from controller.operations.errors import PageTokenInvalid
from controller.operations.operation import Operation
from controller.operations.rows import operations
from controller.operations.state import PublicState

_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations to list; an empty member does not restrict."""

    subject: str | None = None
    subject_name: str | None = None
    states: frozenset[PublicState] = frozenset()
    kinds: frozenset[str] = frozenset()
    tenant: str | None = None

    def digest(self) -> str:
        """Return what binds a page token to this filter."""
        members = [self.subject, self.subject_name, sorted(self.states), sorted(self.kinds), self.tenant]
        return hashlib.sha256(json.dumps(members).encode()).hexdigest()[:_DIGEST_CHARACTERS]


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Newest first; `next_page_token` is "" on the last page."""

    operations: tuple[Operation, ...]
    next_page_token: str


def page(conn: Connection, chosen: OperationFilter, page_size: int, page_token: str) -> OperationPage:
    """Read one page.

    Raises:
        PageTokenInvalid: If the token is not ours or belongs to another filter.
    """
    query = select(operations).order_by(operations.c.seq.desc()).limit(page_size + 1)
    if page_token:
        query = query.where(operations.c.seq < _decode(page_token, chosen))
    if chosen.subject is not None:
        query = query.where(operations.c.subject == chosen.subject)
    if chosen.subject_name is not None:
        query = query.where(operations.c.subject_name == chosen.subject_name)
    if chosen.tenant is not None:
        query = query.where(operations.c.tenant == chosen.tenant)
    if chosen.kinds:
        query = query.where(operations.c.kind.in_(sorted(chosen.kinds)))
    if chosen.states:
        stored = {state for public in chosen.states for state in public.stored}
        query = query.where(operations.c.state.in_(sorted(stored)))
    found = [store.to_operation(row) for row in conn.execute(query)]
    shown = tuple(found[:page_size])
    token = _encode(shown[-1].seq, chosen) if len(found) > page_size else ""
    return OperationPage(shown, token)


def _encode(seq: int, chosen: OperationFilter) -> str:
    return base64.urlsafe_b64encode(f"{chosen.digest()}:{seq}".encode()).decode().rstrip("=")


def _decode(token: str, chosen: OperationFilter) -> int:
    try:
        padded = token + "=" * (-len(token) % 4)
        digest, _, seq = (
            base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
        )
        position = int(seq)
    except ValueError as exc:
        raise PageTokenInvalid("not a page token of this list") from exc
    if digest != chosen.digest():
        raise PageTokenInvalid("the page token belongs to another filter")
    return position
