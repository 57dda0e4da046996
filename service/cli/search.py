"""`vecgate search`: finds the objects nearest to words, an image or both."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from service.cli.conditions import parse_conditions
from service.cli.connection import AddressOption, TenantOption, connected
from service.cli.explorer import open_search
from service.cli.output import EXIT_WRONG_USE, JsonOption, describe_value, fail, note, print_json, print_table, say
from service.cli.thumbnails import Pictures, PicturesOption, screen_for, show_thumbnails
from vecgate.client import Client, Hit, Reranking, SearchResult, TextImage, move, near_inputs, near_text
from vecgate.client import hybrid as join_words
from vecgate.client.searching import Query
from vecgate.v1 import property_pb2
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.input_pb2 import Image

SHOWN_PROPERTIES = 5
# Properties that may hold the name of an image, best first.
NAMING_PROPERTIES = ("name", "title", "path", "file")

MEASURES = ("rerank score", "score", "distance")
"""What hits may be sorted by, as the API and the explorer call it: the first one that a hit has heads the table."""

# The largest force towards something, which moves half of the way.
FORCE = 1.0

_SIGNATURES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
}

WordsArgument = Annotated[str | None, typer.Argument(metavar="WORDS", help="What to look for.", show_default=False)]
ImageOption = Annotated[
    Path | None,
    typer.Option(
        "--image",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Image to look for, alone or with words.",
        show_default=False,
    ),
]
CollectionOption = Annotated[
    str | None,
    typer.Option("--collection", metavar="NAME", help="May be left out if there is only one.", show_default=False),
]
SaveOption = Annotated[
    Path | None,
    typer.Option("--save", file_okay=False, metavar="FOLDER", help="Write the images of the hits.", show_default=False),
]
OpenOption = Annotated[
    bool,
    typer.Option(
        "--open",
        help="Open the explorer, the server's page for browsers, on this search instead; a picture cannot go along.",
    ),
]
JointOption = Annotated[
    bool, typer.Option("--joint", help="The words and the image are one input, for a model that reads both.")
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
        help="Look for both: from 0, the words only, to 1, the meaning or the image only.",
        show_default=False,
    ),
]
NearObjectOption = Annotated[
    str | None,
    typer.Option("--near-object", metavar="ID", help="Stored object to find similar ones to.", show_default=False),
]
MoveToOption = Annotated[
    str | None,
    typer.Option("--move-to", metavar="WORDS", help="Move the query half way towards these words.", show_default=False),
]
MoveAwayOption = Annotated[
    str | None,
    typer.Option(
        "--move-away", metavar="WORDS", help="Move the query as far away from these words.", show_default=False
    ),
]
TargetVectorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target-vector",
        metavar="NAME",
        help="Named vector to search. Given more than once, the nearest one counts.",
        show_default=False,
    ),
]
CertaintyOption = Annotated[
    float | None,
    typer.Option("--certainty", min=0, max=1, help="Least certainty of a hit.", show_default=False),
]
AutoLimitOption = Annotated[
    int, typer.Option("--auto-limit", min=0, help="End after so many jumps of distance or score; 0 for no such end.")
]
RerankWithOption = Annotated[
    str,
    typer.Option(
        "--rerank-with",
        metavar="NAME",
        help="Reranker of the server that sorts the first hits again; needs --rerank-text, --rerank-image or both.",
        show_default=False,
    ),
]
RerankTextOption = Annotated[
    str,
    typer.Option("--rerank-text", metavar="PROPERTY", help="Text that the reranker reads.", show_default=False),
]
RerankImageOption = Annotated[
    str,
    typer.Option("--rerank-image", metavar="PROPERTY", help="Image that the reranker reads.", show_default=False),
]
RerankQueryOption = Annotated[
    str,
    typer.Option(
        "--rerank-query",
        metavar="WORDS",
        help="What the reranker compares the hits with; the words of the search if left out.",
        show_default=False,
    ),
]
RerankLimitOption = Annotated[
    int, typer.Option("--rerank-limit", min=0, help="How many of the first hits are reranked; 0 for 50.")
]
KeepOrderOption = Annotated[
    bool, typer.Option("--keep-order", help="Show the hits in their first order if the reranker fails.")
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only objects with year>=2020, name=dog, name~d* ...; several must all hold.",
        show_default=False,
    ),
]


def search(
    context: typer.Context,
    *,
    words: WordsArgument = None,
    image: ImageOption = None,
    joint: JointOption = False,
    collection: CollectionOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Hits to show.")] = 10,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Hits to skip.")] = 0,
    target_vector: TargetVectorOption = None,
    keywords: KeywordsOption = False,
    hybrid: HybridOption = None,
    near_object: NearObjectOption = None,
    move_to: MoveToOption = None,
    move_away: MoveAwayOption = None,
    certainty: CertaintyOption = None,
    auto_limit: AutoLimitOption = 0,
    rerank_with: RerankWithOption = "",
    rerank_text: RerankTextOption = "",
    rerank_image: RerankImageOption = "",
    rerank_query: RerankQueryOption = "",
    rerank_limit: RerankLimitOption = 0,
    keep_order: KeepOrderOption = False,
    where: WhereOption = None,
    as_json: JsonOption = False,
    pictures: PicturesOption = Pictures.AUTO,
    in_browser: OpenOption = False,
    save: SaveOption = None,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Find the objects nearest to words, an image or both."""
    query = _build_query(
        words, image, near_object, joint=joint, keywords=keywords, hybrid=hybrid, move_to=move_to, move_away=move_away
    )
    rerank = _build_rerank(
        rerank_with, rerank_text, rerank_image, rerank_query or words, limit=rerank_limit, keep_order=keep_order
    )
    _check_output(pictures, as_json=as_json)
    with connected(context, address) as client:
        name = collection or _only_collection(client)
        if in_browser:
            open_search(context, client, name)
            return
        result = client.search(
            name,
            query=query,
            certainty=certainty,
            auto_limit=auto_limit,
            limit=limit,
            offset=offset,
            target_vector=target_vector or "",
            rerank=rerank,
            filters=parse_conditions(client.get_collection(name), where) if where else None,
            return_images=_blob_properties(client, name) if save is not None else [],
            tenant=tenant,
        )
        _report(client, name, result, None if as_json else pictures, offset=offset, save=save, tenant=tenant)


