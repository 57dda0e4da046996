/** The map on a canvas: drawing, and moving by mouse, touch and keyboard. A frame is drawn only when something has changed. */

import { onThemeChange, themeColour } from "../theme";
import { NONE, type Colouring } from "./colours";
import { nameOf, type MapData, type Placed } from "./load";
import { Places, type Box } from "./places";
import { Stamps } from "./stamps";
import { MOST_SHOWN, Thumbnails, type LoadPicture } from "./thumbnails";

const FRAME = 0.06;
const MOST_ZOOM = 400;
const REACH = 14;
const STILL_MS = 150;
const STEP = 80;
const LABEL_CHARACTERS = 60;

/** What the page wants to hear. */
export interface Listeners {
  /** Somebody chose an object, or none. */
  onSelect: (point: number | undefined) => void;
  /** The map has come to rest: the objects in view, those in the middle first. */
  onView: (points: number[]) => void;
}

/** What is drawn. */
export interface Scene {
  data: MapData;
  colouring: Colouring;
  /** Fetches the pictures of objects; undefined where the collection has none. */
  loadPicture: LoadPicture | undefined;
}

interface Inks {
  ink: string;
  quiet: string;
  surface: string;
  accent: string;
  danger: string;
}

export class MapCanvas {
  readonly #canvas: HTMLCanvasElement;
  readonly #pen: CanvasRenderingContext2D;
  readonly #listeners: Listeners;
  readonly #ends = new AbortController();
  readonly #watch: ResizeObserver;
  readonly #pointers = new Map<number, { x: number; y: number }>();
  #scene: Scene | undefined;
  #places = new Places(new Float32Array(), new Float32Array());
  #thumbnails: Thumbnails | undefined;
  #view = { x: 0, y: 0, scale: 1 };
  #fit = 1;
  #size = { width: 0, height: 0, ratio: 1 };
  #inks: Inks = readInks();
  #stamps: { key: string; stamps: Stamps } | undefined;
  #layer: ImageData | undefined;
  #selected: number | undefined;
  #hovered: number | undefined;
  #moved = 0;
  #frame = 0;
  #still: ReturnType<typeof setTimeout> | undefined;

  constructor(canvas: HTMLCanvasElement, listeners: Listeners) {
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    if (!pen) throw new Error("this browser draws on no canvas");
    this.#canvas = canvas;
    this.#pen = pen;
    this.#listeners = listeners;
    this.#watch = new ResizeObserver(() => this.#resize());
    this.#watch.observe(canvas);
    this.#listen();
    this.#resize();
  }

