"""An evaluation as one page: plots, tables and pictures, with nothing from elsewhere and no scripts."""

import time
from collections.abc import Iterable, Mapping, Sequence

from service.cli.drift import TITLES, drift_rows, how_compared, when
from service.cli.html_page import PAGE_END, data_url, escaped, page_start
from service.cli.thumbnails import TOTAL_BYTES, picture_property
from vecgate.client import Client, VecgateError
from vecgate.v1 import evaluation_service_pb2 as pb

SIDE = 96
"""Pixels of a picture's longer side."""

TOTAL_S = 30.0
"""For reading the pictures; the others are left out."""

WIDTH, ROW, LEFT, RIGHT = 640, 26, 180, 60
"""Pixels of a plot, its rows, and the room for names and values."""

MEASURES = {
    pb.EVALUATION_MEASURE_INDEX_RECALL: "index recall",
    pb.EVALUATION_MEASURE_NDCG: "nDCG",
    pb.EVALUATION_MEASURE_RECIPROCAL_RANK: "MRR",
    pb.EVALUATION_MEASURE_RECALL: "recall",
}
"""What measures are called."""

STYLE = """
body { max-width: 60rem; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .8rem .25rem 0; text-align: left; }
th { border-bottom: 1px solid var(--line); } .number { font-variant-numeric: tabular-nums; }
.finding { border-left: 4px solid var(--warn); padding: .2rem .8rem; margin: .6rem 0; background: var(--warn-soft); }
.query { border-top: 1px solid var(--line); padding: .6rem 0; }
.hits { display: flex; gap: .4rem; align-items: center; margin: .4rem 0; }
.hits img { max-height: 96px; } .right { outline: 3px solid var(--right); } .name { width: 12rem; flex: none; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); } small { color: var(--quiet); }
.plot { fill: var(--plot); } .curve { fill: none; stroke: var(--plot); stroke-width: 2; }
.interval { stroke: var(--ink); stroke-width: 2; } .wanted { stroke: var(--warn); stroke-dasharray: 4; }
"""

Bar = tuple[str, float, float, float, str]
"""A name, a value, the ends of its interval, and the value in words."""


def evaluation_page(client: Client, collection: str, found: pb.Evaluation, tenant: str) -> str:
    """Return a page of HTML that shows an evaluation.

    Args:
        client: asked for the pictures of the queries and hits; a caller who may not read objects gets no pictures.
        collection: the collection's name.
        found: the evaluation.
        tenant: whose objects, if the collection has tenants.
    """
    parts = [
        f"<p>{found.query_count} queries, {objects_in_words(found)}, the first {found.limit} hits.</p>",
        *(f'<p class="finding">{escaped(_said(each))}</p>' for each in found.findings),
        *_measure_plots(found),
        *_time_plot(found),
        _cost(found),
        *_comparisons(found),
        *_suggestions(found),
        *_drift(found),
        *_queries(found, _Pictures(client, collection, tenant)),
    ]
    return page_start(f"Evaluation of {collection}", STYLE) + "\n".join(parts) + f"\n{PAGE_END}"


def objects_in_words(found: pb.Evaluation) -> str:
    """Return how many objects were searched."""
    among = f"a sample of {found.sample_object_count} of " if found.HasField("sample_object_count") else ""
    return f"{among}{found.object_count} objects"


def weights_in_words(weights: Mapping[str, float]) -> str:
    """Return weights of named vectors or fields in words."""
    return ", ".join(f"{name} {round(weight, 6):g}" for name, weight in sorted(weights.items()))


def best_weights_in_words(found: pb.Evaluation) -> str:
    """Return which weights are the best, or that no others are better than those of the first system."""
    words = weights_in_words(found.weights.weights)
    if found.weights.real:
        return f"The best weights are {words}"
    return f"No other weights are better than {found.systems[0].system.name} by more than chance. The best were {words}"


def gain_in_words(found: pb.Evaluation) -> str:
    """Return how much more suggested weights have than the first system."""
    gain, first = found.weights.gain, found.systems[0].system.name
    return f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) against {first}"


def comparison_in_words(compared: pb.SystemComparison) -> str:
    """Return whether a system is worse or better than the first one, or may be neither."""
    if not compared.real:
        return "may be chance"
    return "worse" if compared.difference.mean < 0 else "better"


