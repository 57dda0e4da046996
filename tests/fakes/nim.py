"""Simulated embedding NIMs: the documented rules of each family, vectors made from a hash, faults on request.

The rules are those of the pages that embedders/nim/profiles.py names, written down a second time: this module imports
nothing of the client that it checks.
"""

import base64
import binascii
import hashlib
import re
import ssl
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedders.contract import Vector
from tests.fakes.nim_server import Fault, Refusal, SimulatedNim

__all__ = ["FakeNim", "FakePair", "Fault"]

DATA_URL = re.compile(r"data:image/(jpg|jpeg|png);base64,([A-Za-z0-9+/]+=*)")
ANY_DATA_URL = re.compile(r"data:image", re.IGNORECASE)
TEXT_AND_URL = re.compile(r"(.*)[ \n](data:image\S*)", re.DOTALL)
MAGIC = {"jpg": b"\xff\xd8\xff", "jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
PRECISION = re.compile(r"-(bf16|nvfp4|fp8)(-ea)?$")
VALUES = {
    "encoding_format": ("float", "base64"),
    "embedding_type": ("float",),
    "truncate": ("NONE", "START", "END"),
    "input_type": ("query", "passage"),
}
"""Values of fields; of `embedding_type` those that every family has, and this simulation."""
ANY_POSITIVE = range(1, 2**31)


class FakePair(NamedTuple):
    """A text and an image file in one input."""

    text: str
    image: bytes


Content = str | bytes | FakePair
"""What an item of `input` means: a text, an image file, or both."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The rules of a family of models.

    Attributes:
        patterns: ids in lower case without the publisher.
        kinds: values of `modality` that the model reads.
        retriever: whether it takes `input_type`, `modality`, `truncate`, `embedding_type` and `user`.
        needs_role: whether a request without `input_type` is refused.
        dimensions: what may be asked for; empty: the field is refused.
        told: whether those are documented, so that a client can know them.
        max_inputs: of a request; None: no bound is documented.
        unit: whether vectors are of unit length.
        status: of a request that breaks the schema.
    """

    patterns: tuple[str, ...]
    kinds: frozenset[str] = frozenset({"text", "image", "text_image"})
    retriever: bool = True
    needs_role: bool = False
    dimensions: Container[int] = ()
    told: bool = True
    max_inputs: int | None = None
    unit: bool = False
    status: int = 400


TEXT_ONLY = frozenset({"text"})
FAMILIES = (
    Family(
        patterns=("nvclip*",),
        kinds=frozenset({"text", "image"}),
        retriever=False,
        max_inputs=64,
        unit=True,
        status=422,
    ),
    Family(patterns=("nemotron-3.5-embed-8b*",), dimensions=ANY_POSITIVE, told=False),
    Family(patterns=("nemotron-3.5-embed-*",), dimensions=ANY_POSITIVE, told=False),
    Family(patterns=("llama-nemotron-embed-vl-*",), dimensions=ANY_POSITIVE, told=False),
    Family(patterns=("llama-3*2-nemoretriever-*-vlm-embed-*",), dimensions=ANY_POSITIVE, told=False),
    Family(
        patterns=("llama-nemotron-embed-*",),
        kinds=TEXT_ONLY,
        needs_role=True,
        dimensions=(384, 512, 768, 1024, 2048),
    ),
    Family(patterns=("nemotron-3-embed-*",), kinds=TEXT_ONLY, needs_role=True),
    Family(patterns=("nv-embedqa-*",), kinds=TEXT_ONLY, needs_role=True),
    Family(patterns=("bge-*",), kinds=TEXT_ONLY),
    # A server of another maker, with OpenAI's fields and pictures by their data URL.
    Family(patterns=("*",), retriever=False, unit=True),
)


def family_of(model: str) -> Family:
    """Return the family of a served id."""
    short = model.rpartition("/")[2].lower()
    return next(each for each in FAMILIES if any(fnmatchcase(short, pattern) for pattern in each.patterns))


class FakeNim(SimulatedNim):
    """Serves POST /v1/embeddings as the family of its model does; see SimulatedNim for what it checks and records.

    Vectors depend on the content, the role and the model alone. Models have different spaces; precisions of one model
    (BF16, NVFP4, FP8) have nearly the same. `dimensions` gives the first values of the full vector. A text is near
    itself in the other role, and near an input of the text with a picture, as the picture is.

    Attributes:
        refuses: says which items of `input` are refused.
        said: the body of a refusal, instead of the documented one.
        fails: says which items of `input` make it answer 500.
    """

    post_path = "/v1/embeddings"

    def __init__(
        self,
        *,
        model: str = "nvidia/nvclip",
        dimension: int = 16,
        index_base: int = 0,
        floats: bool = False,
        api_key: str | None = None,
        path: str = "",
        max_words: int = 1000,
        too_long: int = 400,
        release: Literal["1.x", "2.x", "hosted"] = "2.x",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make one.

        Args:
            model: the served id, which decides on the family.
            dimension: values of a vector; few by default, for speed.
            index_base: the number of the first vector of an answer.
            floats: whether it answers lists of numbers whatever was asked for.
            api_key: the key that it wants.
            path: stands before /v1.
            max_words: a longer text is over-long, if the family has `truncate`.
            too_long: the status for an over-long text.
            release: 1.x has no `modality` for models that read texts only; hosted has other bodies.
            tls: its side of TLS.
        """
        super().__init__(model, api_key=api_key, path=path, tls=tls)
        self.dimension = dimension
        self.index_base = index_base
        self.floats = floats
        self.max_words = max_words
        self.too_long = too_long
        self.release = release
        self.refuses: Callable[[str], bool] = lambda _: False
        self.said: dict[str, Any] | None = None
        self.fails: Callable[[str], bool] = lambda _: False

    @property
    def family(self) -> Family:
        """The rules that it keeps."""
        return family_of(self.model)

    def vector(self, content: Content, role: str | None = None, dimensions: int | None = None) -> Vector:
        """Return the vector of an input as a client should have it: float32, shape (dimension,), unit length."""
        row = self._row(content, role)[:dimensions]
        return (row / np.linalg.norm(row)).astype(np.float32)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a post.

        Raises:
            Refusal: the request is refused.
        """
        items = self._items(request)
        contents = self._contents(request, items)
        if any(map(self.refuses, items)):
            raise Refusal("input: not a text or an image that is taken", self.family.status, broken=False)
        if any(map(self.fails, items)):
            raise Refusal("inference failed", 500, broken=False)
        role, dimensions = request.get("input_type"), request.get("dimensions")
        rows = [self._sent(each, role, dimensions) for each in contents]
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": at, "embedding": self._encode(row, request)}
                for at, row in enumerate(rows, self.index_base)
            ],
            "model": self.model,
            "usage": self._usage(contents),
        }

    def refusal_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return the documented body."""
        if self.said is not None:
            return self.said
        if refusal.status in (422, 500):
            return {"type": "about:blank", "title": str(refusal), "status": refusal.status, "detail": str(refusal)}
        if self.release == "hosted":
            return {"status": refusal.status, "title": "Bad Request", "detail": str(refusal)}
        return {"error": str(refusal)}

    def _row(self, content: Content, role: str | None) -> NDArray[np.float64]:
        """Return the whole vector: float64, shape (dimension,), unit length."""
        short = self.model.rpartition("/")[2].lower()
        space = "nvclip" if short.startswith("nvclip") else PRECISION.sub("", short)
        precision = found[1] if (found := PRECISION.search(short)) else "bf16"

        def own(*parts: str | bytes) -> NDArray[np.float64]:
            data = b"\0".join(each.encode() if isinstance(each, str) else each for each in (space, *parts))
            row = np.random.default_rng(int.from_bytes(hashlib.sha256(data).digest())).standard_normal(self.dimension)
            return np.asarray(row / np.linalg.norm(row))

        match content:
            case str():
                row = own("text", content)
            case bytes():
                row = own("image", content)
            case FakePair():
                row = own("text", content.text) + own("image", content.image) + 0.3 * own("pair", *content)
        if role is not None and not isinstance(content, bytes):
            parts = content if isinstance(content, FakePair) else (content,)
            row = row / np.linalg.norm(row) + 0.3 * own("role", role, *parts)
        if precision != "bf16":
            row = row / np.linalg.norm(row) + 0.1 * own("precision", precision)
        return np.asarray(row / np.linalg.norm(row))

    def _sent(self, content: Content, role: str | None, dimensions: int | None) -> Vector:
        if self.family.unit:
            return self.vector(content, role)
        return (7 * self._row(content, role)[:dimensions]).astype(np.float32)

    def _encode(self, vector: Vector, request: dict[str, Any]) -> object:
        if self.floats or request.get("encoding_format", "float") == "float":
            return vector.tolist()
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()

    def _usage(self, contents: Sequence[Content]) -> dict[str, int]:
        if self.family.max_inputs == 64:
            images = sum(isinstance(each, bytes) for each in contents)
            return {"num_images": images, "prompt_tokens": 77 * len(contents), "total_tokens": 77 * len(contents)}
        words = sum(len(each.split()) for each in contents if isinstance(each, str))
        return {"prompt_tokens": words, "total_tokens": words}

    def _items(self, request: dict[str, Any]) -> list[str]:
        """Return the items of `input` of a request whose other fields are in order."""
        family, status = self.family, self.family.status
        if extra := sorted(request.keys() - self._fields()):
            # No client can know the release.
            raise Refusal(f"{extra[0]}: Extra inputs are not permitted", status, broken=extra != ["modality"])
        if request.get("model") != self.model:
            raise Refusal(f"the model {request.get('model')} is unknown", 422 if status == 422 else 404, broken=False)
        for name, values in VALUES.items():
            if name in request and request[name] not in values:
                raise Refusal(f"{name}: {' or '.join(values)} is required", status)
        if family.needs_role and "input_type" not in request:
            raise Refusal("input_type: query or passage is required", status)
        if (length := request.get("dimensions")) is not None:
            self._check_dimensions(length)
        items = request.get("input")
        items = [items] if isinstance(items, str) else items
        if not isinstance(items, list) or not items or len(items) > (family.max_inputs or len(items)):
            raise Refusal(f"input: 1 to {family.max_inputs or 'any number of'} items", status)
        return items

    def _fields(self) -> set[str]:
        """Return the fields that a request may have."""
        fields = {"input", "model", "encoding_format"}
        if self.family.retriever:
            fields |= {"input_type", "truncate", "embedding_type", "user"}
            if self.release != "1.x" or self.family.kinds != TEXT_ONLY:
                fields |= {"modality"}
        return fields | {"dimensions"} if self.family.dimensions else fields

    def _check_dimensions(self, length: object) -> None:
        if type(length) is not int or length not in self.family.dimensions or length > self.dimension:
            known = self.family.told or type(length) is not int
            words = f"dimensions: {length} is not among those of the model"
            raise Refusal(words, self.family.status, broken=known)

    def _contents(self, request: dict[str, Any], items: Sequence[str]) -> list[Content]:
        """Return what the items mean."""
        kinds = request.get("modality")
        if isinstance(kinds, str) or (isinstance(kinds, list) and len(kinds) == 1):
            kinds = [kinds if isinstance(kinds, str) else kinds[0]] * len(items)
        if kinds is None:
            kinds = [self._inferred(item) for item in items]
        if not isinstance(kinds, list) or len(kinds) != len(items) or not self.family.kinds.issuperset(kinds):
            raise Refusal(f"modality: {kinds} for {len(items)} inputs of {sorted(self.family.kinds)}")
        if request.get("input_type") == "query" and set(kinds) != TEXT_ONLY:
            raise Refusal("input_type: images are taken as passage only")
        return [
            self._content(item, kind, request.get("truncate", "NONE")) for item, kind in zip(items, kinds, strict=True)
        ]

    def _inferred(self, item: str) -> str:
        """Return the kind of an item without `modality`; a text with a data URL in it is refused."""
        if not isinstance(item, str) or ANY_DATA_URL.search(item) is None:
            return "text"
        if item.startswith("data:image"):
            return "image"
        raise Refusal("input: a text holds an image data URL; set modality to text", self.family.status)

    def _content(self, item: str, kind: str, truncate: str) -> Content:
        status = self.family.status
        if not isinstance(item, str) or not item.strip():
            raise Refusal("input: an item is empty or no string", status)
        if kind == "text":
            if not self.family.retriever and "\n" in item:
                raise Refusal("input: does not match ^.*$", status)
            return self._cut(item, truncate)
        if kind == "image":
            return self._image(item)
        found = TEXT_AND_URL.fullmatch(item)
        if found is None or not found[1].strip() or ANY_DATA_URL.search(found[1]):
            raise Refusal("input: text_image needs a text that is not blank, and one data URL behind it", status)
        return FakePair(self._cut(found[1], truncate), self._image(found[2]))

    def _cut(self, text: str, truncate: str) -> str:
        """Return a text, cut as asked."""
        words = text.split()
        if not self.family.retriever or len(words) <= self.max_words:
            return text
        if truncate == "NONE":
            said = f"Input length {len(words)} exceeds maximum allowed token size {self.max_words}"
            raise Refusal(said, self.too_long, broken=False)
        return " ".join(words[: self.max_words] if truncate == "END" else words[-self.max_words :])

    def _image(self, item: str) -> bytes:
        url = DATA_URL.fullmatch(item)
        try:
            content = base64.b64decode(url[2], validate=True) if url else b""
        except binascii.Error as error:
            raise Refusal("input: bad base64", self.family.status) from error
        if url is None or not content.startswith(MAGIC[url[1]]):
            raise Refusal("input: no JPEG or PNG in a data URL", self.family.status)
        return content
