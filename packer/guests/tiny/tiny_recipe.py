"""What the small guest is made of: its packages, its initramfs and its boot disk.

Owns the recipe only; how packages come, archives are written and disks are laid out is ``guestbuild``'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guestbuild import bootdisk, imagecache
from guestbuild.commandline import build_image
from guestbuild.elf import library_closure
from guestbuild.initramfs import Archive, module_closure, modules_dep
from guestbuild.packages import Package, PackageSource, kernel_of
from guestbuild.programs import run

HERE = Path(__file__).resolve().parent
ROOTFS = HERE / "rootfs"

PACKAGES = (
    "busybox-static",
    "qemu-guest-agent",
    # What ldd names for qemu-ga.
    "libc6",
    "libglib2.0-0",
    "libnuma1",
    "libpcre2-8-0",
    "libudev1",
    "liburing2",
    # busybox's nc has neither UDP nor port ranges.
    "netcat-openbsd",
    "libbsd0",
    "libmd0",
    # The NoCloud reader: user-data is YAML, and guessing at YAML with awk goes wrong on the first odd quote.
    "lua5.4",
    "lua-yaml",
    "libyaml-0-2",
    "libreadline8",
    "libtinfo6",
)

# The first group is loaded before anything else runs in the guest, the second when it is needed.
BOOT_MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "button",
    "evdev",
    "virtio_rng",
    # Never inflated by anybody here: it tells QEMU what memory the guest has.
    "virtio_balloon",
    # Tells QEMU of a panic at once; without it the console is the only witness.
    "pvpanic-pci",
)
LATER_MODULES = ("isofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1")

BINARIES = ("usr/sbin/qemu-ga", "usr/bin/lua5.4", "bin/nc.openbsd")
LUA_SOURCES = Path("usr/share/lua/5.4/lyaml")

DISK_BYTES = 256 * bootdisk.MIB
DISK_SIGNATURE = 0x51435459  # "QCTY"
DISK_LABEL = "QCTINY"

# loglevel=6 keeps the banner, which carries the kernel's first time stamp, and drops the hundreds of lines
# that the emulated UART would make the boot wait for.
SYSLINUX_CFG = """\
DEFAULT tiny
PROMPT 0
TIMEOUT 0
LABEL tiny
  LINUX vmlinuz
  INITRD initrd
  APPEND console=ttyS0,115200 loglevel=6 printk.time=1 panic=5 {options}
"""
LOADER_CONF = "default tiny\ntimeout 0\n"
LOADER_ENTRY = """\
title tiny
linux /vmlinuz
initrd /initrd
options console=ttyAMA0 loglevel=6 printk.time=1 panic=5 {options}
"""
LOADER = Path("usr/lib/systemd/boot/efi/systemd-bootaa64.efi")


@dataclass(frozen=True, slots=True)
class Target:
    """What differs between the architectures of the guest.

    Attributes:
        name: Debian's.
        triplet: Of its libraries' directories.
        linker: The dynamic linker's path.
        console: Name of the serial port.
        packages: Besides those of every guest.
        kernel_options: None changes what the guest is; each saves probing that no machine of ours needs.
        lacking: Modules that its kernel has built in, or not at all.
    """

    name: str
    triplet: str
    linker: Path
    console: str
    packages: tuple[str, ...]
    kernel_options: str
    lacking: tuple[str, ...] = ()

    @property
    def image_name(self) -> str:
        """File name of the image."""
        return f"qcontroller-tiny-{self.name}.qcow2"

    @property
    def library_directories(self) -> tuple[Path, Path]:
        """Where packages put libraries, relative to the root."""
        return Path("usr/lib", self.triplet), Path("lib", self.triplet)


TARGETS = {
    target.name: target
    for target in (
        Target(
            "amd64",
            "x86_64-linux-gnu",
            Path("lib64/ld-linux-x86-64.so.2"),
            "ttyS0",
            (),
            "i8042.noaux i8042.nopnp tsc=reliable no_timer_check mitigations=off cryptomgr.notests",
        ),
        # UEFI starts a loader, and this one needs no installation.
        Target(
            "arm64",
            "aarch64-linux-gnu",
            Path("lib/ld-linux-aarch64.so.1"),
            "ttyAMA0",
            ("systemd-boot-efi",),
            "mitigations=off cryptomgr.notests",
            lacking=("button", "pvpanic-pci"),
        ),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the image (or find it built) and print its path."""
    return build_image(
        arguments,
        description="Build the small test guest as a qcow2 image, from Debian packages, as any user.",
        images={target.name: target.image_name for target in TARGETS.values()},
        recipe=imagecache.recipe_digest([ROOTFS, HERE / "tiny_recipe.py", HERE.parent / "guestbuild"]),
        programs={**bootdisk.PROGRAMS, "dpkg-deb": "dpkg", "apt-get": "apt"},
        resolve=resolve,
        make=make,
    )


def resolve(source: PackageSource) -> list[Package]:
    """Return the packages of the guest, the kernel first."""
    target = TARGETS[source.architecture]
    (metapackage,) = source.resolve([f"linux-image-cloud-{target.name}"])
    return source.resolve([kernel_of(metapackage), *PACKAGES, *target.packages])


