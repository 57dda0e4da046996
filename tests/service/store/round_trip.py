"""What is written is read, and what was read is written back, changed and filtered by, whatever the type of a property.

The client, the server and a store take part; which store, the tests that use this decide.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vecgate.client import Client, Object, all_of, where
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import filter_pb2
from vecgate.v1 import property_pb2 as property_pb

NAME = "RoundTrip"
MAX_EXACT_INT = 2**53
BY_ID = where(object_field=filter_pb2.OBJECT_FIELD_ID)

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 5e-324, -5e-324, 1e17, -1e17, 1e100, 1.7976931348623157e308, 2.0**53, 2.0**53 + 2, 0.1, 3.0]
)
whole = st.integers(-MAX_EXACT_INT, MAX_EXACT_INT) | st.sampled_from([0, -1, MAX_EXACT_INT, -MAX_EXACT_INT])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
degrees = st.floats(-90, 90, width=32).map(lambda value: float(str(np.float32(value))))


def _written(moment: datetime, nanoseconds: str, minutes: int) -> str:
    """Return a date as Weaviate writes it: without zeros at the end of its digits, and Z for no offset."""
    local = moment.replace(tzinfo=timezone(timedelta(minutes=minutes))).isoformat()
    whole, offset = local[:19], local[19:]
    digits = nanoseconds.rstrip("0")
    return whole + (f".{digits}" if digits else "") + ("Z" if offset == "+00:00" else offset)


dates = st.builds(
    _written,
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda moment: moment.replace(microsecond=0)),  # noqa: DTZ001
    st.sampled_from(["", "5", "123456789", "000000001", "120"]) | st.integers(0, 999_999_999).map("{:09d}".format),
    st.sampled_from([0, 0, 120, -330, 14 * 60, -12 * 60]),
)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "text": texts,
    "int": whole,
    "number": numbers,
    "boolean": st.booleans(),
    "date": dates,
    "uuid": st.uuids().map(str),
}
FLAT = SCALARS | {f"{name}_array": st.lists(values, max_size=4) for name, values in SCALARS.items()}
inner = st.fixed_dictionaries({}, optional=FLAT)
ALL = FLAT | {
    "geo_coordinates": st.fixed_dictionaries({"latitude": degrees, "longitude": degrees}),
    "object": inner,
    "object_array": st.lists(inner, max_size=3),
}


def create_collection(client: Client) -> None:
    """Create the collection, with a property for each type."""

    def of(name: str) -> property_pb.Property:
        made = property_pb.Property(name=name, data_type=property_pb.DataType.Value(f"DATA_TYPE_{name.upper()}"))
        if name in ("text", "text_array"):
            # By words, half of all texts have none to compare.
            made.tokenization = property_pb.TOKENIZATION_FIELD
        if name.startswith("object"):
            made.nested_properties.extend(of(each) for each in FLAT)
        return made

    types = {name.removeprefix("DATA_TYPE_").lower() for name, _ in property_pb.DataType.items()}
    assert types == ALL.keys() | {"unspecified", "blob", "blob_hash"}, "every type takes part"
    client.create_collection(
        pb.Collection(name=NAME, properties=map(of, ALL), vectors=[pb.VectorConfig(name="default")])
    )
    # Weaviate 1.39 refuses a place while its index holds none but such that were replaced.
    _write(client, {"geo_coordinates": {"latitude": 0.0, "longitude": 0.0}}, uuid4())


def check_values(client: Client, examples: int) -> None:
    """Write, read, write back, change and filter generated objects."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example({"number": 1e17, "object": {"int": 3, "number": 1e17}})
    @example({name: [] for name in ALL if name.endswith("_array")})
    @example({"object": {}, "object_array": [{}, {"boolean": False}]})
    @given(st.fixed_dictionaries({}, optional=ALL))
    def check(values: Mapping[str, Any]) -> None:
        id_ = uuid4()
        _write(client, values, id_)
        read = client.get_object(NAME, id_)
        assert repr(_sorted(read.properties)) == repr(_sorted(_as_read(values)))

        _write(client, read.properties, UUID(read.id))
        client.update_object(NAME, Object(read.properties, id=id_))
        assert repr(_sorted(client.get_object(NAME, id_).properties)) == repr(_sorted(read.properties))

        for name, value in read.properties.items():
            for what, filter_ in _filters(name, value).items():
                found = client.list_objects(NAME, filters=all_of(BY_ID.equal(id_), filter_))
                assert [each.id for each in found] == [read.id], f"{name} {what} {value!r}"

    check()


def check_dates_in_order(client: Client) -> None:
    """Compare dates that Weaviate's index knows with such that are beyond it."""
    id_, moment = uuid4(), datetime.combine(date(2026, 1, 31), time(8, tzinfo=UTC))
    _write(client, {"date": moment, "date_array": [moment]}, id_)

    def found(filter_: filter_pb2.Filter) -> bool:
        return len(list(client.list_objects(NAME, filters=all_of(BY_ID.equal(id_), filter_)))) == 1

    for each in (where("date"), where("date_array")):
        for later in ("9999-12-31T23:59:59.999999999Z", "2262-04-11T23:47:17Z", "9999-12-31T23:59:59-14:00"):
            assert (found(each < later), found(each <= later)) == (True, True), later
            assert (found(each > later), found(each >= later)) == (False, False), later
        for earlier in ("0001-01-01T00:00:00Z", "1677-09-21T00:12:43Z", "0001-01-01T00:00:00+14:00"):
            assert (found(each > earlier), found(each >= earlier)) == (True, True), earlier
            assert (found(each < earlier), found(each <= earlier)) == (False, False), earlier
        assert found(each >= moment)
        assert not found(each < moment)


def _write(client: Client, values: Mapping[str, Any], id_: UUID) -> None:
    (outcome,) = client.import_objects(NAME, Object(values, id=id_))
    assert outcome.error is None, f"{outcome.error} {values}"


def _as_read(value: Any) -> Any:
    """Return what is read where a value was written: of numbers, an int as far as ints are exact."""
    match value:
        case float() if value.is_integer() and abs(value) <= MAX_EXACT_INT and str(value) != "-0.0":
            return int(value)
        case list():
            return [_as_read(each) for each in value]
        case dict():
            return {name: _as_read(each) for name, each in value.items()}
    return value


def _sorted(value: Any) -> Any:
    """Return a value with the parts of all its objects by name; repr tells 1 from 1.0, and 0.0 from -0.0."""
    match value:
        case list():
            return [_sorted(each) for each in value]
        case dict():
            return {name: _sorted(value[name]) for name in sorted(value)}
    return value


def _filters(name: str, value: Any) -> dict[str, filter_pb2.Filter]:
    """Return filters that a value fits, by what they compare."""
    if name.startswith(("object", "geo")) or value == [] or (name.startswith("text") and not _comparable(value)):
        return {}
    target = where(name)
    if isinstance(value, list):
        return {
            "contains all": target.contains_all(value),
            "contains one": target.contains_any(value[-1]),
            "equals one": target.equal(value[0]),
        }
    found = {"equals": target.equal(value), "is among": target.contains_any([value])}
    if name in ("int", "number"):
        found |= {"at least": target >= value, "at most": target <= value}
    return found


def _comparable(value: Any) -> bool:
    return all(re.search("[A-Za-z0-9]", each) for each in (value if isinstance(value, list) else [value]))
