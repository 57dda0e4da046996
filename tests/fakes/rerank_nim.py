"""A simulated reranking NIM: the documented rules, and scores by shared letters and by the colour of pictures.

The rules are those of docs.nvidia.com/nim/nemo-retriever, reranking 2.4, use-the-api-openai; this module imports
nothing of the client that it checks.
"""

import base64
import binascii
import io
import re
from collections.abc import Callable
from typing import Any

from PIL import Image

from tests.fakes.nim_server import Refusal, SimulatedNim

MAX_PASSAGES = 512
DATA_URL = re.compile(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/]+=*)")
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}


class FakeRerankNim(SimulatedNim):
    """Serves POST /v1/ranking; see SimulatedNim for what it checks and records.

    A passage has a point for each letter that its text shares with the query, and for each 10 of the green of its
    picture's first pixel.

    Attributes:
        refuses: says which passages are refused.
        fails: says which passages make it answer 500.
        refuses_query: says which queries are refused.
    """

    post_path = "/v1/ranking"

    def __init__(
        self,
        *,
        model: str = "nvidia/llama-nemotron-rerank-vl-1b-v2",
        api_key: str | None = None,
        path: str = "",
        pictures: bool = True,
        max_words: int = 1000,
    ) -> None:
        """Make one; `pictures` says whether the model reads them, `max_words` the length of query and passage."""
        super().__init__(model, api_key=api_key, path=path)
        self.pictures = pictures
        self.max_words = max_words
        self.refuses: Callable[[dict[str, str]], bool] = lambda _: False
        self.fails: Callable[[dict[str, str]], bool] = lambda _: False
        self.refuses_query: Callable[[str], bool] = lambda _: False

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the passages' logits, best first.

        Raises:
            Refusal: the request is refused.
        """
        query, passages = self._query(request), self._passages(request)
        if self.refuses_query(query):
            raise Refusal("query: not taken", broken=False)
        if any(map(self.refuses, passages)):
            raise Refusal("passages: one is not taken", broken=False)
        if any(map(self.fails, passages)):
            raise Refusal("inference failed", 500, broken=False)
        scores = [self._score(query, each, request.get("truncate", "NONE")) for each in passages]
        ranked = sorted(range(len(scores)), key=lambda at: -scores[at])
        tokens = sum(len(each.get("text", "").split()) for each in passages)
        return {
            "rankings": [{"index": at, "logit": scores[at]} for at in ranked],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _query(self, request: dict[str, Any]) -> str:
        if extra := sorted(request.keys() - {"model", "query", "passages", "truncate"}):
            raise Refusal(f"{extra[0]}: Extra inputs are not permitted")
        if request.get("model") != self.model:
            raise Refusal(f"the model {request.get('model')} is unknown", 404, broken=False)
        if request.get("truncate", "NONE") not in ("NONE", "END"):
            raise Refusal("truncate: NONE or END")
        query = request.get("query")
        if not isinstance(query, dict) or query.keys() != {"text"} or not isinstance(query["text"], str):
            raise Refusal("query: an object with a text")
        if not query["text"].strip():
            raise Refusal("query: the text is empty")
        return str(query["text"])

    def _passages(self, request: dict[str, Any]) -> list[dict[str, str]]:
        passages = request.get("passages")
        if not isinstance(passages, list) or not 1 <= len(passages) <= MAX_PASSAGES:
            raise Refusal(f"passages: 1 to {MAX_PASSAGES}")
        for each in passages:
            if not isinstance(each, dict) or not each or each.keys() - {"text", "image"}:
                raise Refusal("passages: each has a text, an image, or both")
            if "text" in each and not (isinstance(each["text"], str) and each["text"].strip()):
                raise Refusal("passages: a text is empty; leave it out")
            if "image" in each:
                if not self.pictures:
                    raise Refusal("passages: the model reads no images", broken=False)
                _picture(each["image"])
        return passages

    def _score(self, query: str, passage: dict[str, str], truncate: str) -> float:
        text = passage.get("text", "")
        if truncate == "NONE" and len(query.split()) + len(text.split()) > self.max_words:
            raise Refusal(f"Input length exceeds maximum allowed token size {self.max_words}", broken=False)
        text = " ".join(text.split()[: self.max_words])
        green = 0.0
        if "image" in passage:
            pixel = _picture(passage["image"]).convert("RGB").getpixel((0, 0))
            assert isinstance(pixel, tuple)
            green = pixel[1] / 10
        return len(set(text) & set(query) - {" "}) + green


def _picture(url: object) -> Image.Image:
    found = DATA_URL.fullmatch(url) if isinstance(url, str) else None
    try:
        content = base64.b64decode(found[2], validate=True) if found else b""
    except binascii.Error as error:
        raise Refusal("passages: bad base64") from error
    if found is None or not content.startswith(MAGIC[found[1]]):
        raise Refusal("passages: an image is no PNG or JPEG in a data URL")
    return Image.open(io.BytesIO(content))
