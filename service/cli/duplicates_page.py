"""Groups of near-duplicates as a page with their pictures, in one file that loads nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

from service.cli.grouping import Found, Member, Question
from service.cli.html_page import PAGE_END, data_url, escaped, page_start
from service.cli.output import note
from service.cli.thumbnails import picture_property
from vecgate.client import Client, VecgateError

PICTURES = 1000
"""Pictures on a page; each is a call, and about 5 KB of the file."""

TOTAL_S = 120.0
"""Seconds for reading and decoding them; the others are left out."""

SIDE = 160
"""Pixels of a picture's longer side."""

STYLE = """
body { max-width: 70rem; }
section { border-top: 1px solid var(--line); padding: 0.5rem 0 1rem; }
ul { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0; }
li { width: 10rem; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; background: var(--sunken); }
code { font-size: 0.8em; color: var(--quiet); }
"""


def write_page(client: Client, question: Question, found: Found, file: Path) -> None:
    """Write the page.

    Raises:
        OSError: the file cannot be written.
        VecgateError: a call failed.
    """
    with file.open("w", encoding="utf-8") as page:
        page.write(page_start(f"Near-duplicates in {question.collection.name}", STYLE))
        page.write(
            f"<p>{len(found.groups)} groups among {found.seen} objects, with a cosine of {question.min_cosine:.4f} or "
            f"more in the named vector {escaped(question.vector.name)}.</p>\n"
        )
        pictures = _pictures(client, question, found)
        for number, group in enumerate(found.groups, start=1):
            page.write(f"<section>\n<h2>{number}</h2>\n<ul>\n")
            for member, picture in zip(group, pictures, strict=False):
                page.write(_item(member, picture))
            page.write("</ul>\n</section>\n")
        page.write(PAGE_END)


def _item(member: Member, picture: str) -> str:
    image = f'<img alt="" src="{picture}">' if picture else ""
    return (
        f"<li>{image}{escaped(member.name)}<br>cosine {member.cosine:.4f}<br><code>{escaped(member.id)}</code></li>\n"
    )


def _pictures(client: Client, question: Question, found: Found) -> Iterator[str]:
    """Yield the URL of a small picture of each member, group by group; empty where it has none, or after the bounds."""
    property_, end, count = picture_property(question.collection), time.monotonic() + TOTAL_S, 0
    for member in (each for group in found.groups for each in group):
        if property_ is None:
            yield ""
            continue
        if count == PICTURES or (count and time.monotonic() > end):
            note(f"the page has the first {count} pictures")
            property_ = None
            yield ""
            continue
        count += 1
        yield data_url(_read(client, question, member.id, property_), SIDE)


def _read(client: Client, question: Question, id_: str, property_: str) -> bytes:
    try:
        found = client.get_object(question.collection.name, id_, return_images=property_, tenant=question.tenant)
    except VecgateError as error:
        if error.reason != "OBJECT_NOT_FOUND":
            raise
        return b""
    return found.images.get(property_, b"")
