"""Kubernetes' control plane on loopback: etcd, API server, controller manager and scheduler, ended with the context."""

import contextlib
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme
import yaml

from service.process.ports import free_ports
from tests.cluster.programs import install

TOKEN = "everything"
START_S = 180
END_S = 20


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running control plane.

    Attributes:
        programs: folder of Kubernetes' programs, kubectl among them.
        kubeconfig: with which kubectl and Helm reach it, and may do everything.
        api: the same for HTTP.
    """

    programs: Path
    kubeconfig: Path
    api: httpx.Client


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run a control plane with its data below a folder.

    Raises:
        RuntimeError: a program ended; the message has the end of its log.
        TimeoutError: it is not ready in time.
    """
    programs = install()
    etcd, peers, secure = free_ports(1, 1, 1)
    _write_credentials(folder)
    kubeconfig = _write_kubeconfig(folder, f"https://127.0.0.1:{secure}")
    with contextlib.ExitStack() as ends:
        run = _Runner(programs, folder, ends)
        run.start(
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
            "--unsafe-no-fsync",
        )
        run.start("kube-apiserver", *_api_server(folder, etcd, secure))
        api = ends.enter_context(_client(folder, secure))
        run.wait_for(api)
        common = (f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0")
        run.start("kube-scheduler", *common)
        run.start(
            "kube-controller-manager",
            *common,
            "--controllers=*,-node-lifecycle-controller",
            "--horizontal-pod-autoscaler-sync-period=1s",
            f"--root-ca-file={folder / 'ca.crt'}",
            f"--service-account-private-key-file={folder / 'server.key'}",
        )
        yield ControlPlane(programs, kubeconfig, api)


def _write_credentials(folder: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "server.crt", append=True)
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n", encoding="utf-8")


def _api_server(folder: Path, etcd: int, secure: int) -> list[str]:
    """Return the API server's arguments."""
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'server.key'}",
        f"--service-account-signing-key-file={folder / 'server.key'}",
        "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
        "--endpoint-reconciler-type=none",
        # The controller that would take the taint of a new node away is off: nobody renews the nodes' leases.
        "--disable-admission-plugins=TaintNodesByCondition",
    ]


def _client(folder: Path, secure: int) -> httpx.Client:
    return httpx.Client(
        base_url=f"https://127.0.0.1:{secure}",
        verify=ssl.create_default_context(cafile=str(folder / "ca.crt")),
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=30,
        trust_env=False,
    )


class _Runner:
    """Starts programs, each with a log of its own, and ends them in reverse order."""

    def __init__(self, programs: Path, folder: Path, ends: contextlib.ExitStack) -> None:
        self._programs = programs
        self._folder = folder
        self._ends = ends
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        log = self._ends.enter_context((self._folder / f"{name}.log").open("wb"))
        # A session of its own: Ctrl-C goes to pytest alone, which then ends them in order.
        process = subprocess.Popen(
            [self._programs / name, *arguments], cwd=self._folder, stdout=log, stderr=log, start_new_session=True
        )
        self._running[name] = process
        self._ends.callback(_end, process)

    def wait_for(self, api: httpx.Client) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            for name, process in self._running.items():
                if process.poll() is not None:
                    log = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"{name} ended: {log[-2000:]}")
            with contextlib.suppress(httpx.TransportError):
                if api.get("/readyz").status_code == httpx.codes.OK:
                    return
            time.sleep(0.2)
        raise TimeoutError("the API server is not ready")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_kubeconfig(folder: Path, server: str) -> Path:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": server, "certificate-authority": str(folder / "ca.crt")}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "current-context": "tests",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
