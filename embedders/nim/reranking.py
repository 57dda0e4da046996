"""The reranker that calls a NIM: POST /v1/ranking.

Source: docs.nvidia.com/nim/nemo-retriever/reranking 2.4 and text-reranking 2.0.0, use-the-api-openai, read in November
2026: a query that is a text; at most 512 passages, each a text, an image as a data URL (PNG or JPEG), or both; an
image-only passage has no `text`; `truncate` NONE or END; `rankings` of `index` and `logit`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache, partial
from http import HTTPStatus

import numpy as np
import orjson

from embedders.contract import Modality
from embedders.errors import (
    AnswerInvalid,
    InputRejected,
    ModelGone,
)
from embedders.images.decoders import Decoders
from embedders.nim.address import HOSTED, parse_base_url
from embedders.nim.calls import (
    MODELS_PAGE_BYTES,
    READY_PAGE_BYTES,
    Culprits,
    NimBackend,
    NimCallConfig,
    check_callers_key,
)
from embedders.nim.connection import Answer
from embedders.nim.failures import INFERENCE_FAILED, INPUT_AT_FAULT, NimFailures
from embedders.nim.retries import Retries
from embedders.nim.serving import choose_name, read_models
from embedders.nim.wire import READ_AT_ONCE, white_picture, with_picture
from embedders.reranking import Passage, RankOutcome, RerankerSpec, RerankOptions
from embedders.telemetry.timing import preprocessing
from embedders.texts import check_text, cut_text, is_blank

MAX_PASSAGES = 512
"""The most passages of a request, as NVIDIA documents."""

TEXT_ONLY = ("*rerankqa*", "rerank-qa-*", "llama-nemotron-rerank-1b-*", "llama-nemotron-rerank-500m-*")
"""Names, in lower case without the publisher, of models that read no pictures."""

TEXTS, ALL = frozenset({Modality.TEXT}), frozenset(Modality)

MAX_SCORE = float(np.finfo(np.float32).max)
"""Responses of the API hold scores as float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NimRerankConfig(NimCallConfig):
    """The address of a reranking NIM, and how to call it.

    A base_url that ends with /reranking is the whole path of the call, as of NVIDIA's hosted models; it needs a model.
    """

    name: str = "nim-rerank"


class _Failures(NimFailures):
    """Maps the failures of one reranking NIM to errors."""

    def __init__(self, model: Callable[[], str], api_key: str | None, *, keyless: bool) -> None:
        super().__init__(api_key, keyless=keyless)
        self._model = model

    @property
    def model(self) -> str:
        """The name of the model that the NIM is to serve."""
        return self._model()


@dataclass(frozen=True, slots=True)
class _Item:
    """A passage as it is sent, and what it is."""

    content: bytes
    kind: Modality


