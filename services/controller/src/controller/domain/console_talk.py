"""What goes to and fro while somebody is attached to a serial console.

Viewers, commands and news are the contract's messages of these names: handed on, never looked into.
"""

from dataclasses import dataclass
from typing import NewType

ConsoleViewer = NewType("ConsoleViewer", bytes)
"""Who wants to see a console, and how."""

ConsoleCommand = NewType("ConsoleCommand", bytes)
"""What an attached viewer asks."""

ConsoleNews = NewType("ConsoleNews", bytes)
"""What an attached viewer is told."""


@dataclass(frozen=True, slots=True)
class ConsoleEnd:
    """Why a console has ended, and the offset of the byte that would have come next."""

    reason: str
    detail: str
    offset: int
