/** A picture that somebody gives to search by, or to place on a map. */

import { toBase64 } from "./base64";
import { short } from "./parts/text";
import { rasterType, showable } from "./raster";

/** A picture as a query; it stays in the memory of the page. */
export interface QueryPicture {
  name: string;
  /** In base64. */
  content: string;
  /** What <img> may show of it; undefined if browsers do not show its format. */
  shown: Blob | undefined;
}

/** Read a file as a query; throws if it is not a picture that the server reads. */
export async function readPicture(file: File): Promise<QueryPicture> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes.length === 0) throw new Error(`${short(file.name)} is empty.`);
  if (rasterType(bytes) === undefined) {
    throw new Error(`${short(file.name)} is not a picture that the server reads. It reads JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF.`);
  }
  return { name: file.name, content: await toBase64(file), shown: showable(bytes) };
}
