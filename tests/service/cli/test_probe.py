"""`vecgate probe` against a server in memory: what it writes is what a local model is compared with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedders.contract import SEPARATE, Modality
from embedders.front.proof import PROBE_TEXT, read_probe
from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from vecgate.client import Client
from vecgate.v1 import embedding_service_pb2 as pb


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


def test_it_writes_the_probe_of_an_embedder_with_its_space(fake: FakeVecgate, tmp_path: Path) -> None:
    file = tmp_path / "probe.json"

    result = CliRunner().invoke(app, ["--address", fake.address, "probe", str(file)])

    assert result.exit_code == 0, result.output
    assert "fake/space" in result.stdout
    probe = read_probe(file)
    assert probe.space == "fake/space"
    assert probe.vectors.keys() == SEPARATE
    with Client(fake.address) as client:
        assert (probe.vectors[Modality.TEXT] == client.embed([PROBE_TEXT]).items[0].vector).all()


@pytest.mark.parametrize("kinds", [(pb.MODALITY_TEXT,), (pb.MODALITY_TEXT, pb.MODALITY_IMAGE, pb.MODALITY_TEXT_IMAGE)])
def test_the_probe_has_the_kinds_of_inputs_that_the_embedder_takes(
    fake: FakeVecgate, tmp_path: Path, kinds: tuple[pb.Modality.ValueType, ...]
) -> None:
    file = tmp_path / "probe.json"
    del fake.embedder.modalities[:]
    fake.embedder.modalities.extend(kinds)

    result = CliRunner().invoke(app, ["--address", fake.address, "probe", "--embedder", "fake", str(file)])

    assert result.exit_code == 0, result.output
    assert len(read_probe(file).vectors) == len(kinds)
    (request,) = fake.requests["EmbedInputs"]
    assert [each.WhichOneof("content") for each in request.inputs] == ["text", "image", "text_image"][: len(kinds)]


def test_an_embedder_that_is_not_there_is_named(fake: FakeVecgate, tmp_path: Path) -> None:
    file = tmp_path / "probe.json"

    result = CliRunner().invoke(app, ["--address", fake.address, "probe", "--embedder", "nim", str(file)])

    assert result.exit_code == 2
    assert "the server has no embedder 'nim'; vecgate status lists them" in result.stderr


def test_an_embedder_that_refuses_the_probe_writes_nothing(fake: FakeVecgate, tmp_path: Path) -> None:
    fake.unembeddable.add(PROBE_TEXT)

    result = CliRunner().invoke(app, ["--address", fake.address, "probe", str(tmp_path / "probe.json")])

    assert result.exit_code == 1
    assert "refuses the probe" in result.stderr
    assert not list(tmp_path.iterdir())
