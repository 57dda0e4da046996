"""Collections: creating them with their spaces bound, and looking at them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedders.errors import EmbedderUnavailable
from service.access import calling_account
from service.core.embed import EmbedderPool
from service.domain import Collection, Scope, Space
from service.store.base import Store

__all__ = ["CollectionPage", "Collections"]


@dataclass(frozen=True, slots=True)
class CollectionPage:
    """Some collections by name, and whether more follow."""

    collections: tuple[Collection, ...]
    more: bool


class Collections:
    """Creates, returns and deletes collections."""

    def __init__(self, store: Store, embedders: EmbedderPool) -> None:
        self._store = store
        self._embedders = embedders

    async def create(self, draft: Collection, embedder_names: Mapping[str, str]) -> Collection:
        """Create a collection and bind each named vector to its embedder's space.

        Args:
            draft: the collection, its named vectors without spaces.
            embedder_names: the embedder of each named vector; empty means the default one.

        Raises:
            EmbedderNotFound: there is no such embedder.
            EmbedderUnavailable: an embedder has not told its model's dimension yet.
            CollectionAlreadyExists: there is such a collection.
        """
        specs = {name: self._embedders.get(embedder).spec for name, embedder in embedder_names.items()}
        for spec in specs.values():
            if not spec.dimension:
                raise EmbedderUnavailable(
                    f"the dimension of {spec.model} is not known yet, because {spec.name} has not answered; try again"
                )
        vectors = tuple(
            replace(vector, space=Space(spec.space, spec.dimension, spec.model))
            for vector in draft.vectors
            for spec in (specs[vector.name],)
        )
        collection = replace(draft, vectors=vectors)
        await self._store.create_collection(collection)
        return collection

    async def get(self, name: str, tenant: str = "") -> tuple[Collection, int | None]:
        """Return a collection and how many objects it holds, or one of its tenants; None where it has some, none named.

        Raises:
            CollectionNotFound: there is none of that name.
            TenantNotFound: it has no such tenant.
            InvalidRequest: it has no tenants, and one was named.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name))
        if collection.multi_tenancy is not None and not tenant:
            return collection, None
        return collection, await self._store.count_objects(name, Scope(tenant))

    async def list_page(self, *, after: str, size: int) -> CollectionPage:
        """Return up to `size` collections that the caller may touch, whose names come after `after` by alphabet."""
        may_touch = calling_account.get().client.may_touch
        found = (each for each in await self._store.list_collections() if each.name > after and may_touch(each.name))
        rest = sorted(map(self._embedders.resolve, found), key=lambda each: each.name)
        return CollectionPage(tuple(rest[:size]), more=len(rest) > size)

    async def delete(self, name: str) -> None:
        """Delete a collection and its objects.

        Raises:
            CollectionNotFound: there is none of that name.
        """
        await self._store.delete_collection(name)
