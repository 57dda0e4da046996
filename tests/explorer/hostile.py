"""Texts and files that a careless page would run, or that would break its layout."""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

from tests.fakes.embedder import picture

RUN = "globalThis.ran = true; alert(1)"
"""What must not run; `ran` tells."""

TEXTS: Mapping[str, str] = {
    "script": f"<script>{RUN}</script>",
    "handler": f'<img src=x onerror="{RUN}">',
    "attribute": f"\"' onfocus='{RUN}' autofocus x=\"",
    "svg": f'"><svg onload="{RUN}">',
    "frame": f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    "style": "</style><style>*{display:none!important}</style><base href=//203.0.113.1/>",
    "link": f"javascript:{RUN}",
    "data": f"data:text/html,<script>{RUN}</script>",
    "template": "{{constructor.constructor('alert(1)')()}} ${alert(1)}",
    "right to left": "\u202egnp.tac\u202c \u2067שלום\u2069 \u061cمرحبا\u200f",  # noqa: RUF001
    "marks": "Z" + "\u0335\u0322\u0347\u0489" * 200,
    "lines": "a\r\nb\u2028c\u2029d\te\u0000f".replace("\u0000", "\ufffd"),
    "word": "W" * 5_000,
    "megabyte": "<b>long</b> " * 87_382,
}
"""By what is bad about them."""

PROPERTY = "p" * 200
"""The name of a property, without a place to break."""


def _png_with(html: str) -> bytes:
    """Return a picture with HTML where a comment stands."""
    content = picture()
    body = b"tEXt" + b"Comment\0" + html.encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = content.rindex(b"IEND") - 4
    return content[:end] + chunk + content[end:]


_SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script><image href="http://203.0.113.1/"/></svg>'

FILES: Mapping[str, bytes] = {
    "svg file": _SVG.encode(),
    "gif and script": b"GIF89a/*" + b"\0" * 20 + f"*/=1;{RUN};//".encode(),
    "page in png": _png_with(f"<html><script>{RUN}</script>"),
    "page": f"<!doctype html><script>{RUN}</script>".encode(),
    "nothing": b"\0",
}
"""Files in place of pictures, by what they are."""


def objects() -> list[dict[str, Any]]:
    """Return the properties of an object for each text, and of one for each file."""
    return [{"title": name, "note": text, "path": text[:2_000]} for name, text in TEXTS.items()] + [
        {"title": name, "note": name, "path": f"{name}.png"} for name in FILES
    ]
