"""Fetching over the wire: whom the store speaks to, and that only what was promised is kept."""

from __future__ import annotations  # the stubs' classes for asyncio exist for the type checker only

import asyncio
import gzip
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from image_source import HOST, Answer, Request, Source, serving
from image_store.fetching.address_policy import AddressPolicy
from image_store.fetching.exchange import Patience
from image_store.intake import UploadLimits
from image_store_disks import raw_disk
from image_store_world import CALL_S, MIB, Clock, World, refused, running
from qcontroller.image.v1 import fetch_pb2, fetch_pb2_grpc, image_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
REFUSED = grpc.StatusCode.FAILED_PRECONDITION
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DISK = raw_disk(MIB, fill=b"payload ")
FORBIDDEN_NAMES = {
    "private.test": "10.0.0.1",
    "mapped.test": "::ffff:127.0.0.2",
    "link-local.test": "fe80::1",
}


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


DIGEST = digest_of(DISK)


async def check(world: World, url: str) -> None:
    request = fetch_pb2.FetchImageRequest(name="disk", url=url, expected_digest=DIGEST)
    await world.fetches.CheckFetch(fetch_pb2.CheckFetchRequest(fetch=request), timeout=CALL_S)


async def resolver(host: str, port: int) -> list[str]:
    """Know this server by its own address and a name; nothing is ever sent to what else it names."""
    if host in {HOST, "source.test"}:
        return [HOST]
    if host == "both.test":
        return ["10.0.0.1", HOST]
    if host in FORBIDDEN_NAMES:
        return [FORBIDDEN_NAMES[host]]
    loop = asyncio.get_running_loop()
    if host.endswith(".test"):
        raise OSError(f"{host} is not known")
    return [str(found[4][0]) for found in await loop.getaddrinfo(host, port, proto=6)]


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    async with serving() as source:
        yield source


@pytest.fixture
async def store(tmp_path: Path, clock: Clock, limits: UploadLimits) -> AsyncIterator[World]:
    policy = AddressPolicy.of([HOST])
    patience = Patience(connect_s=5.0, idle_s=5.0)
    async with running(tmp_path, clock, limits, policy=policy, resolver=resolver, patience=patience) as world:
        yield world


async def nothing_is_kept(world: World) -> None:
    answer = await world.images.ListImages(image_pb2.ListImagesRequest(), timeout=CALL_S)
    assert list(answer.images) == []
    assert world.blob_files() == set()
    assert world.upload_files() == []


async def test_a_fetch_becomes_an_image(store: World, source: Source) -> None:
    told = await store.fetch(source.serve(DISK), DIGEST, "debian-12", labels={"team": "web"}, arch="aarch64")
    assert told[-1] == (MIB, MIB)
    image = await store.get("debian-12")
    assert (image.digest, image.stored_digest, image.arch) == (DIGEST, DIGEST, "aarch64")
    assert dict(image.labels) == {"team": "web"}
    found = await store.fetches.FindImage(fetch_pb2.FindImageRequest(digest=DIGEST), timeout=CALL_S)
    assert found.image == image


async def test_an_unknown_digest_is_found_nowhere(store: World) -> None:
    found = await store.fetches.FindImage(fetch_pb2.FindImageRequest(digest=DIGEST), timeout=CALL_S)
    assert not found.HasField("image")


async def test_a_server_that_does_not_tell_the_length_is_read_to_its_end(
    store: World, source: Source
) -> None:
    source.routes["/disk"] = lambda request: Answer(body=DISK, length=False)
    told = await store.fetch(source.url(), DIGEST)
    assert told[-1] == (MIB, 0)


async def test_compressed_bytes_have_the_digest_of_the_file_and_are_stored_unpacked(
    store: World, source: Source
) -> None:
    packed = gzip.compress(DISK)
    await store.fetch(source.serve(packed), digest_of(packed))
    image = await store.get("disk")
    assert (image.digest, image.stored_digest) == (digest_of(packed), DIGEST)
    assert image.size_bytes == MIB


