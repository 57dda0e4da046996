"""`vecgate collections`: create, list, show, update and delete collections."""

import re
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

from service.cli.connection import EVALUATION_TIMEOUT_S, TIMEOUT_S, AddressOption, TenantOption, connected
from service.cli.evaluating import (
    AnswerOption,
    CaptionOption,
    MeasureName,
    QrelsOption,
    QueriesOption,
    SampleOption,
    answered,
    check_better,
    query_request,
)
from service.cli.output import EXIT_WRONG_USE, JsonOption, YesOption, confirm, fail, print_json, print_table, say
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

app = typer.Typer(help="Create, list, show, update and delete collections.", no_args_is_help=True)

TYPES = {
    name.removeprefix("DATA_TYPE_").lower().replace("_array", "[]"): number
    for name, number in property_pb.DataType.items()
}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
for name in ("unspecified", "object", "object[]"):
    # Objects need nested properties, which --from can give.
    del TYPES[name]

TIMES = {"creation": "_creationTimeUnix", "update": "_lastUpdateTimeUnix"}
"""Weaviate's names for what an object's time-to-live may count from, by those of --ttl-from."""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

PropertyOption = Annotated[
    list[str] | None,
    typer.Option("--property", metavar="NAME:TYPE", help=f"Repeatable. Types: {', '.join(TYPES)}.", show_default=False),
]
ImageFieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--image-field",
        metavar="NAME[=WEIGHT]",
        help="Image property to embed. Repeatable; adds the blob property if it is not given.",
        show_default=False,
    ),
]
TextFieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text-field",
        metavar="NAME[=WEIGHT]",
        help="Text property to embed. Repeatable; adds the text property if it is not given.",
        show_default=False,
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="JSON file as `vecgate collections show --json` prints it; - is standard input.",
        show_default=False,
    ),
]
DefaultVectorOption = Annotated[
    str | None,
    typer.Option(
        "--default-vector",
        metavar="NAME",
        help="The named vector for searches that name none; empty lets the server choose.",
        show_default=False,
    ),
]
DescriptionOption = Annotated[
    str | None,
    typer.Option("--description", help="What the collection contains; empty removes it.", show_default=False),
]
RemovedVectorsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--remove-vector",
        metavar="NAME",
        help="Named vector to remove, with the objects' vectors. Repeatable.",
        show_default=False,
    ),
]
IfBetterOption = Annotated[
    bool,
    typer.Option(
        "--if-better",
        help="Change nothing unless searches by --default-vector are surely no worse than by the present one. Needs "
        "--caption-field, or --queries with answers.",
    ),
]
MeasureOption = Annotated[MeasureName, typer.Option("--measure", help="What --if-better compares.")]
TenantsOption = Annotated[bool, typer.Option("--multi-tenancy", help="Each object belongs to a tenant.")]
AutoCreationOption = Annotated[
    bool, typer.Option("--auto-tenant-creation", help="An import for a new tenant creates it.")
]
AutoActivationOption = Annotated[
    bool, typer.Option("--auto-tenant-activation", help="A call for an inactive tenant activates it.")
]
TtlOption = Annotated[
    str | None,
    typer.Option(
        "--ttl",
        metavar="TIME",
        help="Weaviate deletes each object so long after --ttl-from: 90s, 30m, 12h, 30d; off: never.",
        show_default=False,
    ),
]
TtlFromOption = Annotated[
    str | None,
    typer.Option(
        "--ttl-from",
        metavar="creation|update|PROPERTY",
        help="What --ttl counts from; a property is of type date. For a new collection by default the creation.",
        show_default=False,
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The collection's name.")]


class DistanceName(Enum):
    """A measure between two vectors, by Weaviate's name."""

    COSINE = "cosine"
    DOT = "dot"
    L2_SQUARED = "l2-squared"
    MANHATTAN = "manhattan"
    HAMMING = "hamming"


@app.command("create")
def create(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Begins with a capital letter.")],
    file: FileOption = None,
    properties: PropertyOption = None,
    image_fields: ImageFieldOption = None,
    text_fields: TextFieldOption = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="The texts and the image of an object are one input of the model.")
    ] = False,
    vector_name: Annotated[str, typer.Option("--vector-name", help="The named vector.")] = "default",
    embedder: Annotated[
        str, typer.Option("--embedder", help="The embedder; by default the server's first one.", show_default=False)
    ] = "",
    distance: Annotated[
        DistanceName, typer.Option("--distance", help="The distance between vectors.")
    ] = DistanceName.COSINE,
    description: Annotated[
        str, typer.Option("--description", help="What the collection contains.", show_default=False)
    ] = "",
    tenants: TenantsOption = False,
    auto_creation: AutoCreationOption = False,
    auto_activation: AutoActivationOption = False,
    ttl: TtlOption = None,
    ttl_from: TtlFromOption = None,
    address: AddressOption = None,
) -> None:
    """Create a collection from options, with one named vector bound to the embedder's space, or from a file."""
    if file is not None:
        if properties or image_fields or text_fields or joint:
            options = "--property, --image-field, --text-field and --joint"
            fail(f"--from replaces {options}; give one or the other", EXIT_WRONG_USE)
        _create(context, address, read_collection(file, name))
        return
    vector = pb.VectorConfig(
        name=vector_name,
        embedder=embedder,
        image_fields=[parse_weighted_field(each, "--image-field") for each in image_fields or ()],
        text_fields=[parse_weighted_field(each, "--text-field") for each in text_fields or ()],
        index=index_pb.VectorIndex(distance=index_pb.Distance.Value(f"DISTANCE_{distance.name}")),
        combination=pb.COMBINATION_JOINT_INPUT if joint else pb.COMBINATION_UNSPECIFIED,
    )
    wanted = pb.Collection(
        name=name, description=description, properties=_properties(properties or (), vector), vectors=[vector]
    )
    if ttl is None and ttl_from is not None:
        fail("--ttl-from needs --ttl: after what time do objects expire?", EXIT_WRONG_USE)
    _set_ttl(wanted, ttl, "creation" if ttl_from is None and ttl not in (None, "off") else ttl_from)
    if tenants or auto_creation or auto_activation:
        wanted.multi_tenancy.enabled = True
        wanted.multi_tenancy.auto_tenant_creation = auto_creation
        wanted.multi_tenancy.auto_tenant_activation = auto_activation
    _create(context, address, wanted)


