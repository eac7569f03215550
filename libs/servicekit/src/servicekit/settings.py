"""Configuration files: protojson of a settings message, environment variables over it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

MessageT = TypeVar("MessageT", bound=Message)


class SettingsError(Exception):
    """A configuration that cannot be used; the message names the file or variable and the fault."""


def load_settings(
    message: MessageT, path: Path | None, *, env_prefix: str, environ: Mapping[str, str]
) -> MessageT:
    """Fill `message` from the JSON file at `path`, then from variables such as QC_GATEWAY_LISTEN.

    A variable is `env_prefix` and the field's name in capitals; nested fields are joined by two
    underscores. A list is given comma-separated.

    Raises:
        SettingsError: The file cannot be read, has an unknown or doubled key, or a value of the wrong type.
    """
    if path is not None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_refuse_doubles)
            if not isinstance(document, dict):
                raise SettingsError(f"{path}: the file must hold one JSON object")
            json_format.ParseDict(document, message)
        except OSError as exc:
            raise SettingsError(f"{path}: {exc.strerror}") from exc
        except (ValueError, json_format.ParseError) as exc:
            raise SettingsError(f"{path}: {exc}") from exc
    known = dict(_variables(message, env_prefix))
    for variable, value in environ.items():
        if not variable.startswith(env_prefix):
            continue
        if variable not in known:
            raise SettingsError(f"{variable}: no such setting; known are {', '.join(sorted(known))}")
        try:
            json_format.ParseDict(known[variable](value), message)
        except (ValueError, json_format.ParseError) as exc:
            raise SettingsError(f"{variable}: {exc}") from exc
    return message


def _refuse_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key occurs twice")
    return document


class _Patch:
    """Turns the text of one variable into a document that json_format merges into the message."""

    def __init__(self, name: str, kind: str, parents: tuple[str, ...]) -> None:
        self._path = (*parents, name)
        self._kind = kind

    def __call__(self, text: str) -> dict[str, object]:
        value: object = text
        if self._kind == "bool":
            value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        elif self._kind == "list":
            value = [part for part in text.split(",") if part]
        *parents, name = self._path
        document = {name: value}
        for parent in reversed(parents):
            document = {parent: document}
        return document


def _kind(field_type: int, *, repeated: bool) -> str:
    if repeated:
        return "list"
    return "bool" if field_type == FieldDescriptor.TYPE_BOOL else "scalar"


def _variables(message: Message, prefix: str, parents: tuple[str, ...] = ()) -> list[tuple[str, _Patch]]:
    found: list[tuple[str, _Patch]] = []
    for field in message.DESCRIPTOR.fields:
        name = prefix + field.name.upper()
        if field.message_type is None:
            found.append((name, _Patch(field.name, _kind(field.type, repeated=field.is_repeated), parents)))
        elif not field.is_repeated:
            nested: Message = getattr(message, field.name)
            found.extend(_variables(nested, f"{name}__", (*parents, field.name)))
    return found
