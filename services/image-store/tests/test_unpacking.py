"""Compressed data: unpacked in any cuts, refused when damaged or too large."""

import gzip
import lzma
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from image_store.errors import CompressionDamagedError, UnpackedTooLargeError
from image_store.unpacking import MAGIC_BYTES, Compression, Unpacker, UnpackLimits, compression_of

MIB = 2**20
GENEROUS = UnpackLimits(max_bytes=64 * MIB, max_ratio=250, free_bytes=16 * MIB)
Compress = Callable[[bytes], bytes]
CHECKED: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
FORMS: dict[Compression, Compress] = {
    Compression.GZIP: gzip.compress,
    Compression.XZ: lzma.compress,
    Compression.ZSTD: lambda content: zstd.compress(content, options=CHECKED),
}
each_form = pytest.mark.parametrize("form", list(FORMS))


def unpacked(form: Compression, data: bytes, limits: UnpackLimits = GENEROUS, cut: int = 64 * 1024) -> bytes:
    unpacker = Unpacker(form, limits)
    found = b""
    for begin in range(0, len(data), cut):
        for piece in unpacker.pieces(data[begin : begin + cut]):
            assert 0 < len(piece) <= MIB
            found += piece
    unpacker.finish()
    return found


@each_form
def test_the_first_bytes_tell_the_form(form: Compression) -> None:
    assert compression_of(FORMS[form](b"disk")[:MAGIC_BYTES]) is form


def test_what_is_not_compressed_has_no_form() -> None:
    assert [compression_of(head) for head in (b"", b"QFI\xfb\0\0", b"\0" * 6, b"\x1f")] == [None] * 4


@each_form
@given(content=st.binary(max_size=2000), cut=st.integers(1, 50))
def test_any_cuts_bring_the_same(form: Compression, content: bytes, cut: int) -> None:
    assert unpacked(form, FORMS[form](content), cut=cut) == content


@each_form
def test_much_comes_in_pieces(form: Compression) -> None:
    content = bytes(5 * MIB) + b"end"
    assert unpacked(form, FORMS[form](content)) == content


@each_form
def test_streams_may_follow_one_another(form: Compression) -> None:
    assert unpacked(form, FORMS[form](b"one") + FORMS[form](b"two")) == b"onetwo"


@pytest.mark.parametrize("form", [Compression.GZIP, Compression.XZ])
@pytest.mark.parametrize("cut", [1, 5, 4096])
def test_padding_behind_and_between_streams_is_skipped(form: Compression, cut: int) -> None:
    data = FORMS[form](b"one") + bytes(8) + FORMS[form](b"two") + bytes(4)
    assert unpacked(form, data, cut=cut) == b"onetwo"


@each_form
def test_what_is_cut_off_is_damaged(form: Compression) -> None:
    with pytest.raises(CompressionDamagedError, match="cut off"):
        unpacked(form, FORMS[form](b"disk" * 1000)[:-5])


@each_form
def test_a_wrong_byte_is_damage(form: Compression) -> None:
    data = bytearray(FORMS[form](bytes(range(256)) * 40))
    for position in range(len(data) // 2, len(data) // 2 + 8):
        data[position] ^= 0xFF
    with pytest.raises(CompressionDamagedError):
        unpacked(form, bytes(data))


@each_form
def test_other_bytes_behind_the_end_are_damage(form: Compression) -> None:
    with pytest.raises(CompressionDamagedError):
        unpacked(form, FORMS[form](b"disk") + b"no stream at all, and long enough to tell")


@each_form
def test_the_absolute_limit_holds(form: Compression) -> None:
    limits = UnpackLimits(max_bytes=3 * MIB, max_ratio=100_000, free_bytes=0)
    with pytest.raises(UnpackedTooLargeError, match="3145728 bytes"):
        unpacked(form, FORMS[form](bytes(4 * MIB)), limits)


@each_form
def test_the_ratio_holds_beyond_what_is_free(form: Compression) -> None:
    bomb = FORMS[form](bytes(8 * MIB))
    assert len(unpacked(form, bomb, UnpackLimits(64 * MIB, 50, 8 * MIB))) == 8 * MIB
    with pytest.raises(UnpackedTooLargeError, match="50 times"):
        unpacked(form, bomb, UnpackLimits(64 * MIB, 50, 4 * MIB))


def test_a_bomb_is_noticed_before_it_is_unpacked() -> None:
    unpacker = Unpacker(Compression.ZSTD, UnpackLimits(64 * MIB, 50, 2 * MIB))
    bomb = zstd.compress(bytes(256 * MIB))
    with pytest.raises(UnpackedTooLargeError):
        list(unpacker.pieces(bomb))
    assert unpacker.made <= 3 * MIB


def test_a_window_beyond_the_limit_is_refused() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 30,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(bytes(MIB)) + compressor.flush()
    with pytest.raises(CompressionDamagedError):
        unpacked(Compression.ZSTD, data)
