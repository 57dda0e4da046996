"""Inputs that somebody might send to break the service, the same ones in every run."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from embedders.images.decoding import FORMATS

EXTREMES = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
POLYGLOTS = (
    b"%PDF-1.7\n",
    b"PK\3\4",
    b"<html><script>",
    b"MZ",
    b"\x7fELF",
    b"\x1f\x8b\x08",
    b"#!/bin/sh\n",
    b"\xef\xbb\xbf",
)


def hostile_images(count: int, seed: int = 5) -> list[bytes]:
    """Return hand-made files, and mutations of sound ones up to `count`, no two of them equal."""
    rng = random.Random(seed)
    sound = sound_images()
    files = dict.fromkeys([*hand_made_images(sound), *sound.values()])
    while len(files) < count:
        files[_mutated(rng, list(sound.values()))] = None
    return list(files)


def sound_images() -> dict[str, bytes]:
    """Return files of every format and of unusual forms of it, which can all be read."""
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (30, 40, 4), dtype=np.uint8))
    rgb = noise.convert("RGB")
    others = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "white")]
    exif = Image.Exif()
    exif[0x0112] = 6
    forms: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (rgb, "JPEG", {"exif": exif, "icc_profile": b"profile" * 40}),
        "progressive": (rgb, "JPEG", {"progressive": True}),
        "cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "grey": (rgb.convert("L"), "JPEG", {}),
        "mpo": (rgb, "MPO", {"save_all": True, "append_images": others}),
        "png": (rgb, "PNG", {"exif": exif}),
        "png-alpha": (noise, "PNG", {}),
        "png-palette": (rgb.quantize(16), "PNG", {"transparency": bytes(range(16))}),
        "png-16": (Image.fromarray(rng.integers(0, 65536, (30, 40), dtype=np.uint16)), "PNG", {"transparency": 7}),
        "png-1": (rgb.convert("1"), "PNG", {}),
        "apng": (rgb, "PNG", {"save_all": True, "append_images": others}),
        "webp": (rgb, "WEBP", {}),
        "webp-lossless": (noise, "WEBP", {"lossless": True, "exif": exif.tobytes()}),
        "webp-animated": (rgb, "WEBP", {"save_all": True, "append_images": others}),
        "gif": (rgb.quantize(32), "GIF", {"transparency": 3}),
        "gif-animated": (rgb, "GIF", {"save_all": True, "append_images": others, "disposal": 2}),
        "bmp": (rgb, "BMP", {}),
        "bmp-8": (rgb.quantize(200), "BMP", {}),
        "tiff": (rgb, "TIFF", {}),
        "tiff-lzw": (noise, "TIFF", {"compression": "tiff_lzw"}),
        "tiff-jpeg": (rgb, "TIFF", {"compression": "jpeg"}),
        "tiff-deflate": (rgb, "TIFF", {"compression": "tiff_adobe_deflate", "save_all": True, "append_images": others}),
        "tiff-fax": (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff-float": (rgb.convert("F"), "TIFF", {}),
        "tiff-float-packed": (rgb.convert("F"), "TIFF", {"compression": "tiff_lzw"}),
        "tiff-int": (rgb.convert("I"), "TIFF", {}),
        "tiff-16": (Image.fromarray(rng.integers(0, 65536, (30, 40), dtype=np.uint16)), "TIFF", {}),
        "one": (Image.new("RGB", (1, 1)), "PNG", {}),
        "row": (Image.new("RGB", (5000, 1)), "PNG", {}),
        "column": (Image.new("L", (1, 5000)), "JPEG", {}),
    }
    if "AVIF" in FORMATS:
        forms["avif"] = (noise, "AVIF", {"speed": 10})
        forms["avif-animated"] = (rgb, "AVIF", {"speed": 10, "save_all": True, "append_images": others})
    return {name: _without_times(_saved(*form)) for name, form in forms.items()}


def hand_made_images(sound: dict[str, bytes]) -> list[bytes]:
    """Return files that lie about their size, unfold to more than they hold, or lead in circles."""
    png, jpeg, gif, bmp, tiff = (sound[name] for name in ("png", "progressive", "gif", "bmp", "tiff"))
    last_scan = jpeg.rindex(b"\xff\xda")
    colour = _chunk(b"tRNS", b"\0\1\0\2\0\3")
    frame = gif.index(b",", 13 + 3 * 32) + 1
    files = [
        b"",
        b"\0",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"RIFF\xff\xff\xff\xffWEBPVP8X",
        b"\0\0\0\x1cftypavif" + bytes(40),
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"http://169.254.169.254/latest/meta-data",
        b"push graphic-context\nimage over 0,0 0,0 'ephemeral:/etc/passwd'",
        b"data:image/png;base64,iVBORw0KGgo=",
        jpeg[:-2] + jpeg[last_scan:-2] * 20_000 + jpeg[-2:],
        jpeg[:-2] + jpeg[last_scan:-2] * 20_000,
        jpeg[:-2] + jpeg[last_scan:-2] * 50,
        jpeg[:-2],
        jpeg[:-2] + bytes(100_000),
        jpeg[:-2] + b"\xff\xd0\xff\xd3" * 50_000,
        jpeg[:-2] + b"\xff" * 200_000,
        jpeg[:2] + b"\xff\xc2\0\xff\0" + bytes(252) * 3000 + jpeg[2:-2],
        png[:33] + colour + png[33:],
        png[:24] + b"\x10" + png[25:33] + colour + png[33:],
        png[:33] + _chunk(b"tRNS", b"") + png[33:],
        png[:33] + _chunk(b"tRNS", b"\xff" * 90_000) + png[33:],
        png[:-12],
        png[:33] + png[33:-12] * 300 + png[-12:],
        jpeg[:2] + b"\xff\xe1\0\x0aExif\0\0II" * 5000 + jpeg[2:],
        jpeg[:2] + b"\xff" * 90_000 + jpeg[2:],
        gif[:frame] + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + gif[frame + 8 :],
        gif[:frame] + struct.pack("<HHHH", 60_000, 60_000, 40, 30) + gif[frame + 8 :],
        gif[:-1] + b",\0\0\0\0\1\0\1\0\0\2\2L\1\0" * 3000 + b";",
        bmp[:18] + struct.pack("<ii", 40, -(2**31)) + bmp[26:],
        bmp[:30] + struct.pack("<I", 1) + bmp[34:],
        tiff[:4] + struct.pack("<I", 4) + tiff[8:],
        tiff[:-4] + struct.pack("<I", 8),
        b"II*\0\x08\0\0\0" + b"".join(struct.pack("<HI", 0, 14 + 6 * page) for page in range(5000)),
        b"MM\0+\0\x08\0\0" + b"\xff" * 64,
    ]
    for width, height in ((0, 0), (0, 10), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (65_535, 65_535), (30_000, 1)):
        files.append(_png_with(png, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        start = jpeg.index(b"\xff\xc2") + 5
        files.append(jpeg[:start] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + jpeg[start + 4 :])
    bomb = zlib.compress(bytes(5_000_000))
    for name, body in ((b"iCCP", b"p\0\0"), (b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")):
        files += [png[:33] + _chunk(name, body + bomb) * times + png[33:] for times in (1, 100)]
    files.append(_png_with(png, b"IDAT", bomb))
    if "avif" in sound:
        avif = _saved(Image.new("RGB", (2000, 2000)), "AVIF", {"speed": 10})
        size = avif.index(b"ispe") + 8
        files += [
            avif[:size] + struct.pack(">II", *lie) + avif[size + 8 :] for lie in ((16, 16), (0, 9), (2**31, 2**31))
        ]
    for start in POLYGLOTS:
        files += [start + png, png + start * 50, jpeg[:-2] + start + jpeg[-2:]]
    return files


def hostile_texts(count: int, seed: int = 5) -> list[str]:
    """Return hand-made texts, and mixtures of their parts up to `count`, no two of them equal."""
    rng = random.Random(seed)
    parts = [*HAND_MADE_TEXTS, *(chr(rng.randrange(0x110000)) for _ in range(200))]
    texts = dict.fromkeys(
        [
            *HAND_MADE_TEXTS,
            f"&#{'9' * 5000};",
            "ab" * 16_000,
            "a" * 2**20,
            "word " * 2**18,
            "\0" * 2**20,
            "&amp;" * 2**18,
        ]
    )
    while len(texts) < count:
        chosen = rng.choices(parts, k=rng.randint(1, 6))
        texts[rng.choice(("", " ", "\n", "\u200b")).join(chosen)[: rng.choice((10, 100, 1000))]] = None
    return list(texts)


HAND_MADE_TEXTS: list[str] = [
    *("", " ", "\t\r\n", "\u3000" * 50, "\u00a0", "&nbsp;", "\u200b", "\ufeff", "\u2028", "\x0b\x0c\x1c\x85"),
    *("\0", "a\0b", "\0" * 300, "".join(map(chr, range(32))), "\x7f\x80\x9f", "\x1b[31mred\x1b[0m", "\b" * 100),
    *("\ud800", "\udfff\ud800", "a\udc80b", "\ud83d", "\uffff\ufffe", "\U0010ffff", "\ufffd" * 40),
    *(
        "\ufeffcat",
        "cat\ufeff",
        "\u202ecat\u202c",
        "\u2066a\u2069",
        "قطة على حصيرة",
        "חתול",
        "\u200f" * 30,
        "ab\u05d0" * 30,
    ),
    *(
        "e" + "\u0301" * 500,
        "Z\u0351\u036b\u0343" * 60,
        "\u0e49" * 200,
        "\u1160" * 100,
        "ﷺ" * 60,
        "ﬁﬀ",
        "\uff41\uff42\uff43",
        "ǅ",
        "İ",
        "ß" * 90,
    ),
    *(
        "👩\u200d👩\u200d👧\u200d👦" * 20,
        "🏳\ufe0f\u200d🌈",
        "🇩🇪" * 50,
        "👍🏽" * 40,
        "\U000e0067\U000e007f",
        "\ufe0f" * 100,
        "😂" * 200,
    ),
    *(
        "a" * 1000,
        "ab" * 500,
        "x" * 1999,
        "é" * 900,
        "supercalifragilistic" * 40,
        "!" * 1500,
        "?!" * 600,
        "1234567890" * 90,
    ),
    *(
        "&lt;b&gt;",
        "&amp;amp;amp;lt;",
        "&#0;",
        "&#x0;",
        "&#xD800;",
        "&#1114112;",
        "&#x110000;",
        "&#128512;",
        "&#",
        "&#x",
        "&" * 900,
    ),
    *(
        f"&#{'9' * 1900};",
        f"&#x{'f' * 1500};",
        "&notit;",
        "&AMP",
        "&CounterClockwiseContourIntegral;" * 20,
        "&amp" * 400,
    ),
    *("Ã©Ã¨Ã¢", "â€œquotedâ€\x9d", "Ã\x83Â©" * 90, "voilÃ\xa0", "\u00c3\u00a9" * 300, "ÐºÐ¾Ñ", "\x80\x99"),
    *(
        "<start_of_text>",
        "<end_of_text>",
        "<END_OF_TEXT> a",
        "a<end_of_text>b" * 30,
        "</w>",
        "a</w>b</w>",
        "'s't're've'm'll'd" * 20,
    ),
    *(
        "data:image/png;base64,AAAA",
        "data:image",
        "data:text/html,<script>",
        "http://169.254.169.254/",
        "file:///etc/passwd",
    ),
    *(
        "%s%n%x" * 50,
        "{0}{__class__}",
        "${jndi:ldap://x}",
        "'; DROP TABLE x; --",
        '{"input": ["a"]}',
        "\\ud800",
        "\\x00",
        "../" * 90,
    ),
]


def _mutated(rng: random.Random, sound: list[bytes]) -> bytes:
    content = bytearray(rng.choice(sound))
    for _ in range(rng.randint(1, 3)):
        rng.choice(MUTATIONS)(rng, content, sound)
    return bytes(content) or b"\0"


def _cut(rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    del content[rng.randrange(1, len(content) + 1) :]


def _flip(rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    for _each in range(rng.randint(1, 20)):
        content[_place(rng, content)] ^= 1 << rng.randrange(8)


def _fill(rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    start, length = _place(rng, content), rng.randint(1, 30)
    content[start : start + length] = rng.choice((b"\0", b"\xff", b"\x80", rng.randbytes(1))) * length


def _repeat(rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    start, length = _place(rng, content), rng.randint(1, 200)
    content[start:start] = content[start : start + length] * rng.randint(1, 50)


def _leave_out(rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    start = _place(rng, content)
    del content[start : start + rng.randint(1, 40)]
    content += b"\0" if not content else b""


def _splice(rng: random.Random, content: bytearray, sound: list[bytes]) -> None:
    other = rng.choice(sound)
    content[rng.randrange(len(content)) :] = other[rng.randrange(len(other)) :] or b"\0"


def _set_number(rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    start, form = _place(rng, content), rng.choice(("<H", ">H", "<I", ">I"))
    packed = struct.pack(form, rng.choice(EXTREMES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    content[start : start + len(packed)] = packed


def _disguise(rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    content[0:0] = rng.choice(POLYGLOTS)


def _mend_sums(_rng: random.Random, content: bytearray, _: list[bytes]) -> None:
    """Make the checksums of a PNG right again, so that what was changed is believed."""
    position = 8
    while content[:4] == b"\x89PNG" and position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            return
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[position + 4 : end]))
        position = end + 4


MUTATIONS: tuple[Callable[[random.Random, bytearray, list[bytes]], None], ...] = (
    *(_cut, _flip, _fill, _repeat, _leave_out, _splice, _set_number, _set_number, _disguise, _mend_sums),
)


def _place(rng: random.Random, content: bytearray) -> int:
    """Return a place in a file, half of the times in its header."""
    return rng.randrange(min(len(content), 160) if rng.random() < 0.5 else len(content))


def _without_times(content: bytes) -> bytes:
    """Take out when an AVIF animation was made, which would make each run another one."""
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        if content[4:8] == b"ftyp" and box in content:
            start = content.index(box) + 8
            content = content[:start] + bytes(16) + content[start + 16 :]
    return content


def _saved(image: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    # Copies, because Pillow keeps the options of one format for the next.
    frames = {key: [each.copy() for each in value] for key, value in options.items() if key == "append_images"}
    image.copy().save(file, file_format, **{**options, **frames})
    return file.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png_with(png: bytes, name: bytes, body: bytes) -> bytes:
    """Replace the body of a PNG's first chunk of a name."""
    start = png.index(name) - 4
    (length,) = struct.unpack_from(">I", png, start)
    return png[:start] + _chunk(name, body) + png[start + 12 + length :]
