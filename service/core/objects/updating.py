"""Updating: parts of an object are changed, and the vectors that depend on them are computed again."""

import asyncio
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from embedders.contract import DOCUMENT, EmbedderSpec
from service.core.embedder_pool import EmbedderPool
from service.core.objects.checks import CHECK_IN_THREAD_BYTES, DraftObject, check_object
from service.core.objects.vectorizing import (
    Absence,
    Candidate,
    Vectorizer,
    VectorOrigin,
    VectorReport,
    check_native,
    foremost,
    vector_fields,
)
from service.core.objects.writing import Writer, Writes, unchanged
from service.core.pictures import NO_PICTURES, Pictures
from service.domain import (
    BLOBS,
    Collection,
    ObjectChange,
    PropertyValue,
    Scope,
    StoredObject,
    unknown_name,
)
from service.errors import CollectionNotBound, ImageNotStored, InvalidRequest, Violation, collecting, noting
from service.store.base import NO_TENANT, Store


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """Where the vectors of a changed object come from, by name, and which embedders were used."""

    vectors: tuple[VectorReport, ...]
    embedders: list[EmbedderSpec]


_FROM_JSON = {ord(letter): f"_{letter.lower()}" for letter in string.ascii_uppercase}


@dataclass(frozen=True, slots=True)
class MaskPath:
    """One path of an update mask.

    Attributes:
        path: where it is in the request.
        part: "properties", "images" or "vectors".
        name: the name of a property or of a named vector.
    """

    path: str
    part: str
    name: str


