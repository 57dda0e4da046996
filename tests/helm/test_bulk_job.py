"""The RayJob of the examples: as KubeRay defines it, as strict as the chart, in step with the image and the command."""

import copy
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer
import yaml
from cryptography import x509

from service.cli import app
from service.settings import load_settings
from tests.helm.definitions import BadManifest, check_manifest
from tests.helm.manifests import Manifest, PodUse, containers, images, pods
from tests.helm.pod_security import violations
from tests.helm.render import CHART, KUBERNETES
from tests.helm.rules import broken_rules

ROOT = Path(__file__).parents[2]
TEXT = (CHART / "examples" / "companions" / "bulk-rayjob.yaml").read_text(encoding="utf-8")
MANIFESTS: list[Manifest] = list(yaml.safe_load_all(TEXT))
JOB, POLICY = MANIFESTS
PODS = list(pods([JOB]))


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_the_job_fits_what_kuberay_and_kubernetes_define(kubernetes: str) -> None:
    for each in MANIFESTS:
        check_manifest(each, kubernetes)
    assert len(PODS) == 3
    assert (broken_rules(MANIFESTS), violations(MANIFESTS)) == ({}, [])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("entryPoint",), "vecgate bulk"),
        (("backoffLimit",), "3"),
        (("rayClusterSpec", "authOptions", "mode"), "password"),
        (("rayClusterSpec", "headGroupSpec", "startParams"), {}),
    ],
)
def test_what_kuberay_does_not_define_is_noticed(path: tuple[str, ...], value: object) -> None:
    job = copy.deepcopy(JOB)
    *folders, name = path
    inner: dict[str, Any] = job["spec"]
    for each in folders:
        inner = inner[each]
    inner[name] = value

    with pytest.raises(BadManifest, match=re.escape(name)):
        check_manifest(job, KUBERNETES[-1])


@pytest.mark.parametrize("pod", PODS, ids=["submitter", "head", "worker"])
def test_a_pod_writes_to_its_own_volume_alone_and_knows_nothing_of_the_cluster(pod: PodUse) -> None:
    (container,) = containers(pod)
    claims = {each["name"] for each in pod.spec["volumes"] if "emptyDir" not in each}

    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")] == ["/tmp"]
    assert {each["name"] for each in container["volumeMounts"] if each.get("readOnly")} == claims
    assert (pod.spec["automountServiceAccountToken"], pod.spec["enableServiceLinks"]) == (False, False)
    assert pod.labels.items() >= POLICY["spec"]["podSelector"]["matchLabels"].items()


def test_the_job_names_the_image_of_the_dockerfile_and_the_ray_that_is_in_it() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    lock = (ROOT / "requirements-bulk.txt").read_text(encoding="utf-8")

    assert {each.partition("/")[2] for each in images(JOB)} == {f"vecgate/bulk:{version}"}
    assert f"\nray=={JOB['spec']['rayClusterSpec']['rayVersion']} " in lock


def test_the_job_runs_a_command_that_there_is_with_a_ledger_that_outlives_it() -> None:
    program, command, *arguments = shlex.split(JOB["spec"]["entrypoint"])
    group = typer.main.get_command(app)
    found = group.get_command(typer.Context(group), command)  # type: ignore[attr-defined]
    parsed = found.make_context(command, arguments).params

    assert program == "vecgate"
    assert parsed["ledger"].startswith("s3://")


def variables_of_the_image() -> dict[str, str]:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", dockerfile, re.MULTILINE | re.DOTALL))
    return dict(re.findall(r"\b(VECGATE_\w+)=(\S+)", stages["runtime"] + stages["bulk"]))


def test_the_variables_of_the_job_and_its_image_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = PODS[1].spec["containers"][0]["env"]
    for name, value in variables_of_the_image().items():
        monkeypatch.setenv(name, value)
    for each in variables:
        monkeypatch.setenv(each["name"], each.get("value", "secret"))

    settings = load_settings(serves=False)

    assert list(settings.ordered) == ["clip"]
    assert settings.weaviate.api_key is not None
    assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in variables
    assert PODS[2].spec["containers"][0]["env"] == variables


