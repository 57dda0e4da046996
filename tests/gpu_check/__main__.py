"""The check on a machine with a GPU: make gpu-check. tests/README.md tells how to bring it to one without a network.

It runs the tests marked `gpu`, then measures models of three sizes with random weights: the bare forward pass, the
service's own pass, and the service over gRPC, in several precisions, with and without CUDA graphs. Each part is a
process that is ended after its share of the time; what did not fit is named. --small runs the same on a CPU with a
tiny model.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gpu_check.children import END_S, NO_TIME, ROOT, Figure, run_child
from tests.gpu_check.report import machine, report

CALLS = ((1, 64), (8, 64), (64, 64), (1, 256), (8, 256), (1, 1), (8, 1), (64, 1), (64, 256))
"""Inputs a call, and callers: the most telling ones first."""

PLUGINS = ("no:cacheprovider", "pytest_asyncio.plugin", "pytest_timeout", "xdist.plugin")
"""Of pytest; others that a machine has may be slow, or warn, and are left out."""

TESTS = "tests"
TESTS_S, BARE_S, DECODERS_S, EMBEDDER_S, SERVED_S = 110, 45, 30, 40, 50
"""The most seconds for each kind of part; most of them take less."""

KINDS = ("png", "texts", "640x480", "2048x1536", "4000x3000")
"""Pictures of the model's size, texts, and JPEG files of 0.3, 3 and 12 megapixels."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        models: architectures of open_clip, or tiny.
        sides: pixels that each of them reads, across and down.
        precisions: of the models.
        device: torch's name of it.
        seconds: for each figure.
        variants: of the service: eager or graphs, and the number of its server processes.
        cells: of the service: kind of the inputs, inputs a call, callers.
        patience: factor of the most seconds for each part.
    """

    models: tuple[str, ...]
    sides: tuple[int, ...]
    precisions: tuple[str, ...]
    device: str
    seconds: float
    variants: tuple[tuple[str, int], ...]
    cells: tuple[tuple[str, int, int], ...]
    patience: float = 1.0


WHOLE = Size(
    models=("ViT-B-32", "ViT-L-14", "ViT-H-14"),
    sides=(224, 224, 224),
    precisions=("fp16", "bf16"),
    device="cuda:0",
    seconds=1.2,
    variants=(("graphs", 4), ("eager", 1)),
    cells=tuple((kind, inputs, callers) for inputs, callers in CALLS for kind in KINDS),
)
SMALL = Size(
    models=("tiny",),
    sides=(32,),
    precisions=("fp32",),
    device="cpu",
    seconds=0.1,
    variants=(("eager", 1),),
    cells=(("png", 1, 4), ("texts", 8, 2), ("640x480", 1, 2), ("4000x3000", 64, 64)),
    patience=10,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the check: a process.

    Attributes:
        name: for people.
        arguments: of its command line: Python's own.
        limit_s: seconds after which it is ended.
        about: what its figures are about.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    about: tuple[tuple[str, str], ...] = ()


def parts(size: Size, folder: Path) -> list[Part]:
    """Return the parts of the check, the most telling ones first: time may run out."""
    plugins = [each for name in PLUGINS for each in ("-p", name)]
    tests = ("-m", "pytest", *plugins, "-m", "gpu", "-q", "--timeout", "100", "tests/embedders/clip/test_gpu.py")
    wanted = [Part(TESTS, tests, TESTS_S)]
    first, *others = size.precisions
    each_model = list(zip(size.models, size.sides, strict=True))
    wanted += [_bare(size, model, first, folder, size.seconds / 4) for model in size.models]
    wanted += [_bare(size, model, other, folder, size.seconds / 8) for other in others for model in size.models]
    wanted.append(Part("decoders", _decoding(size), DECODERS_S))
    by, workers = size.variants[0]
    wanted += [_served(size, model, side, first, folder, by, workers) for model, side in each_model]
    wanted += [_embedder(size, model, side, first, folder, by) for model, side in each_model]
    for precision, (by, workers) in itertools.islice(itertools.product(size.precisions, size.variants), 1, None):
        wanted += [_served(size, model, side, precision, folder, by, workers) for model, side in each_model]
    return wanted


def _bare(size: Size, model: str, precision: str, folder: Path, seconds: float) -> Part:
    program = ("-m", "tests.gpu_check.bare")
    arguments = (*program, model, precision, size.device, f"{seconds}", str(folder / model))
    return Part(f"bare {model} {precision}", arguments, BARE_S, _about(model, precision))


def _decoding(size: Size) -> tuple[str, ...]:
    kinds = dict.fromkeys(kind for kind, _, _ in size.cells if kind != "texts")
    return "-m", "tests.gpu_check.decoding", f"{size.sides[0]}", f"{size.seconds}", *kinds


def _embedder(size: Size, model: str, side: int, precision: str, folder: Path, by: str) -> Part:
    about = (str(folder / model), precision, size.device, f"{size.seconds}", f"{side}", by)
    name = f"embedder {model} {precision} {by}"
    return Part(name, ("-m", "tests.gpu_check.embedder", *about), EMBEDDER_S, _about(model, precision))


def _served(size: Size, model: str, side: int, precision: str, folder: Path, by: str, workers: int) -> Part:
    about = (str(folder / model), precision, size.device, f"{size.seconds}", f"{side}", by, f"{workers}")
    return Part(
        f"served {model} {precision} {by}, {workers} servers",
        ("-m", "tests.gpu_check.served", *about, json.dumps(size.cells)),
        SERVED_S,
        _about(model, precision),
    )


def _about(model: str, precision: str) -> tuple[tuple[str, str], ...]:
    return ("model", model), ("precision", precision)


def run(size: Size, seconds: float, folder: Path, log: Path) -> tuple[list[Figure], list[str]]:
    """Run what fits into the time, and return the figures, and what is missing and why."""
    end_s = time.monotonic() + seconds
    figures: list[Figure] = []
    missing: list[str] = []
    with log.open("w", encoding="utf-8") as file:
        for part in parts(size, folder):
            left_s = end_s - time.monotonic() - 2 * END_S
            if left_s < END_S:
                missing.append(f"{part.name}: {NO_TIME}")
                continue
            print(f"{seconds - left_s:5.0f} s  {part.name}", file=sys.stderr, flush=True)
            last: list[str] = []
            for figure in run_child(part.arguments, min(size.patience * part.limit_s, left_s), last.append):
                if "ended" not in figure:
                    figures.append(dict(part.about) | figure)
                elif figure["ended"] is not None:
                    missing.append(f"{part.name}: {figure['ended']}: {_last_words(last)}")
                elif part.name == TESTS:
                    figures.append({"part": "tests", "outcome": _last_words(last)})
            file.writelines(f"{part.name}: {line}\n" for line in last)
    return figures, missing


def _last_words(lines: Sequence[str]) -> str:
    return next((line.strip(" =") for line in reversed(lines) if line.strip()), "it said nothing")[:200]


def main(arguments: Sequence[str]) -> int:
    """Run the check, print the report, and leave it with all figures in a folder."""
    parser = argparse.ArgumentParser(prog="gpu-check", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a tiny model on the CPU, for a minute")
    parser.add_argument("--seconds", type=float, default=470, help="time for all of it; default: 470")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu-check", help="folder of the results")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vecgate-gpu-check-") as folder:
        figures, missing = run(
            SMALL if options.small else WHOLE, options.seconds, Path(folder), options.output / "log.txt"
        )
    result = {"machine": machine(figures), "figures": figures, "missing": missing}
    (options.output / "figures.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    text = report(result)
    (options.output / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
