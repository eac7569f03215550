"""Taking secrets out of text that people will be sent.

It removes rather too much: words of a user-data that also stand elsewhere go there too, and so does what
follows a name like "password". What it cannot know is a secret that was never told to this service.
"""

import json
import re
import zlib
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

REMOVED: Final = "[removed]"

_GZIP: Final = b"\x1f\x8b"
_WITH_HEADER: Final = 16
_MIME: Final = (b"content-type:", b"mime-version:")
_MOST_HEAD: Final = 64
_BOUNDARY: Final = re.compile(rb"^--[^\n]*$", re.MULTILINE)
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_ENCODING: Final = re.compile(
    rb"^content-transfer-encoding:\s{0,64}(base64|quoted-printable)", re.MULTILINE | re.IGNORECASE
)
_NO_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]+")
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
    """Return the text that a guest may print of a secret.

    A gzip is unpacked, and the parts of a MIME message follow it decoded. What comes out of both is
    `_MOST_UNPACKED_BYTES` at most; what is beyond stays unknown.
    """
    data = _unpacked(data, _MOST_UNPACKED_BYTES)
    texts = [data]
    if data[:_MOST_HEAD].lstrip().lower().startswith(_MIME):
        left = _MOST_UNPACKED_BYTES
        for part in _parts(data):
            content = _unpacked(part, left)[:left]
            left -= len(content)
            texts.append(content)
    return "\n".join(text.decode("utf-8", "replace") for text in texts)


def _parts(message: bytes) -> Iterator[bytes]:
    """Yield the encoded parts of a MIME message, decoded (RFC 2045, section 6).

    Whatever looks like a boundary is one: a reader that follows nested ones takes the square of a hostile
    message's length, or a stack as deep.
    """
    for part in _BOUNDARY.split(message):
        head, *body = _BLANK_LINE.split(part.lstrip(), maxsplit=1)
        encoding = _ENCODING.search(head)
        if encoding is None or not body:
            continue
        if encoding.group(1).lower() == b"base64":
            bare = _NO_BASE64.sub(b"", body[0])
            # One digit of the last four tells no byte.
            bare = bare[:-1] if len(bare) % 4 == 1 else bare
            yield a2b_base64(bare + b"=" * (-len(bare) % 4))
        else:
            yield a2b_qp(body[0])


def _unpacked(data: bytes, most: int) -> bytes:
    """Return what a gzip holds, of all members (RFC 1952, section 2.2); what is none stays as it is."""
    if not data.startswith(_GZIP):
        return data
    out = bytearray()
    rest = data
    # What only begins like one, the guest cannot unpack either; what came before it, it can.
    with suppress(zlib.error):
        while rest.startswith(_GZIP) and len(out) < most:
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | _WITH_HEADER)
            out += member.decompress(rest, most - len(out))
            rest = member.unused_data
        return bytes(out)
    return bytes(out) or data


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
