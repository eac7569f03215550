"""When a published image is used again, and that its inputs decide."""

from pathlib import Path

import pytest
from guestbuild.errors import PackagesUnavailableError
from guestbuild.imagecache import ImageSlot, content_key, recipe_digest
from guestbuild.packages import Package, kernel_of

BUSYBOX = Package("busybox-static", "1", "aa", "")


def published(directory: Path, key: str, recipe: str = "recipe") -> ImageSlot:
    slot = ImageSlot(directory, "guest.qcow2")
    with slot.held(), slot.workspace() as workspace:
        built = workspace / "guest.qcow2"
        built.write_bytes(b"image of " + key.encode())
        slot.publish(built, key=key, recipe=recipe, packages=[BUSYBOX])
    return slot


def test_an_image_of_the_same_key_is_current(tmp_path: Path) -> None:
    assert published(tmp_path, "k1").is_current("k1")


def test_an_image_of_another_key_is_not_current(tmp_path: Path) -> None:
    assert not published(tmp_path, "k1").is_current("k2")


def test_a_manifest_without_its_image_is_not_current(tmp_path: Path) -> None:
    slot = published(tmp_path, "k1")
    slot.image.unlink()
    assert not slot.is_current("k1")


def test_a_damaged_manifest_is_not_current(tmp_path: Path) -> None:
    slot = published(tmp_path, "k1")
    (tmp_path / "guest.json").write_text("{")
    assert not slot.is_current("k1")


def test_publishing_leaves_nothing_but_image_manifest_and_lock(tmp_path: Path) -> None:
    published(tmp_path, "k1")
    assert {path.name for path in tmp_path.iterdir()} == {"guest.qcow2", "guest.json", ".guest.qcow2.lock"}


def test_an_interrupted_build_leaves_the_old_image(tmp_path: Path) -> None:
    slot = published(tmp_path, "k1")

    def interrupted() -> None:
        with slot.held(), slot.workspace() as workspace:
            (workspace / "guest.qcow2").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert slot.image.read_bytes() == b"image of k1"


def test_a_new_package_version_changes_the_key() -> None:
    newer = Package("busybox-static", "2", "bb", "")
    assert content_key("recipe", [BUSYBOX]) != content_key("recipe", [newer])


def test_an_edited_file_changes_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    before = recipe_digest([tmp_path])
    (tmp_path / "file").write_text("two")
    assert recipe_digest([tmp_path]) != before


def test_the_kernel_is_the_one_its_metapackage_depends_on() -> None:
    metapackage = Package(
        "linux-image-cloud-amd64", "6.1", "cc", "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)"
    )
    assert kernel_of(metapackage) == "linux-image-6.1.0-56-cloud-amd64"


def test_a_metapackage_without_a_kernel_is_refused() -> None:
    with pytest.raises(PackagesUnavailableError):
        kernel_of(BUSYBOX)
