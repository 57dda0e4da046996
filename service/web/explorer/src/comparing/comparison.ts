/** A comparison: texts and pictures embedded by one or two embedders, shown as far as it has come. */

import { useEffect, useRef, useState } from "preact/hooks";

import { call, isCancelled } from "../api";
import { toBase64 } from "../base64";
import { base64Bytes } from "../importing/importer";
import { sha1 } from "../importing/uuid5";
import { mostPictureBytes, tooLarge } from "../picture-size";
import { showable } from "../raster";
import type { EmbedderInfoJson, EmbedInputsRequestJson, EmbedInputsResponseJson, InputJson, PurposeJson, ServerLimitsJson } from "../types";
import { cosines, type Matrix } from "./cosines";
import { embedAll, type Item, type Outcome, Vectors } from "./embed";

export const MAX_TEXTS = 50;
export const MAX_PICTURES = 100;
const CALL_INPUTS = 32;
const CALL_BYTES = 8 * 1024 * 1024;
const KEPT_VECTORS = 1000;

export interface TextItem extends Item {
  readonly kind: "text";
}

export interface PictureItem extends Item {
  readonly kind: "picture";
  readonly name: string;
  readonly blob: Blob;
  /** What an <img> may show of it, if anything. */
  readonly shown: Blob | undefined;
}

type AnyItem = TextItem | PictureItem;

/** What one embedder made of the items. */
export interface Side {
  readonly embedder: EmbedderInfoJson;
  readonly reads: Readonly<Record<Item["kind"], boolean>>;
  readonly texts: readonly (Outcome | undefined)[];
  readonly pictures: readonly (Outcome | undefined)[];
  readonly matrix: Matrix;
}

export interface Comparison {
  readonly texts: readonly TextItem[];
  readonly pictures: readonly PictureItem[];
  readonly sides: readonly Side[];
}

export interface Plan {
  readonly texts: readonly TextItem[];
  readonly pictures: readonly PictureItem[];
  readonly embedders: readonly EmbedderInfoJson[];
  /** Of the texts; pictures are always what is found. */
  readonly purpose: PurposeJson;
  readonly limits: ServerLimitsJson;
}

export function textItem(text: string): TextItem {
  return { key: text, kind: "text", bytes: new TextEncoder().encode(text).length + 64 };
}

export async function pictureItem(blob: Blob, name: string): Promise<PictureItem> {
  const content = new Uint8Array(await blob.arrayBuffer());
  const shown = showable(content);
  return { key: sha1(content).join(" "), kind: "picture", bytes: base64Bytes(blob.size) + 64, name, blob, shown };
}

/** The lines of a text that say something, each once. */
export function linesOf(text: string): string[] {
  return [...new Set(text.split("\n").map((line) => line.trim()).filter((line) => line !== ""))];
}

const vectors = new Vectors(KEPT_VECTORS);

export interface Comparing {
  comparison: Comparison | undefined;
  /** How many inputs are done, of how many; undefined when nothing runs. */
  progress: { done: number; of: number } | undefined;
  error: unknown;
  start: (plan: Plan) => void;
  cancel: () => void;
}

export function useComparing(): Comparing {
  const [comparison, setComparison] = useState<Comparison>();
  const [progress, setProgress] = useState<{ done: number; of: number }>();
  const [error, setError] = useState<unknown>();
  const stop = useRef(new AbortController());
  useEffect(() => () => stop.current.abort(), []);
  const start = (plan: Plan) => {
    stop.current.abort();
    const mine = (stop.current = new AbortController());
    setError(undefined);
    const told = (sides: Side[], done: number) => {
      if (mine.signal.aborted) return;
      setComparison({ texts: plan.texts, pictures: plan.pictures, sides });
      setProgress({ done, of: plan.embedders.length * (plan.texts.length + plan.pictures.length) });
    };
    compare(plan, told, mine.signal)
      .catch((thrown: unknown) => mine.signal.aborted || isCancelled(thrown) || setError(thrown))
      .finally(() => stop.current === mine && setProgress(undefined));
  };
  return { comparison, progress, error, start, cancel: () => stop.current.abort() };
}

async function compare(plan: Plan, told: (sides: Side[], done: number) => void, signal: AbortSignal): Promise<void> {
  const outcomes = plan.embedders.map(() => new Map<string, Outcome>());
  const report = () => {
    const sides = plan.embedders.map((embedder, at) => sideOf(plan, embedder, outcomes[at] ?? new Map()));
    told(sides, outcomes.reduce((sum, each) => sum + each.size, 0));
  };
  report();
  for (const [at, embedder] of plan.embedders.entries()) {
    const reads = readsOf(embedder);
    for (const [items, purpose] of [[plan.texts, plan.purpose], [plan.pictures, "PURPOSE_DOCUMENT"]] as const) {
      const kind = items[0]?.kind;
      if (kind === undefined) continue;
      const tell = (key: string, outcome: Outcome) => outcomes[at]?.set(`${kind} ${key}`, outcome);
      if (reads[kind]) {
        const most = mostPictureBytes(plan.limits, [embedder]);
        const large = (item: AnyItem) => item.kind === "picture" && item.blob.size > most;
        for (const item of items) if (item.kind === "picture" && large(item)) tell(item.key, { failure: tooLarge(item.blob.size, most) });
        await embedAll<AnyItem>(
          items.filter((item) => !large(item)),
          JSON.stringify([embedder.name, embedder.space, purpose]),
          vectors,
          boundsOf(plan.limits),
          (group) => send(embedder.name ?? "", purpose, group, signal),
          tell,
          report,
        );
      } else {
        for (const { key } of items) tell(key, { failure: `${embedder.name} does not read ${kind}s` });
      }
      report();
    }
  }
}

export function readsOf({ modalities = [] }: EmbedderInfoJson): Record<Item["kind"], boolean> {
  return { text: modalities.includes("MODALITY_TEXT"), picture: modalities.includes("MODALITY_IMAGE") };
}

function sideOf(plan: Plan, embedder: EmbedderInfoJson, outcomes: ReadonlyMap<string, Outcome>): Side {
  const of = ({ kind, key }: AnyItem) => outcomes.get(`${kind} ${key}`);
  const vectorOf = (outcome: Outcome | undefined) => (outcome && "vector" in outcome ? outcome.vector : null);
  const [texts, pictures] = [plan.texts.map(of), plan.pictures.map(of)];
  return { embedder, reads: readsOf(embedder), texts, pictures, matrix: cosines(texts.map(vectorOf), pictures.map(vectorOf)) };
}

function boundsOf({ maxInputs, maxRequestBytes }: ServerLimitsJson) {
  return {
    maxInputs: Math.min(maxInputs || CALL_INPUTS, CALL_INPUTS),
    maxBytes: Math.min((Number(maxRequestBytes) || CALL_BYTES) / 2, CALL_BYTES),
  };
}

async function send(embedder: string, purpose: PurposeJson, items: readonly AnyItem[], signal: AbortSignal) {
  const inputs: InputJson[] = [];
  for (const item of items) {
    inputs.push(item.kind === "text" ? { text: item.key } : { image: { content: await toBase64(item.blob) } });
  }
  const { response } = await call<EmbedInputsRequestJson, EmbedInputsResponseJson>(
    "EmbeddingService",
    "EmbedInputs",
    { inputs, embedder, purpose },
    { signal },
  );
  return response.results ?? [];
}
