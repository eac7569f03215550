"""The runner's configuration: the protojson of `RunnerSettings`, parsed once."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from qcontroller.settings.v1.settings_pb2 import BridgeNetworkSettings, RunnerSettings
from servicekit.quantities import MIB, QuantityError, parse_size_mib
from servicekit.settings import SettingsError

from qemu_runner.domain.accelerator import AcceleratorMode
from qemu_runner.domain.default_network import DefaultNetwork
from qemu_runner.domain.extra_arguments import ExtraArgumentError, check_extra_arguments
from qemu_runner.store.machine_files import SOCKETS
from qemu_runner.user_network import UserBackend

_UID_BASE: Final = 64_000
_UID_COUNT: Final = 1000
_SUBNET: Final = "10.77.0.0/16"
_BRIDGE: Final = "qc0"
_BRIDGE_SUBNET: Final = "10.76.0.0/16"
_WIDEST: Final = 16
_NARROWEST: Final = 29
# What the kernel takes as a name (dev_valid_name), in ASCII.
_INTERFACE: Final = re.compile(r"(?!\.{1,2}$)[!-.0-9;-~]{1,15}")
_IMAGE_CACHE: Final = "20G"
_CONSOLE_LIMIT: Final = "16M"
_MAX_SOCKET_PATH_BYTES: Final = 107  # sun_path, less its final NUL (unix(7))
_UUID_LENGTH: Final = 36


@dataclass(frozen=True, slots=True)
class BridgeConfiguration:
    """The bridge that the runner makes and owns; see `BridgeNetworkSettings` for the meaning."""

    interface: str
    subnet: IPv4Network


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the runner is told; see `RunnerSettings` for the meaning."""

    listen: tuple[str, ...]
    node: str
    state_dir: Path
    image_store: str
    vm_hosts: tuple[Path, ...]
    accelerator: AcceleratorMode
    uid_base: int
    uid_count: int
    user_subnet: IPv4Network
    user_backend: UserBackend
    image_cache_bytes: int
    console_limit_bytes: int
    memory_mib: int
    cpus: int
    default_network: DefaultNetwork
    bridge: BridgeConfiguration | None
    extra_arguments: tuple[str, ...] = ()


def parse_settings(settings: RunnerSettings) -> Configuration:
    """Return the configuration with its defaults.

    Raises:
        SettingsError: Something is missing or cannot be used; the message names it.
    """
    for name in ("listen", "state_dir", "image_store", "vm_hosts"):
        if not getattr(settings, name):
            raise SettingsError(f"{name}: must be given")
    state_dir = Path(settings.state_dir)
    if not state_dir.is_absolute():
        raise SettingsError("state_dir: must be an absolute path")
    longest = len(bytes(state_dir / "machines")) + _UUID_LENGTH + max(map(len, SOCKETS)) + 2
    if longest > _MAX_SOCKET_PATH_BYTES:
        too_long = longest - _MAX_SOCKET_PATH_BYTES
        raise SettingsError(f"state_dir: is {too_long} characters too long for the unix sockets below it")
    try:
        return Configuration(
            listen=tuple(settings.listen),
            node=settings.node or "node-1",
            state_dir=state_dir,
            image_store=settings.image_store,
            vm_hosts=tuple(Path(path) for path in settings.vm_hosts),
            accelerator=AcceleratorMode(settings.accelerator or AcceleratorMode.AUTO),
            uid_base=settings.uid_base or _UID_BASE,
            uid_count=settings.uid_count or _UID_COUNT,
            user_subnet=IPv4Network(settings.user_subnet or _SUBNET),
            user_backend=UserBackend(settings.user_backend or UserBackend.PASST),
            image_cache_bytes=parse_size_mib(settings.image_cache or _IMAGE_CACHE) * MIB,
            console_limit_bytes=parse_size_mib(settings.console_limit or _CONSOLE_LIMIT) * MIB,
            memory_mib=settings.memory_mib,
            cpus=settings.cpus,
            default_network=DefaultNetwork(settings.default_network or DefaultNetwork.AUTO),
            bridge=_bridge(settings.bridge_network),
            extra_arguments=check_extra_arguments(settings.extra_qemu_args),
        )
    except ExtraArgumentError as exc:
        raise SettingsError(f"extra_qemu_args: {exc}") from exc
    except (QuantityError, ValueError) as exc:
        raise SettingsError(str(exc)) from exc


def _bridge(settings: BridgeNetworkSettings) -> BridgeConfiguration | None:
    if settings.disabled:
        return None
    interface = settings.interface or _BRIDGE
    if not _INTERFACE.fullmatch(interface):
        raise SettingsError(f"bridge_network.interface: {interface!r} is no name of an interface")
    subnet = IPv4Network(settings.subnet or _BRIDGE_SUBNET)
    if not _WIDEST <= subnet.prefixlen <= _NARROWEST:
        raise SettingsError(f"bridge_network.subnet: {subnet} must be between /{_WIDEST} and /{_NARROWEST}")
    return BridgeConfiguration(interface, subnet)