async def test_other_bytes_than_promised_leave_nothing(store: World, source: Source) -> None:
    with refused("IMAGE_DIGEST_MISMATCH", INVALID) as refusal:
        await store.fetch(source.serve(raw_disk(MIB)), DIGEST)
    assert refusal.problem.metadata == {"expected": DIGEST, "actual": digest_of(raw_disk(MIB))}
    await nothing_is_kept(store)


async def test_what_is_no_disk_leaves_nothing(store: World, source: Source) -> None:
    page = b"<html>not the image</html>" * 10_000
    with refused("IMAGE_FORMAT_UNKNOWN", INVALID):
        await store.fetch(source.serve(page), digest_of(page))
    await nothing_is_kept(store)


async def test_a_redirect_is_followed_with_the_new_name(store: World, source: Source) -> None:
    source.serve(DISK)
    there = source.url("/disk?token=1", host="source.test")
    await store.fetch(source.redirect(there), DIGEST)
    assert source.requests[-1].headers["host"] == f"source.test:{source.port}"
    assert source.requests[-1].target == "/disk?token=1"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.2]",
        "127.0.0.2",
        "2130706434",
        "0x7f000002",
        "0177.0.0.2",
        "127.2",
        "0.0.0.0",
        "[::]",
        *FORBIDDEN_NAMES,
    ],
)
async def test_a_redirect_to_a_forbidden_address_is_not_followed(
    store: World, source: Source, host: str
) -> None:
    with refused("IMAGE_SOURCE_FORBIDDEN", INVALID) as refusal:
        await store.fetch(source.redirect(f"http://{host}:{source.port}/latest"), DIGEST)
    assert refusal.problem.metadata["host"] == host.strip("[]")
    assert [request.target for request in source.requests] == ["/moved"]
    await nothing_is_kept(store)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://source.test/disk", "http://[::1"])
async def test_a_redirect_to_no_http_url_is_not_followed(store: World, source: Source, location: str) -> None:
    with refused("IMAGE_SOURCE_FORBIDDEN", INVALID):
        await store.fetch(source.redirect(location), DIGEST)


async def test_a_circle_of_redirects_ends(store: World, source: Source) -> None:
    url = source.redirect("/moved")
    with refused("IMAGE_SOURCE_REFUSED", REFUSED):
        await store.fetch(url, DIGEST)
    assert len(source.requests) == 6


@pytest.mark.parametrize("host", ["169.254.169.254", "0x7f000002", "private.test"])
async def test_a_forbidden_address_is_refused_before_anything_is_fetched(store: World, host: str) -> None:
    with refused("IMAGE_SOURCE_FORBIDDEN", INVALID):
        await check(store, f"https://{host}/disk")


@pytest.mark.parametrize("host", ["source.test", "unknown.test"])
async def test_a_permitted_source_passes_and_so_does_one_that_is_not_known_yet(
    store: World, host: str
) -> None:
    await check(store, f"https://{host}/disk")


async def test_only_the_permitted_ones_of_a_hosts_addresses_are_connected_to(
    store: World, source: Source
) -> None:
    source.serve(DISK)
    await store.fetch(source.url(host="both.test"), DIGEST)


async def test_a_name_is_looked_up_once_for_each_connection(
    tmp_path: Path, clock: Clock, limits: UploadLimits, source: Source
) -> None:
    """A name that has another address a moment later gains nothing by it."""
    answers = [[HOST], ["169.254.169.254"]]

    async def rebinding(host: str, port: int) -> list[str]:
        return answers.pop(0)

    source.serve(DISK)
    policy = AddressPolicy.of([HOST])
    async with running(tmp_path, clock, limits, policy=policy, resolver=rebinding) as world:
        await world.fetch(source.url(host="rebinding.test"), DIGEST)
    assert len(answers) == 1


