"""A guest agent that is this host: it runs what it is told in the test's own directory, as qemu-ga would.

What the real one does with programs and files, with its bounds: a program's output comes when it has ended,
files are read and written by handle. Errors carry the words of the host's own.
"""

import asyncio
import base64
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from scripted_agent import reply

_WHENCE = {"set": 0, "cur": 1, "end": 2}


@dataclass
class LocalAgent:
    """An `Answer`. `broken` names commands that are refused from now on, with the words of the refusal."""

    broken: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    lies: dict[str, Any] = field(default_factory=dict)
    processes: dict[int, "asyncio.subprocess.Process"] = field(default_factory=dict)
    outputs: dict[int, "asyncio.Task[tuple[bytes, bytes]]"] = field(default_factory=dict)
    handles: dict[int, IO[bytes]] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1000))

    async def __call__(self, command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        name, arguments = command["execute"], command.get("arguments", {})
        self.commands.append(name)
        if name in self.broken:
            reply(writer, {"error": {"class": "GenericError", "desc": self.broken[name]}})
            return
        if name in self.lies:
            reply(writer, {"return": self.lies[name]})
            return
        try:
            answer = await getattr(self, name.replace("-", "_"))(**_pythonic(arguments))
        except OSError as exc:
            reply(writer, {"error": {"class": "GenericError", "desc": f"failed: {exc.strerror}"}})
        else:
            reply(writer, {"return": answer})

    async def close(self) -> None:
        """Leave no program and no file open."""
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*self.outputs.values(), return_exceptions=True)
        for file in self.handles.values():
            file.close()

    async def guest_ping(self) -> Any:
        return {}

    async def guest_exec(
        self,
        path: str,
        arg: tuple[str, ...] = (),
        env: list[str] | None = None,
        input_data: str = "",
        capture_output: bool = False,
    ) -> Any:
        process = await asyncio.create_subprocess_exec(
            path,
            *arg,
            env=None if env is None else dict(one.split("=", 1) for one in env),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if capture_output else asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE if capture_output else asyncio.subprocess.DEVNULL,
        )
        self.processes[process.pid] = process
        self.outputs[process.pid] = asyncio.create_task(process.communicate(base64.b64decode(input_data)))
        return {"pid": process.pid}

    async def guest_exec_status(self, pid: int) -> Any:
        output = self.outputs[pid]
        if not output.done():
            return {"exited": False}
        out, err = output.result()
        code = self.processes[pid].returncode or 0
        status: dict[str, Any] = {"exited": True}
        status |= {"signal": -code} if code < 0 else {"exitcode": code}
        if out:
            status["out-data"] = base64.b64encode(out).decode()
        if err:
            status["err-data"] = base64.b64encode(err).decode()
        return status

    async def guest_file_open(self, path: str, mode: str = "r") -> Any:
        number = next(self.numbers)
        self.handles[number] = Path(path).open(mode.replace("b", "") + "b")  # noqa: SIM115 - closed by handle
        return number

    async def guest_file_read(self, handle: int, count: int = 4096) -> Any:
        data = self.handles[handle].read(count)
        return {"count": len(data), "buf-b64": base64.b64encode(data).decode(), "eof": len(data) < count}

    async def guest_file_write(self, handle: int, buf_b64: str) -> Any:
        return {"count": self.handles[handle].write(base64.b64decode(buf_b64)), "eof": False}

    async def guest_file_seek(self, handle: int, offset: int, whence: str) -> Any:
        return {"position": self.handles[handle].seek(offset, _WHENCE[whence]), "eof": False}

    async def guest_file_flush(self, handle: int) -> Any:
        self.handles[handle].flush()
        return {}

    async def guest_file_close(self, handle: int) -> Any:
        if handle not in self.handles:
            raise OSError(0, f"Handle '{handle}' has not been found")
        self.handles.pop(handle).close()
        return {}


def _pythonic(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in arguments.items()}
