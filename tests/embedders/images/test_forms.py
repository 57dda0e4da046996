"""Whatever form a PNG, JPEG, WebP, AVIF, GIF or BMP has, what is decoded is what a browser shows, or it is refused."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from embedders.contract import InputLimits
from embedders.errors import ImageUndecodable
from embedders.images.decoding import FORMATS, as_nim_image, decode
from tests.fakes.drawing import ALPHA, GREY, PALETTE, RGB, difference, on_white
from tests.fakes.pngs import png

DRAWN = Image.fromarray(RGB)
RGBA = np.concatenate([RGB, ALPHA[..., None]], axis=2)
# Without edges, which lossy coding blurs.
SMOOTH = Image.merge(
    "RGB",
    [
        Image.fromarray(np.tile(np.linspace(start, end, 48), (40, 1)).astype(np.uint8))
        for start, end in ((40, 160), (200, 90), (70, 120))
    ],
)


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_pngs_of_every_depth_lay_their_transparent_shade_on_white(depth: int, *, interlaced: bool) -> None:
    highest = (1 << depth) - 1
    samples = np.round(GREY / 255 * highest).astype(int)
    shown = np.round(samples / highest * 255)

    assert difference(png(samples, colour_type=0, depth=depth, interlaced=interlaced), shown) <= 1
    for clear in {0, 1, highest, int(samples[9, 9]), int(samples[20, 30])}:
        content = png(samples, colour_type=0, depth=depth, interlaced=interlaced, transparent=struct.pack(">H", clear))
        assert difference(content, np.where(samples == clear, 255, shown)) <= 1


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_colour_pngs_lay_exactly_their_transparent_colour_on_white(depth: int, *, interlaced: bool) -> None:
    samples = RGB.astype(int) * (257 if depth == 16 else 1)
    samples[10:20] = clear = samples[9, 9]
    # Others by their last bit alone, which 8 bits of 16 do not show.
    samples[10:20, ::2, 1] ^= 1
    shown = samples >> (depth - 8)
    is_clear = (samples == clear).all(axis=-1)[..., None]
    how: dict[str, Any] = {"colour_type": 2, "depth": depth, "interlaced": interlaced}

    assert difference(png(samples, **how), shown) == 0
    content = png(samples, **how, transparent=struct.pack(">HHH", *clear))
    assert difference(content, np.where(is_clear, 255, shown)) == 0
    other = png(samples, **how, transparent=struct.pack(">HHH", *(clear ^ 1)))
    assert difference(other, np.where((samples == clear ^ 1).all(axis=-1)[..., None], 255, shown)) == 0


def test_bits_that_a_png_does_not_have_do_not_count_in_its_transparent_colour() -> None:
    clear = struct.pack(">HHH", *(RGB[9, 9].astype(int) + 512))
    shown = np.where((RGB[9, 9] == RGB).all(axis=-1)[..., None], 255, RGB)

    assert difference(png(RGB, colour_type=2, depth=8, transparent=clear), shown) == 0
    samples = GREY >> 4
    content = png(samples, colour_type=0, depth=4, transparent=struct.pack(">H", 0x103))
    assert difference(content, np.where(samples == 3, 255, samples * 17)) == 0


def test_a_large_png_s_transparent_colour_is_laid_on_white_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedders.images.misread._STRIP_PIXELS", 100)
    samples = RGB.astype(int) * 257
    samples[10:20] = clear = samples[9, 9]
    content = png(samples, colour_type=2, depth=16, transparent=struct.pack(">HHH", *clear))

    assert difference(content, np.where((samples == clear).all(axis=-1)[..., None], 255, samples >> 8)) <= 1


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_pngs_with_alpha_lie_on_white(depth: int, *, interlaced: bool) -> None:
    scale = 257 if depth == 16 else 1
    grey = png(np.stack([GREY, ALPHA], axis=-1).astype(int) * scale, colour_type=4, depth=depth, interlaced=interlaced)
    colour = png(RGBA.astype(int) * scale, colour_type=6, depth=depth, interlaced=interlaced)

    assert difference(grey, on_white(GREY, ALPHA)) <= 1
    assert difference(colour, on_white(RGB, ALPHA)) <= 1


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_every_depth_lie_on_white(depth: int, *, interlaced: bool) -> None:
    samples = GREY >> (8 - depth)
    colours = PALETTE[: 1 << depth]
    alphas = np.random.default_rng(3).integers(0, 256, len(colours))
    how: dict[str, Any] = {
        "colour_type": 3,
        "depth": depth,
        "interlaced": interlaced,
        "palette": colours.ravel().tolist(),
    }

    assert difference(png(samples, **how), colours[samples]) == 0
    content = png(samples, **how, transparent=bytes(alphas.tolist()))
    assert difference(content, on_white(colours[samples], alphas[samples])) <= 1
    for start in (b"\0", b"\xff", b"\x80"):
        first = np.where(samples == 0, start[0], 255)
        content = png(samples, **how, transparent=start)
        assert difference(content, on_white(colours[samples], first)) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 2},
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"keep_rgb": True, "subsampling": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_of_every_coding_show_their_colours(mode: str, options: dict[str, Any]) -> None:
    drawn = SMOOTH.convert(mode)
    options = {key: value for key, value in options.items() if key != "keep_rgb" or mode == "RGB"}

    assert difference(saved(drawn, "JPEG", quality=95, **options), drawn.convert("RGB")) <= 6


def test_jpegs_for_print_show_their_colours_whatever_adobe_s_marker_says() -> None:
    drawn = Image.new("CMYK", (32, 32), (20, 90, 200, 30))
    content = saved(drawn, "JPEG", quality=100, subsampling=0)
    marker = content.index(b"\xff\xee")
    unmarked = content[:marker] + content[marker + 16 :]
    assert difference(content, drawn.convert("RGB")) <= 2
    assert difference(unmarked, drawn.convert("RGB")) <= 2

    # Luma and chroma of the inks, and black inverted, as Photoshop writes them; Pillow inverts all when it saves.
    bands = Image.new("RGB", (32, 32), (20, 90, 200)).convert("YCbCr").split()
    inverted = [each.point(lambda value: 255 - value) for each in bands]
    ycck = Image.merge("CMYK", [*inverted, Image.new("L", (32, 32), 30)])
    content = bytearray(saved(ycck, "JPEG", quality=100, subsampling=0))
    content[content.index(b"Adobe") + 11] = 2
    assert difference(bytes(content), drawn.convert("RGB")) <= 3


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (4, 12, "12 bits a sample, and only 8 are supported"),
        (4, 16, "16 bits a sample"),
        (9, 2, "2 components, and only 1, 3 or 4"),
        (9, 5, "5 components"),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_of_other_samples_are_refused_by_name(place: int, value: int, words: str, *, progressive: bool) -> None:
    content = bytearray(saved(DRAWN, "JPEG", progressive=progressive))
    content[content.index(b"\xff\xc2" if progressive else b"\xff\xc0") + place] = value

    with pytest.raises(ImageUndecodable, match=f"the JPEG has {words}"):
        decode(bytes(content), InputLimits())


@pytest.mark.parametrize("file_format", sorted({"WEBP", "AVIF"} & set(FORMATS)))
@pytest.mark.parametrize("frames", [1, 3])
def test_alpha_of_webp_and_avif_lies_on_white(file_format: str, frames: int) -> None:
    alpha = np.full((40, 48), 255, np.uint8)
    alpha[:, :16], alpha[:, 16:32] = 0, 128
    drawn = SMOOTH.copy()
    drawn.putalpha(Image.fromarray(alpha))
    others = [Image.new("RGBA", drawn.size, "red")] * (frames - 1)
    content = saved(drawn, file_format, save_all=frames > 1, append_images=others, quality=100)

    assert difference(content, on_white(np.asarray(SMOOTH), alpha)) <= 8


def lzw(indexes: Any) -> bytes:
    """Code indexes below four with codes of three bits: the table is cleared before it outgrows them."""
    codes = [code for at, each in enumerate(indexes) for code in ((4, each) if at % 2 == 0 else (each,))] + [5]
    packed = sum(code << 3 * at for at, code in enumerate(codes))
    data = packed.to_bytes((3 * len(codes) + 7) // 8, "little")
    return b"\2" + b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))


def gif(box: tuple[int, int, int, int], *, clear: int | None = None, background: int = 0, local: bool = False) -> bytes:
    """Return a GIF of 8 x 8 with a frame of the second of its colours, which are red, green, blue and black."""
    colours = bytes((255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0))
    own = bytes((9, 9, 9)) * 2 + bytes((20, 60, 90)) * 2
    control = b"" if clear is None else b"!\xf9\4\1\0\0" + bytes([clear]) + b"\0"
    screen = struct.pack("<HHBBB", 8, 8, 0x81, background, 0) + colours
    frame = b"," + struct.pack("<HHHHB", *box, 0x81 if local else 0) + (own if local else b"")
    return b"GIF89a" + screen + control + frame + lzw([1] * (box[2] * box[3])) + b"\0;"


@pytest.mark.parametrize("background", [0, 2])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 8, 8), (1, 2, 4, 3), (0, 0, 8, 3), (5, 0, 3, 8)])
@pytest.mark.parametrize("clear", [None, 0, 1, 3])
def test_what_a_gif_s_first_frame_leaves_free_is_white(
    box: tuple[int, int, int, int], clear: int | None, background: int, *, local: bool
) -> None:
    left, top, width, height = box
    shown = np.full((8, 8, 3), 255)
    if clear != 1:
        shown[top : top + height, left : left + width] = (9, 9, 9) if local else (0, 255, 0)

    assert difference(gif(box, clear=clear, background=background, local=local), shown) == 0


def bmp(bits: int, data: bytes, *, colours: bytes = b"", compression: int = 0, masks: bytes = b"") -> bytes:
    """Return a BMP of 8 x 2 pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, 8, 2, 1, bits, compression, len(data), 0, 0, len(colours) // 4, 0)
    start = 14 + len(header) + len(masks) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + masks + colours + data


