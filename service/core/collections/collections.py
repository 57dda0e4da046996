"""Creates, changes, returns and deletes collections, and binds their named vectors to spaces."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from embedders.contract import EmbedderSpec, Modality, unread
from embedders.errors import EmbedderUnavailable
from service.access import calling_account
from service.core.collections.binding import BindingWish, Proof, Prover, bound_vector
from service.core.collections.changes import (
    CollectionChange,
    VectorDraft,
    apply_change,
    default_vector_faults,
    joint_faults,
    module_faults,
    ttl_faults,
)
from service.core.embedder_pool import EmbedderPool
from service.domain import Collection, NamedVector, Scope, Space
from service.errors import CollectionChanged, EmbedderNotFound, StoreRejected, Violation, Violations, collecting, noting
from service.process.metrics import forget_evaluations, forget_other_vectors
from service.store.base import Store

log = structlog.get_logger(__name__)


class Collections:
    """Creates, changes, returns and deletes collections."""

    def __init__(self, store: Store, embedders: EmbedderPool) -> None:
        self._store = store
        self._embedders = embedders
        self._prover = Prover(store, embedders)

    async def create(self, draft: Collection, vectors: Sequence[VectorDraft]) -> Collection:
        """Create a collection, bind each named vector to its embedder's space, and return it as Weaviate made it.

        Args:
            draft: the collection, without its named vectors.
            vectors: its named vectors.

        Raises:
            EmbedderNotFound: an embedder does not exist.
            EmbedderUnavailable: the dimension of an embedder's model is not known yet.
            InvalidRequest: an embedder has another model than the requested one, or one that does not read what the
                fields hold; the default vector does not exist; a native vector with weights has a text array among its
                fields; or one joint input has no texts.
            CollectionAlreadyExists: a collection of that name exists.
        """
        with collecting() as violations:
            drafts = self._bind(vectors, range(len(vectors)), violations)
            wanted = replace(draft, vectors=tuple(each.vector for each in drafts))
            violations.extend(default_vector_faults(wanted))
            violations.extend(ttl_faults(wanted, wanted.object_ttl))
            for index, vector in enumerate(wanted.vectors):
                path = f"collection.vectors[{index}]"
                violations.extend(module_faults(wanted, vector, path))
                violations.extend(joint_faults(vector, path))
        await self._store.create_collection(wanted)
        return await self._read_back(wanted)

    async def update(self, name: str, change: CollectionChange, etag: str = "") -> Collection:
        """Change a collection and return the changed one.

        Args:
            name: the collection.
            change: the changes.
            etag: the one that it must have; empty for any. Weaviate has no such condition, so it is compared right
                before the change.

        Raises:
            CollectionNotFound: the collection does not exist.
            CollectionChanged: it has another etag.
            EmbedderNotFound: an embedder does not exist.
            EmbedderUnavailable: the dimension of an embedder's model is not known yet.
            InvalidRequest: a field cannot be changed; then nothing is changed.
        """
        stored = await self._store.get_collection(name)
        if etag not in ("", stored.etag):
            raise CollectionChanged(name)
        present = self._embedders.resolve(stored)
        # An existing vector keeps its space; only an embedder that the request names is compared with it.
        asked = [
            index
            for index, each in enumerate(change.vectors)
            if each.embedder or present.find_vector(each.vector.name) is None
        ]
        default = self._embedders.default_vector(present) if change.default_vector is None else None
        with collecting() as violations:
            removed = change.removed_vectors
            left = [each for each in present.vectors if each.name not in removed]
            # Where none is left, no other one could be the default, and another violation says so.
            if default is not None and default.name in removed and left:
                violations.append(_default_removed(removed.index(default.name), default.name))
            drafts = self._bind(change.vectors, asked, violations)
            with noting(violations):
                changed = apply_change(present, replace(change, vectors=drafts))
        if change.default_vector is None and (change.removed_vectors or len(changed.vectors) > len(present.vectors)):
            # A search that names no vector goes on using the same one: no object has a new one yet.
            changed = replace(changed, default_vector=default.name if default else "")
        # First, with the vectors to be removed: searches must know the default one at every moment.
        await self._store.update_collection(changed)
        for each in change.removed_vectors:
            await self._store.remove_vector(changed.name, each)
        found = await self._read_back(changed)
        forget_other_vectors(found.name, {each.name for each in found.vectors})
        return found

    async def _read_back(self, wanted: Collection) -> Collection:
        """Return a collection as the store made it.

        Raises:
            StoreRejected: the store does not know what a time-to-live is, and has ignored it.
        """
        found = await self._store.get_collection(wanted.name)
        if wanted.object_ttl.get("enabled") and not found.object_ttl.get("enabled"):
            raise StoreRejected(
                f"collection {wanted.name!r} is stored, but its objects will not expire: this Weaviate does not know "
                "object_ttl. Take a newer Weaviate, and call UpdateCollection"
            )
        return self._embedders.resolve(found)

    async def bind_vector(
        self, name: str, wish: BindingWish, api_key: str | None = None
    ) -> tuple[Collection, Proof | None]:
        """Bind a vector that another client made, and return its collection, and the proof; None if it was bound so.

        Args:
            name: the collection.
            wish: how to bind which vector.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: the collection does not exist.
            EmbedderNotFound: the embedder does not exist.
            InvalidRequest: the vector cannot be bound so, or stored vectors do not have the embedder's dimension.
            BindingUnproven: stored vectors do not prove the binding, or they disprove it.
            EmbedderError: the embedder failed.
            StoreRejected: the collection has no property.
            StoreUnavailable: the store failed.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name))
        with collecting() as violations:
            (draft,) = self._bind([wish.draft], [0], violations, "vector")
            with noting(violations):
                vector = bound_vector(collection, replace(wish, draft=draft))
        if vector in collection.vectors:
            return collection, None
        proof = await self._prover.prove(collection, vector, trusted=wish.trusted, api_key=api_key)
        await self._store.bind_vector(collection.name, vector)
        log.info(
            "vector_bound",
            collection=collection.name,
            vector=vector.name,
            space=vector.space and vector.space.id,
            trusted=wish.trusted,
            proof=str(proof),
        )
        return self._embedders.resolve(await self._store.get_collection(collection.name)), proof

    def _bind(
        self,
        drafts: Sequence[VectorDraft],
        asked: Sequence[int],
        violations: Violations,
        place: str = "collection.vectors[{}]",
    ) -> tuple[VectorDraft, ...]:
        """Return the drafts, with those at the indexes `asked` bound to their embedders' spaces, and note violations.

        Raises:
            EmbedderNotFound: an embedder does not exist, which is the only violation.
            EmbedderUnavailable: the dimension of an embedder's model is not known yet, and there is no violation.
        """
        bound = list(drafts)
        missing: list[EmbedderNotFound] = []
        unknown: list[EmbedderSpec] = []
        for index in asked:
            draft, path = drafts[index], place.format(index)
            try:
                named = [each.spec for each in self._embedders.asked_for(draft.embedder)]
                spec = next((each for each in named if each.learnt), named[0])
            except EmbedderNotFound as error:
                missing.append(error)
                violations.append(Violation(f"{path}.embedder", str(error)))
                bound[index] = replace(draft, embedder="")
                continue
            if spec.model and draft.model not in ("", spec.model):
                message = f"embedder {spec.name!r} has the model {spec.model!r}; give that model, or another embedder"
                violations.append(Violation(f"{path}.model", message))
            if spec.learnt:
                violations.extend(_unread_faults(draft.vector, spec, path))
            else:
                unknown.append(spec)
            space = Space(spec.space, spec.dimension, spec.model)
            bound[index] = replace(draft, vector=replace(draft.vector, space=space))
        if len(violations) == len(missing) == 1:
            raise missing[0]
        if unknown and not violations:
            spec = unknown[0]
            raise EmbedderUnavailable(
                f"the model of embedder {spec.name} is not known until it has answered; try again"
            )
        return tuple(bound)

    async def get(self, name: str, tenant: str = "") -> tuple[Collection, int | None, str]:
        """Return a collection, its number of objects or that of a tenant, and its etag.

        The number is None if the collection has tenants and none is given.

        Raises:
            CollectionNotFound: the collection does not exist.
            TenantNotFound: the tenant does not exist.
            InvalidRequest: a tenant is given, and the collection has no tenants.
        """
        # An embedder whose model becomes known later changes what is resolved, and not the collection.
        stored = await self._store.get_collection(name)
        collection = self._embedders.resolve(stored)
        if collection.multi_tenancy is not None and not tenant:
            return collection, None, stored.etag
        return collection, await self._store.count_objects(collection.name, Scope(tenant)), stored.etag

    async def list_page(self, after: str, size: int) -> tuple[list[Collection], bool]:
        """Return up to `size` collections that the caller may touch, by name after `after`, and whether more follow."""
        may_touch = calling_account.get().client.may_touch
        found = (each for each in await self._store.list_collections() if each.name > after and may_touch(each.name))
        rest = sorted(map(self._embedders.resolve, found), key=lambda each: each.name)
        return rest[:size], len(rest) > size

    async def delete(self, name: str) -> None:
        """Delete a collection and its objects.

        Raises:
            CollectionNotFound: the collection does not exist.
            InvalidRequest: the name is an alias.
        """
        await self._store.delete_collection(name)
        forget_evaluations(name)


def _unread_faults(vector: NamedVector, spec: EmbedderSpec, path: str) -> Iterator[Violation]:
    """Yield the fields of a named vector that hold what an embedder's model does not read."""
    pair = vector.joint and vector.text_fields and vector.image_fields
    for name, fields, kind in (
        ("image_fields", vector.image_fields, Modality.IMAGE),
        ("text_fields", vector.text_fields, Modality.TEXT),
        ("combination", pair, Modality.TEXT_IMAGE),
    ):
        if fields and kind not in spec.modalities:
            yield Violation(f"{path}.{name}", f"{unread(spec, kind)}; leave it out, or name another embedder")


def _default_removed(index: int, name: str) -> Violation:
    message = (
        f"{name!r} is the default vector, which searches use that name none; set default_vector to another one first"
    )
    return Violation(f"removed_vectors[{index}]", message)
