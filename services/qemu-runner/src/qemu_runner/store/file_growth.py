"""Tells when files grow or go, by inotify: nothing polls, and nobody who is slow stalls the writer.

Reading a console through its socket would stall the guest whenever this process stands still; its log
does not.

Source: inotify(7).
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

# Written to; its links, so its end, and its mode; deleted.
_WATCHED: Final = 0x2 | 0x4 | 0x400
_OVERFLOW: Final = 0x4000
_EVENT: Final = struct.Struct("iIII")
_BUFFER_BYTES: Final = 65_536


class FileGrowth:
    """One inotify descriptor for any number of files; a context manager inside the running loop."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        # The kernel has one watch for each file, whoever asked for it.
        self._events: dict[int, list[asyncio.Event]] = {}
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._descriptor = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return self

    def __exit__(self, *_exc: object) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    @contextmanager
    def watching(self, path: Path, event: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever the file was written to, or removed; its reader clears it.

        Args:
            path: The file; any number of readers may watch it.
            event: The one to set; None: a new one.

        Raises:
            FileNotFoundError: It is not there.
            OSError: The file cannot be watched.
        """
        number = self._checked(self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _WATCHED))
        mine = event or asyncio.Event()
        self._events.setdefault(number, []).append(mine)
        try:
            yield mine
        finally:
            # By identity: what is left may be of a file that has this number since.
            others = [one for one in self._events.get(number, ()) if one is not mine]
            if others:
                self._events[number] = others
            else:
                self._events.pop(number, None)
                # It may be gone already, with its file.
                self._libc.inotify_rm_watch(self._descriptor, number)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            if number == -1 and mask & _OVERFLOW:
                # Any of them may have grown.
                for events in self._events.values():
                    _set(events)
            else:
                _set(self._events.get(number, ()))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _set(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
