"""Pictures of concepts in several drawing styles, decoded once into one array."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import resvg_py
from concepts import Concept, bare, slug, squash
from numpy.typing import NDArray
from PIL import Image
from sources import folder_of

SIZE = 64
STYLES = (
    "noto", "twemoji", "flat", "modern", "high-contrast", "noto-v1", "fxemoji", "streamline", "emojione",
    "emojione-monotone", "openmoji",
)  # fmt: skip
EVALUATION_STYLE = "openmoji"


def load_pictures(
    cache: Path, concepts: list[Concept]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return the pictures of all styles, decoded at the first call.

    Returns:
        Pictures, uint8 of shape (n, SIZE, SIZE, 4), RGBA; each one's concept, int64 of shape (n,), an index; each one's
        style, int64 of shape (n,), an index of STYLES.
    """
    # Files of an earlier list of styles number them in another way.
    file = cache / f"pictures-{len(STYLES)}-styles.npz"
    if not file.exists():
        found = [
            (rgba, index, STYLES.index(style))
            for style in STYLES
            for index, rgba in _pictures_of(cache, style, concepts)
        ]
        pictures, indices, styles = zip(*found, strict=True)
        np.savez(file, pictures=np.stack(pictures), concepts=np.array(indices), styles=np.array(styles))
    arrays = np.load(file)
    return arrays["pictures"], arrays["concepts"], arrays["styles"]


def _pictures_of(cache: Path, style: str, concepts: list[Concept]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    match style:
        case "noto" | "twemoji":
            vendor = {"noto": "google", "twemoji": "twitter"}[style]
            yield from _pngs(folder_of(cache, f"emoji-datasource-{vendor}") / "img" / vendor / "64", concepts)
        case "flat" | "modern" | "high-contrast":
            yield from _fluent(folder_of(cache, "fluentui-emoji") / "icons" / style, concepts)
        case _:
            package = "streamline-emojis" if style == "streamline" else style
            yield from _iconify(folder_of(cache, f"@iconify-json/{package}"), concepts)


def _pngs(folder: Path, concepts: list[Concept]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    files = {bare(file.stem): file for file in folder.glob("*.png")}
    for index, concept in enumerate(concepts):
        if file := files.get(concept.code):
            yield index, _decode(file.read_bytes())


def _fluent(folder: Path, concepts: list[Concept]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for index, concept in enumerate(concepts):
        for name in (slug(concept.name), f"{slug(concept.name)}-default"):
            if (file := folder / f"{name}.svg").exists():
                yield index, render(file.read_text(encoding="utf-8"))
                break


def _iconify(folder: Path, concepts: list[Concept]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    codes = json.loads((folder / "chars.json").read_text(encoding="utf-8"))
    by_code = {bare(code): name for code, name in codes.items()}
    by_name = {squash(name): name for name in icons["icons"]}
    width, height = icons.get("width", 16), icons.get("height", 16)
    for index, concept in enumerate(concepts):
        names = [
            by_code.get(concept.code),
            *(by_name.get(squash(name)) for name in (concept.name, *concept.keywords[:1])),
        ]
        icon = next((icons["icons"][name] for name in names if name in icons["icons"]), None)
        if icon:
            box = f"0 0 {icon.get('width', width)} {icon.get('height', height)}"
            yield index, render(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>')


def render(svg: str) -> NDArray[np.uint8]:
    """Return an SVG drawing as RGBA, uint8 of shape (SIZE, SIZE, 4)."""
    return _decode(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)))


def _decode(content: bytes) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image)
