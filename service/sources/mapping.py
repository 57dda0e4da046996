"""Which column becomes what: read from a file and options, checked against a source and a collection, and applied."""

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from posixpath import normpath
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.domain.collections import BLOBS, Collection, DataType, NamedVector, Property
from service.domain.keys import key_id, property_name
from service.domain.objects import PropertyValue
from service.sources import pictures, text
from service.sources.errors import InvalidMapping, InvalidSource, RowRefused, Unfit
from service.sources.rows import MAX_VALUE_BYTES, Row
from service.sources.schema import NOTHING, Column, Schema, value_at
from service.sources.storage import WEB, read_file, scheme_of, without_secrets
from service.sources.values import as_key, converted, misfit

Made = TypeVar("Made")

ID, TENANT = "id", "tenant"
"""What a column may become beside a property and a vector."""
IMAGE = "image"
"""The property that the only column of pictures becomes when a collection is made for a source."""
VECTOR_PREFIX = "vector_"
"""Of a column of vectors that has the name of a property, as bulk jobs write it."""
VECTOR_TYPES = frozenset({DataType.NUMBER_ARRAY, DataType.INT_ARRAY})
MAX_URI_CHARS = 4096
"""As many as the fetcher takes. A much longer one would fail the whole request that it is in."""
URI_MARKS = "/%?!$&'()*+,;=:@"
"""What a path below a folder on the web keeps beside letters, numbers and -._~; the rest is percent-encoded."""


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to store.

    Attributes:
        id: a UUID as text; empty where no column gives it, so that it is derived from the content.
        tenant: its tenant; empty where no column gives it.
        properties: values by name, as the domain has them; absent ones are left out.
        images: by blob property, encoded pictures; a text is the http or https URI of one that is to be fetched.
        vectors: float32 vectors of shape (dimension,) by named vector.
    """

    id: str = ""
    tenant: str = ""
    properties: AbstractMapping[str, PropertyValue] = field(default_factory=dict)
    images: AbstractMapping[str, bytes | str] = field(default_factory=dict)
    vectors: AbstractMapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which column becomes what. What is not mapped here is matched by its name.

    Attributes:
        columns: what a column becomes, by its name or "column.field" of a struct: a property, a named vector, `id`, or
            `tenant`; several with commas between them, such as a blob property for the picture behind a reference and
            a text property for the reference; empty to leave it out.
        images: the folder below which referenced pictures are; empty for the folder of the table.
        spaces: the space of vectors, by named vector, for files that do not say it.
    """

    columns: AbstractMapping[str, str] = field(default_factory=dict)
    images: str = ""
    spaces: AbstractMapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Mapping":
        """Read a mapping from a TOML file.

        Raises:
            InvalidMapping: it is not one.
        """
        try:
            told = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidMapping([f"{path}: {error.strerror}"]) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidMapping([f"{path} is not TOML: {error}"]) from error
        faults = [f"{path}: {name!r} is unknown; there are columns, images and spaces" for name in told.keys() - KEYS]
        images = told.get("images", "")
        if not isinstance(images, str):
            faults.append(f"{path}: images must be a text")
        for name in ("columns", "spaces"):
            table = told.get(name, {})
            if not isinstance(table, dict) or not all(isinstance(each, str) for each in table.values()):
                faults.append(f"{path}: [{name}] must be a table of texts, with dotted names in quotes")
        if faults:
            raise InvalidMapping(faults)
        return cls(told.get("columns", {}), images, told.get("spaces", {}))

    def with_options(self, options: Sequence[str], images: str = "", key: str = "") -> "Mapping":
        """Return the mapping with options, which come before what it says.

        Args:
            options: of the form COLUMN=PROPERTY.
            images: the folder of pictures; empty to leave it as it is.
            key: the column that becomes the id, beside what else it becomes; empty for none.

        Raises:
            InvalidMapping: an option has another form.
        """
        wrong = [each for each in options if not each.rpartition("=")[0]]
        if wrong:
            raise InvalidMapping([f"--column {each}: must have the form COLUMN=PROPERTY" for each in wrong])
        columns = {**self.columns, **{each.rpartition("=")[0]: each.rpartition("=")[2] for each in options}}
        if key:
            others = [each for each in targets_of(columns.get(key, "")) if each not in {"", ID}]
            columns[key] = ",".join([*others, ID])
        return replace(self, columns=columns, images=images or self.images)

    def new_properties(self, schema: Schema) -> tuple[Property, ...]:
        """Return the properties of a new collection for a source, so that it can be bound.

        The only column of pictures becomes `image`. A column is left out if it is mapped to `id` or nothing, has no
        type of Weaviate, or has vectors whose space is known.
        """
        only = _only_picture(schema)
        paths = {path: column for path in self.columns if (column := schema.find(path))}
        tops = {schema.top(path) for path in paths}
        paths |= {column.name: column for column in schema.columns if column.name not in tops}
        asked = {path: targets_of(text) for path, text in self.columns.items()}
        found: dict[str, Property] = {}
        for path, column in paths.items():
            targets = asked.get(path, [property_name(path)])
            if path == only and path not in asked and IMAGE not in chain.from_iterable(asked.values()):
                targets = [IMAGE]
            for target in targets:
                made = _property(column, target)
                is_key = path == ID and schema.from_bulk
                if made is None or column.space or target in {"", ID, *self.spaces} or is_key:
                    continue
                if (path == only and len(targets) == 1) or (target == IMAGE and column.type is DataType.TEXT):
                    made = replace(made, data_type=DataType.BLOB)
                found.setdefault(target, made)
        return tuple(found.values())

    def bind(self, schema: Schema, collection: Collection) -> "Plan":
        """Return what to do with each row.

        Raises:
            InvalidMapping: columns do not fit; every fault, before anything runs.
        """
        return _Binding(self, schema, collection).plan()


