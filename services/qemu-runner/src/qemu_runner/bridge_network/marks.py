"""How what is ours on the host is named, and told from what is not. Pure."""

import hashlib
from dataclasses import dataclass

from qemu_runner.bridge_network.host_view import Link
from qemu_runner.bridge_network.nic import owner_tag, tap_name


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one owner.

    Attributes:
        owner: Who it is; distinct for each runner on this host.
    """

    owner: str

    @property
    def bridge_alias(self) -> str:
        """The note on the bridge; the kernel takes 255 bytes."""
        return f"qcontroller {owner_tag(self.owner)} owner={self.owner}"[:200]

    @property
    def bridge_mac(self) -> str:
        """A locally administered MAC for the bridge, always the same one."""
        digest = hashlib.sha256(f"{self.owner} bridge".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))

    def tap_alias(self, machine_id: str) -> str:
        """Give the note on a machine's taps."""
        return f"{self._tap_lead}{machine_id}"

    def tap_name(self, machine_id: str, index: int) -> str:
        """Give the name of a card's tap."""
        return tap_name(self.owner, machine_id, index)

    def owns_bridge(self, link: Link) -> bool:
        """Tell whether a link is our bridge, also if it was made and not marked yet."""
        return link.kind == "bridge" and (
            link.alias == self.bridge_alias or (not link.alias and link.mac == self.bridge_mac)
        )

    def machine_of(self, link: Link) -> str | None:
        """Give the machine that a tap of ours was made for; None for every other link."""
        return link.alias.removeprefix(self._tap_lead) if link.alias.startswith(self._tap_lead) else None

    @property
    def _tap_lead(self) -> str:
        return f"qcontroller {owner_tag(self.owner)} machine="
