"""Images from URLs: imported, launched from, refused; the server is the test's own, on loopback."""

import gzip
import hashlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from framework import guests
from framework.cloud import Cloud, Document, document
from framework.web import Web, serving
from qcontroller.controller.v1 import (
    image_import_pb2,
    image_import_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
)

pytestmark = pytest.mark.native("in a container the image store has a loopback of its own")
SECRET = "signature=hush-hush"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def packed() -> bytes:
    """The tiny guest, compressed."""
    return gzip.compress(guests.tiny().read_bytes(), compresslevel=1)


@pytest.fixture
def web(packed: bytes) -> Iterator[Web]:
    """A server that has the guest under two names, one of them held back."""
    with serving() as web:
        web.files = {"/tiny.gz": packed, "/held.gz": packed}
        web.held = {"/held.gz"}
        yield web


def import_image(cloud: Cloud, wait_s: int = 60, **body: Any) -> Any:
    return cloud.api.request(
        "POST", "/v1/images/import", json=body, headers={"Prefer": f"wait={wait_s}"} if wait_s else {}
    )


def nothing_is_kept(cloud: Cloud, name: str) -> None:
    assert cloud.api.request("GET", f"/v1/images/{name}").status_code == 404
    assert cloud.stack.pending_uploads() == []


def cancelled(cloud: Cloud, location: str) -> Document:
    answer = cloud.api.request("POST", f"{location}/cancel", headers={"Prefer": "wait=60"})
    assert answer.is_success, answer.text
    return document(answer)


def test_an_import_brings_the_image_once(cloud: Cloud, web: Web, packed: bytes) -> None:
    body: dict[str, Any] = {
        "name": "imported",
        "url": web.url(f"/tiny.gz?{SECRET}"),
        "digest": digest_of(packed),
    }
    answer = import_image(cloud, **body, labels={"suite": "imports"})
    assert answer.status_code == 201, answer.text
    image = document(answer)
    unpacked = guests.tiny().read_bytes()
    assert (image["digest"], image["storedDigest"]) == (digest_of(packed), digest_of(unpacked))
    assert image["labels"] == {"suite": "imports"}
    again = import_image(cloud, **body, labels={"suite": "imports"})
    assert again.status_code == 200
    assert web.asked == ["/tiny.gz"]
    assert cloud.api.request("DELETE", "/v1/images/imported").status_code == 204


def test_a_launch_from_a_url_runs_and_its_image_stays(cloud: Cloud, web: Web, packed: bytes) -> None:
    digest = digest_of(packed)
    name = digest.replace(":", "-")
    source: dict[str, Any] = {"image": web.url(f"/tiny.gz?{SECRET}"), "imageDigest": digest}
    instance = cloud.launch("by-url", **source)
    assert (instance["image"], instance["imageDigest"]) == (name, digest)
    assert instance["vm"]["disk"] > 0
    cloud.wait_ready("by-url")
    assert document(cloud.api.request("GET", f"/v1/images/{name}"))["usedBy"] == ["by-url"]
    cloud.launch("by-url-again", start=False, **source)
    assert web.asked == ["/tiny.gz"], "what is there is not fetched again"
    for instance_name in ("by-url", "by-url-again"):
        cloud.delete(instance_name)
    assert document(cloud.api.request("GET", f"/v1/images/{name}"))["usedBy"] == []
    assert cloud.api.request("DELETE", f"/v1/images/{name}").status_code == 204
    for service, text in cloud.stack.logs().items():
        assert "hush-hush" not in text, f"{service} tells what is secret in a URL"


def test_a_launch_that_is_cancelled_while_it_fetches_leaves_nothing(
    cloud: Cloud, web: Web, packed: bytes
) -> None:
    digest = digest_of(packed)
    body = {"name": "called-off", "image": web.url("/held.gz"), "imageDigest": digest, "start": True}
    answer = cloud.api.request("POST", "/v1/instances", json=body)
    assert answer.status_code == 202, answer.text
    assert web.begun.wait(60)
    assert cancelled(cloud, answer.headers["Location"])["state"] == "CANCELLED"
    assert web.left.wait(60), "the image store has hung up"
    assert cloud.api.request("GET", "/v1/instances/called-off").status_code == 404
    nothing_is_kept(cloud, digest.replace(":", "-"))
    assert cloud.leaks() == []


