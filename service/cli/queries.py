"""What `vecgate search` looks for."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import EXIT_WRONG_USE, fail
from vecgate.client import move, near_inputs, near_text
from vecgate.client.searching import Query
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.input_pb2 import Image

WordsArgument = Annotated[str | None, typer.Argument(metavar="WORDS", help="What to look for.", show_default=False)]
ImageOption = Annotated[
    Path | None,
    typer.Option(
        "--image",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Picture to look for, alone or with words.",
        show_default=False,
    ),
]
KeywordsOption = Annotated[
    bool, typer.Option("--keywords", help="Look for the words themselves (BM25), not for their meaning.")
]
HybridOption = Annotated[
    float | None,
    typer.Option(
        "--hybrid",
        min=0,
        max=1,
        metavar="ALPHA",
        help="Look for both; 0 is the words alone, 1 the meaning, or the picture.",
        show_default=False,
    ),
]
NearObjectOption = Annotated[
    str | None,
    typer.Option("--near-object", metavar="ID", help="Object to look for the like of.", show_default=False),
]
MoveToOption = Annotated[
    str | None,
    typer.Option("--move-to", metavar="WORDS", help="Move the words' meaning half way to these.", show_default=False),
]
MoveAwayOption = Annotated[
    str | None,
    typer.Option("--move-away", metavar="WORDS", help="Move it as far away from these.", show_default=False),
]
TargetVectorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target-vector",
        metavar="NAME",
        help="Needed if there are several; given more than once, the nearest of them counts.",
        show_default=False,
    ),
]

# The most that is moved towards something, which is half of the way.
FORCE = 1.0


def build_query(
    words: str | None,
    image: Path | None,
    near_object: str | None,
    *,
    keywords: bool,
    hybrid: float | None,
    move_to: str | None,
    move_away: str | None,
) -> Query:
    """Return what to look for, or end the program if the options do not go together."""
    if (near_object is None) is (words is None and image is None):
        fail("give words, --image FILE or both, or else --near-object ID", EXIT_WRONG_USE)
    if words is None and (keywords or hybrid is not None or move_to or move_away):
        fail("--keywords, --hybrid, --move-to and --move-away need words", EXIT_WRONG_USE)
    if sum((keywords, hybrid is not None, bool(move_to or move_away))) > 1:
        fail("give one of --keywords, --hybrid, and --move-to with --move-away", EXIT_WRONG_USE)
    if image is not None and (keywords or move_to or move_away):
        fail("--image goes with words and --hybrid only", EXIT_WRONG_USE)
    if near_object is not None:
        return pb.NearObject(id=near_object)
    picture = pb.NearImage(image=Image(content=image.read_bytes())) if image is not None else None
    if words is None:
        assert picture is not None, "there are words, a picture or an object"
        return picture
    if keywords:
        return pb.Bm25(query=words)
    if hybrid is not None:
        return pb.Hybrid(bm25=pb.Bm25(query=words), alpha=hybrid, near_image=picture)
    if image is not None:
        return near_inputs(words, image)
    return near_text(
        words,
        move_to=move(FORCE, move_to) if move_to else None,
        move_away=move(FORCE, move_away) if move_away else None,
    )
