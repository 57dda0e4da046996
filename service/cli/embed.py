"""`vecgate embed`: vectors of texts and images."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from service.cli.connection import AddressOption, connected
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, fail, note, print_json, print_table, say, shorten
from vecgate.client import Embedded, Embeddings, TextImage

SHOWN_VALUES = 4


def embed(
    context: typer.Context,
    *,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts.", show_default=False)] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--image", exists=True, dir_okay=False, metavar="FILE", help="Image. Repeatable.", show_default=False
        ),
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="Each image with the text is one input, for a model that reads both.")
    ] = False,
    embedder: Annotated[
        str, typer.Option("--embedder", help="The embedder; the server's default one if not given.", show_default=False)
    ] = "",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that the model cannot read whole.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with the whole vectors.")] = False,
    npy: Annotated[
        Path | None,
        typer.Option("--npy", dir_okay=False, metavar="FILE", help="Write the vectors as rows.", show_default=False),
    ] = None,
    address: AddressOption = None,
) -> None:
    """Show the vectors of texts and images, texts first."""
    inputs: list[str | Path | TextImage] = [*(texts or ()), *(images or ())]
    if not inputs:
        fail("give a text or --image FILE", EXIT_WRONG_USE)
    names = [str(each) for each in inputs]
    if joint:
        if texts is None or len(texts) != 1 or not images:
            fail("--joint takes one text and --image FILE", EXIT_WRONG_USE)
        inputs = [TextImage(texts[0], image) for image in images]
        names = [f"{texts[0]} + {image}" for image in images]
    with connected(context, address) as client:
        answer = client.embed(inputs, embedder=embedder, truncate=truncate)
    if as_json:
        print_json(_as_json(names, answer))
    else:
        by = answer.embedder
        say(f"{by.name}: model {by.model}, space {by.space}, {by.dimension} values")
        say()
        titles = ("input", "dimension", "norm", "tokens", "cut", "first values")
        print_table(
            titles, (_row(name, item) for name, item in zip(names, answer.items, strict=True)), whole=titles[1:5]
        )
    failed = sum(item.error is not None for item in answer.items)
    if npy is not None and failed:
        note(f"{npy} is not written, because {failed} of {len(names)} inputs failed")
    elif npy is not None:
        with npy.open("wb") as file:
            np.save(file, answer.matrix())
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _row(name: str, item: Embedded) -> tuple[str, ...]:
    if item.vector is None:
        return (shorten(name), "", "", "", "", f"failed: {item.error}")
    values = " ".join(f"{value:+.4f}" for value in item.vector[:SHOWN_VALUES])
    tokens = "" if item.token_count is None else str(item.token_count)
    norm = f"{np.linalg.norm(item.vector):.4f}"
    return (shorten(name), str(item.vector.size), norm, tokens, "yes" if item.truncated else "no", f"{values} …")


def _as_json(names: list[str], answer: Embeddings) -> dict[str, object]:
    by = answer.embedder
    return {
        "embedder": {"name": by.name, "model": by.model, "space": by.space, "dimension": by.dimension},
        "results": [
            {
                "input": name,
                "vector": None if item.vector is None else item.vector.tolist(),
                "token_count": item.token_count,
                "truncated": item.truncated,
                "error": None if item.error is None else {"reason": item.error.reason, "message": item.error.message},
            }
            for name, item in zip(names, answer.items, strict=True)
        ],
    }
