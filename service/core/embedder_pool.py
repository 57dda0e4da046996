"""The embedders of the server: which one embeds."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import structlog
from cachetools import LRUCache
from opentelemetry.trace import Span, SpanKind
from opentelemetry.util.types import AttributeValue

from embedders.contract import (
    NOT_CHECKED,
    Embedder,
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    Input,
    Outcome,
    WatchedEmbedder,
)
from embedders.errors import EmbedderUnavailable
from embedders.front.failover import embed_with_first
from embedders.telemetry import tracing
from service.access import CALLER_KEY, EVERYBODY, calling_account
from service.core.backend_pool import CHECK_INTERVAL_S, BackendPool
from service.domain import Collection, NamedVector, Space
from service.errors import (
    CollectionNotBound,
    EmbedderNotFound,
    InvalidRequest,
    SpaceAmbiguous,
    SpaceMismatch,
    Violation,
)
from service.process.metrics import EMBEDDER_UP
from service.settings import variable

RESOLVED = 1024
"""Collections whose spaces are kept; searches read a collection's schema once a second, and use it many times."""

log = structlog.get_logger(__name__)


def _embedding_span(embedder: Embedder, inputs: Sequence[Input]) -> AbstractContextManager[Span]:
    """Return a span for the work of an embedder for one call."""
    spec = embedder.spec
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": spec.name,
        "gen_ai.request.model": spec.model,
        "gen_ai.embeddings.dimension.count": spec.dimension,
        "vecgate.space": spec.space,
        "vecgate.inputs": len(inputs),
    }
    return tracing.span(f"embeddings {spec.model}", attributes, kind=SpanKind.CLIENT)


def _tokens(outcomes: Sequence[Outcome]) -> int:
    return sum(each.token_count or 0 for each in outcomes if isinstance(each, Embedding))


def _that_take_keys(embedders: Sequence[WatchedEmbedder]) -> Sequence[WatchedEmbedder]:
    """Return those to which a call with a key may go, in their order. A local model needs no key."""
    return [each for each in embedders if each.spec.caller_keys or each.spec.weights_digest is not None]


def key_refused(kind: str, names: Sequence[str], setting: str) -> InvalidRequest:
    """Return the error for a call whose key no NIM takes that it asks.

    If the key were ignored, this server's would pay for what the caller means to pay for.

    Args:
        kind: "embedder" or "reranker".
        names: those that do not take it.
        setting: the name of one of them in the settings.
    """
    allowed = variable("embedders", setting, "allow_caller_keys")
    words = f"is not taken by {kind} {', '.join(names)}; leave it out, or set {allowed}=true on the server"
    return InvalidRequest([Violation(f'metadata["{CALLER_KEY}"]', words)])


def _may_have(embedder: WatchedEmbedder, space: str) -> bool:
    """Return whether an embedder may turn out to have a space once its NIM has answered."""
    spec = embedder.spec
    # The settings may spell the model in other letters than the NIM, whose spelling counts.
    return not spec.learnt and spec.space.lower() in ("", space.lower())


def spaces_meant(name: str, embedders: Sequence[WatchedEmbedder]) -> Sequence[str]:
    """Return the spaces of some embedders that a name means: the space of that id alone, or else all of them."""
    spaces = tuple(dict.fromkeys(each.spec.space for each in embedders))
    return (name,) if name in spaces else spaces


def _first_learnt(embedders: Sequence[WatchedEmbedder]) -> EmbedderSpec:
    """Return what the first embedder is whose model is certain; the first one's if none is."""
    return next((each.spec for each in embedders if each.spec.learnt), embedders[0].spec)


def _all_told(collection: Collection) -> bool:
    """Return whether the schema tells the space of every named vector that has one."""
    return all(each.space is None or each.space.dimension for each in collection.vectors)


class _Resolved(NamedTuple):
    """A collection with the spaces of its adopted named vectors, and what they were found from."""

    collection: Collection
    specs: list[EmbedderSpec]
    resolved: Collection


