"""`vecgate collections bind`, against a server in memory."""

import pytest
from google.rpc import code_pb2, status_pb2

from tests.fakes.server import FakeVecgate
from tests.service.conftest import Run
from vecgate.v1 import collection_service_pb2 as pb


def test_bind_sends_the_embedder_and_the_fields_and_says_what_was_compared(run: Run, pictures: FakeVecgate) -> None:
    pictures.proof = pb.BindingProof(compared=40, matching=39, least_cosine=0.25, median_cosine=0.99996)
    options = ["--text-field", "name=0.25", "--image-field", "image=0.75", "--vector", "default"]

    result = run("collections", "bind", "Pictures", "--embedder", "fake", *options)

    (request,) = pictures.requests["BindVector"]
    assert (result.exit_code, result.stderr) == (0, "")
    assert (request.collection, request.vector.name, request.vector.embedder) == ("Pictures", "default", "fake")
    assert [(each.name, each.weight) for each in request.vector.text_fields] == [("name", 0.25)]
    assert [(each.name, each.weight) for each in request.vector.image_fields] == [("image", 0.75)]
    assert (request.without_proof, request.replace) == (False, False)
    assert "Pictures: default is bound to the space" in result.stdout
    assert "39 of 40 compared vectors" in result.stdout
    assert "least cosine 0.2500, median 1.0000" in result.stdout


def test_bind_says_how_many_vectors_of_zeros_were_left_out(run: Run, pictures: FakeVecgate) -> None:
    pictures.proof = pb.BindingProof(compared=40, matching=40, zeros=3)

    result = run("collections", "bind", "Pictures", "--embedder", "fake")

    assert "3 stored vectors of zeros were left out." in result.stdout


@pytest.mark.parametrize(("said", "option"), [("without_proof", "--without-proof"), ("replace", "--replace")])
def test_bind_names_the_option_instead_of_the_field(run: Run, pictures: FakeVecgate, said: str, option: str) -> None:
    failure = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=f"if you are sure, set {said}")
    pictures.failing["BindVector"].append(failure)

    result = run("collections", "bind", "Pictures", "--embedder", "fake")

    assert (result.exit_code, f"if you are sure, give {option}" in result.stderr) == (1, True)
    assert f"set {said}" not in result.stderr


@pytest.mark.parametrize(
    ("proof", "words"),
    [(pb.BindingProof(), "No stored vector could be compared."), (None, "default was bound so already")],
)
def test_bind_says_what_there_was_nothing_to_compare_for(
    run: Run, pictures: FakeVecgate, proof: pb.BindingProof | None, words: str
) -> None:
    pictures.proof = proof

    result = run("collections", "bind", "Pictures", "--embedder", "fake", "--without-proof", "--replace", "--joint")

    (request,) = pictures.requests["BindVector"]
    assert (request.vector.name, request.without_proof, request.replace) == ("", True, True)
    assert request.vector.combination == pb.COMBINATION_JOINT_INPUT
    assert words in result.stdout


def test_bind_shows_why_a_proof_failed(run: Run, pictures: FakeVecgate) -> None:
    reason = "of 40 stored vectors, 0 are as this embedder makes them"
    pictures.failing["BindVector"].append(status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=reason))

    result = run("collections", "bind", "Pictures", "--embedder", "fake")

    assert result.exit_code == 1
    assert reason in result.stderr


def test_bind_needs_an_embedder(run: Run, pictures: FakeVecgate) -> None:
    result = run("collections", "bind", "Pictures")

    assert result.exit_code == 2
    assert pictures.requests["BindVector"] == []
