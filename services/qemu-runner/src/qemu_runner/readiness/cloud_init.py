"""Asks a guest what its cloud-init tells of itself: a few programs through its agent, each bounded.

The files are read, not `cloud-init status` run: they are what it reads, in every version, and reading them
costs the guest nothing. Its log is read where the files do not tell warnings (before 23.4), and its schema
asked for only when a warning says that the user-data is not as it should be.
"""

import asyncio
from dataclasses import replace
from typing import Final

from qemu_runner.domain.cloud_init import CloudInitReport, report_of, schema_errors_in, warnings_in
from qemu_runner.errors import GuestError
from qemu_runner.readiness.attempts import Agent

_READ_S: Final = 5.0
# The agent may answer with more than any cloud-init writes.
_MOST_BYTES: Final = 256 * 1024
# A Python program in a guest that is emulated on a busy host.
_SCHEMA_S: Final = 180.0
_STATUS_FILE: Final = "/run/cloud-init/status.json"
_RESULT_FILE: Final = "/run/cloud-init/result.json"
_LOG_FILE: Final = "/var/log/cloud-init.log"
# Warnings since the last boot's first stage: the log is kept over boots.
_WARNINGS: Final = (
    "/ running .init-local. / {n = 0} / - .*\\[WARNING\\]: / {if (n < 32) w[n++] = substr($0, 1, 600)} "
    "END {for (i = 0; i < n; i++) print w[i]}"
)


async def cloud_init_report(agent: Agent) -> CloudInitReport | None:
    """Return what the guest tells; None where it tells nothing that makes sense."""
    status = await _output(agent, "/bin/cat", _STATUS_FILE)
    result = await _output(agent, "/bin/cat", _RESULT_FILE)
    report = await asyncio.to_thread(report_of, status, result)
    if report is None:
        return None
    if not report.tells_warnings:
        log = await _output(agent, "/usr/bin/awk", _WARNINGS, _LOG_FILE)
        report = replace(report, warnings=await asyncio.to_thread(warnings_in, log))
    return report.bounded()


async def schema_errors(agent: Agent) -> tuple[str, ...]:
    """Return where the guest finds its user-data not as the schema wants it; takes long in a slow guest."""
    told = await _output(agent, "/usr/bin/cloud-init", "schema", "--system", timeout_s=_SCHEMA_S)
    return await asyncio.to_thread(schema_errors_in, told)


async def _output(agent: Agent, *argv: str, timeout_s: float = _READ_S) -> bytes:
    """Return what a program printed, 256 KiB at most; nothing where it cannot be had.

    `schema` tells by stderr and exit 1.
    """
    try:
        result = await agent.execute(argv, {}, b"", timeout_s)
    except GuestError:
        return b""
    told = result.stdout + result.stderr if argv[1] == "schema" else result.stdout
    return told[:_MOST_BYTES]