  /** Draw something else. The view stays where the points stay, unless a new query would be out of it. */
  show(scene: Scene): void {
    const before = this.#scene;
    const same = before !== undefined && sameIds(before.data.ids, scene.data.ids) && samePoints(before.data, scene.data);
    this.#scene = scene;
    if (!same) {
      this.#places = new Places(scene.data.xs, scene.data.ys);
      this.#selected = this.#hovered = undefined;
      this.#listeners.onSelect(undefined);
      this.#thumbnails?.close();
      const { loadPicture } = scene;
      this.#thumbnails = loadPicture && new Thumbnails(loadPicture, () => this.#draw());
      this.fit();
    } else if (scene.data.placed.some((each) => !before.data.placed.some((other) => isSamePlace(each, other)) && !isWithin(each, this.#seen()))) {
      this.fit();
    }
    this.#change();
  }

  /** Show everything, with the queries. */
  fit(): void {
    const { left, right, bottom, top } = this.#whole();
    this.#fit = this.#fitting();
    this.#view = { x: (left + right) / 2, y: (bottom + top) / 2, scale: this.#fit };
    this.#change();
  }

  /** Make everything larger or smaller around a place of the canvas; around its middle where none is given. */
  zoom(factor: number, at = { x: this.#size.width / 2, y: this.#size.height / 2 }): void {
    const before = this.#toMap(at.x, at.y);
    this.#view.scale = Math.max(this.#fit / 2, Math.min(this.#fit * MOST_ZOOM, this.#view.scale * factor));
    const after = this.#toMap(at.x, at.y);
    this.#move(before.x - after.x, before.y - after.y);
  }

  /** Choose an object, and bring it into view. */
  select(point: number | undefined): void {
    this.#selected = point;
    if (point !== undefined && this.#scene) {
      const { x, y } = this.#toCanvas(this.#scene.data.xs[point]!, this.#scene.data.ys[point]!);
      const seen = x > 0 && y > 0 && x < this.#size.width && y < this.#size.height;
      if (!seen) this.#view = { ...this.#view, x: this.#scene.data.xs[point]!, y: this.#scene.data.ys[point]! };
    }
    this.#listeners.onSelect(point);
    this.#change();
  }

  /** Stop listening. */
  close(): void {
    this.#ends.abort();
    this.#watch.disconnect();
    this.#thumbnails?.close();
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#still);
  }

  #whole(): Box {
    const box = { ...this.#places.bounds };
    for (const { x, y } of this.#scene?.data.placed ?? []) {
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x);
      box.bottom = Math.min(box.bottom, y);
      box.top = Math.max(box.top, y);
    }
    return box;
  }

  #fitting(): number {
    const { left, right, bottom, top } = this.#whole();
    const room = 1 - 2 * FRAME;
    const { width, height } = this.#size;
    return Math.min((width * room) / (right - left || 1e-6), (height * room) / (top - bottom || 1e-6)) || 1;
  }

  #toMap(x: number, y: number): { x: number; y: number } {
    const { width, height } = this.#size;
    return { x: this.#view.x + (x - width / 2) / this.#view.scale, y: this.#view.y - (y - height / 2) / this.#view.scale };
  }

  #toCanvas(x: number, y: number): { x: number; y: number } {
    const { width, height } = this.#size;
    return { x: width / 2 + (x - this.#view.x) * this.#view.scale, y: height / 2 - (y - this.#view.y) * this.#view.scale };
  }

  #move(dx: number, dy: number): void {
    // Some of the points stay in view.
    const { left, right, bottom, top } = this.#whole();
    this.#view.x = Math.max(left, Math.min(right, this.#view.x + dx));
    this.#view.y = Math.max(bottom, Math.min(top, this.#view.y + dy));
    this.#change();
  }

  #seen(margin = 0): Box {
    const low = this.#toMap(-margin, this.#size.height + margin);
    const high = this.#toMap(this.#size.width + margin, -margin);
    return { left: low.x, right: high.x, bottom: low.y, top: high.y };
  }

