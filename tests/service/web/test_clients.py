"""Clients that others wrote: OpenAI's, and schemathesis with the document that the endpoint serves."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openai import OpenAI
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from embedders.contract import EmbedOptions, Input, Outcome
from embedders.errors import (
    AnswerInvalid,
    CallerKeyRejected,
    CredentialRejected,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    ModelGone,
)
from embedders.texts import is_blank
from service.core.embedder_pool import EmbedderPool
from service.error_table import TABLE
from service.settings import AuthSettings, WebSettings
from service.web.endpoint import API_VERSION
from service.web.models import Models
from service.web.openapi import ERROR_STATUSES, openapi_document
from service.web.wire import CHOICES
from tests.fakes.clients import key_of, let_in
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.web import MODEL, Web, data_uri, web_in_thread


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_in_thread(FakeEmbedder(dimension=64, max_text_tokens=77)) as running:
        yield running


@pytest.fixture
def client(web: Web) -> Iterator[OpenAI]:
    web.embedder.failure = None
    with OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_s_client_gets_vectors_in_its_own_default_encoding_and_in_floats(web: Web, client: OpenAI) -> None:
    inputs = ["a cat", data_uri(picture()), "a dog"]
    expected = np.stack([web.embedder.vector(each) for each in ("a cat", picture(), "a dog")])

    packed = client.embeddings.create(model=MODEL, input=inputs)
    floats = client.embeddings.create(model=MODEL, input=inputs, encoding_format="float")
    (one,) = client.embeddings.create(model=MODEL, input="a cat", dimensions=64, user="me").data

    for answer in (packed, floats):
        np.testing.assert_array_equal(np.array([each.embedding for each in answer.data], np.float32), expected)
        assert [each.index for each in answer.data] == [0, 1, 2]
        assert answer.model == MODEL
        assert answer.usage.total_tokens == 8
    np.testing.assert_array_equal(np.array(one.embedding, np.float32), expected[0])


def test_openai_s_client_lists_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "vecgate"


def test_openai_s_client_raises_its_own_errors_with_our_words(web: Web, client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="this server has no model") as missing:
        client.embeddings.create(model="text-embedding-3-small", input="a cat")
    with pytest.raises(openai.UnprocessableEntityError, match="at most 2048") as many:
        client.embeddings.create(model=MODEL, input=["a cat"] * 2049)
    with pytest.raises(openai.BadRequestError, match=r"input\[0\]: the text is blank"):
        client.embeddings.create(model=MODEL, input=" ")
    web.embedder.failure = EmbedderRateLimited("too many calls")
    with pytest.raises(openai.RateLimitError, match="too many calls"):
        client.embeddings.create(model=MODEL, input="a cat")

    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert (many.value.code, many.value.type) == ("batch_too_large", "invalid_request_error")
    assert missing.value.request_id


def test_openai_s_client_comes_again_after_the_time_that_it_is_told(web: Web, client: OpenAI) -> None:
    web.embedder.failure = EmbedderUnavailable("down", retry_after_s=0.5)
    web.embedder.calls.clear()

    with pytest.raises(openai.InternalServerError, match="down"):
        client.with_options(max_retries=1).embeddings.create(model=MODEL, input="a cat")

    assert len(web.embedder.calls) == 2


class FailingEmbedder(FakeEmbedder):
    """Raises one fault after the other."""

    faults = itertools.cycle(
        [
            AnswerInvalid("nonsense"),
            CallerKeyRejected("no"),
            CredentialRejected("no"),
            EmbedderOverloaded("full"),
            EmbedderRateLimited("slow", retry_after_s=2),
            EmbedderUnavailable("down"),
            ModelGone("gone"),
            RuntimeError("a bug"),
            TimeoutError(),
        ]
    )

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Raise the next fault."""
        del inputs, options
        raise next(self.faults)


def serve(embedder: FakeEmbedder, auth: AuthSettings | None = None) -> Iterator[str]:
    with web_in_thread(embedder, auth=auth) as running:
        yield running.url


@pytest.fixture(scope="module")
def healthy() -> Iterator[str]:
    yield from serve(FakeEmbedder(max_text_tokens=77))


@pytest.fixture(scope="module")
def failing() -> Iterator[str]:
    yield from serve(FailingEmbedder(max_text_tokens=77))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("access") / "clients.toml"
    yield from serve(FakeEmbedder(max_text_tokens=77), let_in(file, reader='permissions = ["search"]'))


def has_what_the_document_cannot_refuse(body: object) -> bool:
    """Return whether a body has blank texts, says that its texts are images, or names two roles."""
    if not isinstance(body, dict):
        return False
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    blank = any(isinstance(text, str) and is_blank(text) for text in texts)
    role = str(body.get("model")).rpartition("-")[2]
    two_roles = role in CHOICES["input_type"] and body.get("input_type") not in (None, role)
    return blank or two_roles or body.get("modality") not in (None, "text", ["text"])


def schema_of(auth: AuthSettings) -> schemathesis.schemas.BaseSchema:
    """Return the document that a server with these settings serves."""
    models = Models(EmbedderPool([FakeEmbedder()]))
    return schemathesis.openapi.from_dict(openapi_document(WebSettings(), auth, models, API_VERSION))


opened = schema_of(AuthSettings())
closed = schema_of(AuthSettings.model_construct(clients_file=Path("clients.toml")))
examples = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@opened.parametrize()
@examples
def test_every_answer_is_as_the_document_says_and_no_body_is_too_strange(healthy: str, case: schemathesis.Case) -> None:
    unlike = [positive_data_acceptance] if has_what_the_document_cannot_refuse(case.body) else []
    case.call_and_validate(base_url=healthy, excluded_checks=unlike)


@opened.parametrize()
@examples
def test_answers_of_a_server_whose_embedder_fails_are_as_the_document_says(
    failing: str, case: schemathesis.Case
) -> None:
    # What makes sense and what does not fails with the same fault.
    blind = [not_a_server_error, negative_data_rejection, positive_data_acceptance]
    case.call_and_validate(base_url=failing, excluded_checks=blind)


@closed.parametrize()
@examples
@pytest.mark.parametrize("key", [key_of("reader"), "wrong"])
def test_answers_to_clients_that_may_not_embed_are_as_the_document_says(
    guarded: str, case: schemathesis.Case, key: str
) -> None:
    # schemathesis leaves keys out by itself, too, but these headers stay.
    headers = {"authorization": f"Bearer {key}"}
    case.call_and_validate(base_url=guarded, headers=headers, excluded_checks=[ignored_auth])


def test_the_document_has_every_status_that_an_error_may_lead_to() -> None:
    of_http = {400, 405, 408, 413, 415, 422, 431}
    assert set(map(int, ERROR_STATUSES)) == {rule.http for rule in TABLE.values()} | of_http
