"""What the check found, as tables of ratios for people."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psutil

from tests.gpu_check.bare import SERVED_BATCH
from tests.gpu_check.children import ROOT, Figure

COMMIT = ROOT / "COMMIT"

GOAL = 0.90
"""Of the bare forward pass for pictures that need no scaling, and of the decoders' limit for JPEG files."""

PACKAGES = ("torch", "torchvision", "open_clip_torch", "transformers", "pillow", "grpcio", "numpy")


def machine(figures: Iterable[Figure]) -> dict[str, Any]:
    """Return what the figures depend on."""
    found: dict[str, Any] = next((each for each in figures if each["part"] == "machine"), {})
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "driver": _asked("nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"),
        **{name: found[name] for name in ("gpu", "gpus", "cuda") if name in found},
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _commit() -> str:
    if COMMIT.exists():  # in the archive
        return COMMIT.read_text(encoding="utf-8").strip()
    return _asked("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown"


def _asked(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""


def report(result: Mapping[str, Any]) -> str:
    """Return the report in Markdown."""
    figures: list[Figure] = result["figures"]
    said = [f"{name}: {value}" for name, value in result["machine"].items() if value]
    outcome = next((each["outcome"] for each in figures if each["part"] == "tests"), "not run to their end")
    skipped = [f"{_name(each)}: {each['skipped']}" for each in figures if "skipped" in each]
    parts = [
        "# GPU check",
        "\n".join(f"- {each}" for each in said),
        f"Tests marked `gpu`: {outcome}",
        "## Inputs a second, without a service",
        _table(_bare_rows(figures)),
        "Steps by themselves, in one thread: " + (", ".join(_steps(figures)) or "not measured"),
        "## The service, from pictures of the model's size and from texts, of the bare pass",
        _table(_ratio_rows(figures)),
        "## The service from JPEG files, of what decoders and bare pass allow",
        _table(_jpeg_rows(figures)),
        "## All loads",
        _table(_served_rows(figures)),
        "## Missing",
        "\n".join(f"- {each}" for each in [*result["missing"], *skipped]) or "nothing",
    ]
    return "\n\n".join(parts) + "\n"


def _name(figure: Figure) -> str:
    words = ("part", "model", "precision", "by", "kind", "inputs", "callers")
    return " ".join(f"{figure[word]}" for word in words if word in figure)


def _models(figures: Iterable[Figure]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((each["model"], each["precision"]) for each in figures if "model" in each))


def _best(figures: Iterable[Figure], **wanted: Any) -> float | None:
    """Return the best rate of the figures that have these values."""
    rates = (
        each["rate"]
        for each in figures
        if "rate" in each and all(each.get(name) == value for name, value in wanted.items())
    )
    return max(rates, default=None)


def bare(figures: Sequence[Figure], model: str, precision: str, what: str) -> float | None:
    """Return the best rate of the bare pass for batches of the service's size, whatever it runs by."""
    return _best(figures, part="bare", model=model, precision=precision, what=what, batch=SERVED_BATCH)


def _bare_rows(figures: Sequence[Figure]) -> list[dict[str, str]]:
    rows = []
    for model, precision in _models(figures):
        for what in ("pictures", "texts"):
            mine = [each for each in figures if (each.get("model"), each.get("precision")) == (model, precision)]
            for batch in dict.fromkeys(each["batch"] for each in mine if each["part"] == "bare"):
                best = _best(mine, part="bare", what=what, batch=batch)
                ways = {
                    by: _best(mine, part="bare", what=what, batch=batch, by=by) for by in ("eager", "graphs", "compile")
                }
                own = {
                    f"own pass, {by}": _best(mine, part="replica", what=what, batch=batch, by=by)
                    for by in ("eager", "graphs")
                }
                rows.append(
                    {
                        "model": f"{model} {precision}",
                        "inputs": what,
                        "batch": f"{batch}",
                        **{f"bare, {by}": _number(rate) for by, rate in ways.items()},
                        **{name: _of(rate, best) for name, rate in own.items()},
                    }
                )
    return rows


def _steps(figures: Sequence[Figure]) -> list[str]:
    return [
        f"{each['what']} {_number(each['rate'])} a second ({each['model']})"
        for each in figures
        if each["part"] == "step" and "rate" in each
    ]


def _ratio_rows(figures: Sequence[Figure]) -> list[dict[str, str]]:
    rows = []
    for model, precision in _models(figures):
        for kind, what in (("png", "pictures"), ("texts", "texts")):
            limit = bare(figures, model, precision, what)
            for by in ("eager", "graphs"):
                about = {"model": model, "precision": precision, "kind": kind, "by": by}
                embedder, served = (_best(figures, part=part, **about) for part in ("embedder", "served"))
                if embedder is None and served is None:
                    continue
                rows.append(
                    {
                        "model": f"{model} {precision}",
                        "by": by,
                        "inputs": kind,
                        "bare": _number(limit),
                        "embedder": _of(embedder, limit),
                        "served, best load": _of(served, limit),
                        "goal": f"{GOAL:.2f}" if kind == "png" else "",
                    }
                )
    return rows


def _jpeg_rows(figures: Sequence[Figure]) -> list[dict[str, str]]:
    rows = []
    for model, precision in _models(figures):
        mine = [each for each in figures if (each.get("model"), each.get("precision")) == (model, precision)]
        for kind in dict.fromkeys(
            each["kind"] for each in mine if each["part"] == "served" and each["kind"][0].isdigit()
        ):
            limits = [_best(figures, part="decoders", kind=kind), bare(figures, model, precision, "pictures")]
            limit = min((each for each in limits if each is not None), default=None)
            served = _best(mine, part="served", kind=kind)
            row = {"model": f"{model} {precision}", "JPEG": kind, "decoders": _number(limits[0])}
            rows.append(
                row
                | {
                    "bare": _number(limits[1]),
                    "served": _number(served),
                    "ratio": _of(served, limit),
                    "goal": f"{GOAL:.2f}",
                }
            )
    return rows


def _served_rows(figures: Sequence[Figure]) -> list[dict[str, str]]:
    rows = []
    for each in figures:
        if each["part"] != "served" or "rate" not in each:
            continue
        waits, cores = each["waits"], each["cores"]
        rows.append(
            {
                "model": f"{each['model']} {each['precision']}",
                "by": f"{each['by']}, {each['workers']} servers",
                "inputs": f"{each['inputs']} {each['kind']} x {each['callers']}",
                "a second": _number(each["rate"]),
                "p50 / p99 ms": f"{_number(each['p50_ms'])} / {_number(each['p99_ms'])}",
                "GPU busy": "" if each["gpu_busy"] is None else f"{each['gpu_busy']:.0%}",
                "queue, reading, model ms": ", ".join(
                    f"{waits[name]:.1f}" for name in ("queue_ms", "reading_ms", "model_ms")
                ),
                "batch filled": f"{waits['fill']:.0%}",
                "cores": ", ".join(f"{name} {used:.1f}" for name, used in cores.items() if used >= 0.05),
                "refused": ", ".join(f"{code} {count}" for code, count in each["refused"].items()),
            }
        )
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _of(part: float | None, whole: float | None) -> str:
    return "" if part is None or not whole else f"{part / whole:.2f}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return "nothing was measured"
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
