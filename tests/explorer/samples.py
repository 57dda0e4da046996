"""Some of the sample pictures in a collection, as `make run` stores them."""

from dataclasses import replace

from service.cli.demo import COLLECTION, _text_fields
from service.cli.importing import read_folder
from service.cli.imports import Import
from service.cli.pictures import schema_of, send_pictures
from tests.e2e.serving import ROOT
from vecgate.client import Client

PICTURES = ROOT / "tests" / "data" / "pictures"
QUERIES = ROOT / "tests" / "data" / "queries"
EVERY = 5
"""Every fifth picture is there, and these: enough to search among, and quick to embed."""
ALWAYS = ("cat.png", "dog.png", "pizza.png", "red-apple.png", "automobile.png")


def store_samples(client: Client, every: int = EVERY) -> int:
    """Store the sample pictures, every so many of them, and return how many there are."""
    everything = read_folder(PICTURES)
    files = tuple(sorted({*everything.files[::every], *ALWAYS}))
    pictures = replace(everything, files=files, rows_without_picture=())
    client.create_collection(schema_of(COLLECTION, pictures, text_fields=_text_fields(pictures)))
    summary = send_pictures(client, Import(COLLECTION), pictures)
    assert (summary.stored, summary.failed, summary.stopped) == (len(files), {}, None)
    return len(files)
