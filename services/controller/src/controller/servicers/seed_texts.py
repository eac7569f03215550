"""The texts that cloud-init is given, looked at before they are taken.

A network-config that no cloud-init could read is refused: a guest without a network cannot tell of it. A
user-data is passed on byte for byte whatever it is, and what seems wrong with it is only remarked: images
have handlers of their own. Blocks for as long as they are: call it in a thread.
"""

from typing import Final

from controller.domain.fault import Fault
from controller.domain.first_boot import FirstBoot
from controller.domain.network_config import network_config_faults
from controller.servicers.yaml_texts import YamlTooLarge, YamlUnreadable, read_yaml

MAX_USER_DATA_BYTES: Final = 512 * 1024
MAX_NETWORK_CONFIG_BYTES: Final = 64 * 1024
_GZIP: Final = b"\x1f\x8b"
_CONFIG: Final = b"#cloud-config"
# cloud-init's handlers, and the headers of MIME and of mail; in lower case, as cloud-init compares.
_KNOWN: Final = (
    b"#!", _CONFIG, b"#cloud-boothook", b"#include", b"#part-handler", b"#upstart-job", b"## template: jinja",
    b"content-type:", b"mime-version:", b"from ", b"from:", b"#cloud-config-archive", b"#cloud-config-jsonp",
)  # fmt: skip
_IGNORED: Final = (
    "userdata begins with none of what cloud-init knows (#cloud-config, #!, MIME, …): it will be ignored."
)
_OVERRIDDEN: Final = {
    "packages": "userdata has packages of its own: cloud-init takes those instead of `packages`.",
    "hostname": "userdata has a host name of its own: cloud-init takes that instead of `hostname`.",
}
_NO_VENDOR_DATA: Final = "userdata switches vendor-data off: cloud-init installs no `packages`."


def network_faults(text: str, at: str = "/cloudInit/networkConfig") -> list[Fault]:
    """Return what is wrong with a network-config; an empty one is none."""
    data = text.encode()
    if not data:
        return []
    if len(data) > MAX_NETWORK_CONFIG_BYTES:
        return [Fault(at, f"must be at most {MAX_NETWORK_CONFIG_BYTES // 1024} KiB")]
    try:
        document = read_yaml(data)
    except YamlUnreadable as exc:
        return [Fault(at, str(exc))]
    return [Fault(at, told) for told in network_config_faults(document)]


def user_data_faults(data: bytes, at: str) -> list[Fault]:
    """Return what is wrong with a user-data: its size alone can be."""
    if len(data) <= MAX_USER_DATA_BYTES:
        return []
    return [Fault(at, f"must be at most {MAX_USER_DATA_BYTES // 1024} KiB")]


def user_data_remarks(data: bytes, first_boot: FirstBoot) -> tuple[str, ...]:
    """Return what whoever sent it should know, one sentence each; nothing of the text itself."""
    head = data[:64].lower().lstrip()
    if not head or data.startswith(_GZIP) or len(data) > MAX_USER_DATA_BYTES:
        return ()
    if not head.startswith(_KNOWN):
        return (_IGNORED,)
    first_line = head.splitlines()[0].rstrip()
    if first_line != _CONFIG:
        # Another kind, which cloud-init alone reads.
        return ()
    try:
        config = read_yaml(data)
    except YamlTooLarge:
        return ()
    except YamlUnreadable as exc:
        return (f"userdata {exc}: cloud-init will fail on it.",)
    if config is None:
        return ()
    if not isinstance(config, dict):
        return ("userdata is no mapping, as a cloud-config is: cloud-init will fail on it.",)
    told = []
    if first_boot.packages and "packages" in config:
        told.append(_OVERRIDDEN["packages"])
    vendor = config.get("vendor_data")
    if first_boot.packages and isinstance(vendor, dict) and vendor.get("enabled") in (False, "false", "no"):
        told.append(_NO_VENDOR_DATA)
    if first_boot.hostname and ("hostname" in config or "fqdn" in config):
        told.append(_OVERRIDDEN["hostname"])
    return tuple(told)
