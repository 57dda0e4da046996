"""Pictures are bounded by their headers, decoded whole and by one rule, and hostile bytes raise one kind of error."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from embedders.contract import InputLimits
from embedders.errors import ImageEmpty, ImageTooLarge, ImageUndecodable, InputRejected
from embedders.images import misread
from embedders.images.decoding import FORMATS, as_nim_image, decode, without_far_ends

LIMITS = InputLimits(max_image_bytes=200_000, max_image_pixels=100_000)
RNG = np.random.default_rng(7)
NOISE = Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8))


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


FILES = {file_format: saved(NOISE, file_format) for file_format in FORMATS}


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_is_read_as_rgb(file_format: str) -> None:
    image = decode(FILES[file_format], LIMITS)
    assert (image.mode, image.size) == ("RGB", (64, 48))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_pictures_keep_every_pixel(file_format: str) -> None:
    np.testing.assert_array_equal(np.asarray(decode(FILES[file_format], LIMITS)), np.asarray(NOISE))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_picture_cut_short_is_refused(file_format: str, share: float) -> None:
    content = FILES[file_format]
    with pytest.raises(ImageUndecodable):
        decode(content[: int(len(content) * share)], LIMITS)


def test_no_bytes_are_named_as_such() -> None:
    with pytest.raises(ImageEmpty):
        decode(b"", LIMITS)


def test_too_many_bytes_are_refused_with_value_and_bound() -> None:
    with pytest.raises(ImageTooLarge, match="200001 bytes; the limit is 200000"):
        decode(b"x" * 200_001, LIMITS)


def test_too_many_pixels_are_refused_with_value_and_bound() -> None:
    with pytest.raises(ImageTooLarge, match="1000 x 101 = 101000 pixels; the limit is 100000"):
        decode(saved(Image.new("L", (1000, 101)), "PNG"), LIMITS)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    # The header promises more than memory holds, and no pixel follows.
    with pytest.raises(ImageTooLarge):
        decode(png_header(60_000, 60_000), InputLimits())
    with pytest.raises(ImageTooLarge, match="the limit is 178956970"):
        decode(png_header(60_000, 60_000), InputLimits(max_image_pixels=10**12))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(
    "content",
    [
        b"text",
        b"\0" * 1000,
        b"%PDF-1.7",
        b"<svg/>",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"P6 1 1 255 abc",
    ],
)
def test_other_bytes_are_no_picture(content: bytes) -> None:
    with pytest.raises(ImageUndecodable):
        decode(content, LIMITS)


def test_formats_beyond_the_list_are_refused() -> None:
    for file_format in ("PPM", "ICO", "TGA"):
        with pytest.raises(ImageUndecodable):
            decode(saved(NOISE, file_format), LIMITS)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_lie_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 0, 255))
    content = saved(clear.convert(mode) if mode != "PA" else clear, "PNG")
    image = decode(content, LIMITS)
    assert image.getpixel((0, 0)) == (0, 0, 0)
    assert image.getpixel((3, 3)) == (255, 255, 255)


def test_half_transparent_pixels_mix_with_white() -> None:
    content = saved(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG")
    assert decode(content, LIMITS).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_transparent_palette_colour_lies_on_white(file_format: str) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putpixel((0, 0), 1)
    decoded = decode(saved(image, file_format, transparency=0), LIMITS)
    assert decoded.getpixel((0, 0)) == (200, 0, 0)
    assert decoded.getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", [each for each in FORMATS if each not in ("GIF", "BMP")])
def test_exif_orientation_is_applied(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = saved(NOISE, file_format, exif=exif.tobytes(), **options)
    with Image.open(io.BytesIO(content)) as reference:
        expected = np.asarray(ImageOps.exif_transpose(reference).convert("RGB"))
    actual = np.asarray(decode(content, LIMITS))
    np.testing.assert_array_equal(actual, expected)
    assert actual.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))


def test_exif_that_cannot_be_read_is_ignored() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = decode(saved(NOISE, "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\xff" + b"\xff" * 50), LIMITS)
    assert image.size == (64, 48)


def test_a_transparent_shade_of_sixteen_bit_grey_lies_on_white() -> None:
    grey = Image.fromarray(np.array([[0, 0x7FFF], [0x80FF, 0x8000]], np.uint16))
    content = saved(grey, "PNG", transparency=0x8000)
    np.testing.assert_array_equal(np.asarray(decode(content, LIMITS))[..., 0], [[0, 127], [128, 255]])


def test_large_transparent_pictures_are_laid_on_white_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(Image.fromarray(RNG.integers(0, 256, (37, 20, 4), dtype=np.uint8)), "PNG")
    whole = np.asarray(decode(content, LIMITS))
    monkeypatch.setattr(misread, "_STRIP_PIXELS", 100)
    np.testing.assert_array_equal(np.asarray(decode(content, LIMITS)), whole)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    grey = Image.fromarray(np.array([[0, 0x7FFF], [0x80FF, 0xFFFF]], np.uint16))
    np.testing.assert_array_equal(np.asarray(decode(saved(grey, "PNG"), LIMITS))[..., 0], [[0, 127], [128, 255]])


@pytest.mark.parametrize(("mode", "white"), [("1", 1), ("L", 255), ("CMYK", (0, 0, 0, 0))])
def test_other_colour_modes_become_rgb(mode: str, white: int | tuple[int, ...]) -> None:
    content = saved(Image.new(mode, (4, 4), white), "TIFF")
    assert decode(content, LIMITS).getpixel((1, 1)) == (255, 255, 255)


def test_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for file_format in {"GIF", "TIFF", "WEBP", "AVIF"} & set(FORMATS):
        content = saved(frames[0], file_format, save_all=True, append_images=frames[1:])
        red, _, blue = np.asarray(decode(content, LIMITS))[4, 4]
        assert red > 200
        assert blue < 60


def test_jpeg_and_png_go_to_a_nim_as_they_are() -> None:
    assert as_nim_image(FILES["JPEG"], LIMITS) == ("image/jpeg", FILES["JPEG"])
    assert as_nim_image(FILES["PNG"], LIMITS) == ("image/png", FILES["PNG"])


def test_a_jpeg_with_a_second_picture_behind_it_is_a_jpeg() -> None:
    content = saved(NOISE, "MPO", save_all=True, append_images=[NOISE])
    assert as_nim_image(content, LIMITS) == ("image/jpeg", content)


@pytest.mark.parametrize("file_format", [each for each in FORMATS if each not in ("JPEG", "PNG")])
def test_other_formats_go_to_a_nim_as_png_with_the_same_pixels(file_format: str) -> None:
    media_type, content = as_nim_image(FILES[file_format], LIMITS)
    assert media_type == "image/png"
    np.testing.assert_array_equal(np.asarray(decode(content, LIMITS)), np.asarray(decode(FILES[file_format], LIMITS)))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF"])
def test_a_picture_cut_short_does_not_go_to_a_nim(file_format: str) -> None:
    content = FILES[file_format]

    with pytest.raises(ImageUndecodable):
        as_nim_image(content[: len(content) * 95 // 100], LIMITS)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((300, 200), (122, 81)), ((100, 100), (100, 100)), ((20_000, 4), (7071, 1)), ((1, 50_000), (1, 10_000))],
)
def test_a_converted_picture_is_scaled_down_to_a_bound_with_its_proportions(
    size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    content = saved(Image.new("RGB", size, (200, 30, 30)), "BMP")
    limits = InputLimits(max_image_bytes=10**6, max_image_pixels=100_000)

    _, converted = as_nim_image(content, limits, max_converted_pixels=10_000)

    image = decode(converted, LIMITS)
    assert image.size == scaled
    assert image.getextrema() == ((200, 200), (30, 30), (30, 30))


def test_jpeg_and_png_are_never_scaled() -> None:
    for file_format in ("JPEG", "PNG"):
        assert as_nim_image(FILES[file_format], LIMITS, max_converted_pixels=100)[1] == FILES[file_format]


def test_far_ends_are_cropped_about_the_centre() -> None:
    assert without_far_ends(Image.new("RGB", (160, 10))).size == (160, 10)
    assert without_far_ends(Image.new("RGB", (1001, 10))).size == (160, 10)
    assert without_far_ends(Image.new("RGB", (3, 1001))).size == (3, 48)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    file_format=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    end=st.floats(0, 1),
    near_header=st.booleans(),
)
def test_hostile_bytes_give_a_picture_or_an_input_error(
    file_format: str, edits: list[tuple[float, int]], end: float, *, near_header: bool
) -> None:
    content = bytearray(FILES[file_format])
    for place, value in edits:
        content[int(place * (min(200, len(content)) if near_header else len(content)))] = value
    if end < 0.5:
        del content[int(2 * end * len(content)) :]
    try:
        image = decode(bytes(content), LIMITS)
    except InputRejected:
        return
    assert image.mode == "RGB"
    assert image.width * image.height <= LIMITS.max_image_pixels
