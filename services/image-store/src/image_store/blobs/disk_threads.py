"""The threads in which file system calls wait, and the one place where their errors are translated."""

import asyncio
import errno
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

from image_store.errors import StoreFullError, StoreUnavailableError

T = TypeVar("T")

_THREADS: Final = 8
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskThreads:
    """A pool of threads, ended on exit."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="disk")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._executor.shutdown)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; a caller that is cancelled leaves it running to its end.

        Raises:
            StoreFullError: The disk or the quota is full.
            FileNotFoundError: As `work` raised it.
            StoreUnavailableError: Any other OSError.
        """

        def translated() -> T:
            with disk_errors():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._executor, translated)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Translate OSError, except FileNotFoundError, whose meaning the caller knows."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as exc:
        if exc.errno in _FULL:
            raise StoreFullError from exc
        raise StoreUnavailableError(f"The image directory cannot be used: {exc.strerror}.") from exc
