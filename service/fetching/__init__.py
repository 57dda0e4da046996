"""Pictures by reference: fetches them from the origins that the operator lists, and from nowhere else."""

from service.fetching.fetcher import MAX_PICTURE_BYTES, Fetcher
from service.fetching.origins import Origin, find_origin, load_origins, read_origins
from service.fetching.uris import Location, parse_uri

__all__ = [
    "MAX_PICTURE_BYTES",
    "Fetcher",
    "Location",
    "Origin",
    "find_origin",
    "load_origins",
    "parse_uri",
    "read_origins",
]
