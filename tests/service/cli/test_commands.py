"""The commands of the command line against a server in memory: what they send, print and end with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from uuid import UUID

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from service.access.clients import digest_of
from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from tests.fakes.statuses import failure
from tests.service.conftest import PNG, Run
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

ROOT = Path(__file__).parents[3]


@pytest.fixture
def nobody() -> str:
    """An address where no server is."""
    with serving(FakeVecgate()) as gone:
        return gone.address


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("search", "dog"), ("embed", "dog"), ("collections", "list"), ("import", ".", "--collection", "P")],
)
def test_without_a_server_one_line_says_so_and_the_code_is_3(
    nobody: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, ["--address", nobody, *arguments])

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: no Vecgate answers at {nobody}; start one with `vecgate serve`")


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "\udcff", "--collection", "Pictures"),
        ("embed", "\udcff"),
        ("collections", "show", "\udcff"),
        ("objects", "list", "Pictures", "--where", "title=\udcff"),
        ("objects", "update", "Pictures", "\udcff", "--set", "name=x"),
        ("--address", "\udcff", "collections", "list"),
    ],
)
def test_an_argument_that_is_no_text_is_one_line_and_the_code_is_2(pictures: FakeVecgate, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["--address", pictures.address, *arguments])

    assert (result.exit_code, result.stderr) == (2, "error: an argument is not text in UTF-8\n")


def test_a_text_that_is_none_and_has_the_name_of_a_file_is_refused_like_any_other(
    pictures: FakeVecgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("\udcff").touch()

    result = CliRunner().invoke(app, ["--address", pictures.address, "embed", "\udcff"])

    assert (result.exit_code, result.stderr) == (2, "error: an argument is not text in UTF-8\n")


def test_the_name_of_a_file_may_be_no_text(pictures: FakeVecgate, tmp_path: Path) -> None:
    folder = tmp_path / "\udcff"
    folder.mkdir()
    (folder / "a.png").write_bytes(PNG)

    result = CliRunner().invoke(app, ["--address", pictures.address, "import", str(folder), "--collection", "Pictures"])

    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["table", "json"])
def test_what_the_encoding_of_the_output_has_not_is_shown_as_an_escape(
    pictures: FakeVecgate, arguments: tuple[str, ...]
) -> None:
    id_, name = str(UUID(int=1)), "café 猫 🐈"
    pictures.objects["Pictures"][id_] = object_pb.DataObject(id=id_, properties={"name": name})
    command = [sys.executable, "-m", "service", "--address", pictures.address, "objects", "list", "Pictures"]

    ended = subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
        cwd=ROOT,
    )

    assert (ended.returncode, ended.stderr) == (0, b"")
    shown = ended.stdout.decode("cp1252")
    if arguments:
        assert json.loads(shown.splitlines()[1])["properties"] == {"name": name}
    else:
        assert "name: café \\u732b \\U0001f408" in shown


def test_a_key_of_the_variable_needs_no_line_end_and_is_never_shown(fake: FakeVecgate) -> None:
    arguments = ["--address", fake.address, "collections", "list"]

    taken = CliRunner().invoke(app, arguments, env={"VECGATE_API_KEY": "hidden\n"})
    refused = CliRunner().invoke(app, arguments, env={"VECGATE_API_KEY": "hid\tden"})

    assert (taken.exit_code, refused.exit_code) == (0, 2)
    assert refused.stderr.startswith("error: the API key cannot be sent: the value of authorization has a character")
    assert "hid" not in refused.stderr


def test_output_that_nobody_reads_ends_the_command_without_a_word(pictures: FakeVecgate) -> None:
    command = [sys.executable, "-m", "service", "--address", pictures.address, "objects", "list", "Pictures", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as running:
        assert running.stdout is not None
        running.stdout.close()
        _, said = running.communicate()

    assert (running.returncode, said) == (1, b"")


def test_the_address_comes_from_the_command_then_from_before_it_then_from_the_variable(
    fake: FakeVecgate, nobody: str
) -> None:
    runner = CliRunner()

    by_command = runner.invoke(
        app, ["--address", nobody, "collections", "list", "--address", fake.address], env={"VECGATE_ADDRESS": nobody}
    )
    by_group = runner.invoke(app, ["--address", fake.address, "collections", "list"], env={"VECGATE_ADDRESS": nobody})
    by_variable = runner.invoke(app, ["collections", "list"], env={"VECGATE_ADDRESS": fake.address})

    assert [each.exit_code for each in (by_command, by_group, by_variable)] == [0, 0, 0]


def test_a_refusal_is_one_line_with_reason_retry_and_request_id_and_the_code_is_1(run: Run, fake: FakeVecgate) -> None:
    status = failure(grpc.StatusCode.INTERNAL, "INTERNAL", "a fault of this server", retry_after_s=2, request_id="abc")
    fake.failing["ListCollections"] = [status]

    result = run("collections", "list")

    assert result.exit_code == 1
    assert result.stderr == "error: INTERNAL: a fault of this server (try again in 2 s) (request id abc)\n"


def test_create_sends_the_collection_and_says_its_space(run: Run, fake: FakeVecgate) -> None:
    result = run(
        *("collections", "create", "Things", "--property", "name:text", "--property", "tags:text[]"),
        *("--image-field", "photo=0.7", "--text-field", "name=0.3", "--text-field", "caption"),
        *("--vector-name", "both", "--embedder", "fake", "--distance", "l2-squared", "--description", "All things"),
    )

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "Things is created; both is bound to the space fake/space (4 values)\n"
    made = fake.requests["CreateCollection"][0].collection
    assert {each.name: each.data_type for each in made.properties} == {
        "name": property_pb.DATA_TYPE_TEXT,
        "tags": property_pb.DATA_TYPE_TEXT_ARRAY,
        "photo": property_pb.DATA_TYPE_BLOB,
        "caption": property_pb.DATA_TYPE_TEXT,
    }
    vector = made.vectors[0]
    assert (vector.name, vector.embedder, vector.index.distance) == ("both", "fake", index_pb.DISTANCE_L2_SQUARED)
    assert [(each.name, each.HasField("weight")) for each in vector.text_fields] == [("name", True), ("caption", False)]
    assert made.description == "All things"


def test_create_makes_the_fields_one_input_and_show_tells_it(run: Run, fake: FakeVecgate) -> None:
    run("collections", "create", "Things", "--image-field", "photo", "--text-field", "name", "--joint")

    made = fake.requests["CreateCollection"][0].collection
    assert made.vectors[0].combination == collection_pb.COMBINATION_JOINT_INPUT
    assert "photo, name as one input" in run("collections", "show", "Things").stdout


@pytest.mark.parametrize("options", [("--property", "name"), ("--property", "name:string"), ("--image-field", "a=b")])
def test_create_refuses_what_it_cannot_read_with_2(run: Run, fake: FakeVecgate, options: tuple[str, str]) -> None:
    result = run("collections", "create", "Things", *options)

    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert fake.requests["CreateCollection"] == []


def test_list_and_show_are_tables_or_json(run: Run, pictures: FakeVecgate) -> None:
    pictures.collections["Pictures"].vectors[0].image_fields.add(name="image", weight=0.5)

    listed, shown = run("collections", "list"), run("collections", "show", "Pictures")
    listed_json, shown_json = run("collections", "list", "--json"), run("collections", "show", "Pictures", "--json")

    assert "Pictures" in listed.stdout
    assert "Pictures: 3 objects" in shown.stdout
    assert "image=0.5" in shown.stdout
    assert json.loads(listed_json.stdout)[0]["name"] == "Pictures"
    assert json.loads(shown_json.stdout)["object_count"] == 3


def test_delete_asks_first(run: Run, pictures: FakeVecgate) -> None:
    kept = run("collections", "delete", "Pictures", input="n\n")
    assert "Pictures" in pictures.collections

    deleted = run("collections", "delete", "Pictures", input="y\n")

    assert (kept.exit_code, deleted.exit_code) == (1, 0)
    assert "3 objects" in kept.stdout
    assert "Pictures" not in pictures.collections


def test_delete_with_yes_does_not_ask(run: Run, pictures: FakeVecgate) -> None:
    assert run("collections", "delete", "Pictures", "--yes").exit_code == 0
    assert run("collections", "delete", "Pictures", "--yes").exit_code == 1
    assert pictures.collections == {}


def test_embed_prints_a_row_for_each_input(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)

    result = run("embed", "a dog", "--image", str(file))

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "fake: model fake-clip, space fake/space, 4 values"
    assert lines[3].split()[:6] == ["a", "dog", "4", "1.0000", "4", "no"]
    assert lines[4].startswith(str(file))


def test_embed_sends_each_image_with_the_text_as_one_input(run: Run, fake: FakeVecgate, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for each in files:
        each.write_bytes(each.name.encode())

    result = run("embed", "a dog", "--joint", "--image", str(files[0]), "--image", str(files[1]), "--json")

    assert [each["input"] for each in json.loads(result.stdout)["results"]] == [f"a dog + {each}" for each in files]
    (request,) = fake.requests["EmbedInputs"]
    pairs = [(each.text_image.text, each.text_image.image.content) for each in request.inputs]
    assert pairs == [("a dog", b"a.png"), ("a dog", b"b.png")]


@pytest.mark.parametrize("arguments", [("a",), ("a", "b", "--image", __file__), ("--image", __file__)])
def test_embed_of_one_input_takes_one_text_and_images(run: Run, fake: FakeVecgate, arguments: tuple[str, ...]) -> None:
    result = run("embed", "--joint", *arguments)

    assert (result.exit_code, result.stderr) == (2, "error: --joint takes one text and --image FILE\n")
    assert not fake.requests["EmbedInputs"]


def test_embed_writes_rows_for_numpy_and_json_for_programs(run: Run, tmp_path: Path) -> None:
    npy = tmp_path / "rows.npy"

    result = run("embed", "a", "b", "--json", "--npy", str(npy))

    found = json.loads(result.stdout)["results"]
    rows = np.load(npy)
    assert rows.shape == (2, 4)
    assert rows.dtype == np.float32
    assert found[1]["vector"] == pytest.approx(rows[1].tolist())


def test_embed_ends_with_1_and_writes_no_rows_when_an_input_failed(run: Run, fake: FakeVecgate, tmp_path: Path) -> None:
    fake.unembeddable.add("long")
    npy = tmp_path / "rows.npy"

    result = run("embed", "short", "long", "--npy", str(npy))

    assert result.exit_code == 1
    assert "failed: TEXT_TOO_LONG: the text is too long" in result.stdout
    assert not npy.exists()


def test_embed_of_nothing_is_wrong_use(run: Run) -> None:
    assert run("embed").exit_code == 2


def test_status_says_everything_in_words(run: Run, pictures: FakeVecgate) -> None:
    result = run("status")

    assert result.exit_code == 0
    assert f"Vecgate at {pictures.address} is serving" in result.stdout
    for expected in ("SearchService", "fake (default)", "text and image", "ready", "64 MiB", "default (fake/space)"):
        assert expected in result.stdout


def test_status_shows_rerankers_with_what_they_read_and_why_they_do_not_work(run: Run, fake: FakeVecgate) -> None:
    both = [embedding_pb.MODALITY_TEXT, embedding_pb.MODALITY_IMAGE]
    fake.rerankers = [
        embedding_pb.RerankerInfo(name="rank", model="m", modalities=both, health=embedding_pb.EMBEDDER_HEALTH_READY),
        embedding_pb.RerankerInfo(
            name="old", health=embedding_pb.EMBEDDER_HEALTH_UNAVAILABLE, health_detail="the NIM does not answer"
        ),
    ]

    lines = [" ".join(line.split()) for line in run("status").stdout.splitlines()]

    assert "reranker model reads state" in lines
    assert "rank m text and image ready" in lines
    assert "old unavailable: the NIM does not answer" in lines


def test_status_says_why_a_working_address_does_not_stand_in_for_the_others(run: Run, fake: FakeVecgate) -> None:
    fake.rerankers = [
        embedding_pb.RerankerInfo(
            name="rank", health=embedding_pb.EMBEDDER_HEALTH_READY, health_detail="it has the space b"
        )
    ]

    assert "ready, but it has the space b" in " ".join(run("status").stdout.split())


def test_status_ends_with_1_when_not_all_is_well_and_still_shows_the_rest(run: Run, fake: FakeVecgate) -> None:
    fake.healthy[""] = False
    fake.embedder.health = embedding_pb.EMBEDDER_HEALTH_UNAVAILABLE
    fake.embedder.health_detail = "the NIM does not answer"
    fake.failing["ListCollections"] = [failure(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", retry_after_s=1)] * 4

    result = run("status")

    assert result.exit_code == 1
    assert "is not serving" in result.stdout
    assert "unavailable: the NIM does not answer" in result.stdout
    assert "The collections cannot be listed: STORE_UNAVAILABLE" in result.stdout


def test_serve_lists_every_setting_in_its_help() -> None:
    result = CliRunner().invoke(app, ["serve", "--help"])

    assert result.exit_code == 0
    assert "VECGATE_SERVER__PORT" in result.stdout
    assert "VECGATE_LIMITS__MAX_IMAGE_PIXELS" in result.stdout


def test_serve_reports_all_wrong_settings_and_ends_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_SERVER__PORT", "many")
    monkeypatch.setenv("VECGATE_SERVER__PROT", "1")

    result = CliRunner().invoke(app, ["serve"])

    assert result.exit_code == 2
    assert "VECGATE_SERVER__PORT" in result.stderr
    assert "VECGATE_SERVER__PROT" in result.stderr


def test_serve_ends_with_the_services_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_service(settings: object) -> int:
        return 7 if settings is not None else 0

    stand_in = ModuleType("service.app")
    stand_in.run = run_service  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "service.app", stand_in)

    assert CliRunner().invoke(app, ["serve"]).exit_code == 7


def test_without_typer_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; import service.__main__ as m; m.main()"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}"}

    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (2, "the command line needs: pip install 'vecgate[cli]'\n")


def test_a_key_is_made_without_the_packages_of_the_server_and_its_digest_is_what_the_server_compares() -> None:
    absent = ("PIL", "aiohttp", "msgspec", "opentelemetry", "orjson", "pydantic_settings", "structlog", "weaviate")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); sys.argv[1:] = ['auth', 'new-key', 'anna']; "
        "import service.__main__ as m; m.main()"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}"}

    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    assert f'keys_sha256 = ["{digest_of(ended.stdout.strip()).hex()}"]' in ended.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("vecgate sear", {"search"}),
        ("vecgate search --pic", {"--pictures"}),
        ("vecgate search --pictures a", {"auto", "always"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(typed: str, offered: set[str]) -> None:
    words = {"_VECGATE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}

    result = CliRunner().invoke(app, env=words, prog_name="vecgate")

    assert set(result.stdout.split()) == offered
