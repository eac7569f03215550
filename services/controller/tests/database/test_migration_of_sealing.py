"""What is sealed is never handed to a build that would take it for plain."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from controller.database.migrate import configuration


@pytest.mark.parametrize("sealed_by", ["", "a-key"])
def test_a_database_goes_back_only_while_nothing_in_it_is_sealed(tmp_path: Path, sealed_by: str) -> None:
    config = configuration()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/c.db")
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0012")
        source = sa.text("INSERT INTO image_sources (subject, url, key_id) VALUES ('s', :url, :sealed_by)")
        conn.execute(source, {"url": b"https://h/i", "sealed_by": sealed_by})
        if sealed_by:
            with pytest.raises(RuntimeError, match="image_sources holds sealed secrets"):
                command.downgrade(config, "0011")
        else:
            command.downgrade(config, "0011")
        kept = conn.execute(sa.text("SELECT count(*) FROM image_sources")).scalar_one()
    engine.dispose()
    assert kept == 1