KEYS = frozenset({"columns", "images", "spaces"})


def targets_of(text: str) -> list[str]:
    """Return what a column becomes, of a text with commas between several."""
    return [each.strip() for each in text.split(",")]


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of each row of a source in a collection. It can be sent to other processes.

    Attributes:
        collection: the collection's name.
        id: the column of ids; empty for none.
        tenant: the column of tenants; empty for none.
        properties: which columns become which properties.
        images: which columns become which blob properties.
        vectors: which columns become which named vectors, with their dimensions; 0 if unknown.
        columns: the columns to read.
        unused: columns that nothing is made of, with the reason.
        folder: the folder below which referenced pictures are; empty for the folder of the table.
        references: the named vectors that are made of the pictures whose URIs a text property holds, by property.
    """

    collection: str
    id: str
    tenant: str
    properties: AbstractMapping[str, Property]
    images: AbstractMapping[str, str]
    vectors: AbstractMapping[str, tuple[str, int]]
    columns: tuple[str, ...]
    unused: AbstractMapping[str, str]
    folder: str = ""
    references: AbstractMapping[str, Sequence[str]] = field(default_factory=dict)

    def targets(self) -> dict[str, str]:
        """Return what becomes of each column that is used, for people."""
        told: dict[str, list[str]] = {}
        for column, word in (
            *((column, f"property {each.name}") for column, each in self.properties.items()),
            *((column, f"image {name}") for column, name in self.images.items()),
            *((column, f"vector {name}") for column, (name, _) in self.vectors.items()),
            (self.id, ID),
            (self.tenant, TENANT),
        ):
            told.setdefault(column, []).append(word)
        return {column: ", ".join(words) for column, words in told.items() if column}

    def uris(self, made: NewObject) -> dict[str, str]:
        """Return the URIs of an object's pictures that are to be fetched, by property."""
        uris = {name: each for name, each in made.images.items() if isinstance(each, str)}
        # Where the vectors are supplied, nobody needs the picture behind a reference that alone is stored.
        needed = (name for name, vectors in self.references.items() if not made.vectors.keys() >= set(vectors))
        texts = ((name, made.properties.get(name)) for name in needed)
        return uris | {name: each for name, each in texts if isinstance(each, str) and each}

    def object(self, row: Row) -> NewObject:
        """Return the object of a row, with the pictures that it refers to; those on the web are not fetched.

        Raises:
            RowRefused: the row cannot become one.
            InvalidSource: a picture that it refers to cannot be read now, but perhaps later.
        """
        if row.fault:
            raise RowRefused(row.fault, row.where, detail=row.detail)

        def each(columns: Iterable[str], make: Callable[[str, Any], Made | None]) -> dict[str, Made]:
            return {column: made for column in columns if (made := self._made(row, column, make)) is not None}

        properties: dict[str, PropertyValue] = each(
            self.properties, lambda column, value: converted(value, self.properties[column])
        )
        vectors = each(self.vectors, lambda column, value: _vector(value, self.vectors[column][1]))
        keys = each(filter(None, (self.id, self.tenant)), lambda _, value: as_key(value))
        images: dict[str, bytes | str] = each(self.images, lambda _, value: self._picture(row, value))
        if not (properties or images or vectors):
            raise RowRefused("nothing in it becomes a property, an image or a vector", row.where)
        return NewObject(
            _id(self.collection, keys.get(self.id, "")),
            keys.get(self.tenant, ""),
            {self.properties[column].name: value for column, value in properties.items()},
            {self.images[column]: content for column, content in images.items()},
            {self.vectors[column][0]: vector for column, vector in vectors.items()},
        )

    @staticmethod
    def _made(row: Row, column: str, make: Callable[[str, Any], Made | None]) -> Made | None:
        try:
            return make(column, value_at(row.values, column))
        except Unfit as error:
            raise RowRefused(error.reason, row.where, column, error.detail) from error
        except InvalidSource as error:
            told = f"{without_secrets(error.location)}: {error.reason}"
            if not error.final:
                raise InvalidSource(row.location, f"{row.spot}: the picture cannot be read: {told}") from error
            raise RowRefused("the picture cannot be read", row.where, column, told) from error

    def _picture(self, row: Row, value: Any) -> bytes | str | None:
        """Return the picture that a value is, or refers to; of a picture on the web, its URI."""
        if isinstance(value, AbstractMapping):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        match value:
            case None | "":
                return None
            case bytes():
                if not value or len(value) > MAX_VALUE_BYTES:
                    raise Unfit(f"the picture must have 1 to {MAX_VALUE_BYTES} bytes", f"it has {len(value)}")
                return value
            case str():
                location = _referred(self.folder or row.location.rpartition("/")[0], value)
                if scheme_of(location) in WEB:
                    return _sendable(location)
                content = read_file(location, MAX_VALUE_BYTES)
                if not content:
                    raise Unfit("the picture is empty")
                return content
        raise Unfit("it is not the bytes of a picture, or a reference to one")


