"""multipart/form-data (RFC 7578) read as a stream: parts in any order, nothing held but the fields."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import BodyMalformedError, Fault, RequestInvalidError, UploadTruncatedError

_FIELD_LIMIT_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes of the part `file`; empty once, when the part begins."""

    content: bytes


@dataclass(frozen=True, slots=True)
class FieldValue:
    """The whole value of another part."""

    name: str
    value: str


FormPart = FileBytes | FieldValue


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that `content_type` names.

    Raises:
        BodyMalformedError: It names none.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise BodyMalformedError("has no boundary in its Content-Type")
    return boundary


class ImageForm:
    """Reads a form with the parts `id` and `file`."""

    def __init__(self, boundary: bytes) -> None:
        self._ready: list[FormPart] = []
        self._seen: set[str] = set()
        self._name = ""
        self._value = bytearray()
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as exc:
            raise BodyMalformedError("has a boundary that is too long") from exc

    async def parts(self, body: AsyncIterator[bytes]) -> AsyncIterator[FormPart]:
        """Yield the parts as they come.

        Raises:
            BodyMalformedError: It is no form.
            RequestInvalidError: A part is unknown, doubled or missing.
            UploadTruncatedError: The closing boundary never came.
        """
        async for chunk in body:
            try:
                self._parser.write(chunk)
            except MultipartParseError as exc:
                raise BodyMalformedError("is not a well-formed form") from exc
            ready, self._ready = self._ready, []
            for part in ready:
                yield part
        if not self._complete:
            raise UploadTruncatedError
        missing = [Fault(f"/{name}", "is missing") for name in ("id", "file") if name not in self._seen]
        if missing:
            raise RequestInvalidError(missing)

    def _part_begin(self) -> None:
        self._disposition = b""
        self._value.clear()

    def _header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = [bytearray(), bytearray()]
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name not in {"id", "file"}:
            raise RequestInvalidError([Fault(f"/{self._name}", "is not a known field")])
        if self._name in self._seen:
            raise RequestInvalidError([Fault(f"/{self._name}", "is given more than once")])
        self._seen.add(self._name)
        if self._name == "file":
            self._ready.append(FileBytes(b""))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._ready.append(FileBytes(data[start:end]))
            return
        self._value += data[start:end]
        if len(self._value) > _FIELD_LIMIT_BYTES:
            raise RequestInvalidError([Fault("/id", f"must have at most {_FIELD_LIMIT_BYTES} characters")])

    def _part_end(self) -> None:
        if self._name != "file":
            self._ready.append(FieldValue(self._name, self._value.decode("utf-8", "replace")))

    def _end(self) -> None:
        self._complete = True
