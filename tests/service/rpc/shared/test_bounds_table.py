"""Every list of every request has a bound that is checked before it is parsed, and that the API tells."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.rpc.shared.bounds import RequestLimits, list_bounds, string_bounds
from tests.fakes.floods import floods_of
from tests.fakes.messages import METHODS

PROTOS = Path(__file__).parents[4] / "protos" / "vecgate" / "v1"
OF_SETTINGS = RequestLimits(
    max_inputs=901,
    max_objects=902,
    max_hits=903,
    max_filter_depth=904,
    max_filter_nodes=905,
    max_text_bytes=2**30,
    max_image_bytes=2**30,
)
"""Bounds that are not these are constants."""
LISTS, STRINGS = list_bounds(OF_SETTINGS), string_bounds(OF_SETTINGS)
FLOODS = [flood for method in METHODS for flood in floods_of(method.input_type)]
OTHERS = {"FieldMask.paths": "UpdateCollectionRequest.update_mask"}
"""Fields that hold a list of a message that is not ours."""


def comments() -> Iterator[tuple[str, str]]:
    """Yield each field of the API, and what is said of it."""
    for file in sorted(PROTOS.glob("*.proto")):
        message, said = "", ""
        for line in file.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"message (\w+)", line):
                message = found[1]
            if found := re.match(r" +// (.*)", line):
                said += f" {found[1]}"
                continue
            if found := re.match(r" +(?:repeated |optional )?(?:map<[^>]*>|[\w.]+) (\w+) = \d+", line):
                yield f"{message}.{found[1]}", said
            said = ""


COMMENTS = dict(comments())


def test_every_list_of_every_request_has_a_bound_and_every_bound_a_list() -> None:
    lists = {flood.field for flood in FLOODS if not flood.is_long and flood.form != "nested"}

    assert lists == set(LISTS)


def test_every_string_that_is_bounded_by_name_is_there() -> None:
    fields = {f"{each.containing_type.name}.{each.name}" for flood in FLOODS for each in flood.path}

    assert set(STRINGS) - fields == set()


@pytest.mark.parametrize(
    "field", [field for field, bound in LISTS.items() if bound.most not in {901, 902, 905, 1802, 9020}]
)
def test_the_api_tells_the_bound_of_a_list(field: str) -> None:
    said = COMMENTS[OTHERS.get(field, field)].replace(",", "")

    assert re.search(rf"\b{LISTS[field].most}\b", said)
