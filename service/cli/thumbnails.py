"""Small pictures of hits beside their table.

Anyone who may write to a collection chose its pictures, so they are decoded as the server decodes them: in the formats
that it takes, with bytes, pixels and frames bounded before. Only what was decoded, scaled down, goes to the terminal.
"""

import io
import time
from base64 import standard_b64encode
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import set_cell_size

from service.cli.output import EXIT_WRONG_USE, fail, note, print_pictures, say, to_terminal
from service.cli.terminal import Screen, Way, ask_terminal, block_screen
from service.process.printable import printable
from vecgate.client import Client, Hit, VecgateError
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 20
"""Hits whose pictures are shown; each is a call."""

TOTAL_BYTES = 64 * 1024 * 1024
"""Of the pictures that are read for one search."""

TOTAL_S = 10.0
"""For reading and decoding them; the others are left out."""

PER_ROW = 5
GAP_COLUMNS = 2
# Columns and rows of a picture; half blocks have too few points for less.
TILE, BLOCK_TILE = (14, 7), (24, 12)
# xterm shows no more of a sixel picture.
SIXEL_WIDTH = 1000
SIXEL_COLOURS = 255
_PIECE = 4096
NEEDS_PILLOW = "pictures need: pip install 'vecgate[cli]'"


class Pictures(Enum):
    """Whether hits are shown with their pictures."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


PicturesOption = Annotated[
    Pictures,
    typer.Option(
        "--pictures",
        envvar="VECGATE_PICTURES",
        help="Show the hits' pictures: auto in terminals that can (kitty, iTerm2, sixel), always as coloured blocks "
        "elsewhere, or never.",
    ),
]


def screen_for(pictures: Pictures) -> Screen | None:
    """Return where pictures are shown, asking the terminal if need be; None for nowhere."""
    if pictures is Pictures.NEVER or (pictures is Pictures.AUTO and not to_terminal()):
        return None
    found = ask_terminal() if to_terminal() else None
    return block_screen() if found is None and pictures is Pictures.ALWAYS else found


def show_thumbnails(
    client: Client,
    collection: collection_pb.Collection,
    hits: Sequence[Hit],
    names: Sequence[str],
    screen: Screen,
    *,
    tenant: str = "",
) -> None:
    """Print the pictures of the first hits in rows, each above its name.

    Args:
        client: asked for the pictures that the hits do not have.
        collection: of the hits.
        hits: in order.
        names: one for each hit.
        screen: where they are shown.
        tenant: of the hits, if the collection has tenants.
    """
    property_ = picture_property(collection)
    if property_ is None:
        return

    def read(id_: str) -> bytes:
        return client.get_object(collection.name, id_, return_images=property_, tenant=tenant).images.get(
            property_, b""
        )

    pictures = [scaled_picture(content, _tile_pixels(screen)) for content in _contents(hits[:SHOWN], property_, read)]
    if not any(pictures):
        return
    row, (columns, _) = _per_row(screen), _tile(screen)
    for at in range(0, len(pictures), row):
        print_pictures(_drawn(pictures[at : at + row], screen))
        captions = (set_cell_size(printable(name), columns) for name in names[at : at + row])
        say((" " * GAP_COLUMNS).join(captions).rstrip())
    say()


def picture_property(collection: collection_pb.Collection) -> str | None:
    """Return the blob property with the pictures: one that vectors are made of, or else the first; None without any."""
    blobs = [each.name for each in collection.properties if each.data_type == property_pb2.DATA_TYPE_BLOB]
    fields = [field.name for vector in collection.vectors for field in vector.image_fields]
    return next((name for name in fields if name in blobs), next(iter(blobs), None))


def _contents(hits: Sequence[Hit], property_: str, read: Callable[[str], bytes]) -> Iterator[bytes]:
    """Yield the bytes of each hit's picture; none where it has no picture, and once the bounds are reached."""
    end, left = time.monotonic() + TOTAL_S, TOTAL_BYTES
    for hit in hits:
        content = hit.object.images.get(property_, b"")
        if not content and left > 0 and time.monotonic() < end:
            try:
                content = read(hit.object.id)
            except VecgateError as error:
                if error.reason != "OBJECT_NOT_FOUND":
                    note(f"pictures are left out: {error}")
                    left = 0
        left -= len(content)
        yield content if time.monotonic() < end else b""


