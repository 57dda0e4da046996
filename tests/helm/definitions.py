"""Schemas of manifests: Kubernetes' own kinds, and those of other projects by the definitions that these install.

The definitions are parts of Go modules, got once into the user's cache: python -m tests.helm.definitions.
"""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import jsonschema
import yaml
from platformdirs import user_cache_path

from tests.helm.manifests import Manifest, named
from tests.helm.schemas import validate

__all__ = ["CERTIFICATE", "GRPC_ROUTE", "BadManifest", "Definition", "check_manifest"]


class BadManifest(Exception):
    """A manifest does not fit the definition of its kind; the message says where."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A CustomResourceDefinition.

    Attributes:
        module: the Go module that holds it.
        version: of the module.
        checksum: of the module, as go.sum has it.
        file: the definition's path in the module.
    """

    module: str
    version: str
    checksum: str
    file: str

    @property
    def path(self) -> Path:
        """Where the definition is, or will be."""
        return user_cache_path("vecgate") / "definitions" / f"{self.version}-{Path(self.file).name}"

    def install(self) -> Path:
        """Return the definition's file, after getting it if it is not there.

        Raises:
            RuntimeError: the module cannot be had, or is another one.
        """
        if self.path.exists():
            return self.path
        go = shutil.which("go")
        archive = self._download() if go is None else self._download_with(go)
        with zipfile.ZipFile(archive) as files:
            if _checksum(files) != self.checksum:
                raise RuntimeError(f"{self.module} {self.version} is not the one that is known here")
            content = files.read(f"{self.module}@{self.version}/{self.file}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_bytes(content)
        return unfinished.replace(self.path)

    def _download_with(self, go: str) -> BinaryIO:
        command = [go, "mod", "download", "-json", f"{self.module}@{self.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = json.loads(done.stdout or "{}")
        if done.returncode != 0:
            raise RuntimeError(f"{self.module} cannot be had: {found.get('Error', done.stderr)}")
        return io.BytesIO(Path(found["Zip"]).read_bytes())

    def _download(self) -> BinaryIO:
        proxy = re.split("[,|]", os.environ.get("GOPROXY", ""))[0]
        if not proxy.startswith("http"):
            raise RuntimeError(f"{self.module} cannot be had: there is no Go; install it, or set GOPROXY")
        try:
            with urllib.request.urlopen(f"{proxy}/{self.module}/@v/{self.version}.zip", timeout=60) as answer:
                return io.BytesIO(answer.read())
        except OSError as error:
            raise RuntimeError(f"{self.module} cannot be had: there is no Go, and {proxy} says: {error}") from error


def _checksum(files: zipfile.ZipFile) -> str:
    """Return what go.sum says of a module."""
    names = sorted(files.namelist())
    lines = "".join(f"{hashlib.sha256(files.read(name)).hexdigest()}  {name}\n" for name in names)
    return f"h1:{base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()}"


CERTIFICATE = Definition(
    "github.com/cert-manager/cert-manager",
    "v1.19.1",
    "h1:Txh8L/nLWTDcb7ZnXuXbTe15BxQnLbLirXmbNk0fGgY=",
    "deploy/crds/cert-manager.io_certificates.yaml",
)
GRPC_ROUTE = Definition(
    "sigs.k8s.io/gateway-api",
    "v1.4.0",
    "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ=",
    "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
)
DEFINITIONS: Mapping[tuple[str, str], Definition] = {
    ("cert-manager.io/v1", "Certificate"): CERTIFICATE,
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): GRPC_ROUTE,
}


def check_manifest(manifest: Manifest, kubernetes: str) -> None:
    """Check a manifest against the schema of its kind, in which unknown fields are faults.

    Raises:
        kubernetes_validate.ValidationError: it does not fit a schema of Kubernetes.
        kubernetes_validate.SchemaNotFoundError: nobody knows its kind.
        BadManifest: it does not fit another project's definition.
    """
    kind = manifest["apiVersion"], manifest["kind"]
    if kind not in DEFINITIONS:
        validate(manifest, kubernetes)
        return
    for fault in jsonschema.Draft202012Validator(_schema(DEFINITIONS[kind], kind[0])).iter_errors(manifest):
        raise BadManifest(f"{named(manifest)}: {fault.json_path}: {fault.message}")


@cache
def _schema(definition: Definition, version: str) -> dict[str, Any]:
    document = yaml.safe_load(definition.install().read_text(encoding="utf-8"))
    group, _, name = version.partition("/")
    assert document["spec"]["group"] == group
    (found,) = (each for each in document["spec"]["versions"] if each["name"] == name and each["served"])
    schema: dict[str, Any] = found["schema"]["openAPIV3Schema"]
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


if __name__ == "__main__":
    for each in DEFINITIONS.values():
        sys.stdout.write(f"{each.install()}\n")
