"""Which fields of objects are returned."""

import gc

import pytest

from service.core.objects.checks import check_return_fields
from service.domain import Collection, DataType, Property, ReturnNames
from service.errors import Violations

HOME = (Property("city", DataType.TEXT), Property("place", DataType.OBJECT, nested=(Property("floor", DataType.INT),)))
PEOPLE = Collection(
    "People",
    (
        Property("name", DataType.TEXT),
        Property("portrait", DataType.BLOB),
        Property("home", DataType.OBJECT, nested=HOME),
    ),
    (),
)


@pytest.mark.parametrize("name", ["name", "home", "home.city", "home.place", "home.place.floor"])
def test_a_property_and_a_part_of_an_object_are_found(name: str) -> None:
    violations = Violations()
    assert check_return_fields(PEOPLE, ReturnNames((name,)), violations).properties == [name.partition(".")[0]]
    assert not violations


@pytest.mark.parametrize("name", ["portrait", "age", "name.first", "home.street", "home.place.street", "age.x.y"])
def test_a_blob_and_what_is_not_there_are_noted(name: str) -> None:
    violations = Violations()
    check_return_fields(PEOPLE, ReturnNames((name,)), violations)
    assert [each.field for each in violations] == ["output.properties[0]"]


def test_nothing_is_left_for_the_collector_of_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            check_return_fields(PEOPLE, ReturnNames(("name", "home.city")), Violations())
        assert gc.collect() < 100
    finally:
        gc.enable()
