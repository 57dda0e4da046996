import type { JsonValue } from "../types";
import { Text } from "./text";

/** The value of a property. */
export function Value({ value, clamp }: { value: JsonValue | undefined; clamp?: number }) {
  if (value === null || value === undefined) return <span class="quiet">none</span>;
  return <Text {...(clamp === undefined ? {} : { clamp })}>{asText(value)}</Text>;
}

/** A value in one text. */
export function asText(value: JsonValue): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value, undefined, 1) : String(value);
}
