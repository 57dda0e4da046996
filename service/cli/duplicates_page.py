"""Groups of near-duplicates as a page with their pictures, in one file that loads nothing."""

import io
import time
from base64 import standard_b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path

from service.cli.grouping import Found, Member, Question
from service.cli.output import note
from service.cli.thumbnails import picture_property, scaled_picture
from service.process.printable import printable
from vecgate.client import Client, VecgateError

PICTURES = 1000
"""Pictures on a page; each is a call, and about 5 KB of the file."""

TOTAL_S = 120.0
"""Seconds for reading and decoding them; the others are left out."""

SIDE = 160
"""Pixels of a picture's longer side."""

# Nothing is loaded and nothing runs, whatever is in a name.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1b1b; }
section { border-top: 1px solid #ddd; padding: 0.5rem 0 1rem; }
ul { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0; }
li { width: 10rem; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; background: #f4f4f4; }
code { font-size: 0.8em; color: #555; }
"""


def write_page(client: Client, question: Question, found: Found, file: Path) -> None:
    """Write the page.

    Raises:
        OSError: the file cannot be written.
        VecgateError: a call failed.
    """
    name = question.collection.name
    title = f"Near-duplicates in {name}"
    with file.open("w", encoding="utf-8") as page:
        page.write(
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f"<title>{_shown(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_shown(title)}</h1>\n"
            f"<p>{len(found.groups)} groups among {found.seen} objects, with a cosine of {question.min_cosine:.4f} or "
            f"more in the named vector {_shown(question.vector.name)}.</p>\n"
        )
        pictures = _pictures(client, question, found)
        for number, group in enumerate(found.groups, start=1):
            page.write(f"<section>\n<h2>{number}</h2>\n<ul>\n")
            for member, picture in zip(group, pictures, strict=False):
                page.write(_item(member, picture))
            page.write("</ul>\n</section>\n")
        page.write("</body>\n</html>\n")


def _item(member: Member, picture: bytes) -> str:
    encoded = standard_b64encode(picture).decode()
    image = f'<img alt="" src="data:image/jpeg;base64,{encoded}">' if picture else ""
    return f"<li>{image}{_shown(member.name)}<br>cosine {member.cosine:.4f}<br><code>{_shown(member.id)}</code></li>\n"


def _shown(text: str) -> str:
    return escape(printable(text))


def _pictures(client: Client, question: Question, found: Found) -> Iterator[bytes]:
    """Yield a small JPEG of each member, group by group; nothing where it has none, or after the bounds."""
    property_, end, count = picture_property(question.collection), time.monotonic() + TOTAL_S, 0
    for member in (each for group in found.groups for each in group):
        if property_ is None:
            yield b""
            continue
        if count == PICTURES or (count and time.monotonic() > end):
            note(f"the page has the first {count} pictures")
            property_ = None
            yield b""
            continue
        count += 1
        yield _small(_read(client, question, member.id, property_))


def _read(client: Client, question: Question, id_: str, property_: str) -> bytes:
    try:
        found = client.get_object(question.collection.name, id_, return_images=property_, tenant=question.tenant)
    except VecgateError as error:
        if error.reason != "OBJECT_NOT_FOUND":
            raise
        return b""
    return found.images.get(property_, b"")


def _small(content: bytes) -> bytes:
    picture = scaled_picture(content, (SIDE, SIDE))
    if picture is None:
        return b""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()
