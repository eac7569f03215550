"""Pauses between attempts at what tells nobody when it comes to be so."""

import asyncio
from typing import Final

_LEAST_PAUSE_S: Final = 0.1
_FIRST_PAUSE_S: Final = 0.1
_GROWTH: Final = 1.5
_LONGEST_PAUSE_S: Final = 2.0


class Pause:
    """A pause between two attempts: it grows, and ends early when it is woken."""

    def __init__(self, woken: asyncio.Event) -> None:
        self._woken = woken
        self._length_s = _FIRST_PAUSE_S

    def reset(self) -> None:
        """Begin with the shortest again."""
        self._length_s = _FIRST_PAUSE_S

    async def until_woken(self) -> None:
        """Wait for the waking alone."""
        await self._woken.wait()
        self._woken.clear()

    async def grown(self) -> None:
        """Wait for the next attempt; without a waking the one after is later."""
        # A guest that is the cause of the waking does not set the pace.
        await asyncio.sleep(_LEAST_PAUSE_S)
        try:
            async with asyncio.timeout(self._length_s):
                await self._woken.wait()
        except TimeoutError:
            self._length_s = min(self._length_s * _GROWTH, _LONGEST_PAUSE_S)
        else:
            self._woken.clear()
            self.reset()
