"""Applies and lists rules through libnftables, or through `nft -j` where the library is not there.

One transaction takes some 2 ms through the library and some 30 ms through the program. It must never
be handed a table that is not the owner's.

Source: libnftables(3); its flag for JSON output makes it read JSON too.
"""

import asyncio
import ctypes
import ctypes.util
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from qemu_runner.bridge_network.errors import RulesetError
from qemu_runner.bridge_network.statements import Command, Statement, meta, payload

_LIBRARY: Final = "libnftables.so.1"
_OUTPUT_JSON: Final = 1 << 4
_TIMEOUT_S: Final = 10.0
_SUBJECT: Final = "nftables"
_TRIAL: Final = "qcontroller_typeof_trial"
# For each type of our sets' keys an expression that has it.
_OF_TYPE: Final[dict[str, Statement]] = {
    "ifname": meta("iifname"),
    "ether_addr": payload("ether", "saddr"),
    "ipv4_addr": payload("ip", "saddr"),
}
_ABSENT: Final = "No such file or directory"
_LOOK: Final = json.dumps({"nftables": [{"list": {"tables": None}}]})


class Nftables:
    """The nftables of this process's network namespace.

    Args:
        program: nft, asked once before the library is used, and in its place where there is none.
        library: Name of the library; empty to use the program.
    """

    def __init__(self, program: str = "nft", library: str = _LIBRARY) -> None:
        self._program = program
        self._library = _loaded(library) if library else None
        self._survived = self._library is None
        self._takes_typeof: bool | None = None

    async def apply(self, commands: Sequence[Command]) -> None:
        if self._takes_typeof is None:
            self._takes_typeof = await self._try_typeof()
        await self._run([by_typeof(command) for command in commands] if self._takes_typeof else commands)

    async def _try_typeof(self) -> bool:
        """Find out whether sets can be told by an expression; the transaction leaves nothing."""
        table: Command = {"table": {"family": "inet", "name": _TRIAL}}
        trial: Command = {"set": {"family": "inet", "table": _TRIAL, "name": "trial", "type": "ifname"}}
        try:
            await self._run([{"add": table}, by_typeof({"add": trial}), {"delete": table}])
        except RulesetError:
            return False
        return True

    async def listing(self, family: str, table: str) -> list[object] | None:
        query: Command = {"list": {"table": {"family": family, "name": table}}}
        try:
            answer = json.loads(await self._run([query]) or "{}")
        except RulesetError as error:
            if _ABSENT in error.detail:
                return None
            raise
        except ValueError as error:
            raise RulesetError(_SUBJECT, "it answered something that is not JSON") from error
        entries = answer.get("nftables") if isinstance(answer, dict) else None
        return entries if isinstance(entries, list) else []

    async def _run(self, commands: Sequence[Command]) -> str:
        if not self._survived:
            # A foreign ruleset can kill whoever reads it: the program first, in place of this process. So a
            # runner that such a ruleset has ended says what is wrong when it is started again.
            await _through_program(self._program, _LOOK)
            self._survived = True
        text = json.dumps({"nftables": list(commands)})
        if self._library is not None:
            return await asyncio.to_thread(_through_library, self._library, text)
        return await _through_program(self._program, text)


def by_typeof(command: Command) -> Command:
    """Return a command that adds a set in the form of newer nftables; any other as it is.

    Given a bare type as JSON, nftables 1.1 notes a constant as the set's expression, and whoever lists rules
    with nftables 1.0 afterwards, on the whole host and whatever is asked for, dies of it (SIGSEGV). An
    expression that both know is harmless.
    """
    added = command.get("add")
    described = added.get("set") if isinstance(added, dict) else None
    if not isinstance(described, dict):
        return command
    kinds = described["type"]
    expression = (
        {"concat": [_OF_TYPE[kind] for kind in kinds]} if isinstance(kinds, list) else _OF_TYPE[kinds]
    )
    return {"add": {"set": {**described, "type": {"typeof": expression}}}}


def _loaded(name: str) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for buffer in (library.nft_ctx_buffer_output, library.nft_ctx_buffer_error):
        buffer.argtypes = [ctypes.c_void_p]
    for read in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
        read.argtypes = [ctypes.c_void_p]
        read.restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def _through_library(library: ctypes.CDLL, text: str) -> str:
    context = library.nft_ctx_new(0)
    if not context:
        raise RulesetError(_SUBJECT, "the library gave no context")
    try:
        library.nft_ctx_output_set_flags(context, _OUTPUT_JSON)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        code = library.nft_run_cmd_from_buffer(context, text.encode())
        if code != 0:
            raise _refusal(library.nft_ctx_get_error_buffer(context) or b"", code)
        output: bytes = library.nft_ctx_get_output_buffer(context) or b""
        return output.decode(errors="replace")
    finally:
        library.nft_ctx_free(context)


async def _through_program(program: str, text: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *("-j", "-f", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise RulesetError(_SUBJECT, f"{program} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            stdout, stderr = await process.communicate(text.encode())
    except TimeoutError as error:
        raise RulesetError(_SUBJECT, f"nft did not answer within {_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _refusal(stderr, process.returncode)
    return stdout.decode(errors="replace")


def _refusal(words: bytes, code: int | None) -> RulesetError:
    lines = words.decode(errors="replace").strip().splitlines()
    if not lines and code is not None and code < 0:
        return RulesetError(
            _SUBJECT,
            f"nft died of signal {-code} reading this host's rules: a newer nftables has written what this "
            "one cannot read; find the table with the newer nft and remove it",
        )
    return RulesetError(_SUBJECT, lines[0] if lines else f"it ended with code {code}")