def _check_output(pictures: Pictures, *, as_json: bool) -> None:
    """Exit if the output cannot have both."""
    if as_json and pictures is Pictures.ALWAYS:
        fail("--json has no room for --pictures always; --save FOLDER writes the images", EXIT_WRONG_USE)


def _build_rerank(
    reranker: str, text: str, image: str, query: str | None, *, limit: int, keep_order: bool
) -> pb.Rerank | None:
    """Return how to rerank, or exit if the options cannot be combined."""
    if not reranker:
        if text or image or limit or keep_order:
            message = "--rerank-text, --rerank-image, --rerank-limit and --keep-order need --rerank-with NAME"
            fail(message, EXIT_WRONG_USE)
        return None
    if not (text or image):
        fail("--rerank-with needs --rerank-text PROPERTY, --rerank-image PROPERTY or both", EXIT_WRONG_USE)
    if not query:
        fail("--rerank-with needs words to search for, or --rerank-query WORDS", EXIT_WRONG_USE)
    return pb.Rerank(
        reranker=reranker,
        property=text,
        image_property=image,
        query=query,
        limit=limit,
        keep_order_on_failure=keep_order,
    )


def _build_query(
    words: str | None,
    image: Path | None,
    near_object: str | None,
    *,
    joint: bool,
    keywords: bool,
    hybrid: float | None,
    move_to: str | None,
    move_away: str | None,
) -> Query:
    """Return the query, or exit if the options cannot be combined."""
    if (near_object is None) is (words is None and image is None):
        fail("give words, --image FILE or both, or else --near-object ID", EXIT_WRONG_USE)
    if words is None and (keywords or hybrid is not None or move_to or move_away):
        fail("--keywords, --hybrid, --move-to and --move-away need words", EXIT_WRONG_USE)
    if sum((keywords, hybrid is not None, bool(move_to or move_away))) > 1:
        fail("give one of --keywords, --hybrid, and --move-to with --move-away", EXIT_WRONG_USE)
    if image is not None and (keywords or move_to or move_away):
        fail("--image goes with words and --hybrid only", EXIT_WRONG_USE)
    if joint and (words is None or image is None):
        fail("--joint needs words and --image FILE", EXIT_WRONG_USE)
    if near_object is not None:
        return pb.NearObject(id=near_object)
    if words is None or hybrid is not None:
        near = _near_image(words if joint else None, image)
        if words is not None:
            return join_words(words, near, alpha=hybrid)
        assert near is not None, "there are words, a picture or an object"
        return near
    return _near_words(words, image, joint=joint, keywords=keywords, move_to=move_to, move_away=move_away)


def _near_image(words: str | None, image: Path | None) -> pb.NearImage | pb.NearInputs | None:
    """Return what looks for an image, as one input with words if there are any."""
    if image is None:
        return None
    if words is not None:
        return near_inputs(TextImage(words, image))
    return pb.NearImage(image=Image(content=image.read_bytes()))


def _near_words(
    words: str, image: Path | None, *, joint: bool, keywords: bool, move_to: str | None, move_away: str | None
) -> Query:
    if keywords:
        return pb.Bm25(query=words)
    if image is not None:
        return near_inputs(TextImage(words, image)) if joint else near_inputs(words, image)
    return near_text(
        words,
        move_to=move(FORCE, move_to) if move_to else None,
        move_away=move(FORCE, move_away) if move_away else None,
    )


def _report(
    client: Client,
    name: str,
    result: SearchResult,
    pictures: Pictures | None,
    *,
    offset: int,
    save: Path | None,
    tenant: str,
) -> None:
    """Print a result, as JSON where pictures are None, and write its images to a folder."""
    saved = [_save(hit, save, offset + rank) if save else [] for rank, hit in enumerate(result.hits, start=1)]
    if pictures is None:
        print_json(_as_json(name, result, saved, offset))
    else:
        show_pictures(client, name, result, pictures, offset=offset, tenant=tenant)
        show_hits(name, result, offset=offset)
    if save is not None:
        note(f"{sum(map(len, saved))} images are in {save}")


