"""As much of an API server as helm asks while it renders: its version, what it serves, and one Deployment."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from tests.helm.manifests import Manifest

KINDS = {
    "v1": ("Service", "ServiceAccount", "ConfigMap", "Pod"),
    "apps/v1": ("Deployment",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
}


@contextmanager
def api_server(deployment: Manifest | None, folder: Path) -> Iterator[Path]:
    """Serve on a free port what is in the cluster, and yield the kubeconfig that leads there.

    Args:
        deployment: the one that there is in namespace default.
        folder: for the kubeconfig.
    """
    answers = _discovery()
    if deployment is not None:
        answers[f"/apis/apps/v1/namespaces/default/deployments/{deployment['metadata']['name']}"] = deployment

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            content = json.dumps(answer or missing).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield _kubeconfig(folder, server.server_port)
    finally:
        server.shutdown()
        server.server_close()


def _discovery() -> dict[str, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    }
    for version, kinds in KINDS.items():
        group, _, name = version.rpartition("/")
        if group:
            served = {"groupVersion": version, "version": name}
            answers["/apis"]["groups"].append({"name": group, "versions": [served], "preferredVersion": served})
        plurals = {kind: kind.lower().replace("policy", "policie") + "s" for kind in kinds}
        answers[f"/apis/{version}" if group else f"/api/{version}"] = {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
                for kind, plural in plurals.items()
            ],
        }
    return answers


def _kubeconfig(folder: Path, port: int) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "it", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file
