"""Damage that costs no pixel does not matter, as in browsers; a file that lacks pixels is refused, wherever it ends."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import ImageUndecodable
from embedders.images.decoding import FORMATS, as_nim_image, decode
from tests.fakes.drawing import PALETTE, RGB, difference
from tests.fakes.pngs import SIGNATURE, chunk, chunks_of, png

# As a production server treats what Pillow warns of.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LIMITS = InputLimits()
DRAWN = Image.fromarray(RGB)
NOISE = Image.fromarray(np.random.default_rng(11).integers(0, 256, (40, 56, 3), dtype=np.uint8))
SOUND = png(RGB, colour_type=2, depth=8)
HEAD, (_, PIXELS), END = SOUND[:33], chunks_of(SOUND)[1], chunk(b"IEND", b"")
TURNED = Image.Exif()
TURNED[0x0112] = 6


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(decode(content, LIMITS))


def assert_a_nim_reads(content: bytes, shown: np.ndarray) -> None:
    """Assert that what a NIM gets of a damaged file is a sound one with the same pixels."""
    _, sent = as_nim_image(content, LIMITS)
    with Image.open(io.BytesIO(sent)) as image:
        image.verify()
    with Image.open(io.BytesIO(sent)) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), shown)


BODIES = {
    b"tEXt": [b"Title\0a", b"\xff" * 100, b"transparency\0x", b""],
    b"zTXt": [b"k\0\0" + zlib.compress(b"a"), b"k\0\7what", b"k\0\0broken", b"k\0\0" + zlib.compress(bytes(5_000_000))],
    b"iTXt": [
        b"k\0\1\0\0\0" + zlib.compress(bytes(5_000_000)),
        b"k\0\1\0\0\0\xff",
        b"\xff\xfe",
        b"k\0\0\0\xff\0\0\xff",
    ],
    b"iCCP": [b"p\0\0" + zlib.compress(bytes(5_000_000)), b"p\0\3x", b"p", b""],
    b"gAMA": [b"\0\0\xb1\x8f", b"\1", b""],
    b"cHRM": [bytes(32), b"\1"],
    b"pHYs": [bytes(9), b"\1\2", b""],
    b"sRGB": [b"\0", b""],
    b"tIME": [bytes(7), b""],
    b"bKGD": [bytes(6), b"\1"],
    b"hIST": [b"\1"],
    b"sBIT": [b"\x08\x08\x08", b""],
    b"sPLT": [b"x"],
    b"eXIf": [b"II*\0\xff\xff\xff\xff", b"", b"nonsense"],
    b"acTL": [bytes(8), b"\1"],
    b"fcTL": [b"\1", struct.pack(">IIIIIHHBB", 9, 900, 900, 0, 0, 0, 0, 0, 0)],
    b"abCd": [b"unknown"],
}


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("name", BODIES, ids=lambda each: each.decode())
def test_no_chunk_that_pixels_do_not_need_spoils_a_png(name: bytes, *, sound: bool) -> None:
    for body in BODIES[name]:
        extra = chunk(name, body, sound=sound)
        data = chunk(b"IDAT", PIXELS)
        for content in (HEAD + extra + data + END, HEAD + data + extra + END, HEAD + extra * 3 + data + END):
            assert difference(content, RGB) == 0
            assert_a_nim_reads(content, RGB)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SOUND[:-12], id="no IEND"),
        pytest.param(SOUND[:-5], id="a part of IEND"),
        pytest.param(SOUND[:-16], id="no checksum of the pixels, no IEND"),
        pytest.param(SOUND[:-1] + b"\0", id="wrong checksum of IEND"),
        pytest.param(SOUND + b"garbage" * 100, id="garbage behind"),
        pytest.param(SOUND[:-12] + b"\0" * 5000, id="zeros for IEND"),
        pytest.param(HEAD + chunk(b"IDAT", PIXELS, sound=False) + END, id="wrong checksum of whole pixels"),
        pytest.param(HEAD + chunk(b"IDAT", PIXELS) + chunk(b"tEXt", b"cut off")[:-6], id="text cut off"),
        pytest.param(
            HEAD + b"".join(chunk(b"IDAT", bytes([each])) for each in PIXELS[:40]) + chunk(b"IDAT", PIXELS[40:]) + END,
            id="pixels in small pieces",
        ),
        pytest.param(HEAD + chunk(b"IDAT", PIXELS) + chunk(b"tRNS", b"\0" + PIXELS[:5]) + END, id="colour too late"),
    ],
)
def test_a_png_with_all_pixels_is_read(content: bytes) -> None:
    assert difference(content, RGB) == 0
    assert_a_nim_reads(content, RGB)


def test_a_wrong_checksum_costs_the_transparent_colour_and_the_orientation_of_a_png() -> None:
    clear = chunk(b"tRNS", struct.pack(">HHH", *RGB[0, 0]), sound=False)
    exif = chunk(b"eXIf", TURNED.tobytes()[6:], sound=False)

    assert difference(HEAD + clear + exif + chunk(b"IDAT", PIXELS) + END, RGB) == 0
    sound = HEAD + chunk(b"IDAT", PIXELS) + chunk(b"eXIf", TURNED.tobytes()[6:]) + END
    assert decode(sound, LIMITS).size == DRAWN.size[::-1]


@pytest.mark.parametrize("sound", [False, True])
def test_pixels_that_differ_from_their_checksum_are_refused(*, sound: bool) -> None:
    stored = bytearray(zlib.compress(zlib.decompress(PIXELS), 0))
    stored[1000] ^= 1
    content = HEAD + chunk(b"IDAT", bytes(stored), sound=sound) + END

    for read in (decode, as_nim_image):
        with pytest.raises(ImageUndecodable):
            read(content, LIMITS)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE"])
def test_a_wrong_checksum_of_what_pixels_need_is_refused(name: bytes) -> None:
    plain = png(RGB[..., 0], colour_type=3, depth=8, palette=PALETTE.ravel().tolist())
    parts = [chunk(each, body, sound=each != name) for each, body in chunks_of(plain)]

    with pytest.raises(ImageUndecodable):
        decode(SIGNATURE + b"".join(parts), LIMITS)


CODINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "restarts in progress": {"restart_marker_rows": 1, "progressive": True},
    "subsampled": {"subsampling": 2},
    "best": {"quality": 100, "subsampling": 0},
}


def jpeg(coding: str, mode: str = "RGB") -> bytes:
    return saved(NOISE.convert(mode), "JPEG", **CODINGS[coding])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("coding", CODINGS)
def test_a_jpeg_that_lacks_only_its_end_is_read(coding: str, mode: str) -> None:
    whole = jpeg(coding, mode)
    for ending in (b"", b"\xff", b"\0", bytes(5000), b"\xff" + bytes(300), b"\xff\xff\xff"):
        content = whole[:-2] + ending
        np.testing.assert_array_equal(pixels(content), pixels(whole))
        assert_a_nim_reads(content, pixels(whole))
        assert as_nim_image(content, LIMITS)[1].endswith(b"\xff\xd9")


@pytest.mark.parametrize("padding", [b"", bytes(3000)])
@pytest.mark.parametrize("coding", CODINGS)
def test_a_jpeg_cut_anywhere_is_refused_or_whole(coding: str, padding: bytes) -> None:
    whole = jpeg(coding)
    shown = pixels(whole)
    read = []
    for end in range(20, len(whole) - 2, 3 if len(whole) < 5000 else 20):
        try:
            np.testing.assert_array_equal(pixels(whole[:end] + padding), shown)
        except ImageUndecodable:
            continue
        read.append(end)
    assert all(end >= len(whole) - 6 for end in read)


def test_a_progressive_jpeg_cut_between_its_scans_is_refused() -> None:
    whole = jpeg("progressive")
    starts = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 5
    for start in starts[1:]:
        with pytest.raises(ImageUndecodable):
            decode(whole[:start], LIMITS)


def test_a_jpeg_cut_between_restart_markers_is_refused() -> None:
    whole = jpeg("restarts")
    markers = [at for at in range(len(whole)) if whole[at : at + 1] == b"\xff" and 0xD0 <= whole[at + 1] <= 0xD7]
    assert len(markers) >= 3
    for at in markers:
        for end in (at, at + 1, at + 2):
            with pytest.raises(ImageUndecodable):
                decode(whole[:end], LIMITS)


def segment(marker: int, body: bytes, length: int | None = None) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2 if length is None else length) + body


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE0, b"JFIF"),
        segment(0xE0, b"JFIF\0\1"),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<broken"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\7\2x"),
        segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\0\0\0\1x"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed"),
        segment(0xEE, b"Adobe"),
        segment(0xEE, b"Adobe\0d"),
        segment(0xFE, b"\xff\xfe"),
        segment(0xE5, b"\0" * 90) * 20,
        b"\xff" * 50,
    ],
    ids=repr,
)
def test_no_metadata_spoil_a_jpeg(extra: bytes) -> None:
    whole = jpeg("baseline")
    for content in (whole[:2] + extra + whole[2:], whole[:20] + extra + whole[20:], whole[:-2] + extra + whole[-2:]):
        np.testing.assert_array_equal(pixels(content), pixels(whole))
        assert_a_nim_reads(content, pixels(whole))


def test_a_second_picture_cut_off_does_not_spoil_the_first() -> None:
    content = saved(NOISE, "MPO", save_all=True, append_images=[DRAWN, DRAWN])

    np.testing.assert_array_equal(pixels(content[: len(content) * 3 // 4]), pixels(content))


@pytest.mark.parametrize("file_format", [each for each in FORMATS if each != "JPEG"])
def test_a_file_cut_anywhere_is_refused_or_whole(file_format: str) -> None:
    options: dict[str, Any] = {"lossless": True} if file_format == "WEBP" else {}
    whole = saved(NOISE, file_format, **options)
    shown = pixels(whole)
    for end in range(4, len(whole), max(1, len(whole) // 300)):
        try:
            np.testing.assert_array_equal(pixels(whole[:end]), shown)
        except ImageUndecodable:
            continue


@pytest.mark.parametrize("extended", [b"", TURNED.tobytes()])
def test_a_webp_s_metadata_may_be_cut_off_and_its_length_wrong(extended: bytes) -> None:
    whole = saved(NOISE, "WEBP", lossless=True, exif=extended, xmp=b"<x/>" * 20, icc_profile=b"x" * 200)
    shown = pixels(whole)

    for content in (
        whole[:-30],
        whole[:-80],
        whole + b"garbage" * 9,
        whole[:4] + struct.pack("<I", 2**31) + whole[8:],
        whole[:4] + struct.pack("<I", 60) + whole[8:],
        whole[:-30] + bytes(7),
    ):
        np.testing.assert_array_equal(pixels(content), shown)


def test_sound_files_go_to_a_nim_as_they_came() -> None:
    for content in (SOUND, HEAD + chunk(b"tEXt", b"a\0b") + SOUND[33:], SOUND + b"behind", jpeg("progressive")):
        assert as_nim_image(content, LIMITS)[1] == content
