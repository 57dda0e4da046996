"""Kubernetes' own programs and other projects' definitions for the tests on a real API server.

Kubernetes publishes its sources as Go modules. A module made here asks for k8s.io/kubernetes, and for each part that
this keeps beside itself (k8s.io/api ...) in the version published with it. etcd is built with them. The programs are
kept in the user's cache; building them takes 10 minutes or more.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

VERSION = "1.36.3"
MODULE = f"k8s.io/kubernetes@v{VERSION}"
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
CUSTOM_KINDS = {
    "github.com/cert-manager/cert-manager@v1.19.1": ("deploy/crds/cert-manager.io_certificates.yaml",),
    "github.com/kedacore/keda/v2@v2.18.1": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "sigs.k8s.io/gateway-api@v1.4.0": (
        "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
}
"""Files with the definitions of kinds that the chart makes where a site has them, by the module that publishes them."""


def install() -> Path:
    """Return the folder of the programs, after building those that are missing. It is slow the first time."""
    folder = user_cache_path("vecgate") / "kubernetes" / f"v{VERSION}"
    missing = {name: package for name, package in PACKAGES.items() if not os.access(folder / name, os.X_OK)}
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        module = Path(scratch)
        (module / "go.mod").write_text(_module(), encoding="utf-8")
        for name, package in missing.items():
            _go("build", "-ldflags", _link_flags(), "-o", name, package, folder=module)
            (module / name).replace(folder / name)
    return folder


def definitions() -> list[Path]:
    """Return the files that define the custom kinds, as their projects publish them."""
    return [Path(_download(module)["Dir"]) / file for module, files in CUSTOM_KINDS.items() for file in files]


def _module() -> str:
    """Return a go.mod that asks for Kubernetes, with every part of it in the version published beside it."""
    published = json.loads(_go("mod", "edit", "-json", _download(MODULE)["GoMod"]))
    parts = (each["Old"]["Path"] for each in published["Replace"])
    lines = [
        "module vecgate.test/kubernetes",
        f"go {published['Go']}",
        f"require {MODULE.replace('@', ' ')}",
        *(f"replace {part} => {part} v0.{VERSION.partition('.')[2]}" for part in parts),
    ]
    return "\n".join(lines) + "\n"


def _link_flags() -> str:
    """Return the linker's flags that let the programs know their version; without it Helm takes them for 0.0."""
    major, minor, _ = VERSION.split(".")
    known = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in known.items())])


def _download(module: str) -> dict[str, Any]:
    return dict(json.loads(_go("mod", "download", "-json", module)))


def _go(*arguments: str | Path, folder: Path | None = None) -> str:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
    command: Sequence[str | Path] = ("go", *arguments)
    # Outside of a module, `go mod download` asks for none.
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            command, cwd=folder or empty, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr[-2000:]}")
    return done.stdout
