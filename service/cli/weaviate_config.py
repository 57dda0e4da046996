"""`vecgate weaviate-config`: configures Weaviate's own module to use Vecgate as its NIM."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from service.cli.connection import DEFAULT_ADDRESS, AddressOption, Connection, connected
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, fail, note, print_json, say
from service.cli.weaviate_schema import has_fields, is_joint, is_weighted, unknown_properties, weaviate_schema
from vecgate.v1 import collection_service_pb2 as pb

HTTP_PORT = 8070
KEY = "ANY-KEY"
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help=f"Vecgate's HTTP address as Weaviate sees it. Without it: the server's host with port {HTTP_PORT}.",
        show_default=False,
    ),
]


def weaviate_config(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Whose properties, fields and weights to take.")],
    base_url: UrlOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only the JSON of the collection, in Weaviate's form.")
    ] = False,
    address: AddressOption = None,
) -> None:
    """Show how to create a collection like this one, for which Weaviate's multi2vec-nvidia module uses Vecgate."""
    url = base_url or _default_url(context, address)
    if not url.startswith(("http://", "https://")):
        fail(f"--base-url {url}: give it as http://HOST:PORT", EXIT_WRONG_USE)
    url = url.rstrip("/").removesuffix("/v1")
    with connected(context, address) as client:
        collection = client.get_collection(name)
    vectors = [each for each in collection.vectors if has_fields(each)]
    if unbound := [each.name for each in vectors if not each.model]:
        fail(f"{name} was not created by Vecgate: no model is known for {', '.join(unbound)}", EXIT_FAILED)
    if not vectors:
        rule = "with image or text fields that are embedded one by one"
        fail(f"{name} has no named vector {rule}; nothing to configure", EXIT_FAILED)
    schema = weaviate_schema(collection, url)
    if as_json:
        print_json(schema)
        return
    say("# Weaviate's Python client, version 4. The JSON is also what Weaviate's REST API takes at /v1/schema.")
    for line in _snippet(schema).split("\n"):
        say(line)
    say("# Values for weaviate-helm; the module is one of the API-based ones, and sends no request without a key")
    for line in _helm_values().split("\n"):
        say(line)
    for line in _warnings(collection, guessed=base_url is None):
        note(line)


def _default_url(context: typer.Context, address: str | None) -> str:
    given = context.find_object(Connection)
    target = address or (given.address if given else DEFAULT_ADDRESS)
    return f"http://{target.rpartition(':')[0]}:{HTTP_PORT}"


def _snippet(schema: dict[str, Any]) -> str:
    return (
        "import json\n"
        "\n"
        "import weaviate\n"
        "\n"
        # In JSON, three quotes in a row have backslashes, which do not end a raw string.
        f'SCHEMA = r"""\n{json.dumps(schema, indent=2)}\n"""\n'
        f'client = weaviate.connect_to_local(headers={{"X-Nvidia-Api-Key": "{KEY}"}})\n'
        "client.collections.create_from_dict(json.loads(SCHEMA))\n"
    )


def _helm_values() -> str:
    return f'env:\n  ENABLE_API_BASED_MODULES: "true"\n  NVIDIA_APIKEY: "{KEY}"\n'


def _warnings(collection: pb.Collection, *, guessed: bool) -> Iterable[str]:
    yield (
        f"{KEY} stands for the key of a client in auth.clients_file, or for anything if Vecgate has no such file; "
        "keep a real one in a Secret and name it in envSecrets instead of env"
    )
    if guessed:
        yield "the address is a guess; give the one that Weaviate can reach with --base-url"
    if unknown := unknown_properties(collection):
        yield f"left out, because this version does not support their types: {', '.join(unknown)}"
    if joint := [each.name for each in collection.vectors if is_joint(each)]:
        yield f"without a module, because it cannot embed several fields as one input: {', '.join(joint)}"
    if any(is_weighted(each) for each in collection.vectors):
        # The module matches vectors and weights by alphabetical position, not by name.
        yield (
            "with weights, the module wants every object to have every field, and text arrays no more than one item; "
            "other objects get wrong vectors or an error"
        )
