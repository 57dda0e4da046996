/** Why something failed: a call, or one item of it when the call as a whole did not. */

/** Why a call or an item failed. */
export interface Failure {
  /** Connect's name of the gRPC code. */
  readonly code: string;
  readonly reason: string;
  readonly message: string;
  /** When to send it again, if the server says that this may help. */
  readonly retryDelayMs: number | undefined;
}

/** What an error says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const PASSING = new Set(["unavailable", "deadline_exceeded"]);

/** Whether what failed may succeed later as it is: the server says so, or it did not answer. */
export function passes({ code, retryDelayMs }: Pick<Failure, "code" | "retryDelayMs">): boolean {
  return retryDelayMs !== undefined || PASSING.has(code);
}

/** A google.rpc.Status as JSON has it. */
interface Status {
  code?: number;
  message?: string;
  details?: unknown;
}

interface Detail {
  "@type"?: string;
  reason?: string;
  retryDelay?: string;
  fieldViolations?: { description?: string }[];
}

const CODES = [
  ...["ok", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied"],
  ...["resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable", "data_loss", "unauthenticated"],
];

/** Reads the status of an item. */
export function readFailure(status: Status | undefined): Failure {
  const details = (Array.isArray(status?.details) ? status.details : []) as Detail[];
  const detail = (kind: string) => details.find((each) => each["@type"]?.endsWith(`/google.rpc.${kind}`));
  const delay = detail("RetryInfo")?.retryDelay;
  // The message itself names the field with the item's number in its call, which would set equal reasons apart.
  const descriptions = (detail("BadRequest")?.fieldViolations ?? []).map(({ description = "" }) => description);
  return {
    code: CODES[status?.code ?? 2] ?? "unknown",
    reason: detail("ErrorInfo")?.reason ?? "",
    message: descriptions.join("; ") || status?.message || "the server gave no reason",
    retryDelayMs: delay === undefined ? undefined : Number.parseFloat(delay) * 1000,
  };
}
