"""Runs the probe of passt in a fresh network namespace and remembers its answer per binary.

The cache is keyed by the content of the binary, so an upgrade is probed anew and nothing else is.
It must never run passt in the host's own namespace.
"""

import asyncio
import hashlib
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from qemu_runner.user_network.behaviour import PasstBehaviour
from qemu_runner.user_network.errors import ProbeError
from qemu_runner.user_network.passt import PasstOptions

_CHILD = "qemu_runner.user_network.adapters.probe_child"
_TIMEOUT_S = 30.0
_CACHE_NAME = "passt-behaviour.json"
_REVISION = 1
"""Raised when the probe asks something new: older answers are then forgotten."""

_FLAGS = (
    "stderr",
    "dns_host",
    "leaks_loopback",
    "reaches_host_addresses",
    "udp_loopback_replies",
    "udp_address_replies",
    "greeting_first",
)


class CachedProbe:
    """The behaviour of one installed passt.

    Args:
        program: passt, a name in PATH or a path.
        state_dir: Existing directory for the cache.
    """

    def __init__(self, program: str, state_dir: Path) -> None:
        self._program = program
        self._cache = state_dir / _CACHE_NAME
        self._lock = asyncio.Lock()
        self._known: PasstBehaviour | None = None

    async def behaviour(self) -> PasstBehaviour:
        async with self._lock:
            path = shutil.which(self._program)
            if path is None:
                raise ProbeError(f"{self._program} is not installed.")
            digest = await asyncio.to_thread(_digest, Path(path))
            if self._known is None or self._known.binary_sha256 != digest:
                text = await asyncio.to_thread(_read, self._cache)
                self._known = parse_cache(text, digest)
            if self._known is None:
                self._known = await self._probe(path, digest)
                await asyncio.to_thread(_replace, self._cache, render_cache(self._known))
            return self._known

    async def _probe(self, path: str, digest: str) -> PasstBehaviour:
        failure = ""
        for namespaces in _namespace_choices():
            argv = ["unshare", *namespaces, "--", sys.executable, "-m", _CHILD, path]
            code, stdout, failure = await _run(argv)
            if code == 0:
                _, shown, errors = await _run([path, "--version"])
                version = (shown or errors).partition("\n")[0].strip() or "unknown version"
                return _behaviour(json.loads(stdout), digest, version)
        raise ProbeError(f"passt could not be probed: {failure}")


def render_cache(behaviour: PasstBehaviour) -> str:
    """Give the cache file's text."""
    flags = {
        "stderr": behaviour.options.stderr,
        "dns_host": behaviour.options.dns_host,
        "leaks_loopback": behaviour.leaks_loopback,
        "reaches_host_addresses": behaviour.reaches_host_addresses,
        "udp_loopback_replies": behaviour.udp_loopback_replies,
        "udp_address_replies": behaviour.udp_address_replies,
        "greeting_first": behaviour.greeting_first,
    }
    head = {"revision": _REVISION, "binary_sha256": behaviour.binary_sha256, "version": behaviour.version}
    return json.dumps({**head, **flags}, indent=2) + "\n"


def parse_cache(text: str, binary_sha256: str) -> PasstBehaviour | None:
    """Read the cache; None if it is about another binary, of another probe, or damaged."""
    try:
        seen = json.loads(text)
    except ValueError:
        return None
    if not isinstance(seen, dict):
        return None
    if (seen.get("revision"), seen.get("binary_sha256")) != (_REVISION, binary_sha256):
        return None
    if not all(isinstance(seen.get(flag), bool) for flag in _FLAGS):
        return None
    return _behaviour(seen, binary_sha256, str(seen.get("version", "")))


def _behaviour(seen: dict[str, bool], binary_sha256: str, version: str) -> PasstBehaviour:
    return PasstBehaviour(
        binary_sha256=binary_sha256,
        version=version,
        options=PasstOptions(stderr=seen["stderr"], dns_host=seen["dns_host"]),
        leaks_loopback=seen["leaks_loopback"],
        reaches_host_addresses=seen["reaches_host_addresses"],
        udp_loopback_replies=seen["udp_loopback_replies"],
        udp_address_replies=seen["udp_address_replies"],
        greeting_first=seen["greeting_first"],
    )


def _namespace_choices() -> list[list[str]]:
    unprivileged = ["--user", "--map-root-user", "--net"]
    return [["--net"], unprivileged] if os.geteuid() == 0 else [unprivileged]


async def _run(argv: list[str]) -> tuple[int, str, str]:
    """Run to the end; give exit code, output and the last line of errors."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ProbeError(f"{argv[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            stdout, stderr = await process.communicate()
    except TimeoutError as error:
        raise ProbeError(f"the probe did not end within {_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    lines = [line for line in stderr.decode(errors="replace").splitlines() if "syslog" not in line]
    return process.returncode or 0, stdout.decode(errors="replace"), lines[-1] if lines else ""


def _digest(binary: Path) -> str:
    """Hash the binary and the AVX2 build beside it, which passt runs instead of itself."""
    binary = binary.resolve()
    digest = hashlib.sha256()
    for path in (binary, binary.with_name(f"{binary.name}.avx2")):
        with suppress(FileNotFoundError):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