def test_only_the_operator_and_the_job_reach_the_job() -> None:
    spec = POLICY["spec"]
    own, operator = spec["ingress"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert own["from"] == [{"podSelector": spec["podSelector"]}]
    assert [each["port"] for each in operator["ports"]] == [8265]
    assert JOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_job_reaches_itself_dns_weaviate_and_the_object_store_and_nothing_else() -> None:
    def ports(protocol: str, *numbers: int) -> list[dict[str, object]]:
        return [{"port": each, "protocol": protocol} for each in numbers]

    own, dns, weaviate, store = POLICY["spec"]["egress"]

    assert own == {
        "to": [{"podSelector": POLICY["spec"]["podSelector"]}],
        "ports": [{"port": 1, "endPort": 65535, "protocol": "TCP"}],
    }
    assert dns == {
        "to": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
            {"ipBlock": {"cidr": "169.254.0.0/16"}},
        ],
        "ports": ports("UDP", 53) + ports("TCP", 53),
    }
    assert weaviate == {"to": [{"namespaceSelector": {}}], "ports": ports("TCP", 80, 8080, 50051)}
    assert store == {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": ports("TCP", 443)}


def test_an_error_that_stays_takes_the_gpus_of_one_more_cluster_at_most() -> None:
    assert JOB["spec"]["backoffLimit"] == 1


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_the_lines_of_tls_fit_into_the_job_and_every_pod_of_ray_uses_it(kubernetes: str) -> None:
    with_tls = list(yaml.safe_load_all(TEXT.replace("#TLS ", "")))
    for each in with_tls:
        check_manifest(each, kubernetes)
    ray = [pod.spec for pod in pods(with_tls)][1:]
    files = {"RAY_TLS_SERVER_CERT": "tls.crt", "RAY_TLS_SERVER_KEY": "tls.key", "RAY_TLS_CA_CERT": "ca.crt"}

    assert (broken_rules(with_tls), violations(with_tls)) == ({}, [])
    assert len(ray) == 2
    for spec in ray:
        (container,), (certificate,) = spec["containers"], spec["initContainers"]
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert variables.items() >= {"RAY_USE_TLS": "1"}.items()
        assert {name: variables[name] for name in files} == {name: f"/tmp/tls/{file}" for name, file in files.items()}
        # Who runs rows has no key of the authority.
        assert {each["name"] for each in container["volumeMounts"]} == {"tmp", "weights"}
        assert {each["name"] for each in certificate["volumeMounts"]} == {"tmp", "ca"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_pods_certificate_is_of_the_authority_and_names_the_pod(tmp_path: Path) -> None:
    job, _ = yaml.safe_load_all(TEXT.replace("#TLS ", ""))
    (certificate,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["initContainers"]
    (script,) = certificate["args"]
    ca, made = tmp_path / "ca", tmp_path / "tls"
    ca.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca / "tls.crt")
    authority.private_key_pem.write_to_path(ca / "tls.key")
    script = script.replace("/ca/", f"{ca}/").replace("/tmp/tls", str(made))
    environment = {"PATH": os.environ["PATH"], "FQ_RAY_IP": "head.bulk.svc.cluster.local", "POD_IP": "192.0.2.7"}

    subprocess.run([*certificate["command"], script], env=environment, check=True, capture_output=True)

    found = x509.load_pem_x509_certificate((made / "tls.crt").read_bytes())
    found.verify_directly_issued_by(x509.load_pem_x509_certificate((made / "ca.crt").read_bytes()))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "head.bulk.svc.cluster.local"]
    assert {str(each) for each in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "192.0.2.7"}
    assert (made / "tls.key").stat().st_mode & 0o077 == 0
