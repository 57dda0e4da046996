/** Counting the objects of a collection that lack vectors: part by part, because the server reads all of them. */

import { useEffect, useRef, useState } from "preact/hooks";

import { isCancelled, pagesOf } from "./api";
import { whole } from "./measures";
import type { CountMissingVectorsRequestJson, CountMissingVectorsResponseJson } from "./types";

export interface Missing {
  seen: number;
  /** By named vector. */
  missing: Record<string, number>;
  state: "counting" | "done" | "stopped" | "failed";
  error?: unknown;
}

/** Count when somebody asks for it. */
export function useMissing(collection: string, tenant: string): { counted: Missing | undefined; begin: () => void; stop: () => void } {
  const [counted, setCounted] = useState<Missing>();
  const running = useRef<AbortController | undefined>(undefined);
  const stop = () => running.current?.abort();
  useEffect(() => {
    setCounted(undefined);
    return stop;
  }, [collection, tenant]);
  const begin = () => {
    stop();
    const mine = (running.current = new AbortController());
    const shown = (change: Partial<Missing>) => mine === running.current && setCounted((before) => ({ seen: 0, missing: {}, state: "counting", ...before, ...change }));
    setCounted({ seen: 0, missing: {}, state: "counting" });
    countAll(collection, tenant, mine.signal, (seen, missing) => shown({ seen, missing })).then(
      () => shown({ state: "done" }),
      (error: unknown) => shown(isCancelled(error) ? { state: "stopped" } : { state: "failed", error }),
    );
  };
  return { counted, begin, stop };
}

async function countAll(collection: string, tenant: string, signal: AbortSignal, onPart: (seen: number, missing: Record<string, number>) => void): Promise<void> {
  let seen = 0;
  const missing: Record<string, number> = {};
  const request: CountMissingVectorsRequestJson = { collection, ...(tenant === "" ? {} : { scope: { tenant } }) };
  for await (const part of pagesOf<CountMissingVectorsRequestJson, CountMissingVectorsResponseJson>("ObjectService", "CountMissingVectors", request, signal)) {
    seen += whole(part.seen);
    for (const [name, more] of Object.entries(part.missing ?? {})) missing[name] = (missing[name] ?? 0) + whole(more);
    onPart(seen, { ...missing });
  }
}
