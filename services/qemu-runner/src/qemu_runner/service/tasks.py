"""Owner of the tasks that live as long as the service: cancelled and awaited when it ends.

Unlike a task group it outlives the failure of one member, which concerns one machine only: the failure
is logged and the others go on.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


class Tasks:
    """A set of tasks; an async context manager."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def begin(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run `work` until it ends or the service does."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            _LOG.error("task failed", exc_info=failure, extra={"task": task.get_name()})


async def settled(work: Coroutine[Any, Any, _T]) -> _T:
    """Await `work`, which must not be cut in two: when cancelled, wait for its end first."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
