"""What all mutations share: identity, precondition, and how they are answered."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.lifecycle import allowed
from controller.errors import (
    ControllerError,
    InstanceNotFound,
    InstanceStateConflict,
    PreconditionFailed,
)
from controller.operations import (
    Accepted,
    AlreadyThere,
    Engine,
    IdempotencyKey,
    Operation,
    Prepare,
    Submission,
    SubmitRefused,
)
from controller.records import instance_rows

# The caller has put principal, method and path into its key.
_SCOPE: Final = "local"


@dataclass(frozen=True, slots=True)
class Options:
    """Identity and precondition of a mutation.

    Attributes:
        request_id: Idempotency key; empty: none.
        request_hash: Of the request without the key.
        if_match: An etag, "*" or empty.
    """

    request_id: str = ""
    request_hash: str = ""
    if_match: str = ""

    @property
    def key(self) -> IdempotencyKey | None:
        """The key as the engine takes it."""
        if not self.request_id:
            return None
        return IdempotencyKey(_SCOPE, self.request_id, self.request_hash)


@dataclass(frozen=True, slots=True)
class Mutated:
    """How a mutation is answered: `operation` is None for a no-op success, `instance` if it is gone."""

    operation: Operation | None
    instance: Instance | None
    replayed: bool


class _NotStored(Exception):  # noqa: N818 - an answer, not a fault
    """No request came under this key yet."""


class Submitting:
    """Hands requests to the engine and makes the answer."""

    def __init__(self, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def submit(self, prepare: Prepare, options: Options) -> Mutated:
        """Submit and answer.

        Raises:
            SubmitRefused: By the engine.
            ControllerError: By `prepare`.
        """
        return await self._answer(await self._engine.submit(prepare, idempotency=options.key))

    async def once(self, options: Options, work: Callable[[], Awaitable[Mutated]]) -> Mutated:
        """Answer a repeated request from its key before anything else is asked, or do `work`.

        Requests that come at the same moment all find the key absent; those that are refused because another
        of them was faster find its answer afterwards.
        """
        stored = await self._stored(options)
        if stored is not None:
            return stored
        try:
            return await work()
        except (ControllerError, SubmitRefused):
            stored = await self._stored(options)
            if stored is None:
                raise
            return stored

    async def is_stored(self, options: Options) -> bool:
        """Whether a request was accepted under this key.

        Raises:
            IdempotencyKeyReused: Another one was.
        """
        return await self._stored(options) is not None

    async def store(self, options: Options, response: Mapping[str, Any]) -> None:
        """Remember an accepted request that files no operation of its own."""
        if options.key is not None:
            await self._engine.submit(lambda conn: _answered(conn, response), idempotency=options.key)

    async def _stored(self, options: Options) -> Mutated | None:
        if options.key is None:
            return None
        try:
            return await self._answer(await self._engine.submit(_nothing, idempotency=options.key))
        except _NotStored:
            return None

    async def _answer(self, accepted: Accepted) -> Mutated:
        operation = accepted.operation
        instance_id = (
            operation.subject if operation is not None else str((accepted.response or {}).get("instance", ""))
        )
        instance = await self._database.read(lambda conn: instance_rows.find(conn, instance_id))
        return Mutated(operation, instance, accepted.replayed)


def wanted_instance(conn: Connection, name: str, options: Options) -> Instance:
    """Return the instance that a mutation is about.

    Raises:
        InstanceNotFound: There is none.
        PreconditionFailed: If-Match names another generation.
    """
    found = instance_rows.find_by_name(conn, name)
    if found is None:
        raise InstanceNotFound(name)
    wanted = options.if_match.strip('"')
    if wanted not in {"", "*"} and wanted.split("-")[0] != str(found.generation):
        raise PreconditionFailed(name, wanted, found.etag)
    return found


def conflict(instance: Instance, wanted: str) -> InstanceStateConflict:
    """Return the error that names the state and what it allows."""
    verbs = [verb.value for verb in allowed(instance.state)]
    return InstanceStateConflict(instance.name, instance.state.value, verbs, wanted)


def already(instance: Instance) -> AlreadyThere:
    """Return the answer of a no-op success."""
    return AlreadyThere({"instance": instance.id})


def _answered(conn: Connection, response: Mapping[str, Any]) -> AlreadyThere:
    del conn
    return AlreadyThere(response)


def _nothing(conn: Connection) -> Submission | AlreadyThere:
    del conn
    raise _NotStored
