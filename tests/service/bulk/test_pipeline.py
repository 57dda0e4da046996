import pytest

from service.bulk.pipeline import Sizes, fitting, working_machines


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(("cpus", "gpus", "machines"), [(2, 0, 1), (4, 0, 1), (16, 1, 1), (64, 8, 2), (192, 0, 4)])
def test_the_least_processes_of_all_stages_have_room(cpus: float, gpus: float, machines: int, local: bool):  # noqa: FBT001
    layout = fitting(Sizes(), cpus=cpus, gpus=gpus, machines=machines, local=local)

    sizes = layout.sizes
    needed = sizes.embedders * layout.embed_cpus + sizes.writers * layout.write_cpus
    needed += layout.read_cpus + layout.decode_cpus * local
    assert needed <= cpus
    assert sizes.embedders * layout.embed_gpus <= gpus


def test_each_gpu_has_an_embedder_and_most_processors_decode():
    layout = fitting(Sizes(), cpus=64, gpus=8, machines=2, local=True)

    assert (layout.sizes.embedders, layout.embed_gpus) == (8, 1.0)
    assert layout.sizes.decoders >= 48


def test_what_is_asked_for_is_done():
    asked = Sizes(decoders=3, embedders=2, writers=5, batch_rows=64)

    assert fitting(asked, cpus=64, gpus=8, machines=2, local=True).sizes == asked


def test_only_machines_with_processors_for_work_count():
    head = {"Alive": True, "Resources": {"memory": 8e9}}
    worker = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}
    lost = {"Alive": False, "Resources": {"CPU": 8.0}}

    assert working_machines([head, worker, worker, lost]) == 2
    assert working_machines([head]) == 1
