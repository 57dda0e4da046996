"""Bulk jobs in the bulk image: one by itself, and one as the chart's RayJob, with what KubeRay makes of it.

The image's containers share a network in which there is loopback alone, so head and worker have addresses of their own
there, and the worker other ports. What KubeRay adds is that of version 1.6: `ray-operator/controllers/ray` of its
source, `common/pod.go` and `common/job.go`.
"""

import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tests.helm.manifests import Manifest
from tests.helm.render import CHART
from tests.helm.rules import FACTORS, QUANTITY
from tests.image.containers import USER, Containers, Process, answer_of
from tests.image.peer import ROWS

COLLECTION = "Photos"
DIMENSION = 1024
JOB: Manifest = next(iter(yaml.safe_load_all((CHART / "examples/companions/bulk-rayjob.yaml").read_text("utf-8"))))
HEAD, WORKER = "127.0.0.1", "127.0.0.2"
GCS_PORT, DASHBOARD_PORT, HEALTH_PORT = 6379, 8265, 52365
WORKER_PORTS = {"dashboard-agent-listen-port": "52366", "metrics-export-port": "8081"}
STORED = f"{ROWS} rows in = {ROWS} stored + 0 rejected + 0 duplicates"
BEFORE = "fragments were done before"


def check_alone(containers: Containers, stores: Mapping[str, str]) -> str:
    """Assert that a job embeds tables into Parquet files without a cluster, and that its repetition does nothing."""
    entrypoint = list(containers.image["Entrypoint"])
    _create_collection(containers, stores)
    volume = _volume(containers, "alone-tmp")
    options = ["--only-output", "--output", "/tmp/vectors", "--ledger", "/tmp/ledger", "--key", "sku"]
    command = [*entrypoint, "bulk", "s3://pictures/2026/", "--collection", COLLECTION, *options]
    first = containers.finished("alone", command, stores, volumes={"/tmp": volume})
    files = {file: file.stat().st_mtime_ns for file in (volume / "vectors").glob("*.parquet")}
    again = containers.finished("again", command, stores, volumes={"/tmp": volume})
    assert STORED in first, first
    assert BEFORE not in first, first
    assert STORED in again, again
    assert BEFORE in again, again
    assert "rows in this run" not in again, again
    assert {file: file.stat().st_mtime_ns for file in (volume / "vectors").glob("*.parquet")} == files
    vectors = [row for file in files for row in pq.read_table(file)["default"].to_pylist()]
    assert [len(each) for each in vectors] == [DIMENSION] * ROWS
    assert len({tuple(each) for each in vectors}) == ROWS
    (told,) = (line for line in first.splitlines() if "rows in this run" in line)
    return f"a job by itself: {told}"


def check_on_a_cluster(containers: Containers, stores: Mapping[str, str]) -> str:
    """Assert that the RayJob's command runs on its head and worker, whose probes answer, and then has nothing to do."""
    cluster = JOB["spec"]["rayClusterSpec"]
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # From the operator.
        "RAY_ADDRESS": f"{HEAD}:{GCS_PORT}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        **stores,
    }
    with ExitStack() as ends:
        process = ends.enter_context(_ray(containers, "head", head, variables, {"dashboard-host": "0.0.0.0"}))
        probed = [_probe(containers, process, HEAD, HEALTH_PORT)]
        memory = containers.check_confinement("head")
        # The operator's container that each worker waits in.
        waiting = f"until ray health-check --address {HEAD}:{GCS_PORT}; do sleep 1; done"
        containers.finished("wait-gcs-ready", _bash(waiting), variables)
        # This machine has no GPU, and fewer processors.
        here = {"address": f"{HEAD}:{GCS_PORT}", "node-ip-address": WORKER, "num-cpus": "2", **WORKER_PORTS}
        process = ends.enter_context(_ray(containers, "worker", worker, variables, here))
        probed.append(_probe(containers, process, WORKER, int(WORKER_PORTS["dashboard-agent-listen-port"])))
        containers.check_confinement("worker")
        first = containers.finished("submitter", _submission("first"), variables)
        again = containers.finished("resubmitter", _submission("again"), variables)
    found = f"the collection has {ROWS} objects; {ROWS} were looked for by their vectors"
    assert [STORED in first, found in first, BEFORE in first] == [True, True, False], first
    assert [STORED in again, found in again, BEFORE in again] == [True, True, True], again
    return f"as a RayJob: probes {probed}, memory of the head's first process {memory}, output:\n{first}"


def _create_collection(containers: Containers, stores: Mapping[str, str]) -> None:
    """Create the collection with a server of the same image."""
    variables = {"VECGATE_SERVER__ALLOW_PLAINTEXT": "true", **stores}
    with containers.started("server", [*containers.image["Entrypoint"], "serve"], variables) as server:
        answer = answer_of(containers.network, server, "call", "127.0.0.1:50070")
        assert answer["whole"], answer
        containers.inside("server", "vecgate", "collections", "create", COLLECTION, "--image-field", "image")


def _volume(containers: Containers, name: str) -> Path:
    """Return a new folder as an emptyDir is for the pods' user."""
    folder = containers.folder / name
    folder.mkdir(mode=0o770)
    os.chown(folder, USER, USER)
    return folder


def _bash(script: str) -> list[str]:
    return ["/bin/bash", "-c", "--", script]


def _ray(
    containers: Containers, name: str, group: Manifest, variables: Mapping[str, str], here: Mapping[str, str]
) -> Any:
    """Start a pod's container, with the command that the operator makes for it."""
    (container,) = group["template"]["spec"]["containers"]
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    parameters = {
        "num-cpus": requests["cpu"],
        "memory": str(_bytes(limits["memory"])),
        "metrics-export-port": "8080",
        "dashboard-agent-listen-port": str(HEALTH_PORT),
        **group["rayStartParams"],
        **here,
    }
    kind = "" if "address" in parameters else "--head "
    given = " ".join(f"--{option}={value}" for option, value in sorted(parameters.items()))
    script = f"ulimit -n 65536; ray start {kind}--block {given}"
    volumes = {each["mountPath"]: _volume(containers, f"{name}-tmp") for each in _writable(container)}
    return containers.started(name, _bash(script), variables, volumes, limits["memory"].removesuffix("i").lower())


def _writable(container: Manifest) -> list[dict[str, str]]:
    return [each for each in container["volumeMounts"] if not each.get("readOnly")]


def _bytes(quantity: str) -> int:
    number, unit = QUANTITY.fullmatch(quantity).groups(default="")  # type: ignore[union-attr]
    return int(Decimal(number) * FACTORS[unit])


def _submission(name: str) -> list[str]:
    """Return the command of the operator's submitter."""
    where = f"--address http://{HEAD}:{DASHBOARD_PORT}"
    entrypoint = JOB["spec"]["entrypoint"]
    assert shlex.split(entrypoint)[2] == "s3://pictures/2026/", "where the tables are"
    status = f"ray job status {where} {name} >/dev/null 2>&1"
    submit = f"ray job submit {where} --no-wait --submission-id {name} -- {entrypoint}"
    follow = f"ray job logs {where} --follow {name}"
    return ["/bin/bash", "-ce", "--", f"if ! {status} ; then {submit} ; fi ; {follow}"]


def _probe(containers: Containers, process: Process, host: str, port: int) -> str:
    """Return what a container's probe is answered, as soon as it succeeds."""
    return str(answer_of(containers.network, process, "probe", f"http://{host}:{port}/api/healthz")["body"])
