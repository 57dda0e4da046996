/** Points as pixels. To write thousands of them into an image and show that once takes a fraction of the time of drawing each. */

/** How a point of a colour looks. */
export interface Look {
  fill: string;
  outline: string;
}

/** The pixels of a point of each colour. */
export class Stamps {
  readonly side: number;
  readonly #pixels: Uint32Array;
  readonly #row: number;

  /**
   * @param looks - one for each colour.
   * @param radius - of a point, in pixels of the screen.
   * @param line - how wide its outline is, in the same.
   */
  constructor(looks: Look[], radius: number, line: number) {
    this.side = Math.ceil(2 * (radius + line)) | 1;
    this.#row = this.side * Math.max(1, looks.length);
    const canvas = document.createElement("canvas");
    canvas.width = this.#row;
    canvas.height = this.side;
    const pen = canvas.getContext("2d", { willReadFrequently: true })!;
    looks.forEach(({ fill, outline }, at) => {
      pen.beginPath();
      pen.arc((at + 0.5) * this.side, this.side / 2, radius, 0, 2 * Math.PI);
      pen.fillStyle = fill;
      pen.fill();
      pen.strokeStyle = outline;
      pen.lineWidth = line;
      pen.stroke();
    });
    this.#pixels = new Uint32Array(pen.getImageData(0, 0, this.#row, this.side).data.buffer);
  }

  /** Write a point into an image of a width and a height, with its middle at a place. */
  stamp(image: Uint32Array, width: number, height: number, colour: number, x: number, y: number): void {
    const left = Math.round(x) - (this.side >> 1);
    const top = Math.round(y) - (this.side >> 1);
    const from = Math.max(0, -left);
    const to = Math.min(this.side, width - left);
    for (let row = Math.max(0, -top); row < this.side && top + row < height; row++) {
      let source = row * this.#row + colour * this.side + from;
      let target = (top + row) * width + left + from;
      for (let column = from; column < to; column++, source++, target++) {
        const pixel = this.#pixels[source]!;
        const alpha = pixel >>> 24;
        if (alpha === 255) image[target] = pixel;
        else if (alpha > 0) image[target] = over(pixel, alpha, image[target]!);
      }
    }
  }
}

/** Lay a pixel over another one. */
function over(pixel: number, alpha: number, below: number): number {
  const under = ((below >>> 24) * (255 - alpha)) / 255;
  const whole = alpha + under;
  const mix = (shift: number) => Math.round((((pixel >>> shift) & 255) * alpha + ((below >>> shift) & 255) * under) / whole);
  return ((Math.round(whole) << 24) | (mix(16) << 16) | (mix(8) << 8) | mix(0)) >>> 0;
}
