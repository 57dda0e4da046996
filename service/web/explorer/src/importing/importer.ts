// An import: pictures go out in calls of bounded size, a few in flight. What fails for a passing reason is sent again.

import { type Failure, messageOf, passes } from "../item-failure";
import { Pace } from "./pace";

/** One picture to import. Its file is read when its turn comes, and not kept. */
export interface Picture<F = Blob> {
  readonly id: string;
  readonly path: string;
  readonly file: F;
  readonly size: number;
}

/** A picture with its file's content in base64. */
export interface Loaded<F = Blob> {
  readonly picture: Picture<F>;
  readonly content: string;
}

/** Where pictures go. Both throw a Failure. */
export interface Target<F = Blob> {
  /** Returns which of some ids are stored. */
  stored(ids: readonly string[], signal: AbortSignal): Promise<ReadonlySet<string>>;
  /** Sends pictures, and returns for each in order why it is not stored, or null. */
  send(pictures: readonly Loaded<F>[], signal: AbortSignal): Promise<readonly (Failure | null)[]>;
  /** Returns a file's content in base64; throws if it cannot be read. */
  read(file: F): Promise<string>;
}

export interface Bounds {
  /** Pictures in a call. */
  readonly maxObjects: number;
  /** Bytes of a call's pictures in base64; only a call with one picture may be larger. */
  readonly targetBytes: number;
  /** Bytes of a picture in base64 that no call takes. */
  readonly maxBytes: number;
}

/** Time, which tests give. */
export interface Clock {
  now(): number;
  /** Waits, or less if the signal is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export type Phase = "ready" | "running" | "waiting" | "stopped" | "done";

export interface Progress {
  readonly phase: Phase;
  readonly total: number;
  readonly stored: number;
  readonly skipped: number;
  readonly failed: number;
  readonly left: number;
  readonly perSecond: number;
  /** Seconds until all are done; null while that is not known. */
  readonly leftS: number | null;
  /** Why it stopped or waits. */
  readonly trouble: Failure | null;
  /** When the next try begins, by the clock. */
  readonly resumesAt: number;
}

export const IN_FLIGHT = 3;
// Ids that one call asks for.
const ASKED = 200;
const LEAST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
// A picture that fails so often for passing reasons, while calls succeed, is left alone.
const MAX_TRIES = 8;

export class Importer<F = Blob> {
  /** Why pictures are not stored, by their position. */
  readonly failures = new Map<number, Failure>();

  private phase: Phase = "ready";
  private stored = 0;
  private skipped = 0;
  private trouble: Failure | null = null;
  private resumesAt = 0;
  private waits = 0;
  // Positions of those that wait to be looked up, the next one last, and of those that wait to be sent.
  private unknown: number[];
  private ready: number[] = [];
  private tries = new Map<number, number>();
  private maxObjects: number;
  private targetBytes: number;
  private aborting = new AbortController();
  private waking = new AbortController();
  private taking: Promise<unknown> = Promise.resolve();
  private ended: Promise<void> = Promise.resolve();
  private readonly pace = new Pace();
  private readonly listeners = new Set<() => void>();

  constructor(
    readonly pictures: readonly Picture<F>[],
    private readonly target: Target<F>,
    private readonly bounds: Bounds,
    private readonly skipStored: boolean,
    private readonly clock: Clock = realClock,
  ) {
    this.unknown = pictures.map((_, at) => at).reverse();
    this.maxObjects = bounds.maxObjects;
    this.targetBytes = bounds.targetBytes;
  }

  /** Calls a listener after every change, and returns what ends that. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  get progress(): Progress {
    const failed = this.failures.size;
    const left = this.pictures.length - this.stored - this.skipped - failed;
    const perSecond = this.pace.perSecond;
    return {
      phase: this.phase,
      total: this.pictures.length,
      stored: this.stored,
      skipped: this.skipped,
      failed,
      left,
      perSecond,
      leftS: perSecond > 0 ? left / perSecond : null,
      trouble: this.trouble,
      resumesAt: this.resumesAt,
    };
  }

  get running(): boolean {
    return this.phase === "running" || this.phase === "waiting";
  }

  /** Starts or goes on, and returns when the import has ended or stopped. */
  async start(): Promise<void> {
    await this.ended;
    if (this.running) return;
    this.aborting = new AbortController();
    this.trouble = null;
    this.resumesAt = this.waits = 0;
    this.pace.reset(this.clock.now(), this.stored + this.failures.size);
    this.enter("running");
    const { signal } = this.aborting;
    this.ended = this.run(signal);
    await this.ended;
  }

