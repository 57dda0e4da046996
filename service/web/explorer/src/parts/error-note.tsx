import { useEffect, useState } from "preact/hooks";

import { ApiError, isCancelled } from "../api";
import { messageOf, passes } from "../item-failure";
import { Text } from "./text";

/** What to tell people of an error, by its reason or else its code. */
const TITLES: Record<string, string> = {
  already_exists: "This exists already",
  CREDENTIALS_INVALID: "The server does not know this key",
  CREDENTIALS_MISSING: "The server needs an API key",
  deadline_exceeded: "This took too long",
  EMBEDDER_UNAVAILABLE: "The embedder does not answer",
  EMBEDDING_SPACE_MISMATCH: "The vectors belong to another space",
  failed_precondition: "This is not possible now",
  internal: "The server failed",
  invalid_argument: "The server refuses this request",
  not_found: "This does not exist",
  OVERLOADED: "The server is overloaded",
  PACKAGE_MISSING: "The server lacks a package for this",
  permission_denied: "This key may not do that",
  QUOTA_EXCEEDED: "The quota of this key is used up",
  resource_exhausted: "Too much at once",
  STORE_UNAVAILABLE: "Weaviate does not answer",
  unauthenticated: "The server needs an API key",
  unavailable: "The server does not answer",
  unimplemented: "The server does not have this",
};

/** Codes of errors that may not come again, though nobody says so; after that of a key, the page asks for one. */
const UNCLEAR = new Set(["aborted", "internal", "unauthenticated", "unknown"]);

/** Whether the same call may succeed when it is made again. */
function mayPass(error: ApiError): boolean {
  return passes(error) || (UNCLEAR.has(error.code) && error.reason !== "UPSTREAM_KEY_REJECTED");
}

/** Whether a message has all the words of a title, so that it needs none. */
function saysAll(message: string, title: string): boolean {
  const words = (text: string) => text.toLowerCase().match(/[a-z]+/g) ?? [];
  const said = new Set(words(message));
  return words(title).every((each) => each === "this" || said.has(each));
}

/** Say what went wrong, in the server's own words and once, and offer to try again where that can help. */
export function ErrorNote({ error, onRetry }: { error: unknown; onRetry?: (() => void) | undefined }) {
  if (error === undefined || error === null || isCancelled(error)) return null;
  if (!(error instanceof ApiError)) {
    return (
      <div class="note error" role="alert">
        <p><Text>{messageOf(error)}</Text></p>
      </div>
    );
  }
  const title = TITLES[error.reason] ?? TITLES[error.code] ?? "This did not work";
  const isWhole = saysAll(error.message, title);
  return (
    <div class="note error" role="alert" data-reason={error.reason || error.code}>
      {!isWhole && <p><strong>{title}</strong></p>}
      <p>{isWhole ? <strong><Text>{error.message}</Text></strong> : <Text>{error.message}</Text>}</p>
      {error.violations.length > 1 && (
        <ul>
          {error.violations.slice(0, 20).map((each) => (
            <li><code><Text>{each.field}</Text></code> <Text>{each.description}</Text></li>
          ))}
        </ul>
      )}
      <p class="quiet">
        {error.reason && <code>{error.reason}</code>}
        {error.requestId && <> request <Text>{error.requestId}</Text></>}
      </p>
      {onRetry && mayPass(error) && <Retry delayMs={error.retryDelayMs} onRetry={onRetry} />}
    </div>
  );
}

/** A button that is free when the server takes the call again. */
function Retry({ delayMs = 0, onRetry }: { delayMs?: number | undefined; onRetry: () => void }) {
  const [left, setLeft] = useState(Math.ceil(delayMs / 1000));
  useEffect(() => setLeft(Math.ceil(delayMs / 1000)), [delayMs]);
  useEffect(() => {
    if (left <= 0) return undefined;
    const timer = setTimeout(() => setLeft(left - 1), 1000);
    return () => clearTimeout(timer);
  }, [left]);
  return (
    <button type="button" disabled={left > 0} onClick={onRetry}>
      {left > 0 ? `Try again in ${left} s` : "Try again"}
    </button>
  );
}
