"""Applies the guard through `nft -j`, one transaction at a time.

It must never touch a table that does not carry the owner's name. Each call is a process of some
30 ms with a deadline.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

from qemu_runner.user_network.errors import GuardError
from qemu_runner.user_network.guard import FAMILY, GuardSpec, stands
from qemu_runner.user_network.resolver import ResolverPlan

_TIMEOUT_S = 10.0


class NftGuard:
    """The guard of one owner on this host.

    Args:
        spec: Owner and uids.
        program: nft, a name in PATH or a path.
        enter: Words to put before the program, such as `ip netns exec NAME`; for tests.
    """

    def __init__(self, spec: GuardSpec, program: str = "nft", enter: Sequence[str] = ()) -> None:
        self._spec = spec
        self._argv = [*enter, program, "-j"]

    @property
    def owner(self) -> str:
        return self._spec.owner

    @property
    def name(self) -> str:
        return f"table {FAMILY} {self._spec.table}"

    async def ensure(self, resolver: ResolverPlan) -> None:
        await self._apply(self._spec.ensure_commands(resolver))

    async def remove(self) -> None:
        await self._apply(self._spec.remove_commands())

    async def present(self) -> bool:
        output = await self._run(["list", "tables"], None)
        try:
            listing = json.loads(output)
        except ValueError as error:
            raise GuardError("nft answered something that is not JSON") from error
        return isinstance(listing, dict) and stands(listing, self._spec)

    async def usable(self) -> str | None:
        try:
            await self._apply(self._spec.trial_commands())
        except GuardError as error:
            return str(error)
        return None

    async def _apply(self, commands: list[dict[str, object]]) -> None:
        await self._run(["-f", "-"], json.dumps({"nftables": commands}).encode())

    async def _run(self, arguments: list[str], stdin: bytes | None) -> bytes:
        argv = [*self._argv, *arguments]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise GuardError(f"{self._argv[0]} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                stdout, stderr = await process.communicate(stdin)
        except TimeoutError as error:
            raise GuardError(f"nft did not answer within {_TIMEOUT_S:.0f} s") from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            words = stderr.decode(errors="replace").strip().splitlines()
            raise GuardError(words[0] if words else f"nft ended with code {process.returncode}")
        return stdout
