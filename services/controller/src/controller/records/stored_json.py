"""Values of the domain as JSON columns, and back.

Frozen dataclasses, tuples, enums and times; absent members take their default, so that a newer build reads
what an older one has written.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_stored(value: Any) -> Any:
    """Return the JSON of `value`."""
    if is_dataclass(value):
        return {field.name: to_stored(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [to_stored(item) for item in value]
    return value


def from_stored(kind: type[T], stored: Any) -> T:
    """Return the `kind` that `to_stored` was given."""
    value: T = _read(kind, stored)
    return value


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, stored: Any) -> Any:
    origin = get_origin(kind)
    if origin in {Union, UnionType}:
        if stored is None:
            return None
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
        return _read(kind, stored)
    if origin is tuple:
        return tuple(_read(get_args(kind)[0], item) for item in stored)
    if is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]  # a class, and classes are hashable
        return kind(**{name: _read(hints[name], item) for name, item in stored.items() if name in hints})  # type: ignore[operator]
    if kind is datetime:
        return datetime.fromisoformat(stored)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(stored)
    return stored
