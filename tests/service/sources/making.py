"""Collections and tars for the tests of sources."""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from service.domain.collections import Collection, DataType, NamedVector, Property, Space
from service.sources import Fragment, NewObject, Plan, Row, RowRefused, read

SPACE = Space("fake-space", 2, "fake")


def collection(*properties: Property, **types: DataType) -> Collection:
    """Return a collection with properties by name and one named vector, `default`."""
    made = (Property(name, kind) for name, kind in types.items())
    return Collection("Things", (*made, *properties), (NamedVector("default", SPACE),))


def tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def rows_of(found: Sequence[Fragment], columns: Sequence[str] | None = None) -> Iterator[Row]:
    for fragment in found:
        for batch in read(fragment, columns):
            yield from batch


def objects_of(found: Sequence[Fragment], plan: Plan) -> tuple[list[NewObject], list[str]]:
    """Return the objects, and why the other rows are refused."""
    made, refused = [], []
    for row in rows_of(found, plan.columns):
        try:
            made.append(plan.object(row))
        except RowRefused as error:
            refused.append(str(error))
    return made, refused
