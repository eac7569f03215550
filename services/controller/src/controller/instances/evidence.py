"""Evidence: what can still be known of a machine, when an operation fails and whenever it is asked for.

A part that cannot be had is told, never a failure. What is kept is cleaned of the instance's secrets at once,
while they are known: when the instance is gone nobody can tell them from other words.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from servicekit.telemetry import trace_id_of

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.redaction import Redaction
from controller.errors import ControllerError, PeerError, SecretUnreadable
from controller.instances.fleet import Fleet
from controller.operations import Problem, StepContext
from controller.records import instance_rows
from controller.records.documents import instance_document

_RUNNER_S: Final = 8.0
# Of one part; a runner sends less.
MOST_BYTES: Final = 512 * 1024


@dataclass(slots=True)
class Findings:
    """Parts by name, and those that could not be had with the reason."""

    parts: dict[str, bytes] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, content: bytes) -> None:
        """Take a part; of a large one the end."""
        self.parts[name] = content[-MOST_BYTES:]


class Evidence:
    """Collects what machines leave."""

    def __init__(self, database: Database, fleet: Fleet) -> None:
        self._database = database
        self._fleet = fleet

    async def witness(self, ctx: StepContext, problem: Problem) -> Mapping[str, bytes]:
        """Return what there is of the operation's machine before anything of it is undone."""
        instance = await self._database.read(lambda conn: instance_rows.find(conn, ctx.subject))
        if instance is None:
            return {}
        findings = await self.of_instance(instance, trace_id_of(ctx.traceparent))
        findings.add("instance.json", json_bytes(instance_document(instance)))
        findings.add("problem.json", json_bytes(problem.to_json()))
        if findings.missing:
            findings.add("missing.json", json_bytes(findings.missing))
        try:
            redaction = await self.redaction(instance.id)
        except SecretUnreadable as exc:
            # What cannot be cleaned is not kept.
            return {"missing.json": json_bytes({"everything": str(exc)})}
        return await asyncio.to_thread(cleaned, findings.parts, redaction)

    async def of_instance(self, instance: Instance, trace_id: str) -> Findings:
        """Return what the runner has of the instance's machine; not cleaned yet."""
        findings = Findings()
        try:
            async with asyncio.timeout(_RUNNER_S):
                runner = self._fleet.runner(instance.node)
                async for part in runner.evidence(instance.id, trace_id):
                    findings.add(part.name, part.content)
        except PeerError as exc:
            findings.missing["runner"] = exc.message
        except ControllerError as exc:
            findings.missing["runner"] = str(exc)
        except TimeoutError:
            findings.missing["runner"] = f"The runner of {instance.node} did not tell all in time."
        return findings

    async def redaction(self, instance_id: str) -> Redaction:
        """Return what takes the instance's secrets out of text."""
        hidden = await self._database.read(lambda conn: instance_rows.all_secrets_of(conn, instance_id))
        return await asyncio.to_thread(Redaction, hidden)


def cleaned(parts: Mapping[str, bytes], redaction: Redaction) -> dict[str, bytes]:
    """Return the parts without secrets."""
    return {name: redaction.clean(content) for name, content in parts.items()}


def json_bytes(document: Any) -> bytes:
    """Return a document as a part."""
    return json.dumps(document, indent=1, default=str).encode()
