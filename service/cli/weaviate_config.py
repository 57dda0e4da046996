"""`vecgate weaviate-config`: how Weaviate's own module uses Vecgate as its NIM."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from service.cli.connection import DEFAULT_ADDRESS, AddressOption, Connection, connected
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, fail, note, print_json, say
from vecgate.v1 import collection_service_pb2 as pb

__all__ = ["weaviate_config"]

MODULE = "multi2vec-nvidia"
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
    as_json: Annotated[bool, typer.Option("--json", help="Print only the JSON of the named vectors.")] = False,
    address: AddressOption = None,
) -> None:
    """Show how to make a collection like this one that Weaviate's own multi2vec-nvidia module fills through Vecgate."""
    url = base_url or _default_url(context, address)
    if not url.startswith(("http://", "https://")):
        fail(f"--base-url {url}: give it as http://HOST:PORT", EXIT_WRONG_USE)
    url = url.rstrip("/").removesuffix("/v1")
    with connected(context, address) as client:
        collection = client.get_collection(name)
    vectors = [each for each in collection.vectors if each.image_fields or each.text_fields]
    if unbound := [each.name for each in vectors if not each.model]:
        fail(f"{name} was not made by Vecgate, so {', '.join(unbound)} names no model of its", EXIT_FAILED)
    if not vectors:
        fail(f"{name} has no named vector with image or text fields; there is nothing to configure", EXIT_FAILED)
    config = {each.name: _config(each, url) for each in vectors}
    if as_json:
        print_json(config)
        return
    say("# Weaviate's Python client, version 4")
    say(_snippet(collection, vectors, url))
    say("# The same in a schema of Weaviate's REST API, as vectorConfig")
    print_json(config)
    say()
    say("# Values for weaviate-helm; the module is one of the API-based ones, and sends no request without a key")
    say(_helm_values())
    for line in _warnings(vectors, guessed=base_url is None):
        note(line)


def _default_url(context: typer.Context, address: str | None) -> str:
    given = context.find_object(Connection)
    target = address or (given.address if given else DEFAULT_ADDRESS)
    return f"http://{target.rpartition(':')[0]}:{HTTP_PORT}"


def _config(vector: pb.VectorConfig, url: str) -> dict[str, Any]:
    module: dict[str, Any] = {"baseURL": url, "model": vector.model}
    for key, fields in (("imageFields", vector.image_fields), ("textFields", vector.text_fields)):
        if fields:
            module[key] = [each.name for each in _sorted(fields)]
    if _weighted(vector):
        module["weights"] = {
            key: [_weight(each) for each in _sorted(fields)]
            for key, fields in (("imageFields", vector.image_fields), ("textFields", vector.text_fields))
            if fields
        }
    index: dict[str, Any] = {"vectorizer": {MODULE: module}, "vectorIndexType": "hnsw"}
    if vector.index.distance not in (pb.DISTANCE_UNSPECIFIED, pb.DISTANCE_COSINE):
        index["vectorIndexConfig"] = {"distance": _distance(vector).lower().replace("_", "-")}
    return index


def _snippet(collection: pb.Collection, vectors: Iterable[pb.VectorConfig], url: str) -> str:
    properties = "".join(
        f"        wvc.Property(name={json.dumps(each.name)}, data_type=wvc.DataType.{_data_type(each.data_type)}),\n"
        for each in collection.properties
        if each.data_type != pb.DATA_TYPE_UNSPECIFIED
    )
    configs = "".join(_vector_call(each, url) for each in vectors)
    return (
        "import weaviate\n"
        "import weaviate.classes.config as wvc\n"
        "\n"
        f'client = weaviate.connect_to_local(headers={{"X-Nvidia-Api-Key": "{KEY}"}})\n'
        "client.collections.create(\n"
        f"    {json.dumps(collection.name)},\n"
        f"    properties=[\n{properties}    ],\n"
        f"    vector_config=[\n{configs}    ],\n"
        ")\n"
    )


def _vector_call(vector: pb.VectorConfig, url: str) -> str:
    lines = [f"name={json.dumps(vector.name)}", f"base_url={json.dumps(url)}", f"model={json.dumps(vector.model)}"]
    for key, fields in (("image_fields", vector.image_fields), ("text_fields", vector.text_fields)):
        if fields:
            lines.append(f"{key}=[{', '.join(_field_call(each, vector) for each in _sorted(fields))}]")
    if vector.index.distance not in (pb.DISTANCE_UNSPECIFIED, pb.DISTANCE_COSINE):
        distance = f"wvc.VectorDistances.{_distance(vector)}"
        lines.append(f"vector_index_config=wvc.Configure.VectorIndex.hnsw(distance_metric={distance})")
    inside = "".join(f"            {line},\n" for line in lines)
    return f"        wvc.Configure.Vectors.multi2vec_nvidia(\n{inside}        ),\n"


def _field_call(field: pb.WeightedField, vector: pb.VectorConfig) -> str:
    if not _weighted(vector):
        return json.dumps(field.name)
    return f"wvc.Multi2VecField(name={json.dumps(field.name)}, weight={_weight(field)!r})"


def _helm_values() -> str:
    return f'env:\n  ENABLE_API_BASED_MODULES: "true"\n  NVIDIA_APIKEY: "{KEY}"\n'


def _warnings(vectors: Iterable[pb.VectorConfig], *, guessed: bool) -> Iterable[str]:
    yield (
        f"{KEY} stands for the key of a client in auth.clients_file, or for anything if Vecgate has no such file; "
        "keep a real one in a Secret and name it in envSecrets instead of env"
    )
    if guessed:
        yield "the address is a guess; give the one that Weaviate can reach with --base-url"
    if any(_weighted(each) for each in vectors):
        # The module counts its vectors off against the weights, alphabetically, without looking at names.
        yield (
            "with weights, the module wants every object to have every field, and text arrays no more than one item; "
            "other objects get wrong vectors or an error"
        )


def _sorted(fields: Iterable[pb.WeightedField]) -> list[pb.WeightedField]:
    # The module goes through an object's properties in alphabetical order, and through the weights as configured.
    return sorted(fields, key=lambda each: each.name)


def _weighted(vector: pb.VectorConfig) -> bool:
    fields = (*vector.image_fields, *vector.text_fields)
    # The share of a single field is always the whole.
    return len(fields) > 1 and any(each.HasField("weight") for each in fields)


def _weight(field: pb.WeightedField) -> float:
    # Rounded to what float32 holds: 0.9 comes as 0.8999999761581421.
    return float(f"{field.weight:.7g}") if field.HasField("weight") else 1.0


def _data_type(number: "pb.DataType.ValueType") -> str:
    return pb.DataType.Name(number).removeprefix("DATA_TYPE_").replace("BOOLEAN", "BOOL")


def _distance(vector: pb.VectorConfig) -> str:
    return pb.Distance.Name(vector.index.distance).removeprefix("DISTANCE_")
