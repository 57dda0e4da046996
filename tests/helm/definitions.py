"""Schemas of manifests: Kubernetes' own kinds, and those of other projects by the definitions that these install.

What the definitions say is kept in custom_kinds/, less their words, so that the tests need nobody for it. A newer one
comes from its file as published: python -m tests.helm.definitions "cert-manager v1.19.1 (Apache-2.0)" FILE.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.helm.manifests import Manifest, named, pods
from tests.helm.schemas import validate

FOLDER = Path(__file__).parent / "custom_kinds"


class BadManifest(Exception):
    """A manifest does not fit the definition of its kind; the message says where."""


def check_manifest(manifest: Manifest, kubernetes: str) -> None:
    """Check a manifest against the schema of its kind, in which unknown fields are faults.

    Raises:
        kubernetes_validate.ValidationError: it does not fit a schema of Kubernetes.
        kubernetes_validate.SchemaNotFoundError: nobody knows its kind.
        BadManifest: it does not fit another project's definition.
    """
    file = _file(manifest["apiVersion"], manifest["kind"])
    if not file.exists():
        validate(manifest, kubernetes)
        return
    for fault in jsonschema.Draft202012Validator(_schema(file)).iter_errors(manifest):
        raise BadManifest(f"{named(manifest)}: {fault.json_path}: {fault.message}")
    # What a definition says of pods is left out: Kubernetes says it, too.
    for pod in pods([manifest]):
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod.spec}, kubernetes)


def _file(version: str, kind: str) -> Path:
    return FOLDER / f"{version.replace('/', '_')}_{kind}.json"


@cache
def _schema(file: Path) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {**schema, "properties": {key: _closed(each) for key, each in schema["properties"].items()}}


def _closed(schema: Any) -> Any:
    """Return a schema that refuses what the API server drops without a word."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(each) for key, each in schema.items()}
    if "properties" in schema and schema.get("type") == "object" and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


def _keep(source: str, published: Path) -> None:
    """Keep what a CustomResourceDefinition says of each of its kinds' versions."""
    spec = yaml.safe_load(published.read_text(encoding="utf-8"))["spec"]
    for version in (each for each in spec["versions"] if each["served"]):
        schema = _wordless(version["schema"]["openAPIV3Schema"])
        # What controllers write there is no manifest of ours.
        schema["properties"].pop("status", None)
        schema["properties"] = {key: _without_objects(each) for key, each in schema["properties"].items()}
        text = json.dumps({"$comment": f"{source}: {published.name}", **schema}, indent=1)
        _file(f"{spec['group']}/{version['name']}", spec["names"]["kind"]).write_text(f"{text}\n", encoding="utf-8")


def _without_objects(schema: Any) -> Any:
    """Return a schema that says nothing of objects of Kubernetes within, such as templates of pods."""
    if isinstance(schema, list):
        return [_without_objects(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if {"metadata", "spec"} <= schema.get("properties", {}).keys():
        return {"type": "object"}
    return {key: _without_objects(each) for key, each in schema.items()}


def _wordless(schema: Any) -> Any:
    """Return a schema without descriptions and without rules that JSON Schema does not know."""
    if isinstance(schema, list):
        return [_wordless(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # A property may be called so, too.
    dropped = {key for key, each in schema.items() if key == "description" and isinstance(each, str)}
    dropped |= {key for key in schema if key.startswith("x-kubernetes-")}
    return {key: _wordless(each) for key, each in schema.items() if key not in dropped}


if __name__ == "__main__":
    _keep(sys.argv[1], Path(sys.argv[2]))
