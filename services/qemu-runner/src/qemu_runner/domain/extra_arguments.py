"""QEMU arguments that an operator adds for every machine of a host: which ones are taken.

A list of what is allowed, never of what is not: an option that is not in it could take a monitor, a file, a
socket or a device from the host, weaken the sandbox, or put something in a place that the argument list
of `argv` counts on. So what is here adds to a machine, or tells more about it, and opens nothing.

Source: qemu-system-x86_64(1).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_WORDS: Final = 64
MAX_WORD_LENGTH: Final = 256

PCI_DEVICES: Final = frozenset(
    {"i6300esb", "nec-usb-xhci", "qemu-xhci", "virtio-keyboard-pci", "virtio-tablet-pci"}
)
DEVICES: Final = PCI_DEVICES | {"usb-kbd", "usb-mouse", "usb-tablet"}
"""Devices that have nothing of the host behind them."""

_FIRST_SLOT: Final = 0x10  # below it are the runner's own devices, from 0x1d on the chipset's
MAX_PCI_DEVICES: Final = 12

_PLAIN: Final = re.compile(r"[\x20-\x7e]+")
_PROPERTY: Final = re.compile(r"[a-z][a-z0-9_.-]*=[A-Za-z0-9_.+:-]+")
_GLOBAL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\.[a-z][a-z0-9_-]*=[A-Za-z0-9_.+:-]+")
# Places and names are given by the fixed part of the list; the others name something of the host.
_RESERVED_PROPERTIES: Final = frozenset({"id", "bus", "addr", "chardev", "drive", "netdev", "romfile"})
_WATCHDOG_ACTIONS: Final = frozenset({"reset", "poweroff", "debug", "none", "inject-nmi"})
_LOG_ITEMS: Final = frozenset({"guest_errors", "unimp"})
_MSG: Final = frozenset({"timestamp=on", "timestamp=off", "guest-name=on", "guest-name=off"})
_FW_CFG: Final = re.compile(r"name=opt/[A-Za-z0-9_./-]+,string=[^,]*")
_SMBIOS_TYPES: Final = frozenset({"0", "1", "2", "3", "11"})


class ExtraArgumentError(ValueError):
    """A word that is not taken; the message quotes it and says what would be."""


def check_extra_arguments(words: Sequence[str]) -> tuple[str, ...]:
    """Return `words` if all are allowed.

    Raises:
        ExtraArgumentError: One is not, or has no value.
    """
    if len(words) > MAX_WORDS:
        raise ExtraArgumentError(f"{len(words)} words are too many; {MAX_WORDS} are allowed")
    rest = iter(words)
    for option in rest:
        allowed = _OPTIONS.get(option)
        if allowed is None:
            known = ", ".join(sorted(_OPTIONS))
            raise ExtraArgumentError(f"{option[:MAX_WORD_LENGTH]!r} is not allowed; allowed are {known}")
        value = next(rest, None)
        if value is None:
            raise ExtraArgumentError(f"{option!r} has no value after it")
        if len(value) > MAX_WORD_LENGTH or not _PLAIN.fullmatch(value):
            raise ExtraArgumentError(
                f"the value of {option!r} must be 1 to {MAX_WORD_LENGTH} printable ASCII characters"
            )
        if not allowed.takes(value):
            raise ExtraArgumentError(f"{option!r} does not take {value!r} here: it takes {allowed.text}")
    if sum(_driver(value) in PCI_DEVICES for value in words[1::2]) > MAX_PCI_DEVICES:
        raise ExtraArgumentError(f"more than {MAX_PCI_DEVICES} PCI devices are too many")
    return tuple(words)


def with_places(words: Sequence[str], root_bus: str) -> tuple[str, ...]:
    """Return checked `words` with a fixed place on the root bus for each PCI device.

    QEMU makes devices that are written as key=value before all that are written as JSON, wherever they stand
    in the list: without a place of its own such a device takes the first of the runner's.
    """
    placed: list[str] = []
    slot = _FIRST_SLOT
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option == "-device" and _driver(value) in PCI_DEVICES:
            placed += (option, f"{value},bus={root_bus},addr={slot:#x}")
            slot += 1
        else:
            placed += (option, value)
    return tuple(placed)


def _driver(value: str) -> str:
    return value.partition(",")[0]


@dataclass(frozen=True, slots=True)
class _Allowed:
    """An option.

    Attributes:
        takes: Whether it takes a value.
        text: The values that it takes, for people.
    """

    takes: Callable[[str], bool]
    text: str


def _is_device(value: str) -> bool:
    driver, *properties = value.split(",")
    return driver in DEVICES and all(
        _PROPERTY.fullmatch(text) and text.partition("=")[0] not in _RESERVED_PROPERTIES
        for text in properties
    )


def _is_global(value: str) -> bool:
    name = value.partition("=")[0].partition(".")[2]
    return _GLOBAL.fullmatch(value) is not None and name not in _RESERVED_PROPERTIES


def _is_smbios(value: str) -> bool:
    kind, *fields = value.split(",")
    names = {text.partition("=")[0] for text in fields}
    # A machine's UUID is its instance's id; `file` and `path` read the host's files.
    return (
        kind.removeprefix("type=") in _SMBIOS_TYPES
        and kind.startswith("type=")
        and bool(fields)
        and all("=" in text for text in fields)
        and names.isdisjoint({"uuid", "file", "path"})
    )


def _is_action(value: str) -> bool:
    return value.startswith("watchdog=") and value.removeprefix("watchdog=") in _WATCHDOG_ACTIONS


_OPTIONS: Final = {
    "-action": _Allowed(_is_action, "watchdog= one of " + ", ".join(sorted(_WATCHDOG_ACTIONS))),
    "-d": _Allowed(lambda value: set(value.split(",")) <= _LOG_ITEMS, "guest_errors and unimp"),
    "-device": _Allowed(
        _is_device, "one of " + ", ".join(sorted(DEVICES)) + ", with properties that name no place or backend"
    ),
    "-fw_cfg": _Allowed(lambda value: _FW_CFG.fullmatch(value) is not None, "name=opt/...,string=..."),
    "-global": _Allowed(_is_global, "DRIVER.PROPERTY=VALUE that names no place or backend"),
    "-msg": _Allowed(lambda value: set(value.split(",")) <= _MSG, "timestamp= and guest-name=, on or off"),
    "-smbios": _Allowed(_is_smbios, "type= 0, 1, 2, 3 or 11 with fields other than uuid, file and path"),
}
