/** The details of errors, which come as protobuf messages in base64. */

import { fromBase64 } from "./base64";

/** A field of a request that breaks a rule. */
export interface Violation {
  field: string;
  description: string;
}

export interface Detail {
  reason?: string;
  violations?: Violation[];
  retryDelayMs?: number;
}

/** Read what google.rpc's details of an error say; others are left out, and so is what cannot be read. */
export function decodeDetails(details: unknown): Detail {
  const found: Detail = {};
  for (const each of Array.isArray(details) ? (details as unknown[]) : []) {
    const { type, value } = each as { type?: unknown; value?: unknown };
    if (typeof type !== "string" || typeof value !== "string") continue;
    try {
      addDetail(found, type, fromBase64(value));
    } catch {
      // The error itself is worth more than a detail of it.
    }
  }
  return found;
}

function addDetail(found: Detail, type: string, message: Uint8Array): void {
  if (type === "google.rpc.ErrorInfo") {
    found.reason = text(fields(message).find((each) => each.number === 1));
  } else if (type === "google.rpc.BadRequest") {
    found.violations = fields(message)
      .filter((each) => each.number === 1)
      .map((each) => {
        const violation = fields(each.bytes);
        const of = (number: number) => text(violation.find((inner) => inner.number === number));
        return { field: of(1), description: of(2) };
      });
  } else if (type === "google.rpc.RetryInfo") {
    const delay = fields(message).find((each) => each.number === 1);
    const duration = delay ? fields(delay.bytes) : [];
    const of = (number: number) => duration.find((each) => each.number === number)?.value ?? 0;
    found.retryDelayMs = of(1) * 1000 + of(2) / 1e6;
  }
}

interface Field {
  number: number;
  /** Of a varint. */
  value: number;
  /** Of a message or a string. */
  bytes: Uint8Array;
}

/** Split a protobuf message into its fields. */
function fields(message: Uint8Array): Field[] {
  const found: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new RangeError("the message ends too early");
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const field: Field = { number: Math.floor(tag / 8), value: 0, bytes: new Uint8Array() };
    const kind = tag % 8;
    if (kind === 0) field.value = varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const size = varint();
      field.bytes = message.subarray(at, at + size);
      at += size;
    } else throw new RangeError("the message has a field of an unknown kind");
    found.push(field);
  }
  return found;
}

function text(field: Field | undefined): string {
  return field ? new TextDecoder().decode(field.bytes) : "";
}
