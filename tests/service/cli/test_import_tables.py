"""`vecgate import` of tables and tars: the mapping, what a dry run shows, what fails, and second runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from service.domain.keys import key_id
from service.sources import InvalidSource
from tests.fakes.server import DIMENSION, SPACE, FakeVecgate, serving
from tests.fakes.statuses import failure
from tests.service.sources.making import tar
from vecgate.client import decode_vector
from vecgate.v1 import property_pb2 as property_pb

Import = Callable[..., Result]
TEXT, BLOB, INT = property_pb.DATA_TYPE_TEXT, property_pb.DATA_TYPE_BLOB, property_pb.DATA_TYPE_INT


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


@pytest.fixture
def import_(fake: FakeVecgate) -> Import:
    return lambda *options: CliRunner().invoke(
        app, ["--address", fake.address, "import", *map(str, options), "--collection", "Things"]
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    columns = {
        "sku": ["a", "b", "c"],
        "name": ["A", "B", None],
        "price": [1.0, 2.0, 2.5],
        "photo": [b"1", b"2", b"3"],
        "internal": ["x", "y", "z"],
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_a_table_becomes_a_new_collection_with_its_columns_types(
    import_: Import, fake: FakeVecgate, table: Path
) -> None:
    result = import_(table, "--column", "sku=id", "--column", "internal=", "--text-field", "name=0.3")

    assert (result.exit_code, result.stdout) == (0, "Things: 3 stored, 0 failed\n")
    made = fake.collections["Things"]
    assert {each.name: property_pb.DataType.Name(each.data_type) for each in made.properties} == {
        "name": "DATA_TYPE_TEXT",
        "price": "DATA_TYPE_NUMBER",
        "image": "DATA_TYPE_BLOB",
    }
    assert [each.name for each in made.vectors[0].image_fields] == ["image"]
    assert [each.name for each in made.vectors[0].text_fields] == ["name"]
    stored = fake.objects["Things"][key_id("Things", "b")]
    assert (dict(stored.properties), stored.images["image"].content) == ({"name": "B", "price": 2.0}, b"2")


def test_a_mapping_of_a_file_is_followed_and_options_come_before_it(
    import_: Import, fake: FakeVecgate, table: Path, tmp_path: Path
) -> None:
    fake.add_collection("Things", title=TEXT, image=BLOB, cost=property_pb.DATA_TYPE_NUMBER)
    (tmp_path / "map.toml").write_text('[columns]\nname = "title"\nprice = "title"\nsku = "id"\n')

    result = import_(table, "--map", tmp_path / "map.toml", "--column", "price=cost")

    assert (result.exit_code, result.stdout) == (0, "Things: 3 stored, 0 failed\n")
    assert "the column 'internal' is not imported: the collection Things has no property of this name" in result.stderr
    stored = fake.objects["Things"][key_id("Things", "a")]
    assert (dict(stored.properties), stored.images["image"].content) == ({"title": "A", "cost": 1.0}, b"1")


def test_every_fault_of_a_mapping_ends_the_command_before_anything_is_stored(
    import_: Import, fake: FakeVecgate, table: Path
) -> None:
    fake.add_collection("Things", name=INT, image=BLOB)

    result = import_(table, "--column", "price=cost", "--column", "gone=name")

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: 'price': the collection Things has no property or vector 'cost'",
        "there is no column 'gone'; there are sku, name, price, photo, internal",
        "'name': the property 'name' is int, the column string",
    ]
    assert fake.requests["ImportObjects"] == []


def test_a_dry_run_shows_mapping_rows_and_refusals_and_changes_nothing(
    import_: Import, fake: FakeVecgate, table: Path, tmp_path: Path
) -> None:
    fake.add_collection("Things", name=TEXT, price=INT, image=BLOB)
    journal = tmp_path / "journal"

    result = import_(table, "--dry-run", "--column", "sku=id", "--resume", journal)

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Things: parquet, files or folders: 1",
        "column    type    becomes",
        "internal  string  - (the collection Things has no property of this name)",
        "name      string  property name",
        "price     double  property price",
        "photo     binary  image image",
        "sku       string  id",
        f"t.parquet, row 1: id {key_id('Things', 'a')}, name=A, price=1, image: 1 bytes",
        f"t.parquet, row 2: id {key_id('Things', 'b')}, name=B, price=2, image: 1 bytes",
        "2 rows tried without a fault, 1 would be refused; nothing is stored",
        "price: it is not a whole number (1)",
        "  t.parquet, row 3: 2.5",
    ]
    assert set(fake.requests) <= {"GetCollection"}
    assert not journal.exists()


def test_a_dry_run_creates_no_collection(import_: Import, fake: FakeVecgate, table: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"A")

    of_table = import_(table, "--dry-run", "--column", "sku=id")
    of_folder = import_(tmp_path / "pictures", "--dry-run")

    assert (of_table.exit_code, of_folder.exit_code) == (0, 0)
    assert of_table.stdout.startswith("Things (would be created): parquet, files or folders: 1\n")
    assert of_folder.stdout.startswith("Things: 1 pictures would be imported; nothing is stored\n  a.png: path=a.png\n")
    assert fake.collections == {}


def test_what_is_not_stored_is_named_by_reason_and_the_rest_is_stored(
    import_: Import, fake: FakeVecgate, table: Path
) -> None:
    fake.add_collection("Things", name=TEXT, price=INT, image=BLOB)
    violation = ("objects[0].images", "is not a picture", "IMAGE_UNDECODABLE")
    refusal = failure(
        grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "objects[0] is bad", violations=(violation,)
    )
    fake.refuse = lambda each: refusal if each.properties["name"] == "A" else None

    result = import_(table)

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Things: 1 stored, 2 failed",
        "price: it is not a whole number (1)",
        "  t.parquet, row 3: 2.5",
        "IMAGE_UNDECODABLE: is not a picture (1)",
        "  t.parquet, row 1",
    ]


def test_a_damaged_file_is_named_and_the_others_are_imported(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", txt=TEXT)
    tar(tmp_path / "1.tar", {"a.txt": b"a", "b.txt": b"b", "c.txt": b"c" * 1000})
    tar(tmp_path / "2.tar", {"d.txt": b"d"})
    with (tmp_path / "1.tar").open("r+b") as file:
        file.truncate(5 * 512 + 600)

    result = import_(tmp_path)

    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "Things: 2 stored, 1 failed",
        "the file is damaged before the end of this row (1)",
        "  1.tar, key b",
    ]
    assert lines[3].startswith(f"not read to its end: {tmp_path}/1.tar: it is not a tar, or damaged after 'c.txt': ")


def test_a_tar_is_imported_with_keys_as_ids(import_: Import, fake: FakeVecgate, tmp_path: Path) -> None:
    members = {"0.jpg": b"A", "0.json": json.dumps({"caption": "a cat", "width": 3}).encode(), "0.cls": b"5"}

    result = import_(tar(tmp_path / "s.tar", members), "--column", "__key__=id")

    assert (result.exit_code, result.stdout) == (0, "Things: 1 stored, 0 failed\n")
    stored = fake.objects["Things"][key_id("Things", "0")]
    assert dict(stored.properties) == {"caption": "a cat", "width": 3, "cls": 5}
    assert stored.images["image"].content == b"A"


def test_a_csv_outside_a_folder_refers_to_pictures_beside_it(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"A")
    (tmp_path / "t.csv").write_text("file,name\na.png,x\n")

    result = import_(tmp_path / "t.csv")

    assert (result.exit_code, result.stdout) == (0, "Things: 1 stored, 0 failed\n")
    (stored,) = fake.objects["Things"].values()
    assert (dict(stored.properties), stored.images["image"].content) == ({"name": "x"}, b"A")


def test_rows_go_to_the_tenants_that_a_column_names(import_: Import, fake: FakeVecgate, tmp_path: Path) -> None:
    fake.add_collection("Things", name=TEXT)
    fake.collections["Things"].multi_tenancy.enabled = True
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"name": "{name}", "shop": "{shop}"}}\n' for name, shop in ("ax", "by", "cx")))

    result = import_(path, "--column", "shop=tenant")

    assert (result.exit_code, result.stdout) == (0, "Things: 3 stored, 0 failed\n")
    sent = [
        (each.scope.tenant, [o.properties["name"] for o in each.objects]) for each in fake.requests["ImportObjects"]
    ]
    assert sent == [("x", ["a", "c"]), ("y", ["b"])]


def test_vectors_of_a_file_are_reused_in_a_new_collection_of_their_space(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    vectors = pa.array([[1.0] + [0.0] * (DIMENSION - 1)], pa.list_(pa.float32()))
    table = pa.table({"name": ["a"], "embedding": vectors}).replace_schema_metadata({"vecgate.space": SPACE})
    pq.write_table(table, tmp_path / "vectors.parquet")

    result = import_(tmp_path / "vectors.parquet")

    assert (result.exit_code, result.stdout) == (0, "Things: 1 stored, 0 failed\n")
    assert [each.name for each in fake.collections["Things"].properties] == ["name"]
    (stored,) = fake.objects["Things"].values()
    assert decode_vector(stored.vectors["default"]).tolist() == [1.0] + [0.0] * (DIMENSION - 1)


def test_a_journal_passes_over_rows_that_are_stored_also_without_ids(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", name=TEXT)
    path, journal = tmp_path / "t.jsonl", tmp_path / "journal"
    path.write_text('{"name": "a"}\n{"name": "b"}\n')
    ids = iter(str(UUID(int=number)) for number in range(1, 9))
    fake.refuse = lambda each: setattr(each, "id", each.id or next(ids))

    assert import_(path, "--resume", journal).stdout == "Things: 2 stored, 0 failed\n"
    path.write_text('{"name": "a"}\n{"name": "c"}\n')
    assert import_(path, "--resume", journal).stdout == "Things: 1 stored, 0 failed, 1 stored before\n"


def test_so_many_rows_and_no_more_are_imported(import_: Import, fake: FakeVecgate, table: Path) -> None:
    assert import_(table, "--limit", "2", "--column", "sku=id").stdout == "Things: 2 stored, 0 failed\n"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--column", "price"], "--column price: must have the form COLUMN=PROPERTY"),
        (["--properties", "t.parquet"], "--properties and --no-properties are for one local folder of pictures"),
        (["--text-field", "nmae"], "--text-field nmae: there is no such column"),
        (["--embedder", "other"], "there is no embedder 'other'; there are fake"),
        (["--column", "photo="], "there is no column of pictures"),
    ],
    ids=["form", "properties", "text field", "embedder", "nothing to embed"],
)
def test_wrong_use_is_named_before_anything_is_created(
    options: list[str], fault: str, import_: Import, fake: FakeVecgate, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)

    result = import_(table, *options)

    assert result.exit_code == 2
    assert fault in result.stderr
    assert fake.collections == {}


def test_reasons_and_places_are_kept_in_bounded_number(
    import_: Import, fake: FakeVecgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.tables.MAX_PLACES", 3)
    monkeypatch.setattr("service.cli.tables.MAX_REASONS", 1)
    fake.add_collection("Things", n=INT)
    (tmp_path / "t.csv").write_text("n\n" + "x\n" * 5 + "1,2\n" * 2)

    result = import_(tmp_path / "t.csv")

    assert result.stdout.splitlines()[1:] == [
        "n: it is not a whole number (5)",
        *(f"  t.csv, line {line}: x" for line in (2, 3, 4)),
        "  and 2 more",
        "other reasons (2)",
        *(f"  t.csv, line {line}" for line in (7, 8)),
    ]


def test_a_picture_that_cannot_be_read_now_ends_the_reading_of_its_table_alone(
    import_: Import, fake: FakeVecgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add_collection("Things", name=TEXT, image=BLOB)
    for number in (1, 2):
        (tmp_path / f"{number}.csv").write_text(f"image,name\n{number}.png,x\nb.png,y\n")

    def read_file(location: str, max_bytes: int) -> bytes:
        if location.endswith("1.png"):
            raise InvalidSource(location, "denied")
        return b"x"

    monkeypatch.setattr("service.sources.mapping.read_file", read_file)

    result = import_(tmp_path / "1.csv", tmp_path / "2.csv")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Things: 2 stored, 0 failed",
        f"not read to its end: {tmp_path}/1.csv: line 2: the picture cannot be read: {tmp_path}/1.png: denied",
    ]


def test_a_journal_tells_tenants_apart_and_is_kept_where_rows_name_them(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", name=TEXT)
    fake.collections["Things"].multi_tenancy.enabled = True
    path, journal = tmp_path / "t.csv", tmp_path / "journal"
    options = ("--column", "shop=tenant", "--column", "sku=id", "--resume", journal)
    path.write_text("sku,name,shop\n1,a,x\n1,a,y\n")

    assert import_(path, *options).stdout == "Things: 2 stored, 0 failed\n"
    path.write_text("sku,name,shop\n1,a,x\n1,a,y\n1,a,z\n")
    assert import_(path, *options).stdout == "Things: 1 stored, 0 failed, 2 stored before\n"
    path.write_text("sku,name,shop\n1,a,x\n1,b,y\n")
    assert import_(path, *options).stdout == "Things: 1 stored, 0 failed, 1 stored before\n"


@pytest.mark.parametrize(
    ("code", "reason", "counts"),
    [
        (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND", "1 stored, 0 failed, 1 stored before"),
        (grpc.StatusCode.FAILED_PRECONDITION, "STORE_REJECTED", "0 stored, 0 failed, 2 stored before"),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "0 stored, 0 failed, 2 stored before"),
    ],
)
def test_a_journal_is_believed_of_a_tenant_that_its_reader_may_not_look_at_unless_the_tenant_is_gone(
    code: grpc.StatusCode, reason: str, counts: str, import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", name=TEXT)
    fake.collections["Things"].multi_tenancy.enabled = True
    path, journal = tmp_path / "t.csv", tmp_path / "journal"
    options = (path, "--column", "shop=tenant", "--column", "sku=id", "--resume", journal)
    path.write_text("sku,name,shop\n1,a,x\n2,b,y\n")
    import_(*options)
    fake.failing["ListObjects"] = [failure(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "may not list")]
    fake.failing["GetCollection of x"] = [failure(code, reason, "may not count")]

    result = import_(*options)

    assert result.stdout == f"Things: {counts}\n"
    believed = f"what {journal} lists of tenant x is taken for stored and not looked for: may not count"
    assert (believed in result.stderr) == (reason != "TENANT_NOT_FOUND")


def test_of_what_a_journal_lists_only_a_small_property_is_read(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", name=TEXT, notes=TEXT, price=INT)
    path, journal = tmp_path / "t.csv", tmp_path / "journal"
    path.write_text("sku,name,notes,price\n1,a,long,1\n")
    options = (path, "--column", "sku=id", "--resume", journal)

    import_(*options)
    again = import_(*options)

    assert again.stdout == "Things: 0 stored, 0 failed, 1 stored before\n"
    assert again.stderr == f"looking for 1 objects that {journal} lists\n"
    assert [list(each.output.properties) for each in fake.requests["ListObjects"]] == [["price"]]


def test_rows_are_held_by_tenant_up_to_so_many_bytes(
    import_: Import, fake: FakeVecgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.tables.GROUP_BYTES", 2)
    fake.add_collection("Things", name=TEXT)
    fake.collections["Things"].multi_tenancy.enabled = True
    path = tmp_path / "t.csv"
    path.write_text("name,shop\na,x\nb,x\nc,x\n")

    assert import_(path, "--column", "shop=tenant").stdout == "Things: 3 stored, 0 failed\n"
    sent = [[o.properties["name"] for o in each.objects] for each in fake.requests["ImportObjects"]]
    assert sent == [["a", "b"], ["c"]]


def test_a_picture_on_the_web_goes_to_the_server_as_its_uri_and_is_noted_by_it(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", image=property_pb.DATA_TYPE_BLOB_HASH, link=TEXT)
    path, journal = tmp_path / "t.csv", tmp_path / "journal"
    path.write_text("sku,photo\n1,https://cdn.example.com/a.jpg\n2,https://cdn.example.com/b.jpg\n")
    options = (path, "--column", "sku=id", "--column", "photo=image,link", "--resume", journal)

    first, again = import_(*options), import_(*options)
    path.write_text("sku,photo\n1,https://cdn.example.com/a.jpg?2\n2,https://cdn.example.com/b.jpg\n")
    changed = import_(*options)

    assert [each.stdout for each in (first, again, changed)] == [
        "Things: 2 stored, 0 failed\n",
        "Things: 0 stored, 0 failed, 2 stored before\n",
        "Things: 1 stored, 0 failed, 1 stored before\n",
    ]
    stored = fake.objects["Things"][key_id("Things", "2")]
    assert dict(stored.properties) == {"link": "https://cdn.example.com/b.jpg"}
    assert (stored.images["image"].uri, stored.images["image"].content) == ("https://cdn.example.com/b.jpg", b"")


def test_a_new_collection_has_the_picture_and_the_reference(import_: Import, fake: FakeVecgate, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("photo\na.png\n")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"A")

    result = import_(tmp_path / "t.csv", "--column", "photo=image,photo", "--images", tmp_path / "pictures")

    assert (result.exit_code, result.stdout) == (0, "Things: 1 stored, 0 failed\n")
    assert {each.name: each.data_type for each in fake.collections["Things"].properties} == {
        "image": BLOB,
        "photo": TEXT,
    }
    (stored,) = fake.objects["Things"].values()
    assert (dict(stored.properties), stored.images["image"].content) == ({"photo": "a.png"}, b"A")


def test_a_dry_run_shows_references_and_lets_the_server_fetch_the_first_of_each_place(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    vector = {"name": "default", "image_fields": [{"name": "photo"}], "embedder": "fake", "space": "fake"}
    fake.add_collection("Things", photo=TEXT, thumb=BLOB)
    fake.collections["Things"].vectors.add(**vector)
    fake.unfetched = {"https://b.example.com/1.jpg"}
    hosts = ("a", "a", "b", "a", "b")
    lines = [f"https://{host}.example.com/{n // 2}.jpg?signature=s," for n, host in enumerate(hosts)]
    lines[2] = "https://b.example.com/1.jpg,"
    (tmp_path / "t.csv").write_text("\n".join(["photo,thumb", *lines, "ftp://c.example.com/a,s.png"]) + "\n")

    result = import_(tmp_path / "t.csv", "--dry-run")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Things: csv, files or folders: 1",
        "column  type  becomes",
        "photo   text  property photo (by reference)",
        "thumb   text  image thumb (by reference)",
        "t.csv, line 2: photo=https://a.example.com/0.jpg",
        "t.csv, line 3: photo=https://a.example.com/0.jpg",
        "t.csv, line 5: photo=https://a.example.com/1.jpg",
        "4 rows tried without a fault, 2 would be refused; nothing is stored",
        "photo: IMAGE_URI_NOT_ALLOWED: it is not listed (1)",
        "  t.csv, line 4",
        "thumb: the picture cannot be read (1)",
        f"  t.csv, line 7: {tmp_path}/s.png: there is no such file",
    ]
    assert [(each.embedder, each.inputs[0].image.uri) for each in fake.requests["EmbedInputs"]] == [
        ("fake", "https://a.example.com/0.jpg?signature=s"),
        ("fake", "https://b.example.com/1.jpg"),
        ("fake", "https://b.example.com/2.jpg?signature=s"),
    ]
    assert fake.requests["ImportObjects"] == []


def test_a_dry_run_names_each_reference_that_the_server_may_not_fetch(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", image=BLOB)
    fake.unfetched = {f"https://h.example.com/{n}.jpg" for n in range(50)}
    lines = [*sorted(fake.unfetched), "https://h.example.com/ours/a.jpg", "https://h.example.com/ours/b.jpg"]
    (tmp_path / "t.csv").write_text("\n".join(["photo", *lines]) + "\n")

    result = import_(tmp_path / "t.csv", "--column", "photo=image", "--dry-run")

    assert result.exit_code == 1
    assert "2 rows tried without a fault, 50 would be refused; nothing is stored" in result.stdout
    assert "image: IMAGE_URI_NOT_ALLOWED: it is not listed (50)" in result.stdout
    assert len(fake.requests["EmbedInputs"]) == 51


def test_a_dry_run_says_once_that_the_server_tries_no_pictures_and_refuses_no_row_for_it(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", image=BLOB)
    fake.failing["EmbedInputs"] = [failure(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "may not embed")]
    (tmp_path / "t.csv").write_text("photo\nhttps://a.example.com/1.jpg\nhttps://b.example.com/1.jpg\n")

    result = import_(tmp_path / "t.csv", "--column", "photo=image", "--dry-run")

    assert result.exit_code == 0
    assert "2 rows tried without a fault, 0 would be refused; nothing is stored" in result.stdout
    assert result.stderr.splitlines() == ["no more pictures on the web are tried: PERMISSION_DENIED: may not embed"]
    assert len(fake.requests["EmbedInputs"]) == 1


def test_a_uri_that_no_request_can_hold_costs_its_own_row_alone(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", image=BLOB)
    uris = ["https://h/\ud800", "https://h/".ljust(20_000, "a"), "https://h/a.png"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"photo": each}) + "\n" for each in uris))
    options = (tmp_path / "t.jsonl", "--column", "photo=image")

    tried, result = import_(*options, "--dry-run"), import_(*options)

    assert "1 rows tried without a fault, 2 would be refused; nothing is stored" in tried.stdout
    assert result.stdout.startswith("Things: 1 stored, 2 failed\n")
    assert "photo: a URI must have at most 4096 characters (1)\n  t.jsonl, line 2: it has 20000" in result.stdout


def test_a_dry_run_shows_no_signature_of_a_reference_that_is_stored_beside_its_picture(
    import_: Import, fake: FakeVecgate, tmp_path: Path
) -> None:
    fake.add_collection("Things", image=BLOB, link=TEXT, name=TEXT)
    (tmp_path / "t.csv").write_text("photo,name\nhttps://h/a.jpg?X-Amz-Signature=SECRET,why?\n")

    result = import_(tmp_path / "t.csv", "--column", "photo=image,link", "--dry-run")

    assert result.exit_code == 0
    assert "link=https://h/a.jpg, " in result.stdout
    assert "name=why?" in result.stdout
    assert "image: https://h/a.jpg\n" in result.stdout
    assert "SECRET" not in result.output
