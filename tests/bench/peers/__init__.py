"""Vecgate beside infinity-emb, clip-server and open_clip's bare loop: the same model, inputs and callers, in turns.

All have a ViT-B/32 with random weights, which say nothing of what vectors mean and all of what they cost. The peers run
in environments of their own, which their locks here make once in the cache folder. BENCH_SMALL=1 runs a model of a few
weights without peers, to show that this program works; BENCH_SECONDS and BENCH_ROUNDS shorten the whole.
"""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench.peers.inputs import Inputs, write_inputs
from tests.bench.peers.load import Sample
from tests.bench.peers.systems import BareLoop, ClipServer, Infinity, System, Vecgate
from tests.bench.serving import write_random_clip
from tests.fakes.tiny_clip import write_tiny_clip

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "build" / "peers.json"
SMALL = bool(os.environ.get("BENCH_SMALL"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "1" if SMALL else "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "0.3" if SMALL else "4"))
"""Of one measurement; the calls in flight at its end are waited for and counted."""
REFERENCE = "infinity"


@dataclass(frozen=True, slots=True)
class Row:
    """A load.

    Attributes:
        what: the kind of input.
        callers: who call again as soon as they are answered.
        batch: inputs in a batch of the bare loop, which has no callers.
        goal: the least ratio to infinity.
    """

    what: str
    callers: int
    batch: int
    goal: float


ROWS = (
    Row("text", 1, 1, 1.0),
    Row("text", 8, 8, 1.6),
    Row("text", 64, 32, 1.6),
    Row("32 texts", 1, 32, 1.0),
    Row("32 texts", 4, 32, 1.0),
    Row("640 x 480", 1, 1, 1.0),
    Row("640 x 480", 8, 8, 1.0),
    Row("640 x 480", 64, 8, 1.0),
    Row("3 megapixels", 1, 1, 1.0),
    Row("3 megapixels", 8, 8, 1.0),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of one system under one load."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    client_share: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Figures":
        """Return the medians of the rounds."""
        middle = statistics.median
        return cls(
            rate=middle(each.items / each.took_s for each in samples),
            p50_ms=middle(each.percentile_ms(50) for each in samples),
            p99_ms=middle(each.percentile_ms(99) for each in samples),
            cpu_ms=middle(each.server_cpu_s / each.items * 1000 for each in samples),
            client_share=middle(each.client_cpu_s / each.took_s for each in samples),
        )


def bench_peers() -> None:
    """Print the table, and write it as JSON."""
    rows = [ROWS[1], ROWS[3], ROWS[6]] if SMALL else list(ROWS)
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        inputs = write_inputs(folder / "inputs", few=SMALL)
        systems = start(folder, inputs, ends)
        asyncio.run(warm_up(systems, rows))
        samples: dict[tuple[Row, str], list[Sample]] = {}
        for _ in range(ROUNDS):
            for row in rows:
                for system in systems:
                    sample = asyncio.run(system.load(row.what, row.callers, row.batch, SECONDS))
                    samples.setdefault((row, system.name), []).append(sample)
        memory = {system.name: system.pss_mb() for system in systems}
    figures = {key: Figures.of(each) for key, each in samples.items()}
    report(rows, [system.name for system in systems], figures, memory)


def start(folder: Path, inputs: Inputs, ends: ExitStack) -> list[System]:
    """Start all systems; they rest while another one works. What cannot be installed is told and left out."""
    model = folder / "model"
    (write_tiny_clip if SMALL else write_random_clip)(model)
    systems: list[System] = [Vecgate(model, inputs, ends)]
    for peer in () if SMALL else (Infinity, ClipServer):
        try:
            systems.append(peer(folder, inputs, ends))
        except subprocess.CalledProcessError as error:
            print(f"{peer.name} is left out: {error.stderr}", flush=True)
    return [*systems, BareLoop(model, inputs, ends)]


async def warm_up(systems: Sequence[System], rows: Sequence[Row]) -> None:
    """Let every system see inputs of every kind."""
    for system in systems:
        for what in dict.fromkeys(row.what for row in rows):
            await system.load(what, 2, 2, 0.1)


def report(
    rows: Sequence[Row], names: Sequence[str], figures: dict[tuple[Row, str], Figures], memory: dict[str, float]
) -> None:
    """Print what was measured as a table for a page, and write it to RESULTS."""
    told = circumstances()
    print(f"{', '.join(told.values())}; medians of {ROUNDS} rounds: items/s (ratio to {REFERENCE}),"
          " p50/p99 ms, CPU ms an item\n")  # fmt: skip
    print(f"| Load, callers | {' | '.join(names)} |")
    print(f"| --- |{' --- |' * len(names)}")
    for row in rows:
        cells = []
        for name in names:
            each = figures[row, name]
            reference = figures.get((row, REFERENCE))
            ratio = "" if reference is None else f" ({each.rate / reference.rate:.2f})"
            cells.append(f"{each.rate:.1f}{ratio}, {each.p50_ms:.0f}/{each.p99_ms:.0f}, {each.cpu_ms:.1f}")
        goal = f", goal {row.goal:g}" if REFERENCE in names else ""
        print(f"| {row.what}, {row.callers}{goal} | {' | '.join(cells)} |")
    print(f"| memory, MB | {' | '.join(f'{memory[name]:.0f}' for name in names)} |")
    most = max(each.client_share for each in figures.values())
    print(f"\nThe load itself took at most {most:.2f} of a core. Searches beside Weaviate's own: BENCH=store-search.")
    RESULTS.parent.mkdir(exist_ok=True)
    loads = [{**asdict(row), "systems": {name: asdict(figures[row, name]) for name in names}} for row in rows]
    RESULTS.write_text(json.dumps({**told, "loads": loads, "memory_mb": memory}, indent=1))


def circumstances() -> dict[str, str]:
    """Return when, where and with what this was measured."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((fact.partition(":")[2].strip() for fact in facts if "model name" in fact), platform.processor())
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": f"commit {commit}",
        "machine": f"{os.cpu_count()} cores of {processor}",
        "load": f"load average {os.getloadavg()[0]:.1f}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "open-clip-torch")),
    }
