"""Claims about trouble that is read from a console: real lines, and lines of a hostile guest."""

import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from qemu_runner.domain.trouble import (
    Sighting,
    Trouble,
    TroubleKind,
    TroubleParser,
    counted,
    is_news,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PANIC, SHELL = TroubleKind.KERNEL_PANIC, TroubleKind.EMERGENCY_SHELL
OOPS, OOM = TroubleKind.KERNEL_OOPS, TroubleKind.OUT_OF_MEMORY


def kinds(text: bytes) -> list[TroubleKind]:
    return [seen.kind for seen in TroubleParser(0).feed(text)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"[    6.912345] Kernel panic - not syncing: sysrq triggered crash", PANIC),
        (b"[    1.020304][    T1] Kernel panic - not syncing: VFS: Unable to mount root fs on ...", PANIC),
        (b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009", PANIC),
        (b"~ # [   12.003000] Kernel panic - not syncing: behind a prompt", PANIC),
        (b"[   20.101010] BUG: kernel NULL pointer dereference, address: 0000000000000008", OOPS),
        (b"[   20.101010] BUG: unable to handle page fault for address: ffffa0c1deadbeef", OOPS),
        (b"[   20.101010] kernel BUG at fs/ext4/inode.c:2721!", OOPS),
        (b"[   20.101010] BUG: Bad page state in process kworker/0:1  pfn:1a2b3", OOPS),
        (b"[   20.101010] BUG: scheduling while atomic: swapper/0/0/0x00000002", OOPS),
        (b"[   20.101010] Oops: 0002 [#1] PREEMPT SMP NOPTI", OOPS),
        (b"[   20.101010] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI", OOPS),
        (
            b"[   20.1] general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            OOPS,
        ),
        (b"[   20.101010] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI", OOPS),
        (b"[   20.101010] Unable to handle kernel paging request at virtual address dead000000000108", OOPS),
        (b"[   20.101010] Internal error: Oops: 0000000096000004 [#1] SMP", OOPS),
        (b"[   33.5] Out of memory: Killed process 412 (lua) total-vm:190244kB, anon-rss:149000kB", OOM),
        (b"[   33.5] Out of memory: Kill process 412 (lua) score 901 or sacrifice child", OOM),
        (b"[   33.5] Memory cgroup out of memory: Killed process 77 (stress) total-vm:70244kB", OOM),
        (b'You are in emergency mode. After logging in, type "journalctl -xb" to view', SHELL),
        (b"You are in rescue mode. After logging in, type ...", SHELL),
        (b"Cannot open access to console, the root account is locked.", SHELL),
        (b"Give root password for maintenance", SHELL),
        (b"Press Enter for maintenance", SHELL),
        (
            b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39memergency.target\x1b[0m - Emergency Mode.",
            SHELL,
        ),
        (b"[  OK  ] Started Emergency Shell.", SHELL),
        (b"         Starting \x1b[0;1;39mdracut-emergency.service\x1b[0m - Dracut Emergency Shell...", SHELL),
        (b"ALERT!  UUID=9ab3f0e2-1 does not exist.  Dropping to a shell!", SHELL),
        (b"(initramfs) ", SHELL),
        (b"Entering emergency mode. Exit the shell to continue.", SHELL),
    ],
)
def test_a_line_of_trouble_is_known(line: bytes, kind: TroubleKind) -> None:
    assert kinds(b"before\r\n" + line + b"\r\nafter\r\n") == [kind]


@pytest.mark.parametrize(
    "line",
    [
        b"[    0.000000] Linux version 6.1.0-42-cloud-amd64 (debian-kernel@lists.debian.org)",
        b"[   60.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [kworker/0:1:12]",
        b"[   60.000000] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
        b"[    1.000000] rcu: INFO: rcu_preempt self-detected stall on CPU",
        b"BusyBox v1.35.0 (Debian 1:1.35.0-4) built-in shell (ash)",
        b"$ grep 'Kernel panic - not syncing: ' /var/log/kern.log",
        b"we are out of memory: Killed it",
        b"[  OK  ] Reached target basic.target - Basic System.",
        b"[  OK  ] Reached target rescue-network.target - Rescue-like network.",
        b"tiny login: ",
        b"# echo You are in emergency mode",
    ],
)
def test_a_line_that_only_looks_like_it_is_not(line: bytes) -> None:
    assert kinds(line + b"\n") == []


def test_the_lines_of_one_oops_are_one_sighting() -> None:
    oops = (
        b"[   20.1] BUG: kernel NULL pointer dereference, address: 0000000000000008\n"
        b"[   20.1] #PF: supervisor write access in kernel mode\n"
        b"[   20.1] Oops: 0002 [#1] PREEMPT SMP NOPTI\n"
        b"[   20.1] CPU: 0 PID: 77 Comm: sh Not tainted 6.1.0\n"
    )
    assert kinds(oops) == [OOPS]
    assert kinds(oops + b"[   21.0] all is well\n" * 400 + oops) == [OOPS, OOPS]


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_a_line_is_known_however_it_is_cut(cut: int) -> None:
    text = (
        b"[   20.1] all is well\n[   33.5] Out of memory: Killed process 412 (lua) total-vm:190244kB\nafter\n"
    )
    parser = TroubleParser(100)
    seen = parser.feed(text[:cut]) + parser.feed(text[cut:])
    line = "[   33.5] Out of memory: Killed process 412 (lua) total-vm:190244kB"
    assert seen == [Sighting(OOM, line, 122)]


def test_a_prompt_without_an_end_is_told_of_once() -> None:
    parser = TroubleParser(0)
    assert [seen.offset for seen in parser.feed(b"text\n(initramfs) ")] == [5]
    assert parser.feed(b"ls") == []
    assert parser.feed(b"\n") == []
    assert [seen.offset for seen in parser.feed(b"(initramfs) ")] == [20]


def test_a_line_without_end_costs_its_beginning_and_hides_nothing_behind_it() -> None:
    parser = TroubleParser(0)
    assert parser.feed(b"Kernel panic - not syncing: " + b"A" * 10_000)[0].kind is PANIC
    for _ in range(100):
        assert parser.feed(b"A" * 10_000) == []
    panic = b"Kernel panic - not syncing: x\n"
    (seen,) = parser.feed(b"A\n" + panic)
    assert seen.offset == 28 + 10_000 + 1_000_000 + 2


def test_a_prompt_in_front_is_not_shown() -> None:
    (seen,) = TroubleParser(7).feed(b"tiny:/# [   30.875977] BUG: kernel NULL pointer dereference\r\n")
    assert (seen.line, seen.offset) == ("[   30.875977] BUG: kernel NULL pointer dereference", 7)


def test_what_is_shown_is_printable_and_short() -> None:
    line = b"Kernel panic - not syncing: \x1b[31mred\x1b]0;title\x07\x00\x08\xff" + b"x" * 4000 + b"\n"
    (seen,) = TroubleParser(0).feed(line)
    assert seen.line.isprintable()
    assert len(seen.line) == 200
    assert "red" in seen.line
    assert "\x1b" not in seen.line


@pytest.mark.parametrize(
    "flood",
    [
        b"Out of memory: Killed process 1 (x)\n" * 30_000,
        b"[" * 1_000_000,
        b"ALERT! " + b"a" * 1_000_000,
        (b"general protection fault " + b"[#" * 2000 + b"\n") * 250,
        b"\x1b[" * 500_000,
        b"[    1.0] " * 100_000,
    ],
)
def test_a_megabyte_of_malice_is_read_in_time(flood: bytes) -> None:
    began = time.process_time()
    parser = TroubleParser(0)
    for at in range(0, len(flood), 65_536):
        parser.feed(flood[at : at + 65_536])
    assert time.process_time() - began < 3


def sightings(count: int, kind: TroubleKind = OOM) -> list[Sighting]:
    return [Sighting(kind, f"line {n}", n * 10) for n in range(count)]


def test_each_kind_stands_once_with_its_first_line_worst_first() -> None:
    known = counted((), [*sightings(3), *sightings(1, OOPS)], NOW)
    assert known == (Trouble(OOPS, "line 0", 1, NOW, 0), Trouble(OOM, "line 0", 3, NOW, 20))


def test_what_is_read_again_is_not_counted_again() -> None:
    known = counted((), sightings(3), NOW)
    assert counted(known, sightings(3), NOW) == known
    assert counted(known, sightings(5), NOW)[0].count == 5


def test_a_guest_that_repeats_itself_costs_few_notices() -> None:
    states: list[tuple[Trouble, ...]] = [()]
    for seen in sightings(2000):
        states.append(counted(states[-1], [seen], NOW))
    states.pop(0)
    assert sum(is_news(before, after) for before, after in pairwise(states)) == 15 + 6
    assert states[6][0].told_count == 7
    assert states[1499][0].told_count == 1024
