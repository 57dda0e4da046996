"""The README's table of metrics, made from the metrics themselves: python -m service.process.metrics_table."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase

import embedders.telemetry.metrics
import service.process.metrics
from service.settings.table import README

BEGIN = "<!-- metrics: begin -->\n"
END = "<!-- metrics: end -->"
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
    """Return the README's text with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{make_table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_metrics(README.read_text(encoding="utf-8")), encoding="utf-8")
