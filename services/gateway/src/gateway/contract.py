"""openapi.yaml, read once: its operations with all references resolved, ready to check requests.

It owns the knowledge of what is served where; it must never know how anything is carried out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import yaml

from gateway.schema import SchemaValidator

_METHODS: Final = ("get", "put", "post", "delete", "patch")
# libyaml reads the document in a tenth of the time, where it is there.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_JSON_TYPES: Final = ("application/json", "application/merge-patch+json")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query or header parameter; `kind` is its JSON type, that of the items if it is `repeated`."""

    name: str
    kind: str
    repeated: bool
    validator: SchemaValidator


@dataclass(frozen=True, slots=True)
class ContractOperation:
    """One operation of the contract."""

    id: str
    method: str
    template: str
    # Media types of the body; empty: it takes none.
    consumes: tuple[str, ...]
    body_required: bool
    # None for bodies that are not JSON.
    body: SchemaValidator | None
    produces: tuple[str, ...]
    query: Mapping[str, Parameter]
    headers: Mapping[str, Parameter]
    pattern: re.Pattern[str] = field(repr=False)

    @property
    def names_instance(self) -> bool:
        """Whether the path names an instance."""
        return self.template.startswith("/v1/instances/{name}")

    @property
    def names_operation(self) -> bool:
        """Whether the path names an operation of the engine."""
        return self.template.startswith("/v1/operations/{id}")


class Contract:
    """The document and its operations."""

    def __init__(self, text: bytes) -> None:
        """Read the document; a fault in it ends the start of the process."""
        self.text = text
        # As it was written, with references.
        self.source: dict[str, Any] = yaml.load(text, _LOADER)  # noqa: S506 - safe loaders both
        self.document = resolved(self.source)
        self.operations = {
            operation.id: operation
            for template, item in self.document["paths"].items()
            for method in _METHODS
            if method in item
            for operation in [_operation(template, method, item)]
        }

    def methods_of(self, path: str) -> tuple[str, ...]:
        """Return the methods that `path` knows, HEAD beside GET; none if there is no such path."""
        found = {operation.method for operation in self.operations.values() if operation.pattern.match(path)}
        return tuple(sorted(found | ({"HEAD"} if "GET" in found else set())))


def load_contract() -> Contract:
    """Return the contract of this package. Reads a file: call it in a thread."""
    return Contract((resources.files("gateway") / "openapi.yaml").read_bytes())


def resolved(document: dict[str, Any]) -> dict[str, Any]:
    """Return `document` with every local reference replaced by what it names; there are no cycles."""
    known: dict[str, Any] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                if reference not in known:
                    known[reference] = walk(_at(document, reference))
                return known[reference]
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return node

    whole: dict[str, Any] = walk(document)
    return whole


def _at(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def _operation(template: str, method: str, item: Mapping[str, Any]) -> ContractOperation:
    spec = item[method]
    parameters = [*item.get("parameters", ()), *spec.get("parameters", ())]
    request = spec.get("requestBody", {})
    content = request.get("content", {})
    schema = next((content[media]["schema"] for media in _JSON_TYPES if media in content), None)
    produces = dict.fromkeys(
        media
        for status, response in spec["responses"].items()
        if status.startswith("2")
        for media in response.get("content", {})
    )
    expression = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
    return ContractOperation(
        id=spec["operationId"],
        method=method.upper(),
        template=template,
        consumes=tuple(content),
        body_required=request.get("required", False),
        body=SchemaValidator(schema) if schema is not None else None,
        produces=tuple(produces) or ("*/*",),
        query={p["name"]: _parameter(p) for p in parameters if p["in"] == "query"},
        headers={p["name"]: _parameter(p) for p in parameters if p["in"] == "header"},
        pattern=re.compile(f"^{expression}$"),
    )


def _parameter(spec: Mapping[str, Any]) -> Parameter:
    schema = spec["schema"]
    repeated = schema["type"] == "array"
    kind = schema["items"]["type"] if repeated else schema["type"]
    return Parameter(spec["name"], kind, repeated, SchemaValidator(schema))
