/** How large a picture may be, by what the server says of its limits. */

import { count } from "./parts/text";
import type { EmbedderInfoJson, ServerLimitsJson } from "./types";

/** Of what is in a request beside a picture. */
const FRAME_BYTES = 64 * 1024;

/** The bytes that a picture may have so that one request carries it and one of the embedders reads it. */
export function mostPictureBytes({ maxRequestBytes }: ServerLimitsJson, embedders: EmbedderInfoJson[]): number {
  // Base64 has four characters for three bytes.
  const carried = maxRequestBytes ? Math.floor(((Number(maxRequestBytes) - FRAME_BYTES) * 3) / 4) : Infinity;
  const read = embedders.map(({ limits }) => Number(limits?.maxImageBytes) || Infinity);
  return Math.min(carried, read.length > 0 ? Math.max(...read) : Infinity);
}

/** Why a picture is not sent. */
export function tooLarge(bytes: number, most: number): string {
  return `has ${count(bytes)} bytes, and the server takes at most ${count(most)}; make the picture smaller`;
}
