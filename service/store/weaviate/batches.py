"""Batches of objects over Weaviate's gRPC: messages made of our objects.

The client's insert_many checks the type of every value and vector several times and makes lists of vectors: two thirds
of what a write costs in this process. So messages are written here, and sent with the client's stubs, channel and
time-outs. tests/service/store/test_batches.py compares them with what the client makes.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np
from weaviate import WeaviateAsyncClient
from weaviate.proto.v1 import base_pb2, batch_pb2

from service.domain import ObjectValue, PropertyValue, Scope, StoredObject
from service.store.weaviate.wire import CONSISTENCIES

REPETITIONS = 2
"""As insert_many has it. A write is never repeated: see connection.py."""

Batch = batch_pb2.BatchObjectsRequest
Properties = batch_pb2.BatchObject.Properties | base_pb2.ObjectPropertiesValue


async def send(client: WeaviateAsyncClient, request: Batch, scope: Scope) -> Mapping[int, str]:
    """Write objects, and return what Weaviate says of each that it refuses, by index."""
    connection = client._connection  # noqa: SLF001 -- it offers no method for messages
    if scope.consistency is not None:
        request.consistency_level = CONSISTENCIES[scope.consistency]
    refused: Mapping[int, str] = await connection.grpc_batch_objects(
        request, timeout=connection.timeout_config.insert, max_retries=REPETITIONS
    )
    return refused


def add_object(to: Batch, object_: StoredObject, collection: str, tenant: str) -> None:
    """Add the message of an object to a batch: images as base64, vectors as bytes.

    Raises:
        ValueError: a text is not one that UTF-8 can hold; nothing is added.
        TypeError: a value is of no type that a property has; nothing is added.
    """
    # In place: a message of 16 MiB takes 50 ms to copy.
    message = to.objects.add(uuid=str(object_.id), collection=collection, tenant=tenant)
    try:
        _fill(message, object_)
    except (TypeError, ValueError):
        del to.objects[-1]
        raise


def _fill(message: batch_pb2.BatchObject, object_: StoredObject) -> None:
    message.properties.SetInParent()
    _add_properties(message.properties, object_.properties)
    fields = message.properties.non_ref_properties.fields
    for name, image in object_.images.items():
        fields[name].string_value = b64encode(image).decode("ascii")
    for name, vector in object_.vectors.items():
        packed = vector.astype("<f4", copy=False).tobytes()
        message.vectors.add(name=name, vector_bytes=packed, type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32)


def _add_properties(into: Properties, properties: Mapping[str, PropertyValue]) -> None:
    into.non_ref_properties.SetInParent()
    fields = into.non_ref_properties.fields
    for name, value in properties.items():
        match value:
            case str():
                fields[name].string_value = value
            case bool():
                fields[name].bool_value = value
            case int() | float():
                fields[name].number_value = value
            case list():
                _add_list(into, name, value)
            case ObjectValue():
                _add_properties(into.object_properties.add(prop_name=name).value, value)
            case dict():
                place = fields[name].struct_value.fields
                for part in ("latitude", "longitude"):
                    place[part].number_value = value[part]
            case None:
                pass
            case _:
                raise TypeError(f"a value of type {type(value).__name__}")


def _add_list(into: Properties, name: str, items: list[Any]) -> None:
    """Add a list, whose type its first item decides; one whole number among others does not make all whole."""
    match items:
        case []:
            into.empty_list_props.append(name)
        case [ObjectValue(), *_]:
            values = into.object_array_properties.add(prop_name=name).values
            for item in items:
                _add_properties(values.add(), item)
        case [bool(), *_]:
            into.boolean_array_properties.add(prop_name=name, values=items)
        case [str(), *_]:
            into.text_array_properties.add(prop_name=name, values=items)
        case _ if all(isinstance(item, int) for item in items):
            into.int_array_properties.add(prop_name=name, values=items)
        case _:
            into.number_array_properties.add(prop_name=name, values_bytes=np.array(items, "<f8").tobytes())
