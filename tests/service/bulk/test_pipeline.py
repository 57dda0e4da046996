import math

import pytest

from embedders.images.scaling import Scaling
from service.bulk import pipeline
from service.bulk.fetching import Web
from service.bulk.pipeline import LocalModel, Machine, Pipeline, Sizes, fitting, working_machines
from service.bulk.reading import Reading
from service.bulk.stages import Target
from service.core.objects.duplicates import DuplicateAction, DuplicateCheck
from service.domain import Collection, DataType, NamedVector, Property, Scope, Space, WeightedField
from service.errors import SpaceMismatch
from service.settings import Settings, WeaviateSettings
from service.sources.mapping import Plan
from tests.fakes.embedder import FakeEmbedder


@pytest.mark.parametrize("asked", [Sizes(), Sizes(embedders=3), Sizes(embedders=16, writers=16), Sizes(writers=40)])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("cpus", "gpus", "machines"),
    [(1, 0, 1), (2, 0, 1), (4, 0, 1), (4, 4, 1), (16, 1, 1), (64, 0, 1), (32, 4, 2), (1, 0, 6), (48, 0, 4)],
)
def test_the_least_processes_of_all_stages_have_room(
    cpus: float,
    gpus: float,
    machines: int,
    local: bool,  # noqa: FBT001
    asked: Sizes,
):
    layout = fitting(asked, [Machine(cpus, gpus)] * machines, local=local)

    on_one = [math.ceil(each / machines) for each in (layout.sizes.embedders, layout.sizes.writers)]
    needed = on_one[0] * layout.embed_cpus + on_one[1] * layout.write_cpus
    needed += layout.read_cpus + layout.decode_cpus * local
    assert needed <= cpus
    of_a_gpu = math.ceil(layout.sizes.embedders / (gpus * machines)) if layout.embed_gpus else 0
    assert of_a_gpu * layout.embed_gpus <= 1


@pytest.mark.parametrize("asked", [Sizes(), Sizes(embedders=3), Sizes(embedders=18, writers=40)])
@pytest.mark.parametrize(
    "machines",
    [
        [Machine(8, 8), *[Machine(64)] * 10],
        [Machine(64, 8), Machine(8, 1)],
        [Machine(64, 1), Machine(8, 8), Machine(128)],
    ],
)
def test_embedders_have_room_where_the_gpus_are_though_all_other_stages_begin_there(
    machines: list[Machine], asked: Sizes
):
    layout = fitting(asked, machines, local=True)

    others = layout.sizes.writers * layout.write_cpus + layout.read_cpus + layout.decode_cpus
    of_a_gpu = math.ceil(layout.sizes.embedders / sum(each.gpus for each in machines))
    for each in machines:
        embedders = min(layout.sizes.embedders, of_a_gpu * each.gpus)
        assert not each.gpus or embedders * layout.embed_cpus + others <= each.cpus


def test_embedders_on_processors_share_the_half_of_a_machine():
    layouts = [fitting(Sizes(embedders=each), [Machine(64)], local=True) for each in (1, 3, 16, 64)]

    assert [each.embed_cpus for each in layouts] == [32, 10, 2, 0.5]


def test_more_embedders_than_gpus_share_them():
    layouts = [fitting(Sizes(embedders=each), [Machine(64, 8)], local=True) for each in (4, 8, 9, 24)]

    assert [each.embed_gpus for each in layouts] == [1, 1, 0.5, 0.3333]


def test_each_gpu_has_an_embedder_and_most_processors_decode():
    layout = fitting(Sizes(), [Machine(32, 4)] * 2, local=True)

    assert (layout.sizes.embedders, layout.embed_gpus) == (8, 1.0)
    assert layout.sizes.decoders >= 48


def test_what_is_asked_for_is_done():
    asked = Sizes(decoders=3, embedders=2, writers=5, batch_rows=64)

    assert fitting(asked, [Machine(32, 4)] * 2, local=True).sizes == asked


def test_only_machines_with_processors_for_work_count():
    head = {"Alive": True, "Resources": {"memory": 8e9}}
    worker = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}
    lost = {"Alive": False, "Resources": {"CPU": 8.0}}

    assert working_machines([head, worker, worker, lost]) == [Machine(8, 1), Machine(8, 1)]
    assert working_machines([head]) == [Machine(1)]


OLD, NEW = (NamedVector(each, Space(each, 8, f"{each}/model"), (WeightedField("image"),)) for each in ("old", "new"))


def comparing(vector: str, *, supplied: bool) -> Pipeline:
    """Return a pipeline that finds duplicates by a vector; empty to look for none."""
    collection = Collection("Photos", (Property("image", DataType.BLOB),), (OLD, NEW))
    check = DuplicateCheck(DuplicateAction.SKIP, 0.9, vector) if vector else None
    target = Target(collection, Scope(), WeaviateSettings(), 0.0, duplicates=check)
    plan = Plan("Photos", "", "", {}, {}, {"column": ("old", 8)} if supplied else {}, (), {})
    return Pipeline(Settings(), target, Reading(plan, collection, "", Web((), 0, 0.0)), Sizes(), truncate=False)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Give a pipeline whose model makes the vector `new`, and tell whether it began with rows."""
    found: list[bool] = []

    class Rows:
        def iter_batches(self, **_: object) -> list[None]:
            found.append(True)
            return []

    monkeypatch.setattr(pipeline, "start_ray", lambda: None)
    monkeypatch.setattr(pipeline, "_layout", lambda *_: None)
    spec = FakeEmbedder(space="new", model="new/model").spec
    monkeypatch.setattr(Pipeline, "_look_at_model", lambda *_: LocalModel(spec, Scaling((8, 8))))
    monkeypatch.setattr(Pipeline, "_rows", lambda *_: Rows())
    return found


def test_a_model_that_does_not_make_the_vector_by_which_duplicates_are_found_is_refused_before_any_row(
    begun: list[bool],
):
    with pytest.raises(SpaceMismatch, match="named vector 'old' is bound to space 'old'"):
        list(comparing("old", supplied=False).outcomes({}))
    assert not begun


@pytest.mark.parametrize(("vector", "supplied"), [("", False), ("new", False), ("old", True)])
def test_a_model_need_not_make_vectors_that_are_not_compared_or_come_with_the_input(
    begun: list[bool], vector: str, *, supplied: bool
):
    list(comparing(vector, supplied=supplied).outcomes({}))

    assert begun
