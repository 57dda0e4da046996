// Cosines of vectors, which of them are best, and how far two orders agree.

/** Returns the cosine of two vectors of one length. */
export function cosine(one: Float32Array, other: Float32Array): number {
  let [dot, squares, others] = [0, 0, 0];
  for (let at = 0; at < one.length; at++) {
    const [a, b] = [one[at]!, other[at]!];
    dot += a * b;
    squares += a * a;
    others += b * b;
  }
  return dot / Math.sqrt(squares * others);
}

/** A row for each text, a column for each picture; null where one of them has no vector. */
export type Matrix = readonly (readonly (number | null)[])[];

export function cosines(rows: readonly (Float32Array | null)[], columns: readonly (Float32Array | null)[]): Matrix {
  return rows.map((row) => columns.map((column) => (row && column ? cosine(row, column) : null)));
}

/** Returns the least and the largest value; null if there is none. */
export function rangeOf(matrix: Matrix): { least: number; largest: number } | null {
  const values = matrix.flat().filter((value) => value !== null);
  if (values.length === 0) return null;
  return { least: Math.min(...values), largest: Math.max(...values) };
}

/** Returns the position of the largest value; -1 if there is none. Of equal ones it is the first. */
export function best(values: readonly (number | null)[]): number {
  let found = -1;
  for (const [at, value] of values.entries()) {
    if (value !== null && (found < 0 || value > values[found]!)) found = at;
  }
  return found;
}

export function columnOf(matrix: Matrix, column: number): (number | null)[] {
  return matrix.map((row) => row[column] ?? null);
}

/** How far two embedders put the pictures of one text into the same order. */
export interface Agreement {
  /** Spearman's rank correlation, 1 for the same order and -1 for the reverse; null with fewer than two pictures. */
  readonly correlation: number | null;
  /** Whether both have the same best picture; null without pictures. */
  readonly sameBest: boolean | null;
}

/** Compares two rows of cosines. Only pictures that have a value in both count. */
export function agreement(one: readonly (number | null)[], other: readonly (number | null)[]): Agreement {
  const both = one.map((_, at) => at).filter((at) => one[at] !== null && other[at] !== null);
  const [values, others] = [both.map((at) => one[at]!), both.map((at) => other[at]!)];
  return {
    correlation: correlation(ranks(values), ranks(others)),
    sameBest: both.length === 0 ? null : best(values) === best(others),
  };
}

/** Returns the rank of each value, from 1; equal values share the mean of their ranks. */
export function ranks(values: readonly number[]): number[] {
  const order = values.map((_, at) => at).sort((one, other) => values[one]! - values[other]!);
  const result = new Array<number>(values.length);
  for (let first = 0; first < order.length; ) {
    let after = first + 1;
    while (after < order.length && values[order[after]!] === values[order[first]!]) after++;
    for (let at = first; at < after; at++) result[order[at]!] = (first + 1 + after) / 2;
    first = after;
  }
  return result;
}

function correlation(one: readonly number[], other: readonly number[]): number | null {
  const mean = (one.length + 1) / 2;
  let [joint, square, otherSquare] = [0, 0, 0];
  for (const [at, value] of one.entries()) {
    const [a, b] = [value - mean, other[at]! - mean];
    joint += a * b;
    square += a * a;
    otherSquare += b * b;
  }
  return square === 0 || otherSquare === 0 ? null : joint / Math.sqrt(square * otherSquare);
}
