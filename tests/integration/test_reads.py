"""Whatever can be read is answered as openapi.yaml says, on the stack as it really runs.

The client judges each answer; what is asserted here is only that there is one.
"""

import re

import pytest
from framework.api_client import SPECIFICATION
from framework.cloud import Cloud, document

NODE = "/v1/nodes/node-1"


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/instances",
        "/v1/instances/",
        "/v1/images",
        "/v1/operations",
        "/v1/nodes",
        NODE,
        f"{NODE}/leaks",
        f"{NODE}/doctor",
    ],
)
def test_it_keeps_the_contract(cloud: Cloud, path: str) -> None:
    assert cloud.api.request("GET", path).status_code == 200
    head = cloud.api.request("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")


def test_the_specification_is_served_as_it_was_written(cloud: Cloud) -> None:
    assert cloud.api.request("GET", "/openapi.yaml").content == SPECIFICATION.read_bytes()


def test_swagger_ui_loads_nothing_from_elsewhere(cloud: Cloud) -> None:
    page = cloud.api.request("GET", "/v1/swagger/index.html").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert "./swagger-ui-bundle.js" in files
    for file in files:
        assert "//" not in file
        assert cloud.api.request("GET", f"/v1/swagger/{file.removeprefix('./')}").status_code == 200


@pytest.mark.parametrize("path", ["/v1/instances", "/v1/images", "/v1/operations", "/v1/nodes"])
def test_a_foreign_page_token_has_one_reason_everywhere(cloud: Cloud, path: str) -> None:
    refused = cloud.api.request("GET", path, params={"pageToken": "bm9uZQ"})
    assert (refused.status_code, document(refused)["reason"]) == (400, "PAGE_TOKEN_INVALID")