  /** Draw, and tell the page once nothing has changed for a moment. */
  #change(): void {
    this.#draw();
    this.#canvas.ariaBusy = "true";
    clearTimeout(this.#still);
    this.#still = setTimeout(() => {
      if (!this.#scene) return;
      const points = this.#places.byDistance(this.#places.within(this.#seen()), this.#view.x, this.#view.y);
      if (points.length <= MOST_SHOWN) this.#thumbnails?.want(points);
      this.#listeners.onView(points);
      this.#canvas.ariaBusy = "false";
    }, STILL_MS);
  }

  #draw(): void {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#paint();
    });
  }

  #resize(): void {
    const { width, height } = this.#canvas.getBoundingClientRect();
    const ratio = Math.min(2, devicePixelRatio || 1);
    const whole = this.#view.scale === this.#fit;
    this.#size = { width, height, ratio };
    this.#canvas.width = Math.max(1, Math.round(width * ratio));
    this.#canvas.height = Math.max(1, Math.round(height * ratio));
    if (whole) this.fit();
    else this.#fit = this.#fitting();
    this.#change();
  }

  #paint(): void {
    const { width, height, ratio } = this.#size;
    const pen = this.#pen;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!this.#scene) {
      pen.clearRect(0, 0, width, height);
      return;
    }
    const points = this.#places.within(this.#seen(10));
    const size = this.#pictureSize(points.length);
    this.#paintPoints(points, size > 0);
    this.#paintLines();
    if (size > 0) for (const point of points) this.#paintPicture(point, size);
    this.#paintMarks(size);
  }

  #paintPoints(points: number[], pictures: boolean): void {
    const { data, colouring } = this.#scene!;
    const { width, height } = this.#canvas;
    const { ratio } = this.#size;
    if (this.#layer?.width !== width || this.#layer.height !== height) this.#layer = new ImageData(width, height);
    const image = new Uint32Array(this.#layer.data.buffer);
    image.fill(0);
    const stamps = this.#stampsOf(colouring);
    const scale = this.#view.scale * ratio;
    const left = width / 2 - this.#view.x * scale;
    const top = height / 2 + this.#view.y * scale;
    for (const point of points) {
      if (pictures && this.#thumbnails?.shows(point)) continue;
      stamps.stamp(image, width, height, colouring.of[point]!, left + data.xs[point]! * scale, top - data.ys[point]! * scale);
    }
    this.#pen.putImageData(this.#layer, 0, 0);
  }

  /** How large pictures are; 0 while there are too many for them. */
  #pictureSize(count: number): number {
    if (!this.#thumbnails || count === 0 || count > MOST_SHOWN) return 0;
    const { width, height } = this.#size;
    return Math.max(24, Math.min(96, 0.5 * Math.sqrt((width * height) / count)));
  }

  #paintPicture(point: number, size: number): void {
    const { data, colouring } = this.#scene!;
    const { x, y } = this.#toCanvas(data.xs[point]!, data.ys[point]!);
    const colour = colouring.palette[colouring.of[point]!] ?? NONE;
    if (!this.#thumbnails?.draw(this.#pen, point, x, y, size) || colouring.legend.length === 0 || colour === NONE) return;
    this.#pen.fillStyle = colour;
    this.#pen.fillRect(x - size / 2, y + size / 2, size, 3);
  }

  /** Lines from the queries to their nearest objects, under the pictures. */
  #paintLines(): void {
    const { data } = this.#scene!;
    const pen = this.#pen;
    pen.strokeStyle = this.#inks.quiet;
    pen.lineWidth = 1;
    for (const query of data.placed) {
      const from = this.#toCanvas(query.x, query.y);
      for (const point of query.nearest) {
        const to = this.#toCanvas(data.xs[point]!, data.ys[point]!);
        pen.beginPath();
        pen.moveTo(from.x, from.y);
        pen.lineTo(to.x, to.y);
        pen.stroke();
      }
    }
  }

  /** Rings around what is chosen or near, the queries, and the name of what the mouse is over. */
  #paintMarks(size: number): void {
    const { data } = this.#scene!;
    const radius = Math.max(this.#radius() + 4, size / 2 + 4);
    for (const query of data.placed) for (const point of query.nearest) this.#ring(point, radius, this.#inks.danger, 2);
    if (this.#hovered !== undefined) this.#ring(this.#hovered, radius, this.#inks.ink, 1.5);
    if (this.#selected !== undefined) this.#ring(this.#selected, radius + 2, this.#inks.accent, 3);
    for (const query of data.placed) this.#diamond(query.x, query.y, query.name);
    if (this.#hovered !== undefined) {
      const { x, y } = this.#toCanvas(data.xs[this.#hovered]!, data.ys[this.#hovered]!);
      this.#label(nameOf(data, this.#hovered), x, y - radius - 6);
    }
  }

  #ring(point: number, radius: number, colour: string, width: number): void {
    const { data } = this.#scene!;
    const { x, y } = this.#toCanvas(data.xs[point]!, data.ys[point]!);
    this.#pen.strokeStyle = colour;
    this.#pen.lineWidth = width;
    this.#pen.beginPath();
    this.#pen.arc(x, y, radius, 0, 2 * Math.PI);
    this.#pen.stroke();
  }

  #diamond(x: number, y: number, name: string): void {
    const at = this.#toCanvas(x, y);
    if (at.x < 0 || at.y < 0 || at.x > this.#size.width || at.y > this.#size.height) return;
    const pen = this.#pen;
    pen.beginPath();
    pen.moveTo(at.x, at.y - 10);
    pen.lineTo(at.x + 10, at.y);
    pen.lineTo(at.x, at.y + 10);
    pen.lineTo(at.x - 10, at.y);
    pen.closePath();
    pen.fillStyle = this.#inks.danger;
    pen.fill();
    pen.strokeStyle = this.#inks.surface;
    pen.lineWidth = 2;
    pen.stroke();
    this.#label(name, at.x, at.y - 16);
  }

  #label(text: string, x: number, y: number): void {
    const pen = this.#pen;
    const line = text.replace(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim();
    const shown = line.length > LABEL_CHARACTERS ? `${line.slice(0, LABEL_CHARACTERS)}…` : line;
    pen.font = "13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const width = pen.measureText(shown).width + 12;
    const middle = Math.max(width / 2 + 2, Math.min(this.#size.width - width / 2 - 2, x));
    const above = Math.max(13, y - 8);
    pen.fillStyle = this.#inks.surface;
    pen.fillRect(middle - width / 2, above - 11, width, 22);
    pen.strokeStyle = this.#inks.quiet;
    pen.lineWidth = 1;
    pen.strokeRect(middle - width / 2, above - 11, width, 22);
    pen.fillStyle = this.#inks.ink;
    pen.fillText(shown, middle, above);
  }

  /** The radius of a point: it grows with the zoom, but far less. */
  #radius(): number {
    const few = this.#scene && this.#scene.data.ids.length < 1000 ? 1.4 : 1;
    return Math.max(2, Math.min(8, Math.round(6 * few * Math.sqrt(Math.sqrt(this.#view.scale / this.#fit))) / 2));
  }

  #stampsOf({ palette }: Colouring): Stamps {
    const radius = this.#radius();
    const { ratio } = this.#size;
    const { quiet, surface } = this.#inks;
    const key = JSON.stringify([palette, radius, ratio, surface]);
    if (this.#stamps?.key !== key) {
      // A colour that is close to the background needs an outline that is not.
      const looks = palette.map((fill) => ({ fill, outline: isClose(fill, surface) ? quiet : surface }));
      this.#stamps = { key, stamps: new Stamps(looks, radius * ratio, ratio) };
    }
    return this.#stamps.stamps;
  }

  /** The object at a place of the canvas. */
  #at(x: number, y: number): number | undefined {
    const place = this.#toMap(x, y);
    const reach = Math.max(REACH, this.#pictureSize(this.#places.within(this.#seen()).length) / 2) / this.#view.scale;
    const near = this.#places.within({ left: place.x - reach, right: place.x + reach, bottom: place.y - reach, top: place.y + reach });
    return this.#places.byDistance(near, place.x, place.y)[0];
  }

  #listen(): void {
    const { signal } = this.#ends;
    const canvas = this.#canvas;
    const place = (event: MouseEvent) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    canvas.addEventListener("pointerdown", (event) => this.#press(event, place(event)), { signal });
    canvas.addEventListener("pointermove", (event) => this.#drag(event, place(event)), { signal });
    canvas.addEventListener("pointerup", (event) => this.#release(event, place(event)), { signal });
    canvas.addEventListener("pointercancel", (event) => this.#pointers.delete(event.pointerId), { signal });
    canvas.addEventListener("pointerleave", () => this.#hover(undefined), { signal });
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault(); // or the page would scroll
        const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
        this.zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * 0.002), place(event));
      },
      { signal, passive: false },
    );
    canvas.addEventListener("dblclick", (event) => this.zoom(2, place(event)), { signal });
    canvas.addEventListener("keydown", (event) => this.#pressKey(event), { signal });
    onThemeChange(() => {
      this.#inks = readInks();
      this.#draw();
    }, signal);
  }

  #press(event: PointerEvent, at: { x: number; y: number }): void {
    if (event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, at);
    if (this.#pointers.size === 1) this.#moved = 0;
  }

  #drag(event: PointerEvent, at: { x: number; y: number }): void {
    const before = this.#pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") this.#hover(this.#at(at.x, at.y));
      return;
    }
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, at);
    this.#moved += Math.hypot(at.x - before.x, at.y - before.y);
    if (!other) {
      this.#move((before.x - at.x) / this.#view.scale, (at.y - before.y) / this.#view.scale);
      return;
    }
    const middle = { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 };
    const apart = Math.hypot(before.x - other.x, before.y - other.y);
    this.#move((before.x - at.x) / 2 / this.#view.scale, (at.y - before.y) / 2 / this.#view.scale);
    if (apart > 0) this.zoom(Math.hypot(at.x - other.x, at.y - other.y) / apart, middle);
  }

  #release(event: PointerEvent, at: { x: number; y: number }): void {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (this.#pointers.size === 0 && this.#moved < 5) this.select(this.#at(at.x, at.y));
  }

  #hover(point: number | undefined): void {
    if (this.#hovered === point) return;
    this.#hovered = point;
    this.#canvas.classList.toggle("over", point !== undefined);
    this.#draw();
  }

  #pressKey(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = STEP / this.#view.scale;
    const actions: Record<string, () => void> = {
      ArrowLeft: () => this.#move(-step, 0),
      ArrowRight: () => this.#move(step, 0),
      ArrowUp: () => this.#move(0, step),
      ArrowDown: () => this.#move(0, -step),
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
      "0": () => this.fit(),
      Enter: () => this.#selectNext(1),
      n: () => this.#selectNext(1),
      p: () => this.#selectNext(-1),
      Escape: () => this.select(undefined),
    };
    // With Shift or Caps Lock a letter is the same letter.
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** Choose the object in the middle, or the one after or before the chosen one, by their distance to the middle. */
  #selectNext(step: number): void {
    const points = this.#places.byDistance(this.#places.within(this.#seen()), this.#view.x, this.#view.y);
    if (points.length === 0) return;
    const at = this.#selected === undefined ? -1 : points.indexOf(this.#selected);
    this.select(at < 0 ? points[0] : points[(at + step + points.length) % points.length]);
  }
}

/** Whether two colours are hard to tell apart: their contrast is less than 2. */
function isClose(colour: string, other: string): boolean {
  const [dark = 0, light = 0] = [luminance(colour), luminance(other)].sort((a, b) => a - b);
  return colour === NONE || (light + 0.05) / (dark + 0.05) < 2;
}

/** The relative luminance of #rrggbb or rgb(r, g, b), by WCAG. */
function luminance(colour: string): number {
  const parts = colour.startsWith("#") ? [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)) : (colour.match(/[\d.]+/g) ?? []).map(Number);
  const [red = 0, green = 0, blue = 0] = parts.map((each) => (each / 255 <= 0.04045 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function readInks(): Inks {
  const of = themeColour;
  return { ink: of("ink"), quiet: of("quiet"), surface: of("surface"), accent: of("accent"), danger: of("danger") };
}

function isSamePlace(a: Placed, b: Placed): boolean {
  return a.name === b.name && a.x === b.x && a.y === b.y;
}

function isWithin({ x, y }: Placed, { left, right, bottom, top }: Box): boolean {
  return x >= left && x <= right && y >= bottom && y <= top;
}

function sameIds(a: string[], b: string[]): boolean {
  return a.length === b.length && a.every((each, at) => each === b[at]);
}

function samePoints(a: MapData, b: MapData): boolean {
  return a.xs.every((each, at) => each === b.xs[at]) && a.ys.every((each, at) => each === b.ys[at]);
}
