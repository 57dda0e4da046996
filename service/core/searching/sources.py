"""Which part of a query becomes a vector, and where it stands in the request."""

from collections.abc import Iterator
from dataclasses import dataclass

from embedders.contract import TextInput
from service.core.searching.queries import Hybrid, Near, NearImage, NearInputs, NearText, NearVector

FIELDS: dict[type[Near], str] = {
    NearText: "near_text",
    NearImage: "near_image",
    NearVector: "near_vector",
    NearInputs: "near_inputs",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What becomes the query's vector.

    Attributes:
        path: its field in the request.
    """

    near: Near
    path: str

    def text_paths(self, count: int) -> list[str]:
        """Return the paths of the texts."""
        if self.path.endswith("bm25.query"):
            return [self.path]
        return [f"{self.path}.concepts[{index}]" for index in range(count)]

    def contents(self) -> Iterator[tuple[str, TextInput | NearVector]]:
        """Yield the texts and the caller's own vectors, each with its path."""
        match self.near:
            case NearVector():
                yield self.path, self.near
            case NearText(concepts, truncate):
                for path, text in zip(self.text_paths(len(concepts)), concepts, strict=True):
                    yield path, TextInput(text, truncate)
                for name, move in self.near.moves():
                    for index, text in enumerate(move.concepts):
                        yield f"{self.path}.{name}.concepts[{index}]", TextInput(text, truncate)
            case NearInputs(inputs, truncate):
                for index, (content, _) in enumerate(inputs):
                    where = f"{self.path}.inputs[{index}]"
                    if isinstance(content, NearVector):
                        yield f"{where}.near_vector", content
                    elif isinstance(content, str):
                        yield f"{where}.text", TextInput(content, truncate)

    def own_spaces(self) -> set[str]:
        """Return the spaces that the caller's own vectors come from, empty for one that is not said."""
        match self.near:
            case NearVector(space=space):
                return {space}
            case NearInputs(inputs):
                return {content.space for content, _ in inputs if isinstance(content, NearVector)}
        return set()


def vector_source(query: Near | Hybrid) -> Source:
    """Return what of a query becomes its vector."""
    if not isinstance(query, Hybrid):
        return Source(query, FIELDS[type(query)])
    if query.near is not None:
        return Source(query.near, f"hybrid.{FIELDS[type(query.near)]}")
    assert query.blend.keywords is not None, "a hybrid search has words or a vector side"
    return Source(NearText((query.blend.keywords.query,), query.truncate), "hybrid.bm25.query")
