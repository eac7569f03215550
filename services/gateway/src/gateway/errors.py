"""Errors of the gateway.

Exception tree::

    GatewayError
    ├── InputError                   the request cannot be read; answered before anything is asked
    │   ├── RequestInvalidError      fields, query parameters or headers are wrong; lists all faults
    │   ├── BodyMalformedError       the body is not what its media type says
    │   ├── BodyTooLargeError        a JSON body beyond the limit
    │   ├── MediaTypeError           a body of a type that this path does not take
    │   ├── NotAcceptableError       the client accepts none of the types that this path has
    │   ├── RangeError               the range lies outside
    │   ├── UploadTruncatedError     the body ended before it was complete
    │   └── UploadStalledError       nothing more of the body came
    ├── RoutingError
    │   ├── PathNotFoundError
    │   ├── MethodNotAllowedError
    │   ├── SocketNotServedError     a WebSocket is asked for where there is none
    │   └── SocketRequiredError      and none where there is nothing else
    ├── AccessError
    │   ├── HostNotAllowedError
    │   └── OriginNotAllowedError
    ├── ConsoleTicketError           a console's ticket is missing, used, too old or none of ours
    ├── PreconditionFailedError      If-Match names another generation
    ├── PeerUnavailableError         the controller or the image store is away or too slow
    ├── ConsoleGapError              a part of a log was given back before it was read
    ├── RemoteError                  what a service answered, passed on
    ├── OperationFailedError         the operation that the client waited for has failed
    └── InternalError                anything unforeseen; its cause stands in the log only

Each carries data and makes its sentence from it. Which HTTP status a reason has is told by `reasons` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the input: a JSON pointer (RFC 6901) and what is wrong there.

    Pointers into the body begin at its root; others begin with /query, /header or /path.
    """

    pointer: str
    detail: str


class GatewayError(Exception):
    """Something that is answered as a problem."""

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        metadata: Mapping[str, str] | None = None,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        instance: str = "",
    ) -> None:
        """Take what the problem says; `instance` is its URL where that is not the request's own path."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.metadata = dict(metadata or {})
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.instance = instance


class InputError(GatewayError):
    """The request cannot be read."""


class RequestInvalidError(InputError):
    """Some of the input is wrong."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        told = "; ".join(f"{fault.pointer or 'the body'} {fault.detail.rstrip('.')}" for fault in faults)
        count = "" if len(faults) == 1 else f"{len(faults)} faults: "
        super().__init__("FIELD_INVALID", f"{count}{told}.", faults=faults)


class BodyMalformedError(InputError):
    """The body is not what its media type says."""

    def __init__(self, fault: str) -> None:
        super().__init__("BODY_MALFORMED", f"The body {fault}.", faults=[Fault("", fault)])


class BodyTooLargeError(InputError):
    """A body beyond the limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            "BODY_TOO_LARGE",
            f"The body has more than {limit_bytes} bytes.",
            metadata={"limitBytes": str(limit_bytes)},
        )


class MediaTypeError(InputError):
    """A body of a type that this path does not take."""

    def __init__(self, given: str, taken: Sequence[str]) -> None:
        super().__init__(
            "MEDIA_TYPE_UNSUPPORTED",
            f"A body of type {given or '(none given)'} is not taken here; send {' or '.join(taken)}.",
            metadata={"supported": ",".join(taken)},
        )


class NotAcceptableError(InputError):
    """The client accepts none of the types that this path has."""

    def __init__(self, offered: Sequence[str]) -> None:
        super().__init__(
            "NOT_ACCEPTABLE",
            f"The answer would be {' or '.join(offered)}, which Accept excludes.",
            metadata={"offered": ",".join(offered)},
        )


class RangeError(InputError):
    """The range lies outside of what there is."""

    def __init__(self, total_bytes: int, first_byte: int = 0) -> None:
        gone = f" Bytes before {first_byte} have been given back." if first_byte else ""
        super().__init__(
            "RANGE_NOT_SATISFIABLE",
            f"There are {total_bytes} bytes; the range lies outside.{gone}",
            metadata={
                "totalBytes": str(total_bytes),
                **({"firstByte": str(first_byte)} if first_byte else {}),
            },
            headers={"Content-Range": f"bytes */{total_bytes}"},
        )


class UploadTruncatedError(InputError):
    """The body ended before it was complete."""

    def __init__(self) -> None:
        super().__init__("UPLOAD_TRUNCATED", "The body ended before it was complete; nothing was stored.")


class UploadStalledError(InputError):
    """Nothing more of the body came."""

    def __init__(self, idle_s: float) -> None:
        super().__init__("UPLOAD_STALLED", f"Nothing came for {idle_s:.0f} s; nothing was stored.")


class RoutingError(GatewayError):
    """No operation for this request."""


class PathNotFoundError(RoutingError):
    """Nothing is served under this path."""

    def __init__(self, path: str) -> None:
        super().__init__("PATH_NOT_FOUND", f"Nothing is served under {path}; /openapi.yaml lists the paths.")


class MethodNotAllowedError(RoutingError):
    """The path does not know this method."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        allow = ", ".join(allowed)
        super().__init__(
            "METHOD_NOT_ALLOWED",
            f"{method} is not allowed here; allowed: {allow}.",
            metadata={"allowed": ",".join(allowed)},
            headers={"Allow": allow},
        )


