"""The probe's answer is remembered for one binary and one revision of the probe."""

from dataclasses import replace
from pathlib import Path

import pytest
from qemu_runner.user_network import ProbeError
from qemu_runner.user_network.adapters.probe import CachedProbe, parse_cache, render_cache
from user_network_fakes import LEAKY


def test_what_was_written_is_read_again() -> None:
    assert parse_cache(render_cache(LEAKY), LEAKY.binary_sha256) == LEAKY


def test_another_binary_is_probed_anew() -> None:
    assert parse_cache(render_cache(LEAKY), "other") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_cache_is_no_answer(text: str) -> None:
    assert parse_cache(text, LEAKY.binary_sha256) is None


@pytest.mark.parametrize("field", ['"leaks_loopback": true', '"revision": 1'])
def test_a_cache_with_a_field_of_another_kind_is_no_answer(field: str) -> None:
    text = render_cache(LEAKY)
    assert field in text

    assert parse_cache(text.replace(field, f'{field.partition(":")[0]}: "x"'), LEAKY.binary_sha256) is None


def test_a_safe_answer_is_not_read_as_a_leaky_one() -> None:
    safe = replace(LEAKY, leaks_loopback=False)

    assert parse_cache(render_cache(safe), safe.binary_sha256) == safe


async def test_a_passt_that_is_not_installed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="not installed"):
        await CachedProbe(str(tmp_path / "passt"), tmp_path).behaviour()
