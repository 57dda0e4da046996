"""Sources of objects: tables, tars and folders of pictures, on disks and object stores.

`fragments` finds what there is, `schema` says which columns it has, `Mapping.bind` checks them against a collection,
`read` reads the rows of a fragment, and `Plan.object` makes an object of each:

    found = fragments(["s3://bucket/products/"])
    plan = Mapping.load(Path("map.toml")).bind(schema(found), collection)
    for fragment in found:
        for batch in read(fragment, plan.columns):
            for row in batch:
                try:
                    store(plan.object(row))
                except RowRefused as error:
                    report(error)

Nothing here knows Ray or gRPC.
"""

from service.sources.errors import InvalidMapping, InvalidSource, RowRefused
from service.sources.fragments import Fragment, fragments, read, schema
from service.sources.mapping import Mapping, NewObject, Plan
from service.sources.rows import Row
from service.sources.schema import Column, Schema

__all__ = [
    "Column",
    "Fragment",
    "InvalidMapping",
    "InvalidSource",
    "Mapping",
    "NewObject",
    "Plan",
    "Row",
    "RowRefused",
    "Schema",
    "fragments",
    "read",
    "schema",
]
