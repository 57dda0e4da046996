/** Small pictures of the objects in view, kept side by side on one canvas, from which drawing is quick. */

/** Pictures that are shown at the same time, at most. */
export const MOST_SHOWN = 200;

const SLOT = 96;
const COLUMNS = 16;
const SLOTS = COLUMNS * COLUMNS;
const AT_ONCE = 6;

interface Slot {
  number: number;
  width: number;
  height: number;
}

/** Fetches a picture; undefined where there is none. */
export type LoadPicture = (point: number, signal: AbortSignal) => Promise<Blob | undefined>;

export class Thumbnails {
  readonly #load: LoadPicture;
  readonly #ready: () => void;
  readonly #atlas = document.createElement("canvas");
  readonly #pen: CanvasRenderingContext2D | null;
  /** Those that are there, the one that was shown last at the end. */
  readonly #slots = new Map<number, Slot>();
  /** Those that have no picture. */
  readonly #without = new Set<number>();
  readonly #running = new Map<number, AbortController>();
  #wanted: number[] = [];

  constructor(load: LoadPicture, ready: () => void) {
    this.#load = load;
    this.#ready = ready;
    this.#atlas.width = this.#atlas.height = SLOT * COLUMNS;
    this.#pen = this.#atlas.getContext("2d");
  }

  /** Say which pictures are in view, the most important first; others are not fetched any more. */
  want(points: number[]): void {
    this.#wanted = points.slice(0, MOST_SHOWN);
    const wanted = new Set(this.#wanted);
    for (const [point, stop] of this.#running) if (!wanted.has(point)) stop.abort();
    this.#fetch();
  }

  /** Whether the picture of a point is there. */
  shows(point: number): boolean {
    return this.#slots.has(point);
  }

  /** Draw a picture around a place; false where it is not there. */
  draw(pen: CanvasRenderingContext2D, point: number, x: number, y: number, size: number): boolean {
    const slot = this.#slots.get(point);
    if (slot === undefined) return false;
    this.#slots.delete(point);
    this.#slots.set(point, slot);
    const left = (slot.number % COLUMNS) * SLOT;
    const top = Math.floor(slot.number / COLUMNS) * SLOT;
    const factor = size / SLOT;
    const width = slot.width * factor;
    const height = slot.height * factor;
    pen.drawImage(this.#atlas, left, top, slot.width, slot.height, x - width / 2, y - height / 2, width, height);
    return true;
  }

  /** Stop fetching. */
  close(): void {
    this.#wanted = [];
    for (const stop of this.#running.values()) stop.abort();
  }

  #fetch(): void {
    for (const point of this.#wanted) {
      if (this.#running.size >= AT_ONCE) return;
      if (this.#slots.has(point) || this.#without.has(point) || this.#running.has(point)) continue;
      const stop = new AbortController();
      this.#running.set(point, stop);
      void this.#fetchOne(point, stop.signal);
    }
  }

  async #fetchOne(point: number, signal: AbortSignal): Promise<void> {
    try {
      const picture = await this.#load(point, signal);
      const bitmap = picture && (await createImageBitmap(picture));
      if (bitmap) this.#keep(point, bitmap);
      else this.#without.add(point);
    } catch {
      // A damaged picture, or one that cannot be fetched now; the point stays a point.
      if (!signal.aborted) this.#without.add(point);
    } finally {
      this.#running.delete(point);
      this.#fetch();
    }
  }

  #keep(point: number, bitmap: ImageBitmap): void {
    const factor = SLOT / Math.max(bitmap.width, bitmap.height, 1);
    const width = Math.max(1, Math.round(bitmap.width * factor));
    const height = Math.max(1, Math.round(bitmap.height * factor));
    const number = this.#slots.size < SLOTS ? this.#slots.size : this.#free();
    const left = (number % COLUMNS) * SLOT;
    const top = Math.floor(number / COLUMNS) * SLOT;
    if (this.#pen) {
      this.#pen.imageSmoothingQuality = "high";
      this.#pen.clearRect(left, top, SLOT, SLOT);
      this.#pen.drawImage(bitmap, left, top, width, height);
    }
    bitmap.close();
    this.#slots.set(point, { number, width, height });
    this.#ready();
  }

  /** Take the slot of the picture that was shown longest ago. */
  #free(): number {
    const [oldest, slot] = this.#slots.entries().next().value!;
    this.#slots.delete(oldest);
    return slot.number;
  }
}
