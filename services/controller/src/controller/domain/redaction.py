"""Taking secrets out of text that people will be sent.

It removes rather too much: words of a user-data that also stand elsewhere go there too, and so does what
follows a name like "password". What it cannot know is a secret that was never told to this service.
"""

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

REMOVED: Final = "[removed]"

_GZIP: Final = b"\x1f\x8b"
_WITH_HEADER: Final = 16
_MOST_UNPACKED_BYTES: Final = 1024 * 1024
_LEAST_WORD: Final = 8
_LEAST_VALUE: Final = 4
_MOST_VALUES: Final = 2000
_NAMES: Final = (
    r"(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|authorization|credential)"
)
# Escapes of JSON and of terminals end a word, as separators do.
_WORD: Final = re.compile(
    r"\\u001[bB]\[[0-9;]*[A-Za-z]|\x1b\[[0-9;]*[A-Za-z]|\\u[0-9a-fA-F]{4}|\\."
    r"|[^\s\"'\[\]{},;|&<>()=:\\\x00-\x1f]+"
)
# Guests write what is searched here: no part may be tried again from each place of a long run, which would
# stop the service for as long as the square of its length.
_NAMED: Final = re.compile(
    rf"(?i)({_NAMES}[\w.-]{{0,64}}\\?\"?\s{{0,64}}[:=]\s{{0,64}})"
    r"(\"(?:[^\"\\\n]|\\.)+\"|\\\"[^\"\n]+\\\"|'[^'\n]+'|[^\s,}\]\"']+)"
)
_KEY_BLOCK: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_SECRET_NAME: Final = re.compile(rf"(?i){_NAMES}")
_VALUE: Final = re.compile(r"[:=]\s*(.+)$")


def readable(data: bytes) -> str:
    """Return the text that a guest may print of a secret: a gzip is unpacked, within bounds."""
    if data.startswith(_GZIP):
        # What only begins like one, the guest cannot unpack either.
        with suppress(zlib.error):
            data = zlib.decompressobj(wbits=zlib.MAX_WBITS | _WITH_HEADER).decompress(
                data, _MOST_UNPACKED_BYTES
            )
    return data.decode("utf-8", "replace")


class Redaction:
    """Removes secrets.

    Args:
        secrets: Whole texts that are secret, such as a user-data.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        texts = [text for text in secrets if text]
        self._words = frozenset(word for text in texts for word in _words(text))
        values = sorted({value for text in texts for value in _values(text)}, key=len, reverse=True)
        forms = {form for value in values[:_MOST_VALUES] for form in (value, json.dumps(value)[1:-1])}
        self._values = sorted(forms, key=len, reverse=True)

    def clean(self, content: bytes) -> bytes:
        """Return `content` without what is secret; bytes that are no text are replaced."""
        text = content.decode("utf-8", "replace")
        text = _KEY_BLOCK.sub(REMOVED, text)
        for value in self._values:
            text = text.replace(value, REMOVED)
        if self._words:
            text = _WORD.sub(self._word, text)
        return _NAMED.sub(_unnamed, text).encode()

    def _word(self, found: re.Match[str]) -> str:
        return REMOVED if found.group() in self._words else found.group()


def _words(text: str) -> Iterator[str]:
    return (word for word in _WORD.findall(text) if len(word) >= _LEAST_WORD)


def _values(text: str) -> Iterator[str]:
    """Yield whole lines, and what short values are told to be secret by their names."""
    for raw in text.splitlines():
        line = raw.strip()
        if len(line) >= _LEAST_WORD:
            yield line
        value = _VALUE.search(line)
        if value is not None and _SECRET_NAME.search(line):
            bare = value.group(1).strip().strip("\"'")
            if len(bare) >= _LEAST_VALUE:
                yield bare


def _unnamed(found: re.Match[str]) -> str:
    # Quoted in any case, so that JSON stays JSON, also within a string of JSON.
    value = found.group(2)
    quote = "'" if value.startswith("'") else '\\"' if value.startswith('\\"') else '"'
    return f"{found.group(1)}{quote}{REMOVED}{quote}"
