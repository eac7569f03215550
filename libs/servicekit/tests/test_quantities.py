"""Sizes and durations are read as the contracts write them."""

import pytest
from servicekit.quantities import QuantityError, parse_duration_s, parse_size_mib


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("1", 1),
        ("512", 512),
        ("512M", 512),
        ("512MB", 512),
        ("512MiB", 512),
        ("2G", 2048),
        ("2Gi", None),
        ("1T", 1024**2),
    ],
)
def test_sizes_are_binary(text: str, mib: int | None) -> None:
    if mib is None:
        with pytest.raises(QuantityError):
            parse_size_mib(text)
    else:
        assert parse_size_mib(text) == mib


@pytest.mark.parametrize("text", ["", "0", "0G", "-1", "1.5G", "G", "1 G", "1K", "1g", "9" * 30, "\uff11"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(QuantityError):
        parse_size_mib(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("60", 60), ("90s", 90), ("5m", 300), ("2h", 7200), ("250ms", 0.25)]
)
def test_durations_are_seconds_unless_they_say_otherwise(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1.5s", "1d", "1 s", "9" * 12])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(QuantityError):
        parse_duration_s(text)