def scaled_picture(content: bytes, size: tuple[int, int]) -> "Image.Image | None":
    """Return a picture that fits into a size; None if it cannot be decoded within bounds."""
    if not content:
        return None
    try:
        from PIL import ImageOps  # noqa: PLC0415 -- for pictures only

        from embedders.contract import InputLimits  # noqa: PLC0415
        from embedders.errors import InputRejected  # noqa: PLC0415
        from embedders.images.decoding import decode, without_far_ends  # noqa: PLC0415
    except ModuleNotFoundError:
        fail(NEEDS_PILLOW, EXIT_WRONG_USE)
    try:
        return ImageOps.contain(without_far_ends(decode(content, InputLimits(), draft_side=max(size))), size)
    except (InputRejected, MemoryError):
        return None


def _tile(screen: Screen) -> tuple[int, int]:
    return BLOCK_TILE if screen.way is Way.BLOCKS else TILE


def _tile_pixels(screen: Screen) -> tuple[int, int]:
    columns, rows = _tile(screen)
    return columns * screen.cell[0], rows * screen.cell[1]


def _per_row(screen: Screen) -> int:
    columns = screen.columns
    if screen.way is Way.SIXEL:
        columns = min(columns, SIXEL_WIDTH // screen.cell[0])
    return min(PER_ROW, max(1, (columns + GAP_COLUMNS) // (_tile(screen)[0] + GAP_COLUMNS)))


def _drawn(pictures: "Sequence[Image.Image | None]", screen: Screen) -> str:
    """Return what shows pictures beside each other: one image, which no terminal can misplace."""
    from PIL import Image  # noqa: PLC0415 -- for pictures only

    columns, rows = _tile(screen)
    width, height = _tile_pixels(screen)
    gap = GAP_COLUMNS * screen.cell[0]
    # Transparent pixels were laid on white, too.
    strip = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for at, picture in enumerate(pictures):
        if picture is not None:
            left = at * (width + gap)
            strip.paste(picture, (left + (width - picture.width) // 2, (height - picture.height) // 2))
    return _DRAWN_BY[screen.way](strip, (len(pictures) * (columns + GAP_COLUMNS) - GAP_COLUMNS, rows))


def _png(strip: "Image.Image") -> bytes:
    file = io.BytesIO()
    strip.save(file, "PNG")
    return file.getvalue()


def _kitty(strip: "Image.Image", cells: tuple[int, int]) -> str:
    """Return the command of kitty's graphics protocol, in pieces of the length that it allows; q=2: without answers."""
    text = standard_b64encode(_png(strip)).decode()
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    first = f"a=T,f=100,c={cells[0]},r={cells[1]},"
    return "".join(
        f"\x1b_G{'' if at else first}q=2,m={int(at + 1 < len(pieces))};{piece}\x1b\\" for at, piece in enumerate(pieces)
    )


def _iterm2(strip: "Image.Image", cells: tuple[int, int]) -> str:
    png = _png(strip)
    size = f"size={len(png)};width={cells[0]};height={cells[1]};preserveAspectRatio=0"
    return f"\x1b]1337;File=inline=1;{size}:{standard_b64encode(png).decode()}\x07"


def _sixel(strip: "Image.Image", _: tuple[int, int]) -> str:
    from timg import SixelMethod  # noqa: PLC0415 -- for such terminals only

    # Whole bands of six lines: a part of one is left out.
    whole = strip.crop((0, 0, strip.width, strip.height // 6 * 6))
    return str(SixelMethod(whole.quantize(SIXEL_COLOURS)).to_string())


def _blocks(strip: "Image.Image", _: tuple[int, int]) -> str:
    from timg import Ansi24HblockMethod  # noqa: PLC0415 -- for such terminals only

    return str(Ansi24HblockMethod(strip).to_string()).rstrip("\n")


_DRAWN_BY: "dict[Way, Callable[[Image.Image, tuple[int, int]], str]]" = {
    Way.KITTY: _kitty,
    Way.ITERM2: _iterm2,
    Way.SIXEL: _sixel,
    Way.BLOCKS: _blocks,
}
