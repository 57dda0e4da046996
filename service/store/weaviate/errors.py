"""Where the client's exceptions become the service's: none of weaviate, gRPC or HTTP leaves this folder."""

import re
from collections.abc import Iterator

import grpc
from weaviate.exceptions import (
    AuthenticationFailedError,
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateClosedClientError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateInvalidInputError,
    WeaviateRetryError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)

from service.errors import (
    CollectionAlreadyExists,
    CollectionNotFound,
    InvalidRequest,
    ServiceError,
    StoreRejected,
    StoreUnavailable,
    TenantInactive,
    TenantNotFound,
    VectorRemoved,
    Violation,
)

_UNREACHABLE = (
    ConnectionError,
    TimeoutError,
    WeaviateClosedClientError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateRetryError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)
_UNAVAILABLE_CODES = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
_UNAVAILABLE_STATUSES = frozenset({408, 429, 502, 503, 504})
_NO_COLLECTION = re.compile(
    r"could not find class|class '?\w+'? not (present|found) in schema|: class not found"
    r'|class "\w+": not found|target class "\w+" does not exist|replace alias: class \w+ does not exist'
)
_COLLECTION_EXISTS = re.compile(
    r'(?:class|alias) name (\w+) already exists$|class already exists: found similar (?:class|alias) "(\w+)"'
    r"|create alias: (?:(?:class|alias) )?(\w+),?(?: alias)? already exists"
)
_TENANTS = re.compile(r"has multi-tenancy (enabled|disabled), but request was with(?:out)? tenant")
_INACTIVE = re.compile("tenant not active: '([^']*)'")
_NO_TENANT = re.compile(r'tenant not found: "([^"]*)"')
# What follows it is the caller's own, and could say anything.
_CALLERS_WORDS = re.compile(r" value(?! too small)")
_TTL_TOO_SHORT = re.compile(r'defaultTtl value too small .* Required minimum "(\d+)" seconds')
_NO_VECTOR = re.compile(r'index for target vector "(\w+)" not found|does not have named vector (\w+) configured')
# The second until Weaviate, some seconds later, has deleted the vectors of the objects, too.
_REMOVED_VECTOR = re.compile(r"vector index for (\w+) was dropped|for target vector (\w+): vector index not found$")
_NO_RERANKER = re.compile("unknown capability: rerank")
_NO_WORDS = re.compile("invalid search term, only stopwords provided")
_NO_BLOB_HASH = re.compile("unknown primitive data type '?blobHash")
_NO_INDEX_ENTRY = re.compile(r"insert to (multi )?vector index: ")
# Replicas that all refuse an object are called too few as well.
_OWN_FAULT = re.compile("vector with length|vector dimensions|vector lengths|nil-vector")
_PASSING = {
    # Weaviate itself calls these transient: entities/errors/transient.go.
    "has no room": re.compile("not enough memory|no space left on device"),
    "takes no writes": re.compile("store is read-only|read-only mode|load shard", re.IGNORECASE),
    # What a server says whose shards are not up yet, or not any more.
    "does not reach all of itself": re.compile(
        "deadline exceeded|leader not found|cannot reach enough replicas|connection refused|context canceled"
    ),
    "is starting or stopping": re.compile(r": no (read|write) replicas? found$"),
}


def translate(error: Exception, collection: str = "") -> ServiceError:
    """Return what the service raises for an exception of the client.

    Args:
        error: anything that a call of the client raised.
        collection: the name that the call was about.
    """
    if isinstance(error, ServiceError):
        return error
    status = _find_grpc_error(error)
    if isinstance(error, _UNREACHABLE) or _from_http_library(error):
        return StoreUnavailable("Weaviate does not answer")
    if status is not None:
        return _translate_grpc(status, collection)
    if isinstance(error, UnexpectedStatusCodeError):
        return _translate_http(error, collection)
    return _translate_other(error, collection)


def reject(message: str, collection: str) -> ServiceError:
    """Return what the service raises when Weaviate refuses with a message."""
    fixed = _CALLERS_WORDS.split(message, maxsplit=1)[0]
    if (about := _find_subject(fixed, collection)) is not None:
        return about
    if (unfit := _find_unfit(fixed, collection)) is not None:
        return InvalidRequest([unfit])
    state = next((words for words, pattern in _PASSING.items() if pattern.search(fixed)), None)
    if state is not None and not _OWN_FAULT.search(fixed):
        return StoreUnavailable(f"Weaviate {state}: {message}")
    hint = "; blobHash came with Weaviate 1.37: use blob, or a newer Weaviate" if _NO_BLOB_HASH.search(fixed) else ""
    return StoreRejected(f"Weaviate refused: {message}{hint}")


