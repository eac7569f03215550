"""Handlers of /v1/images."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

from qcontroller.image.v1 import image_pb2 as pb
from starlette.responses import Response

from gateway.answers import StreamedBytes, json_response
from gateway.backends import IMAGE_STORE, Backends, ask, next_of
from gateway.bodies import chunks
from gateway.calls import Call
from gateway.convert import enum_value, to_json
from gateway.errors import Fault, PeerUnavailableError, RequestInvalidError
from gateway.forms import ImageForm, boundary_of
from gateway.preferences import is_fresh, range_of
from gateway.uploads import form_messages, raw_messages, upload

_CLIENT_IDLE_S: Final = 60.0
_STREAM_IDLE_S: Final = 60.0
_DELETE_DEADLINE_S: Final = 30.0
# What the store's message can tell; h11 lets longer numbers through, and no store takes so many bytes.
_MAX_LENGTH: Final = 2**64 - 1

# Where the client gave what the store calls by these pointers.
_RAW_POINTERS: Final = {
    "/name": "/path/name",
    "/expectedDigest": "/query/digest",
    "/labels": "/query/label",
    "/arch": "/query/arch",
    "/ifMatch": "/header/If-Match",
    "/ifNoneMatch": "/header/If-None-Match",
    "/contentLength": "/header/Content-Length",
    "/requestId": "/header/Idempotency-Key",
}
_FORM_POINTERS: Final = {"/name": "/id", "/requestId": "/header/Idempotency-Key"}


class Images:
    """Disk images over HTTP."""

    def __init__(self, peers: Backends, *, client_idle_s: float = _CLIENT_IDLE_S) -> None:
        """Give up an upload of which nothing came for `client_idle_s`."""
        self._stub = peers.images
        self._client_idle_s = client_idle_s

    async def put(self, call: Call) -> Response:
        """PUT /v1/images/{name}: the body is the image, all of it (RFC 9110, section 14.5)."""
        if "content-range" in call.request.headers:
            raise RequestInvalidError(
                [Fault("/header/Content-Range", "is not taken: an image is sent whole, from its first byte")]
            )
        pairs = (label.split("=", maxsplit=1) for label in call.query.get("label", ()))
        head = pb.ImageUpload(
            name=call.name,
            expected_digest=call.query.get("digest", ""),
            content_length=min(int(call.request.headers.get("content-length") or 0), _MAX_LENGTH),
            labels={key: value for key, value in pairs},  # noqa: C416 - two-element lists, not tuples
            arch=call.query.get("arch", ""),
            request_id=call.request_id,
            if_match=call.if_match,
            if_none_match=call.if_none_match,
        )
        body = chunks(call.request, self._client_idle_s)
        answer = await self._upload(raw_messages(head, body), _RAW_POINTERS)
        return _uploaded(answer, 201 if answer.created else 200)

    async def post_form(self, call: Call) -> Response:
        """POST /v1/images: a form with `id` and `file`, in any order."""
        form = ImageForm(boundary_of(call.request.headers.get("content-type", "")))
        head = pb.ImageUpload(request_id=call.request_id)
        parts = form.parts(chunks(call.request, self._client_idle_s))
        return _uploaded(await self._upload(form_messages(head, parts), _FORM_POINTERS), 201)

    async def list(self, call: Call) -> Response:
        """GET /v1/images."""
        states = pb.DESCRIPTOR.enum_types_by_name["ImageState"]
        request = pb.ListImagesRequest(
            page_size=call.query.get("pageSize", 0),
            page_token=call.query.get("pageToken", ""),
            labels=call.query.get("label", ()),
            states=[enum_value(states, name) for name in call.query.get("state", ())],  # type: ignore[misc]
        )
        return json_response(to_json(await ask(IMAGE_STORE, self._stub.ListImages, request)))

    async def get(self, call: Call) -> Response:
        """GET /v1/images/{name}."""
        image = await self._get(call.name)
        headers = {"ETag": f'"{image.etag}"'}
        known = call.request.headers.get("if-none-match")
        if known is not None and is_fresh(known, image.etag):
            return Response(status_code=304, headers=headers)
        return json_response(to_json(image), headers=headers)

    async def delete(self, call: Call) -> Response:
        """DELETE /v1/images/{name}."""
        request = pb.DeleteImageRequest(name=call.name, request_id=call.request_id, if_match=call.if_match)
        answer = await ask(IMAGE_STORE, self._stub.DeleteImage, request, deadline_s=_DELETE_DEADLINE_S)
        return Response(
            status_code=204, headers={"Idempotency-Replayed": "true"} if answer.replayed else None
        )

    async def content(self, call: Call) -> Response:
        """GET /v1/images/{name}/content: the stored blob, or one range of it."""
        image = await self._get(call.name)
        # The blob is content-addressed: its digest is the strongest tag there is.
        headers = {"ETag": f'"{image.stored_digest}"', "Accept-Ranges": "bytes"}
        request_headers = call.request.headers
        known = request_headers.get("if-none-match")
        if known is not None and is_fresh(known, image.stored_digest):
            return Response(status_code=304, headers=headers)
        wanted = request_headers.get("range", "")
        if request_headers.get("if-range", headers["ETag"]) != headers["ETag"]:
            wanted = ""
        span = range_of(wanted, image.size_bytes)
        length = image.size_bytes
        request = pb.DownloadImageRequest(name=call.name)
        if span is not None:
            headers["Content-Range"] = span.content_range
            length = span.length
            request.offset, request.length = span.first, span.length
        source = await self._download(request, image)
        return StreamedBytes(
            source,
            status=200 if span is None else 206,
            media_type="application/octet-stream",
            headers=headers,
            length=length,
        )

    async def _upload(
        self, messages: AsyncIterator[pb.UploadImageRequest], pointers: Mapping[str, str]
    ) -> pb.UploadImageResponse:
        try:
            return await upload(self._stub, messages)
        except RequestInvalidError as exc:
            told = [Fault(pointers.get(fault.pointer, fault.pointer), fault.detail) for fault in exc.faults]
            raise RequestInvalidError(told) from exc

    async def _get(self, name: str) -> pb.Image:
        answer = await ask(IMAGE_STORE, self._stub.GetImage, pb.GetImageRequest(name=name))
        return answer.image

    async def _download(
        self, request: pb.DownloadImageRequest, image: pb.Image
    ) -> AsyncGenerator[bytes, None]:
        """Open the stream and read its first message, so that a refusal comes before the answer's head."""
        stream = self._stub.DownloadImage(request)
        first = await next_of(IMAGE_STORE, stream, idle_s=_STREAM_IDLE_S)
        if first is not None and first.image.stored_digest not in {"", image.stored_digest}:
            stream.cancel()
            raise PeerUnavailableError(IMAGE_STORE.absence, IMAGE_STORE.name, "the image was replaced")
        return _stream_bytes(stream, first)


async def _stream_bytes(stream: Any, message: pb.DownloadImageResponse | None) -> AsyncGenerator[bytes, None]:
    try:
        while message is not None:
            if message.chunk:
                yield message.chunk
            message = await next_of(IMAGE_STORE, stream, idle_s=_STREAM_IDLE_S)
    finally:
        stream.cancel()


def _uploaded(answer: pb.UploadImageResponse, status: int) -> Response:
    headers = {"ETag": f'"{answer.image.etag}"'}
    if status == 201:
        headers["Location"] = f"/v1/images/{answer.image.name}"
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return json_response(to_json(answer.image), status, headers)
