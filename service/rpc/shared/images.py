"""Images in requests: those that a request names by URI get their content before it is parsed."""

from collections.abc import Iterable, Iterator

from google.protobuf.message import Message

from service.core.pictures import Pictures, fault_at
from service.errors import InvalidRequest, ServiceError, Violation, Violations
from vecgate.v1.input_pb2 import Image


def both(path: str) -> Violation:
    """Return the violation of an image that has content and a URI."""
    return Violation(path, "has content and uri; set one of them")


def images_in(message: Message, path: str = "") -> Iterator[tuple[str, Image]]:
    """Yield the images of a message, and where they are; not those in maps."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None or kind.GetOptions().map_entry:
            continue
        where = f"{path}.{field.name}" if path else field.name
        parts = (
            [(where, value)]
            if isinstance(value, Message)
            else [(f"{where}[{n}]", each) for n, each in enumerate(value)]
        )
        for inner, each in parts:
            if isinstance(each, Image):
                yield inner, each
            else:
                yield from images_in(each, inner)


async def fetch_images(pictures: Pictures, images: Iterable[tuple[str, Image]]) -> dict[str, ServiceError]:
    """Give images that have a URI their content; return why some have none, by path."""
    named = {path: image for path, image in images if image.uri}
    refused: dict[str, ServiceError] = {
        path: InvalidRequest([both(path)]) for path, image in named.items() if image.content
    }
    wanted = {path: image.uri for path, image in named.items() if path not in refused}
    for path, fetched in (await pictures.fetch(wanted) if wanted else {}).items():
        if isinstance(fetched, bytes):
            named[path].content = fetched
        else:
            refused[path] = fault_at(fetched, f"{path}.uri")
    return refused


async def fetch_all_images(pictures: Pictures, images: Iterable[tuple[str, Image]]) -> None:
    """Give all images that have a URI their content.

    Raises:
        ServiceError: one of them has none: all violations, or the first other error.
    """
    refused = await fetch_images(pictures, images)
    violations = Violations()
    for error in refused.values():
        if not isinstance(error, InvalidRequest):
            raise error
        violations += error.violations
    violations.raise_if_any()
