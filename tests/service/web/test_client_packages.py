"""Clients that others wrote, as their packages are: with the settings that the page gives, and with their defaults.

They are installed once into an environment of their own in the cache folder, from their own lock.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from embedders.contract import ImageInput, Modality, TextImageInput, TextInput
from tests.environments import python_with
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.web import MODEL, Web, data_uri, web_in_thread

LOCK = Path(__file__).parents[3] / "requirements-clients.txt"
PROGRAM = Path(__file__).parent / "clients" / "ask.py"
MANY = [f"text {number}" for number in range(150)]
CLIENTS = (
    "openai",
    "langchain_openai",
    "langchain_nvidia",
    "llama_index_openai",
    "llama_index_nvidia",
    "litellm",
    "nv_ingest",
)
# Nothing of a client is asked for elsewhere: neither prices nor how it is used.
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "PATH": "/usr/bin:/bin"}

Report = dict[str, dict[str, Any]]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def python() -> Path:
    """Return the Python of an environment with all clients."""
    return python_with(LOCK, name="clients")


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_in_thread(FakeEmbedder(dimension=64, max_text_tokens=8)) as running:
        yield running


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module", params=CLIENTS)
def asked(request: pytest.FixtureRequest, python: Path, web: Web, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return what a client got."""
    home = {"HOME": str(tmp_path_factory.mktemp("home"))}
    report = run(python, "-I", PROGRAM, request.param, web.url, MODEL, env=ENVIRONMENT | home)
    return {"client": {"name": request.param}, **json.loads(report)}


def expected(web: Web, *texts: str) -> np.ndarray:
    return np.stack([web.embedder.vector(text) for text in texts])


def test_texts_and_queries_are_answered(web: Web, asked: Report) -> None:
    for way, texts in {
        "texts": ("a dog", "a cat"),
        "query": ("a dog",),
        "passages": ("a dog", "a cat"),
        "nim": ("a dog", "a cat"),
        "truncate START": ("a dog", "a cat"),
        "many": MANY,
        "long, truncate END": ("one two three four five six",),
        "long, truncate START": ("five six seven eight nine ten",),
    }.items():
        if way in asked or way in ("texts", "query"):
            assert "vectors" in asked[way], (way, asked[way])
            np.testing.assert_array_equal(np.array(asked[way]["vectors"], np.float32), expected(web, *texts))


REFUSALS = {
    "openai": {
        "another model": f"this server has no model 'text-embedding-3-small'; it has: {MODEL}",
        "another dimension": f"dimensions: is 256; {MODEL} has 64 on this server",
    },
    "langchain_openai": {
        "defaults": "send the text itself (in LangChain's OpenAIEmbeddings: check_embedding_ctx_length="
    },
    "langchain_nvidia": {
        "long": "input[0]: the text has 12 tokens; the model reads 8; shorten or truncate it",
        "another model": f"this server has no model 'nvidia/nv-embed'; it has: {MODEL}",
    },
    "llama_index_openai": {"defaults": f"this server has no model 'text-embedding-ada-002'; it has: {MODEL}"},
    "llama_index_nvidia": {"long": "input[0]: the text has 12 tokens; the model reads 8; shorten or truncate it"},
    "litellm": {"another model": f"this server has no model 'text-embedding-3-small'; it has: {MODEL}"},
    "nv_ingest": {},
}
"""What fails by design, and the words that the client shows."""


def test_what_fails_by_design_says_what_to_do(asked: Report) -> None:
    for way, words in REFUSALS[asked["client"]["name"]].items():
        assert words in asked[way]["error"], (way, asked[way])


@pytest.mark.parametrize("asked", ["langchain_nvidia", "llama_index_nvidia"], indirect=True)
def test_nvidia_s_clients_find_the_model_by_themselves(web: Web, asked: Report) -> None:
    np.testing.assert_array_equal(np.array(asked["defaults"]["vectors"], np.float32), expected(web, "a dog", "a cat"))


def nemo_retriever(texts: list[str], pictures: list[bytes | None], model: str) -> dict[str, Any]:
    """Return a request as NeMo-Retriever 26.8 sends it; that package needs a newer Python, and Ray."""
    inputs, modalities = [], []
    for text, picture_ in zip(texts, pictures, strict=True):
        url = "" if picture_ is None else data_uri(picture_)
        modalities.append("text" if picture_ is None else "text_image" if text.strip() else "image")
        inputs.append(f"{text}\n{url}" if text and url else url or text)
    kinds = modalities[0] if len(set(modalities)) == 1 else modalities
    passages = {"encoding_format": "float", "input_type": "passage", "truncate": "END", "modality": kinds}
    return {"model": model, "input": inputs, **passages}


def test_what_nemo_retriever_sends_is_embedded_as_it_says() -> None:
    embedder = FakeEmbedder(modalities=frozenset(Modality))
    html = f"<img src='{data_uri(picture())}'>"
    with web_in_thread(embedder) as web:
        embedder.calls.clear()
        texts = nemo_retriever(["a dog", html], [None, None], MODEL)
        pages = nemo_retriever(["a dog", "", "a cat"], [picture(), picture((1, 2, 3)), None], MODEL)
        answers = [httpx.post(f"{web.url}/v1/embeddings", json=each) for each in (texts, pages)]

    assert [each.status_code for each in answers] == [200, 200]
    assert [inputs for inputs, _ in embedder.calls] == [
        [TextInput("a dog", truncate=True), TextInput(html, truncate=True)],
        [
            TextImageInput("a dog", picture(), truncate=True),
            ImageInput(picture((1, 2, 3))),
            TextInput("a cat", truncate=True),
        ],
    ]
