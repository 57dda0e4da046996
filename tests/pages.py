"""The project's pages in Markdown, and what tests check of them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?:<!-- snippet: (\w+) -->\n)?^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the page's path below the root.
        name: what a comment above the block names it; empty where there is none.
        language: as the fence says.
        code: its lines, not indented.
    """

    page: str
    name: str
    language: str
    code: str


def pages() -> list[Path]:
    """Return the path of every page that is part of the repository."""
    names = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in names.stdout.split("\0") if name and (ROOT / name).exists()]


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks, in order."""
    name = str(page.relative_to(ROOT))
    return [
        Block(name, found[1] or "", found[3], re.sub(rf"^{found[2]}", "", found[4], flags=re.MULTILINE))
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def prose(page: Path) -> str:
    """Return a page's text without its fenced blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))
