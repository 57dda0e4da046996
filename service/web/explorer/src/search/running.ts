/** Runs a search page by page, the newest one only. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import { call, isCancelled, type Timing } from "../api";
import { place as placeInHistory, scrollToPlace } from "../router";
import type { EmbedderRefJson, ListObjectsRequestJson, ListObjectsResponseJson, SearchObjectsRequestJson, SearchObjectsResponseJson } from "../types";
import type { Found } from "./hit-grid";
import { PAGE, type ApiRequest, type Start } from "./request";

export interface Results {
  hits: Found[];
  embedders: EmbedderRefJson[];
  timing: Timing | undefined;
  /** Where the next page begins; undefined after the last one. */
  next: Start | undefined;
}

/** What was found, by the place in the browser's history, for when people come back to it. */
const kept = new Map<number, { key: string; results: Results }>();
const KEPT_RESULTS = 20;

/** Forget what was found, as with another key. */
export function forgetResults(): void {
  kept.clear();
}

function keep(at: number, key: string, results: Results): void {
  kept.delete(at);
  kept.set(at, { key, results });
  for (const oldest of kept.keys()) {
    if (kept.size <= KEPT_RESULTS) break;
    kept.delete(oldest);
  }
}

export interface Search {
  results: Results | undefined;
  error: unknown;
  busy: boolean;
  more: () => void;
  /** Run the search anew. */
  again: () => void;
  /** Repeat the call that failed: hits that are there stay. */
  retry: () => void;
}

interface Shown {
  place: string;
  results?: Results | undefined;
  error?: unknown;
  /** The page that could not be fetched. */
  failed?: (() => void) | undefined;
  /** Whether it was found before, and people have come back to it. */
  again?: boolean;
}

/**
 * Run a search whenever it changes; where people come back to one, show what was there, and where.
 *
 * @param place - the collection and the tenant: nothing of one is shown with another.
 * @param key - says whether the search has changed.
 * @param toCall - makes the call of a page; undefined while there is nothing to call.
 */
export function useSearch(place: string, key: string, toCall: ((start: Start) => ApiRequest) | undefined): Search {
  const [shown, setShown] = useState<Shown>({ place });
  const [busy, setBusy] = useState(false);
  const stop = useRef(new AbortController());
  const latest = useRef(toCall);
  latest.current = toCall;
  const { results, error, failed }: Shown = shown.place === place ? shown : { place };

  const fetchPage = (start: Start, before: Results | undefined) => {
    if (!latest.current) return;
    stop.current.abort();
    const { signal } = (stop.current = new AbortController());
    const at = placeInHistory();
    setBusy(true);
    setShown((now) => ({ place, results: now.place === place ? now.results : undefined }));
    runCall(latest.current(start), start, signal).then(
      (page) => {
        if (signal.aborted) return;
        setBusy(false);
        const results = { ...page, hits: [...(before?.hits ?? []), ...page.hits] };
        keep(at, key, results);
        setShown({ place, results });
      },
      (fault: unknown) => {
        if (signal.aborted || isCancelled(fault)) return;
        setBusy(false);
        setShown({ place, results: before, error: fault, failed: () => fetchPage(start, before) });
      },
    );
  };
  const first = () => fetchPage({ offset: 0, pageToken: "" }, undefined);
  useEffect(() => {
    if (!toCall) {
      setShown({ place });
      setBusy(false);
      return undefined;
    }
    const before = kept.get(placeInHistory());
    if (before?.key === key) {
      setBusy(false);
      setShown({ place, results: before.results, again: true });
    } else {
      // What is new begins at its top.
      scrollToPlace();
      first();
    }
    return () => stop.current.abort();
  }, [key]);
  useLayoutEffect(() => {
    if (shown.again) scrollToPlace();
  }, [shown]);
  return { results, error, busy, again: first, retry: () => failed?.(), more: () => results?.next && fetchPage(results.next, results) };
}

async function runCall(made: ApiRequest, start: Start, signal: AbortSignal): Promise<Results> {
  if (made.method === "ListObjects") {
    const { response, timing } = await call<ListObjectsRequestJson, ListObjectsResponseJson>("ObjectService", "ListObjects", made.request, { signal });
    const pageToken = response.nextPageToken ?? "";
    return { hits: (response.objects ?? []).map((object) => ({ object })), embedders: [], timing, next: pageToken === "" ? undefined : { offset: 0, pageToken } };
  }
  const { response, timing } = await call<SearchObjectsRequestJson, SearchObjectsResponseJson>("SearchService", "SearchObjects", made.request, { signal });
  const hits = (response.hits ?? []).map(({ object = {}, distance, certainty, score }): Found => ({ object, distance, certainty, score }));
  const embedders = response.embedders ?? (response.embedder ? [response.embedder] : []);
  const next = hits.length < PAGE ? undefined : { offset: start.offset + hits.length, pageToken: "" };
  return { hits, embedders, timing, next };
}