async def test_proxies_of_the_environment_are_not_used(
    store: World, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    await store.fetch(source.serve(DISK), DIGEST)


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (404, "IMAGE_SOURCE_REFUSED", REFUSED),
        (403, "IMAGE_SOURCE_REFUSED", REFUSED),
        (204, "IMAGE_SOURCE_REFUSED", REFUSED),
        (429, "IMAGE_SOURCE_UNAVAILABLE", UNAVAILABLE),
        (503, "IMAGE_SOURCE_UNAVAILABLE", UNAVAILABLE),
    ],
)
async def test_an_error_of_the_server_is_told(
    store: World, source: Source, status: int, reason: str, code: grpc.StatusCode
) -> None:
    source.routes["/disk"] = lambda request: Answer(status)
    with refused(reason, code) as refusal:
        await store.fetch(source.url("/disk?signature=abc"), DIGEST)
    assert str(status) in refusal.problem.message
    assert "abc" not in f"{refusal.problem}"


async def test_an_unknown_host_may_be_known_later(store: World) -> None:
    with refused("IMAGE_SOURCE_UNAVAILABLE", UNAVAILABLE):
        await store.fetch("http://unknown.test/disk", DIGEST)


async def test_more_than_the_limit_is_refused_when_it_is_announced(store: World, source: Source) -> None:
    source.routes["/disk"] = lambda request: Answer(headers={"Content-Length": str(9 * MIB)}, body=DISK)
    with refused("BODY_TOO_LARGE", INVALID):
        await store.fetch(source.url(), DIGEST)
    await nothing_is_kept(store)


async def test_more_than_the_limit_is_refused_when_it_comes(store: World, source: Source) -> None:
    body = raw_disk(9 * MIB)
    source.routes["/disk"] = lambda request: Answer(body=body, length=False)
    with refused("BODY_TOO_LARGE", INVALID):
        await store.fetch(source.url(), digest_of(body))
    await nothing_is_kept(store)


async def test_a_broken_transfer_goes_on_where_it_broke(store: World, source: Source) -> None:
    def broken(request: Request) -> Answer:
        rest = DISK[request.offset :]
        headers = {"ETag": '"one"'}
        if request.offset:
            headers["Content-Range"] = f"bytes {request.offset}-{MIB - 1}/{MIB}"
        return Answer(206 if request.offset else 200, headers, rest, breaks_after=400_000)

    source.routes["/disk"] = broken
    await store.fetch(source.url(), DIGEST)
    assert [request.offset for request in source.requests] == [0, 400_000, 800_000]
    assert {request.headers.get("if-range") for request in source.requests[1:]} == {'"one"'}


async def test_a_file_that_changed_meanwhile_is_not_patched_together(store: World, source: Source) -> None:
    def changed(request: Request) -> Answer:
        return Answer(200, {"ETag": '"one"'}, DISK, breaks_after=400_000)

    source.routes["/disk"] = changed
    with refused("IMAGE_SOURCE_UNAVAILABLE", UNAVAILABLE):
        await store.fetch(source.url(), DIGEST)
    await nothing_is_kept(store)


async def test_a_broken_transfer_of_a_server_that_cannot_resume_leaves_nothing(
    store: World, source: Source
) -> None:
    source.routes["/disk"] = lambda request: Answer(body=DISK, breaks_after=400_000)
    with refused("IMAGE_SOURCE_UNAVAILABLE", UNAVAILABLE):
        await store.fetch(source.url(), DIGEST)
    assert len(source.requests) == 1
    await nothing_is_kept(store)


async def test_a_silent_server_is_given_up(
    tmp_path: Path, clock: Clock, limits: UploadLimits, source: Source
) -> None:
    source.routes["/disk"] = lambda request: Answer(body=DISK, breaks_after=1000, hangs=True)
    patience = Patience(connect_s=5.0, idle_s=0.2)
    policy = AddressPolicy.of([HOST])
    async with running(tmp_path, clock, limits, policy=policy, patience=patience) as world:
        with refused("IMAGE_SOURCE_UNAVAILABLE", UNAVAILABLE) as refusal:
            await world.fetch(source.url(), DIGEST)
        await nothing_is_kept(world)
    assert "silent" in refusal.problem.message


