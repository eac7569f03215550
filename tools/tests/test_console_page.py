"""What the page of consoles is made of: pinned, with digests, from no named registry."""

import json
import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SOURCE = CHECKOUT / "services/gateway/console-page"


def test_every_package_has_a_digest_and_no_registry() -> None:
    text = (SOURCE / "package-lock.json").read_text(encoding="utf-8")
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())
    assert all("resolved" not in one for one in packages.values())
    assert "://" not in text


def test_versions_are_pinned_and_locked() -> None:
    wanted = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    locked = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert {f"node_modules/{name}": version for name, version in wanted.items()} == {
        name: one["version"] for name, one in locked.items() if name
    }


def test_a_host_without_npm_is_told_so_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    source = tmp_path / "services/gateway/console-page"
    source.mkdir(parents=True)
    (tmp_path / "services/gateway/src/gateway").mkdir(parents=True)
    (source / "package-lock.json").write_text("{}", encoding="utf-8")
    script = tmp_path / "tools/console-page"
    script.write_bytes((CHECKOUT / "tools/console-page").read_bytes())
    script.chmod(0o755)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "sha256sum"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    made = subprocess.run(
        [script], env={**os.environ, "PATH": str(programs)}, capture_output=True, text=True, check=False
    )
    assert made.returncode == 3
    assert "npm is missing" in made.stderr
    assert not (tmp_path / "services/gateway/src/gateway/vendored").exists()
