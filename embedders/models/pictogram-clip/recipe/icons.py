"""Icons of everyday packs: further drawings of the concepts, and of things that no emoji shows, with their names."""

import json
import re
from pathlib import Path

import numpy as np
from concepts import Concept
from numpy.typing import NDArray
from pictures import render
from sources import folder_of

PACKS = (
    "icon-park", "game-icons", "ph", "tabler", "mdi", "flat-color-icons",
    "streamline-ultimate-color", "streamline-freehand-color", "streamline-kameleon-color", "streamline-plump-color",
)  # fmt: skip
# Ends of names that say how an icon is drawn or numbered, not what it shows.
ENDINGS = re.compile(r"( (\d+|one|two|three|four|alternate|variant|outline|filled|fill|duotone|flat|duo))+$")
LEFT_OUT = re.compile(r"-(thin|light|bold)$")  # Phosphor's other strokes.
# Words of signs upon another icon, of brands and of interfaces: what they show is not what their names say.
SIGNS = frozenset({
    "abstract", "account", "add", "align", "alignment", "alpha", "android", "app", "apple", "arrow", "arrows",
    "badge", "border", "box", "brand", "browser", "cancel", "check", "chevron", "circle", "code", "cog", "corner",
    "currency", "cursor", "data", "delete", "device", "dots", "down", "edit", "file", "files", "folder", "format",
    "git", "github", "google", "grid", "help", "inbox", "info", "instagram", "layer", "layers", "layout", "left",
    "letter", "line", "lines", "list", "logo", "math", "message", "microsoft", "minus", "network", "number",
    "numeric", "off", "office", "ok", "page", "paginate", "pin", "plus", "question", "remove", "right", "rotate",
    "search", "select", "selection", "server", "settings", "share", "shipment", "sort", "square", "star", "step",
    "subtract", "sync", "task", "text", "transfer", "triangle", "up", "upload", "user", "view", "wifi", "window",
    "windows", "x", "xbox", "zodiac", "zoom",
})  # fmt: skip


def load_icons(
    cache: Path, concepts: list[Concept], unseen: set[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return the packs' icons, drawn at the first call.

    An icon whose name is a concept's name, or its first keyword, shows that concept. Others show things of their own.

    Args:
        cache: where packages lie, and what is made is kept.
        concepts: all concepts.
        unseen: words to measure with; no icon whose name holds one is taken.

    Returns:
        Pictures, uint8 of shape (n, SIZE, SIZE, 4), RGBA; what each shows, int64 of shape (n,): an index of concepts
        or, from len(concepts) on, of things; the things' names.
    """
    file = cache / "icons.npz"
    if not file.exists():
        known = {name.lower(): i for i, c in reversed(list(enumerate(concepts))) for name in c.keywords[:1]}
        known |= {concept.name.lower(): index for index, concept in enumerate(concepts)}
        found = [
            (render(body), known.get(name, name))
            for pack in PACKS
            for name, body in _drawings(folder_of(cache, f"@iconify-json/{pack}"))
            if name in known or _says_what_it_shows(name, unseen)
        ]
        things = sorted({what for _, what in found if isinstance(what, str)})
        place = {name: len(concepts) + number for number, name in enumerate(things)}
        shown = [place[what] if isinstance(what, str) else what for _, what in found]
        np.savez(file, pictures=np.stack([rgba for rgba, _ in found]), shown=np.array(shown), things=np.array(things))
    arrays = np.load(file)
    return arrays["pictures"], arrays["shown"], [str(name) for name in arrays["things"]]


def _drawings(folder: Path) -> list[tuple[str, str]]:
    """Return the names, as words, and the drawings, as SVG, of a pack."""
    pack = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    drawings = []
    for key, icon in pack["icons"].items():
        if LEFT_OUT.search(key) or icon.get("hidden"):
            continue
        box = f"0 0 {icon.get('width', pack.get('width', 16))} {icon.get('height', pack.get('height', 16))}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
        drawings.append((ENDINGS.sub("", key.replace("-", " ")), svg))
    return drawings


def _says_what_it_shows(name: str, unseen: set[str]) -> bool:
    words = name.split()
    return (
        len(words) <= 3
        and all(re.fullmatch("[a-z]{2,}", word) for word in words)
        and SIGNS.isdisjoint(words)
        and unseen.isdisjoint(words)
    )
