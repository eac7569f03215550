"""The threads in which a backend waits, and the place where each call's foreign errors are translated."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self, TypeVar

T = TypeVar("T")

_THREADS: Final = 8


class Threads:
    """A bounded pool of threads, ended on exit."""

    def __init__(self, name: str, translating: Callable[[], AbstractContextManager[None]]) -> None:
        """Name the threads; run all work inside what `translating` returns, which translates its errors."""
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self._translating = translating

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._executor.shutdown)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; a caller that is cancelled leaves it running to its end.

        Raises whatever the translation of this pool makes of an error.
        """

        def translated() -> T:
            with self._translating():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._executor, translated)
