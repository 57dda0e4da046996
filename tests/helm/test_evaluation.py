"""The CronJob that checks collections."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from helm.tools.helm import HelmFailed
from service.cli import app
from tests.fakes.clients import key_of, let_in
from tests.helm.manifests import Manifest, named
from tests.helm.render import EVERYTHING, SECURED, render
from tests.service.conftest import start_wire, stop_wire

ON: dict[str, Any] = {"evaluation": {"enabled": True, "collections": ["Pictures", "Holidays/team-a"]}}


def cron_job(values: dict[str, Any]) -> Manifest:
    (made,) = (each for each in render(values) if each["kind"] == "CronJob")
    return made


def pod_of(values: dict[str, Any]) -> Manifest:
    found: Manifest = cron_job(values)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def variables(values: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod_of(values)["containers"][0]["env"]}


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    assert not any("evaluation" in named(each) for each in render({}))


def test_one_job_at_a_time_runs_and_ends_and_few_are_kept() -> None:
    spec = cron_job(ON)["spec"]
    job = spec["jobTemplate"]["spec"]

    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("23 3 * * 0", "Forbid")
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)
    assert job["activeDeadlineSeconds"] == 7200
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 4]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_its_pod_can_write_to_its_claim_alone_and_has_no_token() -> None:
    pod = pod_of(EVERYTHING)
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")] == ["/reports"]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "evaluations"}
    assert "volumes" not in pod_of(ON)


def test_it_calls_the_service_as_any_client_with_what_the_server_asks_for() -> None:
    assert variables(ON) == {"HOME": "/tmp", "VECGATE_ADDRESS": "try-vecgate:50070"}
    assert variables(EVERYTHING) == {
        "HOME": "/tmp",
        "VECGATE_ADDRESS": "vectors:443",
        "VECGATE_TLS": "true",
        "VECGATE_API_KEY_FILE": "/credentials/VECGATE_API_KEY_FILE",
    }
    for name in ("VECGATE_CA_FILE", "VECGATE_CERT_FILE"):
        assert variables(SECURED)[name] == f"/credentials/{name}"


def test_it_comes_through_the_network_policies() -> None:
    policies = {named(each): each["spec"] for each in render(ON) if each["kind"] == "NetworkPolicy"}
    component = "app.kubernetes.io/component"
    callers = [
        each["podSelector"].get("matchLabels", {})
        for each in policies["NetworkPolicy/try-vecgate"]["ingress"][0]["from"]
    ]
    own = policies["NetworkPolicy/try-vecgate-evaluation"]

    assert "evaluation" in [each.get(component) for each in callers]
    assert own["podSelector"]["matchLabels"][component] == "evaluation"
    assert own["egress"][-1]["to"][0]["podSelector"]["matchLabels"][component] == "server"
    assert own["ingress"] == []


def test_the_longest_name_leaves_room_for_what_kubernetes_puts_behind_it() -> None:
    assert len(cron_job(ON | {"fullnameOverride": "a" * 60})["metadata"]["name"]) <= 52


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"evaluation": {"enabled": True}}, "name them in evaluation.collections"),
        (
            ON | {"secrets": EVERYTHING["secrets"], "settings": EVERYTHING["settings"], "test": EVERYTHING["test"]},
            "set evaluation.apiKey",
        ),
        (SECURED | ON, "set evaluation.clientCertificate"),
        ({"evaluation": ON["evaluation"] | {"ca": {"existingSecret": "a", "key": "b"}}}, "set tls.enabled"),
    ],
)
def test_a_job_that_could_not_call_the_server_is_refused(values: dict[str, Any], fix: str) -> None:
    with pytest.raises(HelmFailed, match=re.escape(fix)):
        render(values)


async def test_its_command_checks_the_collections_with_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key_of("evaluator"))
    auth = let_in(tmp_path / "clients.toml", evaluator='permissions = ["admin"]')
    wire = await start_wire(auth=auth)
    arguments = [each.replace("/reports", str(tmp_path)) for each in pod_of(EVERYTHING)["containers"][0]["args"]]
    environment = {
        "VECGATE_ADDRESS": f"127.0.0.1:{wire.server.port}",
        "VECGATE_API_KEY_FILE": str(tmp_path / "key"),
    }

    def run() -> Result:
        return CliRunner().invoke(app, arguments, env=environment)

    done = await asyncio.to_thread(run)
    await stop_wire(wire)

    assert done.exit_code == 1
    assert "Pictures: COLLECTION_NOT_FOUND" in done.output
    assert "Holidays/team-a: COLLECTION_NOT_FOUND" in done.output