  /** Stops: calls in flight are given up, and their pictures are sent again when the import goes on. */
  stop(): void {
    if (!this.running) return;
    this.aborting.abort();
    this.waking.abort();
    this.enter("stopped");
  }

  /** Ends a wait before its time. */
  tryNow(): void {
    this.resumesAt = 0;
    this.waking.abort();
  }

  /** Lets the pictures that failed wait again. */
  retryFailed(): void {
    for (const at of this.failures.keys()) this.ready.push(at);
    this.failures.clear();
    this.tries.clear();
    if (this.phase === "done") this.phase = "ready";
    this.changed();
  }

  private async run(signal: AbortSignal): Promise<void> {
    await Promise.all(Array.from({ length: IN_FLIGHT }, () => this.work(signal)));
    if (!signal.aborted) this.enter("done");
  }

  private async work(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.wait(signal);
      const chunk = await this.attempt(signal, () => this.take(signal));
      if (signal.aborted) {
        this.ready.unshift(...(chunk ?? []));
        return;
      }
      if (chunk === undefined) continue;
      if (chunk.length === 0) return;
      await this.deliver(chunk, signal);
    }
  }

  /** Waits while nothing should be sent. */
  private async wait(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.clock.now() < this.resumesAt) {
      this.enter("waiting");
      if (this.waking.signal.aborted) this.waking = new AbortController();
      await this.clock.sleep(this.resumesAt - this.clock.now(), this.waking.signal);
    }
    if (!signal.aborted && this.phase === "waiting") {
      this.pace.reset(this.clock.now(), this.stored + this.failures.size);
      this.enter("running");
    }
  }

  /** Does something that may fail as a whole; returns undefined if it did. */
  private async attempt<T>(signal: AbortSignal, what: () => Promise<T>): Promise<T | undefined> {
    try {
      return await what();
    } catch (error) {
      if (!signal.aborted) this.suffer(asFailure(error));
      return undefined;
    }
  }

  /** Waits before the next call, or stops if the same would happen again. */
  private suffer(failure: Failure): void {
    this.trouble = failure;
    if (!passes(failure)) {
      this.stop();
      return;
    }
    const now = this.clock.now();
    // The calls in flight fail together: that counts once.
    if (now >= this.resumesAt) this.waits++;
    const wait = Math.min(LEAST_WAIT_MS * 2 ** Math.min(this.waits - 1, 10), LONGEST_WAIT_MS);
    this.resumesAt = Math.max(this.resumesAt, now + Math.max(wait, failure.retryDelayMs ?? 0));
    this.changed();
  }

  /** Returns the positions of the next call's pictures; none if there are no more. One worker takes at a time. */
  private take(signal: AbortSignal): Promise<number[]> {
    const taken = this.taking.then(() => this.fill(signal));
    this.taking = taken.catch(() => undefined);
    return taken;
  }

  private async fill(signal: AbortSignal): Promise<number[]> {
    while (this.ready.length === 0 && this.unknown.length > 0 && !signal.aborted) {
      await this.lookUp(this.unknown.splice(-ASKED).reverse(), signal);
    }
    const chunk: number[] = [];
    let bytes = 0;
    while (this.ready.length > 0 && chunk.length < this.maxObjects) {
      const at = this.ready[0]!;
      const size = base64Bytes(this.pictures[at]!.size);
      const refusal = this.refusal(at);
      if (refusal === null && chunk.length > 0 && bytes + size > this.targetBytes) break;
      this.ready.shift();
      if (refusal !== null) {
        this.fail(at, refusal);
        continue;
      }
      bytes += size;
      chunk.push(at);
    }
    return chunk;
  }

  private async lookUp(positions: number[], signal: AbortSignal): Promise<void> {
    let stored: ReadonlySet<string> = new Set();
    try {
      if (this.skipStored) stored = await this.target.stored(positions.map((at) => this.pictures[at]!.id), signal);
    } catch (error) {
      this.unknown.push(...positions.reverse());
      throw error;
    }
    for (const at of positions) {
      if (stored.has(this.pictures[at]!.id)) this.skipped++;
      else this.ready.push(at);
    }
    this.changed();
  }

  private refusal(at: number): Failure | null {
    const { size } = this.pictures[at]!;
    if (size === 0) return unsent("the file is empty");
    if (base64Bytes(size) <= this.bounds.maxBytes) return null;
    const most = Math.floor((this.bounds.maxBytes * 3) / 4);
    return unsent(`the file has ${size} bytes, and one request carries at most ${most}; make the picture smaller`);
  }

  private async deliver(chunk: number[], signal: AbortSignal): Promise<void> {
    const loaded = new Map<number, Loaded<F>>();
    for (const at of chunk) {
      const picture = this.pictures[at]!;
      try {
        loaded.set(at, { picture, content: await this.target.read(picture.file) });
      } catch (error) {
        this.fail(at, unsent(`the file cannot be read: ${messageOf(error)}`));
      }
    }
    const positions = [...loaded.keys()];
    if (positions.length === 0) return;
    if (signal.aborted) {
      this.ready.unshift(...positions);
      return;
    }
    try {
      const results = await this.target.send([...loaded.values()], signal);
      if (results.length !== positions.length) {
        throw { ...NO_FAILURE, message: `the server answered ${results.length} results for ${positions.length} pictures` };
      }
      this.settle(positions, results);
    } catch (error) {
      this.giveBack(positions, asFailure(error), signal);
    }
  }

  private settle(positions: number[], results: readonly (Failure | null)[]): void {
    let again: Failure | null = null;
    for (const [index, at] of positions.entries()) {
      const failure = results[index] ?? null;
      if (failure === null) {
        this.stored++;
        continue;
      }
      const tries = (this.tries.get(at) ?? 0) + 1;
      if (passes(failure) && tries < MAX_TRIES) {
        this.tries.set(at, tries);
        this.ready.push(at);
        again = failure;
      } else {
        this.fail(at, failure);
      }
    }
    this.pace.add(this.clock.now(), this.stored + this.failures.size);
    if (again !== null) {
      this.suffer(again);
      return;
    }
    this.waits = 0;
    if (this.clock.now() >= this.resumesAt) this.trouble = null;
    this.changed();
  }

  /** Lets a call's pictures wait again; one that no call takes fails. */
  private giveBack(positions: number[], failure: Failure, signal: AbortSignal): void {
    const tooMuch = failure.code === "resource_exhausted" && failure.retryDelayMs === undefined;
    const tooLong = failure.code === "deadline_exceeded";
    if (positions.length === 1 && (tooMuch || tooLong) && !signal.aborted) {
      this.fail(positions[0]!, failure);
      return;
    }
    this.ready.unshift(...positions);
    if (signal.aborted) return;
    if (tooMuch || tooLong) {
      this.maxObjects = Math.max(1, Math.floor(positions.length / 2));
      this.targetBytes /= 2;
    }
    if (!tooMuch) this.suffer(failure);
  }

  private fail(at: number, failure: Failure): void {
    this.failures.set(at, failure);
    this.changed();
  }

  private enter(phase: Phase): void {
    this.phase = phase;
    this.changed();
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}

const NO_FAILURE: Failure = { code: "internal", reason: "", message: "", retryDelayMs: undefined };

function unsent(message: string): Failure {
  return { ...NO_FAILURE, code: "invalid_argument", message };
}

function asFailure(error: unknown): Failure {
  const failure = error as Partial<Failure> | null;
  if (typeof failure?.code === "string" && typeof failure.message === "string") {
    const { code, reason = "", message, retryDelayMs } = failure as Failure;
    return { code, reason, message, retryDelayMs };
  }
  return { ...NO_FAILURE, message: messageOf(error) };
}

/** Returns the length of some bytes in base64. */
export function base64Bytes(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}

export const realClock: Clock = {
  now: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((done) => {
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        done();
      });
    }),
};
