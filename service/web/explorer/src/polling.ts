/** Asking again and again, for as long as somebody looks. */

import { useEffect, useState } from "preact/hooks";

import { ApiError, isCancelled } from "./api";

const LONGEST_PAUSE_MS = 16_000;
const PATIENCE_MS = 10_000;

/** After these, the same question gets the same answer until there is another key. */
const FINAL = new Set(["permission_denied", "unauthenticated", "unimplemented"]);

export interface Polled<Value> {
  /** The last answer, also while later questions fail. */
  value: Value | undefined;
  /** Why the last question failed; undefined if it did not. */
  error: unknown;
  /** Since when no question was answered, in milliseconds of the epoch. */
  failingSince: number | undefined;
  /** When the next question is due after one that failed; undefined if there is none. */
  nextAt: number | undefined;
  /** How often answers came back after failures. */
  recoveries: number;
  /** Ask now. */
  again: () => void;
}

type State<Value> = Omit<Polled<Value>, "again">;

/**
 * Ask when the page is shown and then every so many milliseconds, but not while the page is hidden. After each failure in a row the
 * pause doubles.
 *
 * @param load - must stay the same function for as long as the component lives.
 */
export function usePolled<Value>(load: (signal: AbortSignal) => Promise<Value>, everyMs: number): Polled<Value> {
  const [state, setState] = useState<State<Value>>({ value: undefined, error: undefined, failingSince: undefined, nextAt: undefined, recoveries: 0 });
  const [again, setAgain] = useState(() => () => {});
  useEffect(() => {
    let timer = 0;
    let asking: AbortController | undefined;
    let failures = 0;
    const pause = () => {
      clearTimeout(timer);
      asking?.abort();
      asking = undefined;
    };
    const ask = async () => {
      pause();
      if (document.hidden) return;
      const mine = (asking = new AbortController());
      const began = Date.now();
      try {
        const value = await patiently(load, mine);
        if (mine !== asking) return;
        failures = 0;
        timer = window.setTimeout(ask, Math.max(0, began + everyMs - Date.now()));
        setState((before) => ({ value, error: undefined, failingSince: undefined, nextAt: undefined, recoveries: before.recoveries + (before.failingSince ? 1 : 0) }));
      } catch (error) {
        if (mine !== asking) return;
        failures += 1;
        const nextAt = FINAL.has(error instanceof ApiError ? error.code : "") ? undefined : Date.now() + pauseMs(error, failures, everyMs);
        if (nextAt !== undefined) timer = window.setTimeout(ask, nextAt - Date.now());
        setState((before) => ({ ...before, error, failingSince: before.failingSince ?? Date.now(), nextAt }));
      }
    };
    const now = () => {
      failures = 0;
      void ask();
    };
    setAgain(() => now);
    void ask();
    document.addEventListener("visibilitychange", now);
    window.addEventListener("keychange", now);
    window.addEventListener("online", now);
    return () => {
      pause();
      document.removeEventListener("visibilitychange", now);
      window.removeEventListener("keychange", now);
      window.removeEventListener("online", now);
    };
  }, []);
  return { ...state, again };
}

function pauseMs(error: unknown, failures: number, everyMs: number): number {
  const asked = error instanceof ApiError ? (error.retryDelayMs ?? 0) : 0;
  return Math.max(asked, Math.min(everyMs * 2 ** (failures - 1), LONGEST_PAUSE_MS));
}

/** Give up a server that keeps the connection and says nothing. */
async function patiently<Value>(load: (signal: AbortSignal) => Promise<Value>, asking: AbortController): Promise<Value> {
  let tooLong = false;
  const limit = setTimeout(() => {
    tooLong = true;
    asking.abort();
  }, PATIENCE_MS);
  try {
    return await load(asking.signal);
  } catch (error) {
    if (tooLong && isCancelled(error)) throw new ApiError("deadline_exceeded", `The server has said nothing for ${PATIENCE_MS / 1000} seconds.`);
    throw error;
  } finally {
    clearTimeout(limit);
  }
}

/** The time, renewed every second while somebody needs it. */
export function useClock(running: boolean): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!running) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}
