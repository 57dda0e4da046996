"""Collections: creating them with their spaces bound, and looking at them."""

from collections.abc import Sequence
from dataclasses import replace

from embedders.contract import EmbedderSpec
from embedders.errors import EmbedderUnavailable
from service.access import calling_account
from service.core.collections.changes import (
    CollectionChange,
    VectorDraft,
    apply_change,
    default_vector_faults,
    list_faults,
)
from service.core.embedder_pool import EmbedderPool
from service.domain import Collection, Scope, Space
from service.errors import EmbedderNotFound, Violation, Violations, collecting, noting
from service.store.base import Store


class Collections:
    """Creates, returns and deletes collections."""

    def __init__(self, store: Store, embedders: EmbedderPool) -> None:
        self._store = store
        self._embedders = embedders

    async def create(self, draft: Collection, vectors: Sequence[VectorDraft]) -> Collection:
        """Create a collection, bind each named vector to its embedder's space, and return it as Weaviate made it.

        Args:
            draft: the collection without its named vectors.
            vectors: these.

        Raises:
            EmbedderNotFound: there is no such embedder.
            EmbedderUnavailable: an embedder has not told its model's dimension yet.
            InvalidRequest: an embedder has another model than the one asked for, there is no such default vector, or a
                native vector with weights has a list among its fields.
            CollectionAlreadyExists: there is such a collection.
        """
        with collecting() as violations:
            drafts = self._bind(vectors, range(len(vectors)), violations)
            wanted = replace(draft, vectors=tuple(each.vector for each in drafts))
            violations.extend(default_vector_faults(wanted))
            for index, vector in enumerate(wanted.vectors):
                violations.extend(list_faults(wanted, vector, f"collection.vectors[{index}]"))
        await self._store.create_collection(wanted)
        return self._embedders.resolve(await self._store.get_collection(draft.name))

    async def update(self, name: str, change: CollectionChange) -> Collection:
        """Change a collection and return it as it is then.

        Raises:
            CollectionNotFound: no collection has that name.
            EmbedderNotFound: there is no such embedder.
            EmbedderUnavailable: an embedder has not told its model's dimension yet.
            InvalidRequest: what is to be changed cannot be; nothing is changed then.
        """
        present = self._embedders.resolve(await self._store.get_collection(name))
        # Of a vector that is there, an embedder that is named must have its space; nobody else is asked.
        asked = [
            index
            for index, each in enumerate(change.vectors)
            if each.embedder or present.find_vector(each.vector.name) is None
        ]
        with collecting() as violations:
            drafts = self._bind(change.vectors, asked, violations)
            with noting(violations):
                changed = apply_change(present, replace(change, vectors=drafts))
        if change.default_vector is None and len(changed.vectors) > len(present.vectors):
            # Searches that name no vector must not end up at one that no object has yet.
            default = self._embedders.default_vector(present)
            changed = replace(changed, default_vector=default.name if default else "")
        await self._store.update_collection(changed)
        return self._embedders.resolve(await self._store.get_collection(name))

    def _bind(
        self, drafts: Sequence[VectorDraft], asked: Sequence[int], violations: Violations
    ) -> tuple[VectorDraft, ...]:
        """Return drafts, those of certain places bound to their embedders' spaces, and note what is wrong with these.

        Raises:
            EmbedderNotFound: nothing else is wrong with them.
            EmbedderUnavailable: nothing is, but an embedder has not told its model's dimension yet.
        """
        bound = list(drafts)
        missing: list[EmbedderNotFound] = []
        unknown: list[EmbedderSpec] = []
        for index in asked:
            draft, path = drafts[index], f"collection.vectors[{index}]"
            try:
                spec = self._embedders.get(draft.embedder).spec
            except EmbedderNotFound as error:
                missing.append(error)
                violations.append(Violation(f"{path}.embedder", str(error)))
                bound[index] = replace(draft, embedder="")
                continue
            if draft.model not in ("", spec.model):
                message = f"embedder {spec.name!r} has the model {spec.model!r}; name that, or another embedder"
                violations.append(Violation(f"{path}.model", message))
            if not spec.dimension:
                unknown.append(spec)
            space = Space(spec.space, spec.dimension, spec.model)
            bound[index] = replace(draft, vector=replace(draft.vector, space=space))
        if len(violations) == len(missing) == 1:
            raise missing[0]
        if unknown and not violations:
            spec = unknown[0]
            raise EmbedderUnavailable(
                f"the dimension of {spec.model} is not known yet, because {spec.name} has not answered; try again"
            )
        return tuple(bound)

    async def get(self, name: str, tenant: str = "") -> tuple[Collection, int | None]:
        """Return a collection and how many objects it holds, or one of its tenants; None where it has some, none named.

        Raises:
            CollectionNotFound: no collection has that name.
            TenantNotFound: it has no such tenant.
            InvalidRequest: it has no tenants, and one was named.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name))
        if collection.multi_tenancy is not None and not tenant:
            return collection, None
        return collection, await self._store.count_objects(name, Scope(tenant))

    async def list_page(self, after: str, size: int) -> tuple[list[Collection], bool]:
        """Return up to `size` collections that the caller may touch, by name after `after`, and whether more follow."""
        may_touch = calling_account.get().client.may_touch
        found = (each for each in await self._store.list_collections() if each.name > after and may_touch(each.name))
        rest = sorted(map(self._embedders.resolve, found), key=lambda each: each.name)
        return rest[:size], len(rest) > size

    async def delete(self, name: str) -> None:
        """Delete a collection and its objects.

        Raises:
            CollectionNotFound: no collection has that name.
            InvalidRequest: the name is an alias.
        """
        await self._store.delete_collection(name)
