"""Keys that secrets are sealed with where they are stored, and the file that they are read from.

AES-256-GCM with a random nonce of 96 bits (NIST SP 800-38D); what a sealed value belongs to is authenticated
with it, so that it opens in its own place only. A key is never logged, shown or stored: rows carry an id
that is made from it.
"""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from servicekit.settings import SettingsError

from controller.errors import SecretUnreadable

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 8
_MOST_KEYS: Final = 16
_MOST_FILE_BYTES: Final = 16 * 1024
_ID_LABEL: Final = b"qcontroller secret key id\0"
# What rows that are not sealed carry as the id of their key.
PLAIN: Final = ""


class Keyring:
    """Keys: the first one seals, every one opens what it has sealed. Without any, values stay as they are."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        """Take keys of `KEY_BYTES` bytes."""
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}

    @property
    def sealing_id(self) -> str:
        """Id of the key that seals; `PLAIN` if there is none."""
        return next(iter(self._ciphers), PLAIN)

    def knows(self, sealed_by: str) -> bool:
        """Tell whether values under this id can be opened; what is not sealed always can."""
        return sealed_by == PLAIN or sealed_by in self._ciphers

    def seal(self, value: bytes, place: str) -> bytes:
        """Return `value` under the key of `sealing_id`, for this place alone."""
        if self.sealing_id == PLAIN:
            return value
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[self.sealing_id].encrypt(nonce, value, place.encode())

    def open(self, value: bytes, place: str, sealed_by: str) -> bytes:
        """Return what was sealed by the key of this id, for this place.

        Raises:
            SecretUnreadable: There is no such key, or the value was changed or moved.
        """
        if sealed_by == PLAIN:
            return value
        cipher = self._ciphers.get(sealed_by)
        if cipher is None:
            raise SecretUnreadable(place, f"it is sealed by the key {sealed_by}, which is not configured")
        try:
            return cipher.decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError) as exc:
            raise SecretUnreadable(place, "its stored bytes were changed, or are another row's") from exc


def key_id(key: bytes) -> str:
    """Return the id of a key: it tells keys apart, and nothing of them."""
    return hashlib.sha256(_ID_LABEL + key).digest()[:_ID_BYTES].hex()


def read_keyring(path: Path) -> Keyring:
    """Return the keys of a file: a line each, base64 of 32 random bytes; empty lines and # lines are none.

    Blocks.

    Raises:
        SettingsError: The file cannot be read, others may read or write it, or it holds something else.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            content = file.read(_MOST_FILE_BYTES + 1)
    except OSError as exc:
        raise SettingsError(f"secretKeyFile: {path}: {exc.strerror}") from exc
    if not stat.S_ISREG(found.st_mode):
        raise SettingsError(f"secretKeyFile: {path}: not a regular file")
    if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        mode = stat.S_IMODE(found.st_mode)
        raise SettingsError(
            f"secretKeyFile: {path}: mode {mode:04o} lets others use it; make it 0400, or 0440 for a group"
        )
    if len(content) > _MOST_FILE_BYTES:
        raise SettingsError(f"secretKeyFile: {path}: larger than {_MOST_FILE_BYTES} bytes")
    keys: list[bytes] = []
    for number, line in enumerate(content.splitlines(), 1):
        text = line.strip()
        if text and not text.startswith(b"#"):
            keys.append(_key(text, f"secretKeyFile: {path}: line {number}"))
    if not keys:
        raise SettingsError(f"secretKeyFile: {path}: no key in it")
    if len(set(keys)) != len(keys) or len(keys) > _MOST_KEYS:
        raise SettingsError(f"secretKeyFile: {path}: at most {_MOST_KEYS} keys, each once")
    return Keyring(keys)


def _key(text: bytes, where: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        # The line is not repeated: it may be a key with a slip of the pen. And without a cause, for the same.
        raise SettingsError(f"{where}: must be the base64 of {KEY_BYTES} bytes")
    return key
