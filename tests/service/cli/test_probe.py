"""`vecgate probe` against a server in memory: what it writes is what a local model is compared with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedders.front.proof import PROBE_TEXT, read_probe
from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from vecgate.client import Client


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
    with Client(fake.address) as client:
        assert (probe.text == client.embed([PROBE_TEXT]).items[0].vector).all()


def test_an_embedder_that_refuses_the_probe_writes_nothing(fake: FakeVecgate, tmp_path: Path) -> None:
    fake.unembeddable.add(PROBE_TEXT)

    result = CliRunner().invoke(app, ["--address", fake.address, "probe", str(tmp_path / "probe.json")])

    assert result.exit_code == 1
    assert "refuses the probe" in result.stderr
    assert not list(tmp_path.iterdir())
