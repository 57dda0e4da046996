"""The arithmetic of Weaviate's module: weights by position, whatever their names."""

import numpy as np
import pytest

from service.core.objects.vectorizing import join_as_the_module, shares_of_the_module
from tests.conftest import assert_close

TEXT = np.array([1, 2, 3, 4, 5], np.float32)
IMAGE = TEXT * 10


def test_the_modules_own_examples() -> None:
    plain = join_as_the_module([TEXT, IMAGE], shares_of_the_module((), (1, 1)))
    weighted = join_as_the_module([TEXT, IMAGE], shares_of_the_module((0.4, 0.6), (0.4, 0.6)))

    assert_close(plain, np.array([5.5, 11, 16.5, 22, 27.5]))
    assert_close(weighted, np.array([3.2, 6.4, 9.6, 12.8, 16]))


@pytest.mark.parametrize(
    ("weights", "by_field", "shares"),
    [
        ((), (1, 1), ()),
        ((1, 3), (1, 3), (0.25, 0.75)),
        # The first field is missing, and the module gives the second one its share.
        ((1, 3), (3,), (0.25,)),
        ((1, 2, 5), (2, 5), (0.125, 0.25)),
        # The module fails on more vectors than weights; each then goes by its field.
        ((1, 3), (0.5, 0.5, 3), (0.125, 0.125, 0.75)),
        ((0, 0), (0, 0), (0, 0)),
    ],
)
def test_shares_are_counted_off(
    weights: tuple[float, ...], by_field: tuple[float, ...], shares: tuple[float, ...]
) -> None:
    found = shares_of_the_module(weights, by_field)

    assert_close(np.array(found, np.float32), np.array(shares, np.float32))
    assert len(found) == len(shares)
