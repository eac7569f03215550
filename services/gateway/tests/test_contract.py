"""The contract document itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from framework.api_client import SPECIFICATION, Contract
from gateway.contract import load_contract
from gateway.dispatch import Specification

CONTRACT = Contract()


def operations() -> Iterator[tuple[str, Any]]:
    for template, item in CONTRACT.document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield f"{method.upper()} {template}", operation


def test_the_document_is_valid_openapi_3_0_4() -> None:
    document = Specification.load(str(SPECIFICATION))  # type: ignore[no-untyped-call]
    assert document["openapi"] == "3.0.4"


@pytest.mark.parametrize(
    ("at", "value", "schema"), [pytest.param(*found, id=found[0]) for found in CONTRACT.examples()]
)
def test_every_example_fits_its_schema(at: str, value: object, schema: Any) -> None:
    CONTRACT.check_value(value, schema, at)


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(ids) == len(set(ids))


def test_every_operation_says_what_a_problem_looks_like() -> None:
    assert [name for name, operation in operations() if "default" not in operation["responses"]] == []


def test_every_operation_is_summed_up_and_filed() -> None:
    assert [
        name for name, operation in operations() if not (operation["summary"] and operation["tags"])
    ] == []


def test_every_mutation_takes_an_idempotency_key() -> None:
    contract = load_contract()
    without = {
        operation.id
        for operation in contract.operations.values()
        if operation.method != "GET" and "Idempotency-Key" not in operation.headers
    }
    assert without == {  # no operations
        "authoriseSshKeys",
        "createConsoleTicket",
        "execInstance",
        "freezeGuest",
        "pushFile",
        "renewLease",
        "setGuestPassword",
        "thawGuest",
    }


def test_every_request_body_refuses_unknown_fields() -> None:
    def open_objects(schema: Any, at: str) -> Iterator[str]:
        if isinstance(schema, dict):
            if schema.get("type") == "object" and "additionalProperties" not in schema:
                yield at
            for key, value in schema.items():
                yield from open_objects(value, f"{at}/{key}")

    document = load_contract().document
    bodies = [
        (f"{method} {template}", media["schema"])
        for template, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
        for media in operation.get("requestBody", {}).get("content", {}).values()
    ]
    assert [found for at, schema in bodies for found in open_objects(schema, at)] == []


@pytest.mark.parametrize(
    "field",
    ["firmware"],
)
def test_a_field_that_is_not_built_is_not_in_the_contract(field: str) -> None:
    assert field not in CONTRACT.schema("Launch")["properties"]
