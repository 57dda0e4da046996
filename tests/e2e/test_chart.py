"""What the chart starts, started: the server with a render's environment, and `helm test`'s script against it."""

import os
import subprocess
import sys
from pathlib import Path

from helm.tools.helm import HELM
from service.settings import WeaviateSettings, read_secret
from tests.e2e.serving import serving
from tests.fakes.weaviate import variables_at_ports
from tests.helm.manifests import containers, pods
from tests.helm.render import CHART, PROFILES, render
from vecgate.client import Client, Health

ROOT = CHART.parents[1]


def test_the_tiny_profile_serves_and_passes_its_test_on_a_real_weaviate(
    weaviate_settings: WeaviateSettings, tmp_path: Path
) -> None:
    HELM.install()
    manifests = render(PROFILES["tiny"])
    (server,) = containers(next(pods(manifests)))
    (config,) = (manifest for manifest in manifests if manifest["kind"] == "ConfigMap")
    (script,) = config["data"].items()
    (tmp_path / script[0]).write_text(script[1], encoding="utf-8")
    environment = {each["name"]: each["value"] for each in server["env"] if each["name"].startswith("VECGATE_")}
    here = {
        "VECGATE_SERVER__HOST": "127.0.0.1",
        "VECGATE_SERVER__PORT": "0",
        "VECGATE_WEB__HOST": "127.0.0.1",
        "VECGATE_WEB__PORT": "0",
        "VECGATE_LOG__FORMAT": "json",
        "VECGATE_WEAVIATE__EMBEDDED": "false",
        **variables_at_ports(weaviate_settings.http.port, weaviate_settings.grpc.port),
        "VECGATE_WEAVIATE__API_KEY": read_secret(weaviate_settings.api_key, None) or "",
    }
    assert here.keys() - environment.keys() == {"VECGATE_WEAVIATE__EMBEDDED", "VECGATE_WEAVIATE__API_KEY"}

    with serving(tmp_path / "data", **{**environment, **here}) as running, Client(running.address) as client:
        probes = {name: client.health(server[f"{name}Probe"]["grpc"]["service"]) for name in ("readiness", "liveness")}
        done = subprocess.run(
            [sys.executable, str(tmp_path / script[0])],
            env=os.environ | {"VECGATE_ADDRESS": running.address, "PYTHONPATH": str(ROOT / "protos")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        left = list(client.list_collections())

    assert set(probes.values()) == {Health.SERVING}
    assert (done.returncode, done.stderr) == (0, "")
    assert "found 'a red bicycle'" in done.stdout
    assert [each.name for each in left if each.name.startswith("VecgateHelmTest")] == []
