/** Calls of the API by Connect: JSON over POST, at addresses relative to the page. */

import { decodeDetails, type Detail, type Violation } from "./details";
import { readEnvelopes, withEnvelope } from "./envelopes";

/** How long a part of a call took, from the header Server-Timing. */
export interface Part {
  name: string;
  ms: number;
}

export interface Timing {
  /** As the server says, in its order. */
  parts: Part[];
  /** From sending to the whole answer, as the browser saw it. */
  roundTripMs: number;
}

export interface Answer<Response> {
  response: Response;
  timing: Timing;
  requestId: string;
}

/** A call failed. The message is the server's own, and is shown as text only. */
export class ApiError extends Error {
  /** Connect's name of the gRPC code, such as "not_found"; "canceled" for a call that the page itself gave up. */
  readonly code: string;
  /** The reason in ErrorInfo, such as "COLLECTION_NOT_FOUND"; empty if there is none. */
  readonly reason: string;
  /** The wrong fields of the request. */
  readonly violations: Violation[];
  /** After how many milliseconds the server asks to call again; undefined if it does not ask. */
  readonly retryDelayMs: number | undefined;
  /** Identifies the call in the server's log. */
  readonly requestId: string;

  constructor(code: string, message: string, details: Detail = {}, requestId = "") {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.reason = details.reason ?? "";
    this.violations = details.violations ?? [];
    this.retryDelayMs = details.retryDelayMs;
    this.requestId = requestId;
  }
}

/** Where the server's methods are: beside the page, whatever the path prefix. */
export const base = new URL(".", document.baseURI);

/** Asks for an API key, and says whether there is a new one. The shell sets it. */
type AskForKey = (error: ApiError) => Promise<boolean>;

let key = "";
let askForKey: AskForKey = () => Promise.resolve(false);

/** Keep an API key for the calls of this page, in memory only; empty to forget it. Listeners hear "keychange". */
export function setKey(value: string): void {
  key = value.trim();
  window.dispatchEvent(new Event("keychange"));
}

export function hasKey(): boolean {
  return key !== "";
}

export function onKeyNeeded(ask: AskForKey): void {
  askForKey = ask;
}

/**
 * Call a method.
 *
 * @param service - its name without the package, such as "SearchService".
 * @param request - in the JSON of the API: camelCase, bytes in base64.
 * @param ask - whether people are asked for a key that is missing; false for what nobody asked for, such as a picture that came into view.
 * @throws ApiError: the call failed, or the signal ended it (`isCancelled`).
 */
export async function call<Request, Response>(
  service: string,
  method: string,
  request: Request,
  { signal, ask = true }: { signal?: AbortSignal; ask?: boolean } = {},
): Promise<Answer<Response>> {
  const body = JSON.stringify(request);
  return await withKey(() => send<Response>(`vecgate.v1.${service}/${method}`, body, signal), ask, signal);
}

/** Call a method for one page of its answer after the other. */
export async function* pagesOf<Request extends { pageToken?: string }, Response extends { nextPageToken?: string }>(
  service: string,
  method: string,
  request: Request,
  signal: AbortSignal,
): AsyncGenerator<Response> {
  let pageToken = "";
  do {
    const { response } = await call<Request, Response>(service, method, { ...request, pageToken }, { signal });
    yield response;
    pageToken = response.nextPageToken ?? "";
  } while (pageToken !== "");
}

/**
 * Call a method that answers by and by, and return when its answer ends.
 *
 * @param take - takes each message as it comes.
 * @throws ApiError: as `call`; after some messages, too.
 */
export async function stream<Request, Response>(
  service: string,
  method: string,
  request: Request,
  take: (message: Response) => void,
  signal: AbortSignal,
): Promise<void> {
  const body = JSON.stringify(request);
  await withKey(() => follow(`vecgate.v1.${service}/${method}`, body, take, signal), true, signal);
}

/** Make a call, and again with the key that somebody gives where one is missing. */
async function withKey<Value>(make: () => Promise<Value>, ask: boolean, signal: AbortSignal | undefined): Promise<Value> {
  for (;;) {
    const used = key;
    try {
      return await make();
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "unauthenticated" || error.reason === "UPSTREAM_KEY_REJECTED") throw error;
      // Another call may have asked meanwhile.
      if (used === key && !(ask && (await askForKey(error)))) throw error;
      if (signal?.aborted) throw cancelled();
    }
  }
}

/** Whether a call failed because the page itself gave it up. */
export function isCancelled(error: unknown): boolean {
  return error instanceof ApiError && error.code === "canceled";
}

function cancelled(): ApiError {
  return new ApiError("canceled", "the call was given up");
}