def _properties(given: Sequence[str], vector: pb.VectorConfig) -> list[property_pb.Property]:
    """Return the properties of --property, and those of the named vector's fields that are not among them."""
    declared = dict(map(_parse_property, given))
    declared |= {each.name: property_pb.DATA_TYPE_BLOB for each in vector.image_fields if each.name not in declared}
    declared |= {each.name: property_pb.DATA_TYPE_TEXT for each in vector.text_fields if each.name not in declared}
    return [property_pb.Property(name=each, data_type=data_type) for each, data_type in declared.items()]


def _create(context: typer.Context, address: str | None, wanted: pb.Collection) -> None:
    with connected(context, address) as client:
        made = client.create_collection(wanted)
    for vector in made.vectors:
        say(f"{made.name} is created; {vector.name} is bound to the space {vector.space} ({vector.dimension} values)")


@app.command("list")
def list_(context: typer.Context, as_json: JsonOption = False, address: AddressOption = None) -> None:
    """List the collections."""
    with connected(context, address) as client:
        found = list(client.list_collections())
    if as_json:
        print_json([_as_json(each) for each in found])
    elif found:
        rows = [
            (
                each.name,
                ", ".join(p.name for p in each.properties),
                ", ".join(v.name for v in each.vectors),
                each.description,
            )
            for each in found
        ]
        print_table(("name", "properties", "vectors", "description"), rows, whole=("name",))
    else:
        say("There are no collections.")


