/** Plots of an evaluation. Each stands beside a table with its numbers. */

import { Line } from "../parts/text";

export interface Bar {
  readonly name: string;
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly words: string;
}

/** Bars with their intervals, from 0 to the most. */
export function Bars({ title, bars, most }: { title: string; bars: readonly Bar[]; most: number }) {
  const percent = (value: number) => `${(100 * Math.min(1, Math.max(0, most > 0 ? value / most : 0))).toFixed(2)}%`;
  return (
    <figure class="bars" role="img" aria-label={`${title}: ${bars.map(({ name, words }) => `${name} ${words}`).join("; ")}`}>
      <figcaption>{title}</figcaption>
      {bars.map(({ name, value, low, high, words }) => (
        <div class="bar-row">
          <Line clamp={60}>{name}</Line>
          <span class="track">
            <span class="value" style={{ width: percent(value) }} />
            <span class="interval" style={{ left: percent(low), right: `calc(100% - ${percent(high)})` }} />
          </span>
          <span class="number">{words}</span>
        </div>
      ))}
    </figure>
  );
}

export interface Point {
  readonly at: number;
  readonly value: number;
}

const WIDTH = 480;
const HEIGHT = 180;
const MARGIN = 28;

/** A curve through points from 0 to 1, side by side whatever lies between them; a line marks what is wanted. */
export function Curve({ title, points, wanted }: { title: string; points: readonly Point[]; wanted?: number | undefined }) {
  const x = (at: number) => MARGIN + (at * (WIDTH - 2 * MARGIN)) / Math.max(1, points.length - 1);
  const y = (value: number) => HEIGHT - MARGIN - value * (HEIGHT - 2 * MARGIN);
  return (
    <figure class="curve">
      <figcaption>{title}</figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title}: ${points.map(({ at, value }) => `${at}: ${value.toFixed(3)}`).join(", ")}`}>
        {wanted !== undefined && <path class="wanted" d={`M${MARGIN} ${y(wanted)}H${WIDTH - MARGIN}`} />}
        <path class="line" d={points.map(({ value }, at) => `${at === 0 ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("")} />
        {points.map(({ at, value }, rank) => (
          <g>
            <circle cx={x(rank)} cy={y(value)} r={3} />
            <text x={x(rank)} y={HEIGHT - 8}>{at}</text>
            <text x={x(rank)} y={y(value) - 8}>{value.toFixed(2)}</text>
          </g>
        ))}
      </svg>
    </figure>
  );
}
