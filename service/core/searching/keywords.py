"""Whether words can be looked for in the properties that a query names."""

from service.domain import Collection, DataType
from service.errors import InvalidRequest, Violation
from service.searches import Keywords

__all__ = ["check_keyword_properties"]


def check_keyword_properties(collection: Collection, keywords: Keywords, path: str) -> None:
    """Check the properties that a query names.

    Raises:
        InvalidRequest: one is not there, holds no text, or has a weight that is none; all violations are listed.
    """
    texts = [each.name for each in collection.properties if each.data_type in (DataType.TEXT, DataType.TEXT_ARRAY)]
    violations = []
    for index, each in enumerate(keywords.properties):
        where = f"{path}.properties[{index}]"
        name, sign, weight = each.partition("^")
        if collection.find_property(name) is None:
            message = f"collection {collection.name!r} has no such property; it has these texts: {', '.join(texts)}"
            violations.append(Violation(where, message, "UNKNOWN_PROPERTY"))
        elif name not in texts:
            message = f"words are looked for in texts only; choose among: {', '.join(texts)}"
            violations.append(Violation(where, message, "INVALID_PROPERTY"))
        elif sign and not weight.isdecimal():
            message = "has no whole number as its weight; write it as title^3"
            violations.append(Violation(where, message, "INVALID_PROPERTY"))
    if violations:
        raise InvalidRequest(violations)
