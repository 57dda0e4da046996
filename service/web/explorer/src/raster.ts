/** Which files are shown as pictures: raster images by their first bytes, never by a name or by what somebody says of them. */

const KINDS: [type: string, at: number, mark: string][] = [
  ["image/png", 0, "\x89PNG\r\n\x1a\n"],
  ["image/jpeg", 0, "\xff\xd8\xff"],
  ["image/gif", 0, "GIF87a"],
  ["image/gif", 0, "GIF89a"],
  ["image/webp", 8, "WEBP"],
  ["image/avif", 4, "ftypavif"],
  ["image/avif", 4, "ftypavis"],
  ["image/bmp", 0, "BM"],
  ["image/tiff", 0, "II*\0"],
  ["image/tiff", 0, "MM\0*"],
];

/** What browsers show of them. */
const SHOWN = new Set(["image/avif", "image/bmp", "image/gif", "image/jpeg", "image/png", "image/webp"]);

/** The media type of a raster image; undefined for everything else, SVG and HTML among it. */
export function rasterType(bytes: Uint8Array): string | undefined {
  return KINDS.find(([, at, mark]) => [...mark].every((each, index) => bytes[at + index] === each.charCodeAt(0)))?.[0];
}

/** A picture for <img>, with the type that its bytes have; undefined if it is not one that browsers show. */
export function showable(bytes: Uint8Array<ArrayBuffer>): Blob | undefined {
  const type = rasterType(bytes);
  return type !== undefined && SHOWN.has(type) ? new Blob([bytes], { type }) : undefined;
}

/** What file choosers offer: all that the server reads. */
export const ACCEPTED = "image/avif,image/bmp,image/gif,image/jpeg,image/png,image/tiff,image/webp";
