"""Asks an endpoint through a client that others wrote, in an environment that has it: ask.py CLIENT URL MODEL.

Prints a JSON object with what each way of asking gave: {"vectors": [...]} or {"error": "..."}.
"""

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

TEXTS = ["a dog", "a cat"]
LONG = "one two three four five six seven eight nine ten"
MANY = [f"text {number}" for number in range(150)]

Ways = dict[str, Callable[[], Sequence[Sequence[float]]]]


def openai(url: str, model: str) -> Ways:
    """OpenAI's client."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="any")

    def ask(**fields: Any) -> list[list[float]]:
        return [each.embedding for each in client.embeddings.create(**{"model": model, "input": TEXTS} | fields).data]

    return {
        "texts": ask,
        "query": lambda: ask(input="a dog", extra_body={"input_type": "query"}),
        "passages": lambda: ask(model=f"{model}-passage"),
        "another model": lambda: ask(model="text-embedding-3-small"),
        "another dimension": lambda: ask(dimensions=256),
    }


def langchain_openai(url: str, model: str) -> Ways:
    """LangChain's client for OpenAI."""
    import tiktoken
    from langchain_openai import OpenAIEmbeddings

    # The real one would be downloaded. What matters is that there are numbers.
    tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
        "cl100k_base",
        pat_str=r"\S+|\s+",
        mergeable_ranks={bytes([each]): each for each in range(256)},
        special_tokens={},
    )
    default = OpenAIEmbeddings(model=model, base_url=f"{url}/v1", api_key="any")
    client = OpenAIEmbeddings(model=model, base_url=f"{url}/v1", api_key="any", check_embedding_ctx_length=False)
    return {
        "texts": lambda: client.embed_documents(TEXTS),
        "query": lambda: [client.embed_query("a dog")],
        "many": lambda: client.embed_documents(MANY),
        "defaults": lambda: default.embed_documents(TEXTS),
    }


def langchain_nvidia(url: str, model: str) -> Ways:
    """NVIDIA's client for LangChain."""
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    client = NVIDIAEmbeddings(model=model, base_url=f"{url}/v1")
    cutting = NVIDIAEmbeddings(model=model, base_url=f"{url}/v1", truncate="END")
    at_start = NVIDIAEmbeddings(model=model, base_url=f"{url}/v1", truncate="START")
    return {
        "texts": lambda: client.embed_documents(TEXTS),
        "query": lambda: [client.embed_query("a dog")],
        "many": lambda: client.embed_documents(MANY),
        "defaults": lambda: NVIDIAEmbeddings(base_url=f"{url}/v1").embed_documents(TEXTS),
        "long": lambda: client.embed_documents([LONG]),
        "long, truncate END": lambda: cutting.embed_documents([LONG]),
        "long, truncate START": lambda: at_start.embed_documents([LONG]),
        "truncate START": lambda: at_start.embed_documents(TEXTS),
        "another model": lambda: NVIDIAEmbeddings(model="nvidia/nv-embed", base_url=url).embed_documents(TEXTS),
    }


def llama_index_openai(url: str, model: str) -> Ways:
    """LlamaIndex's client for OpenAI."""
    from llama_index.embeddings.openai import OpenAIEmbedding

    client = OpenAIEmbedding(model_name=model, api_base=f"{url}/v1", api_key="any")
    default = OpenAIEmbedding(api_base=f"{url}/v1", api_key="any", max_retries=0)
    return {
        "texts": lambda: client.get_text_embedding_batch(TEXTS),
        "query": lambda: [client.get_query_embedding("a dog")],
        "many": lambda: client.get_text_embedding_batch(MANY),
        "defaults": lambda: default.get_text_embedding_batch(TEXTS),
    }


def llama_index_nvidia(url: str, model: str) -> Ways:
    """NVIDIA's client for LlamaIndex."""
    from llama_index.embeddings.nvidia import NVIDIAEmbedding

    client = NVIDIAEmbedding(model=model, base_url=f"{url}/v1")
    cutting = NVIDIAEmbedding(model=model, base_url=f"{url}/v1", truncate="END")
    return {
        "texts": lambda: client.get_text_embedding_batch(TEXTS),
        "query": lambda: [client.get_query_embedding("a dog")],
        "many": lambda: client.get_text_embedding_batch(MANY),
        "defaults": lambda: NVIDIAEmbedding(base_url=f"{url}/v1").get_text_embedding_batch(TEXTS),
        "long": lambda: client.get_text_embedding_batch([LONG]),
        "long, truncate END": lambda: cutting.get_text_embedding_batch([LONG]),
    }


def litellm(url: str, model: str) -> Ways:
    """LiteLLM, by its providers for OpenAI's API and for NIMs."""
    import litellm

    def ask(provider: str, **fields: Any) -> list[list[float]]:
        names = {"model": f"{provider}/{model}", "api_base": f"{url}/v1", "api_key": "any", "input": TEXTS}
        return [each["embedding"] for each in litellm.embedding(**names | fields).data]

    return {
        "texts": lambda: ask("openai"),
        "query": lambda: ask("nvidia_nim", input=["a dog"], input_type="query", truncate="END"),
        "many": lambda: ask("openai", input=MANY),
        "nim": lambda: ask("nvidia_nim"),
        "another model": lambda: ask("openai", model="openai/text-embedding-3-small", max_retries=0),
    }


def nv_ingest(url: str, model: str) -> Ways:
    """The client of NVIDIA's ingestion pipeline."""
    from nv_ingest_api.util.nim import infer_microservice

    def ask(texts: list[str], **options: Any) -> list[list[float]]:
        return infer_microservice(texts, model, embedding_endpoint=f"{url}/v1", nvidia_api_key="any", **options)

    return {
        "texts": lambda: ask(TEXTS),
        "query": lambda: ask(["a dog"], input_type="query"),
        "long, truncate END": lambda: ask([LONG]),
    }


def main(client: str, url: str, model: str) -> None:
    """Ask in every way, and print what came."""
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, Any]] = {}
    # Some clients print, too.
    with contextlib.redirect_stdout(sys.stderr):
        for way, ask in globals()[client](url, model).items():
            try:
                found[way] = {"vectors": [list(map(float, each)) for each in ask()]}
            except Exception as error:  # noqa: BLE001  # each client has its own
                found[way] = {"error": str(error)}
    json.dump(found, sys.stdout)


main(*sys.argv[1:])
