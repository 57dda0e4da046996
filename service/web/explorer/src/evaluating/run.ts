/** The evaluation of this tab. It goes on while other pages are shown. */

import { useEffect, useState } from "preact/hooks";

import { isCancelled, stream } from "../api";
import type { EvaluateCollectionRequestJson, EvaluateCollectionResponseJson, EvaluationJson, EvaluationProgressJson } from "../types";
import type { Earlier } from "./drift";
import type { QueryFiles } from "./query-files";
import type { Wishes } from "./request";

/** What comes from files. */
export interface Given {
  readonly files?: QueryFiles | undefined;
  readonly earlier?: Earlier | undefined;
}

export interface Run {
  readonly wishes: Wishes;
  readonly request: EvaluateCollectionRequestJson;
  readonly given: Given;
  readonly state: "running" | "done" | "stopped" | "failed";
  readonly progress?: EvaluationProgressJson;
  readonly evaluation?: EvaluationJson;
  readonly error?: unknown;
}

let run: Run | undefined;
let stopping = new AbortController();
const listeners = new Set<() => void>();

function show(next: Run | undefined): void {
  run = next;
  listeners.forEach((each) => each());
}

export function currentRun(): Run | undefined {
  return run;
}

/** Begin an evaluation; one that runs is given up. */
export function beginRun(wishes: Wishes, request: EvaluateCollectionRequestJson, given: Given): void {
  stopping.abort();
  const mine = (stopping = new AbortController());
  const tell = (change: Partial<Run>) => mine === stopping && show({ wishes, request, given, state: "running", ...run, ...change });
  show({ wishes, request, given, state: "running" });
  const take = ({ progress, evaluation }: EvaluateCollectionResponseJson) => tell(evaluation ? { evaluation } : progress ? { progress } : {});
  stream<EvaluateCollectionRequestJson, EvaluateCollectionResponseJson>("EvaluationService", "EvaluateCollection", request, take, mine.signal).then(
    () => tell({ state: "done" }),
    (error: unknown) => tell(isCancelled(error) ? { state: "stopped" } : { state: "failed", error }),
  );
}

export function stopRun(): void {
  stopping.abort();
}

/** Forget what was found, as with another key. */
export function forgetRun(): void {
  stopping.abort();
  stopping = new AbortController();
  show(undefined);
}

/** Follow the evaluation of this tab. */
export function useRun(): Run | undefined {
  const [shown, setShown] = useState(run);
  useEffect(() => {
    const follow = () => setShown(run);
    follow();
    listeners.add(follow);
    return () => void listeners.delete(follow);
  }, []);
  return shown;
}
