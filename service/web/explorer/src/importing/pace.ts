// How fast an import goes.

const WINDOW_MS = 30_000;
const STEP_MS = 250;

/** Measures a rate over the last half minute. */
export class Pace {
  private samples: { at: number; count: number }[] = [];

  /** Starts again, after a pause. */
  reset(at: number, count: number): void {
    this.samples = [{ at, count }];
  }

  /** Notes that a count was reached at a time, in milliseconds. */
  add(at: number, count: number): void {
    const last = this.samples.at(-1);
    if (this.samples.length > 1 && last !== undefined && at - this.samples.at(-2)!.at < STEP_MS) this.samples.pop();
    this.samples.push({ at, count });
    while (this.samples.length > 2 && at - this.samples[1]!.at > WINDOW_MS) this.samples.shift();
  }

  /** Returns how many come in a second; 0 before it is known. */
  get perSecond(): number {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (first === undefined || last === undefined || last.at <= first.at) return 0;
    return ((last.count - first.count) * 1000) / (last.at - first.at);
  }
}