def show_pictures(
    client: Client, collection: str, result: SearchResult, pictures: Pictures, *, offset: int = 0, tenant: str = ""
) -> None:
    """Print the pictures of the first hits, if they are wanted and can be shown."""
    if result.hits and (screen := screen_for(pictures)):
        captions = [f"{rank} {_label(hit)}" for rank, hit in enumerate(result.hits, start=offset + 1)]
        show_thumbnails(client, client.get_collection(collection), result.hits, captions, screen, tenant=tenant)


def show_hits(collection: str, result: SearchResult, *, offset: int = 0) -> None:
    """Print hits as a table with rank, distance or score, id and properties, and why a reranker has not sorted them."""
    if result.reranking is not None and result.reranking.error is not None:
        note(f"the hits have kept their first order: {result.reranking.error}")
    if not result.hits:
        say(f"Nothing found in {collection}.")
        return
    columns = sorted({name for hit in result.hits for name in hit.object.properties}, key=_column_order)
    apart = len(columns) <= SHOWN_PROPERTIES
    measure = next((each for each in MEASURES if any(_measured(hit, each) for hit in result.hits)), "distance")
    rows = []
    for rank, hit in enumerate(result.hits, start=offset + 1):
        values = hit.object.properties
        cells = (
            [describe_value(values[name]) if name in values else "" for name in columns]
            if apart
            else [", ".join(f"{name}: {describe_value(values[name])}" for name in columns if name in values)]
        )
        rows.append((str(rank), _measured(hit, measure), hit.object.id, *cells))
    print_table(("", measure, "id", *(columns if apart else ["properties"])), rows, whole=("", measure, "id"))


def _column_order(name: str) -> tuple[int, str]:
    return (NAMING_PROPERTIES.index(name) if name in NAMING_PROPERTIES else len(NAMING_PROPERTIES), name)


def _measured(hit: Hit, measure: str) -> str:
    value: float | None = getattr(hit, measure.replace(" ", "_"))
    return "" if value is None else f"{value:.4f}"


def _label(hit: Hit) -> str:
    """Return what a hit may be called."""
    texts = {name: value for name, value in hit.object.properties.items() if isinstance(value, str)}
    return next((texts[name] for name in NAMING_PROPERTIES if texts.get(name)), hit.object.id)


def _only_collection(client: Client) -> str:
    names = [each.name for each in client.list_collections()]
    if not names:
        fail("there are no collections; import one with `vecgate import FOLDER --collection NAME`", EXIT_WRONG_USE)
    if len(names) > 1:
        fail(f"say which collection to search with --collection: {', '.join(names)}", EXIT_WRONG_USE)
    return names[0]


def _blob_properties(client: Client, collection: str) -> list[str]:
    properties = client.get_collection(collection).properties
    return [each.name for each in properties if each.data_type == property_pb2.DATA_TYPE_BLOB]


def _save(hit: Hit, folder: Path, rank: int) -> list[Path]:
    """Write a hit's images as RANK-NAME, with the property's name where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    # Names are untrusted: keep no separators, leading dots, folders or suffixes.
    plain = re.sub(r"[^\w-]+", "-", re.sub(r"\.\w{3,4}$", "", _label(hit))).strip("-")[:60] or hit.object.id
    written = []
    for name, content in sorted(hit.object.images.items()):
        kind = next((suffix for signature, suffix in _SIGNATURES.items() if content.startswith(signature)), "")
        more = f"-{name}" if len(hit.object.images) > 1 else ""
        path = folder / f"{rank:02d}-{plain}{more}{kind}"
        path.write_bytes(content)
        written.append(path)
    return written


def _as_json(collection: str, result: SearchResult, saved: Sequence[Sequence[Path]], offset: int) -> dict[str, object]:
    by, reranking = result.embedder, result.reranking
    return {
        "collection": collection,
        "embedder": None if by is None else {"name": by.name, "model": by.model, "space": by.space},
        **({} if reranking is None else {"reranking": _reranking_as_json(reranking)}),
        "hits": [
            {
                "rank": rank,
                "id": hit.object.id,
                # The certainty is there under this name, too, for scripts that have read it there.
                "score": hit.certainty if hit.score is None else hit.score,
                "distance": hit.distance,
                "certainty": hit.certainty,
                **({} if hit.rerank_score is None else {"rerank_score": hit.rerank_score}),
                "properties": {name: hit.object.properties[name] for name in sorted(hit.object.properties)},
                **({"saved": [str(path) for path in paths]} if paths else {}),
            }
            for rank, (hit, paths) in enumerate(zip(result.hits, saved, strict=True), start=offset + 1)
        ],
    }


def _reranking_as_json(reranking: Reranking) -> dict[str, object]:
    error = reranking.error
    return {
        "reranker": reranking.reranker,
        "model": reranking.model,
        "scored": reranking.scored,
        "error": None if error is None else {"reason": error.reason, "message": error.message},
    }
