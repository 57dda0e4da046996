"""Files that are made to keep a decoder busy are read or refused within its bounds, and cost nobody else anything."""

import io
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from functools import cache

import pytest
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import ImageTooLarge, InputRejected
from embedders.images.decoders import Decoders
from embedders.images.decoding import FORMATS
from tests.embedders.images.test_bounds import animated, chunk, jpeg, png, saved

LIMITS = InputLimits()
SIZE = 20_000_000
HAS_AVIF = pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow was built without libavif")


def filled(part: bytes) -> bytes:
    return part * (SIZE // len(part))


@cache
def gif() -> tuple[bytes, bytes]:
    """Return a GIF's head, and its frame."""
    content = saved(Image.new("P", (8, 8)), "GIF")
    start = content.index(b",")
    return content[:start], content[start:-1]


def lying_avif(side: int) -> bytes:
    """Return an AVIF that says that it is small."""
    content = saved(Image.new("RGB", (side, side)), "AVIF", speed=10)
    lie = content.replace(struct.pack(">II", side, side), struct.pack(">II", 16, 16))
    assert lie != content
    return lie


# Without bounds, these would keep a core for seconds to hours.
BOMBS: dict[str, Callable[[], bytes]] = {
    "empty JPEG segments": lambda: jpeg(filled(b"\xff\xe5\0\2")),
    "EXIF in pieces": lambda: jpeg(filled(b"\xff\xe1\0\x08Exif\0\0")),
    "tables of a JPEG": lambda: jpeg(filled(b"\xff\xdb\0\x43\0" + bytes([1] * 64))),
    "empty PNG chunks": lambda: png(filled(chunk(b"abCd", b""))),
    "empty PNG pixel chunks": lambda: png(filled(chunk(b"IDAT", b""))),
    "PNG palettes": lambda: png(filled(chunk(b"PLTE", bytes(3)))),
    "GIF comment of bytes": lambda: b"GIF89a\x08\0\x08\0\0\0\0!\xfe" + filled(b"\1a") + b"\0",
    "GIF comments": lambda: gif()[0] + filled(b"!\xfe\1a\0") + gif()[1],
    "empty WebP chunks": lambda: b"RIFF\0\0\0\0WEBP" + filled(b"ABCD\0\0\0\0"),
    "empty WebP frames": lambda: animated("WEBP", 2) + filled(b"ANMF\0\0\0\0"),
}
READ: dict[str, Callable[[], bytes]] = {
    "padding of a JPEG": lambda: jpeg(b"\xff\xe5\0\2" + b"\xff" * 300_000),
    "junk in a JPEG": lambda: jpeg(b"\xff\xe5\0\2" + b"\0" * 300_000),
    "zipped PNG profiles": lambda: png(*[chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000)))] * 100),
    "zipped PNG texts": lambda: png(*[chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"\xff" * 1_000_000))] * 100),
}


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    made = Decoders(1)
    yield made
    await made.close()


async def read(decoders: Decoders, content: bytes) -> tuple[int, int]:
    """Return the size of the picture that a NIM would get."""
    _, sent = await decoders.nim_image(content[: LIMITS.max_image_bytes], LIMITS)
    with Image.open(io.BytesIO(sent)) as image:
        return image.size


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
async def test_a_file_of_very_many_parts_is_refused_by_name(decoders: Decoders, make: Callable[[], bytes]) -> None:
    with pytest.raises(ImageTooLarge, match=r"takes too long: more than 1 s of CPU time, .* save it again"):
        await read(decoders, make())

    assert await read(decoders, png()) == (8, 8)


@pytest.mark.parametrize("make", READ.values(), ids=READ)
async def test_what_no_pixel_depends_on_does_no_harm(decoders: Decoders, make: Callable[[], bytes]) -> None:
    assert max(await read(decoders, make())) == 8


@HAS_AVIF
@pytest.mark.parametrize("side", [400, 6000])
async def test_an_avif_whose_frame_is_larger_than_it_says_does_no_harm(decoders: Decoders, side: int) -> None:
    try:
        assert await read(decoders, lying_avif(side)) == (16, 16)
    except InputRejected as error:
        assert "save it again" in str(error) or "broken" in str(error)

    assert await read(decoders, png()) == (8, 8)


@HAS_AVIF
@pytest.mark.parametrize("fault", ["item-type", "offset", "items", "extents", "nested"])
async def test_an_avif_that_leads_its_reader_astray_does_no_harm(decoders: Decoders, fault: str) -> None:
    content = bytearray(saved(Image.new("RGB", (40, 30)), "AVIF", speed=10))
    locations = content.index(b"iloc") + 4
    if fault == "item-type":
        content[content.index(b"av01") : content.index(b"av01") + 4] = b"grid"
    elif fault == "offset":
        content[locations + 14 : locations + 18] = struct.pack(">I", len(content) - 3)
    elif fault == "items":
        content[locations + 6 : locations + 8] = b"\xff\xff"
    elif fault == "extents":
        content[locations + 12 : locations + 14] = b"\xff\xff"
    else:
        content += (struct.pack(">I", 4000) + b"moov") * 500_000
    try:
        assert await read(decoders, bytes(content)) == (40, 30)
    except InputRejected as error:
        assert "send the whole file" in str(error)
