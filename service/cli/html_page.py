"""Pages that a command writes: one file of HTML that loads nothing and runs nothing, whatever is in a name."""

import io
from base64 import standard_b64encode
from html import escape

from service.cli.thumbnails import scaled_picture
from service.process.printable import printable

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def escaped(text: str) -> str:
    """Return a text as it may stand in HTML, also between double quotes."""
    return escape(printable(text))


def page_start(title: str, style: str) -> str:
    """Return a page's beginning, to its heading.

    Args:
        title: in words, also the heading.
        style: CSS.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{escaped(title)}</h1>\n"
    )


PAGE_END = "</body>\n</html>\n"


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
