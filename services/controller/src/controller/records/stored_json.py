"""Values of the domain as JSON columns, and back.

Frozen dataclasses, tuples, enums and times; absent members take their default, so that a newer build reads
what an older one has written.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_PLAIN: Final = frozenset({str, int, float, bool})


def to_stored(value: Any) -> Any:
    """Return the JSON of `value`."""
    if value is None or value.__class__ in _PLAIN:
        return value
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [to_stored(item) for item in value]
    names = _names(value.__class__)
    return value if names is None else {name: to_stored(getattr(value, name)) for name in names}


def from_stored(kind: type[T], stored: Any) -> T:
    """Return the `kind` that `to_stored` was given."""
    value: T = _reader(kind)(stored)  # type: ignore[arg-type]  # a class, and classes are hashable
    return value


@cache
def _names(kind: Any) -> tuple[str, ...] | None:
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else None


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """Return what reads a `kind`: found out once, since thousands are read at every start."""
    origin = get_origin(kind)
    if origin in {Union, UnionType}:
        (member,) = (member for member in get_args(kind) if member is not NoneType)
        read = _reader(member)
        return lambda stored: None if stored is None else read(stored)
    if origin is tuple:
        read_item = _reader(get_args(kind)[0])
        return lambda stored: tuple([read_item(item) for item in stored])
    if is_dataclass(kind):
        return _members_reader(kind)
    if kind is datetime:
        return datetime.fromisoformat
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind
    return _as_it_is


def _members_reader(kind: Any) -> Callable[[Any], Any]:
    readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}

    def read(stored: Any) -> Any:
        return kind(**{name: readers[name](item) for name, item in stored.items() if name in readers})

    return read


def _as_it_is(stored: Any) -> Any:
    return stored
