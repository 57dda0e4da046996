/** Colours for the values of a property, which people with any colour vision can tell apart. */

import type { JsonValue } from "../types";

/** How points are coloured. */
export interface Colouring {
  /** A colour for each number in `of`. The last but one is for what is left over, the last one for no value. */
  palette: string[];
  /** For each point the number of its colour. */
  of: Uint8Array;
  /** What the colours mean. */
  legend: Entry[];
}

export interface Entry {
  label: string;
  colour: string;
  count: number;
}

/** Okabe and Ito's colours, without black. */
const CATEGORIES = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442"];
/** Viridis: it grows lighter from one end to the other, for every colour vision. */
const SCALE = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const OTHERS = "#8c8c8c";
const OTHER_VALUES = "other values";
export const NONE = "transparent";

/** Colour points by a column of values; without one all have the same colour. */
export function colourBy(values: JsonValue[] | undefined, count: number, plain: string): Colouring {
  if (values === undefined) return { palette: [plain, OTHERS, NONE], of: new Uint8Array(count), legend: [] };
  const numbers = values.map(toNumber);
  const known = numbers.filter((each): each is number => each !== undefined);
  const present = values.filter((each) => each !== null).length;
  if (known.length === present && new Set(known).size > CATEGORIES.length) {
    return byNumber(numbers, known, values.some((each) => typeof each === "string"));
  }
  return byCategory(values);
}

/** Whether colours tell something of a column: numbers have a scale, and of words most objects share one with a colour. */
export function groups(values: JsonValue[]): boolean {
  const present = values.filter((each) => each !== null).length;
  const { legend } = colourBy(values, values.length, OTHERS);
  const others = legend.find((each) => each.label === OTHER_VALUES)?.count ?? 0;
  return others <= present / 2;
}

const DATE = /^\d{4}-\d\d-\d\dT/;

/** A value as a number: numbers, and dates as milliseconds. */
function toNumber(value: JsonValue): number | undefined {
  if (typeof value === "number") return value;
  if (typeof value !== "string" || !DATE.test(value)) return undefined;
  const time = Date.parse(value);
  return Number.isNaN(time) ? undefined : time;
}

function byNumber(numbers: (number | undefined)[], known: number[], dates: boolean): Colouring {
  const sorted = Float64Array.from(known).sort();
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  // A few values far away would leave one colour for all others.
  const low = at(0.02);
  const high = at(0.98) > low ? at(0.98) : at(1);
  const step = (high - low) / SCALE.length || 1;
  const bin = (value: number) => Math.max(0, Math.min(SCALE.length - 1, Math.floor((value - low) / step)));
  const none = SCALE.length + 1;
  const of = Uint8Array.from(numbers, (each) => (each === undefined ? none : bin(each)));
  const shown = (value: number) => (dates ? new Date(value).toISOString().slice(0, 10) : Number(value.toPrecision(4)).toLocaleString("en"));
  const counts = countColours(of);
  const whole = !dates && known.every(Number.isInteger);
  const legend = SCALE.map((colour, index) => {
    const [begin, end] = [low + index * step, low + (index + 1) * step];
    const from = shown(whole ? Math.ceil(begin) : begin);
    const to = shown(whole ? Math.ceil(end) - 1 : end);
    const label = index === 0 ? `up to ${to}` : index === SCALE.length - 1 ? `from ${from}` : from === to ? from : `${from} to ${to}`;
    return { label, colour, count: counts[index] ?? 0 };
  });
  return { palette: [...SCALE, OTHERS, NONE], of, legend: [...legend.filter((each) => each.count > 0), ...rest(counts, SCALE.length)] };
}

function byCategory(values: JsonValue[]): Colouring {
  const words = values.map(toWord);
  const counted = new Map<string, number>();
  for (const each of words) if (each !== undefined) counted.set(each, (counted.get(each) ?? 0) + 1);
  const common = [...counted].sort(([a, many], [b, more]) => more - many || (a < b ? -1 : 1)).slice(0, CATEGORIES.length);
  const numbers = new Map(common.map(([word], index) => [word, index]));
  const palette = CATEGORIES.slice(0, common.length);
  const of = Uint8Array.from(words, (each) => (each === undefined ? palette.length + 1 : (numbers.get(each) ?? palette.length)));
  const legend = common.map(([label, count], index) => ({ label, colour: palette[index] ?? OTHERS, count }));
  return { palette: [...palette, OTHERS, NONE], of, legend: [...legend, ...rest(countColours(of), palette.length)] };
}

/** A value as a word; of a list the first one. */
function toWord(value: JsonValue): string | undefined {
  if (Array.isArray(value)) return value.length > 0 ? toWord(value[0] ?? null) : undefined;
  if (typeof value === "boolean") return value ? "yes" : "no";
  return value === null || typeof value === "object" ? undefined : String(value);
}

function countColours(of: Uint8Array): number[] {
  const counts: number[] = [];
  for (const each of of) counts[each] = (counts[each] ?? 0) + 1;
  return counts;
}

/** What is left over, and what has no value, as far as there is any. */
function rest(counts: number[], others: number): Entry[] {
  const entries = [
    { label: OTHER_VALUES, colour: OTHERS, count: counts[others] ?? 0 },
    { label: "no value", colour: NONE, count: counts[others + 1] ?? 0 },
  ];
  return entries.filter((each) => each.count > 0);
}