@app.command("show")
def show(
    context: typer.Context,
    *,
    name: NameArgument,
    tenant: Annotated[
        str, typer.Option("--tenant", help="The tenant whose objects to count.", show_default=False)
    ] = "",
    missing: Annotated[
        bool, typer.Option("--missing", help="Also count the objects that lack each vector; reads all of them.")
    ] = False,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Show a collection: its properties, its vectors with their spaces, and its number of objects."""
    if missing and as_json:
        fail("--missing adds to the table, which --json replaces; leave one of them out", EXIT_WRONG_USE)
    lacking: Counter[str] | None = None
    with connected(context, address) as client:
        found = client.get_collection(name, tenant)
        if missing:
            lacking = Counter()
            for part in client.count_missing_vectors(name, tenant=tenant):
                lacking.update(part.missing)
    if as_json:
        print_json(_as_json(found))
        return
    holds = f"{found.object_count} objects" if found.HasField("object_count") else "its tenants hold its objects"
    say(f"{found.name}: {holds}" + (f". {found.description}" if found.description else ""))
    if found.HasField("reranker"):
        say(f"Hits are reranked by {found.reranker.module}.")
    if found.object_ttl.enabled:
        say(_describe_ttl(found.object_ttl))
    say()
    rows = [
        (each.name, TYPE_NAMES[each.data_type] if each.data_type else "(not supported)", each.description)
        for each in found.properties
    ]
    print_table(("property", "type", "description"), rows)
    say()
    vectors: list[tuple[str, ...]] = [
        (
            f"{each.name} (default)" if each.name == found.default_vector else each.name,
            each.model,
            each.space or "not bound",
            str(each.dimension),
            index_pb.Distance.Name(each.index.distance).removeprefix("DISTANCE_").lower().replace("_", "-"),
            _index(each.index),
            _fields(each),
            each.embedder or "(none of this server's)",
        )
        for each in found.vectors
    ]
    titles = ["vector", "model", "space", "dimension", "distance", "index", "fields", "embedder"]
    if lacking is not None:
        titles.append("objects without it")
        vectors = [(*row, str(lacking[each.name])) for row, each in zip(vectors, found.vectors, strict=True)]
    print_table(titles, vectors)


@app.command("update")
def update(
    context: typer.Context,
    *,
    name: NameArgument,
    file: FileOption = None,
    description: DescriptionOption = None,
    properties: PropertyOption = None,
    default_vector: DefaultVectorOption = None,
    removed_vectors: RemovedVectorsOption = None,
    ttl: TtlOption = None,
    ttl_from: TtlFromOption = None,
    if_better: IfBetterOption = False,
    sample: SampleOption = 200,
    caption_field: CaptionOption = "",
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    answer_property: AnswerOption = "",
    measure: MeasureOption = MeasureName.NDCG,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Change a collection, add or remove named vectors, add properties; everything else stays unchanged."""
    if if_better and not default_vector:
        fail("--if-better compares the new --default-vector with the present one; name it", EXIT_WRONG_USE)
    request = query_request(
        name,
        tenant,
        sample=sample,
        caption_field=caption_field,
        queries=queries,
        qrels=qrels,
        answer_property=answer_property,
    )
    if if_better and not answered(request):
        fail("--if-better needs known answers: --caption-field, or --queries with answers", EXIT_WRONG_USE)
    wanted = pb.Collection(name=name) if file is None else read_collection(file, name)
    wanted.properties.extend(
        property_pb.Property(name=each, data_type=data_type)
        for each, data_type in map(_parse_property, properties or ())
    )
    _set_ttl(wanted, ttl, ttl_from)
    given = {"description": description, "default_vector": default_vector}
    texts = {field: text for field, text in given.items() if text is not None}
    for field, text in texts.items():
        setattr(wanted, field, text)
    mask: list[str] = []
    if texts:
        said = {field.name for field, _ in wanted.ListFields()} - {"name", "object_count", "etag"}
        mask = sorted(said | texts.keys())
    with connected(context, address, EVALUATION_TIMEOUT_S if if_better else TIMEOUT_S) as client:
        etag = check_better(client, request, wanted.default_vector, measure) if if_better else ""
        client.update_collection(wanted, mask, removed_vectors=removed_vectors or (), etag=etag)
    say(f"{name} is updated")


@app.command("delete")
def delete(
    context: typer.Context,
    *,
    name: NameArgument,
    yes: YesOption = False,
    address: AddressOption = None,
) -> None:
    """Delete a collection and all its objects."""
    with connected(context, address) as client:
        if not yes:
            found = client.get_collection(name)
            what = (
                "the objects of all its tenants" if found.multi_tenancy.enabled else f"its {found.object_count} objects"
            )
            aliases = ", ".join(each.name for each in client.list_aliases(found.name))
            confirm(
                f"Delete {name} with {what}?" + (f" Its aliases, {aliases}, will lead to nothing." if aliases else "")
            )
        client.delete_collection(name)
    say(f"{name} is deleted")


def _set_ttl(wanted: pb.Collection, ttl: str | None, since: str | None) -> None:
    """Set what the options say of the objects' time-to-live; end the command for what is not a time."""
    if ttl == "off":
        if since is not None:
            fail("--ttl off lets objects live for ever; leave out --ttl-from", EXIT_WRONG_USE)
        wanted.object_ttl.enabled = False
        return
    if ttl is not None:
        wanted.object_ttl.enabled = True
        wanted.object_ttl.default_ttl_seconds = _parse_time(ttl)
    if since is not None:
        wanted.object_ttl.delete_on = TIMES.get(since, since)


def _parse_time(text: str) -> int:
    """Return the seconds of a time such as 30m; end the command for anything else."""
    found = re.fullmatch(r"(-?\d{1,10})([smhd])", text)
    if found is None:
        fail(f"--ttl {text}: write it as 90s, 30m, 12h or 30d, or off", EXIT_WRONG_USE)
    return int(found[1]) * SECONDS[found[2]]


def _describe_ttl(ttl: pb.ObjectTtlConfig) -> str:
    names = {weaviate: f"their {name}" for name, weaviate in TIMES.items()}
    since = names.get(ttl.delete_on, f"the date in {ttl.delete_on}")
    return f"Objects expire {ttl.default_ttl_seconds} s after {since}."


def read_collection(file: Path, name: str) -> pb.Collection:
    """Return the collection in a JSON file, with another name; end the command if there is none."""
    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8")
        collection = json_format.Parse(text, pb.Collection())
    except OSError as error:
        fail(f"--from {file}: {error.strerror}", EXIT_WRONG_USE)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        fail(f"--from {file}: must be the JSON of a collection: {error}", EXIT_WRONG_USE)
    collection.name = name
    return collection


def parse_weighted_field(text: str, option: str) -> pb.WeightedField:
    """Return the field of NAME or NAME=WEIGHT; end the command for anything else."""
    name, equals, weight = text.partition("=")
    try:
        return pb.WeightedField(name=name, weight=float(weight)) if equals else pb.WeightedField(name=name)
    except ValueError:
        fail(f"{option} {text}: {weight!r} is not a number; write it as {name}=0.5", EXIT_WRONG_USE)


def _parse_property(text: str) -> tuple[str, property_pb.DataType.ValueType]:
    name, _, kind = text.partition(":")
    if kind not in TYPES:
        fail(f"--property {text}: write it as NAME:TYPE with one of the types {', '.join(TYPES)}", EXIT_WRONG_USE)
    return name, TYPES[kind]


def _index(index: index_pb.VectorIndex) -> str:
    type_, quantizer = index.WhichOneof("type") or "(not supported)", index.quantizer.WhichOneof("type")
    return type_ if quantizer in (None, "none") else f"{type_}, {quantizer}"


def _fields(vector: pb.VectorConfig) -> str:
    fields = ", ".join(_field(each) for each in (*vector.image_fields, *vector.text_fields))
    if vector.combination == pb.COMBINATION_JOINT_INPUT:
        return f"{fields} as one input"
    return fields or "(supplied vectors only)"


def _field(field: pb.WeightedField) -> str:
    return f"{field.name}={field.weight:g}" if field.HasField("weight") else field.name


def _as_json(collection: pb.Collection) -> dict[str, object]:
    shown: dict[str, object] = json_format.MessageToDict(collection, preserving_proto_field_name=True)
    if "object_count" in shown:
        # Protobuf's JSON writes 64-bit numbers as strings.
        shown["object_count"] = collection.object_count
    return shown
