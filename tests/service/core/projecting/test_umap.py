"""UMAP, by its own package in a process of its own."""

import io

import numpy as np
import psutil
import pytest

from service.core.projecting import neighbours, umap_process
from service.core.projecting.neighbours import check_umap, neighbour_map

COUNT = 12


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run UMAP's code as it is, which for so few objects takes less time than to compile it."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setattr(neighbours, "UMAP_TIMEOUT_S", 600.0)


@pytest.mark.timeout(900)
async def test_groups_stay_together_and_apart_and_a_map_looks_the_same_the_next_time() -> None:
    check_umap()
    random = np.random.default_rng(3)
    centres = random.standard_normal((3, 32)) * 8
    vectors = np.concatenate([centre + random.standard_normal((COUNT, 32)) for centre in centres]).astype(np.float32)

    points = await neighbour_map(vectors)
    again = await neighbour_map(vectors)

    assert points.dtype == np.float32
    assert np.array_equal(points, again)
    assert np.abs(points.mean(axis=0)).max() < 1e-3
    groups = points.reshape(3, COUNT, 2)
    middles = groups.mean(axis=1)
    widest = max(np.linalg.norm(group - middle, axis=1).max() for group, middle in zip(groups, middles, strict=True))
    nearest = min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert nearest > widest


@pytest.mark.timeout(900)
async def test_a_few_objects_have_a_map_too() -> None:
    points = await neighbour_map(np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32))

    assert points.shape == (3, 2)
    assert np.isfinite(points).all()


async def test_its_process_may_not_take_more_memory_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(umap_process.resource, "setrlimit", lambda kind, bound: limits.append((kind, bound)))
    monkeypatch.setattr(umap_process.signal, "alarm", lambda _: None)
    monkeypatch.setattr(umap_process.sys, "argv", ["", '{"shape": [0, 2], "limit_s": 1}'])
    monkeypatch.setattr(umap_process, "project", lambda vectors: vectors)
    monkeypatch.setattr(umap_process.sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    umap_process.main()
    bound = umap_process.MAX_MEMORY_BYTES

    assert limits == [(umap_process.resource.RLIMIT_DATA, (bound, bound))]
    assert psutil.Process().rlimit(psutil.RLIMIT_DATA)[0] != bound
