"""Runs dnsmasq as a child of this process, and keeps the files it reads.

The child ends with its parent. Files appear under their final name at once, complete, since dnsmasq
reads a file as soon as it is there.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from qemu_runner.bridge_network import names_service
from qemu_runner.bridge_network.errors import DnsmasqError
from qemu_runner.bridge_network.names_service import NamesService
from qemu_runner.bridge_network.nic import BridgeNic

_Result = TypeVar("_Result")
_LOG = logging.getLogger(__name__)
_STARTED: Final = b"started, version"
_READY: Final = b"sockets bound exclusively"
_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 5.0
_SUBJECT: Final = "dnsmasq"


class Dnsmasq:
    """One dnsmasq.

    Args:
        program: A name in PATH or a path.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._ended: Callable[[], None] = _nobody_listens
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._served: dict[str, str] = {}

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def when_ended(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    async def start(self, service: NamesService) -> None:
        await self.stop()
        self._served.clear()
        try:
            process = await asyncio.create_subprocess_exec(
                *service.argv(self._program),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise DnsmasqError(_SUBJECT, f"it cannot be run: {error.strerror}") from error
        self._process = process
        words: list[bytes] = []
        ready = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(process, words, ready), name="dnsmasq")
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                up = await ready
        except TimeoutError as error:
            await self.stop()
            raise DnsmasqError(_SUBJECT, f"it was not up within {_START_TIMEOUT_S:.0f} s") from error
        if not up:
            await self.stop()
            raise DnsmasqError(_SUBJECT, words[-1].decode(errors="replace") if words else "it ended at once")

    async def stop(self) -> None:
        process, self._process = self._process, None
        reader, self._reader = self._reader, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if reader is not None:
            await reader

    async def write(self, service: NamesService, nics: Iterable[BridgeNic]) -> None:
        cards = list(nics)
        removed = await _filed(_write, service, cards)
        self._served |= {str(nic.address): nic.mac for nic in cards}
        if removed:
            self._reload()

    async def add(self, service: NamesService, nic: BridgeNic) -> None:
        await _filed(_write_card, service, nic)
        earlier = self._served.get(str(nic.address), nic.mac)
        self._served[str(nic.address)] = nic.mac
        if earlier != nic.mac and self.running:
            # It would keep the address for the card that had it: leases here never end.
            await self.start(service)
            self._served[str(nic.address)] = nic.mac

    async def known(self, service: NamesService) -> list[str]:
        return await _filed(_known, service)

    async def clear(self, service: NamesService) -> None:
        await _filed(_clear, service)

    def _reload(self) -> None:
        # New files are read as they come, but a reservation is forgotten only when told to.
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    async def _read(
        self, process: asyncio.subprocess.Process, words: list[bytes], ready: "asyncio.Future[bool]"
    ) -> None:
        assert process.stderr is not None  # noqa: S101 - asked for above
        while line := await process.stderr.readline():
            if not ready.done():
                words.append(line.strip())
                if _READY in line:
                    ready.set_result(True)
            _LOG.debug("dnsmasq", extra={"line": line.decode(errors="replace").strip()})
        await process.wait()
        if not ready.done():
            ready.set_result(False)
        elif process is self._process:
            _LOG.warning("dnsmasq ended", extra={"code": process.returncode})
            self._ended()


async def _filed(work: Callable[..., _Result], *given: object) -> _Result:
    """Do what touches files in a thread."""
    try:
        return await asyncio.to_thread(work, *given)
    except OSError as error:
        raise DnsmasqError("dnsmasq's files", error.strerror or str(error)) from error


def _nobody_listens() -> None:
    """Stand for a listener until there is one."""


def _write(service: NamesService, cards: Iterable[BridgeNic]) -> bool:
    wanted = {names_service.file_name(nic): nic for nic in cards}
    removed = False
    for directory in (service.leases, service.names):
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)
                removed = True
    for nic in wanted.values():
        _write_card(service, nic)
    return removed


def _write_card(service: NamesService, nic: BridgeNic) -> None:
    name = names_service.file_name(nic)
    entry = names_service.name_entry(nic)
    for directory, text in ((service.leases, names_service.reservation(nic)), (service.names, entry)):
        directory.mkdir(parents=True, exist_ok=True)
        if text is not None and _text(directory / name) != text:
            beside = service.directory / f"{name}.new"
            beside.write_text(text, encoding="ascii")
            beside.replace(directory / name)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None


def _known(service: NamesService) -> list[str]:
    found: set[str] = set()
    for directory in (service.leases, service.names):
        with suppress(FileNotFoundError):
            found |= {names_service.machine_of(path.name) for path in directory.iterdir()}
    return sorted(found)


def _clear(service: NamesService) -> None:
    for directory in (service.leases, service.names):
        with suppress(FileNotFoundError):
            for path in directory.iterdir():
                path.unlink(missing_ok=True)
            directory.rmdir()
