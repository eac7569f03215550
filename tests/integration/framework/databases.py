"""Which databases a stack under test uses: files of its own, or, with QC_DATABASE=postgresql, a real server.

Nothing else differs: the tests are the same.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from qcstack.postgresql import shared_server

ON_POSTGRESQL: Final = os.environ.get("QC_DATABASE", "sqlite") == "postgresql"
_SETTINGS: Final = ("QC_CONTROLLER_DATABASE_URL", "QC_IMAGE_STORE_DATABASE_URL")


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Provide the part of a stack's environment that tells of its databases, which are empty and its own."""
    with ExitStack() as ends:
        found = {}
        for setting in _SETTINGS if ON_POSTGRESQL else ():
            server = shared_server()
            name = server.create_database()
            ends.callback(server.drop_database, name)
            found[setting] = server.url(name)
        yield found
