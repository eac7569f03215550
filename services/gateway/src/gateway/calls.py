"""One request of the contract, read and checked: what handlers are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Scope

from gateway.bodies import parse_json, read_whole
from gateway.contract import ContractOperation, Parameter
from gateway.errors import BodyMalformedError, Fault, MediaTypeError, NotAcceptableError
from gateway.preferences import accepts, tags_of, wait_of

# On a change these are promises; an operation that cannot keep one says so instead of ignoring it.
_PROMISES: Final = ("Idempotency-Key", "If-Match", "If-None-Match")


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose parameters and JSON body satisfy the contract."""

    request: Request
    operation: ContractOperation
    path: Mapping[str, str]
    query: Mapping[str, Any] = field(default_factory=dict)
    # The JSON body; an empty object if there is none.
    body: Any = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The resource that the path names."""
        return next(iter(self.path.values()))

    @property
    def wait_s(self) -> int | None:
        """How long the client prefers to wait; None: not at all."""
        return wait_of(",".join(self.request.headers.getlist("prefer")))

    @property
    def request_id(self) -> str:
        """The idempotency key in its scope (principal, method, path); "" if there is none."""
        key = self.request.headers.get("idempotency-key", "")
        return f"local:{self.request.method} {self.request.scope['path']}:{key}" if key else ""

    @property
    def if_match(self) -> str:
        """The entity tag of If-Match, without quotes; "" if there is none."""
        return _tag(self.request.headers.get("if-match", ""))

    @property
    def if_none_match(self) -> str:
        """The entity tag of If-None-Match, without quotes; "" if there is none."""
        return _tag(self.request.headers.get("if-none-match", ""))


async def read_call(
    request: Request, operation: ContractOperation, path: Mapping[str, str], max_body_bytes: int
) -> tuple[Call, list[Fault]]:
    """Return the call that `request` makes and all its faults. Bodies that are not JSON stay unread.

    Raises:
        InputError: It cannot be read at all.
    """
    if not accepts(",".join(request.headers.getlist("accept")), operation.produces):
        raise NotAcceptableError(operation.produces)
    query, faults = _read_query(request.scope["query_string"], operation.query)
    faults += _header_faults(request, operation.headers)
    if operation.method != "GET":
        faults += _broken_promises(request, operation.headers)
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if operation.consumes and has_body:
        _check_media_type(request, operation)
    body: Any = {}
    if has_body and not operation.consumes and operation.method != "GET":
        faults += _unwanted(await read_whole(request, max_body_bytes))
    if operation.body is not None:
        content = await read_whole(request, max_body_bytes) if has_body else b""
        if content:
            body, doubled = parse_json(content)
            faults += doubled + operation.body.faults(body)
        elif operation.body_required:
            raise BodyMalformedError("is missing")
    return Call(request, operation, path, query, body), faults


async def read_handshake(scope: Scope, operation: ContractOperation) -> tuple[Call, list[Fault]]:
    """Return the call that a WebSocket's handshake makes, as `read_call` does.

    Raises:
        InputError: It cannot be read at all.
    """
    # A socket has no media type: what Accept says is of no matter.
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept"]
    request = Request({**scope, "type": "http", "method": "GET", "headers": headers})
    return await read_call(request, operation, scope.get("path_params", {}), 0)


def _check_media_type(request: Request, operation: ContractOperation) -> None:
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise MediaTypeError(f"{given} with a Content-Encoding", operation.consumes)
    if "*/*" in operation.consumes or given in operation.consumes:
        return
    if given or operation.body is None:
        raise MediaTypeError(given, operation.consumes)


def _read_query(query_string: bytes, known: Mapping[str, Parameter]) -> tuple[dict[str, Any], list[Fault]]:
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    if not query_string:
        return values, faults
    for name, text in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, errors="replace"):
        parameter = known.get(name)
        if parameter is None:
            faults.append(Fault(f"/query/{name}", "is not a known query parameter"))
        elif parameter.repeated:
            values.setdefault(name, []).append(text)
        elif name in values:
            faults.append(Fault(f"/query/{name}", "is given more than once"))
        else:
            values[name] = _typed(text, parameter.kind)
    for name, value in values.items():
        faults += known[name].validator.faults(value, f"/query/{name}")
    return values, faults


def _typed(text: str, kind: str) -> Any:
    if kind == "integer" and text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20:
        return int(text)
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _header_faults(request: Request, known: Mapping[str, Parameter]) -> list[Fault]:
    faults: list[Fault] = []
    for name, parameter in known.items():
        value = request.headers.get(name)
        if value is not None:
            faults += parameter.validator.faults(value, f"/header/{name}")
            if name == "If-Match" and len(tags_of(value)) != 1:
                faults.append(Fault("/header/If-Match", "must be one entity tag in quotes, or *"))
    return faults


def _broken_promises(request: Request, known: Mapping[str, Parameter]) -> list[Fault]:
    return [
        Fault(f"/header/{name}", "is not taken by this call")
        for name in _PROMISES
        if name in request.headers and name not in known
    ]


def _unwanted(content: bytes) -> list[Fault]:
    """Return the fault of a body where none is taken; the empty object of some clients says nothing."""
    return [] if content.strip() in {b"", b"{}"} else [Fault("", "is not taken by this call")]


def _tag(header: str) -> str:
    tags = tags_of(header)
    return tags[0] if tags else ""
