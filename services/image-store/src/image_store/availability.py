"""Whether blobs can be kept and read now: found out by asking the backend, and told as the store's health.

A backend that is away ends nothing: calls that need it are refused with its reason until it is back, and what
could not be cleaned up meanwhile is cleaned up then.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from servicekit.health import Health

from image_store.blobs.port import BlobStore
from image_store.collector import Collector
from image_store.errors import ImageStoreError

_LOG = logging.getLogger(__name__)

INTERVAL_S: Final = 5.0
_AWAY_INTERVAL_S: Final = 1.0


class Availability:
    """Looks after the backend. No backend of ours tells by itself that it is there, so it is asked."""

    def __init__(self, blobs: BlobStore, collector: Collector) -> None:
        self._blobs = blobs
        self._collector = collector
        self._swept = False
        # Why the backend cannot be used; "" if it can.
        self._fault: str | None = None

    async def look(self) -> None:
        """Ask the backend once; clean up if it is there for the first time, or again."""
        try:
            await self._blobs.check()
            if not self._swept:
                await self._collector.sweep()
                self._swept = True
            fault = ""
        except ImageStoreError as exc:
            self._swept = False
            fault = str(exc)
        except Exception:  # noqa: BLE001 - a mistake of ours: looking goes on, or health would stay as it is
            _LOG.exception("looking after the backend failed")
            self._swept = False
            fault = "The image store failed to look after its backend: see its log."
        if fault != self._fault:
            if fault:
                _LOG.error("blobs cannot be used", extra={"detail": fault})
            else:
                _LOG.info("blobs can be used")
            self._fault = fault

    @contextlib.asynccontextmanager
    async def told_to(self, healths: Sequence[Health]) -> AsyncIterator[None]:
        """Go on looking while the context is open, and tell `healths` what was seen."""
        await self._tell(healths)
        task = asyncio.create_task(self._watch(healths))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, healths: Sequence[Health]) -> None:
        while True:
            await asyncio.sleep(_AWAY_INTERVAL_S if self._fault else INTERVAL_S)
            before = self._fault
            await self.look()
            if self._fault != before:
                await self._tell(healths)

    async def _tell(self, healths: Sequence[Health]) -> None:
        for health in healths:
            await health.say(serving=not self._fault, detail=self._fault or "")
