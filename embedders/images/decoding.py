"""Pictures: bounds read from the header, decoding, and the forms that backends take.

Decoding is the same for each backend, and gives what a browser shows: the first frame, upright by its EXIF orientation,
transparent pixels on white, shades scaled to 8 bits. Unreadable metadata is ignored; pixels that cannot be read, or
would be read wrongly, are an error. Bytes, parts, frames and pixels are bounded before anything is decoded, and
decoding holds at most two pictures beside the decoder's own memory.
"""

import hashlib
import io
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import BmpImagePlugin, ExifTags, GifImagePlugin, Image, TiffImagePlugin, features

from embedders.contract import InputLimits
from embedders.errors import ImageEmpty, ImageTooLarge, ImageUndecodable
from embedders.images import budget
from embedders.images.formats import SUFFIXES
from embedders.images.misread import (
    check_form,
    lay_colour_on_white,
    lay_on_white,
    mend_reading,
    samples_of,
    strips,
    to_eight_bits,
    unread_form,
)
from embedders.images.structure import (
    BROKEN,
    END_OF_JPEG,
    MAX_PIXELS,
    check_frames,
    check_pixels,
    check_structure,
    jpeg_endings,
    plain_copy,
)

FORMATS = tuple(each for each in SUFFIXES if each != "AVIF" or features.check("avif"))
"""Supported formats. Pillow built without libavif does not read AVIF."""

_LONGEST = 16
"""Ratio of the sides above which the ends of a picture are cropped."""

_MAX_RUN_LENGTH_CODED = 4_000_000
"""Bytes, and pixels, of a BMP with run-length coding, which is used for small drawings."""

_RUN_LENGTH_CODED_COST = 20
"""How many times as long as other pictures of its size it takes."""

_FAX = frozenset({"tiff_ccitt", "group3", "group4", "tiff_raw_16"})
_MAX_FAX_LINES = 20_000
"""Lines of a fax-coded TIFF, enough for a scan of A3 at 1,200 dots per inch."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NIM_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}
_NAMES = ["WebP" if each == "WEBP" else each for each in FORMATS]
_UNDECODABLE = (
    f"the bytes are not a picture in {', '.join(_NAMES[:-1])} or {_NAMES[-1]}; send the whole file of such a picture"
)


def decode(content: bytes, limits: InputLimits, *, draft_side: int | None = None) -> Image.Image:
    """Decode a picture to mode RGB, upright, its transparent pixels laid on white.

    Args:
        content: the file's bytes.
        limits: bounds on bytes, pixels and frames, checked before anything is decoded.
        draft_side: pixels that the shorter side must keep. A JPEG is then decoded at the smallest of 1, 1/2, 1/4 and
            1/8 of its size that keeps them, in half of the time or less and a quarter of the memory or less. None or
            0: every picture is decoded at its full size.

    Raises:
        ImageEmpty: there are no bytes.
        ImageTooLarge: more bytes, pixels, frames or parts than allowed.
        ImageUndecodable: not a picture of a supported format, broken, or cut short.
    """
    plain = _plain(content, limits)
    image = _open(plain, limits)
    if endings := jpeg_endings(plain):
        image = _open(_ended(plain, endings, limits), limits)
    if draft_side:
        _draft(image, draft_side)
    return _load(image, plain)


def as_nim_image(content: bytes, limits: InputLimits, *, max_converted_pixels: int = 0) -> tuple[str, bytes]:
    """Return a picture's media type and bytes in a format that a NIM supports.

    JPEG and PNG files stay as they are if decoding shows that they are complete; others become PNG.

    Args:
        content: the file's bytes.
        limits: bounds on bytes, pixels and frames, checked before anything is decoded.
        max_converted_pixels: a picture that becomes PNG is scaled down to so many pixels; 0 for no bound. A small file
            of another format may grow a hundredfold.

    Raises:
        ImageEmpty: there are no bytes.
        ImageTooLarge: more bytes, pixels, frames or parts than allowed.
        ImageUndecodable: not a picture of a supported format, broken, or cut short.
    """
    plain = _plain(content, limits)
    image = _open(plain, limits)
    endings = jpeg_endings(plain)
    if not endings:
        _draft(image, 1)
    if media_type := _NIM_TYPES.get(str(image.format)):
        if endings:
            return media_type, _ended(plain, endings, limits)
        if _is_sound(content):
            return media_type, content
        with _decoding():
            image.load()
        return media_type, plain
    image = _within(_load(image, plain), max_converted_pixels)
    file = io.BytesIO()
    image.save(file, "PNG", compress_type=zlib.Z_RLE)
    return _NIM_TYPES["PNG"], file.getvalue()


def check_bytes(content: bytes, limits: InputLimits) -> None:
    """Check the number of a file's bytes.

    Raises:
        ImageEmpty: there are none.
        ImageTooLarge: there are more than limits.max_image_bytes.
    """
    if not content:
        raise ImageEmpty("the image has no bytes; send a picture file's content")
    if len(content) > limits.max_image_bytes:
        raise ImageTooLarge(
            f"the image has {len(content)} bytes; the limit is {limits.max_image_bytes}; send a smaller file"
        )


def without_far_ends(image: Image.Image) -> Image.Image:
    """Crop a picture more than 16 times as long as wide to that ratio, about its centre.

    For backends that scale the shorter side to a fixed length and then crop to a square: they drop the ends anyway, but
    would scale them up first.
    """
    width, height = image.size
    longest = _LONGEST * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _plain(content: bytes, limits: InputLimits) -> bytes:
    """Check bounds that need no library, and return the file without data that no pixel depends on."""
    check_bytes(content, limits)
    check_structure(content, limits)
    return plain_copy(content)


def _open(plain: bytes, limits: InputLimits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(plain), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        value = re.search(r"\d+", str(error))
        raise ImageTooLarge(
            f"the image has {value[0] if value else 'too many'} pixels; the limit is "
            f"{min(limits.max_image_pixels, MAX_PIXELS)}; scale it down"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # broken bytes raise any error in Pillow
        raise ImageUndecodable(unread_form(plain) or _UNDECODABLE) from error
    check_pixels(image.width, image.height, limits)
    _check_format(image, len(plain), limits)
    budget.allow(image.width * image.height, len(plain))
    # Pillow takes the orientation from there if EXIF has none; browsers do not.
    image.info.pop("xmp", None)
    if isinstance(image, TiffImagePlugin.TiffImageFile | BmpImagePlugin.BmpImageFile):
        check_form(image, plain)
        mend_reading(image)
    return image


def _ended(plain: bytes, endings: tuple[bytes, bytes], limits: InputLimits) -> bytes:
    """Return a JPEG with its missing end, if nothing else is missing."""
    first, second = (_fingerprint(each, limits) for each in endings)
    if first != second:
        raise ImageUndecodable(BROKEN)
    return plain + END_OF_JPEG


def _fingerprint(content: bytes, limits: InputLimits) -> bytes:
    image = _open(content, limits)
    digest = hashlib.blake2b()
    with _decoding():
        image.load()
        for box in strips(image):
            digest.update(image.crop(box).tobytes())
    return digest.digest()


def _is_sound(content: bytes) -> bool:
    """Return whether a strict reader of the whole JPEG or PNG is likely to accept it."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.verify()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _draft(image, 1)
            image.load()
    except Exception:  # noqa: BLE001 -- broken bytes raise any error in Pillow
        return False
    return True


