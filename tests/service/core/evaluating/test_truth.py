"""What reading all vectors shows."""

from uuid import UUID

import numpy as np
import pytest

from service.core.evaluating.exact import Nearest
from service.core.evaluating.truth import VectorCounts
from service.domain import Distance, StoredObject


@pytest.mark.parametrize(("queries", "hubs"), [(1, 0), (9, 0), (10, 1)])
def test_an_object_is_a_hub_only_if_ten_queries_find_it(queries: int, hubs: int) -> None:
    vectors = np.eye(300, dtype=np.float32)
    objects = [StoredObject(UUID(int=row + 1), vectors={"default": each}) for row, each in enumerate(vectors)]
    # All of them are nearest to the first object.
    nearest = Nearest(Distance.COSINE, np.repeat(vectors[:1], queries, axis=0), 1, [None] * queries)
    nearest.add([each.id for each in objects], vectors)
    counts = VectorCounts()
    counts.add(objects, "default", [each.id for each in objects], vectors)

    counts.end(nearest, None)

    assert counts.hubs == hubs
