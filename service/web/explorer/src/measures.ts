/** What the server's counts mean: rates, means, shares and quantiles of the time between two answers. */

import type { GetServerStatusResponseJson, HistogramJson } from "./types";

/** An answer, and when the server made it. */
export interface Sample {
  /** Milliseconds of the epoch. */
  at: number;
  status: GetServerStatusResponseJson;
}

/** How far back charts reach. */
export const WINDOW_MS = 120_000;

/** A value for each sample; null where there is none. */
export type Values = (number | null)[];

/** Add an answer to those before it. After a restart of the server counts begin anew, and nothing before it may be compared. */
export function withSample(samples: Sample[], status: GetServerStatusResponseJson): Sample[] {
  const at = Date.parse(status.observeTime ?? "");
  const last = samples.at(-1);
  if (last !== undefined && (last.status.startTime !== status.startTime || at <= last.at)) return [{ at, status }];
  // One more than the window shows, from which its first line begins.
  const first = samples.findIndex((each) => each.at >= at - WINDOW_MS);
  return [...samples.slice(Math.max(0, first < 0 ? samples.length : first - 1)), { at, status }];
}

/** A 64-bit number, which JSON has as text; 0 if it is left out, as protobuf leaves out zeros. */
export function whole(value: string | number | undefined): number {
  return Number(value ?? 0);
}

/** A Duration, such as "1.5s", in seconds. */
export function seconds(duration: string | undefined): number {
  return duration === undefined ? 0 : Number.parseFloat(duration);
}

/** What was counted between each sample and the one before it. */
function between(samples: Sample[], value: (before: GetServerStatusResponseJson, after: GetServerStatusResponseJson, seconds: number) => number | null): Values {
  return samples.map((after, at) => {
    const before = samples[at - 1];
    return before === undefined ? null : value(before.status, after.status, (after.at - before.at) / 1000);
  });
}

type Of<Value> = (status: GetServerStatusResponseJson) => Value;

/** How much of something there was at each time. */
export function levels(samples: Sample[], of: Of<string | number | undefined>): Values {
  return samples.map((each) => whole(of(each.status)));
}

/** How much a count grew, a second. */
export function rates(samples: Sample[], of: Of<string | number | undefined>): Values {
  return between(samples, (before, after, passed) => Math.max(0, whole(of(after)) - whole(of(before))) / passed);
}

/** How much the first count grew as a share of how much both did. */
export function shares(samples: Sample[], of: Of<string | number | undefined>, others: Of<string | number | undefined>): Values {
  return between(samples, (before, after) => {
    const grown = whole(of(after)) - whole(of(before));
    const rest = whole(others(after)) - whole(others(before));
    return grown + rest > 0 ? grown / (grown + rest) : null;
  });
}

export function means(samples: Sample[], of: Of<HistogramJson | undefined>): Values {
  return between(samples, (before, after) => mean(difference(of(before), of(after))));
}

export function quantiles(samples: Sample[], share: number, of: Of<HistogramJson | undefined>): Values {
  return between(samples, (before, after) => quantile(difference(of(before), of(after)), share));
}

/** Values in ranges, of some time. */
export interface Counted {
  count: number;
  sum: number;
  bounds: number[];
  /** One more than the bounds: the last one is for all above. */
  counts: number[];
}

export function counted(histogram: HistogramJson | undefined): Counted {
  return {
    count: whole(histogram?.count),
    sum: Number(histogram?.sum ?? 0),
    bounds: (histogram?.bounds ?? []).map(Number),
    counts: (histogram?.bucketCounts ?? []).map(Number),
  };
}

function difference(before: HistogramJson | undefined, after: HistogramJson | undefined): Counted {
  const [from, to] = [counted(before), counted(after)];
  return { count: to.count - from.count, sum: to.sum - from.sum, bounds: to.bounds, counts: to.counts.map((each, at) => each - (from.counts[at] ?? 0)) };
}

export function mean({ count, sum }: Counted): number | null {
  return count > 0 ? Math.max(0, sum) / count : null;
}

/** The value below which a share of all values are, as Prometheus guesses it: values lie evenly within a range. */
export function quantile({ count, bounds, counts }: Counted, share: number): number | null {
  if (count <= 0) return null;
  let left = share * count;
  for (const [at, inRange] of counts.entries()) {
    const upper = bounds[at];
    const lower = bounds[at - 1] ?? 0;
    if (upper === undefined) return lower;
    if (inRange > 0 && left <= inRange) return lower + (upper - lower) * (left / inRange);
    left -= inRange;
  }
  return bounds.at(-1) ?? null;
}

/** The sum of histograms with the same bounds. */
export function sumOf(histograms: (HistogramJson | undefined)[]): HistogramJson | undefined {
  const some = histograms.filter((each) => each !== undefined);
  const [first, ...rest] = some;
  if (first === undefined || rest.length === 0) return first;
  const bucketCounts = (first.bucketCounts ?? []).map((_, at) => String(some.reduce((sum, each) => sum + whole(each.bucketCounts?.[at]), 0)));
  const total = some.reduce((sum, each) => sum + whole(each.count), 0);
  return { count: String(total), sum: some.reduce((sum, each) => sum + Number(each.sum ?? 0), 0), bounds: first.bounds ?? [], bucketCounts };
}

/** Numbers as people read them. */
export const words = {
  time(value: number): string {
    if (value >= 100) return `${Math.round(value)} s`;
    if (value >= 1) return `${value.toFixed(1)} s`;
    const ms = value * 1000;
    return `${ms >= 100 ? Math.round(ms) : ms.toFixed(1)} ms`;
  },
  rate(value: number): string {
    return `${words.number(value)}/s`;
  },
  share(value: number): string {
    return `${Math.round(value * 100)} %`;
  },
  number(value: number): string {
    return value.toLocaleString("en", value < 10 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 });
  },
  bytes(value: number): string {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    for (; value >= 1024 && at < units.length - 1; at++) value /= 1024;
    return `${value.toLocaleString("en", { maximumFractionDigits: value < 10 && at > 0 ? 1 : 0 })} ${units[at]}`;
  },
  bytesRate(value: number): string {
    return `${words.bytes(value)}/s`;
  },
  /** A long time, in its two largest units. */
  span(value: number): string {
    const left = Math.max(0, Math.round(value));
    const [days, hours, minutes] = [Math.floor(left / 86400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60];
    if (days > 0) return `${days} d ${hours} h`;
    if (hours > 0) return `${hours} h ${minutes} min`;
    return minutes > 0 ? `${minutes} min ${left % 60} s` : `${left} s`;
  },
};
