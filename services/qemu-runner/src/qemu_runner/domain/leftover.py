"""What lies in a guest for the time of a transfer or of a streamed program, and must not stay there."""

import json
import re
import secrets
from dataclasses import dataclass
from typing import Final

_PATH: Final = re.compile(r"(?P<directory>/.*|)/\.qcontroller-(?P<token>[0-9a-f]{16})", re.DOTALL)
_MAX_HANDLE: Final = 2**63
_MAX_HANDLES: Final = 8


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or a directory of ours in a guest.

    Attributes:
        path: Where it is; its name is nobody else's.
        handles: The agent's, which keep its bytes for as long as they are open.
        is_program: Whether it is the directory of a streamed program, which ends with it.
    """

    path: str
    handles: tuple[int, ...] = ()
    is_program: bool = False

    @property
    def token(self) -> str:
        """The part of its name that is its own."""
        return self.path[-16:]

    def text(self) -> str:
        """Return it as `leftover_of` reads it."""
        return json.dumps({"path": self.path, "handles": self.handles, "isProgram": self.is_program})


def leftover_in(directory: str, *, is_program: bool = False) -> Leftover:
    """Return one with a new name in a directory of the guest; "" is its root."""
    return Leftover(f"{directory}/.qcontroller-{secrets.token_hex(8)}", is_program=is_program)


def leftover_of(text: str) -> Leftover | None:
    """Return what was written down; None where it was not by us, or not to its end."""
    try:
        read = json.loads(text)
    except ValueError:
        return None
    match read:
        case {"path": str(path), "handles": [*handles], "isProgram": bool(is_program)} if _PATH.fullmatch(
            path
        ):
            pass
        case _:
            return None
    if len(handles) > _MAX_HANDLES or not all(type(one) is int and abs(one) < _MAX_HANDLE for one in handles):
        return None
    return Leftover(path, tuple(handles), is_program)
