"""Public SSH keys as a line of authorized_keys holds them: a type, its data, a comment; no options.

It never tells in a fault what it was given: people mistake the private half for the public one.

Source: RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709, OpenSSH's PROTOCOL.u2f.
"""

import base64
import binascii
import re
import struct
from collections.abc import Sequence
from typing import Final

from controller.domain.fault import Fault

MAX_KEYS: Final = 64
MAX_KEY_CHARACTERS: Final = 4096
MAX_KEYS_CHARACTERS: Final = 32 * 1024

PRIVATE: Final = (
    "is a private key, which must not leave its owner's machine: give the line of the .pub file beside it, "
    "and regard this one as disclosed"
)
OPTIONS: Final = "must not have options: begin with the key's type"
NO_LINE: Final = 'must be one line "<type> <base64> [comment]", as in a .pub file'

_ED25519_BYTES: Final = 32
_LEAST_RSA_BITS: Final = 1024
_POINT_BYTES: Final = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
_PLAIN: Final = ("ssh-ed25519", "ssh-rsa", *(f"ecdsa-sha2-{curve}" for curve in _POINT_BYTES))
TYPES: Final = (*_PLAIN, "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")
_PRIVATE: Final = re.compile(r"PRIVATE KEY|PuTTY-User-Key-File|Private-Lines:|b3BlbnNzaC1rZXktdjE")


def normal_key(text: str) -> str:
    """Return a key's line as it is kept, without the end of the line; several lines stay so."""
    line = text.strip()
    return " ".join(line.split(maxsplit=2)) if line.isprintable() else line


def key_faults(keys: Sequence[str], at: str = "/sshKeys") -> list[Fault]:
    """Return what is wrong with keys, each normal."""
    faults = [] if len(keys) <= MAX_KEYS else [Fault(at, f"must be at most {MAX_KEYS}")]
    if sum(map(len, keys)) > MAX_KEYS_CHARACTERS:
        faults.append(Fault(at, f"must have at most {MAX_KEYS_CHARACTERS} characters in all"))
    seen: set[tuple[str, ...]] = set()
    for index, key in enumerate(keys[:MAX_KEYS]):
        wrong = key_fault(key)
        # The comment tells nothing of the key.
        bare = tuple(key.split()[:2])
        if wrong is None and bare in seen:
            wrong = "is given twice"
        seen.add(bare)
        if wrong is not None:
            faults.append(Fault(f"{at}/{index}", wrong))
    return faults


def key_fault(key: str) -> str | None:
    """Return what is wrong with one key."""
    if _PRIVATE.search(key):
        return PRIVATE
    if len(key) > MAX_KEY_CHARACTERS:
        return f"must have at most {MAX_KEY_CHARACTERS} characters"
    words = key.split(maxsplit=2)
    if not key.isprintable() or len(words) < 2:
        return NO_LINE
    kind, data = words[:2]
    if kind not in TYPES:
        if any(word in TYPES for word in key.split()):
            return OPTIONS
        return f"must be a key of type {', '.join(TYPES)}"
    try:
        blob = base64.b64decode(data, validate=True)
        inner, *fields = _strings(blob)
    except (binascii.Error, ValueError):
        return f"does not hold what a key of type {kind} holds: it is cut off or not base64"
    if inner != kind.encode():
        return f"is not of the type that it names, {kind}"
    return None if _fits(kind, fields) else f"does not hold what a key of type {kind} holds"


def _strings(blob: bytes) -> list[bytes]:
    """Return the strings that an SSH message is made of.

    Raises:
        ValueError: It is made of something else.
    """
    found: list[bytes] = []
    at = 0
    while at < len(blob):
        if len(blob) - at < 4:
            raise ValueError("cut off")
        (length,) = struct.unpack_from(">I", blob, at)
        at += 4
        if length > len(blob) - at:
            raise ValueError("cut off")
        found.append(blob[at : at + length])
        at += length
    if not found:
        raise ValueError("empty")
    return found


def _fits(kind: str, fields: Sequence[bytes]) -> bool:
    if kind.startswith("sk-"):
        # The application that the token knows the key by comes last.
        if not fields or not fields[-1]:
            return False
        kind, fields = kind.removeprefix("sk-").removesuffix("@openssh.com"), fields[:-1]
    if kind == "ssh-ed25519":
        return [len(field) for field in fields] == [_ED25519_BYTES]
    if kind == "ssh-rsa":
        return len(fields) == 2 and _bits(fields[0]) > 1 and _bits(fields[1]) >= _LEAST_RSA_BITS
    curve = kind.removeprefix("ecdsa-sha2-")
    # An uncompressed point begins with a 4 (SEC 1, section 2.3.3).
    return (
        len(fields) == 2
        and fields[0] == curve.encode()
        and len(fields[1]) == _POINT_BYTES[curve]
        and fields[1][0] == 4
    )


def _bits(number: bytes) -> int:
    return int.from_bytes(number, "big").bit_length()
