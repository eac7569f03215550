"""Regular expressions on a console's bytes as they come, in time that grows with the bytes alone.

RE2 has no backtracking: users choose the expression, guests the text. What is searched again with the next
bytes is the line that has not ended, cut to a bound.

Source: https://github.com/google/re2/wiki/Syntax
"""

from typing import Any, Final

import re2

# It comes without types.
_ENGINE: Any = re2

MAX_LINE_BYTES: Final = 4096
# Of the compiled expression; what needs more is refused, so that no launch costs the runner its memory.
_MAX_MEMORY_BYTES: Final = 1024 * 1024


class ExpressionError(ValueError):
    """It is no expression, or too large a one; says why."""


def compiled(expression: str) -> Any:
    """Return `expression` compiled for lines.

    Raises:
        ExpressionError: It does not compile.
    """
    options = _ENGINE.Options()
    options.never_nl = True
    options.never_capture = True
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_BYTES
    try:
        # By itself first: together with the flag an unbalanced ")" could mean something else.
        _ENGINE.compile(expression, options)
        return _ENGINE.compile(f"(?m){expression}", options)
    except _ENGINE.error as exc:
        why = exc.args[0] if exc.args else "it does not compile"
        raise ExpressionError(why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)) from exc


class SerialMatch:
    """One expression and what it has seen of the line that is not complete; constant memory.

    Args:
        expression: As `compiled` takes it.
    """

    def __init__(self, expression: str) -> None:
        self._expression = compiled(expression)
        self._line = b""

    def forget(self) -> None:
        """Begin anew: the guest boots again."""
        self._line = b""

    def feed(self, chunk: bytes) -> str | None:
        """Take the next bytes; return the first line that matches, or None."""
        text = self._line + chunk.replace(b"\r", b"")
        *lines, rest = text.split(b"\n")
        # Whole lines are cut one by one only where one is longer than what is looked at.
        if any(len(line) > MAX_LINE_BYTES for line in lines):
            text = b"\n".join([line[:MAX_LINE_BYTES] for line in [*lines, rest]])
        else:
            text = text[: len(text) - len(rest) + MAX_LINE_BYTES]
        self._line = rest[:MAX_LINE_BYTES]
        found = self._expression.search(text)
        return None if found is None else _line_around(text, found.start())


def _line_around(text: bytes, position: int) -> str:
    begin = text.rfind(b"\n", 0, position) + 1
    end = text.find(b"\n", position)
    line = text[begin : end if end >= 0 else len(text)].decode("utf-8", "replace")
    return "".join(character for character in line if character.isprintable())[:200]
