"""The embedder that calls a NIM: POST /v1/embeddings."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from embedders.contract import (
    QUERY,
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    Input,
    Modality,
    Outcome,
    Priority,
    TextInput,
    Vector,
)
from embedders.errors import (
    AnswerInvalid,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.images.decoders import Decoders
from embedders.nim.calls import (
    MODELS_PAGE_BYTES,
    READY_PAGE_BYTES,
    Culprits,
    NimBackend,
    NimCallConfig,
    check_callers_key,
)
from embedders.nim.connection import Answer
from embedders.nim.failures import INPUT_AT_FAULT, read_refusal
from embedders.nim.profiles import AUTO, PROFILES
from embedders.nim.retries import Retries
from embedders.nim.serving import ServedModel, read_models, space_of
from embedders.nim.wire import (
    READ_IN_THREAD_BYTES,
    EmbeddingFailures,
    Item,
    ItemReader,
    canary,
    embeddings_request,
    max_answer_bytes,
    read_embeddings,
    request_fields,
    request_kind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NimConfig(NimCallConfig):
    """The address of an embedding NIM, and how to call it. Its model may be in upper or lower case.

    Attributes:
        profile: a name in embedders.nim.profiles.PROFILES, or "auto" for the one that matches the model's name.
        dimensions: values of a vector to ask for, of a model that can shorten its vectors (Matryoshka); None for the
            model's own. One that is set is a part of the space, even if it is the model's own.
        max_batch: inputs in one request; None for the profile's.
    """

    profile: str = AUTO
    dimensions: int | None = None
    max_batch: int | None = None


class NimEmbedder(NimBackend):
    """Embeds on a NIM, with one pool of connections.

    It learns the model's name and dimension from the NIM, and learns them again after an outage: a NIM that came back
    with another model is refused. See embedders.nim.serving.
    """

    def __init__(self, config: NimConfig, *, retries: Retries | None = None, decoders: Decoders | None = None) -> None:
        """Make one; `retries` replaces those of the configuration. Without decoders it has its own.

        Raises:
            ValueError: an address, a key, ca_file or profile is invalid, or the profile does not take the model's name,
                max_batch or dimensions.
        """
        self._config = config
        model = config.model or ""
        spec = EmbedderSpec(
            name=config.name,
            model=model,
            space=space_of(model, config.dimensions),
            dimension=0,
            learnt=False,
            limits=config.limits,
            max_batch=config.max_batch or PROFILES["plain"].batch,
            slots=config.max_connections,
            caller_keys=config.caller_keys,
        )
        self._served = ServedModel(
            spec, profile=config.profile, max_batch=config.max_batch, dimensions=config.dimensions
        )
        self._failures = EmbeddingFailures(self._served, config.api_key, keyless=config.keyless)
        super().__init__(config, retries=retries, failures=self._failures, decoders=decoders)
        self._in_doubt = True
        self._reader = ItemReader(
            self._decoders,
            self._served,
            config.limits,
            max_converted_pixels=config.max_converted_pixels,
            max_request_bytes=config.max_request_bytes,
        )

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds. Model and space may be empty, and the dimension may be 0, until the NIM has answered."""
        return self._served.spec

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs in requests of at most max_batch, some at the same time.

        Raises:
            EmbedderUnavailable: no connection, no answer in time, or a 5xx answer, after retries; 500 only if the NIM
                fails on a canary, too. Or it answers under another name than before. EmbedderRateLimited for 429.
            CredentialRejected: the NIM answers 401, 402 or 403; CallerKeyRejected if the key is the caller's.
            ModelGone: the NIM answers 404 or 410, rejects every input because of the model's name, or serves another
                model than before.
            ModelUnusable: the settings do not tell which of the NIM's models to use, or do not fit it.
            AnswerInvalid: the answer does not hold one vector for each input, or the NIM rejects every input.
        """
        return await self._life.run(self._embed(inputs, options))

    async def check(self) -> None:
        """Ask whether the NIM is ready, then embed a short text, and learn the model or hold the NIM to it.

        If only callers have keys, a NIM that requires a key passes the check.

        Raises:
            EmbedderError: as `embed`.
        """
        await self._life.run(self._check())

    async def _embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        check_callers_key(options.api_key)
        if self._in_doubt:
            await self._learn(options.api_key)
        size = self.spec.max_batch
        if len(inputs) <= size:
            return await self._embed_batch(inputs, options)
        try:
            async with asyncio.TaskGroup() as group:
                batches = [
                    group.create_task(self._embed_batch(inputs[start : start + size], options))
                    for start in range(0, len(inputs), size)
                ]
        except BaseExceptionGroup as errors:
            # The first error cancelled the other batches.
            raise errors.exceptions[0] from None
        return [outcome for batch in batches for outcome in batch.result()]

    async def _check(self) -> None:
        with self._keys_are_the_callers():
            answer = await self._send("GET", "/v1/health/ready", None, QUERY, READY_PAGE_BYTES, checking=True)
            # Some gateways lack this page; then the text alone decides.
            if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                raise self._failures.of(answer, None)
            if self._wants_key:
                self._in_doubt = True  # the next call with a key shows whether it is still the same model
            else:
                await self._learn(None, checking=True)

    async def _learn(self, key: str | None, *, checking: bool = False) -> None:
        """Learn the model, or hold the NIM to it: by its list of models if there is a doubt, and by a short text."""
        if self._in_doubt:
            answer = await self._send(
                "GET", "/v1/models", None, EmbedOptions(api_key=key), MODELS_PAGE_BYTES, checking=checking
            )
            # A gateway may lack this page, or want a key for it alone; a model that is set does not need it.
            if self._config.model is None and answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                raise self._failures.of(answer, key)
            self._served.identify(read_models(answer.body) if answer.status == HTTPStatus.OK else ())
        answer = await self._ask_canary(key, checking=checking)
        if (
            answer.status in INPUT_AT_FAULT
            and "modality" in read_refusal(answer.body)
            and self._served.profile.modalities
        ):
            self._served.without_modality()
            answer = await self._ask_canary(key, checking=checking)
        if answer.status != HTTPStatus.OK:
            raise self._failures.of_canary(answer, Modality.TEXT, key)
        unit_length = self._served.profile.unit_length
        model, (vector,) = read_embeddings(answer.body, count=1, dimension=None, unit_length=unit_length)
        self._in_doubt = True  # if it is another model, calls must not go on
        self._served.hold(vector, model)
        self._in_doubt = False

    async def _ask_canary(self, key: str | None, *, checking: bool) -> Answer:
        plain = canary(Modality.TEXT, request_kind(self._served.profile, TextInput(""), QUERY))
        return await self._ask([plain], EmbedOptions(api_key=key), checking=checking)

    async def _embed_batch(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        rejected: dict[int, InputRejected] = {}
        outcomes: dict[int, Outcome] = {}
        async with contextlib.aclosing(self._reader.requests(inputs, options, rejected)) as requests:
            async for request in requests:
                rows = await self._vectors(list(request.values()), options)
                for (at, item), row in zip(request.items(), rows, strict=True):
                    outcomes[at] = row if isinstance(row, InputRejected) else Embedding(row, truncated=item.truncated)
        outcomes |= rejected
        return [outcomes[at] for at in range(len(inputs))]

    async def _vectors(self, items: Sequence[Item], options: EmbedOptions) -> list[Vector | InputRejected]:
        """Embed items of one kind in one request; if the NIM rejects it or fails on it, find the invalid items."""
        culprits: Culprits[Item, Vector] = Culprits(
            ask=lambda some: self._ask(some, options),
            read=self._read,
            require_sense=lambda: self._require_sense(items, options),
            blame=self._failures.of_input,
        )
        return await culprits.rows(items)

    async def _require_sense(self, items: Sequence[Item], options: EmbedOptions) -> None:
        """Send a canary of the items' kind, and raise the NIM's error if it fails."""
        what = {item.modality for item in items}
        plain = canary(what.pop() if len(what) == 1 else Modality.TEXT, items[0].kind)
        answer = await self._ask([plain], options)
        if answer.status != HTTPStatus.OK:
            raise self._failures.of_canary(answer, plain.modality, options.api_key)

    async def _read(self, answer: Answer, count: int) -> Sequence[Vector]:
        reading = partial(
            read_embeddings,
            answer.body,
            count=count,
            dimension=self.spec.dimension,
            unit_length=self._served.profile.unit_length,
        )
        try:
            long = len(answer.body) > READ_IN_THREAD_BYTES
            model, rows = await asyncio.to_thread(reading) if long else reading()
        except AnswerInvalid:
            self._in_doubt = True
            raise
        if model != self._served.answers_as:
            self._in_doubt = True
            raise EmbedderUnavailable(
                f"the NIM answers as {model} and not as {self._served.answers_as}, as before; it is checked, try again"
            )
        return list(rows)

    async def _ask(self, items: Sequence[Item], options: EmbedOptions, *, checking: bool = False) -> Answer:
        """Send items of one kind; return a 200 or a rejection of the input, and raise all other failures."""
        contents, modalities = [item.content for item in items], [item.modality.value for item in items]
        served = self._served
        fields = request_fields(served.profile, items[0].kind, modalities, served.dimensions)
        content = embeddings_request(served.spec.model, contents, fields)
        max_bytes = max_answer_bytes(len(items), served.spec.dimension if served.learnt else None)
        answer = await self._send("POST", "/v1/embeddings", content, options, max_bytes, checking=checking)
        if answer.status != HTTPStatus.OK and answer.status not in INPUT_AT_FAULT:
            failure = self._failures.of(answer, options.api_key)
            self._in_doubt = self._in_doubt or isinstance(failure, ModelGone)
            raise failure
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        content: Sequence[bytes] | None,
        options: EmbedOptions,
        max_bytes: int,
        *,
        checking: bool = False,
    ) -> Answer:
        """Send a request, with retries; checks do not take a slot."""
        try:
            return await self._calls.send(
                method,
                path,
                content,
                key=options.api_key,
                max_bytes=max_bytes,
                checking=checking,
                urgent=options.priority is not Priority.BULK,
            )
        except EmbedderUnavailable as error:
            # It may come back with another model.
            self._in_doubt = self._in_doubt or not isinstance(error, EmbedderRateLimited)
            raise
