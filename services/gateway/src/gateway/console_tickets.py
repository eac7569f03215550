"""Tickets that let a page in a browser attach to a console: random, for one instance, once, for 30 s.

They live in this process alone: a ticket is redeemed where it was issued, and a restart forgets them all.
What is kept is their digest, so that nothing that is dumped or logged can be redeemed.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.errors import ConsoleTicketError

VALID_S: Final = 30.0
_MOST: Final = 1024
# A ticket that is over is remembered for as long, to say what is wrong with it.
_REMEMBERED_S: Final = 300.0
_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket, to be shown once, and until when it is good."""

    value: str
    expire_time: datetime


@dataclass(slots=True)
class _Issued:
    instance: str
    instance_id: str
    until: float
    used: bool = False


class ConsoleTickets:
    """The tickets of this gateway.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # In the order of their expiry.
        self._issued: dict[bytes, _Issued] = {}

    def issue(self, instance: str, instance_id: str) -> Ticket:
        """Return a new ticket for the console of `instance`.

        Where there are many, one that is over makes room, or else the oldest: a page that asks for tickets
        without end costs others another ticket, not the console.
        """
        now = self._clock()
        self._forget(now)
        if len(self._issued) >= _MOST:
            over = (key for key, one in self._issued.items() if one.used or one.until <= now)
            del self._issued[next(over, next(iter(self._issued)))]
        value = secrets.token_urlsafe(_BYTES)
        self._issued[_digest(value)] = _Issued(instance, instance_id, now + VALID_S)
        return Ticket(value, datetime.now(UTC) + timedelta(seconds=VALID_S))

    def redeem(self, value: str, instance: str) -> str:
        """Use the ticket up; return the id of the instance that it was issued for.

        Raises:
            ConsoleTicketError: It is not one of ours, another instance's, used, or too old.
        """
        now = self._clock()
        issued = self._issued.get(_digest(value))
        if issued is None:
            raise ConsoleTicketError("CONSOLE_TICKET_UNKNOWN", "The ticket was not issued here.")
        if issued.used:
            raise ConsoleTicketError("CONSOLE_TICKET_USED", "The ticket was used before.")
        if issued.until <= now:
            raise ConsoleTicketError("CONSOLE_TICKET_EXPIRED", f"The ticket was good for {VALID_S:g} s.")
        issued.used = True
        if issued.instance != instance:
            raise ConsoleTicketError("CONSOLE_TICKET_UNKNOWN", "The ticket is of another instance.")
        return issued.instance_id

    def _forget(self, now: float) -> None:
        for key in [key for key, one in self._issued.items() if one.until + _REMEMBERED_S <= now]:
            del self._issued[key]


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
