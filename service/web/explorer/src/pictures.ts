/** Pictures of objects, fetched a few at a time and kept for a while. */

import { ApiError, call } from "./api";
import { fromBase64 } from "./base64";
import { passes } from "./item-failure";
import { showable } from "./raster";
import type { GetObjectRequestJson, GetObjectResponseJson } from "./types";

const AT_ONCE = 6;
const KEPT_BYTES = 64 * 1024 * 1024;
const KEPT_MS = 120_000;
const TRIES = 4;
const PAUSE_MS = 2000;

/** Which picture. */
export interface PictureKey {
  collection: string;
  tenant?: string | undefined;
  id: string;
  /** The blob property. */
  property: string;
  /** A small property to fetch with it, because the API returns all of them where none is named. */
  beside?: string | undefined;
}

/** A picture, or why there is nothing to show. */
export type Found = { picture: Blob } | { missing: string };

interface Kept {
  found: Found;
  bytes: number;
  at: number;
}

const kept = new Map<string, Kept>();
let keptBytes = 0;
let running = 0;
const waiting: (() => void)[] = [];

/** Fetch a picture, when it is its turn; again after a while where the server is busy or away. */
export async function fetchPicture(key: PictureKey, signal: AbortSignal): Promise<Found> {
  const name = JSON.stringify([key.collection, key.tenant, key.id, key.property]);
  const known = kept.get(name);
  if (known && performance.now() - known.at < KEPT_MS) return known.found;
  for (let left = TRIES - 1; ; left--) {
    try {
      const found = await loadInTurn(key, signal);
      keep(name, found);
      return found;
    } catch (error) {
      if (left === 0 || !(error instanceof ApiError) || !passes(error)) throw error;
      await pause(error.retryDelayMs ?? PAUSE_MS, signal);
    }
  }
}

async function loadInTurn(key: PictureKey, signal: AbortSignal): Promise<Found> {
  await turn(signal);
  try {
    return await load(key, signal);
  } finally {
    running--;
    waiting.shift()?.();
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}

/** Forget the pictures of all objects, as after an import or with another key. */
export function forgetPictures(): void {
  kept.clear();
  keptBytes = 0;
}

async function load(key: PictureKey, signal: AbortSignal): Promise<Found> {
  const { response } = await call<GetObjectRequestJson, GetObjectResponseJson>(
    "ObjectService",
    "GetObject",
    {
      collection: key.collection,
      id: key.id,
      ...(key.tenant ? { scope: { tenant: key.tenant } } : {}),
      output: { images: [key.property], ...(key.beside ? { properties: [key.beside] } : {}) },
    },
    { signal, ask: false },
  );
  return toPicture(response.object?.images?.[key.property]?.content);
}

/** The picture in the content of an Image. */
export function toPicture(content: string | undefined): Found {
  if (!content) return { missing: "no picture" };
  const picture = showable(fromBase64(content));
  return picture ? { picture } : { missing: "not a picture that browsers show" };
}

async function turn(signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (running >= AT_ONCE) {
    await new Promise<void>((resolve, reject) => {
      waiting.push(resolve);
      signal.addEventListener("abort", () => {
        const at = waiting.indexOf(resolve);
        if (at >= 0) {
          waiting.splice(at, 1);
          reject(signal.reason as Error);
        }
      });
    });
  }
  running++;
}

function keep(name: string, found: Found): void {
  const bytes = "picture" in found ? found.picture.size : 0;
  keptBytes += bytes - (kept.get(name)?.bytes ?? 0);
  kept.delete(name);
  kept.set(name, { found, bytes, at: performance.now() });
  for (const [oldest, each] of kept) {
    if (keptBytes <= KEPT_BYTES) break;
    kept.delete(oldest);
    keptBytes -= each.bytes;
  }
}
