"""Converts named vectors to and from Weaviate's schema: binding, module, index, quantizer.

The space binding, and how fields become a vector, live in a named vector's vectorizer config: Weaviate keeps keys that
it does not know there, returns them and refuses to change them. A named vector that Weaviate's own multi2vec-nvidia
fills is adopted: its space is its model, its fields are the module's. A vector that another client made, for vectors of
its own, is bound later: its binding lives in the moduleConfig of a property, where Weaviate takes a new key at any time
and refuses to change or remove it, too. Elsewhere it would not be safe (measured on 1.38 and 1.39): the vectorizer
config is closed by then, a class with an unknown key in its own moduleConfig cannot be restored from a backup, and
other clients replace descriptions.

A binding made later goes by the vector's name, since Weaviate gives a vector no other identity. Vecgate ends it when it
removes the vector. If another client removes such a vector and adds its own of the same name, nothing tells the two
apart, and the new one has the old binding until it is bound again.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from service.domain import Distance, NamedVector, Parameters, Quantizer, Space, VectorIndex, WeightedField

Schema = dict[str, Any]

MODULE = "multi2vec-nvidia"
MODULE_MODEL = "nvidia/nvclip"
"""The module's model if the schema names none."""

SERVED_MODEL = "servedModel"
"""The key of the model's name where the module's model is the id of a space."""

NAMELESS = "default"
"""Weaviate's name for the vector without a name; searches and reads do not accept it."""

BINDING = re.compile(r"vecgate-([1-9][0-9]{0,8})")
"""The key of a binding in a property's moduleConfig. A vector's binding with the highest number counts."""
REMOVED = "none"
"""The type of index of a named vector that was removed."""
COMBINATION, JOINT = "combination", "joint"
"""The key that says that an object's fields are one input, and its value; without it they are embedded one by one."""

QUANTIZERS = ("rq", "bq", "pq", "sq")
# Fields of an index that are not parameters, or that only Weaviate sets.
NOT_PARAMETERS = frozenset(
    (*QUANTIZERS, "distance", "multivector", "skip", "skipDefaultQuantization", "trackDefaultQuantization")
)


def vector_to_schema(vector: NamedVector) -> Schema:
    """Return the schema to create."""
    assert vector.space is not None, "a named vector to create is bound to a space"
    type_ = vector.index.type or "hnsw"
    config = {"distance": (vector.distance or Distance.COSINE).value}
    _set_index(config, vector.index, type_)
    return {
        "vectorizer": {MODULE if vector.native else "none": _binding(vector)},
        "vectorIndexType": type_,
        "vectorIndexConfig": config,
    }


def _binding(vector: NamedVector) -> Schema:
    assert vector.space is not None, "it is bound to a space"
    space = vector.space
    binding: Schema = {"space": space.id, "dimension": space.dimension, "model": space.model}
    if not vector.native:
        return binding | _fields(vector)
    if space.id != space.model:
        # The module asks for its model by this name; several spaces may share the name of a model.
        binding |= {"model": space.id, SERVED_MODEL: space.model}
    return binding | _native_fields(vector)


def add_binding(collection: Schema, vector: NamedVector) -> bool:
    """Put the binding of a vector into its collection's schema from Weaviate, and return whether there is room.

    All go to the first property by name, under numbers: of two bindings at the same time, Weaviate refuses the later.
    """
    return _record(collection, {"vector": vector.name, **_binding(vector)})


def drop_binding(collection: Schema, name: str) -> bool:
    """Put into a collection's schema that a vector is bound no more, and return whether it was bound later.

    Another client may make a vector of the same name after it was removed.
    """
    _, binding = latest_bindings(collection).get(name, (0, {}))
    return _space_from_schema(binding) is not None and _record(collection, {"vector": name})


def restore_binding(collection: Schema, name: str) -> bool:
    """Put the binding that drop_binding ended into a collection's schema again, and return whether there is one."""
    _, latest = latest_bindings(collection).get(name, (0, {}))
    numbered = sorted(_bindings(collection), key=lambda each: each[0])
    ended = [each for _, each in numbered if each.get("vector") == name and _space_from_schema(each) is not None]
    return not _space_from_schema(latest) and bool(ended) and _record(collection, ended[-1])