class _Binding:
    """The check of a mapping against a source and a collection."""

    def __init__(self, mapping: Mapping, schema: Schema, collection: Collection) -> None:
        self.mapping = mapping
        self.schema = schema
        self.collection = collection
        self.faults: list[str] = []
        self.properties: dict[str, Property] = {}
        self.images: dict[str, str] = {}
        self.vectors: dict[str, tuple[str, int]] = {}
        self.keys: dict[str, str] = {}
        self.unused: dict[str, str] = {}

    def plan(self) -> Plan:
        for path, target in self.mapping.columns.items():
            column = self.schema.find(path)
            if column is None:
                self.faults.append(f"there is no column {path!r}; there are {', '.join(self.schema.names)}")
            elif not target:
                self.unused[path] = "left out"
            else:
                for each in targets_of(target):
                    self._take(path, column, each, asked=True)
        mapped = {self.schema.top(path) for path in self.mapping.columns if self.schema.find(path)}
        for column in self.schema.columns:
            if column.name not in mapped:
                self._match(column)
        for name in self.mapping.spaces:
            if self.collection.find_vector(name) is None:
                self.faults.append(f"[spaces]: the collection {self.collection.name} has no named vector {name!r}")
        folder = self._folder()
        self._check_scope()
        if self.faults:
            raise InvalidMapping(self.faults)
        used = (*self.properties, *self.images, *self.vectors, *self.keys.values())
        return Plan(
            self.collection.name,
            self.keys.get(ID, ""),
            self.keys.get(TENANT, ""),
            self.properties,
            self.images,
            self.vectors,
            tuple(dict.fromkeys(map(self.schema.top, used))),
            self.unused,
            folder,
            self._references(),
        )

    def _references(self) -> dict[str, list[str]]:
        """Return the text properties that a column becomes and that bound named vectors take for URIs of pictures."""
        texts = (each.name for each in self.properties.values() if each.data_type is DataType.TEXT)
        bound = self.collection.bound_part.vectors
        vectors = [(vector.name, {each.name for each in vector.image_fields}) for vector in bound]
        found = {name: [vector for vector, fields in vectors if name in fields] for name in texts}
        return {name: made for name, made in found.items() if made}

    def _folder(self) -> str:
        images = self.mapping.images
        try:
            scheme = scheme_of(images)
        except InvalidSource as error:
            self.faults.append(f"images: {error}")
            return ""
        if images and not images[len(scheme) :].strip(":/"):
            self.faults.append(f"images: {images} names no folder; name one, as in /pictures or s3://bucket/pictures")
        folder = images.rstrip("/")
        return folder if not folder or scheme else str(Path(folder).absolute())

    def _check_scope(self) -> None:
        if self.schema.kind == pictures.KIND and pictures.FILE not in self.mapping.columns:
            self.keys.setdefault(ID, pictures.FILE)
            self.unused.pop(pictures.FILE, None)
        if not (self.properties or self.images or self.vectors or self.faults):
            names = [*(each.name for each in self.collection.properties), *(e.name for e in self.collection.vectors)]
            self.faults.append(
                f"no column fits the collection {self.collection.name} by its name; map columns to one of "
                f"{', '.join(names)}"
            )

    def _match(self, column: Column) -> None:
        """Take a column that nobody mapped, if its name says what it is."""
        if column.name == ID and self.schema.from_bulk and ID not in self.keys:
            self._take_key(column.name, column, ID)
            return
        taken = {each.name for each in self.properties.values()} | set(self.images.values())
        for name in dict.fromkeys((column.name, property_name(column.name))):
            if self.collection.find_property(name) and name not in taken:
                self._take(column.name, column, name)
                return
            vector = self.collection.find_vector(name) or self._of_space(column)
            if column.space and name.startswith(VECTOR_PREFIX):
                vector = self.collection.find_vector(name.removeprefix(VECTOR_PREFIX)) or vector
            if (
                vector
                and column.type in VECTOR_TYPES
                and vector.name not in {each for each, _ in self.vectors.values()}
            ):
                self._take_vector(column.name, column, vector)
                return
        blobs = self.collection.blobs
        if column.name == _only_picture(self.schema) and len(blobs) == 1 and not self.images:
            self._take(column.name, column, blobs[0])
            return
        if column.words != NOTHING:
            self.unused[column.name] = f"the collection {self.collection.name} has no property of this name"

    def _of_space(self, column: Column) -> NamedVector | None:
        """Return the only named vector of the space that a column's vectors are in."""
        found = [each for each in self.collection.vectors if each.space and each.space.id == column.space]
        return found[0] if column.space and len(found) == 1 else None

    def _take(self, path: str, column: Column, target: str, *, asked: bool = False) -> None:
        wanted, vector = self.collection.find_property(target), self.collection.find_vector(target)
        if target == ID or (target == TENANT and self.collection.multi_tenancy and not wanted):
            self._take_key(path, column, target)
        elif vector and (wanted is None or (asked and column.space)):
            self._take_vector(path, column, vector)
        elif wanted is None:
            self.faults.append(f"{path!r}: the collection {self.collection.name} has no property or vector {target!r}")
        elif reason := misfit(column, wanted):
            self.faults.append(f"{path!r}: {reason}")
        elif target in {*(each.name for each in self.properties.values()), *self.images.values()}:
            self.faults.append(f"{path!r}: another column is {target!r} already")
        elif path in (self.images if wanted.data_type in BLOBS else self.properties):
            self.faults.append(f"{path!r}: a column becomes one image and one other property at most")
        elif wanted.data_type in BLOBS:
            self.images[path] = target
        else:
            self.properties[path] = wanted

    def _take_key(self, path: str, column: Column, word: str) -> None:
        if word in self.keys:
            self.faults.append(f"{path!r}: the column {self.keys[word]!r} is the {word} already")
        elif column.type not in {DataType.TEXT, DataType.INT, DataType.UUID, DataType.BLOB}:
            self.faults.append(f"{path!r}: a column of {column.words} cannot be the {word}")
        else:
            self.keys[word] = path

    def _take_vector(self, path: str, column: Column, vector: NamedVector) -> None:
        told = column.space or self.mapping.spaces.get(vector.name, "")
        bound = vector.space
        if column.type not in VECTOR_TYPES:
            self.faults.append(f"{path!r}: a column of {column.words} has no vectors for {vector.name!r}")
        elif bound is None:
            self.faults.append(f"{path!r}: the vector {vector.name!r} is bound to no space")
        elif not told:
            self.faults.append(
                f"{path!r}: the file does not say which space its vectors are in; "
                f"say it in the mapping, as in [spaces] {vector.name} = {bound.id!r}, if you know it"
            )
        elif told != bound.id:
            self.faults.append(
                f"{path!r}: its vectors are in the space {told}, the vector {vector.name!r} is bound to {bound.id}"
            )
        elif column.length and bound.dimension and column.length != bound.dimension:
            self.faults.append(
                f"{path!r}: its vectors have {column.length} values, the space {bound.id} has {bound.dimension}"
            )
        else:
            self.vectors[path] = (vector.name, bound.dimension)