async function send<Response>(path: string, body: string, signal: AbortSignal | undefined): Promise<Answer<Response>> {
  const started = performance.now();
  const [answer, text] = await reaching(signal, async () => {
    const got = await post(path, body, "application/json", signal);
    return [got, await got.text()] as const;
  });
  const requestId = requestIdOf(answer);
  const parsed = parse(text);
  if (!answer.ok) throw failure(answer.status, parsed, requestId);
  if (parsed === undefined) throw new ApiError("internal", NOT_JSON, {}, requestId);
  const timing = { parts: readParts(answer.headers.get("server-timing") ?? ""), roundTripMs: performance.now() - started };
  return { response: parsed as Response, timing, requestId };
}

const NOT_JSON = "The server's answer is not JSON. Is a proxy in between?";

/** Read an answer of many messages. Its last one says whether the call succeeded, because the status of HTTP was sent before. */
async function follow<Response>(path: string, body: string, take: (message: Response) => void, signal: AbortSignal): Promise<void> {
  await reaching(signal, async () => {
    const answer = await post(path, withEnvelope(body), "application/connect+json", signal);
    const requestId = requestIdOf(answer);
    if (!answer.ok || !answer.body) throw failure(answer.status, parse(await answer.text()), requestId);
    for await (const { text, isLast } of readEnvelopes(answer.body)) {
      const parsed = parse(text);
      if (!isRecord(parsed)) throw new ApiError("internal", NOT_JSON, {}, requestId);
      if (!isLast) take(parsed as Response);
      else if (parsed["error"] !== undefined) throw failure(answer.status, parsed["error"], requestId);
      else return;
    }
    throw new ApiError("unavailable", "The server's answer broke off.", {}, requestId);
  });
}

function post(path: string, body: BodyInit, type: string, signal: AbortSignal | undefined): Promise<globalThis.Response> {
  const headers: Record<string, string> = { "content-type": type, "connect-protocol-version": "1" };
  if (key !== "") headers["authorization"] = `Bearer ${key}`;
  return fetch(new URL(path, base), {
    method: "POST",
    body,
    headers,
    cache: "no-store",
    credentials: "same-origin",
    referrerPolicy: "no-referrer",
    ...(signal ? { signal } : {}),
  });
}

/** Say why the server is not reached, in place of the browser. */
async function reaching<Value>(signal: AbortSignal | undefined, ask: () => Promise<Value>): Promise<Value> {
  try {
    return await ask();
  } catch (error) {
    if (signal?.aborted) throw cancelled();
    if (error instanceof ApiError) throw error;
    // A header that cannot be sent is the key's fault; everything else is the network's.
    if (error instanceof TypeError && !/^[\x21-\x7e]*$/.test(key)) {
      throw new ApiError("unauthenticated", "an API key has only printable ASCII characters", { reason: "CREDENTIALS_INVALID" });
    }
    throw new ApiError("unavailable", "The server does not answer. It may be down, or the network in between.");
  }
}

function requestIdOf(answer: globalThis.Response): string {
  return answer.headers.get("x-request-id") ?? "";
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Codes of answers that are not Connect's own, such as those of a proxy. */
const CODES: Record<number, string> = {
  400: "invalid_argument",
  401: "unauthenticated",
  403: "permission_denied",
  404: "unimplemented",
  408: "deadline_exceeded",
  413: "resource_exhausted",
  429: "resource_exhausted",
  431: "resource_exhausted",
  502: "unavailable",
  503: "unavailable",
  504: "unavailable",
};

function failure(status: number, body: unknown, requestId: string): ApiError {
  const said = isRecord(body) ? body : {};
  const inner = isRecord(said["error"]) ? said["error"] : {};
  const code = typeof said["code"] === "string" ? said["code"] : (CODES[status] ?? "unknown");
  const message = typeof said["message"] === "string" && said["message"] !== "" ? said["message"] : `The server answered with HTTP status ${status}.`;
  const details = decodeDetails(said["details"]);
  // The HTTP server's own refusals come in the form of a NIM.
  if (typeof inner["code"] === "string") details.reason ??= inner["code"].toUpperCase();
  return new ApiError(code, message, details, requestId);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Read the header Server-Timing: `embed;dur=12.5, store;dur=3`. */
function readParts(header: string): Part[] {
  const parts: Part[] = [];
  for (const entry of header.split(",")) {
    const [name, ...parameters] = entry.split(";").map((each) => each.trim());
    const duration = parameters.find((each) => each.startsWith("dur="));
    if (name && duration) parts.push({ name, ms: Number(duration.slice(4)) });
  }
  return parts.filter((each) => Number.isFinite(each.ms));
}
