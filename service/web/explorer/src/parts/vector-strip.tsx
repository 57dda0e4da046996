import { useEffect, useRef } from "preact/hooks";

import { onThemeChange, themeColour } from "../theme";

const ROWS = 8;
const CELL = 6;

/**
 * The values of a vector as a strip of cells: one colour for those above zero, one for those below, strong where they are large.
 *
 * The order is that of the values, column by column, so two vectors can be compared by eye.
 */
export function VectorStrip({ values, label }: { values: Float32Array; label: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const shown = canvas.current;
    if (!shown) return undefined;
    const stop = new AbortController();
    draw(shown, values);
    onThemeChange(() => draw(shown, values), stop.signal);
    return () => stop.abort();
  }, [values]);
  return <canvas ref={canvas} class="strip" role="img" aria-label={label} />;
}

function draw(canvas: HTMLCanvasElement, values: Float32Array): void {
  const columns = Math.ceil(values.length / ROWS);
  canvas.width = columns * CELL;
  canvas.height = ROWS * CELL;
  const context = canvas.getContext("2d");
  if (!context) return;
  const largest = values.reduce((most, each) => Math.max(most, Math.abs(each)), 0) || 1;
  const [above, below] = [themeColour("accent"), themeColour("danger")];
  values.forEach((value, at) => {
    context.globalAlpha = Math.sqrt(Math.abs(value) / largest);
    context.fillStyle = value >= 0 ? above : below;
    context.fillRect(Math.floor(at / ROWS) * CELL, (at % ROWS) * CELL, CELL - 1, CELL - 1);
  });
}
