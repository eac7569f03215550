"""A PostgreSQL of one's own on a unix socket, for tests and benchmarks.

Nothing of it outlives the process that started it, and nothing of it is durable: it never waits for a disk
unless it is asked to.
"""

import atexit
import contextlib
import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

USER: Final = "qcontroller"
_VERSIONS: Final = Path("/usr/lib/postgresql")
_READY_S: Final = 60.0
_END_S: Final = 30.0
_POLL_S: Final = 0.02
# The server refuses to run as root.
_UNPRIVILEGED: Final = ("postgres", "nobody")


class PostgresMissingError(Exception):
    """There is no PostgreSQL here; the message says what to do."""


def postgres_programs() -> Path:
    """Return the directory of the newest server's programs.

    Raises:
        PostgresMissingError: None is installed.
    """
    found = sorted(_VERSIONS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise PostgresMissingError("PostgreSQL's server is not installed: run tools/setup as root")
    return found[-1].parent


class PostgresServer:
    """A server with a directory of its own; a context manager, and the processes end with it."""

    def __init__(self, *, durable: bool = False) -> None:
        """Use a new directory below the one for temporary files.

        Args:
            durable: Wait for the disk as in production (for benchmarks).
        """
        self._programs = postgres_programs()
        self._durable = durable
        # Not below a test's own directory: that is closed to the server's user.
        self._directory = Path(tempfile.mkdtemp(prefix="qc-postgres-"))
        self._log = self._directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user: tuple[str, ...] = ()
        if os.geteuid() == 0:
            account = _unprivileged_account()
            os.chown(self._directory, account.pw_uid, account.pw_gid)
            self._as_user = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")

    @property
    def directory(self) -> Path:
        """Where its socket is, among others."""
        return self._directory

    def url(self, database: str, user: str = USER, password: str = "") -> str:
        """Return the URL of a database; `USER` needs no password, others do."""
        who = f"{user}:{password}" if password else user
        return f"postgresql://{who}@/{database}?host={self._directory}"

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        unsafe = () if self._durable else ("-c", "fsync=off", "-c", "full_page_writes=off")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", *self._as_user, "--pdeathsig", "INT", "--"),
                    *(self._programs / "postgres", "-D", self._directory / "data"),
                    *("-k", self._directory, "-c", "listen_addresses=", "-c", "max_connections=200"),
                    *unsafe,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        give_up = time.monotonic() + _READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(
                    f"PostgreSQL is not ready:\n{self._log.read_text(encoding='utf-8')[-2000:]}"
                )
            # Nobody is told when the server is ready.
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End all connections and the server at once, as `immediate` does; it recovers at the next start."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_END_S)
            self._process = None

    def create_database(self, template: str = "template0", prefix: str = "t") -> str:
        """Return the name of a new database."""
        name = f"{prefix}_{secrets.token_hex(6)}"
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database and whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_user(self, name: str, password: str) -> None:
        """Add a user that must say its password."""
        self.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
        )

    def end_connections(self, database: str) -> int:
        """End all connections to a database; return how many there were."""
        ended = self.execute(
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(
                sql.Literal(database)
            )
        )
        return len(ended)

    def execute(self, statement: sql.Composed | sql.SQL) -> list[tuple[Any, ...]]:
        """Run one statement as the server's owner, outside of a transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description is not None else []

    def _make(self) -> None:
        subprocess.run(
            [
                *("setpriv", *self._as_user, "--pdeathsig", "KILL", "--"),
                *(self._programs / "initdb", "-D", self._directory / "data", "-U", USER),
                *("-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._directory,
        )
        access = self._directory / "data" / "pg_hba.conf"
        access.write_text(f"local all {USER} trust\nlocal all all scram-sha-256\n", encoding="ascii")

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _remove(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.stop()
        shutil.rmtree(self._directory)


@functools.cache
def shared_server() -> PostgresServer:
    """Return a server for the rest of this process's life.

    Raises:
        PostgresMissingError: None is installed.
    """
    server = PostgresServer()
    server.__enter__()
    atexit.register(server.__exit__, None, None, None)
    return server


def _unprivileged_account() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresMissingError(f"none of the users {', '.join(_UNPRIVILEGED)} is known to this host")
