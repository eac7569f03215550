"""An HTTP client that believes nothing: every answer is checked against openapi.yaml.

It owns the comparison of answers with the contract (path, method, status, headers, media type, body). It must
never import a service's code: the contract is read as a file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from jsonschema import Draft4Validator

SPECIFICATION: Final = Path(__file__).parents[3] / "services" / "gateway" / "src" / "gateway" / "openapi.yaml"
_OUTSIDE: Final = ("/v1/swagger", "/errors")


class ContractError(AssertionError):
    """An answer that the contract does not allow; the message tells where."""


class Contract:
    """openapi.yaml as a judge of answers."""

    def __init__(self, path: Path = SPECIFICATION) -> None:
        """Read the document at `path`."""
        self.document: dict[str, Any] = _read(path)
        self._paths = [
            (re.compile("^" + re.sub(r"\{\w+\}", "[^/]+", template) + "/?$"), item)
            for template, item in self.document["paths"].items()
        ]

    def check(self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge one answer; an empty `body` of a HEAD request is not looked at.

        Raises:
            ContractError: The contract does not allow it.
        """
        where = f"{method} {path} -> {status}"
        if any(path.startswith(prefix) for prefix in _OUTSIDE) and status < 400:
            return
        response = self._response(method, path, status, where)
        for name, node in response.get("headers", {}).items():
            header = self.resolved(node)
            if name.lower() not in headers:
                if header.get("required"):
                    raise ContractError(f"{where}: header {name} is missing")
                continue
            self._check_header(where, name, headers[name.lower()], header["schema"])
        content = response.get("content", {})
        if method == "HEAD" or not content:
            if body and not content:
                raise ContractError(f"{where}: a body where none belongs")
            return
        media_type = headers.get("content-type", "").split(";")[0]
        if media_type not in content:
            raise ContractError(f"{where}: {media_type} is none of {', '.join(content)}")
        if media_type.endswith("json"):
            document = json.loads(body)
            self.check_value(document, content[media_type]["schema"], where)
            if media_type == "application/problem+json" and document["status"] != status:
                raise ContractError(f"{where}: the problem says status {document['status']}")

    def check_value(self, value: object, schema: Mapping[str, Any], where: str) -> None:
        """Judge one value by a schema of the document, references included.

        Raises:
            ContractError: It does not fit.
        """
        whole = {**self._plain(schema), "components": self.document["components"]}
        faults = [
            f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
            for error in Draft4Validator(whole).iter_errors(value)
        ]
        if faults:
            raise ContractError(f"{where}: " + "; ".join(faults))

    def schema(self, name: str) -> Mapping[str, Any]:
        """Return a schema of the document's components."""
        found: Mapping[str, Any] = self.document["components"]["schemas"][name]
        return found

    def resolved(self, node: Mapping[str, Any]) -> Any:
        """Return what `node` refers to, or itself."""
        reference = node.get("$ref")
        if reference is None:
            return node
        found: Any = self.document
        for part in str(reference).removeprefix("#/").split("/"):
            found = found[part]
        return self.resolved(found)

    def examples(self) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
        """Yield every example of a JSON body with its place and its schema."""
        yield from self._examples_in(self.document["paths"], "")
        yield from self._examples_in(self.document["components"], "components")

    def _examples_in(self, node: Any, at: str) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
        if isinstance(node, list):
            for index, item in enumerate(node):
                yield from self._examples_in(item, f"{at}/{index}")
        if not isinstance(node, dict):
            return
        for media_type, media in node.get("content", {}).items():
            if not media_type.endswith("json"):
                continue
            if "example" in media:
                # As it is: a reference in it would be shown to readers as such.
                yield at, media["example"], media["schema"]
            for name, example in media.get("examples", {}).items():
                yield f"{at}/{name}", self.resolved(example)["value"], media["schema"]
        for key, value in node.items():
            yield from self._examples_in(value, f"{at}/{key}")

    def _response(self, method: str, path: str, status: int, where: str) -> Any:
        verb = {"HEAD": "get"}.get(method, method.lower())
        # What a path has besides may be a name: /v1/images/import is an image as well.
        items = (item for pattern, item in self._paths if pattern.match(path))
        operation = next((item[verb] for item in items if verb in item), None)
        if operation is None:
            if status in {403, 404, 405, 421}:  # no operation, hence a plain problem
                return self.document["components"]["responses"]["Problem"]
            raise ContractError(f"{where}: there is no such operation")
        responses = operation["responses"]
        found = responses.get(str(status), responses.get("default") if status >= 400 else None)
        if found is None:
            raise ContractError(f"{where}: the status is not in the contract")
        return self.resolved(found)

    def _check_header(self, where: str, name: str, text: str, schema: Mapping[str, Any]) -> None:
        value: object = int(text) if schema["type"] == "integer" and text.isdigit() else text
        self.check_value(value, schema, f"{where}: header {name}")

    def _plain(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.resolved(schema))


class ApiClient(httpx.AsyncClient):
    """httpx with a judge: a streamed answer's body is not looked at, everything else is."""

    def __init__(self, contract: Contract | None = None, **settings: Any) -> None:
        """Take the settings of httpx.AsyncClient."""
        super().__init__(**settings)
        self.contract = contract or Contract()

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send `request` and judge the answer.

        Raises:
            ContractError: The contract does not allow the answer.
        """
        response = await super().send(request, stream=stream, **options)
        if not stream:
            self.contract.check(
                request.method, request.url.path, response.status_code, response.headers, response.content
            )
        return response


class BlockingApiClient(httpx.Client):
    """The same judge for tests that need no event loop; errors of streamed answers are judged too."""

    def __init__(self, base_url: str) -> None:
        """Talk to `base_url`, patiently: a launch may be waited for."""
        super().__init__(base_url=base_url, timeout=700.0)
        self.contract = Contract()

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send `request` and judge the answer.

        Raises:
            ContractError: The contract does not allow the answer.
        """
        response = super().send(request, stream=stream, **options)
        if not stream:
            self.contract.check(
                request.method, request.url.path, response.status_code, response.headers, response.content
            )
        return response


@cache
def _read(path: Path) -> Any:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return _without_nullable(yaml.load(path.read_text(encoding="utf-8"), loader))  # noqa: S506 - both are safe


def _without_nullable(node: Any) -> Any:
    """Return `node` with OpenAPI's `nullable` said as JSON Schema says it."""
    if isinstance(node, list):
        return [_without_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _without_nullable(value) for key, value in node.items()}
    if plain.pop("nullable", False):
        plain["type"] = [plain["type"], "null"]
    return plain