GREYS = b"".join(bytes([each] * 3 + [0]) for each in range(256))
BLACK_AND_WHITE = b"\0\0\0\0\xff\xff\xff\0"
SHADES = np.array([[0, 1, 1, 0, 1, 0, 0, 1]] * 2)
BYTES = bytes([0, 1, 1, 0, 1, 0, 0, 1] * 2)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        pytest.param(bmp(8, bytes(range(8)) * 2, colours=GREYS), [list(range(8))] * 2, id="greys"),
        pytest.param(bmp(1, b"\x69\0\0\0" * 2, colours=BLACK_AND_WHITE), SHADES * 255, id="1 bit"),
        pytest.param(
            bmp(4, b"\1\x10\x10\1" * 2, colours=b"\5\5\5\0\7\7\7\0"), SHADES * 2 + 5, id="4 bits, two colours"
        ),
        pytest.param(bmp(8, BYTES, colours=b"\5\5\5\0\7\7\7\0"), SHADES * 2 + 5, id="8 bits, two colours"),
        pytest.param(bmp(8, BYTES, colours=BLACK_AND_WHITE), None, id="8 bits, black and white"),
        pytest.param(bmp(4, b"\1\x10\x10\1" * 2, colours=BLACK_AND_WHITE), None, id="4 bits, black and white"),
        pytest.param(bmp(4, b"\1\x10\x10\1" * 2, colours=GREYS[:64]), None, id="4 bits, greys"),
        pytest.param(bmp(2, b"\x1b\x1b\0\0" * 2, colours=GREYS[:16]), None, id="2 bits"),
        pytest.param(bmp(16, bytes(32), compression=3, masks=struct.pack("<III", 0xF00, 0xF0, 0xF)), None, id="masks"),
        pytest.param(bmp(24, b"\xff\xd8\xff", compression=4), None, id="a JPEG inside"),
    ],
)
def test_a_bmp_shows_its_colours_or_is_refused_by_name(content: bytes, shown: Any) -> None:
    if shown is not None:
        assert difference(content, np.array(shown)) == 0
        return
    try:
        decode(content, InputLimits())
    except ImageUndecodable as error:
        assert "the BMP has" in str(error)
        assert "a form that is not supported; save it as PNG" in str(error)
    else:
        pytest.fail("was read")


def xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
    ) % orientation


@pytest.mark.parametrize("file_format", [each for each in FORMATS if each not in ("GIF", "BMP")])
@pytest.mark.parametrize("exif_says", [None, 1, 6])
def test_only_exif_turns_a_picture_as_in_browsers(file_format: str, exif_says: int | None) -> None:
    exif = Image.Exif()
    if exif_says:
        exif[0x0112] = exif_says
    options: dict[str, Any] = {"exif": exif} if exif_says else {}
    if file_format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp(8).decode())
        options["pnginfo"] = info
    elif file_format == "TIFF":
        exif[700] = xmp(8)
        options = {"tiffinfo": exif}
    else:
        options["xmp"] = xmp(8)
    content = saved(SMOOTH, file_format, **options)
    assert b"tiff:Orientation" in content

    decoded = decode(content, InputLimits())

    turned = SMOOTH.transpose(Image.Transpose.ROTATE_270) if exif_says == 6 else SMOOTH
    assert decoded.size == turned.size
    assert np.abs(np.asarray(decoded).astype(int) - np.asarray(turned)).max() <= 8


def test_the_profile_of_a_text_chunk_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n8\n" + exif.tobytes().hex(), zip=True)

    assert decode(saved(SMOOTH, "PNG", pnginfo=info), InputLimits()).size == SMOOTH.size


@pytest.mark.parametrize("key", ["transparency", "exif", "bbox", "default_image", "interlace", "xmp"])
def test_a_text_named_like_something_of_pillow_s_changes_nothing(key: str) -> None:
    info = PngInfo()
    info.add_text(key, "1, 2, 3, 4")

    assert difference(saved(DRAWN, "PNG", pnginfo=info), RGB) == 0


HEIF = b"\0\0\0\x1cftyp%b\0\0\0\0%b"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEIF % (b"heic", b"mif1heic"), "the file is HEIC, which is not supported; convert it to JPEG or PNG"),
        (HEIF % (b"heix", b"mif1heix"), "the file is HEIC"),
        (HEIF % (b"hevc", b"msf1hevc"), "the file is HEIC"),
        (HEIF % (b"mif1", b"heicmiaf"), "the file is HEIC"),
        (HEIF % (b"msf1", b"miafheis"), "the file is HEIC"),
        (b"\xff\x0a\xfa\x7f", "the file is JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "the file is JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "the file is JPEG 2000"),
        (b"8BPS\0\1", "the file is Photoshop"),
        (b"%PDF-1.7", "the file is PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the file is SVG"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI\x50\0\x20\2", r"form of Apple's devices \(CgBI\)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "broken or cut short"),
        (b"a text", "not a picture in JPEG, PNG, WebP, GIF, BMP, TIFF"),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(content: bytes, words: str) -> None:
    for read in (decode, as_nim_image):
        with pytest.raises(ImageUndecodable, match=words):
            read(content + bytes(100), InputLimits())
