from datetime import UTC, datetime
from uuid import UUID

import pytest

from vecgate.client import all_of, any_of, negate, where
from vecgate.v1 import filter_pb2 as pb


def test_filters_are_joined_as_written() -> None:
    filter_ = all_of(where("year") >= 2020, any_of(where("title").like("sun*"), negate(where("open").is_null())))

    first, second = filter_.all_of.filters
    assert (first.condition.property, first.condition.value.integer) == ("year", 2020)
    assert first.condition.operator == pb.FILTER_OPERATOR_GREATER_OR_EQUAL
    assert second.any_of.filters[0].condition.value.text == "sun*"
    assert second.any_of.filters[1].negation.condition.value.boolean is True


@pytest.mark.parametrize(
    ("filter_", "operator", "kind"),
    [
        (where("a").equal(True), "EQUAL", "boolean"),
        (where("a").not_equal(1.5), "NOT_EQUAL", "number"),
        (where("a") > 1, "GREATER", "integer"),
        (where("a") < UUID(int=1), "LESS", "text"),
        (where("a") <= datetime(2024, 1, 1, tzinfo=UTC), "LESS_OR_EQUAL", "text"),
        (where("a").contains_any([True, False]), "CONTAINS_ANY", "booleans"),
        (where("a").contains_all([1, 2]), "CONTAINS_ALL", "integers"),
        (where("a").contains_none([1, 2.5]), "CONTAINS_NONE", "numbers"),
        (where("a").contains_any(["x"]), "CONTAINS_ANY", "texts"),
        (where("a").within_geo_range(1, 2, 3), "WITHIN_GEO_RANGE", "geo_range"),
    ],
)
def test_a_value_is_sent_in_its_type(filter_: pb.Filter, operator: str, kind: str) -> None:
    assert pb.FilterOperator.Name(filter_.condition.operator) == f"FILTER_OPERATOR_{operator}"
    assert filter_.condition.value.WhichOneof("kind") == kind


def test_signs_of_equality_make_filters() -> None:
    assert (where("a") == "x") == where("a").equal("x")
    assert (where("a") != "x") == where("a").not_equal("x")


def test_lengths_and_fields_of_the_object_are_targets() -> None:
    assert (where("tags", length=True) > 1).condition.property_length == "tags"
    by_id = where(object_field=pb.OBJECT_FIELD_ID).equal("x")
    assert by_id.condition.object_field == pb.OBJECT_FIELD_ID


def test_a_date_without_a_zone_and_mixed_values_are_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        where("a").equal(datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(TypeError, match="one type"):
        where("a").contains_any(["x", 1])
