// The vectors of texts and pictures by one embedder, in calls of bounded size; what is known is not asked for again.

import { toFloats } from "../base64";
import { readFailure } from "../item-failure";
import type { EmbedResultJson } from "../types";

export type Kind = "text" | "picture";

/** Something to embed. */
export interface Item {
  /** The same for the same content. */
  readonly key: string;
  readonly kind: Kind;
  /** Bytes that it takes in a call. */
  readonly bytes: number;
}

/** What became of an item. */
export type Outcome = { readonly vector: Float32Array } | { readonly failure: string };

export interface CallBounds {
  readonly maxInputs: number;
  readonly maxBytes: number;
}

/** Returns items in groups, each of which one call takes. */
export function groups<I extends Item>(items: readonly I[], bounds: CallBounds): I[][] {
  const all: I[][] = [];
  let bytes = 0;
  for (const item of items) {
    const open = all.at(-1);
    if (open === undefined || open.length >= bounds.maxInputs || bytes + item.bytes > bounds.maxBytes) {
      all.push([item]);
      bytes = item.bytes;
    } else {
      open.push(item);
      bytes += item.bytes;
    }
  }
  return all;
}

/** Vectors by embedder, purpose and content. */
export class Vectors {
  private readonly known = new Map<string, Float32Array>();

  constructor(private readonly most: number) {}

  /** Returns an item's vector, or undefined if it is not known. */
  get(place: string, item: Item): Float32Array | undefined {
    return this.known.get(keyOf(place, item));
  }

  set(place: string, item: Item, vector: Float32Array): void {
    this.known.set(keyOf(place, item), vector);
    // The oldest ones go first.
    for (const key of this.known.keys()) {
      if (this.known.size <= this.most) break;
      this.known.delete(key);
    }
  }
}

function keyOf(place: string, item: Item): string {
  return JSON.stringify([place, item.kind, item.key]);
}

/**
 * Embeds items and tells of each what became of it. Several of one content are sent once.
 *
 * @param place names what makes the vectors: the embedder and the purpose.
 * @param send makes one call.
 * @param tell is called for each item.
 * @param report is called after each call.
 */
export async function embedAll<I extends Item>(
  items: readonly I[],
  place: string,
  vectors: Vectors,
  bounds: CallBounds,
  send: (items: readonly I[]) => Promise<readonly EmbedResultJson[]>,
  tell: (key: string, outcome: Outcome) => void,
  report: () => void = () => undefined,
): Promise<void> {
  const asked = new Map<string, I>();
  for (const item of items) {
    const vector = vectors.get(place, item);
    if (vector !== undefined) tell(item.key, { vector });
    else asked.set(item.key, item);
  }
  for (const group of groups([...asked.values()], bounds)) {
    const results = await send(group);
    for (const [at, item] of group.entries()) {
      const outcome = outcomeOf(results[at]);
      if ("vector" in outcome) vectors.set(place, item, outcome.vector);
      tell(item.key, outcome);
    }
    report();
  }
}

function outcomeOf(result: EmbedResultJson | undefined): Outcome {
  const data = result?.embedding?.vector?.data;
  if (data) return { vector: toFloats(data) };
  return { failure: readFailure(result?.error).message };
}