class SocketNotServedError(RoutingError):
    """A WebSocket is asked for where there is none."""

    def __init__(self, path: str) -> None:
        super().__init__(
            "WEBSOCKET_NOT_SERVED", f"{path} is no WebSocket; ask without Upgrade, or follow /v1/events."
        )


class SocketRequiredError(RoutingError):
    """No WebSocket is asked for where there is nothing else."""

    def __init__(self, path: str) -> None:
        super().__init__(
            "WEBSOCKET_REQUIRED",
            f"{path} is a WebSocket when asked by GET.",
            headers={"Upgrade": "websocket"},
        )


class AccessError(GatewayError):
    """The request comes by a way that is not trusted."""


class HostNotAllowedError(AccessError):
    """The Host header names something else than this gateway."""

    def __init__(self, host: str) -> None:
        super().__init__("HOST_NOT_ALLOWED", f"{host or 'No host'} is not a name of this gateway.")


class OriginNotAllowedError(AccessError):
    """A web page of another origin sent this."""

    def __init__(self, origin: str) -> None:
        super().__init__("ORIGIN_NOT_ALLOWED", f"Pages of {origin} may not use this gateway.")


class ConsoleTicketError(GatewayError):
    """A page may not attach to a console with this ticket, or with none; `reason` says which it is."""


class PreconditionFailedError(GatewayError):
    """If-Match names another generation."""

    def __init__(self, wanted: str, current: str) -> None:
        super().__init__(
            "PRECONDITION_FAILED",
            f"The entity tag is {current}, not {wanted}.",
            metadata={"etag": current},
        )


class PeerUnavailableError(GatewayError):
    """A service that the gateway needs is away or too slow."""

    def __init__(self, reason: str, peer: str, said: str) -> None:
        super().__init__(reason, f"The {peer} does not answer.", metadata={"peer": peer})
        self.said = said


class ConsoleGapError(GatewayError):
    """A part of a console's log was given back before its reader had come so far."""

    def __init__(self, expected: int, offset: int) -> None:
        super().__init__(
            "UNAVAILABLE",
            f"The console's bytes {expected} to {offset} were given back before they were read.",
        )


class RemoteError(GatewayError):
    """What a service answered, passed on; `code_name` is its gRPC code."""

    def __init__(
        self, code_name: str, reason: str, detail: str, metadata: Mapping[str, str], faults: Sequence[Fault]
    ) -> None:
        super().__init__(reason, detail, metadata=metadata, faults=faults)
        self.code_name = code_name


class OperationFailedError(GatewayError):
    """The operation that the client waited for ended FAILED or CANCELLED."""

    def __init__(
        self, operation_id: str, state: str, reason: str, detail: str, metadata: Mapping[str, str]
    ) -> None:
        url = f"/v1/operations/{operation_id}"
        super().__init__(
            reason or f"OPERATION_{state}",
            detail or f"The operation is {state}.",
            metadata={**metadata, "operation": url, "operationState": state},
            instance=url,
        )


class InternalError(GatewayError):
    """Anything unforeseen."""

    def __init__(self) -> None:
        super().__init__("INTERNAL", "Internal error.")
