"""Images over REST, through a real server: streams, refusals, ranges."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from framework.api_client import ApiClient
from gateway_fakes import DIGEST, Stand
from qcontroller.image.v1 import image_pb2

CONTENT = b"QFI" + bytes(range(256)) * 8192  # 2 MiB


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    body = b""
    for name, content in parts:
        disposition = f'Content-Disposition: form-data; name="{name}"'
        if name == "file":
            disposition += '; filename="disk.qcow2"\r\nContent-Type: application/octet-stream'
        body += b"--b\r\n" + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + end


def pointers_of(response: httpx.Response) -> list[str]:
    return [fault["pointer"] for fault in response.json()["errors"]]


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


async def test_a_new_image_is_201(wire: ApiClient, rest: Stand) -> None:
    response = await wire.put("/v1/images/debian-12", content=CONTENT)
    assert (response.status_code, response.headers["location"]) == (201, "/v1/images/debian-12")
    assert response.headers["etag"] == '"i7"'
    assert rest.store.images == {"debian-12": CONTENT}


async def test_a_replaced_image_is_200(wire: ApiClient) -> None:
    await wire.put("/v1/images/x", content=CONTENT)
    assert (await wire.put("/v1/images/x", content=CONTENT)).status_code == 200


async def test_the_store_is_told_what_the_client_knows(wire: ApiClient, rest: Stand) -> None:
    await wire.put(
        f"/v1/images/x?digest={DIGEST}&arch=aarch64&label=a=b=c&label=d=",
        content=CONTENT,
        headers={"Idempotency-Key": "k", "If-None-Match": "*"},
    )
    assert rest.store.uploads == [
        image_pb2.ImageUpload(
            name="x",
            expected_digest=DIGEST,
            content_length=len(CONTENT),
            labels={"a": "b=c", "d": ""},
            arch="aarch64",
            request_id="local:PUT /v1/images/x:k",
            if_none_match="*",
        )
    ]


async def test_a_length_beyond_64_bits_is_announced_as_the_most_there_is(
    client: ApiClient, rest: Stand
) -> None:
    await client.put("/v1/images/x", content=CONTENT, headers={"Content-Length": "9" * 20})
    assert rest.store.uploads[-1].content_length == 2**64 - 1


async def test_a_part_of_an_image_is_not_taken_for_the_whole(wire: ApiClient, rest: Stand) -> None:
    headers = {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{2 * len(CONTENT)}"}
    response = await wire.put("/v1/images/x", content=CONTENT, headers=headers)
    assert (response.status_code, pointers_of(response)) == (400, ["/header/Content-Range"])
    assert rest.store.images == {}


async def test_a_chunked_upload_has_no_length(wire: ApiClient, rest: Stand) -> None:
    async def body() -> AsyncIterator[bytes]:
        for at in range(0, len(CONTENT), 300_000):
            yield CONTENT[at : at + 300_000]

    assert (await wire.put("/v1/images/x", content=body())).status_code == 201
    assert rest.store.uploads[0].content_length == 0
    assert rest.store.images["x"] == CONTENT
    assert rest.store.largest_chunk <= 1024 * 1024


async def test_a_refusal_after_the_header_is_answered_while_the_client_sends(
    wire: ApiClient, rest: Stand
) -> None:
    # Raw, because an HTTP client reads the answer only after its own body.
    reader, writer = await _connect(wire)
    writer.write(
        b"PUT /v1/images/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nnot an image"
    )
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()
    assert head.startswith("http/1.1 422")
    assert "connection: close" in head
    writer.close()
    assert rest.store.images == {}


async def test_expect_100_continue_is_answered(wire: ApiClient) -> None:
    reader, writer = await _connect(wire)
    writer.write(
        b"PUT /v1/images/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 100")
    writer.write(b"QFI")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 201")
    writer.close()


async def test_a_refusal_that_needs_no_body_sends_no_100(wire: ApiClient) -> None:
    reader, writer = await _connect(wire)
    writer.write(
        b"PUT /v1/images/x HTTP/1.1\r\nHost: evil\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 421")
    writer.close()


async def test_an_upload_that_breaks_off_stores_nothing(wire: ApiClient, rest: Stand) -> None:
    _, writer = await _connect(wire)
    writer.write(b"PUT /v1/images/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nQFIabc")
    await writer.drain()
    writer.close()
    await asyncio.wait_for(rest.store.broken.wait(), 10)
    assert rest.store.images == {}


@pytest.mark.parametrize("order", [("id", "file"), ("file", "id")])
async def test_a_form_is_taken_in_any_order(wire: ApiClient, rest: Stand, order: tuple[str, str]) -> None:
    parts = {"id": b"debian-12", "file": CONTENT}
    body = form(*((name, parts[name]) for name in order))
    response = await wire.post("/v1/images", content=body, headers=FORM)
    assert response.status_code == 201, response.text
    assert rest.store.images == {"debian-12": CONTENT}
    assert rest.store.largest_chunk <= 1024 * 1024


async def test_a_replacing_form_is_201_too(wire: ApiClient) -> None:
    for _ in range(2):
        body = form(("id", b"x"), ("file", CONTENT))
        assert (await wire.post("/v1/images", content=body, headers=FORM)).status_code == 201


@pytest.mark.parametrize(
    ("body", "reason", "pointers"),
    [
        (form(("id", b"x")), "FIELD_INVALID", ["/file"]),
        (form(("file", CONTENT)), "FIELD_INVALID", ["/id"]),
        (form(), "FIELD_INVALID", ["/id", "/file"]),
        (form(("id", b"x"), ("other", b"y")), "FIELD_INVALID", ["/other"]),
        (form(("id", b"x"), ("id", b"y")), "FIELD_INVALID", ["/id"]),
        (form(("file", CONTENT), ("file", CONTENT)), "FIELD_INVALID", ["/file"]),
        (form(("id", b"x" * 2000)), "FIELD_INVALID", ["/id"]),
        (form(("id", b"x"), ("file", CONTENT), end=b""), "UPLOAD_TRUNCATED", []),
        (b"garbage", "BODY_MALFORMED", [""]),
    ],
)
async def test_a_wrong_form_is_refused_and_stores_nothing(
    wire: ApiClient, rest: Stand, body: bytes, reason: str, pointers: list[str]
) -> None:
    response = await wire.post("/v1/images", content=body, headers=FORM)
    problem = response.json()
    assert (response.status_code, problem["reason"]) == (400, reason)
    assert [fault["pointer"] for fault in problem.get("errors", [])] == pointers
    assert rest.store.images == {}


async def test_a_precondition_that_a_form_cannot_have_is_refused(wire: ApiClient, rest: Stand) -> None:
    sent = form(("id", b"x"), ("file", CONTENT))
    response = await wire.post("/v1/images", content=sent, headers={**FORM, "If-None-Match": "*"})
    assert (response.status_code, pointers_of(response)) == (400, ["/header/If-None-Match"])
    assert rest.store.images == {}


async def test_a_form_with_bytes_that_are_no_image_is_422(wire: ApiClient) -> None:
    response = await wire.post("/v1/images", content=form(("id", b"x"), ("file", b"abc")), headers=FORM)
    assert (response.status_code, response.json()["metadata"]) == (422, {"rule": "backing-file"})


async def test_a_form_of_another_type_is_415(wire: ApiClient) -> None:
    assert (await wire.post("/v1/images", json={"id": "x"})).status_code == 415


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_an_encoded_upload_is_415(wire: ApiClient, encoding: str) -> None:
    response = await wire.put("/v1/images/x", content=CONTENT, headers={"Content-Encoding": encoding})
    assert response.status_code == 415


async def test_images_are_listed_shown_and_deleted(wire: ApiClient) -> None:
    await wire.put("/v1/images/x", content=CONTENT)
    listed = (await wire.get("/v1/images/?state=READY")).json()["images"]
    assert [image["name"] for image in listed] == ["x"]
    shown = await wire.get("/v1/images/x")
    assert (shown.json()["sizeBytes"], shown.json()["virtualSizeBytes"]) == (len(CONTENT), 1 << 40)
    unchanged = await wire.get("/v1/images/x", headers={"If-None-Match": shown.headers["etag"]})
    assert unchanged.status_code == 304
    assert (await wire.delete("/v1/images/x")).status_code == 204
    assert (await wire.get("/v1/images/x")).status_code == 404


@pytest.mark.parametrize(
    ("wanted", "status", "begin", "end"),
    [
        ("", 200, 0, None),
        ("bytes=0-2", 206, 0, 3),
        ("bytes=5-", 206, 5, None),
        ("bytes=-4", 206, -4, None),
        ("bytes=0-99999999", 206, 0, None),
        ("bytes=0-1,4-5", 200, 0, None),
    ],
)
async def test_the_content_is_read_whole_or_in_part(
    wire: ApiClient, wanted: str, status: int, begin: int, end: Any
) -> None:
    content = CONTENT[:3000]
    await wire.put("/v1/images/x", content=content)
    response = await wire.get("/v1/images/x/content", headers={"Range": wanted} if wanted else {})
    assert (response.status_code, response.content) == (status, content[begin:end])
    assert response.headers["content-length"] == str(len(response.content))


async def test_a_range_behind_the_content_is_416(wire: ApiClient) -> None:
    await wire.put("/v1/images/x", content=b"QFI")
    response = await wire.get("/v1/images/x/content", headers={"Range": "bytes=3-"})
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */3")


async def test_a_range_of_other_bytes_is_sent_whole(wire: ApiClient) -> None:
    await wire.put("/v1/images/x", content=b"QFI")
    headers = {"Range": "bytes=0-0", "If-Range": '"sha256:other"'}
    assert (await wire.get("/v1/images/x/content", headers=headers)).content == b"QFI"


async def _connect(wire: ApiClient) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", wire.base_url.port)


async def test_a_fault_that_the_store_finds_is_pointed_at_where_the_client_gave_it(wire: ApiClient) -> None:
    raw = await wire.put("/v1/images/LOUD", content=CONTENT)
    assert raw.json()["errors"] == [{"pointer": "/path/name", "detail": "is loud"}]
    sent = form(("file", CONTENT), ("id", b"LOUD"))
    response = await wire.post("/v1/images", content=sent, headers=FORM)
    assert response.json()["errors"] == [{"pointer": "/id", "detail": "is loud"}]
