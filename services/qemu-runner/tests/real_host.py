"""What real tests read from the host's process table."""

from pathlib import Path


def qemu_pids(machine_id: str) -> list[int]:
    """Return the processes whose command line carries the machine's UUID."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"-uuid" in words and machine_id.encode() in words and b"qemu-system" in words[0]:
                found.append(int(entry.name))
    return found


def children_of(parent: int, program: str) -> list[int]:
    """Return the living children of a process that run `program`."""
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if Path(words[0].decode()).name.startswith(program):
            found.append(int(pid))
    return found
