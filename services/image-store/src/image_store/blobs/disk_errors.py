"""The one place where errors of the file system are translated."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from image_store.errors import StoreFullError, StoreUnavailableError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def disk_errors() -> Iterator[None]:
    """Translate OSError, except FileNotFoundError, whose meaning the caller knows.

    Raises:
        StoreFullError: The disk or the quota is full.
        FileNotFoundError: As it was raised.
        StoreUnavailableError: Any other OSError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as exc:
        if exc.errno in _FULL:
            raise StoreFullError from exc
        raise StoreUnavailableError(f"The image directory cannot be used: {exc.strerror}.") from exc
