"""Maps through the client."""

from pathlib import Path
from uuid import UUID

import pytest

from tests.client.conftest import Connect
from tests.conftest import assert_close
from tests.fakes.server import EMBEDDER, SPACE, FakeVecgate, serving
from vecgate.client import Object, PlacedInput, VecgateError, where
from vecgate.v1 import search_service_pb2 as pb

OBJECTS = [Object({"year": year, "title": f"of {year}"}, id=UUID(int=year)) for year in (2001, 2002)]


def test_a_map_has_points_values_and_inputs(connect: Connect, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"picture")
    with serving(FakeVecgate()) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")
        assert all(each.stored for each in client.import_objects("Pictures", [*OBJECTS, Object(id=UUID(int=3))]))

        drawn = client.project_objects("Pictures", ["a dog", file], return_properties=["year", "title"])

    assert drawn.ids == tuple(str(UUID(int=each)) for each in (2001, 2002, 3))
    assert drawn.coordinates.shape == (3, 2)
    assert_close(drawn.coordinates, [[0, 1], [2, 3], [4, 5]])
    assert drawn.properties == {"year": (2001, 2002, None), "title": ("of 2001", "of 2002", None)}
    assert isinstance(drawn.properties["year"][0], int)
    assert drawn.inputs == (PlacedInput(0.5, -0.5, (0,)), PlacedInput(1.5, -0.5, (1,)))
    assert (drawn.embedder, drawn.target_vector, drawn.space) == (EMBEDDER, "default", SPACE)
    assert (drawn.total_count, drawn.missing_count) == (3, 1)
    assert_close(drawn.explained_variance, (0.5, 0.25))


def test_a_map_of_nothing_has_no_points_and_no_embedder(connect: Connect) -> None:
    with serving(FakeVecgate()) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")
        drawn = client.project_objects("Pictures")

    assert (drawn.ids, drawn.coordinates.shape, drawn.inputs, drawn.embedder) == ((), (0, 2), (), None)


def test_what_is_asked_for_is_sent(connect: Connect) -> None:
    late = where("year") >= 2002
    with serving(FakeVecgate()) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")
        client.project_objects(
            "Pictures",
            "a dog",
            sample_size=5,
            method=pb.PROJECTION_METHOD_UMAP,
            target_vector="other",
            filters=late,
            return_properties="year",
            truncate=True,
            tenant="anna",
        )
        with pytest.raises(VecgateError):
            client.project_objects("Nothing")

    assert fake.requests["ProjectObjects"][0] == pb.ProjectObjectsRequest(
        collection="Pictures",
        inputs=[{"text": "a dog"}],
        sample_size=5,
        method=pb.PROJECTION_METHOD_UMAP,
        target_vector="other",
        filters=late,
        properties=["year"],
        truncate=True,
        scope={"tenant": "anna"},
    )
