"""Write the table of metrics from the metrics themselves: python -m service.process.metrics_table."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase

import embedders.telemetry.metrics
import service.process.metrics
from service.settings.table import with_block

PAGE = Path(__file__).parents[1] / "README.md"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}


@dataclass(frozen=True, slots=True)
class Exposed:
    """A metric as Prometheus sees it.

    Attributes:
        name: of the family, with the suffix that queries need where there is but one.
        kind: counter, gauge, histogram or info.
        labels: their names.
        meaning: its help text.
        samples: names that queries may use.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    samples: tuple[str, ...]


def exposed(module: ModuleType) -> Iterator[Exposed]:
    """Yield the metrics that a module defines."""
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            samples = tuple(family.name + suffix for suffix in SUFFIXES[family.type])
            name = samples[0] if len(samples) == 1 else family.name
            labels = metric._labelnames  # noqa: SLF001 -- nothing public names them
            yield Exposed(name, family.type, labels, family.documentation, samples)


def all_exposed() -> list[Exposed]:
    """Return every metric of Vecgate's own, by name."""
    found = [each for module in (embedders.telemetry.metrics, service.process.metrics) for each in exposed(module)]
    return sorted({each.name: each for each in found}.values(), key=lambda each: each.name)


def make_table() -> str:
    """Return the table in Markdown."""
    rows = ["| Metric | Kind | Labels | What it says |", "| --- | --- | --- | --- |"]
    for each in all_exposed():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        rows.append(f"| `{each.name}` | {each.kind} | {labels} | {each.meaning} |")
    return "\n".join(rows) + "\n"


def with_metrics(text: str) -> str:
    """Return the page's text with the table as it should be."""
    return with_block(text, "metrics", make_table())


if __name__ == "__main__":
    PAGE.write_text(with_metrics(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