def _check_format(image: Image.Image, size: int, limits: InputLimits) -> None:
    """Check bounds of single formats that only Pillow's parser knows."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # libtiff writes a line on standard error for each broken line of a fax, and goes on.
        if image.info.get("compression") in _FAX and image.height > _MAX_FAX_LINES:
            raise ImageTooLarge(
                f"the fax-coded TIFF has {image.height} lines; the limit is {_MAX_FAX_LINES}; save it as PNG"
            )
        # A tile is decoded whole, however little of it the picture shows.
        width, height = (image.tag_v2.get(tag, 1) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength))
        if not (isinstance(width, int) and isinstance(height, int)):
            raise ImageUndecodable(BROKEN)
        if width * height > limits.max_image_pixels:
            raise ImageTooLarge(
                f"the TIFF has tiles of {width} x {height} pixels; the limit is {limits.max_image_pixels} pixels; "
                "save it with smaller tiles"
            )
    elif image.format == "AVIF":
        check_frames(getattr(image, "n_frames", 1), limits)
    elif isinstance(image, BmpImagePlugin.BmpImageFile) and image.tile and image.tile[0].codec_name == "bmp_rle":
        # Pillow decodes it in Python, in a microsecond a pixel.
        work = max(size, image.width * image.height)
        budget.allow(_RUN_LENGTH_CODED_COST * work, size)
        if work > _MAX_RUN_LENGTH_CODED:
            raise ImageTooLarge(
                f"the run-length coded BMP has {work} bytes or pixels; the limit is {_MAX_RUN_LENGTH_CODED}; "
                "save it as PNG"
            )


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # broken bytes raise any error in Pillow
        raise ImageUndecodable(BROKEN) from error


def _draft(image: Image.Image, side: int) -> None:
    """Decode a JPEG at a part of its size; an eighth still reads all bytes, in the least time."""
    with _decoding():
        # Other formats than JPEG do nothing, and without a mode the colours stay.
        image.draft(None, (side, side))


def _load(image: Image.Image, plain: bytes) -> Image.Image:
    samples = samples_of(image)
    with _decoding():
        # The picture outside of the frame is blank; Pillow may fill it with anything.
        frame = image.tile[0].extents if isinstance(image, GifImagePlugin.GifImageFile) else None
        image.load()
        lay_colour_on_white(image, plain)
        # Each step holds at most two pictures, its own and the previous one: no name keeps an older one alive.
        image = _upright(image)
        if samples:
            image = to_eight_bits(image, samples)
        image = _to_rgb(image)
        return _cut_out(image, frame) if frame else image


def _within(image: Image.Image, max_pixels: int) -> Image.Image:
    pixels = image.width * image.height
    if not max_pixels or pixels <= max_pixels:
        return image
    scale = math.sqrt(max_pixels / pixels)
    # For a very long line, the rounded-up side would make more pixels than allowed.
    width, height = (min(max(1, int(side * scale)), max_pixels) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 -- broken bytes raise any error in Pillow
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        return lay_on_white(image)
    # Converting to the same mode would copy, which costs as much as decoding for large pictures.
    return image if image.mode == "RGB" else image.convert("RGB")


def _cut_out(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Make everything outside of a box white."""
    left, top, right, bottom = box
    for outside in (
        (0, 0, image.width, top),
        (0, bottom, image.width, image.height),
        (0, top, left, bottom),
        (right, top, image.width, bottom),
    ):
        image.paste("white", outside)
    return image
