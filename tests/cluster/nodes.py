"""Nodes that are none: the scheduler gives them pods, and a thread says of these what a kubelet would say.

It says it without running anything: pods become Running and ready as soon as they are scheduled, those that are to end
by themselves succeed, and those that are deleted are gone at once. Images, probes, volumes and what a container does
are not seen here.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import httpx

MERGE = {"Content-Type": "application/merge-patch+json"}
PERIOD_S = 0.1
BIG = {"cpu": "32", "memory": "128Gi", "ephemeral-storage": "500Gi", "pods": "110"}
GPU = "nvidia.com/gpu"


def add_nodes(api: httpx.Client) -> None:
    """Add two nodes in two zones, and two with one tainted GPU each."""
    for number, (kind, resources) in enumerate(
        [("cpu", BIG), ("cpu", BIG), ("gpu", BIG | {GPU: "1"}), ("gpu", BIG | {GPU: "1"})]
    ):
        name = f"{kind}-{number}"
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % 2}"}
        taints = [{"key": GPU, "value": "present", "effect": "NoSchedule"}] if kind == "gpu" else []
        node = {"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}}
        api.post("/api/v1/nodes", json=node).raise_for_status()
        ready = {"type": "Ready", "status": "True", "reason": "Said", "message": "by the tests"}
        status = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
        api.patch(f"/api/v1/nodes/{name}/status", json={"status": status}, headers=MERGE).raise_for_status()


@contextlib.contextmanager
def kubelet(api: httpx.Client) -> Iterator[None]:
    """Say in a thread what the kubelets of all nodes would say of their pods."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(PERIOD_S):
            for pod in api.get("/api/v1/pods").raise_for_status().json()["items"]:
                _say(api, pod)

    thread = threading.Thread(target=work, name="kubelet")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _say(api: httpx.Client, pod: dict[str, Any]) -> None:
    """Say the next thing of a pod; it may have gone in the meantime."""
    meta, spec = pod["metadata"], pod["spec"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    if "nodeName" not in spec:
        return
    if "deletionTimestamp" in meta:
        api.request("DELETE", path, json={"gracePeriodSeconds": 0})
    elif pod["status"]["phase"] == "Pending":
        api.patch(f"{path}/status", json={"status": _status(spec)}, headers=MERGE)


def _status(spec: dict[str, Any]) -> dict[str, Any]:
    ends = spec["restartPolicy"] == "Never"
    state = {"terminated": {"exitCode": 0, "reason": "Completed"}} if ends else {"running": {}}
    containers = [
        {
            "name": each["name"],
            "image": each["image"],
            "imageID": each["image"],
            "ready": not ends,
            "restartCount": 0,
            "state": state,
        }
        for each in spec["containers"]
    ]
    kinds = ("Initialized", "ContainersReady", "Ready", "PodScheduled")
    conditions = [{"type": kind, "status": "False" if ends and "Ready" in kind else "True"} for kind in kinds]
    return {
        "phase": "Succeeded" if ends else "Running",
        "conditions": conditions,
        "containerStatuses": containers,
        "podIP": "10.244.0.1",
        "podIPs": [{"ip": "10.244.0.1"}],
    }
