"""Whether words can be looked for in the properties that a query names."""

from service.core.searching.queries import Hybrid, Query
from service.core.unknown import some_of, unknown_property
from service.domain import TEXTS, Collection, Keywords
from service.errors import Violation, collecting


def check_keyword_properties(collection: Collection, query: Query) -> None:
    """Check the properties in which a query looks for words, if it does.

    Raises:
        InvalidRequest: one is not there, holds no text, or has a weight that is none; all violations are listed.
    """
    if isinstance(query, Keywords):
        _check(collection, query, "bm25")
    elif isinstance(query, Hybrid) and query.blend.keywords is not None:
        _check(collection, query.blend.keywords, "hybrid.bm25", needed=query.blend.alpha != 1)


def _check(collection: Collection, keywords: Keywords, path: str, *, needed: bool = True) -> None:
    texts = {each.name: None for each in collection.properties if each.searchable}
    with collecting() as violations:
        if needed and not keywords.properties and not texts:
            message = f"collection {collection.name!r} has no text in which words can be looked for"
            violations.append(Violation(path, f"{message}; set index_searchable of one", "INVALID_PROPERTY"))
        seen: set[str] = set()
        for index, each in enumerate(keywords.properties):
            where = f"{path}.properties[{index}]"
            name, sign, weight = each.partition("^")
            found = collection.find_property(name)
            if name in seen:
                violations.append(Violation(where, "names a property twice; name each once"))
            seen.add(name)
            if found is None:
                violations.append(unknown_property(collection, where, texts, "text"))
            elif name not in texts:
                text = found.data_type in TEXTS
                rule = "the text's index_searchable is false" if text else "words are looked for in texts only"
                message = f"{rule}; choose among: {some_of(texts)}"
                violations.append(Violation(where, message, "INVALID_PROPERTY"))
            elif sign and not weight.isdecimal():
                message = "has no whole number as its weight; write it as title^3"
                violations.append(Violation(where, message, "INVALID_PROPERTY"))
