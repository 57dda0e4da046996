"""The check on a machine with a GPU runs to its end without one, at a small size."""

import io
import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.gpu_check import archive
from tests.gpu_check.__main__ import WHOLE, parts, run
from tests.gpu_check.children import ROOT, run_child
from tests.gpu_check.inputs import Inputs


def small(output: Path, *arguments: str) -> dict[str, Any]:
    """Run the whole check at its small size, and return its figures."""
    command = [sys.executable, "tests/gpu_check/start.py", "--small", "--output", str(output), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert (output / "report.md").read_text(encoding="utf-8").strip() == done.stdout.strip()
    found: dict[str, Any] = json.loads((output / "figures.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.timeout(600)
def test_the_small_check_measures_every_part_and_says_what_was_skipped(tmp_path: Path) -> None:
    found = small(tmp_path, "--seconds", "480")
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")

    assert found["missing"] == [], log
    figures = found["figures"]
    measured = {each["part"] for each in figures}
    assert {"tests", "machine", "bare", "replica", "decoders", "embedder", "started", "served"} <= measured
    assert all(each["rate"] > 0 for each in figures if each["part"] in {"bare", "replica", "decoders", "embedder"})
    served = [each for each in figures if each["part"] == "served"]
    assert {(each["kind"], each["inputs"]) for each in served if each.get("rate", 0) > 0} == {
        ("png", 1),
        ("texts", 8),
        ("640x480", 1),
    }
    assert "4000x3000 64 64: the request is larger than the service takes" in report
    assert found["machine"]["packages"]["torch"]


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path) -> None:
    figures, missing = run(WHOLE, 1, tmp_path, tmp_path / "log.txt")

    assert figures == []
    assert missing == [f"{each.name}: no time was left" for each in parts(WHOLE, tmp_path)]
    assert any("ViT-H-14 bf16" in each for each in missing)


def test_a_part_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    program = tmp_path / "hang.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('@' + '{\"pid\": %d}' % child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    lines: list[str] = []

    began_s = time.monotonic()
    figures = list(run_child([str(program)], 20, lines.append))

    assert time.monotonic() - began_s < 100
    assert figures[-1] == {"ended": "ended after 20 s"}
    # Killed, which takes the system a moment; and it is its new parent that waits for it.
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(figures[0]["pid"])
        while child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() - began_s < 110
            time.sleep(0.01)


@pytest.mark.parametrize("kind", ["png", "640x480"])
def test_no_two_pictures_are_equal_but_all_can_be_decoded(kind: str) -> None:
    inputs = Inputs(kind, side=32)

    files = [inputs.one() for _ in range(20)]

    assert len({*files}) == 20
    for file in files:
        assert isinstance(file, bytes)
        image = Image.open(io.BytesIO(file))
        image.load()
        assert image.size == ((32, 32) if kind == "png" else (640, 480))


def test_the_archive_brings_what_the_locks_pin_except_torch_and_what_comes_with_it() -> None:
    lock = (ROOT / "requirements-clip.txt").read_text(encoding="utf-8")
    names = archive.names_of(lock)
    torch = {name for name in names if archive.TORCH.fullmatch(name)}

    kept = archive.chosen(lock, names - torch)

    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= torch
    assert archive.names_of(kept) == names - torch
    assert kept.count("--hash=sha256:") > 100
    assert archive.names_of((ROOT / "requirements-dev.txt").read_text(encoding="utf-8")) >= names | archive.TESTING