def _only_picture(schema: Schema) -> str:
    """Return the column that has the pictures, or refers to them; empty if there are several or none."""
    blobs = [each.name for each in schema.columns if each.type is DataType.BLOB]
    if not blobs and schema.kind in {text.CSV, text.JSONL}:
        blobs = [each.name for each in schema.columns if each.name == pictures.FILE and each.type is DataType.TEXT]
    return blobs[0] if len(blobs) == 1 else ""


def _property(column: Column, name: str) -> Property | None:
    """Return a new property for a column's values, or None if no property takes them."""
    nested = tuple(_property(each, property_name(each.name)) for each in column.nested)
    if column.type is None or any(each is None for each in nested):
        return None
    if any(
        each is not None and (each.name != inner.name or each.data_type in BLOBS)
        for each, inner in zip(nested, column.nested, strict=True)
    ):
        return None
    return Property(name, column.type, nested=tuple(filter(None, nested)))


def _id(collection: str, key: str) -> str:
    if not key:
        return ""
    try:
        return str(UUID(key))
    except ValueError:
        return key_id(collection, key)


def _vector(value: Any, dimension: int) -> NDArray[np.float32] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise Unfit("it is not a list of numbers")
    try:
        found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unfit("it is not a list of numbers") from error
    if found.ndim != 1 or (dimension and len(found) != dimension):
        raise Unfit(f"a vector of the space has {dimension} values", f"this has {found.size}")
    if not np.isfinite(found).all() or not found.any():
        raise Unfit("the vector has only zeros, or a value that is not finite")
    return found


