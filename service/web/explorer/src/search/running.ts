/** Runs a search page by page, the newest one only. */

import { useEffect, useRef, useState } from "preact/hooks";

import { call, isCancelled, type Timing } from "../api";
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

export interface Search {
  results: Results | undefined;
  error: unknown;
  busy: boolean;
  more: () => void;
  again: () => void;
}

/**
 * Run a search whenever it changes.
 *
 * @param key - says whether it has changed.
 * @param toCall - makes the call of a page; undefined while there is nothing to call.
 */
export function useSearch(key: string, toCall: ((start: Start) => ApiRequest) | undefined): Search {
  const [results, setResults] = useState<Results>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const stop = useRef(new AbortController());
  const latest = useRef(toCall);
  latest.current = toCall;

  const fetchPage = (start: Start, before: Found[]) => {
    if (!latest.current) return;
    stop.current.abort();
    const { signal } = (stop.current = new AbortController());
    setBusy(true);
    setError(undefined);
    runCall(latest.current(start), start, signal).then(
      (page) => {
        if (signal.aborted) return;
        setBusy(false);
        setResults({ ...page, hits: [...before, ...page.hits] });
      },
      (fault: unknown) => {
        if (signal.aborted || isCancelled(fault)) return;
        setBusy(false);
        setError(fault);
        if (before.length === 0) setResults(undefined);
      },
    );
  };
  const first = () => fetchPage({ offset: 0, pageToken: "" }, []);
  useEffect(() => {
    if (!toCall) {
      setResults(undefined);
      return undefined;
    }
    first();
    return () => stop.current.abort();
  }, [key]);
  const failed = error !== undefined;
  useEffect(() => {
    if (!failed) return undefined;
    window.addEventListener("keychange", first);
    return () => window.removeEventListener("keychange", first);
  }, [failed]);
  return { results, error, busy, again: first, more: () => results?.next && fetchPage(results.next, results.hits) };
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
