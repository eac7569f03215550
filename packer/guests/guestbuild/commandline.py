"""The command line that all guest builders share: where to, what from, reuse or build, say the path.

Owns the order of a build. Progress goes to standard output line by line; its last line is the image's path
and nothing else. It never leaves a half-made image.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from guestbuild.errors import BuildError, PackagesUnavailableError
from guestbuild.imagecache import ImageSlot, content_key
from guestbuild.packages import Package, PackageSource
from guestbuild.programs import require

DEFAULT_OUTPUT = Path(__file__).resolve().parents[3] / ".cache" / "guests"


def build_image(
    arguments: Sequence[str] | None,
    *,
    description: str,
    images: Mapping[str, str],
    recipe: str,
    programs: Mapping[str, str],
    resolve: Callable[[PackageSource], list[Package]],
    make: Callable[[PackageSource, Sequence[Package], Path], Path],
) -> int:
    """Build one image unless the published one has the same inputs; return the exit status.

    Args:
        arguments: Command line, without the program's name; None for the process's own.
        description: What ``--help`` says.
        images: Architectures that it can be built for, by Debian's names and the usual one first, each with
            the file name of the image in the output directory.
        recipe: Digest of everything in this checkout that shapes the image.
        programs: Programs that ``make`` runs, with the Debian packages they come from.
        resolve: Names the packages (with versions) that the image is made of.
        make: Makes the image in a scratch directory and returns its path there.
    """
    options = _parse(arguments, description, list(images))
    image_name = images[options.arch]
    started = time.monotonic()
    slot = ImageSlot(options.output.resolve(), image_name)
    source = PackageSource((options.cache or options.output).resolve(), options.apt_sources, options.arch)
    try:
        with slot.held():
            _build(slot, source, recipe, programs, resolve, make)
    except BuildError as exc:
        print(f"cannot build {image_name}: {exc}", file=sys.stderr)
        return 1
    size_mib = slot.image.stat().st_size / (1024 * 1024)
    print(f"{image_name}: {size_mib:.1f} MiB, {time.monotonic() - started:.1f} s", flush=True)
    print(slot.image, flush=True)
    return 0


def _build(
    slot: ImageSlot,
    source: PackageSource,
    recipe: str,
    programs: Mapping[str, str],
    resolve: Callable[[PackageSource], list[Package]],
    make: Callable[[PackageSource, Sequence[Package], Path], Path],
) -> None:
    try:
        packages = resolve(source)
    except PackagesUnavailableError as exc:
        if not slot.has_recipe(recipe):
            raise
        print(f"reusing the image built before, since apt does not answer: {exc}", flush=True)
        return
    key = content_key(recipe, packages)
    if slot.is_current(key):
        print("nothing changed since the image was built", flush=True)
        return
    require(programs)
    with slot.workspace() as workspace:
        built = make(source, packages, workspace)
        slot.publish(built, key=key, recipe=recipe, packages=packages)


def _parse(arguments: Sequence[str] | None, description: str, arches: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--output",
        type=Path,
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help="where the image goes (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where fetched packages are kept (default: the output directory)",
    )
    parser.add_argument(
        "--apt-sources",
        type=Path,
        metavar="FILE",
        help="a Debian 12 sources list to use instead of the host's",
    )
    parser.add_argument(
        "--arch",
        choices=arches,
        default=arches[0],
        help="architecture of the guest, by Debian's name (default: %(default)s)",
    )
    return parser.parse_args(arguments)