class _Pictures:
    """Reads small pictures of objects, as far as there is time and room."""

    def __init__(self, client: Client, collection: str, tenant: str) -> None:
        self._client, self._collection, self._tenant = client, collection, tenant
        self._property: str | None = None
        self._known: dict[str, str] = {}
        self._left = TOTAL_BYTES
        self._end = time.monotonic() + TOTAL_S
        try:
            self._property = picture_property(client.get_collection(collection, tenant))
        except VecgateError:
            self._left = 0

    def tag(self, id_: str, *, right: bool = False) -> str:
        """Return the picture of an object, or its id where there is none."""
        if id_ not in self._known:
            self._known[id_] = self._read(id_)
        mark, source = ' class="right"' if right else "", self._known[id_]
        name = escaped(id_)
        return f'<img src="{source}" alt="{name}" title="{name}"{mark}>' if source else f"<small{mark}>{name}</small>"

    def _read(self, id_: str) -> str:
        if self._property is None or self._left <= 0 or time.monotonic() > self._end:
            return ""
        try:
            read = self._client.get_object(self._collection, id_, return_images=self._property, tenant=self._tenant)
        except VecgateError as error:
            if error.reason != "OBJECT_NOT_FOUND":
                self._left = 0
            return ""
        content = read.images.get(self._property, b"")
        self._left -= len(content)
        return data_url(content, SIDE)


def _said(finding: pb.EvaluationFinding) -> str:
    return f"{finding.system}: {finding.message}" if finding.system else finding.message


def _measure_name(measure: pb.EvaluationMeasure.ValueType) -> str:
    return MEASURES.get(measure, "a measure of another version")


def _measure_plots(found: pb.Evaluation) -> Iterable[str]:
    kinds = dict.fromkeys(each.measure for system in found.systems for each in system.measures)
    for kind in kinds:
        bars = [
            (system.system.name, value.mean, value.low, value.high, f"{value.mean:.3f}")
            for system in found.systems
            for value in (each.estimate for each in system.measures if each.measure == kind)
        ]
        yield f"<h2>{_measure_name(kind)}</h2>"
        yield _plot(_measure_name(kind), bars)


def _time_plot(found: pb.Evaluation) -> Iterable[str]:
    # Searches among a sample have no times.
    if not found.HasField("sample_object_count"):
        yield "<h2>Time of a search</h2>"
        yield _plot("Median time", [_time_bar(each) for each in found.systems], unit=True)


def _time_bar(system: pb.SystemResult) -> Bar:
    median, p95 = (1000 * each.ToTimedelta().total_seconds() for each in (system.median_time, system.p95_time))
    return system.system.name, median, median, p95, f"{median:.1f} ms"


def _plot(title: str, bars: Sequence[Bar], *, unit: bool = False) -> str:
    """Return bars with their intervals; from 0 to 1, or to the largest value."""
    most = max([high for _, _, _, high, _ in bars], default=0.0) if unit else 1.0
    scale = (WIDTH - LEFT - RIGHT) / (most or 1.0)
    rows = []
    for number, (name, value, low, high, words) in enumerate(bars):
        y = number * ROW
        rows.append(
            f'<text x="0" y="{y + 17}">{escaped(name[:26])}</text>'
            f'<rect x="{LEFT}" y="{y + 5}" width="{max(0.0, value) * scale:.1f}" height="14" class="plot"/>'
            f'<line x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}" y1="{y + 12}" y2="{y + 12}" '
            'class="interval"/>'
            f'<text x="{WIDTH - RIGHT + 8}" y="{y + 17}">{escaped(words)}</text>'
        )
    return _picture(f"{title} of {'; '.join(f'{name}: {words}' for name, *_, words in bars)}", ROW * len(bars), rows)


def _picture(name: str, height: int, parts: Iterable[str]) -> str:
    """Return a picture with its name: what it shows, for people who do not see it."""
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'<svg {size} role="img" aria-label="{escaped(name)}">{"".join(parts)}</svg>'


