/** Where points are: which of them are within a part of the map, without looking at all of them. */

const CELLS = 64;

export interface Box {
  left: number;
  right: number;
  bottom: number;
  top: number;
}

/** Points sorted into the cells of a grid. */
export class Places {
  readonly bounds: Box;
  readonly #xs: Float32Array;
  readonly #ys: Float32Array;
  /** The points, cell by cell, and where each cell begins. */
  readonly #points: Uint32Array;
  readonly #begins: Uint32Array;
  readonly #cell: number;

  constructor(xs: Float32Array, ys: Float32Array) {
    this.#xs = xs;
    this.#ys = ys;
    this.bounds = boundsOf(xs, ys);
    const { left, right, bottom, top } = this.bounds;
    this.#cell = Math.max(right - left, top - bottom) / CELLS || 1;
    const cells = Uint32Array.from(xs, (x, at) => this.#column(x) + CELLS * this.#row(ys[at] ?? 0));
    this.#begins = new Uint32Array(CELLS * CELLS + 1);
    for (const each of cells) this.#begins[each + 1]! += 1;
    for (let at = 0; at < CELLS * CELLS; at++) this.#begins[at + 1]! += this.#begins[at]!;
    const next = this.#begins.slice();
    this.#points = new Uint32Array(cells.length);
    cells.forEach((each, at) => (this.#points[next[each]!++] = at));
  }

  /** The points within a box. */
  within({ left, right, bottom, top }: Box): number[] {
    const found: number[] = [];
    for (let row = this.#row(bottom); row <= this.#row(top); row++) {
      for (let column = this.#column(left); column <= this.#column(right); column++) {
        const cell = column + CELLS * row;
        for (let at = this.#begins[cell]!; at < this.#begins[cell + 1]!; at++) {
          const point = this.#points[at]!;
          const x = this.#xs[point]!;
          const y = this.#ys[point]!;
          if (x >= left && x <= right && y >= bottom && y <= top) found.push(point);
        }
      }
    }
    return found;
  }

  /** Points by their distance to a place, the nearest one first. */
  byDistance(points: number[], x: number, y: number): number[] {
    const far = (point: number) => (this.#xs[point]! - x) ** 2 + (this.#ys[point]! - y) ** 2;
    const distances = new Map(points.map((each) => [each, far(each)]));
    return [...points].sort((a, b) => distances.get(a)! - distances.get(b)!);
  }

  #column(x: number): number {
    return Math.max(0, Math.min(CELLS - 1, Math.floor((x - this.bounds.left) / this.#cell)));
  }

  #row(y: number): number {
    return Math.max(0, Math.min(CELLS - 1, Math.floor((y - this.bounds.bottom) / this.#cell)));
  }
}

function boundsOf(xs: Float32Array, ys: Float32Array): Box {
  if (xs.length === 0) return { left: -1, right: 1, bottom: -1, top: 1 };
  const box = { left: Infinity, right: -Infinity, bottom: Infinity, top: -Infinity };
  for (let at = 0; at < xs.length; at++) {
    box.left = Math.min(box.left, xs[at]!);
    box.right = Math.max(box.right, xs[at]!);
    box.bottom = Math.min(box.bottom, ys[at]!);
    box.top = Math.max(box.top, ys[at]!);
  }
  return box;
}
