"""What the small guest is made of: its packages, its initramfs and its boot disk.

Owns the recipe only; how packages come, archives are written and disks are laid out is ``guestbuild``'s.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from guestbuild import bootdisk, imagecache
from guestbuild.commandline import build_image
from guestbuild.errors import GuestIncompleteError
from guestbuild.initramfs import Archive, module_closure, modules_dep
from guestbuild.packages import Package, PackageSource, kernel_of
from guestbuild.programs import run

IMAGE_NAME = "qcontroller-tiny-amd64.qcow2"

HERE = Path(__file__).resolve().parent
ROOTFS = HERE / "rootfs"

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
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

LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
LINKER = Path("lib64/ld-linux-x86-64.so.2")
BINARIES = ("usr/sbin/qemu-ga", "usr/bin/lua5.4", "bin/nc.openbsd")
LUA_MODULE = LIBRARIES / "lua/5.4/yaml.so"
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
# Nothing here changes what the guest is; each saves probing that no machine of ours needs.
KERNEL_OPTIONS = "i8042.noaux i8042.nopnp tsc=reliable no_timer_check mitigations=off cryptomgr.notests"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the image (or find it built) and print its path."""
    return build_image(
        arguments,
        description="Build the small test guest as a qcow2 image, from Debian packages, as any user.",
        image_name=IMAGE_NAME,
        recipe=imagecache.recipe_digest([ROOTFS, HERE / "tiny_recipe.py", HERE.parent / "guestbuild"]),
        programs={**bootdisk.PROGRAMS, "dpkg-deb": "dpkg", "apt-get": "apt"},
        resolve=resolve,
        make=make,
    )


def resolve(source: PackageSource) -> list[Package]:
    """Return the packages of the guest, the kernel first."""
    (metapackage,) = source.resolve([KERNEL_METAPACKAGE])
    return source.resolve([kernel_of(metapackage), *PACKAGES])


def make(source: PackageSource, packages: Sequence[Package], workspace: Path) -> Path:
    """Make the image in ``workspace`` and return its path."""
    tree = workspace / "tree"
    source.unpack(packages, tree)
    version = next((tree / "lib/modules").iterdir()).name
    print(f"packing the initramfs (kernel {version})", flush=True)
    initrd = workspace / "initrd"
    initrd.write_bytes(make_initramfs(tree, version))
    config = workspace / "syslinux.cfg"
    config.write_text(SYSLINUX_CFG.format(options=KERNEL_OPTIONS), encoding="ascii")

    print("laying out the disk", flush=True)
    disk = workspace / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    partition = bootdisk.boot_partition(DISK_BYTES - bootdisk.BOOT_OFFSET_BYTES)
    files = {"vmlinuz": tree / f"boot/vmlinuz-{version}", "initrd": initrd, "syslinux.cfg": config}
    bootdisk.make_boot_filesystem(disk, partition, files, DISK_LABEL)
    bootdisk.write_partition_table(disk, [partition], DISK_SIGNATURE)
    image = workspace / IMAGE_NAME
    bootdisk.to_qcow2(disk, image)
    return image


def make_initramfs(tree: Path, version: str) -> bytes:
    """Return the guest's root file system as a newc archive made from the unpacked packages."""
    archive = Archive()
    for directory in ("dev", "proc", "sys", "run", "tmp", "mnt", "persist", "root", "var/log", "var/run"):
        archive.add_directory(directory)
    archive.add_character_device("dev/console", 5, 1)
    archive.add_character_device("dev/null", 1, 3)
    _add_busybox(archive, tree)
    _add_modules(archive, tree, version)
    _add_programs(archive, tree)
    archive.add_tree(ROOTFS)
    return archive.to_bytes()


def _add_busybox(archive: Archive, tree: Path) -> None:
    busybox = tree / "bin/busybox"
    archive.add_file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in run([busybox, "--list-full"]).split():
        if applet != "bin/busybox":
            archive.add_symlink(applet, "/bin/busybox")
    archive.add_symlink("init", "/bin/busybox")


def _add_modules(archive: Archive, tree: Path, version: str) -> None:
    modules = tree / "lib/modules" / version
    closure = module_closure(modules, [*BOOT_MODULES, *LATER_MODULES])
    for path in closure:
        archive.add_file(f"lib/modules/{version}/{path}", (modules / path).read_bytes())
    archive.add_file(f"lib/modules/{version}/modules.dep", modules_dep(closure))
    archive.add_file("lib/qcontroller/boot-modules", " ".join(BOOT_MODULES).encode() + b"\n")


def _add_programs(archive: Archive, tree: Path) -> None:
    objects = [*BINARIES, str(LUA_MODULE)]
    for name in objects:
        archive.add_file(name, (tree / name).read_bytes(), 0o755)
    archive.add_symlink("usr/bin/lua", "lua5.4")
    for script in sorted((tree / LUA_SOURCES).iterdir()):
        archive.add_file(str(LUA_SOURCES / script.name), script.read_bytes())
    archive.add_file(str(LINKER), (tree / LINKER).read_bytes(), 0o755)
    for name, path in _libraries(tree, objects).items():
        archive.add_file(f"lib/x86_64-linux-gnu/{name}", path.read_bytes(), 0o755)


def _libraries(tree: Path, objects: Sequence[str]) -> dict[str, Path]:
    # The packages' own dynamic linker lists what it would load, so the host's libraries play no part.
    directories = [tree / LIBRARIES, tree / "lib/x86_64-linux-gnu"]
    search = ":".join(str(directory) for directory in directories)
    found: dict[str, Path] = {}
    for name in objects:
        listing = run([tree / LINKER, "--library-path", search, "--list", tree / name])
        missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
        if missing:
            raise GuestIncompleteError(
                f"{name} needs {', '.join(missing)}, which no package of the guest holds"
            )
        for library, path in re.findall(r"^\s*(\S+) => (\S+) \(", listing, re.MULTILINE):
            if not library.startswith("/"):
                found[library] = Path(path)
    return found
