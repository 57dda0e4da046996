"""`vecgate probe`: an embedder's vectors of the probe that proves a space."""

from pathlib import Path
from typing import Annotated

import typer

from embedders.contract import ImageInput, Input, Modality, TextImageInput, TextInput
from service.cli.connection import AddressOption, connected
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, fail, say
from vecgate.client import TextImage
from vecgate.v1 import embedding_service_pb2 as pb

MODALITIES = {
    pb.MODALITY_TEXT: Modality.TEXT,
    pb.MODALITY_IMAGE: Modality.IMAGE,
    pb.MODALITY_TEXT_IMAGE: Modality.TEXT_IMAGE,
}


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
        from embedders.front.proof import ProbeVectors, probe_inputs, write_probe  # noqa: PLC0415 -- server only
    except ModuleNotFoundError:
        fail("this needs: pip install 'vecgate[server]'", EXIT_WRONG_USE)
    with connected(context, address) as client:
        found = [each for each in client.embedders().embedders if each.name == embedder or not embedder]
        if not found:
            fail(f"the server has no embedder {embedder!r}; vecgate status lists them", EXIT_WRONG_USE)
        inputs = probe_inputs({MODALITIES[each] for each in found[0].modalities if each in MODALITIES})
        answer = client.embed(map(_input, inputs.values()), embedder=found[0].name)
    vectors = {}
    for kind, item in zip(inputs, answer.items, strict=True):
        if item.vector is None:
            fail(f"{answer.embedder.name} refuses the probe: {item.error}", EXIT_FAILED)
        vectors[kind] = item.vector
    write_probe(file, ProbeVectors(answer.embedder.space, vectors))
    say(f"{file} holds the probe of {answer.embedder.name}, space {answer.embedder.space}")


def _input(each: Input) -> str | bytes | TextImage:
    match each:
        case TextInput():
            return each.text
        case ImageInput():
            return each.content
        case TextImageInput():
            return TextImage(each.text, each.content)
