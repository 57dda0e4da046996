import { useState } from "preact/hooks";

import { WINDOW_MS, type Values } from "../measures";
import "./chart.css";
import { Table } from "./table";

export interface Line {
  name: string;
  values: Values;
}

export interface ChartSpec {
  title: string;
  lines: Line[];
  format: (value: number) => string;
  /** The top of the chart, where there is one; otherwise a round number above the largest value. */
  most?: number | undefined;
  /** Whether round numbers are powers of two, as for bytes. */
  binary?: boolean;
}

const WIDTH = 240;
const HEIGHT = 56;
/** Above the highest and below the lowest line, so that its whole width is seen. */
const MARGIN = 2;
/** Of the time between two samples; after a longer pause the line begins anew. */
const GAP_MS = 10_000;
const ROWS = 15;

/** A small chart of the last two minutes, with its present value beside its title. */
export function Chart({ title, lines, format, most, binary, times }: ChartSpec & { times: number[] }) {
  const shown = lines.flatMap((each) => each.values.filter((value) => value !== null));
  const highest = Math.max(0, ...shown);
  const top = most ?? (binary ? 2 ** Math.ceil(Math.log2(Math.max(1, highest))) : niceTop(highest));
  return (
    <figure class="chart">
      <figcaption>
        <span>{title}</span>
        {lines.map((each, at) => (
          <span class={`now line-${at}`}>
            {lines.length > 1 && <span class="quiet"><i aria-hidden="true" /> {each.name} </span>}
            {present(each.values, format)}
          </span>
        ))}
      </figcaption>
      <div class="plot">
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={summary(title, lines, format)}>
          {lines.map((each, at) => <path class={`line-${at}`} d={path(each.values, times, top)} />)}
        </svg>
        {shown.length > 0 ? <span class="top quiet" aria-hidden="true">{format(top)}</span> : <span class="none quiet" aria-hidden="true">nothing yet</span>}
      </div>
    </figure>
  );
}

/** The latest value, if it is of now. */
function present(values: Values, format: (value: number) => string): string {
  const last = values.at(-1);
  return last === undefined || last === null ? "–" : format(last);
}

function summary(title: string, lines: Line[], format: (value: number) => string): string {
  const parts = lines.map(({ name, values }) => {
    const known = values.filter((each) => each !== null);
    const prefix = lines.length > 1 ? `${name} ` : "";
    if (known.length === 0) return `${prefix}nothing yet`;
    return `${prefix}now ${present(values, format)}, between ${format(Math.min(...known))} and ${format(Math.max(...known))}`;
  });
  return `${title}, the last two minutes: ${parts.join("; ")}`;
}

function path(values: Values, times: number[], top: number): string {
  const end = times.at(-1) ?? 0;
  const parts: string[] = [];
  let before: number | undefined;
  values.forEach((value, at) => {
    const time = times[at] ?? 0;
    if (value === null) {
      before = undefined;
      return;
    }
    const x = (WIDTH * (time - end + WINDOW_MS)) / WINDOW_MS;
    const y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * Math.min(1, top > 0 ? value / top : 0);
    const joins = before !== undefined && time - before < GAP_MS;
    // A line of no length is a dot, for a value between two pauses.
    parts.push(`${joins ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${joins ? "" : "h0"}`);
    before = time;
  });
  return parts.join("");
}

/** The next number of 1, 2 or 5 and zeros, so that the scale does not move with every value. */
function niceTop(most: number): number {
  if (!(most > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(most));
  return ([1, 2, 5].find((each) => each * step >= most) ?? 10) * step;
}

/** Charts side by side, and their numbers in a table for those who ask. */
export function Charts({ caption, charts, times }: { caption: string; charts: ChartSpec[]; times: number[] }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <div class="charts">{charts.map((each) => <Chart {...each} times={times} />)}</div>
      <details class="numbers" onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>Numbers</summary>
        {open && <Numbers caption={caption} charts={charts} times={times} />}
      </details>
    </>
  );
}

function Numbers({ caption, charts, times }: { caption: string; charts: ChartSpec[]; times: number[] }) {
  const columns = charts.flatMap((chart) => chart.lines.map((line) => ({ chart, line })));
  const latest = times.map((_, at) => at).slice(-ROWS).reverse();
  return (
    <Table
      caption={`Numbers of ${caption}`}
      head={["Time", ...columns.map(({ chart, line }) => (chart.lines.length > 1 ? `${chart.title}, ${line.name}` : chart.title))]}
      rows={latest.map((at) => [
        new Date(times[at] ?? 0).toLocaleTimeString(),
        ...columns.map(({ chart, line }) => {
          const value = line.values[at];
          return value === undefined || value === null ? "–" : chart.format(value);
        }),
      ])}
    />
  );
}