class EmbedderPool(BackendPool[WatchedEmbedder]):
    """The server's embedders by name, in order of preference: the first one is the default.

    Args:
        members: the embedders.
        replicas: the names of those at the several addresses of one NIM, by the NIM's name in the settings, which is
            the first one's, too.
        check_interval_s: seconds between checks of an embedder that had no successful call meanwhile.
        now_s: stands in for time.monotonic.
    """

    def __init__(
        self,
        members: Sequence[WatchedEmbedder],
        *,
        replicas: Mapping[str, Sequence[str]] | None = None,
        check_interval_s: float = CHECK_INTERVAL_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(members, check_interval_s=check_interval_s, now_s=now_s)
        self._replicas = dict(replicas or {})
        self._settings = {each: name for name, names in self._replicas.items() for each in names}
        self._apart: set[str] = set()
        self._spaces: dict[str, str] = {}
        self._resolved: LRUCache[str, _Resolved] = LRUCache(RESOLVED)

    @property
    def default(self) -> WatchedEmbedder:
        """The embedder for requests that name none."""
        return self._members[0]

    def get(self, name: str) -> WatchedEmbedder:
        """Return the embedder of its own name; empty means the default one.

        Raises:
            EmbedderNotFound: the embedder does not exist.
        """
        if not name:
            return self.default
        for embedder in self._members:
            if embedder.spec.name == name:
                return embedder
        names = ", ".join(embedder.spec.name for embedder in self._members)
        raise EmbedderNotFound(name, f"this server has: {names}")

    @property
    def working(self) -> bool:
        """Whether any embedder works."""
        return any(self.fault(embedder) is None for embedder in self._members)

    def of_space(self, space: str) -> list[WatchedEmbedder]:
        """Return the embedders of a space, in order of preference; none for the empty one, which is unknown."""
        return [each for each in self._members if space and each.spec.space == space]

    def asked_for(self, name: str) -> list[WatchedEmbedder]:
        """Return the embedders of one space that a name means, in order of preference; at least one.

        The name of a NIM with several addresses means the embedders at all of them, as far as they have the space of
        the first one that has told it. Another embedder's name means that one alone. An empty name means the default
        embedder, and others of its space.

        Raises:
            EmbedderNotFound: the embedder does not exist.
        """
        first = self.get(name)
        if len(self._members) == 1:
            return [first]
        named = self._at_addresses(first.spec.name)
        space = _first_learnt(named).space
        if name:
            return [each for each in named if space and each.spec.space == space] or [first]
        return self.of_space(space) or [first]

    def works(self, name: str) -> bool:
        """Return whether any embedder works that a name means; see asked_for."""
        return any(self.fault(embedder) is None for embedder in self.asked_for(name))

    def why_apart(self, embedder: WatchedEmbedder) -> str | None:
        """Return why an embedder does not stand in for the first address of its NIM; None if it does, or may."""
        own = embedder.spec
        named = self._at_addresses(self._settings.get(own.name, own.name))
        first = _first_learnt(named)
        if not (own.learnt and first.learnt) or own.space == first.space:
            return None
        setting = variable("embedders", self._settings[own.name], "space")
        return (
            f"it has the space {own.space} and {first.name} has {first.space}, so neither stands in for the other; if "
            f"both serve one model, set {setting} to one of the two, otherwise name two embedders"
        )

    def _at_addresses(self, name: str) -> list[WatchedEmbedder]:
        """Return the embedders at all addresses of a NIM by its name in the settings, or else the one of that name."""
        return [self.get(each) for each in self._replicas.get(name, [name])]

    def resolve(self, collection: Collection) -> Collection:
        """Return a collection with the spaces of adopted named vectors, for which the schema names the model only.

        The space is the one that the model's name means to the HTTP endpoint, too, which made such vectors. If it may
        mean several, the vector stays as it is.
        """
        if collection.once(_all_told):
            return collection
        specs = [each.spec for each in self._members]
        known = self._resolved.get(collection.name)
        if known is None or known.collection is not collection or known.specs != specs:
            resolved = replace(collection, vectors=tuple(map(self._resolve, collection.vectors)))
            known = self._resolved[collection.name] = _Resolved(collection, specs, resolved)
        return known.resolved

    def _resolve(self, vector: NamedVector) -> NamedVector:
        if vector.space is None or vector.space.dimension:
            return vector
        model = vector.space.model
        named = self.named(model)
        spaces = spaces_meant(model, named)
        if len(spaces) != 1 or self.may_be_of(model, named) is not None:
            return vector
        # The schema may have the id of a space where a model's name is expected.
        spec = next(each.spec for each in named if each.spec.space in spaces)
        return replace(vector, space=Space(spec.space, spec.dimension, spec.model))

    def named(self, name: str) -> list[WatchedEmbedder]:
        """Return the embedders that a model's name or the id of a space may mean: of the model first, then others."""
        spaces = {each.spec.space for each in self._members if name and name in (each.spec.model, each.spec.space)}
        found = [each for each in self._members if each.spec.space in spaces]
        return sorted(found, key=lambda each: each.spec.model != name)

    def may_be_of(self, model: str, named: Sequence[WatchedEmbedder]) -> WatchedEmbedder | None:
        """Return an embedder that may turn out to have the space of a model, or None.

        Args:
            model: the model's name.
            named: the embedders that it may mean so far.
        """
        if not named or any(not each.spec.space.startswith(f"{model}@") for each in named):
            return None  # the space of the model at its full dimension is known, or it is a local model's
        return next((each for each in self._members if _may_have(each, model)), None)

    def default_vector(self, collection: Collection) -> NamedVector | None:
        """Return the named vector for searches that name none, or None if they must name one.

        It is the collection's default vector; otherwise the only named vector; otherwise, if all named vectors have
        different spaces, that of the server's first embedder with such a space.
        """
        if len(collection.vectors) == 1:
            return collection.vectors[0]
        if (chosen := collection.find_vector(collection.default_vector)) is not None:
            return chosen
        by_space = {each.space.id: each for each in collection.vectors if each.space is not None}
        if len(by_space) < len(collection.vectors):
            return None
        return next((by_space[each.spec.space] for each in self._members if each.spec.space in by_space), None)

    def for_vector(self, collection: str, vector: NamedVector) -> list[WatchedEmbedder]:
        """Return the embedders of the space that a named vector is bound to, in order of preference.

        Raises:
            CollectionNotBound: the named vector is bound to no space.
            SpaceMismatch: no embedder of the server has that space and dimension.
            SpaceAmbiguous: Weaviate's schema has the model's name only, and several embedders have spaces of it.
            EmbedderUnavailable: one may have it, whose model is not known yet.
        """
        if vector.space is None:
            raise CollectionNotBound(collection, vector.name)
        embedders = self.of_space(vector.space.id)
        if not embedders and not vector.space.dimension:
            self._check_meaning(vector.name, vector.space.model)
        unknown = next((each for each in self._members if _may_have(each, vector.space.id)), None)
        if not embedders and unknown is not None:
            raise EmbedderUnavailable(
                f"no embedder has the space {vector.space.id}, but the model of {unknown.spec.name} is not known yet: "
                f"{unknown.health.fault or NOT_CHECKED}; try again"
            )
        given = (embedders[0] if embedders else self.default).spec
        # A dimension of 0 is unknown, of the embedder or in the schema.
        dimensions = (vector.space.dimension, given.dimension)
        if not embedders or (all(dimensions) and dimensions[0] != dimensions[1]):
            raise SpaceMismatch(
                vector=vector.name,
                bound=vector.space.id,
                given=given.space,
                bound_dimension=vector.space.dimension,
                given_dimension=given.dimension,
            )
        return embedders

    def _check_meaning(self, vector: str, model: str) -> None:
        named = self.named(model)
        spaces = spaces_meant(model, named)
        if len(spaces) > 1 and self.may_be_of(model, named) is None:
            raise SpaceAmbiguous(vector=vector, model=model, spaces=spaces)

    def name_for(self, vector: NamedVector) -> str:
        """Return the name of the preferred embedder of a named vector's space; empty if there is none."""
        return next((each.spec.name for each in self.of_space(vector.space_id)), "")

    async def embed_with_first(
        self,
        embedders: Sequence[WatchedEmbedder],
        inputs: Sequence[Input],
        options: EmbedOptions,
        *,
        key_taken: bool = False,
    ) -> tuple[WatchedEmbedder, list[Outcome]]:
        """Embed inputs with the first of some embedders of one space that works; see embedders.front.failover.

        A caller's key goes to embedders that take callers' keys only. A local model needs none, and gets none.

        Args:
            embedders: in order of preference.
            inputs: what to embed.
            options: how to.
            key_taken: whether another NIM of the call takes the caller's key, so that these need not.

        Raises:
            InvalidRequest: the call has a key, and no NIM takes it.
            EmbedderError: all failed; this is the first error.
        """
        if options.api_key is not None:
            if not (able := _that_take_keys(embedders)) and not key_taken:
                names = [each.spec.name for each in embedders]
                raise key_refused("embedder", names, self._settings.get(names[0], names[0]))
            embedders = able or embedders
        account = calling_account.get()
        if account.client is EVERYBODY:
            # Where everybody may call, nobody has a quota.
            return await embed_with_first(embedders, inputs, options, embed=self.embed)
        async with account.embedding(len(inputs)):
            return await embed_with_first(embedders, inputs, options, embed=self.embed)

    async def embed(self, embedder: WatchedEmbedder, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs, and report the embedder's health; see Embedder.embed."""
        if options.api_key is not None and not embedder.spec.caller_keys:
            options = replace(options, api_key=None)
        try:
            if not tracing.active():
                return await embedder.embed(inputs, options)
            with _embedding_span(embedder, inputs) as span:
                outcomes = await embedder.embed(inputs, options)
                span.set_attribute("gen_ai.usage.input_tokens", _tokens(outcomes))
                return outcomes
        finally:
            self._report(embedder)

    def _note(self, member: WatchedEmbedder, fault: str | None) -> None:
        spec = member.spec
        if (told := self._spaces.pop(spec.name, spec.space)) != spec.space:
            # Its space was not known yet.
            EMBEDDER_UP.remove(spec.name, told)
        self._spaces[spec.name] = spec.space
        EMBEDDER_UP.labels(spec.name, spec.space).set(fault is None)
        if fault is None:
            log.info("embedder_ready", embedder=spec.name, space=spec.space)
            self._tell_apart(spec.name)
        else:
            log.warning("embedder_unavailable", embedder=spec.name, fault=fault)

    def _tell_apart(self, name: str) -> None:
        """Warn once of each address that turns out to have another space than the first one of its NIM."""
        for each in self._at_addresses(self._settings.get(name, name)):
            if each.spec.name not in self._apart and (reason := self.why_apart(each)) is not None:
                self._apart.add(each.spec.name)
                log.warning("addresses_of_two_spaces", embedder=each.spec.name, reason=reason)
