"""`vecgate search` against a server in memory: what it sends, prints and ends with."""

import json
from pathlib import Path
from uuid import UUID

import grpc
import pytest

from tests.fakes.server import FakeVecgate
from tests.fakes.statuses import failure
from tests.service.conftest import PNG, Run
from vecgate.client import TextImage, all_of, hybrid, near_inputs, where
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.output_fields_pb2 import OutputFields
from vecgate.v1.scope_pb2 import Scope


def test_search_prints_rank_distance_id_and_properties(run: Run, pictures: FakeVecgate) -> None:
    result = run("search", "a dog", "--limit", "2", "--offset", "1", "--target-vector", "default")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].split() == ["distance", "id", "name", "year"]
    assert lines[1].split() == ["2", "0.1000", str(UUID(int=1)), "../../etc/passwd", "2021"]
    assert not any(line != line.rstrip() for line in lines)
    request = pictures.requests["SearchObjects"][0]
    assert (request.limit, request.offset, list(request.target_vectors)) == (2, 1, ["default"])


def test_a_search_names_a_reranker_and_prints_its_scores(run: Run, pictures: FakeVecgate) -> None:
    options = ("--rerank-text", "name", "--rerank-image", "image", "--rerank-limit", "20", "--keep-order")
    result = run("search", "a dog", "--rerank-with", "rank", *options)
    other = run(
        "search", "--near-object", "x", "--rerank-with", "rank", "--rerank-text", "name", "--rerank-query", "cat"
    )

    assert (result.exit_code, other.exit_code) == (0, 0)
    assert result.stdout.split()[:3] == ["rerank", "score", "id"]
    assert [line.split()[1] for line in result.stdout.splitlines()[1:]] == ["0.0000", "-1.0000", "-2.0000"]
    first, second = (each.rerank for each in pictures.requests["SearchObjects"])
    assert first == search_pb.Rerank(
        reranker="rank", property="name", image_property="image", query="a dog", limit=20, keep_order_on_failure=True
    )
    assert second == search_pb.Rerank(reranker="rank", property="name", query="cat")