def _find_subject(message: str, collection: str) -> ServiceError | None:
    """Return what is wrong with the collection, the tenant or the named vector of a call: absent, inactive or taken."""
    if collection and _NO_COLLECTION.search(message):
        return CollectionNotFound(collection)
    if (existing := _COLLECTION_EXISTS.search(message)) is not None:
        return CollectionAlreadyExists(existing[existing.lastindex or 0])
    if (tenant := _NO_TENANT.search(message)) is not None:
        return TenantNotFound(tenant[1])
    if (removed := _REMOVED_VECTOR.search(message)) is not None:
        name = removed[removed.lastindex or 0]
        return StoreUnavailable(f"named vector {name!r} was removed a moment ago; send it again")
    if (vector := _NO_VECTOR.search(message)) is not None:
        return VectorRemoved(vector[1] or vector[2])
    inactive = _INACTIVE.search(message)
    return None if inactive is None else TenantInactive(inactive[1])


def stays_without_entry(message: str) -> bool:
    """Return whether Weaviate says of an object that it is written, and that a vector's index has no entry for it."""
    return _NO_INDEX_ENTRY.search(message) is not None


def _find_unfit(message: str, collection: str) -> Violation | None:
    """Return which part of a call does not fit how the collection is set up, as Weaviate alone knows."""
    if (tenants := _TENANTS.search(message)) is not None:
        rule = "has tenants; name one" if tenants[1] == "enabled" else "has no tenants; leave this out"
        return Violation("scope.tenant", f"collection {collection!r} {rule}")
    if (least := _TTL_TOO_SHORT.search(message)) is not None:
        return Violation(
            "collection.object_ttl.default_ttl_seconds", f"is too short; this Weaviate takes {least[1]} or more"
        )
    if _NO_WORDS.search(message):
        rule = "compares a text with stopwords alone, or with no word at all"
        fix = "give other words, or change the collection's inverted_index.stopwords"
        return Violation("filters", f"{rule}, which Weaviate does not look for; {fix}", "INVALID_PROPERTY")
    if _NO_RERANKER.search(message):
        return Violation("rerank", f"collection {collection!r} has no reranker module in Weaviate; leave this out")
    return None


def _translate_grpc(error: grpc.aio.AioRpcError, collection: str) -> ServiceError:
    if error.code() in _UNAVAILABLE_CODES:
        return StoreUnavailable("Weaviate does not answer")
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return StoreRejected("Weaviate refuses the API key")
    return reject(error.details() or error.code().name, collection)


def _translate_http(error: UnexpectedStatusCodeError, collection: str) -> ServiceError:
    status, words = error.status_code, _read_body(error.error)
    if status in _UNAVAILABLE_STATUSES or (status == 500 and not words):  # noqa: PLR2004
        return StoreUnavailable(f"Weaviate is not ready: {words or status}")
    if status == 401:  # noqa: PLR2004
        return StoreRejected("Weaviate refuses the API key")
    if status == 404 and collection:  # noqa: PLR2004
        return CollectionNotFound(collection)
    # Weaviate answers 500 to all that goes wrong after the first checks, an object's own faults as well.
    return reject(words or f"HTTP status {status}", collection)


def _translate_other(error: Exception, collection: str) -> ServiceError:
    if isinstance(error, AuthenticationFailedError):
        return StoreRejected("Weaviate refuses the API key")
    if isinstance(error, WeaviateInvalidInputError | TypeError | ValueError):
        # The client's own words would repeat the value.
        return StoreRejected("a value has a form that Weaviate does not take")
    if isinstance(error, WeaviateBaseError):
        return reject(error.message, collection)
    return StoreUnavailable(f"Weaviate gave an answer that is not understood ({type(error).__name__})")


def _read_body(body: object) -> str:
    if not isinstance(body, dict):
        return ""
    errors = body.get("error")
    if isinstance(errors, list):
        return "; ".join(str(each.get("message")) for each in errors if isinstance(each, dict))
    return str(body.get("message") or "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    # The client drops the gRPC code from its own exceptions; only what it was handling at the time still has it.
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _find_grpc_error(error: BaseException) -> grpc.aio.AioRpcError | None:
    return next((each for each in _chain(error) if isinstance(each, grpc.aio.AioRpcError)), None)


def _from_http_library(error: Exception) -> bool:
    # Some failures of the connection pass through the client as its HTTP library raises them.
    return any(each.__module__.partition(".")[0] in {"httpx", "httpcore"} for each in type(error).__mro__)