def _record(collection: Schema, binding: Mapping[str, Any]) -> bool:
    own = [each for each in collection.get("properties") or () if not each["dataType"][0][:1].isupper()]
    if not own:
        return False
    number = max((number for number, _ in _bindings(collection)), default=0) + 1
    first = min(own, key=lambda each: str(each["name"]))
    first["moduleConfig"] = {
        **as_mapping(first.get("moduleConfig")),
        f"vecgate-{number}": dict(binding),
    }
    return True


def _bindings(collection: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for property_ in collection.get("properties") or ():
        for key, binding in as_mapping(property_.get("moduleConfig")).items():
            if found := BINDING.fullmatch(key):
                yield int(found[1]), as_mapping(binding)


def latest_bindings(collection: Mapping[str, Any]) -> dict[str, tuple[int, Mapping[str, Any]]]:
    """Return the bindings in a collection's schema that count, by vector, with their numbers."""
    numbered = sorted(_bindings(collection), key=lambda each: each[0])
    return {str(binding.get("vector")): (number, binding) for number, binding in numbered}


def _fields(vector: NamedVector) -> Schema:
    kinds = {"imageFields": vector.image_fields, "textFields": vector.text_fields}
    names: Schema = {kind: [property_name(each.name) for each in fields] for kind, fields in kinds.items()}
    if vector.joint:
        return names | {COMBINATION: JOINT}
    return names | {"weights": {kind: [each.weight for each in fields] for kind, fields in kinds.items()}}


def _native_fields(vector: NamedVector) -> Schema:
    # The module matches inputs and weights by alphabetical position, not by name, and refuses an empty list.
    ordered = _fields(
        replace(
            vector,
            image_fields=tuple(sorted(vector.image_fields, key=_field_name)),
            text_fields=tuple(sorted(vector.text_fields, key=_field_name)),
        )
    )
    weights = {kind: listed for kind, listed in ordered.pop("weights").items() if listed}
    fields = {kind: names for kind, names in ordered.items() if names}
    return fields | ({"weights": weights} if vector.weighted else {}) | {"baseURL": vector.base_url}


def patch_vector(schema: Schema, vector: NamedVector) -> None:
    """Put the index of a named vector into its schema from Weaviate."""
    _set_index(schema["vectorIndexConfig"], vector.index, schema["vectorIndexType"])


def _set_index(config: Schema, index: VectorIndex, type_: str) -> None:
    _merge(config, index.parameters)
    if type_ != "dynamic":
        _set_quantizer(config, index.quantizer)
        return
    for name, quantizer in (("hnsw", index.quantizer), ("flat", index.flat_quantizer)):
        part = config.setdefault(name, {})
        part["distance"] = config["distance"]
        _set_quantizer(part, quantizer)


def _set_quantizer(config: Schema, quantizer: Quantizer | None) -> None:
    if quantizer is None:
        return
    if quantizer.type == "none":
        # Weaviate keeps the creation parameters of an existing index.
        config.setdefault("skipDefaultQuantization", True)
        return
    config[quantizer.type] = {**config.get(quantizer.type, {}), **quantizer.parameters, "enabled": True}


def _merge(target: Schema, parameters: Parameters) -> None:
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            _merge(target.setdefault(name, {}), value)
        else:
            target[name] = value


def is_removed(schema: Mapping[str, Any]) -> bool:
    """Return whether a named vector was removed, and stays in the schema until Weaviate has deleted its data."""
    return schema.get("vectorIndexType") == REMOVED


def nameless_schema(collection: Mapping[str, Any]) -> Schema | None:
    """Return the schema of the vector without a name in the form of a named vector's, or None."""
    # Weaviate's own rule: entities/modelsext/class.go.
    if not any(collection.get(key) for key in ("vectorizer", "vectorIndexType", "vectorIndexConfig")):
        return None
    module = str(collection.get("vectorizer") or "none")
    return {**collection, "vectorizer": {module: as_mapping(collection.get("moduleConfig")).get(module)}}


def vector_from_schema(
    name: str, schema: Mapping[str, Any], later: tuple[int, Mapping[str, Any]] | None = None
) -> NamedVector:
    """Return a named vector from Weaviate's schema, even if another program created it.

    Args:
        name: the vector's name.
        schema: its schema.
        later: the binding that was made after its creation, with its number, if any.
    """
    vectorizer = as_mapping(schema.get("vectorizer"))
    module = next(iter(vectorizer), "none")
    config = as_mapping(vectorizer.get(module))
    index = as_mapping(schema.get("vectorIndexConfig"))
    multi = bool(as_mapping(index.get("multivector")).get("enabled"))
    number = 0
    if later is not None and module == "none" and not multi and _space_from_schema(config) is None:
        number, config = later
    known = {each.value: each for each in Distance}
    joint = module != MODULE and config.get(COMBINATION) == JOINT
    return NamedVector(
        name=name,
        space=_space_from_schema(config) or (_adopted_space(config) if module == MODULE else None),
        image_fields=_fields_from_schema(config, "imageFields"),
        text_fields=_fields_from_schema(config, "textFields"),
        distance=known.get(str(index.get("distance"))),
        index=_index_from_schema(str(schema.get("vectorIndexType") or ""), index),
        native=module == MODULE,
        base_url=str(config.get("baseURL") or "") if module == MODULE else "",
        weighted=not joint and (module != MODULE or any(as_mapping(config.get("weights")).values())),
        joint=joint,
        module=module if module not in ("none", MODULE) else "",
        multi=multi,
        binding=number,
    )


def _index_from_schema(type_: str, config: Mapping[str, Any]) -> VectorIndex:
    if type_ != "dynamic":
        return VectorIndex(type_, _parameters(config), _quantizer_from_schema(config))
    hnsw, flat = as_mapping(config.get("hnsw")), as_mapping(config.get("flat"))
    parameters = {**_parameters(config), "hnsw": _parameters(hnsw), "flat": _parameters(flat)}
    return VectorIndex(type_, parameters, _quantizer_from_schema(hnsw), _quantizer_from_schema(flat))


def _parameters(config: Mapping[str, Any]) -> Parameters:
    return {name: value for name, value in config.items() if name not in NOT_PARAMETERS}


def _quantizer_from_schema(config: Mapping[str, Any]) -> Quantizer | None:
    if not config:
        return None
    for type_ in QUANTIZERS:
        found = as_mapping(config.get(type_))
        if found.get("enabled"):
            return Quantizer(type_, {name: value for name, value in found.items() if name != "enabled"})
    return Quantizer("none")


def _space_from_schema(config: Mapping[str, Any]) -> Space | None:
    id_, dimension = config.get("space"), config.get("dimension")
    if not isinstance(id_, str) or not isinstance(dimension, int | float):
        return None
    return Space(id_, int(dimension), str(config.get(SERVED_MODEL) or config.get("model") or ""))


def _adopted_space(config: Mapping[str, Any]) -> Space:
    """Return the space of a named vector that Weaviate's module for nvclip fills: that of its model."""
    model = str(config.get("model") or MODULE_MODEL)
    return Space(model, 0, model)


def _fields_from_schema(config: Mapping[str, Any], key: str) -> tuple[WeightedField, ...]:
    names = config.get(key) or ()
    weights = as_mapping(config.get("weights")).get(key) or ()
    if len(weights) != len(names):
        return tuple(WeightedField(str(name)) for name in names)
    return tuple(WeightedField(str(name), float(weight)) for name, weight in zip(names, weights, strict=True))


def property_name(name: str) -> str:
    """Return a property's name in Weaviate's spelling."""
    # Weaviate changes the property's name in the same way; the fields of a vector must match it.
    return name[:1].lower() + name[1:]


def _field_name(field: WeightedField) -> str:
    return property_name(field.name)


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a value of Weaviate's JSON if it is an object, otherwise an empty object."""
    return value if isinstance(value, Mapping) else {}
