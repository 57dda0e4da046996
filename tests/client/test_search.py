"""Queries that the client builds."""

from pathlib import Path
from uuid import UUID

import grpc
import pytest

from tests.client.conftest import Connect
from tests.fakes.server import FakeVecgate, serving
from tests.fakes.statuses import failure
from vecgate.client import Reranking, TextImage, VecgateError, bm25, encode_vector, hybrid, move, near_inputs, near_text
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.input_pb2 import Image

ID = UUID(int=3)


def test_near_text_takes_moves_by_texts_and_objects() -> None:
    query = near_text("red", "car", move_to=move(0.5, "a boat"), move_away=move(2, objects=[ID]), truncate=True)

    assert query == pb.NearText(
        concepts=["red", "car"],
        move_to=pb.Move(force=0.5, concepts=["a boat"]),
        move_away=pb.Move(force=2, objects=[str(ID)]),
        truncate=True,
    )


def test_near_inputs_takes_texts_pictures_objects_and_vectors(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"picture")

    both = TextImage("red", file)
    query = near_inputs("red", file, b"other", ID, [1.0, 2.0], both, weights=(1, 2, 3, 4, 5, 6))

    contents = [
        {"text": "red"},
        {"image": Image(content=b"picture")},
        {"image": Image(content=b"other")},
        {"near_object": pb.NearObject(id=str(ID))},
        {"near_vector": pb.NearVector(vector=encode_vector([1, 2]))},
        {"text_image": {"text": "red", "image": {"content": b"picture"}}},
    ]
    assert list(query.inputs) == [pb.WeightedInput(**each, weight=at) for at, each in enumerate(contents, start=1)]
    assert not near_inputs("red").inputs[0].HasField("weight")


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (TextImage(b"red", b"picture"), "the text of a TextImage is a str, not bytes"),  # type: ignore[arg-type]
        (TextImage("red", "a.png"), "an image is bytes, the Path of a file, a PIL image or a Reference, not str"),  # type: ignore[arg-type]
    ],
)
def test_a_pair_of_wrong_types_is_refused_by_them(pair: TextImage, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        near_inputs(pair)


def test_near_inputs_wants_a_weight_for_each_or_none() -> None:
    with pytest.raises(ValueError, match="zip"):
        near_inputs("red", "car", weights=(1,))


def test_a_search_sends_built_queries_and_all_target_vectors(connect: Connect) -> None:
    with serving(FakeVecgate()) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")
        client.search("Pictures", query=near_inputs("red", b"picture"), target_vector=["a", "b"])
        client.search("Pictures", query=near_text("red", move_to=move(1, "car")), target_vector="a")

    mixed, moved = fake.requests["SearchObjects"]
    assert mixed.near_inputs == near_inputs("red", b"picture")
    assert list(mixed.target_vectors) == ["a", "b"]
    assert list(moved.near_text.move_to.concepts) == ["car"]
    assert list(moved.target_vectors) == ["a"]


def test_weights_of_target_vectors_are_those_of_their_sum_unless_said_otherwise(connect: Connect) -> None:
    with serving(FakeVecgate()) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")
        client.search("Pictures", text="red", target_vector={"a": 1, "b": 2})

    (request,) = fake.requests["SearchObjects"]
    assert (list(request.target_vectors), list(request.target_weights)) == (["a", "b"], [1, 2])
    assert request.target_join == pb.TARGET_JOIN_MANUAL_WEIGHTS


def test_words_are_looked_for_in_properties_by_weight() -> None:
    assert bm25("a dog", "title") == pb.Bm25(query="a dog", properties=[{"name": "title", "weight": 1}])
    assert [(each.name, each.weight) for each in bm25("a dog", {"title": 3, "text": 2}).properties] == [
        ("title", 3),
        ("text", 2),
    ]
    both = bm25("a dog", operator=pb.KEYWORD_OPERATOR_OR, minimum_match=2)
    assert (both.operator, both.minimum_match) == (pb.KEYWORD_OPERATOR_OR, 2)


def test_hybrid_takes_words_and_what_to_be_near_to() -> None:
    assert hybrid("a dog", alpha=0.5) == pb.Hybrid(bm25=pb.Bm25(query="a dog"), alpha=0.5)
    other = hybrid(bm25("dog", "title"), near_text("a happy dog"), fusion_type=pb.FUSION_TYPE_RANKED)
    assert ([each.name for each in other.bm25.properties], list(other.near_text.concepts)) == (
        ["title"],
        ["a happy dog"],
    )
    assert other.fusion_type == pb.FUSION_TYPE_RANKED
    near = hybrid(near=near_inputs("a"), max_vector_distance=0.5, truncate=True)
    assert (near.HasField("bm25"), near.WhichOneof("vector_side")) == (False, "near_inputs")


def test_a_search_names_a_reranker_and_its_result_says_what_that_did(connect: Connect) -> None:
    wanted = pb.Rerank(reranker="rank", property="title", query="a dog", image_property="photo", limit=20)
    with serving(FakeVecgate()) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")
        plain = client.search("Pictures", text="a dog")
        sorted_ = client.search("Pictures", text="a dog", rerank=wanted)
        down = failure(grpc.StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE", "down", retry_after_s=2)
        fake.reranking.error.CopyFrom(down)
        kept = client.search("Pictures", text="a dog", rerank=wanted)

    assert fake.requests["SearchObjects"][1].rerank == wanted
    assert plain.reranking is None
    assert sorted_.reranking == Reranking("rank", "fake-reranker", 3)
    assert kept.reranking is not None
    assert isinstance(error := kept.reranking.error, VecgateError)
    assert (error.reason, error.message, error.retry_after_s) == ("EMBEDDER_UNAVAILABLE", "down", 2)
