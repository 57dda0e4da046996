"""A TIFF of whatever form shows what a careful viewer shows, or is refused by name."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import ImageUndecodable
from embedders.images.decoding import decode
from tests.fakes.drawing import ALPHA, GREY, PALETTE, RGB, difference, on_white
from tests.fakes.tiffs import tiff

SAVE = "a form that is not supported; save it as PNG"
BAND = ALPHA[..., None]


class Form(NamedTuple):
    """Samples as they are written, with how, and what they show."""

    samples: NDArray[Any]
    shown: NDArray[Any]
    how: dict[str, Any]


def grey_of(bits: int) -> NDArray[Any]:
    kind = next(each for each in (np.uint8, np.uint16, np.uint32, np.uint64) if np.dtype(each).itemsize * 8 >= bits)
    return np.round(GREY.astype(np.longdouble) / 255 * (2**bits - 1)).astype(kind)


def shown_of(bits: int) -> NDArray[Any]:
    return np.round(grey_of(bits).astype(float) / (2**bits - 1) * 255)


def colour_map(entries: int, scale: int = 257) -> tuple[int, int, list[int]]:
    return 320, 3, [int(each) * scale for each in PALETTE[:entries].T.ravel()]


def wide(samples: NDArray[Any]) -> NDArray[Any]:
    return samples.astype(np.uint16) * 257


SIGNED = GREY.astype(int) - 128
CMYK = np.concatenate([255 - RGB, np.full_like(BAND, 30)], axis=2)
PRINTED = np.round(RGB * (225 / 255))
RGBA = np.concatenate([RGB, BAND], axis=2)
FIVE = np.concatenate([RGBA, BAND], axis=2)
PREMULTIPLIED = np.concatenate([np.round(RGB * (BAND / 255)).astype(np.uint8), BAND], axis=2)
GREY_ALPHA = np.stack([GREY, ALPHA], axis=2)
GREY_PREMULTIPLIED = np.stack([np.round(GREY * (ALPHA / 255)).astype(np.uint8), ALPHA], axis=2)

READ = {
    **{f"grey {bits}": Form(grey_of(bits), shown_of(bits), {"photometric": 1, "bits": bits}) for bits in (1, 2, 4)},
    **{
        f"white 0 {bits}": Form(grey_of(bits), 255 - shown_of(bits), {"photometric": 0, "bits": bits})
        for bits in (1, 2, 4)
    },
    **{f"grey {bits}": Form(grey_of(bits), shown_of(bits), {"photometric": 1}) for bits in (8, 16, 32)},
    **{f"white 0 {bits}": Form(grey_of(bits), 255 - GREY, {"photometric": 0}) for bits in (8, 16)},
    "grey 12": Form(grey_of(12), GREY, {"photometric": 1, "bits": 12}),
    "grey 16 dark": Form(grey_of(16) // 16, GREY / 16, {"photometric": 1}),
    **{
        f"signed {bits}": Form((SIGNED << (bits - 8)).astype(f"i{bits // 8}"), GREY, {"photometric": 1})
        for bits in (8, 16, 32)
    },
    "signed 16 in a narrow range": Form((GREY.astype(np.int16) - 300), GREY, {"photometric": 1}),
    "signed 32 in a narrow range": Form((GREY.astype(np.int32) * 3 + 10**9), GREY, {"photometric": 1}),
    "unsigned 32 in a narrow range": Form((GREY.astype(np.uint32) + 4_000_000_000), GREY, {"photometric": 1}),
    "float of 1": Form((GREY / 255).astype(np.float32), GREY, {"photometric": 1}),
    "float of anything": Form((GREY * 1e6 - 9e7).astype(np.float32), GREY, {"photometric": 1}),
    "float of next to nothing": Form((GREY * 1e-30).astype(np.float32), GREY, {"photometric": 1}),
    "float of all": Form(((GREY / 255.0 - 0.5) * 6e38).astype(np.float32), GREY, {"photometric": 1}),
    "float, white 0": Form((GREY / 255).astype(np.float32), 255 - GREY, {"photometric": 0}),
    "float of one value": Form(np.full((37, 45), 7, np.float32), np.zeros((37, 45)), {"photometric": 1}),
    "RGB 8": Form(RGB, RGB, {"photometric": 2}),
    "RGB 16": Form(wide(RGB), RGB, {"photometric": 2}),
    "alpha": Form(RGBA, on_white(RGB, ALPHA), {"photometric": 2, "extra": [2]}),
    "alpha 16": Form(wide(RGBA), on_white(RGB, ALPHA), {"photometric": 2, "extra": [2]}),
    "alpha that nothing tells of": Form(RGBA, on_white(RGB, ALPHA), {"photometric": 2}),
    "associated alpha": Form(PREMULTIPLIED, on_white(RGB, ALPHA), {"photometric": 2, "extra": [1]}),
    "associated alpha 16": Form(wide(PREMULTIPLIED), on_white(RGB, ALPHA), {"photometric": 2, "extra": [1]}),
    "a fourth band": Form(RGBA, RGB, {"photometric": 2, "extra": [0]}),
    "five bands": Form(FIVE, RGB, {"photometric": 2, "extra": [0, 0]}),
    "alpha and a band": Form(FIVE, on_white(RGB, ALPHA), {"photometric": 2, "extra": [2, 0]}),
    "grey alpha": Form(GREY_ALPHA, on_white(GREY, ALPHA), {"photometric": 1, "extra": [2]}),
    "grey associated alpha": Form(GREY_PREMULTIPLIED, on_white(GREY, ALPHA), {"photometric": 1, "extra": [1]}),
    "grey and a band": Form(GREY_ALPHA, GREY, {"photometric": 1, "extra": [0]}),
    "CMYK": Form(CMYK, PRINTED, {"photometric": 5}),
    "CMYK 16": Form(wide(CMYK), PRINTED, {"photometric": 5}),
    "palette of bytes": Form(GREY, PALETTE[GREY], {"photometric": 3, "tags": [colour_map(256, scale=1)]}),
    "palette alpha": Form(
        GREY_ALPHA, on_white(PALETTE[GREY], ALPHA), {"photometric": 3, "extra": [2], "tags": [colour_map(256)]}
    ),
    **{
        f"palette {bits}": Form(
            GREY >> (8 - bits),
            PALETTE[GREY >> (8 - bits)],
            {"photometric": 3, "bits": bits, "tags": [colour_map(1 << bits)]},
        )
        for bits in (1, 2, 4, 8)
    },
    "YCbCr": Form(
        np.asarray(Image.fromarray(RGB).convert("YCbCr")), RGB, {"photometric": 6, "tags": [(530, 3, [1, 1])]}
    ),
}  # fmt: skip

NOT_READ = {
    **{f"grey {bits}": Form(grey_of(bits), GREY, {"photometric": 1, "bits": bits}) for bits in (10, 14, 24, 64)},
    **{f"white 0 {bits}": Form(grey_of(bits), GREY, {"photometric": 0, "bits": bits}) for bits in (10, 12, 14, 24, 32)},
    **{f"{kind}": Form(GREY.astype(kind), GREY, {"photometric": 1}) for kind in ("i8", "f2", "f8", "c8")},
    **{f"white 0 {kind}": Form((GREY // 2).astype(kind), GREY, {"photometric": 0}) for kind in ("i1", "i2", "i4")},
    **{f"RGB {kind}": Form(RGB.astype(kind), RGB, {"photometric": 2}) for kind in ("u4", "i2", "i4", "f2", "f4", "f8")},
    **{f"RGB {bits}": Form(wide(RGB) >> (16 - bits), RGB, {"photometric": 2, "bits": bits}) for bits in (4, 10, 12)},
    "grey alpha 16": Form(wide(GREY_ALPHA), GREY, {"photometric": 1, "extra": [2]}),
    "grey alpha, white 0": Form(GREY_ALPHA, GREY, {"photometric": 0, "extra": [2]}),
    "five grey bands": Form(FIVE, GREY, {"photometric": 1, "extra": [0, 0, 0, 0]}),
    "five bands that nothing tells of": Form(FIVE, RGB, {"photometric": 2}),
    "a band and alpha": Form(FIVE, RGB, {"photometric": 2, "extra": [0, 2]}),
    "RGB of two": Form(GREY_ALPHA, RGB, {"photometric": 2}),
    "CMYK alpha": Form(np.concatenate([CMYK, BAND], axis=2), PRINTED, {"photometric": 5, "extra": [2]}),
    "inks": Form(CMYK, PRINTED, {"photometric": 5, "tags": [(332, 3, [2])]}),
    "palette 16": Form(wide(GREY), RGB, {"photometric": 3, "tags": [colour_map(256)]}),
    "palette without one": Form(GREY, RGB, {"photometric": 3}),
    "mask": Form(grey_of(1), GREY, {"photometric": 4, "bits": 1}),
    "YCbCr, subsampled": Form(RGB, RGB, {"photometric": 6, "tags": [(530, 3, [2, 2])]}),
    "YCbCr, subsampled without a word": Form(RGB, RGB, {"photometric": 6}),
    **{str(number): Form(RGB, RGB, {"photometric": number}) for number in (8, 9, 10, 32803, 32845, 34892, 7)},
}  # fmt: skip


def ways(form: Form) -> Iterator[dict[str, Any]]:
    """Yield ways to write a form, the most usual one first."""
    coarse = form.how.get("bits", 8) % 8
    predictors = (
        [1] if coarse or form.samples.dtype.kind == "c" else [1, 3] if form.samples.dtype.kind == "f" else [1, 2]
    )
    for separate in (False, True) if form.samples.ndim == 3 else (False,):
        for fill_order in (1, 2):
            for big_endian in (False, True):
                for tiled in (False, True):
                    for compression, predictor in ((1, 1), (32773, 1), *((8, each) for each in predictors)):
                        yield {
                            "separate": separate,
                            "fill_order": fill_order,
                            "big_endian": big_endian,
                            "tiled": tiled,
                            "compression": compression,
                            "predictor": predictor,
                        }


@pytest.mark.parametrize("name", READ)
def test_a_form_that_is_read_shows_its_pixels_in_whatever_way_it_is_written_or_is_refused_by_name(name: str) -> None:
    form = READ[name]
    for way in ways(form):
        content = tiff(form.samples, **form.how, **way)
        usual = not (way["separate"] or way["big_endian"] or way["fill_order"] == 2)
        try:
            assert difference(content, form.shown) <= 3, way
        except ImageUndecodable as error:
            assert SAVE in str(error), way
            assert not usual, way


@pytest.mark.parametrize("name", NOT_READ)
def test_a_form_that_is_not_read_is_refused_by_name(name: str) -> None:
    form = NOT_READ[name]
    for way in ways(form):
        with pytest.raises(ImageUndecodable, match=SAVE):
            decode(tiff(form.samples, **form.how, **way), InputLimits())


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (READ["RGB 8"]._replace(samples=RGB.astype(np.float32)), "3 floating-point samples of 32 bits a pixel as RGB"),
        (NOT_READ["five bands that nothing tells of"], "5 samples of 8 bits a pixel as RGB"),
        (NOT_READ["grey 64"], "1 sample of 64 bits a pixel as grey"),
        (NOT_READ["white 0 i2"], "1 signed sample of 16 bits a pixel as grey whose 0 is white"),
        (NOT_READ["8"], "3 samples of 8 bits a pixel as CIELAB"),
        (NOT_READ["7"], "3 samples of 8 bits a pixel as 7"),
    ],
)
def test_the_refusal_says_which_form_it_is(form: Form, words: str) -> None:
    with pytest.raises(ImageUndecodable, match=f"the TIFF has {words}, {SAVE}"):
        decode(tiff(form.samples, **form.how), InputLimits())


def test_the_refusal_names_a_compression_that_is_not_known() -> None:
    content = tiff(RGB, photometric=2, compression=34712)

    with pytest.raises(ImageUndecodable, match=f"3 samples of 8 bits a pixel as RGB, in compression 34712, {SAVE}"):
        decode(content, InputLimits())


def test_a_tiff_that_does_not_say_what_its_samples_mean_is_refused() -> None:
    content = tiff(GREY, photometric=1).replace(b"\x06\x01\x03\0", b"\x07\x01\x03\0")

    with pytest.raises(ImageUndecodable, match="does not say what they mean"):
        decode(content, InputLimits())


def test_what_is_no_number_is_black_and_does_not_count() -> None:
    values = (GREY * 100.0).astype(np.float32)
    values[3, :4] = np.nan, np.inf, -np.inf, -9999
    shown = GREY.copy()
    shown[3, :4] = 0, 255, 0, 0

    content = tiff(values, photometric=1, tags=[(42113, 2, list(b"-9999\0"))])

    assert difference(content, shown) <= 1
    nothing = tiff(np.full_like(values, np.nan), photometric=1)
    assert difference(nothing, np.zeros_like(GREY)) == 0


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "CMYK", "F", "I;16"])
def test_what_pillow_writes_is_read(mode: str, compression: str, tmp_path: Any) -> None:
    drawn = Image.fromarray(wide(GREY)) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    drawn.save(tmp_path / "x.tif", compression=compression)
    shown = GREY if mode == "I;16" else np.asarray(drawn.convert("RGB"))
    if mode == "F":
        low, high = drawn.getextrema()
        shown = (np.asarray(drawn) - low) / (high - low) * 255

    assert difference((tmp_path / "x.tif").read_bytes(), shown) <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_in_a_tiff_is_read(mode: str, tmp_path: Any) -> None:
    drawn = Image.new(mode, (64, 48), {"RGB": (200, 40, 90), "L": 77, "CMYK": (20, 90, 200, 30)}[mode])
    drawn.save(tmp_path / "x.tif", compression="jpeg")

    assert difference((tmp_path / "x.tif").read_bytes(), drawn.convert("RGB")) <= 4
