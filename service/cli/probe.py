"""`vecgate probe`: an embedder's vectors of the probe that proves a space."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.connection import AddressOption, connected
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, fail, say


def probe(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="JSON file to write.")],
    *,
    embedder: Annotated[
        str, typer.Option("--embedder", help="The embedder. Default: the server's default one.", show_default=False)
    ] = "",
    address: AddressOption = None,
) -> None:
    """Write an embedder's vectors of the probe, for a model that is declared to belong to the same space.

    On the server of that model, set SPACE of its embedder to the space and PROBE_FILE to the file, such as
    VECGATE_EMBEDDERS__CLIP__SPACE and VECGATE_EMBEDDERS__CLIP__PROBE_FILE.
    """
    try:
        from embedders.front.proof import PROBE_TEXT, ProbeVectors, probe_image, write_probe  # noqa: PLC0415 -- server only
    except ModuleNotFoundError:
        fail("this needs: pip install 'vecgate[server]'", EXIT_WRONG_USE)
    with connected(context, address) as client:
        answer = client.embed([PROBE_TEXT, probe_image()], embedder=embedder)
    text, image = answer.items
    if text.vector is None or image.vector is None:
        fail(f"{answer.embedder.name} refuses the probe: {text.error or image.error}", EXIT_FAILED)
    write_probe(file, ProbeVectors(answer.embedder.space, text.vector, image.vector))
    say(f"{file} holds the probe of {answer.embedder.name}, space {answer.embedder.space}")
