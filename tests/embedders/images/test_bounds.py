"""Files that are small and cost much are refused from their bytes, before anything is decoded."""

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import ImageTooLarge, ImageUndecodable, InputRejected
from embedders.images import decoding as images
from embedders.images.decoding import FORMATS, decode

LIMITS = InputLimits(max_image_pixels=100_000, max_image_frames=5)


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def animated(file_format: str, frames: int) -> bytes:
    pictures = [Image.new("RGB", (8, 8), (number * 5 % 256, 90, 200)) for number in range(frames)]
    return saved(pictures[0], file_format, save_all=True, append_images=pictures[1:])


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes) -> bytes:
    plain = saved(Image.new("L", (8, 8)), "PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def jpeg(*segments: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    plain = saved(Image.new("L", size), "JPEG", progressive=True)
    return plain[:2] + b"".join(segments) + plain[2:]


def scans(content: bytes, count: int) -> bytes:
    """Repeat the last scan of a JPEG."""
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + content[-2:]


def tiff(entries: list[tuple[int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """Return a TIFF of one grey frame of 64 x 64 pixels; `entries` are tag, type and value, and 324 is the data."""
    base = [(256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    where = 8 + 2 + 12 * len(base + entries) + 4
    rows = sorted((tag, kind, where if tag == 324 else value) for tag, kind, value in base + entries)
    packed = [struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in rows]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(rows)) + b"".join(packed) + struct.pack("<I", following) + data


@pytest.mark.parametrize(
    "size", [(8160, 6144), (8192, 6144), (6144, 8192), (8688, 5792), (8256, 6192), (8272, 6200)], ids=str
)
def test_a_picture_of_a_50_megapixel_camera_is_within_the_default_bound(size: tuple[int, int]) -> None:
    image = decode(saved(Image.new("L", size, 90), "JPEG"), InputLimits(), draft_side=224)

    assert image.getpixel((5, 5)) == (90, 90, 90)


@pytest.mark.parametrize("file_format", sorted({"GIF", "TIFF", "WEBP", "PNG", "AVIF"} & set(FORMATS)))
def test_more_frames_than_allowed_are_refused_with_count_bound_and_fix(file_format: str) -> None:
    assert decode(animated(file_format, 5), LIMITS).size == (8, 8)
    with pytest.raises(ImageTooLarge, match="6 frames; the limit is 5; send the first one alone"):
        decode(animated(file_format, 6), LIMITS)


@pytest.mark.parametrize("file_format", ["GIF", "TIFF"])
def test_frames_are_counted_though_the_file_ends_in_the_midst_of_one(file_format: str) -> None:
    with pytest.raises(ImageTooLarge, match="frames"):
        decode(animated(file_format, 9)[:-4], LIMITS)


def test_the_pages_of_a_big_tiff_count() -> None:
    page = struct.pack("<Q", 0)
    pages = b"".join(page + struct.pack("<Q", 16 + 16 * (number + 1)) for number in range(8))
    with pytest.raises(ImageTooLarge, match="8 frames; the limit is 5"):
        decode(b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + pages, LIMITS)


def test_a_tiff_whose_pages_lead_in_a_circle_is_read() -> None:
    data = zlib.compress(bytes(64 * 64))
    content = tiff([(278, 4, 64), (273, 4, 0), (279, 4, len(data))], following=8)
    content = content.replace(struct.pack("<HHII", 273, 4, 1, 0), struct.pack("<HHII", 273, 4, 1, len(content))) + data
    assert decode(content, LIMITS).getpixel((3, 3)) == (0, 0, 0)


def test_a_tiff_of_endless_pages_is_counted_to_a_bound_only() -> None:
    pages = b"".join(struct.pack("<HI", 0, 8 + 6 * (number + 1)) for number in range(200_000))
    with pytest.raises(ImageTooLarge, match="more than 100000 frames"):
        decode(b"II*\0\x08\0\0\0" + pages, LIMITS)


def test_a_gif_frame_larger_than_its_screen_counts_as_large_as_it_is() -> None:
    content = saved(Image.new("P", (8, 8)), "GIF")
    descriptor = content.index(b",") + 1
    content = content[:descriptor] + struct.pack("<HHHH", 0, 0, 60_000, 2_000) + content[descriptor + 8 :]
    with pytest.raises(ImageTooLarge, match="60000 x 2000 = 120000000 pixels"):
        decode(content, LIMITS)


def test_a_webp_canvas_counts_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    content = animated("WEBP", 2)
    size = content.index(b"VP8X") + 12
    content = content[:size] + struct.pack("<I", 16_000)[:3] * 2 + content[size + 6 :]
    monkeypatch.setattr(images.Image, "open", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(ImageTooLarge, match="16001 x 16001"):
        decode(content, LIMITS)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    # At 16 megapixels each of these scans costs 10 ms for 33 bytes: 20 MiB of them would keep a core for hours.
    plain = jpeg(size=(256, 256))
    assert decode(scans(plain, 20), LIMITS).size == (256, 256)
    with pytest.raises(ImageTooLarge, match="the JPEG has 40 scans; the limit for its size is 30; save it again"):
        decode(scans(plain, 34), LIMITS)


def test_scans_are_counted_though_the_file_ends_in_the_midst_of_a_segment() -> None:
    with pytest.raises(ImageTooLarge, match="scans"):
        decode(scans(jpeg(size=(256, 256)), 300)[:-2] + b"\xff\xe0", LIMITS)


def test_the_scans_of_a_thumbnail_and_of_a_second_picture_do_not_count() -> None:
    other = scans(jpeg(size=(256, 256)), 20)
    behind = jpeg(size=(256, 256)) + other * 3
    inside = jpeg(b"\xff\xe1" + struct.pack(">H", len(other) + 2) + other, size=(256, 256))
    for content in (behind, inside):
        assert decode(content, LIMITS).size == (256, 256)


def test_a_jpeg_with_restart_markers_everywhere_is_no_file_of_many_parts() -> None:
    content = saved(Image.new("RGB", (512, 512), "red"), "JPEG", restart_marker_blocks=1)
    assert content.count(b"\xff\xd3") > 100
    assert decode(content, InputLimits()).size == (512, 512)


def test_a_png_text_that_unfolds_is_not_unfolded() -> None:
    content = png(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000))))

    assert decode(content, LIMITS).size == (8, 8)
    assert b"zTXt" not in images.as_nim_image(content, LIMITS)[1]


def test_a_tiff_with_a_tile_larger_than_allowed_is_refused() -> None:
    entries = [(322, 4, 400), (323, 4, 400), (324, 4, 0), (325, 4, 200)]
    with pytest.raises(ImageTooLarge, match="tiles of 400 x 400 pixels; the limit is 100000 pixels"):
        decode(tiff(entries, zlib.compress(bytes(400 * 400))), LIMITS)
    data = zlib.compress(bytes(64 * 64))
    small = tiff([(322, 4, 64), (323, 4, 64), (324, 4, 0), (325, 4, len(data))], data)
    assert decode(small, LIMITS).size == (64, 64)


def test_a_tiff_whose_tile_has_no_whole_size_is_broken() -> None:
    with pytest.raises(ImageUndecodable):
        decode(tiff([(322, 11, 0x42800000), (323, 4, 64), (324, 4, 0), (325, 4, 100)], bytes(100)), LIMITS)


def test_a_fax_of_very_many_lines_is_refused() -> None:
    assert decode(saved(Image.new("1", (2, 20_000), 1), "TIFF", compression="group4"), LIMITS).size == (2, 20_000)
    with pytest.raises(ImageTooLarge, match="20001 lines; the limit is 20000"):
        decode(saved(Image.new("1", (2, 20_001), 1), "TIFF", compression="group4"), LIMITS)


def test_a_run_length_coded_bmp_is_read_when_small_and_refused_when_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\x08\x01\0\0" * 8 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(data), 0, 0, 256, 0) + b"\0\0\0\0\xff\xff\xff\0" * 128
    content = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(data), 0, 0, 14 + len(header)) + header + data
    assert decode(content, LIMITS).getpixel((3, 3)) == (255, 255, 255)
    monkeypatch.setattr(images, "_MAX_RUN_LENGTH_CODED", 1000)
    with pytest.raises(ImageTooLarge, match=r"run-length coded BMP has 11\d\d bytes or pixels; the limit is 1000"):
        decode(content, LIMITS)


@pytest.mark.parametrize(
    "start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0+", b"RIFF0000WEBP"]
)
@pytest.mark.parametrize("rest", [b"", b"\xff" * 2_000_000, b"\0" * 2_000_000, b"\x01" * 2_000_000])
def test_bytes_behind_a_magic_number_cost_little(start: bytes, rest: bytes) -> None:
    with pytest.raises(InputRejected):
        decode(start + rest, LIMITS)
