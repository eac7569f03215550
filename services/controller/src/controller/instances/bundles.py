"""Bundles: the evidence of one operation as one archive.

It never fails because of a part: what cannot be had stands in the manifest with the reason.
"""

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, Final

from servicekit.logs import recent_lines
from servicekit.telemetry import trace_id_of
from sqlalchemy import Connection, select

from controller.database import Database
from controller.domain.redaction import Redaction
from controller.errors import ControllerError
from controller.instances.evidence import MOST_BYTES, Evidence, Findings, cleaned, json_bytes
from controller.instances.nodes import Nodes
from controller.operations import Clock, Engine, Operation, kept_files
from controller.operations.rows import events
from controller.records import instance_rows
from controller.records.documents import Document, instance_document, node_document, time_text

_EVENTS: Final = 500
_NODE_S: Final = 10.0
_DOCTOR_S: Final = 20.0
_AT_FAILURE: Final = "at-failure/"
_NOW: Final = "now/"


class Bundles:
    """Makes archives."""

    def __init__(
        self, database: Database, engine: Engine, evidence: Evidence, nodes: Nodes, clock: Clock
    ) -> None:
        self._database = database
        self._engine = engine
        self._evidence = evidence
        self._nodes = nodes
        self._clock = clock

    async def bundle(
        self, operation_id: str, document: Callable[[Operation], Document]
    ) -> AsyncIterator[bytes]:
        """Yield a tar.gz; `document` tells an operation as REST shows it.

        Raises:
            OperationNotFound: There is no such operation.
        """
        operation = await self._engine.get(operation_id)
        findings = await self._collect(operation, document(operation))
        redaction = await self._evidence.redaction(operation.subject)
        archive = _Archive(operation.id, self._clock.now())
        sizes: dict[str, int] = {}
        for name, content in sorted(findings.parts.items()):
            clean, piece = await asyncio.to_thread(archive.add_clean, name, content, redaction)
            sizes[name] = clean
            if piece:
                yield piece
        manifest = _manifest(operation, sizes, findings.missing, self._clock.now())
        yield await asyncio.to_thread(archive.end, json_bytes(manifest))

    async def _collect(self, operation: Operation, shown: Document) -> Findings:
        findings = Findings()
        findings.add("operation.json", json_bytes(shown | _inner(operation)))
        events_seen, kept, instance = await self._database.read(
            lambda conn: (
                _events_of(conn, operation),
                kept_files(conn, operation.seq),
                instance_rows.find(conn, operation.subject),
            )
        )
        findings.add("events.jsonl", events_seen)
        for name, content in kept.items():
            findings.add(_AT_FAILURE + name, content)
        trace_id = trace_id_of(operation.traceparent)
        lines = await asyncio.to_thread(recent_lines, trace_id)
        if lines:
            findings.add("controller.log.jsonl", "".join(f"{line}\n" for line in lines).encode())
        else:
            findings.missing["controller.log.jsonl"] = (
                "This life of the controller has written nothing in the operation's trace, or forgot it."
            )
        if instance is None:
            findings.missing[f"{_NOW}instance.json"] = "The instance is gone."
            return findings
        findings.add(f"{_NOW}instance.json", json_bytes(instance_document(instance)))
        seen = await self._evidence.of_instance(instance, trace_id)
        for name, content in seen.parts.items():
            findings.add(_NOW + name, content)
        findings.missing |= {_NOW + name: reason for name, reason in seen.missing.items()}
        await self._host(instance.node, findings)
        return findings

    async def _host(self, node: str, findings: Findings) -> None:
        try:
            async with asyncio.timeout(_NODE_S):
                findings.add("node.json", json_bytes(node_document(await self._nodes.get(node))))
        except (ControllerError, TimeoutError) as exc:
            findings.missing["node.json"] = str(exc) or "It could not be asked in time."
        try:
            async with asyncio.timeout(_DOCTOR_S):
                checks = await self._nodes.doctor(node)
        except (ControllerError, TimeoutError) as exc:
            findings.missing["doctor.json"] = str(exc) or "It did not end in time."
            return
        told = [
            {"name": check.name, "status": check.status.value, "detail": check.detail, "fix": check.fix}
            for check in checks
        ]
        findings.add("doctor.json", json_bytes(told))


class _Archive:
    """A tar.gz that is handed out while it is made."""

    def __init__(self, name: str, time: datetime) -> None:
        self._name = name
        self._time = int(time.timestamp())
        self._sink = io.BytesIO()
        self._tar = tarfile.open(mode="w|gz", fileobj=self._sink)  # noqa: SIM115 - closed by `end`

    def add_clean(self, name: str, content: bytes, redaction: Redaction) -> tuple[int, bytes]:
        """Add a file without what is secret; return its size, and what can be handed out."""
        clean = cleaned({name: content}, redaction)[name]
        self._add(name, clean)
        return len(clean), self._drained()

    def end(self, manifest: bytes) -> bytes:
        """Add the manifest and return the rest of the archive."""
        self._add("manifest.json", manifest)
        self._tar.close()
        return self._drained()

    def _add(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(f"{self._name}/{name}")
        info.size, info.mtime, info.mode = len(content), self._time, 0o600
        self._tar.addfile(info, io.BytesIO(content))

    def _drained(self) -> bytes:
        piece = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return piece


def _inner(operation: Operation) -> Document:
    """Return what only evidence shows of an operation."""
    return {
        "instanceId": operation.subject,
        "attempt": operation.attempt,
        "fence": operation.fence,
        "step": operation.step,
        "enteredSteps": list(operation.entered_steps),
        "stepFailures": operation.step_failures,
        "spec": dict(operation.spec),
        "facts": dict(operation.facts),
    }


def _events_of(conn: Connection, operation: Operation) -> bytes:
    newest = (
        select(events)
        .where(events.c.subject == operation.subject)
        .order_by(events.c.rev.desc())
        .limit(_EVENTS)
    )
    lines = [
        json.dumps({"time": time_text(row.ts), "type": row.type, "operation": row.op_id, "data": row.data})
        for row in conn.execute(newest)
    ]
    # Whole lines, the newest ones that have room.
    kept: list[str] = []
    left = MOST_BYTES
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            break
        kept.append(line)
    return "".join(f"{line}\n" for line in reversed(kept)).encode()


def _manifest(
    operation: Operation, sizes: Mapping[str, int], missing: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    return {
        "operation": operation.id,
        "kind": operation.kind,
        "state": operation.public_state.value,
        "traceId": trace_id_of(operation.traceparent),
        "createTime": time_text(now),
        "files": [{"name": name, "bytes": size} for name, size in sizes.items()],
        "missing": [{"name": name, "reason": reason} for name, reason in sorted(missing.items())],
    }
