"""`vecgate collections bind`: a vector that another client made is bound to an embedder."""

from typing import Annotated

import typer

from service.cli.collections import parse_weighted_field
from service.cli.connection import AddressOption, connected
from service.cli.output import describe_error, fail, say
from vecgate.client import VecgateError
from vecgate.v1 import collection_service_pb2 as pb

Fields = list[str] | None


def bind(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection's name.")],
    embedder: Annotated[str, typer.Option("--embedder", help="The embedder that made the vectors.")],
    vector: Annotated[
        str, typer.Option("--vector", help="The vector; may be left out if there is only one.", show_default=False)
    ] = "",
    text_fields: Annotated[
        Fields,
        typer.Option(
            "--text-field",
            metavar="NAME[=WEIGHT]",
            help="Text property that it is made of. Repeatable.",
            show_default=False,
        ),
    ] = None,
    image_fields: Annotated[
        Fields,
        typer.Option(
            "--image-field",
            metavar="NAME[=WEIGHT]",
            help="Image property that it is made of. Repeatable.",
            show_default=False,
        ),
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="The texts and the image of an object are one input of the model.")
    ] = False,
    without_proof: Annotated[
        bool,
        typer.Option("--without-proof", help="Bind on your word where stored texts and images prove too little."),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the binding that an earlier call made.")] = False,
    address: AddressOption = None,
) -> None:
    """Bind a vector that another client made to the embedder that made it, proven on stored objects.

    From then on, words and images find the collection's objects, and imports and updates embed the fields.
    """
    wanted = pb.VectorConfig(
        name=vector,
        embedder=embedder,
        text_fields=[parse_weighted_field(each, "--text-field") for each in text_fields or ()],
        image_fields=[parse_weighted_field(each, "--image-field") for each in image_fields or ()],
        combination=pb.COMBINATION_JOINT_INPUT if joint else pb.COMBINATION_UNSPECIFIED,
    )
    with connected(context, address) as client:
        try:
            answer = client.bind_vector(name, wanted, without_proof=without_proof, replace=replace)
        except VecgateError as error:
            # The server names the fields of a request.
            text, code = describe_error(error, target=client.target)
            fail(
                text.replace("set without_proof", "give --without-proof").replace("set replace", "give --replace"), code
            )
    _report(answer, wanted)


def _report(answer: pb.BindVectorResponse, wanted: pb.VectorConfig) -> None:
    bound = next((each for each in answer.collection.vectors if wanted.name in ("", each.name)), wanted)
    what = f"{answer.collection.name}: {bound.name}"
    if not answer.HasField("proof"):
        say(f"{what} was bound so already, to the space {bound.space}")
        return
    say(f"{what} is bound to the space {bound.space} ({bound.dimension} values)")
    proof = answer.proof
    if proof.zeros:
        say(f"{proof.zeros} stored vectors of zeros were left out.")
    say(
        f"{proof.matching} of {proof.compared} compared vectors are as {wanted.embedder} makes them: "
        f"least cosine {proof.least_cosine:.4f}, median {proof.median_cosine:.4f}"
        if proof.compared
        else "No stored vector could be compared."
    )
