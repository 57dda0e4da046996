"""Which pictures take long to read is told by their first bytes."""

import io

import pytest
from PIL import Image

from embedders.images.decoding import FORMATS
from embedders.images.structure import is_large

FORMS = [
    ("PNG", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"quality": 10}),
    ("WEBP", {"quality": 10, "exif": b"Exif\0\0II*\0"}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"exif": b"Exif\0\0" + bytes(60_000)}),
]


def drawn(size: tuple[int, int], file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (9, 200, 30)).save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize(("file_format", "options"), FORMS)
def test_a_size_is_told_from_every_format_that_has_it_in_front(file_format: str, options: dict[str, object]) -> None:
    side = 4001 if file_format == "JPEG" else 2001
    content = drawn((side, side), file_format, **options)
    smaller = drawn((side - 2, side - 2), file_format, **options)

    assert is_large(content)
    assert is_large(content[:70_000])
    assert not is_large(smaller)


@pytest.mark.parametrize("file_format", sorted({"TIFF", "AVIF"} & set(FORMATS)))
def test_formats_that_do_not_tell_count_as_large(file_format: str) -> None:
    assert is_large(drawn((20, 20), file_format))


@pytest.mark.parametrize("content", [b"", b"BM", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF0000WEBPVP8 ", b"no picture"])
def test_what_is_no_picture_does_not_count_as_large(content: bytes) -> None:
    assert not is_large(content)