def test_a_search_whose_reranker_failed_says_so_beside_the_hits(run: Run, pictures: FakeVecgate) -> None:
    down = failure(grpc.StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE", "reranker 'rank': the NIM does not answer")
    pictures.reranking = search_pb.Reranking(reranker="rank", model="fake-reranker", error=down)
    asked = ("search", "a dog", "--rerank-with", "rank", "--rerank-text", "name", "--keep-order")

    result, as_json = run(*asked), run(*asked, "--json")

    assert result.exit_code == 0
    assert "kept their first order: EMBEDDER_UNAVAILABLE: reranker 'rank': the NIM does not answer" in result.stderr
    assert json.loads(as_json.stdout)["reranking"] == {
        "reranker": "rank",
        "model": "fake-reranker",
        "scored": 0,
        "error": {"reason": "EMBEDDER_UNAVAILABLE", "message": "reranker 'rank': the NIM does not answer"},
    }
    assert "rerank_score" not in json.loads(as_json.stdout)["hits"][0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("dog", "--keep-order"), "need --rerank-with NAME"),
        (("dog", "--rerank-text", "name"), "need --rerank-with NAME"),
        (("dog", "--rerank-with", "rank"), "needs --rerank-text PROPERTY"),
        (("--near-object", "x", "--rerank-with", "rank", "--rerank-text", "name"), "needs words to search for"),
    ],
)
def test_options_of_reranking_that_do_not_go_together_are_refused(
    run: Run, pictures: FakeVecgate, options: tuple[str, ...], said: str
) -> None:
    result = run("search", *options)

    assert result.exit_code == 2
    assert said in result.stderr
    assert not pictures.requests["SearchObjects"]


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        (("--near-object", "x", "--certainty", "0.5"), {"near_object": {"id": "x"}, "certainty": 0.5}),
        (("dog", "--keywords", "--auto-limit", "2"), {"bm25": {"query": "dog"}, "auto_limit": 2}),
        (("dog", "--keywords"), {"bm25": {"query": "dog"}}),
        (("dog", "--hybrid", "0.25"), {"hybrid": {"bm25": {"query": "dog"}, "alpha": 0.25}}),
        (
            ("--near-object", "x", "--target-vector", "a", "--target-vector", "b"),
            {"near_object": {"id": "x"}, "target_vectors": ["a", "b"]},
        ),
        (
            ("dog", "--move-to", "cat", "--move-away", "boat"),
            {
                "near_text": {
                    "concepts": ["dog"],
                    "move_to": {"force": 1, "concepts": ["cat"]},
                    "move_away": {"force": 1, "concepts": ["boat"]},
                }
            },
        ),
    ],
)
def test_search_by_keywords_by_both_or_by_an_object(
    run: Run, pictures: FakeVecgate, arguments: tuple[str, ...], query: dict[str, object]
) -> None:
    assert run("search", *arguments).exit_code == 0

    assert pictures.requests["SearchObjects"][0] == search_pb.SearchObjectsRequest(
        collection="Pictures", limit=10, scope=Scope(), output=OutputFields(), **query
    )


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    "arguments",
    [
        ("dog", "--near-object", "x"),
        ("dog", "--keywords", "--hybrid", "1"),
        ("--image", __file__, "--keywords"),
        ("dog", "--image", __file__, "--move-to", "cat"),
        ("--near-object", "x", "--move-away", "cat"),
        ("dog", "--keywords", "--move-to", "cat"),
        ("dog", "--joint"),
        ("--image", __file__, "--joint"),
    ],
)
def test_search_names_options_that_do_not_go_together(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("search", *arguments).exit_code == 2


def test_search_conditions_are_sent_in_the_types_of_their_properties(run: Run, fake: FakeVecgate) -> None:
    fake.add_collection(
        "Pictures",
        name=property_pb.DATA_TYPE_TEXT,
        year=property_pb.DATA_TYPE_INT,
        open=property_pb.DATA_TYPE_BOOLEAN,
    )

    conditions = ("year >= 2020", "name~d*", "open=true", "name!=1")
    result = run("search", "a dog", *(part for each in conditions for part in ("--where", each)))

    assert result.exit_code == 0
    assert fake.requests["SearchObjects"][0].filters == all_of(
        where("year") >= 2020, where("name").like("d*"), where("open").equal(True), where("name").not_equal("1")
    )


@pytest.mark.parametrize("condition", ["year", "year>=soon", "open=perhaps", "=3"])
def test_search_names_a_condition_that_cannot_be_read(run: Run, fake: FakeVecgate, condition: str) -> None:
    fake.add_collection("Pictures", year=property_pb.DATA_TYPE_INT, open=property_pb.DATA_TYPE_BOOLEAN)

    result = run("search", "a dog", "--where", condition)

    assert result.exit_code == 2
    assert condition in result.stderr
    assert not fake.requests["SearchObjects"]


@pytest.mark.usefixtures("pictures")
def test_text_of_others_is_printed_as_it_is_and_whole(run: Run) -> None:
    result = run("search", "x")

    assert "red [car]" in result.stdout
    assert "\x1b" not in result.stdout


def test_search_by_picture_sends_the_file(run: Run, pictures: FakeVecgate, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)

    assert run("search", "--image", str(file), "--collection", "Pictures").exit_code == 0
    assert run("search", "red", "--image", str(file), "--collection", "Pictures").exit_code == 0
    assert run("search", "red", "--image", str(file), "--collection", "Pictures", "--hybrid", "0.5").exit_code == 0

    alone, mixed, hybrid = pictures.requests["SearchObjects"]
    assert alone.near_image.image.content == PNG
    assert mixed.near_inputs == near_inputs("red", PNG)
    assert (hybrid.hybrid.bm25.query, hybrid.hybrid.near_image.image.content) == ("red", PNG)


def test_search_by_words_and_a_picture_as_one_input(run: Run, pictures: FakeVecgate, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)

    assert run("search", "red", "--image", str(file), "--joint").exit_code == 0
    assert run("search", "red", "--image", str(file), "--joint", "--hybrid", "0.5").exit_code == 0

    alone, both = pictures.requests["SearchObjects"]
    assert alone.near_inputs == near_inputs(TextImage("red", PNG))
    assert both.hybrid == hybrid("red", near_inputs(TextImage("red", PNG)), alpha=0.5)


@pytest.mark.usefixtures("pictures")
def test_search_as_json_can_be_read(run: Run) -> None:
    found = json.loads(run("search", "dog", "--json").stdout)

    assert found["collection"] == "Pictures"
    assert found["embedder"] == {"name": "fake", "model": "fake-clip", "space": "fake/space"}
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert found["hits"][0]["properties"] == {"name": "red [car]", "year": 2020}
    assert found["hits"][0]["score"] == found["hits"][0]["certainty"] == pytest.approx(0.95)
    assert found["hits"][0]["distance"] == pytest.approx(0.1)


@pytest.mark.usefixtures("pictures")
def test_save_writes_the_pictures_named_by_rank_and_name_and_only_there(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "hits"

    result = run("search", "dog", "--save", str(folder), "--json")

    assert sorted(path.name for path in folder.iterdir()) == ["01-red-car.png", "02-etc-passwd.png", "03-dog.png"]
    assert (folder / "03-dog.png").read_bytes() == PNG
    assert json.loads(result.stdout)["hits"][2]["saved"] == [str(folder / "03-dog.png")]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("arguments", [("search",), ("search", "--image", "no.png")])
def test_search_takes_words_or_an_existing_file(run: Run, pictures: FakeVecgate, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert pictures.requests["SearchObjects"] == []


def test_search_needs_a_collections_name_when_there_is_not_just_one(run: Run, fake: FakeVecgate) -> None:
    none = run("search", "dog")
    fake.add_collection("A")
    fake.add_collection("B")
    two = run("search", "dog")

    assert (none.exit_code, two.exit_code) == (2, 2)
    assert "there are no collections" in none.stderr
    assert "--collection: A, B" in two.stderr