def make(source: PackageSource, packages: Sequence[Package], workspace: Path) -> Path:
    """Make the image in ``workspace`` and return its path."""
    target = TARGETS[source.architecture]
    tree = workspace / "tree"
    source.unpack(packages, tree)
    version = next((tree / "lib/modules").iterdir()).name
    print(f"packing the initramfs (kernel {version})", flush=True)
    initrd = workspace / "initrd"
    initrd.write_bytes(make_initramfs(target, tree, version, busybox_applets(source, workspace)))

    print("laying out the disk", flush=True)
    disk = workspace / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    files = {"vmlinuz": tree / f"boot/vmlinuz-{version}", "initrd": initrd}
    if LOADER.name in {path.name for path in (tree / LOADER.parent).glob("*")}:
        partition = _by_efi(disk, tree, files, target, workspace)
    else:
        partition = _by_bios(disk, files, target, workspace)
    bootdisk.write_partition_table(disk, [partition], DISK_SIGNATURE)
    image = workspace / target.image_name
    bootdisk.to_qcow2(disk, image)
    return image


def _by_bios(disk: Path, files: Mapping[str, Path], target: Target, workspace: Path) -> bootdisk.Partition:
    config = workspace / "syslinux.cfg"
    config.write_text(SYSLINUX_CFG.format(options=target.kernel_options), encoding="ascii")
    partition = bootdisk.boot_partition(DISK_BYTES - bootdisk.BOOT_OFFSET_BYTES)
    bootdisk.make_boot_filesystem(disk, partition, {**files, config.name: config}, DISK_LABEL)
    return partition


def _by_efi(
    disk: Path, tree: Path, files: Mapping[str, Path], target: Target, workspace: Path
) -> bootdisk.Partition:
    loader, entry = workspace / "loader.conf", workspace / "tiny.conf"
    loader.write_text(LOADER_CONF, encoding="ascii")
    entry.write_text(LOADER_ENTRY.format(options=target.kernel_options), encoding="ascii")
    partition = bootdisk.efi_partition(DISK_BYTES - bootdisk.BOOT_OFFSET_BYTES)
    placed = {
        **files,
        "EFI/BOOT/BOOTAA64.EFI": tree / LOADER,
        "loader/loader.conf": loader,
        "loader/entries/tiny.conf": entry,
    }
    bootdisk.make_efi_filesystem(disk, partition, placed, DISK_LABEL)
    return partition


def busybox_applets(source: PackageSource, workspace: Path) -> list[str]:
    """Return the paths that busybox goes by, as the one of the host's own architecture tells them."""
    native = source.native()
    tree = workspace / "native"
    native.unpack(native.resolve(["busybox-static"]), tree)
    return run([tree / "bin/busybox", "--list-full"]).split()


def make_initramfs(target: Target, tree: Path, version: str, applets: Sequence[str]) -> bytes:
    """Return the guest's root file system as a newc archive made from the unpacked packages."""
    archive = Archive()
    for directory in ("dev", "proc", "sys", "run", "tmp", "mnt", "persist", "root", "var/log", "var/run"):
        archive.add_directory(directory)
    archive.add_character_device("dev/console", 5, 1)
    archive.add_character_device("dev/null", 1, 3)
    _add_busybox(archive, tree, applets)
    _add_modules(archive, target, tree, version)
    _add_programs(archive, target, tree)
    archive.add_tree(ROOTFS)
    inittab = (ROOTFS / "etc/inittab").read_text(encoding="ascii").replace("ttyS0", target.console)
    archive.add_file("etc/inittab", inittab.encode())
    return archive.to_bytes()


def _add_busybox(archive: Archive, tree: Path, applets: Sequence[str]) -> None:
    busybox = tree / "bin/busybox"
    archive.add_file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in applets:
        if applet != "bin/busybox":
            archive.add_symlink(applet, "/bin/busybox")
    archive.add_symlink("init", "/bin/busybox")


def _add_modules(archive: Archive, target: Target, tree: Path, version: str) -> None:
    modules = tree / "lib/modules" / version
    boot = [name for name in BOOT_MODULES if name not in target.lacking]
    closure = module_closure(modules, [*boot, *LATER_MODULES])
    for path in closure:
        archive.add_file(f"lib/modules/{version}/{path}", (modules / path).read_bytes())
    archive.add_file(f"lib/modules/{version}/modules.dep", modules_dep(closure))
    archive.add_file("lib/qcontroller/boot-modules", " ".join(boot).encode() + b"\n")


def _add_programs(archive: Archive, target: Target, tree: Path) -> None:
    libraries = target.library_directories
    objects = [*BINARIES, str(libraries[0] / "lua/5.4/yaml.so")]
    for name in objects:
        archive.add_file(name, (tree / name).read_bytes(), 0o755)
    archive.add_symlink("usr/bin/lua", "lua5.4")
    for script in sorted((tree / LUA_SOURCES).iterdir()):
        archive.add_file(str(LUA_SOURCES / script.name), script.read_bytes())
    archive.add_file(str(target.linker), (tree / target.linker).read_bytes(), 0o755)
    closure = library_closure([tree / name for name in objects], [tree / path for path in libraries])
    for name, path in closure.items():
        if name != target.linker.name:
            archive.add_file(f"lib/{target.triplet}/{name}", path.read_bytes(), 0o755)
