"""Pages that a command writes: one file of HTML that loads nothing and runs nothing, whatever is in a name."""

import io
from base64 import standard_b64encode
from html import escape

from service.cli.thumbnails import scaled_picture
from service.process.printable import printable

THEME = """
:root {
  color-scheme: light dark;
  --ink: light-dark(#222, #e8ebe9); --quiet: light-dark(#595959, #a3ada7); --line: light-dark(#999, #77828a);
  --sunken: light-dark(#f0f1ef, #101315); --warn: light-dark(#b45309, #f0c060);
  --warn-soft: light-dark(#fff6ec, #352b14); --right: light-dark(#2a2, #5d5); --plot: light-dark(#4477a5, #7fb0dd);
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; color: var(--ink); }
body { background: light-dark(#fff, #14171a); }
"""
"""Colours of both themes, one of which the browser chooses."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def escaped(text: str) -> str:
    """Return a text as it may stand in HTML, also between double quotes."""
    return escape(printable(text))


def page_start(title: str, style: str) -> str:
    """Return a page's beginning, to its heading.

    Args:
        title: in words, also the heading.
        style: CSS, which may use the colours of THEME.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escaped(title)}</title>\n<style>{THEME}{style}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escaped(title)}</h1>\n"
    )


PAGE_END = "</main>\n</body>\n</html>\n"


def data_url(content: bytes, side: int) -> str:
    """Return a picture as a small JPEG in a URL; empty if it cannot be decoded within bounds.

    Args:
        content: an encoded picture.
        side: pixels of its longer side at most.
    """
    picture = scaled_picture(content, (side, side))
    if picture is None:
        return ""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{standard_b64encode(file.getvalue()).decode()}"
