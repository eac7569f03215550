"""Protobuf messages as the JSON of the contract.

lowerCamelCase names, 64-bit integers as numbers, times as RFC 3339, enums without their prefix, scalars
always, messages where they are set. It walks descriptors, so a new field needs no line here; what differs
from that rule stands in the tables below.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.problems import problem_members
from gateway.reasons import REASONS, reason_of

# Told by a header instead of the body.
_HIDDEN: Final = {
    "qcontroller.controller.v1.Instance": {"etag"},
    "qcontroller.image.v1.Image": {"etag"},
    "qcontroller.controller.v1.Dependency": {"up"},
}
# Left out where they say nothing.
_OPTIONAL: Final = {
    "qcontroller.controller.v1.Instance": {"lease"},
    "qcontroller.controller.v1.InstanceStatus": {"stderr_tail", "console_tail", "exit_signal"},
}

_Writer = Callable[[Message, dict[str, Any]], None]
_plans: dict[str, tuple[_Writer, ...]] = {}


def to_json(message: Message) -> dict[str, Any]:
    """Return `message` as the contract shows it."""
    descriptor = message.DESCRIPTOR
    plan = _plans.get(descriptor.full_name)
    if plan is None:
        plan = _plans[descriptor.full_name] = _plan(descriptor)
    document: dict[str, Any] = {}
    for write in plan:
        write(message, document)
    return document


def operation_json(message: Any) -> dict[str, Any]:
    """Return an Operation; its error becomes a whole problem."""
    return with_problem(to_json(message))


def with_problem(operation: dict[str, Any]) -> dict[str, Any]:
    """Return `operation`, already JSON, with the error that it may have as a whole problem."""
    error = operation.get("error")
    if not error:
        return operation
    problem = problem_members(
        error["reason"],
        reason_of(error["reason"]) or REASONS["INTERNAL"],
        error["detail"],
        error["metadata"],
        instance=f"/v1/operations/{operation['id']}",
        trace_id=operation["traceId"],
    )
    return {**operation, "error": problem}


def struct_json(value: Any) -> Any:
    """Return a google.protobuf.Struct, or a Value in one, with whole numbers as integers."""
    if value.DESCRIPTOR.name == "Struct":
        return {key: struct_json(item) for key, item in value.fields.items()}
    match value.WhichOneof("kind"):
        case "struct_value":
            return struct_json(value.struct_value)
        case "list_value":
            return [struct_json(item) for item in value.list_value.values]
        case "number_value":
            number: float = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def enum_value(descriptor: EnumDescriptor, name: str) -> int:
    """Return the number of the contract's `name` of an enum."""
    return int(descriptor.values_by_name[_prefix(descriptor) + name].number)


def _plan(descriptor: Any) -> tuple[_Writer, ...]:
    hidden = _HIDDEN.get(descriptor.full_name, set())
    optional = _OPTIONAL.get(descriptor.full_name, set())
    return tuple(
        _writer(field, optional=field.name in optional)
        for field in descriptor.fields
        if field.name not in hidden
    )


def _writer(field: FieldDescriptor, *, optional: bool) -> _Writer:
    name, key = field.name, field.json_name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return lambda message, out: out.__setitem__(key, dict(getattr(message, name)))
    convert = _converter(field)
    if field.is_repeated:
        if convert is None:
            return lambda message, out: out.__setitem__(key, list(getattr(message, name)))
        return lambda message, out: out.__setitem__(key, [convert(item) for item in getattr(message, name)])
    if field.has_presence:
        apply = convert or (lambda value: value)

        def present(message: Message, out: dict[str, Any]) -> None:
            if message.HasField(name):
                out[key] = apply(getattr(message, name))

        return present
    if optional:

        def filled(message: Message, out: dict[str, Any]) -> None:
            if value := getattr(message, name):
                out[key] = value

        return filled
    if convert is None:
        return lambda message, out: out.__setitem__(key, getattr(message, name))
    return lambda message, out: out.__setitem__(key, convert(getattr(message, name)))


def _converter(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    """Return what turns one value of `field` into JSON; None where it is JSON already."""
    if field.enum_type is not None:
        prefix = _prefix(field.enum_type)
        names = {value.number: value.name.removeprefix(prefix) for value in field.enum_type.values}
        return lambda number: names.get(number, "UNSPECIFIED")
    if field.message_type is None:
        return None
    if field.message_type.full_name == "google.protobuf.Timestamp":
        return lambda value: value.ToJsonString()
    if field.message_type.full_name == "google.protobuf.Struct":
        return struct_json
    if field.message_type.full_name == "qcontroller.controller.v1.Operation":
        return operation_json
    return to_json


def _prefix(descriptor: EnumDescriptor) -> str:
    """Return the prefix that protobuf's style gives the values: InstanceState -> INSTANCE_STATE_."""
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in descriptor.name)
    return f"{words.lstrip('_').upper()}_"