class NimReranker(NimBackend):
    """Reranks on a NIM, with one pool of connections.

    Scores are the NIM's logits. They are of pairs of query and passage, so that passages of several requests compare.
    """

    def __init__(
        self, config: NimRerankConfig, *, retries: Retries | None = None, decoders: Decoders | None = None
    ) -> None:
        """Make one; `retries` replaces those of the configuration. Without decoders it has its own.

        Raises:
            ValueError: an address, a key or ca_file is invalid, or the model of a hosted one is missing.
        """
        self._hosted = parse_base_url(config.base_url).endswith(HOSTED)
        if self._hosted and config.model is None:
            raise ValueError(f"base_url ends with {HOSTED}, where no list of models is; set model")
        self._config = config
        self._failures = _Failures(lambda: self.spec.model, config.api_key, keyless=config.keyless)
        super().__init__(config, retries=retries, failures=self._failures, decoders=decoders)
        self.spec = RerankerSpec(
            name=config.name,
            model=config.model or "",
            modalities=_reads(config.model or ""),
            limits=config.limits,
            slots=config.max_connections,
            caller_keys=config.caller_keys,
        )

    async def rerank(self, query: str, passages: Sequence[Passage], options: RerankOptions) -> list[RankOutcome]:
        """Score passages in requests of at most MAX_PASSAGES.

        Raises:
            InputRejected: the query is blank or too long, or the NIM rejects it; or the model reads no pictures.
            EmbedderUnavailable: no connection, no answer in time, or a 5xx answer, after retries; 500 only if the NIM
                fails on plain passages, too. Or the model is not known yet. EmbedderRateLimited for 429.
            CredentialRejected: the NIM answers 401, 402 or 403; CallerKeyRejected if the key is the caller's.
            ModelGone: the NIM answers 404 or 410, or rejects every passage because of the model's name.
            ModelUnusable: no model is set, and the NIM's list does not tell which one to use.
            AnswerInvalid: the answer does not hold one score for each passage, or the NIM rejects every passage.
        """
        return await self._life.run(self._rerank(query, passages, options))

    async def check(self) -> None:
        """Ask whether the NIM is ready, then rerank a short text, and learn the model if it is unknown.

        A NIM that refused a plain picture is asked again whether it takes one.

        If only callers have keys, a NIM that requires a key passes the check.

        Raises:
            EmbedderError: as `rerank`.
        """
        await self._life.run(self._check())

    async def _rerank(self, query: str, passages: Sequence[Passage], options: RerankOptions) -> list[RankOutcome]:
        key = options.api_key
        check_callers_key(key)
        query = check_text(query, self.spec.limits, truncate=False)
        if not self.spec.model:
            await self._learn(key)
        asked = _Asked(query, "END" if options.truncate else "NONE", key)
        outcomes: dict[int, RankOutcome] = {}
        async with contextlib.aclosing(self._requests(passages, outcomes)) as requests:
            async for request in requests:
                outcomes |= zip(request, await self._scores(asked, list(request.values())), strict=True)
        return [outcomes[at] for at in range(len(passages))]

    async def _check(self) -> None:
        with self._keys_are_the_callers():
            if not self._hosted:
                answer = await self._calls.send("GET", "/v1/health/ready", max_bytes=READY_PAGE_BYTES, checking=True)
                # Some gateways lack this page; then the passage alone decides.
                if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                    raise self._failures.of(answer, None)
            if not self._wants_key:
                await self._learn(None, checking=True)
                plain = _Asked("ready", "END", None)
                await self._require_plain(plain, checking=True)
                if self.spec.modalities != _reads(self.spec.model):
                    await self._try_pictures(plain)

    async def _learn(self, key: str | None, *, checking: bool = False) -> None:
        """Take the model's name from the NIM's list if none is set and none is known."""
        if self.spec.model:
            return
        answer = await self._calls.send("GET", "/v1/models", key=key, max_bytes=MODELS_PAGE_BYTES, checking=checking)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise self._failures.of(answer, key)
        listed = read_models(answer.body) if answer.status == HTTPStatus.OK else []
        self._take(choose_name("", listed, listed, known=lambda name: "rerank" in name.lower()))

    def _take(self, model: str) -> None:
        self.spec = replace(self.spec, model=model, modalities=_reads(model))

    async def _requests(
        self, passages: Sequence[Passage], outcomes: dict[int, RankOutcome]
    ) -> AsyncGenerator[dict[int, _Item]]:
        """Yield one request after the other: its items by their passages' places.

        Args:
            passages: of one call.
            outcomes: receives the errors of invalid passages, by their places.
        """
        filling: dict[int, _Item] = {}
        size = 0
        for start in range(0, len(passages), READ_AT_ONCE):
            # Long texts take milliseconds, and others are to have their turn.
            await asyncio.sleep(0)
            for at, item in enumerate(await self._read(passages[start : start + READ_AT_ONCE]), start):
                if isinstance(item, InputRejected):
                    outcomes[at] = item
                    continue
                size += len(item.content)
                full = size > self._config.max_request_bytes or len(filling) == MAX_PASSAGES
                if filling and full:
                    yield filling
                    filling, size = {}, len(item.content)
                filling[at] = item
        if filling:
            yield filling

    async def _read(self, passages: Sequence[Passage]) -> list[_Item | InputRejected]:
        """Return passages as they are sent."""
        with preprocessing():
            reading = [self._with_picture(each) for each in passages if each.content]
            pictures = iter(await asyncio.gather(*reading) if reading else [])
            return [next(pictures) if each.content else self._item(each) for each in passages]

    async def _with_picture(self, passage: Passage) -> _Item | InputRejected:
        most, write = self._config.max_converted_pixels, partial(self._item, passage)
        return await with_picture(passage.content, self._decoders, self.spec.limits, most, write)

    def _item(self, passage: Passage, url: str = "") -> _Item | InputRejected:
        sent = dict[str, str]()
        text = cut_text(passage.text, self.spec.limits.max_text_bytes)
        if not is_blank(text):
            sent["text"] = text
        if url:
            sent["image"] = url
        if not sent:
            return InputRejected("the passage has neither a text nor a picture")
        kind = Modality.TEXT_IMAGE if len(sent) > 1 else Modality.IMAGE if passage.content else Modality.TEXT
        if kind not in self.spec.modalities:
            return InputRejected(_no_pictures(self.spec))
        return _Item(orjson.dumps(sent), kind)

    async def _scores(self, asked: "_Asked", items: Sequence[_Item]) -> list[RankOutcome]:
        """Score items in one request; if the NIM rejects it or fails on it, find the invalid items."""
        culprits: Culprits[_Item, float] = Culprits(
            ask=lambda some: self._ask(asked, some),
            read=_read,
            require_sense=lambda: self._require_sense(asked, items),
            blame=_blame,
        )
        return await culprits.rows(items)

    async def _require_sense(self, asked: "_Asked", items: Sequence[_Item]) -> None:
        """Find out whether a rejected request is the query's fault, or the NIM's, and raise the error if it is.

        Raises:
            InputRejected: the NIM rejects the query, or all pictures.
            EmbedderError: the NIM rejects plain texts.
        """
        pictures = any(item.kind is not Modality.TEXT for item in items)
        if (await self._ask(asked, [plain_item(pictures=pictures)])).status == HTTPStatus.OK:
            return
        plain = replace(asked, query="ready")
        await self._require_plain(plain)
        if pictures:
            refusal = await self._ask(plain, [plain_item(pictures=True)])
            if refusal.status == INFERENCE_FAILED:
                raise self._failures.of(refusal, asked.key)
            if refusal.status != HTTPStatus.OK:
                self.spec = replace(self.spec, modalities=TEXTS)
                raise InputRejected(_no_pictures(self.spec))
        raise InputRejected("the NIM rejects the query; send a shorter text")

    async def _try_pictures(self, asked: "_Asked") -> None:
        """Send pictures again to a NIM that refused a plain one, if it takes one now."""
        if (await self._ask(asked, [plain_item(pictures=True)], checking=True)).status == HTTPStatus.OK:
            self.spec = replace(self.spec, modalities=_reads(self.spec.model))

    async def _require_plain(self, asked: "_Asked", *, checking: bool = False) -> None:
        answer = await self._ask(asked, [plain_item(pictures=False)], checking=checking)
        if answer.status != HTTPStatus.OK:
            raise self._failures.of_all(answer, "text", asked.key)
        read_rankings(answer.body, count=1)

    async def _ask(self, asked: "_Asked", items: Sequence[_Item], *, checking: bool = False) -> Answer:
        """Send items; return a 200 or a rejection of the input, and raise all other failures."""
        content = ranking_request(self.spec.model, asked.query, [item.content for item in items], asked.truncate)
        path, max_bytes = "" if self._hosted else "/v1/ranking", max_answer_bytes(len(items))
        answer = await self._calls.send("POST", path, content, key=asked.key, max_bytes=max_bytes, checking=checking)
        if answer.status != HTTPStatus.OK and answer.status not in INPUT_AT_FAULT:
            failure = self._failures.of(answer, asked.key)
            if isinstance(failure, ModelGone) and self._config.model is None:
                self._take("")  # it may serve another one, whose name the next call learns
            raise failure
        return answer


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the requests of one call share."""

    query: str
    truncate: str
    key: str | None


def ranking_request(model: str, query: str, passages: Sequence[bytes], truncate: str) -> list[bytes]:
    """Return the body of a request in pieces, so that large passages are not copied into one.

    Args:
        model: the model's name.
        query: a text.
        passages: JSON objects; at least one.
        truncate: NONE or END.
    """
    pieces = [piece for passage in passages for piece in (b",", passage)]
    others = orjson.dumps({"model": model, "query": {"text": query}, "truncate": truncate})
    return [b'{"passages":[', *pieces[1:], b"],", others[1:]]


def max_answer_bytes(count: int) -> int:
    """Return the most bytes of a valid answer with `count` scores."""
    return 65_536 + 256 * count


def read_rankings(body: bytes, *, count: int) -> list[float]:
    """Return an answer's scores in the order of the request's passages.

    Args:
        body: the answer.
        count: passages of the request.

    Raises:
        AnswerInvalid: the answer is not JSON of that form, does not rank each passage once, or has a score that is no
            finite number.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerInvalid("the NIM's answer is not JSON") from error
    rankings = answer.get("rankings") if isinstance(answer, dict) else None
    if not isinstance(rankings, list) or not all(isinstance(each, dict) for each in rankings):
        raise AnswerInvalid("the NIM's answer has no list of rankings")
    scores: dict[int, float] = {}
    for each in rankings:
        index, logit = each.get("index"), each.get("logit")
        if type(index) is not int or type(logit) not in (float, int) or not abs(logit) <= MAX_SCORE:
            raise AnswerInvalid("the NIM answered a ranking without an index or a finite logit")
        scores[index] = float(logit)
    if len(rankings) != count or scores.keys() != set(range(count)):
        raise AnswerInvalid(f"the NIM's answer does not rank each of {count} passages once")
    return [scores[at] for at in range(count)]


@cache
def plain_item(*, pictures: bool) -> _Item:
    """Return a passage, a text or a picture, that no working NIM rejects."""
    if not pictures:
        return _Item(b'{"text":"ready"}', Modality.TEXT)
    return _Item(orjson.dumps({"image": white_picture()}), Modality.IMAGE)


async def _read(answer: Answer, count: int) -> list[float]:
    return read_rankings(answer.body, count=count)


def _reads(model: str) -> frozenset[Modality]:
    short = model.rpartition("/")[2].lower()
    return TEXTS if any(fnmatchcase(short, each) for each in TEXT_ONLY) else ALL


def _no_pictures(spec: RerankerSpec) -> str:
    return f"the model {spec.model} of reranker {spec.name} reads texts only, not pictures"


def _blame(item: _Item, answer: Answer) -> InputRejected:
    """Return the error for a passage that the NIM cannot rank, while it can rank others."""
    if answer.status == INFERENCE_FAILED:
        return InputRejected(f"the NIM fails on the passage with status {answer.status}, but not on others")
    what = "picture" if item.kind is Modality.IMAGE else "text" if item.kind is Modality.TEXT else "text or picture"
    return InputRejected(f"the NIM rejects the passage with status {answer.status}; its {what} is too large for it")
