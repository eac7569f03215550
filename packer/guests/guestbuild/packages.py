"""Debian packages of a guest: which versions apt offers, their files, and their unpacked trees.

Works as any user. The host's own package lists are used if they serve; otherwise lists are fetched into a
private directory with the host's own apt sources (or those of ``--apt-sources``). It never installs anything
on the host and never writes to apt's directories.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guestbuild.errors import CommandFailedError, PackagesUnavailableError
from guestbuild.programs import run

SUITE = "bookworm"
HOST_ARCHITECTURE = "amd64"
"""Of the hosts that guests are built on: programs of these packages are run while one is built."""

_STANZA_FIELD = re.compile(r"^([A-Za-z0-9-]+): (.*)$", re.MULTILINE)
_ADVICE = (
    "The package lists are missing or stale: as root run `apt-get update` and try again, or give a Debian 12 "
    "sources list that reaches a mirror with --apt-sources FILE."
)


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one package as the signed lists describe it."""

    name: str
    version: str
    sha256: str
    depends: str

    @property
    def pin(self) -> str:
        """Return the ``name=version`` form that apt takes."""
        return f"{self.name}={self.version}"


class PackageSource:
    """Apt seen by an ordinary user: resolve, fetch, unpack."""

    def __init__(
        self, cache: Path, apt_sources: Path | None = None, architecture: str = HOST_ARCHITECTURE
    ) -> None:
        """Keep fetched packages and private lists under ``cache``."""
        native = architecture == HOST_ARCHITECTURE
        self._debs = cache / "packages"
        self._state = cache / ("apt" if native else f"apt-{architecture}")
        self._cache = cache
        self.apt_sources = apt_sources
        self.architecture = architecture
        # The host's lists name the packages of its own architecture only.
        self._private = apt_sources is not None or not native or host_suite() != SUITE

    def native(self) -> "PackageSource":
        """Return the source of the packages whose programs can run here."""
        return PackageSource(self._cache, self.apt_sources)

    def resolve(self, names: Sequence[str]) -> list[Package]:
        """Return the candidate version of each package, in the order asked for.

        Raises:
            PackagesUnavailableError: A package is unknown after the lists were fetched too.
        """
        self._prepare_directories()
        if self._private and not any((self._state / "lists").glob("*Packages*")):
            self._update()
        try:
            return self._show(names)
        except PackagesUnavailableError:
            if self._private:
                raise
            print("the host's package lists do not know every package; fetching lists of our own", flush=True)
            self._private = True
            self._update()
            return self._show(names)

    def fetch(self, packages: Sequence[Package]) -> list[Path]:
        """Return the ``.deb`` file of each package, downloading what the cache lacks.

        Raises:
            PackagesUnavailableError: A mirror no longer has the version the lists name.
        """
        kept = {package: self._debs / f"{package.sha256}.deb" for package in packages}
        wanted = [package for package, path in kept.items() if not _has_digest(path, package.sha256)]
        if wanted:
            print(f"downloading {len(wanted)} packages", flush=True)
            arrivals = self._debs / f"arrivals-{os.getpid()}"
            arrivals.mkdir(parents=True, exist_ok=True)
            try:
                self._download(wanted, arrivals)
                self._keep(wanted, arrivals, kept)
            finally:
                for leftover in arrivals.iterdir():
                    leftover.unlink()
                arrivals.rmdir()
        return list(kept.values())

    def unpack(self, packages: Sequence[Package], tree: Path) -> None:
        """Unpack the packages' files into ``tree``; maintainer scripts do not run."""
        tree.mkdir(parents=True, exist_ok=True)
        for path in self.fetch(packages):
            run(["dpkg-deb", "-x", path, tree])

    def _download(self, wanted: Sequence[Package], arrivals: Path) -> None:
        try:
            self._apt("apt-get", "download", *(package.pin for package in wanted), cwd=arrivals)
        except CommandFailedError as exc:
            if self._private:
                raise PackagesUnavailableError(f"{exc}\n{_ADVICE}") from exc
            print("the host's package lists are stale; fetching lists of our own", flush=True)
            self._private = True
            self._update()
            try:
                self._apt("apt-get", "download", *(package.pin for package in wanted), cwd=arrivals)
            except CommandFailedError as second:
                raise PackagesUnavailableError(f"{second}\n{_ADVICE}") from second

    @staticmethod
    def _keep(wanted: Sequence[Package], arrivals: Path, kept: dict[Package, Path]) -> None:
        by_digest = {_digest(path): path for path in arrivals.glob("*.deb")}
        for package in wanted:
            arrived = by_digest.get(package.sha256)
            if arrived is None:
                raise PackagesUnavailableError(
                    f"{package.pin}: the file fetched is not the one the lists name"
                )
            arrived.rename(kept[package])

    def _show(self, names: Sequence[str]) -> list[Package]:
        try:
            text = self._apt("apt-cache", "show", "--no-all-versions", *names)
        except CommandFailedError as exc:
            raise PackagesUnavailableError(f"{exc}\n{_ADVICE}") from exc
        found: dict[str, Package] = {}
        for stanza in text.split("\n\n"):
            fields = dict(_STANZA_FIELD.findall(stanza))
            if {"Package", "Version", "SHA256"} <= fields.keys():
                package = Package(
                    fields["Package"], fields["Version"], fields["SHA256"], fields.get("Depends", "")
                )
                found[package.name] = package
        unknown = [name for name in names if name not in found]
        if unknown:
            raise PackagesUnavailableError(f"apt offers no {', '.join(unknown)}. {_ADVICE}")
        return [found[name] for name in names]

    def _update(self) -> None:
        try:
            self._apt("apt-get", "update", "--error-on=any")
        except CommandFailedError as exc:
            raise PackagesUnavailableError(f"{exc}\n{_ADVICE}") from exc

    def _prepare_directories(self) -> None:
        for directory in (self._debs, self._state / "lists" / "partial", self._state / "cache"):
            directory.mkdir(parents=True, exist_ok=True)

    def _apt(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        # The caller's own identity does the download: apt's sandbox user could not enter our directories.
        options = [
            f"Dir::Cache={self._state / 'cache'}",
            "Dir::Cache::pkgcache=pkgcache.bin",
            f"APT::Sandbox::User={'root' if os.geteuid() == 0 else ''}",
            f"APT::Architecture={self.architecture}",
            f"APT::Architectures={self.architecture}",
            "APT::Update::Post-Invoke-Success::=true",
            "Acquire::Retries=3",
        ]
        if self._private:
            options += [
                f"Dir::State={self._state}",
                f"Dir::State::lists={self._state / 'lists'}",
                "Dir::State::status=/dev/null",
                "APT::Update::Post-Invoke=",
                "Acquire::Languages=none",
            ]
        if self.apt_sources is not None:
            options += [f"Dir::Etc::sourcelist={self.apt_sources.resolve()}", "Dir::Etc::sourceparts=-"]
        words = [program, "-q"]
        for option in options:
            words += ["-o", option]
        return run([*words, *arguments], cwd=cwd)


def kernel_of(metapackage: Package) -> str:
    """Return the versioned kernel package that a metapackage depends on.

    Raises:
        PackagesUnavailableError: The metapackage names no kernel.
    """
    match = re.search(r"\blinux-image-\d[^ ,]*", metapackage.depends)
    if match is None:
        raise PackagesUnavailableError(f"{metapackage.pin} depends on no kernel image")
    return match.group()


def host_suite() -> str:
    """Return the codename of the host's distribution, or "" if it names none."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", text, re.MULTILINE)
    return match.group(1) if match else ""


def _has_digest(path: Path, sha256: str) -> bool:
    return path.is_file() and _digest(path) == sha256


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
