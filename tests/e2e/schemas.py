"""Collections as other programs make them."""

from typing import Any


def schemas_of_others(suffix: str) -> list[dict[str, Any]]:
    """Return the schemas of an old and of a new collection of other programs, their names ending in a suffix."""
    fields = {"imageFields": ["photo"], "textFields": ["title"]}
    module = {"multi2vec-nvidia": fields | {"weights": {"imageFields": [0.9], "textFields": [0.1]}}}
    return [
        {"class": f"Legacy{suffix}", "vectorizer": "none", "properties": [{"name": "t", "dataType": ["text"]}]},
        {
            "class": f"Named{suffix}",
            "properties": [
                {"name": "title", "dataType": ["text"]},
                {"name": "photo", "dataType": ["blob"]},
                {"name": "place", "dataType": ["geoCoordinates"]},
                {"name": "phone", "dataType": ["phoneNumber"]},
                {"name": "hash", "dataType": ["blobHash"]},
                {"name": "other", "dataType": [f"Legacy{suffix}"]},
                {
                    "name": "nested",
                    "dataType": ["object"],
                    "nestedProperties": [{"name": "inner", "dataType": ["text"]}],
                },
            ],
            "vectorConfig": {
                "own": {"vectorizer": {"none": {}}, "vectorIndexType": "flat"},
                "far": {
                    "vectorizer": {"none": {}},
                    "vectorIndexType": "hnsw",
                    "vectorIndexConfig": {"distance": "manhattan"},
                },
                "nvidia": {"vectorizer": module, "vectorIndexType": "hfresh"},
            },
        },
    ]
