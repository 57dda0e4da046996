// Colours of a heat map: cividis, whose lightness grows evenly, also for people who see few colours.

const STOPS: readonly (readonly [number, number, number])[] = [
  [0, 34, 78],
  [18, 53, 112],
  [59, 73, 108],
  [87, 93, 109],
  [112, 113, 115],
  [138, 134, 120],
  [165, 156, 116],
  [195, 179, 105],
  [225, 204, 85],
  [254, 232, 56],
];

/** Returns the colour of a share from 0 to 1, and of a text that is read on it. */
export function colourOf(share: number): { background: string; text: string } {
  const place = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const at = Math.min(Math.floor(place), STOPS.length - 2);
  const [from, to] = [STOPS[at]!, STOPS[at + 1]!];
  const rgb = from.map((value, channel) => Math.round(value + (to[channel]! - value) * (place - at)));
  return { background: `rgb(${rgb.join(", ")})`, text: lightnessOf(rgb) > 0.179 ? "#000" : "#fff" };
}

/** Returns the relative luminance of WCAG; at 0.179 black and white have the same contrast. */
function lightnessOf(rgb: readonly number[]): number {
  const [red, green, blue] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
}
