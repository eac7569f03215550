"""The table of answers is complete and the schema is what the migrations make."""

from collections.abc import Iterator
from pathlib import Path

import image_store.errors
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from image_store.catalogue.database import Database
from image_store.catalogue.schema import METADATA
from image_store.errors import AdmissionError, CompressedError, ImageStoreError, SourceError
from image_store.problems import TABLE, translate


def errors(root: type[ImageStoreError]) -> Iterator[type[ImageStoreError]]:
    for error in root.__subclasses__():
        yield error
        yield from errors(error)


def test_every_error_has_its_answer_and_every_answer_its_error() -> None:
    assert set(TABLE) == set(errors(ImageStoreError)) - {AdmissionError, CompressedError, SourceError}


def test_every_error_is_drawn_in_the_tree() -> None:
    tree = image_store.errors.__doc__ or ""
    assert [error.__name__ for error in errors(ImageStoreError) if error.__name__ not in tree] == []


def test_each_reason_stands_for_one_error() -> None:
    assert len({reason for _, reason, _ in TABLE.values()}) == len(TABLE)


def test_what_is_no_error_of_ours_has_no_answer() -> None:
    assert translate(ZeroDivisionError("secret")) is None


async def test_the_migrations_make_the_schema_of_the_code(tmp_path: Path) -> None:
    async with Database(tmp_path / "store.db") as database:
        difference = await database.write(
            lambda connection: compare_metadata(MigrationContext.configure(connection), METADATA)
        )
    assert difference == []
