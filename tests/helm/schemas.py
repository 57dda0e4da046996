"""Whether a manifest fits its kind: Kubernetes' own schemas, and the Prometheus operator's for its kinds."""

from functools import cache
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
from cloudcoil.models.prometheus_operator import v1 as monitoring
from pydantic import BaseModel

from tests.helm.manifests import Manifest

# It would read megabytes of JSON for each manifest.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)

OPERATOR = "monitoring.coreos.com/v1"
KINDS: dict[str, type[BaseModel]] = {
    "PrometheusRule": monitoring.PrometheusRule,
    "ServiceMonitor": monitoring.ServiceMonitor,
}


class UnknownField(Exception):
    """A manifest has fields that its kind does not; the API server would drop them without a word."""


def validate(manifest: Manifest, kubernetes: str) -> None:
    """Check a manifest strictly against its kind's schema.

    Raises:
        kubernetes_validate.ValidationError: it is one of Kubernetes' own kinds and does not fit.
        kubernetes_validate.SchemaNotFoundError: nobody here knows its kind.
        pydantic.ValidationError: it is one of the operator's kinds and does not fit.
        UnknownField: it is one of the operator's kinds and has more than belongs there.
    """
    model = KINDS.get(manifest["kind"]) if manifest["apiVersion"] == OPERATOR else None
    if model is None:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)
        return
    # The operator's models take unknown fields and forget them.
    kept = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
    if unknown := sorted(_missing(manifest, kept, manifest["kind"])):
        raise UnknownField(", ".join(unknown))


def _missing(given: Any, kept: Any, path: str) -> set[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        lost = {f"{path}.{key}" for key in given.keys() - kept.keys()}
        return lost.union(*(_missing(given[key], kept[key], f"{path}.{key}") for key in given.keys() & kept.keys()))
    if isinstance(given, list) and isinstance(kept, list):
        return set().union(*(_missing(a, b, f"{path}[]") for a, b in zip(given, kept, strict=True)))
    return set()
