"""Values made from a JSON schema of the kinds of words that values.schema.json uses."""

from functools import cache
from typing import Any

from hypothesis import strategies as st


def values_of(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for what fits a schema, but for its `if`, `not` and `contains`, which not all of it keeps.

    Args:
        schema: to fit.
        root: where `$ref` leads to.
    """
    if "$ref" in schema:
        return values_of(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if fixed := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return st.sampled_from(fixed)
    if "anyOf" in schema and "type" not in schema:
        return st.one_of(*(values_of(each, root) for each in schema["anyOf"]))
    if isinstance(schema.get("type"), list):
        return st.one_of(*(values_of({**schema, "type": each}, root) for each in schema["type"]))
    if "allOf" in schema and "type" not in schema:
        # The first part says what it is, the others narrow it down.
        return values_of(_joined(schema["allOf"], root), root)
    return _BY_TYPE[schema["type"]](schema, root)


def _joined(parts: list[dict[str, Any]], root: dict[str, Any]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for part in parts:
        resolved = root["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        joined |= {key: value for key, value in resolved.items() if key not in {"if", "then", "properties", "required"}}
        joined["properties"] = joined.get("properties") or resolved.get("properties", {})
    return joined


def _object(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    # A null takes a chart's own value away.
    known = {name: st.none() | values_of(each, root) for name, each in schema.get("properties", {}).items()}
    chosen = st.fixed_dictionaries({}, optional=known)
    others = schema.get("additionalProperties")
    if not isinstance(others, dict):
        return chosen
    names = values_of({"type": "string", **schema["propertyNames"]}, root)
    return st.dictionaries(names, values_of(others, root), max_size=3)


def _array(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.lists(values_of(schema["items"], root), min_size=schema.get("minItems", 0), max_size=3)


@cache
def _matching(pattern: str) -> st.SearchStrategy[str]:
    # A class of most of Unicode takes its strategy a second to unfold, so each is unfolded once.
    return st.from_regex(pattern, fullmatch=True)


def _string(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        made = _matching(schema["pattern"])
        return made.filter(lambda text: schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 300))
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 50), 50))


def _integer(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.integers(schema.get("minimum", -100), schema.get("maximum", 2**53))


def _number(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    return st.floats(low, schema.get("maximum"), exclude_min="exclusiveMinimum" in schema, allow_nan=False)


_BY_TYPE = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda _schema, _root: st.booleans(),
    "null": lambda _schema, _root: st.none(),
}