async def test_a_caller_that_hangs_up_ends_the_fetch_and_leaves_nothing(store: World, source: Source) -> None:
    source.routes["/disk"] = lambda request: Answer(body=DISK, breaks_after=1000, hangs=True)
    fetch = asyncio.create_task(store.fetch(source.url(), DIGEST))
    await source.reached.wait()
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    await source.left.wait()
    # It waits for the end of the fetch.
    await undo(store, DIGEST)
    await nothing_is_kept(store)


async def undo(world: World, digest: str) -> None:
    request = fetch_pb2.UndoFetchRequest(name="disk", expected_digest=digest)
    await world.fetches.UndoFetch(request, timeout=CALL_S)


async def test_what_was_fetched_is_removed_again(store: World, source: Source) -> None:
    await store.fetch(source.serve(DISK), DIGEST)
    await undo(store, DIGEST)
    await undo(store, DIGEST)
    await nothing_is_kept(store)


async def test_other_bytes_under_the_name_and_what_is_in_use_stay(store: World, source: Source) -> None:
    await store.fetch(source.serve(DISK), DIGEST)
    await undo(store, digest_of(b"other"))
    await store.pin("web-1")
    await undo(store, DIGEST)
    assert (await store.get("disk")).digest == DIGEST


async def test_a_name_that_must_be_new_is_not_replaced(store: World, source: Source) -> None:
    await store.upload(raw_disk())
    with refused("PRECONDITION_FAILED", REFUSED):
        await store.fetch(source.serve(DISK), DIGEST, if_none_match="*")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"url": "ftp://source.test/"}, "/url"),
        ({"expected_digest": ""}, "/expectedDigest"),
        ({"expected_digest": "sha256:12"}, "/expectedDigest"),
        ({"name": "../x"}, "/name"),
        ({"arch": "z80"}, "/arch"),
    ],
)
async def test_faults_are_named(store: World, fields: dict[str, str], pointer: str) -> None:
    request = fetch_pb2.FetchImageRequest(name="disk", url=f"http://{HOST}/", expected_digest=DIGEST)
    for field, value in fields.items():
        setattr(request, field, value)
    with refused("FIELD_INVALID", INVALID) as refusal:
        await store.fetches.FetchImage(request, timeout=CALL_S).read()
    assert refusal.pointers == [pointer]


async def test_clients_cannot_have_the_store_fetch(store: World) -> None:
    stub = fetch_pb2_grpc.ImageFetchServiceStub(store.channels["public"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CheckFetch(fetch_pb2.CheckFetchRequest(), timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and the certificate of source.test, in one file."""
    path = tmp_path_factory.mktemp("tls") / "source.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=source.test"),
            *("-addext", "subjectAltName=DNS:source.test", "-keyout", str(path), "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Source]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serving(context) as source:
        yield source


@pytest.mark.parametrize(("host", "trusted"), [("source.test", False), ("both.test", True)])
async def test_a_certificate_must_be_trusted_and_that_of_the_host(
    tmp_path: Path,
    clock: Clock,
    limits: UploadLimits,
    secure: Source,
    certificate: Path,
    *,
    host: str,
    trusted: bool,
) -> None:
    secure.serve(DISK)
    ca_file = Path(f"{certificate}.crt") if trusted else None
    policy = AddressPolicy.of([HOST])
    async with running(tmp_path, clock, limits, policy=policy, ca_file=ca_file, resolver=resolver) as world:
        with refused("IMAGE_SOURCE_REFUSED", REFUSED) as refusal:
            await world.fetch(secure.url(host=host), DIGEST)
    assert "certificate" in refusal.problem.message


async def test_the_certificate_is_held_against_the_name_and_not_the_address(
    tmp_path: Path, clock: Clock, limits: UploadLimits, secure: Source, certificate: Path
) -> None:
    secure.serve(DISK)
    ca_file = Path(f"{certificate}.crt")
    policy = AddressPolicy.of([HOST])
    async with running(tmp_path, clock, limits, policy=policy, ca_file=ca_file, resolver=resolver) as world:
        await world.fetch(secure.url(host="source.test"), DIGEST)