def _referred(folder: str, reference: str) -> str:
    """Return where a picture is: below a folder, or on the web, where the operator says what may be fetched.

    Raises:
        InvalidSource: it is a URL of another kind, or has a password; final.
        Unfit: the reference leads out of the folder, or has white space at an end.
    """
    if reference != reference.strip():
        raise Unfit("the reference begins or ends with white space; remove it")
    whole = re.match(r"[a-z][a-z0-9+.-]*:|/", reference, re.IGNORECASE)
    location = reference if whole else f"{folder}/{reference}"
    scheme = scheme_of(location)
    if whole and scheme in WEB:
        return reference
    root, path = (location[: len(scheme) + 3], location[len(scheme) + 3 :]) if scheme else ("", location)
    found = f"{root}{normpath(path)}"
    if not found.startswith(f"{folder}/"):
        raise Unfit(
            "it refers to a picture outside the folder of pictures; name the folder with `images` in the mapping",
            without_secrets(reference),
        )
    return f"{root}{quote(found[len(root) :], URI_MARKS, errors='surrogatepass')}" if scheme in WEB else found


def _sendable(uri: str) -> str:
    """Return a URI that can be in a request to the service.

    Raises:
        Unfit: it is too long, or not ASCII.
    """
    if len(uri) > MAX_URI_CHARS:
        raise Unfit(f"a URI must have at most {MAX_URI_CHARS} characters", f"it has {len(uri)}")
    if not uri.isascii():
        raise Unfit(
            "the URI has characters outside of ASCII; percent-encode those of the path, and write the host as xn--..."
        )
    return uri
