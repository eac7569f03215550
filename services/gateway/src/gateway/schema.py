"""Validation against the schemas of openapi.yaml, with every fault told in words of ours.

jsonschema finds the faults; its own messages quote schemas and values and must never reach a client.
"""

import base64
import ipaddress
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from jsonschema import Draft4Validator, FormatChecker, ValidationError
from jsonschema.validators import extend
from servicekit.quantities import QuantityError, parse_duration_s, parse_size_mib

from gateway.errors import Fault

MAX_SIZE_MIB: Final = 16 * 1024 * 1024
_FORMATS: Final = FormatChecker(formats=())
# RFC 3339, section 5.6.
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_ARTICLES: Final = {"array": "a list", "integer": "an integer", "object": "an object"}


def _nullable_type(
    validator: Any, types: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if value is None and schema.get("nullable"):
        return
    if not validator.is_type(value, types):
        yield ValidationError("type")


def _whole_pattern(
    validator: Any, pattern: str, value: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    del schema
    # Where the contract says $ it means the end, not "before a last line break" as Python does.
    expression = pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern
    if validator.is_type(value, "string") and not re.search(expression, value):
        yield ValidationError("pattern")


_Validator: Any = extend(Draft4Validator, {"type": _nullable_type, "pattern": _whole_pattern})  # type: ignore[no-untyped-call]


@_FORMATS.checks("size", raises=ValueError)
def _is_size(value: object) -> bool:
    if isinstance(value, str) and parse_size_mib(value) > MAX_SIZE_MIB:
        raise QuantityError("must be at most 16T")
    return True


@_FORMATS.checks("duration", raises=ValueError)
def _is_duration(value: object) -> bool:
    if isinstance(value, str):
        parse_duration_s(value)
    return True


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    if isinstance(value, str):
        datetime.fromisoformat(value.upper())
        return _TIME.fullmatch(value) is not None
    return True


@_FORMATS.checks("ip", raises=ValueError)
def _is_ip(value: object) -> bool:
    if isinstance(value, str):
        ipaddress.ip_address(value)
    return True


@_FORMATS.checks("uuid", raises=ValueError)
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or str(uuid.UUID(value)) == value


@_FORMATS.checks("byte", raises=ValueError)
def _is_base64(value: object) -> bool:
    if isinstance(value, str):
        base64.b64decode(value, validate=True)
    return True


@_FORMATS.checks("label")
def _is_label(value: object) -> bool:
    return not isinstance(value, str) or value.find("=") > 0


class SchemaValidator:
    """Checks values against one schema whose references are resolved."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = _Validator(schema, format_checker=_FORMATS)

    def faults(self, value: object, at: str = "") -> list[Fault]:
        """Return every fault of `value`, whose own pointer is `at`, ordered by pointer."""
        found = {fault for error in self._validator.iter_errors(value) for fault in _faults_of(error, at)}
        return sorted(found, key=lambda fault: (fault.pointer, fault.detail))


def pointer_of(parts: Sequence[object], at: str = "") -> str:
    """Return the JSON pointer (RFC 6901) of the path `parts` below `at`."""
    return at + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _faults_of(error: ValidationError, at: str) -> Iterator[Fault]:
    path = list(error.absolute_path)
    schema: Any = error.schema
    limit: Any = error.validator_value
    value: Any = error.instance
    match error.validator:
        case "required":
            for name in limit:
                if name not in value:  # one error per name: told apart by the set of faults
                    yield Fault(pointer_of([*path, name], at), "is missing")
        case "additionalProperties":
            known = schema.get("properties", {})
            for name in value:
                if name not in known:
                    yield Fault(pointer_of([*path, name], at), "is not a known field")
        case "oneOf":
            yield from _branch_faults(error, at)
        case _:
            yield Fault(pointer_of(path, at), _sentence(str(error.validator), limit, schema, error))


def _branch_faults(error: ValidationError, at: str) -> Iterator[Fault]:
    """Tell the faults of the one branch whose type fits, or else what would fit."""
    branches: dict[object, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for faults in branches.values():
        if all(inner.validator != "type" for inner in faults):
            for inner in faults:
                yield from _faults_of(inner, at)
            return
    schema: Any = error.schema
    yield Fault(
        pointer_of(list(error.absolute_path), at), f"must be: {schema.get('description', 'of another type')}"
    )


def _sentence(keyword: str, limit: Any, schema: Mapping[str, Any], error: ValidationError) -> str:
    match keyword:
        case "type":
            return f"must be {_ARTICLES.get(limit, f'a {limit}')}"
        case "enum":
            return f"must be one of {', '.join('null' if item is None else str(item) for item in limit)}"
        case "minimum":
            return f"must be at least {limit}"
        case "maximum":
            return f"must be at most {limit}"
        case "minLength":
            return f"must have at least {limit} characters"
        case "maxLength":
            return f"must have at most {limit} characters"
        case "minItems":
            return f"must have at least {limit} entries"
        case "maxItems" | "maxProperties":
            return f"must have at most {limit} entries"
        case "pattern":
            told = schema.get("description", "").rstrip(".")
            return f"must match {limit}" + (f" ({told})" if told else "")
        case "format":
            return (
                str(error.cause)
                if isinstance(error.cause, QuantityError)
                else f"is not {_FORMAT_WORDS.get(limit, limit)}"
            )
        case _:
            return "is not valid"


_FORMAT_WORDS: Final = {
    "byte": "base64 (RFC 4648, section 4: padded, without line breaks)",
    "date-time": "a time such as 2026-01-01T00:00:00Z (RFC 3339)",
    "ip": "an IP address",
    "label": "of the form key=value",
    "uuid": "a UUID",
}
