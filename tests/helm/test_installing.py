"""How the programs for the tests of the chart get into the cache."""

import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helm.tools.helm import Helm


def test_two_that_install_helm_at_the_same_time_build_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, builds = threading.Event(), []

    class Told(io.StringIO):
        def write(self, text: str) -> int:
            waits.set()
            return super().write(text)

    def build(self: Helm, folder: Path) -> Path:
        builds.append(self.version)
        assert waits.wait(60)
        (folder / "helm").touch()
        return folder / "helm"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Helm, "_build", build)
    told = Told()
    monkeypatch.setattr(sys, "stderr", told)
    program = Helm("9.9.9", "example.com/helm", "wheel==1", "0" * 64)
    with ThreadPoolExecutor(2) as threads:
        found = [each.result() for each in [threads.submit(program.install) for _ in range(2)]]

    assert found == [program.path] * 2
    assert builds == ["9.9.9"]
    assert told.getvalue() == "another process installs helm; waiting for it\n"