class Updater:
    """Changes objects."""

    def __init__(
        self, store: Store, embedders: EmbedderPool, writes: Writes, *, pictures: Pictures = NO_PICTURES
    ) -> None:
        self._store = store
        self._writes = writes
        self._embedders = embedders
        self._pictures = pictures
        self._vectorizer = Vectorizer(embedders, pictures)
        self._writer = Writer(store, embedders, writes)

    async def update(
        self,
        name: str,
        draft: DraftObject,
        *,
        mask: Sequence[MaskPath] = (),
        truncate: bool,
        scope: Scope = NO_TENANT,
        api_key: str | None = None,
    ) -> UpdateReport:
        """Change an object.

        Args:
            name: the collection.
            draft: the object's id, and new values.
            mask: what changes; what the draft has no value of is cleared. Empty for all that the draft has values of.
            truncate: whether texts may be cut to what the model reads.
            scope: whose object it is, and how many replicas must answer.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            ObjectNotFound: the collection has no object of that id.
            InvalidRequest: the change does not fit, or an input cannot be embedded.
            CollectionNotBound: the change sets or clears a vector that is bound to no space. Others of those stay as
                they are.
            SpaceMismatch: no embedder has the space of any named vector that must be computed.
            EmbedderError: the embedders of all spaces failed; nothing is changed.
            ImageUriNotAllowed, ImageNotServed, ImageUnreachable: an image cannot be fetched.
            ImageNotStored: a vector that must be computed needs an image of which only the hash is stored.
            StoreRejected: the store refused.
            StoreUnavailable: the store failed.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name))
        draft = await self._pictures.fill(draft)
        wanted, cleared = await _checked_change(collection, draft, mask, scope.tenant)
        collection = _bound_part(collection, {*wanted.vectors, *cleared["vectors"]})
        mark = self._writes.ended
        before = await self._store.get_object(collection.name, wanted.id, vector_fields(collection), scope)
        properties = {**dict.fromkeys(cleared["properties"]), **wanted.properties}
        images: dict[str, bytes | None] = {**dict.fromkeys(cleared["images"]), **wanted.images}
        after = _changed(before, wanted, properties, images)
        left = {key: each for key, each in before.vectors.items() if key not in cleared["vectors"]}
        candidate = Candidate(draft.path, after, replaces=False)
        used: dict[str, EmbedderSpec] = {}
        fill = partial(self._vectorizer.fill, collection, [candidate], replace(DOCUMENT, api_key=api_key))
        await fill(truncate=truncate, stored={before.id: replace(before, vectors=left)}, used=used, partly=True)
        touched = _touched(collection, wanted, cleared)
        # A vector that was missing before and does not depend on the change may stay missing.
        failed = [each.error for each in candidate.reports if each.error and each.name in {*before.vectors, *touched}]
        if candidate.error is None:
            candidate.error = _decisive(failed, useful=bool(used))
        check_native(collection, candidate)
        if candidate.error is not None:
            raise candidate.error
        kept = {key: each for key, each in unchanged(candidate.object, before).items() if key in touched}
        await self._writer.change(collection, _change(properties, images, before, candidate), kept, mark, scope)
        return UpdateReport(tuple(sorted(candidate.reports, key=lambda report: report.name)), list(used.values()))


def _changed(
    before: StoredObject,
    wanted: StoredObject,
    properties: Mapping[str, PropertyValue],
    images: Mapping[str, bytes | None],
) -> StoredObject:
    """Return an object as it is after a change, with the supplied vectors only."""
    return replace(
        wanted,
        properties={**before.properties, **properties},
        images={name: content for name, content in {**before.images, **images}.items() if content is not None},
        hashes={name: each for name, each in before.hashes.items() if name not in images} | dict(wanted.hashes),
    )


def _decisive(failed: Sequence[Absence], *, useful: bool) -> Absence | None:
    """Return which of the errors of vectors lets the update fail; None if the others suffice."""
    lost = next((each for each in failed if isinstance(each, ImageNotStored)), None)
    return lost or (foremost(failed) if failed and not useful else None)


def _touched(collection: Collection, wanted: StoredObject, cleared: Mapping[str, set[str]]) -> set[str]:
    """Return the named vectors that a change sets, clears, or changes a field of."""
    named = {*wanted.properties, *wanted.images, *cleared["properties"], *cleared["images"]}
    changed = {each.name for each in collection.vectors if not named.isdisjoint(each.field_names)}
    return {*wanted.vectors, *cleared["vectors"], *changed}


def _bound_part(collection: Collection, supplied: Iterable[str]) -> Collection:
    """Return a collection with only those named vectors that are bound to a space.

    Raises:
        CollectionNotBound: one of the others is supplied.
    """
    bound = collection.bound_part
    for name in supplied:
        if bound.find_vector(name) is None:
            raise CollectionNotBound(collection.name, name)
    return bound


async def _checked_change(
    collection: Collection, draft: DraftObject, mask: Sequence[MaskPath], tenant: str
) -> tuple[StoredObject, dict[str, set[str]]]:
    """Do what `_check_change` does, of a large change in a thread."""
    check = partial(_check_change, collection, draft, mask, tenant)
    return await asyncio.to_thread(check) if draft.size() > CHECK_IN_THREAD_BYTES else check()


def _check_change(
    collection: Collection, draft: DraftObject, mask: Sequence[MaskPath], tenant: str
) -> tuple[StoredObject, dict[str, set[str]]]:
    """Return the values that change, and by part the names of those that are cleared.

    Raises:
        InvalidRequest: the change does not fit the collection; all violations are listed.
    """
    cleared: dict[str, set[str]] = {"properties": set(), "images": set(), "vectors": set()}
    with collecting() as violations:
        if mask:
            named: dict[str, set[str]] = {"properties": set(), "images": set(), "vectors": set()}
            names = {part: _Names(collection, part) for part in named}
            for each in mask:
                with noting(violations):
                    named[each.part].add(names[each.part].find(each))
            given = {name: value for name, value in draft.properties.items() if value is not None}
            properties = {name: value for name, value in given.items() if name in named["properties"]}
            images = {name: content for name, content in draft.images.items() if name in named["images"]}
            vectors = {name: data for name, data in draft.vectors.items() if name in named["vectors"]}
            draft = replace(draft, properties=properties, images=images, vectors=vectors)
            for part, values in (("properties", properties), ("images", images), ("vectors", vectors)):
                cleared[part] = named[part] - values.keys()
        else:
            for name, value in draft.properties.items():
                if value is None:
                    message = f"is null, which changes nothing; to clear it name properties.{name} in update_mask"
                    violations.append(Violation(f'{draft.path}.properties["{name}"]', message, "INVALID_PROPERTY"))
        with noting(violations):
            wanted = check_object(collection, draft, tenant)
    return wanted, cleared


class _Names:
    """The names that paths of a mask may mean, of one part of a collection.

    JSON writes masks in lowerCamelCase, so that a reader of JSON makes `myTitle` into `my_title`; a property that is
    called so comes first.
    """

    def __init__(self, collection: Collection, part: str) -> None:
        self._collection = collection
        self._part = part
        self._names = [each.name for each in collection.vectors]
        if part != "vectors":
            typed = [each for each in collection.properties if each.data_type is not None]
            self._names = [each.name for each in typed if (each.data_type in BLOBS) is (part == "images")]
        self._by_name = {name.translate(_FROM_JSON): name for name in reversed(self._names)}
        self._by_name |= {name: name for name in self._names}
        self._listed = False

    def find(self, named: MaskPath) -> str:
        """Return the name that a path means.

        Raises:
            InvalidRequest: the collection has no such name; the first time with those that it has.
        """
        if (name := self._by_name.get(named.name)) is not None:
            return name
        listed, self._listed = self._listed, True
        kind = {"properties": "property", "images": "blob property", "vectors": "named vector"}[self._part]
        reason = "UNKNOWN_VECTOR" if self._part == "vectors" else "UNKNOWN_PROPERTY"
        names = None if listed else self._names
        raise InvalidRequest([unknown_name(self._collection, named.path, kind, names, reason)])


def _change(
    properties: Mapping[str, PropertyValue],
    images: Mapping[str, bytes | None],
    before: StoredObject,
    candidate: Candidate,
) -> ObjectChange:
    origins = {report.name: report.origin for report in candidate.reports}
    made = (VectorOrigin.COMPUTED, VectorOrigin.SUPPLIED)
    return ObjectChange(
        before.id,
        properties,
        images,
        {key: vector for key, vector in candidate.object.vectors.items() if origins[key] in made},
        # Their fields are cleared, and searches would still find the object by these vectors.
        [key for key in before.vectors if origins[key] is VectorOrigin.MISSING],
    )