def _curve(title: str, points: Sequence[tuple[float, float]], wanted: float | None) -> str:
    """Return a curve through points, by their ranks from left to right."""
    height, step = 160, (WIDTH - LEFT) / max(1, len(points) - 1)
    left, tall = LEFT / 2, height - 50
    places = [(left + step * number, height - 30 - value * tall) for number, (_, value) in enumerate(points)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="plot"/>'
        f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{at:g}</text>'
        f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">{value:.2f}</text>'
        for (x, y), (at, value) in zip(places, points, strict=True)
    )
    drawn = f'<polyline points="{line}" class="curve"/>'
    if wanted is not None:
        at = f'y1="{height - 30 - wanted * tall:.1f}" y2="{height - 30 - wanted * tall:.1f}"'
        drawn += f'<line x1="{left}" x2="{WIDTH - left}" {at} class="wanted"/>'
    said = "; ".join(f"{at:g}: {value:.2f}" for at, value in points)
    return _picture(f"{title} {said}", height, [drawn, marks])


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escaped(each)}</th>" for each in titles)
    lines = ("".join(f'<td class="number">{escaped(cell)}</td>' for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cost(found: pb.Evaluation) -> str:
    rows = [
        ("searches", str(found.searches)),
        ("embedded inputs", str(found.embedded_inputs)),
        ("embedding", f"{found.embedding_time.ToTimedelta().total_seconds():.1f} s"),
        ("all together", f"{found.time.ToTimedelta().total_seconds():.1f} s"),
    ]
    return "<h2>Cost</h2>" + _table(("what", "how much"), rows)


def _comparisons(found: pb.Evaluation) -> Iterable[str]:
    if not found.comparisons:
        return
    first = found.systems[0].system.name
    yield f"<h2>Compared with {escaped(first)}</h2>"
    rows = [
        (
            each.system,
            _measure_name(each.measure),
            f"{each.difference.mean:+.3f} ({each.difference.low:+.3f} to {each.difference.high:+.3f})",
            comparison_in_words(each),
        )
        for each in found.comparisons
    ]
    yield _table(("system", "measure", "difference", "is it chance?"), rows)


def _suggestions(found: pb.Evaluation) -> Iterable[str]:
    if found.HasField("ef"):
        ef = found.ef
        yield f"<h2>Smallest ef for an index recall of {ef.wanted_recall:g}: {ef.ef}</h2>"
        yield f"<p>Other queries reach {ef.recall.mean:.3f} ({ef.recall.low:.3f} to {ef.recall.high:.3f}).</p>"
        yield _curve("Index recall by ef", [(each.ef, each.recall) for each in ef.tried], ef.wanted_recall)
    if found.HasField("weights"):
        weights = found.weights
        yield f"<h2>Weights</h2><p>{escaped(best_weights_in_words(found))}.</p>"
        change = escaped(gain_in_words(found))
        yield f"<p>Queries that did not choose them have an nDCG of {weights.ndcg.mean:.3f}, {change}.</p>"
        best_first = sorted(weights.tried, key=lambda each: -each.ndcg)
        yield _table(["weights", "nDCG"], [(weights_in_words(each.weights), f"{each.ndcg:.3f}") for each in best_first])
    if found.HasField("alpha"):
        best = found.alpha
        yield f"<h2>Best alpha: {best.alpha:g}</h2>"
        yield f"<p>Queries that did not choose it have an nDCG of {best.ndcg.mean:.3f}.</p>"
        yield _curve("nDCG by alpha", [(each.alpha, each.ndcg) for each in best.tried], None)


def _drift(found: pb.Evaluation) -> Iterable[str]:
    if found.HasField("drift"):
        yield f"<h2>Compared with the evaluation of {when(found.drift.since)}</h2>"
        yield f"<p>{how_compared(found.drift)}</p>"
        yield _table(TITLES, drift_rows(found.drift))


def _queries(found: pb.Evaluation, pictures: _Pictures) -> Iterable[str]:
    if not found.queries:
        return
    several = len(found.systems) > 1
    yield f"<h2>{'Queries that win and lose most' if several else 'Queries that go worst'}</h2>"
    for query in found.queries:
        own = pictures.tag(query.id) if query.stored else f"<small>{escaped(query.id)}</small>"
        lines = [
            f'<div class="hits"><span class="name"><b>{escaped(query.text) or "searched by"}</b></span>{own}</div>'
        ]
        for system, hits in zip(found.systems, query.found, strict=False):
            value = f"{hits.value:.2f}" if hits.HasField("value") else ""
            tags = "".join(pictures.tag(id_, right=query.stored and id_ == query.id) for id_ in hits.ids)
            name = f'<span class="name">{escaped(system.system.name)} <small>{value}</small></span>'
            lines.append(f'<div class="hits">{name}{tags or "<small>nothing</small>"}</div>')
        yield f'<div class="query">{"".join(lines)}</div>'
