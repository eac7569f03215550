"""YAML that users sent, read within bounds: nothing in it is made but plain values.

The grammar is walked first, without recursion, and counts what aliases stand for; so neither nesting nor
aliases of aliases reach the reader that makes values. Blocks for as long as the text is: call it in a thread.

Source: YAML 1.1, as PyYAML reads it, which cloud-init uses too.
"""

from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
)

MAX_DEPTH: Final = 32
MAX_NODES: Final = 20_000
# Of one number: numbers to the base of 60 (1:30:00) take the square of their length to read.
MAX_NUMBER_CHARACTERS: Final = 256
_NUMBERS: Final = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})

# libyaml reads in a tenth of the time, where it is there.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlUnreadable(ValueError):  # noqa: N818 - it says what is wrong
    """The text cannot be read; the message tells what and where, and nothing of the text itself."""


class YamlTooLarge(YamlUnreadable):
    """It goes beyond the bounds, and may be YAML or not."""


def read_yaml(text: bytes) -> Any:
    """Return the value of the one document in `text`.

    Raises:
        YamlUnreadable: It is no YAML, not one document, names a key twice, holds a value that is none or
            a number without end.
        YamlTooLarge: It has too many nodes, counting what aliases stand for, or is nested too deeply.
    """
    try:
        decoded = text.decode()
        _within_bounds(decoded)
        loader = _LOADER(decoded)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _nothing_hidden(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except UnicodeDecodeError as exc:
        raise YamlUnreadable("is not UTF-8") from exc
    except yaml.MarkedYAMLError as exc:
        raise YamlUnreadable(f"is not YAML{_place(exc.problem_mark or exc.context_mark)}") from exc
    except yaml.YAMLError as exc:
        # Of the reader: a character that YAML does not know.
        raise YamlUnreadable("is not YAML: it has characters that are none in YAML") from exc
    except (ValueError, OverflowError, TypeError, LookupError, AttributeError) as exc:
        if isinstance(exc, YamlUnreadable):
            raise
        # A date, a number or a truth that is none, as a tag makes it of any text, or a key that is a mapping.
        raise YamlUnreadable("holds a value that its form does not allow") from exc


def _within_bounds(text: str) -> None:
    nodes = 0
    documents = 0
    # Of each anchor, how many nodes it stands for; of open collections, their anchors and where they began.
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlUnreadable("has more than one document")
        if isinstance(event, AliasEvent):
            if event.anchor not in sizes:
                raise YamlUnreadable(f"has an alias of what is not complete{_place(event.start_mark)}")
            nodes += sizes[event.anchor]
        elif isinstance(event, NodeEvent):
            nodes += 1
            if isinstance(event, CollectionStartEvent):
                opened.append((event.anchor, nodes))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, CollectionEndEvent):
            anchor, began = opened.pop()
            if anchor is not None:
                sizes[anchor] = nodes - began + 1
        if nodes > MAX_NODES:
            raise YamlTooLarge(f"must have at most {MAX_NODES} nodes, counting what aliases stand for")
        if len(opened) > MAX_DEPTH:
            raise YamlTooLarge(f"must be nested at most {MAX_DEPTH} deep")


def _nothing_hidden(root: yaml.Node) -> None:
    """Refuse keys that the reader would resolve in silence, by the last of the two, and endless numbers."""
    waiting = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_CHARACTERS:
                raise YamlUnreadable(
                    f"has a number of more than {MAX_NUMBER_CHARACTERS} characters{_place(node.start_mark)}"
                )
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, value in node.value:
                waiting += (key, value)
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        raise YamlUnreadable(f"gives a key twice{_place(key.start_mark)}")
                    keys.add((key.tag, key.value))


def _place(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
