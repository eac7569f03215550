"""Images through the gateway: both ways in, streamed in constant memory, safe, pinned."""

import hashlib
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
from framework import guests
from framework.cloud import Cloud, document
from framework.disks import raw_disk

MIB = 2**20


def test_a_raw_body_and_a_form_store_the_same_bytes_once(cloud: Cloud) -> None:
    content = guests.tiny().read_bytes()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    put = cloud.api.request(
        "PUT", "/v1/images/by-put", content=content, headers={"Content-Type": "application/octet-stream"}
    )
    assert put.status_code == 201, put.text
    assert document(put)["digest"] == digest
    assert document(put)["format"] == "qcow2"
    again = cloud.api.request(
        "PUT", "/v1/images/by-put", content=content, headers={"Content-Type": "application/octet-stream"}
    )
    assert again.status_code == 200
    for name, order in (("form-1", ("id", "file")), ("form-2", ("file", "id"))):
        parts: dict[str, Any] = {"id": (None, name), "file": ("disk.qcow2", content)}
        form = cloud.api.request("POST", "/v1/images", files=[(part, parts[part]) for part in order])
        assert form.status_code == 201, form.text
        assert document(form)["name"] == name
        assert document(form)["digest"] == digest
    for name in ("by-put", "form-1", "form-2"):
        assert cloud.api.request("DELETE", f"/v1/images/{name}").status_code == 204
        assert cloud.api.request("GET", f"/v1/images/{name}").status_code == 404


def test_the_content_comes_back_whole_and_in_ranges(cloud: Cloud) -> None:
    content = guests.tiny().read_bytes()
    whole = cloud.api.request("GET", "/v1/images/tiny/content")
    assert whole.status_code == 200
    assert whole.content == content
    part = cloud.api.request("GET", "/v1/images/tiny/content", headers={"Range": "bytes=1000-1999"})
    assert part.status_code == 206
    assert part.content == content[1000:2000]
    beyond = cloud.api.request("GET", "/v1/images/tiny/content", headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status_code == 416


def test_lists_are_paged_and_filtered(cloud: Cloud) -> None:
    content = guests.tiny().read_bytes()
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        cloud.api.request(
            "PUT",
            f"/v1/images/{name}",
            params={"label": "suite=pages"},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
    found: list[str] = []
    token = ""
    while True:
        page = document(
            cloud.api.request(
                "GET", "/v1/images", params={"pageSize": 2, "pageToken": token, "label": "suite=pages"}
            )
        )
        found += [image["name"] for image in page["images"]]
        token = page["nextPageToken"]
        if not token:
            break
    assert found == names
    for name in names:
        assert cloud.api.request("DELETE", f"/v1/images/{name}").status_code == 204


def test_a_raw_image_boots_too(cloud: Cloud, tmp_path: Path) -> None:
    raw = tmp_path / "tiny.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", guests.tiny(), raw], check=True)
    image = cloud.upload("tiny-raw", raw)
    assert image["format"] == "raw"
    cloud.delete(cloud.launch_ready(image="tiny-raw")["name"])
    assert cloud.api.request("DELETE", "/v1/images/tiny-raw").status_code == 204


def test_a_new_upload_under_an_old_name_never_disturbs_a_running_guest(cloud: Cloud, tmp_path: Path) -> None:
    cloud.upload("moving", guests.tiny())
    name = cloud.launch_ready(image="moving")["name"]
    boot_id = cloud.boot_id(name)
    raw = tmp_path / "other.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", guests.tiny(), raw], check=True)
    cloud.upload("moving", raw)
    assert cloud.boot_id(name) == boot_id
    cloud.verb(name, "stop")
    cloud.verb(name, "start")
    cloud.wait_ready(name)
    cloud.delete(name)
    assert cloud.api.request("DELETE", "/v1/images/moving").status_code == 204


@pytest.mark.parametrize(
    ("way", "small_mib", "large_mib"),
    [("raw", 100, 600), ("form", 100, 400), pytest.param("raw", 100, 4096, marks=pytest.mark.full)],
)
def test_memory_does_not_grow_with_the_size_of_an_upload(
    cloud: Cloud, way: str, small_mib: int, large_mib: int
) -> None:
    send = {"raw": send_raw, "form": send_form}[way]
    processes = [cloud.stack.process(service).pid for service in ("gateway", "image-store")]
    peaks = []
    for size_mib in (small_mib, large_mib):
        for pid in processes:
            forget_peak(pid)
        assert send(cloud, size_mib).status_code == 201
        peaks.append([peak_mib(pid) for pid in processes])
        assert cloud.api.request("DELETE", "/v1/images/sized").status_code == 204
    grown = [late - early for early, late in zip(*peaks, strict=True)]
    assert max(grown) <= 64, peaks


def send_raw(cloud: Cloud, size_mib: int) -> httpx.Response:
    """PUT a raw disk of `size_mib` MiB that is never whole in memory."""
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_mib * MIB)}
    return cloud.api.request("PUT", "/v1/images/sized", content=raw_disk(size_mib), headers=headers)


def send_form(cloud: Cloud, size_mib: int) -> httpx.Response:
    """POST the same as a form."""
    head = '--b\r\nContent-Disposition: form-data; name="{}"; filename="disk.raw"\r\n\r\n'
    before, between = head.format("file").encode(), b"\r\n" + head.format("id").encode()
    body = chain([before], raw_disk(size_mib), [between, b"sized\r\n--b--\r\n"])
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return cloud.api.request("POST", "/v1/images", content=body, headers=headers)


def forget_peak(pid: int) -> None:
    """Let the peak begin anew at what the process holds now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak_mib(pid: int) -> int:
    """Return the most memory that the process held since (VmHWM of proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no VmHWM")
