"""Takes away what a transfer or a streamed program has left in a guest.

The guest may have started again since, so the handles may be nobody's and the process another's. An agent
counts its handles in a directory that many guests empty at their boot, so that it gives out the same again:
they are closed before anybody else can open one, and once. A process is ended only if boot and moment of its
start are those that the program's own shell wrote down, in a directory that is the agent's user's own: where
others may write, they may put their own in its place.
"""

import logging
from contextlib import suppress
from typing import Final

from qemu_runner.domain.leftover import Leftover
from qemu_runner.errors import GuestAgentRefusedError
from qemu_runner.guest_agent.answers import clean
from qemu_runner.guest_agent.client import GuestAgent

_LOG = logging.getLogger(__name__)
_SCRIPT_S: Final = 30.0

WHO_AM_I: Final = """\
( read -r boot < /proc/sys/kernel/random/boot_id && read -r stat < "/proc/$$/stat" &&
  echo "$$ $boot ${stat##*) }" > "$1/process" ) 2> /dev/null
"""
"""Has a shell write down in the directory `$1` which process it is, and what it becomes by exec."""

# Of /proc/PID/stat what follows the name: the 20th word is when the process started (proc(5): field 22).
# -O: owned by whoever asks (dash, bash and busybox have it, POSIX has not).
_REMOVE_PROGRAM: Final = """\
started() { shift 19 && echo "$1"; }
if [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -O "$1/process" ] &&
   read -r pid boot began < "$1/process" &&
   read -r now < /proc/sys/kernel/random/boot_id && [ "$boot" = "$now" ] &&
   read -r stat < "/proc/$pid/stat" && [ "$(started ${stat##*) })" = "$(started $began)" ]; then
  kill -KILL "$pid"
fi 2> /dev/null
rm -rf "$1"
"""


async def close(agent: GuestAgent, leftover: Leftover) -> None:
    """Close its handles; those that the agent does not know are closed already.

    Raises:
        GuestError: The agent does not answer.
    """
    for handle in leftover.handles:
        with suppress(GuestAgentRefusedError):
            await agent.call("guest-file-close", {"handle": handle})


async def remove(agent: GuestAgent, leftover: Leftover) -> None:
    """Remove it, and end its program; what the guest does not allow is logged.

    Raises:
        GuestError: The agent does not answer, or runs no programs.
    """
    if leftover.is_program:
        await remove_program(agent, leftover.path)
    else:
        await _run(agent, ("rm", "-f", leftover.path), leftover.path)


async def remove_program(agent: GuestAgent, path: str) -> None:
    """End the program whose output lies there, and remove it; what the guest does not allow is logged.

    Raises:
        GuestError: The agent does not answer, or runs no programs.
    """
    await _run(agent, ("/bin/sh", "-c", _REMOVE_PROGRAM, "sh", path), path)


async def _run(agent: GuestAgent, argv: tuple[str, ...], path: str) -> None:
    done = await agent.execute(argv, {}, b"", _SCRIPT_S)
    if done.exit_code:
        said = clean(done.stderr.decode("utf-8", "replace").strip())
        _LOG.warning("something of ours stays in a guest", extra={"path": path, "said": said})