def test_an_import_that_is_cancelled_leaves_nothing(cloud: Cloud, web: Web, packed: bytes) -> None:
    answer = import_image(cloud, 0, name="called-off", url=web.url("/held.gz"), digest=digest_of(packed))
    assert answer.status_code == 202, answer.text
    assert web.begun.wait(60)
    assert cancelled(cloud, answer.headers["Location"])["state"] == "CANCELLED"
    nothing_is_kept(cloud, "called-off")


def test_other_bytes_than_promised_are_not_kept(cloud: Cloud, web: Web) -> None:
    answer = import_image(cloud, name="other", url=web.url("/tiny.gz"), digest=digest_of(b"other"))
    assert (answer.status_code, document(answer)["reason"]) == (422, "IMAGE_DIGEST_MISMATCH")
    nothing_is_kept(cloud, "other")
    launch = cloud.api.request(
        "POST",
        "/v1/instances",
        json={"name": "other", "image": web.url("/tiny.gz"), "imageDigest": digest_of(b"other")},
        headers={"Prefer": "wait=60"},
    )
    assert (launch.status_code, document(launch)["reason"]) == (422, "IMAGE_DIGEST_MISMATCH")
    assert cloud.api.request("GET", "/v1/instances/other").status_code == 404


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::1]", "[::ffff:127.0.0.2]", "127.0.0.2", "0x7f000002", "2130706434"]
)
def test_forbidden_addresses_are_not_connected_to(cloud: Cloud, web: Web, packed: bytes, host: str) -> None:
    url = f"http://{host}:{web.port}/tiny.gz"
    body: dict[str, Any] = {"name": "forbidden", "digest": digest_of(packed)}
    asked = import_image(cloud, **body, url=url)
    assert (asked.status_code, document(asked)["reason"]) == (422, "IMAGE_SOURCE_FORBIDDEN")
    assert "Location" not in asked.headers
    web.redirects["/moved"] = url
    redirected = import_image(cloud, **body, url=web.url("/moved"))
    assert (redirected.status_code, document(redirected)["reason"]) == (422, "IMAGE_SOURCE_FORBIDDEN")
    assert web.asked == ["/moved"]
    nothing_is_kept(cloud, "forbidden")


def test_what_cannot_be_had_is_told(cloud: Cloud, web: Web, packed: bytes) -> None:
    answer = import_image(cloud, name="gone", url=web.url("/gone"), digest=digest_of(packed))
    assert (answer.status_code, document(answer)["reason"]) == (422, "IMAGE_SOURCE_REFUSED")
    assert document(answer)["metadata"]["status"] == "404"


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"url": "file:///etc/passwd"}, "/url"),
        ({"url": "not a url"}, "/url"),
        ({"digest": "sha256:12"}, "/digest"),
        ({"name": "../x"}, "/name"),
        ({"labels": {"a=b": "c"}}, "/labels/a=b"),
    ],
)
def test_bad_imports_are_refused_with_their_place(
    cloud: Cloud, changed: dict[str, Any], pointer: str
) -> None:
    body = {"name": "bad", "url": "http://127.0.0.1:9/", "digest": digest_of(b""), **changed}
    answer = import_image(cloud, **body)
    assert answer.status_code == 400
    assert pointer in {fault["pointer"] for fault in document(answer)["errors"]}


def test_a_launch_from_a_url_needs_a_digest(cloud: Cloud) -> None:
    answer = cloud.api.request("POST", "/v1/instances", json={"name": "x", "image": "http://127.0.0.1:9/"})
    assert answer.status_code == 400
    assert [fault["pointer"] for fault in document(answer)["errors"]] == ["/imageDigest"]


async def test_the_import_of_grpc_is_that_of_rest(cloud: Cloud, web: Web, packed: bytes) -> None:
    target = f"127.0.0.1:{cloud.stack.layout.controller_port}"
    request = image_import_pb2.ImportImageRequest(
        name="by-grpc", url=web.url("/tiny.gz"), digest=digest_of(packed)
    )
    async with grpc.aio.insecure_channel(target) as channel:
        imports = image_import_pb2_grpc.ImageImportServiceStub(channel)
        operations = operation_pb2_grpc.OperationServiceStub(channel)
        answer = await imports.ImportImage(request, timeout=30)
        wait = operation_pb2.WaitOperationRequest(id=answer.operation.id, timeout="60s")
        ended = (await operations.WaitOperation(wait, timeout=70)).operation
    assert ended.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    shown = document(cloud.api.request("GET", f"/v1/operations/{ended.id}"))
    assert (shown["kind"], shown["result"], shown["instance"]) == ("import-image", "/v1/images/by-grpc", "")
    assert cloud.api.request("DELETE", "/v1/images/by-grpc").status_code == 204
