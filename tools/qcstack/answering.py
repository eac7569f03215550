"""Whether a stack answers: /readyz of its gateway, asked until it says READY."""

import contextlib
import http.client
import json
import os
import time
from typing import Final

from qcstack.layout import StackLayout

READY_WITHIN_S: Final = 60.0


class StackError(Exception):
    """Something that keeps a stack from starting or ending; the message says what to do."""


def wait_answering(layout: StackLayout) -> None:
    """Wait until /readyz of a stack that somebody else keeps running says READY.

    Raises:
        StackError: It did not in time.
    """
    last = "no answer yet"
    give_up = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up:
        ready, last = ask_ready(layout)
        if ready:
            return
        # Before the gateway listens there is nobody who could tell when it will.
        time.sleep(0.05)
    raise StackError(f"not ready after {READY_WITHIN_S:.0f} s: {last}")


def ask_ready(layout: StackLayout) -> tuple[bool, str]:
    """Return whether the gateway says READY, and what it says or why it says nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", layout.gateway_port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except OSError as exc:
            return False, os.strerror(exc.errno) if exc.errno else str(exc)
        except http.client.HTTPException as exc:
            return False, f"what answers there is no gateway: {exc!r}"
    if response.status != http.HTTPStatus.OK:
        return False, text
    try:
        # Whatever has the port may answer 200 to anything.
        ready = json.loads(text)["status"] == "READY"
    except (ValueError, KeyError, TypeError):
        return False, "what answers there is no gateway"
    return ready, text
