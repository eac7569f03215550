"""Debian's packages for the container tools: of the host's own release, or of trixie at the host's mirror.

Owns the reading of apt's sources. No mirror's name stands in here, and no source is ever added to the host.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from guestbuild.packages import PackageSource, host_suite
from guestbuild.programs import run

from qcengine.errors import EngineMissingError, MirrorUnknownError

SUITE: Final = "trixie"
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"


def install(packages: Sequence[str]) -> None:
    """Install packages of the host's own release.

    Raises:
        EngineMissingError: Only root may, or this is not Debian.
        BuildError: Apt refused.
    """
    if shutil.which("apt-get") is None:
        raise EngineMissingError(f"this is not a Debian system: install {', '.join(packages)} by hand")
    if os.geteuid() != 0:
        raise EngineMissingError(
            "missing, and only root can install them: "
            f"apt-get install --no-install-recommends {' '.join(packages)}"
        )
    # Another installation may be at work: it is waited for.
    options = ("-q", "-o", "DPkg::Lock::Timeout=300")
    run(["apt-get", *options, "update"])
    run(
        ["apt-get", *options, "install", "-y", "--no-install-recommends", *packages],
        environment={"DEBIAN_FRONTEND": "noninteractive"},
    )


def unpack_from_trixie(packages: Sequence[str], cache: Path, tree: Path) -> None:
    """Unpack packages of Debian trixie into `tree`; nothing is installed.

    Raises:
        MirrorUnknownError: Apt's sources name no Debian mirror.
        BuildError: The mirror does not have them.
    """
    cache.mkdir(parents=True, exist_ok=True)
    sources = cache / f"{SUITE}.list"
    sources.write_text("\n".join(trixie_sources()) + "\n", encoding="utf-8")
    source = PackageSource(cache, sources)
    source.unpack(source.resolve(packages), tree)


def trixie_sources() -> list[str]:
    """Return one-line apt sources of trixie, its updates and its security fixes, at the host's mirrors.

    Raises:
        MirrorUnknownError: Apt's sources name no Debian mirror.
    """
    offered = {
        (suite, site)
        for suite, component, site in _offered()
        if component == "main" and suite.startswith(host_suite() or SUITE)
    }
    found = [
        f"deb [signed-by={KEYRING}] {site} {SUITE}{suite.removeprefix(host_suite())} main"
        for suite, site in sorted(offered)
    ]
    if not any(line.endswith(f" {SUITE} main") for line in found):
        raise MirrorUnknownError(
            f"apt's sources name no mirror of Debian {host_suite() or '(unknown release)'}: "
            "on other systems install Docker Engine, Compose v2 and buildx as their documentation says"
        )
    return found


def _offered() -> list[tuple[str, str, str]]:
    """Return suite, component and site of every package list that apt is told of."""
    fields = "$(RELEASE)|$(COMPONENT)|$(SITE)|$(ORIGIN)"
    text = run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    entries = [tuple(line.split("|")) for line in text.splitlines()]
    # Who offers it is known once the lists were fetched; until then whatever has the suite's name counts.
    debians = [entry for entry in entries if entry[3] == "Debian"]
    return [(suite, component, site) for suite, component, site, _ in debians or entries]
