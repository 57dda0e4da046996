/** Filters as the editor has them, and as the API takes them. */

import { titleProperty } from "../collections";
import type { CollectionJson, DataTypeJson, FilterJson, FilterOperatorJson, FilterValueJson, ObjectFieldJson, PropertyJson } from "../types";

/** Several conditions. */
export interface Group {
  join: "all" | "any" | "none";
  items: (Condition | Group)[];
}

/** One condition, with its values as they were typed. */
export interface Condition {
  /** "property:NAME", "length:NAME", or "field:" and an ObjectField. */
  target: string;
  operator: FilterOperatorJson;
  /** One; for a list of values one for each line; for a place latitude, longitude and metres. */
  values: string[];
}

export type Kind = "text" | "integer" | "number" | "boolean" | "date" | "uuid" | "geo";

/** What a condition can compare. */
export interface Target {
  key: string;
  label: string;
  kind: Kind;
  operators: FilterOperatorJson[];
}

const KINDS: Partial<Record<DataTypeJson, Kind>> = {
  DATA_TYPE_TEXT: "text",
  DATA_TYPE_TEXT_ARRAY: "text",
  DATA_TYPE_INT: "integer",
  DATA_TYPE_INT_ARRAY: "integer",
  DATA_TYPE_NUMBER: "number",
  DATA_TYPE_NUMBER_ARRAY: "number",
  DATA_TYPE_BOOLEAN: "boolean",
  DATA_TYPE_BOOLEAN_ARRAY: "boolean",
  DATA_TYPE_DATE: "date",
  DATA_TYPE_DATE_ARRAY: "date",
  DATA_TYPE_UUID: "uuid",
  DATA_TYPE_UUID_ARRAY: "uuid",
  DATA_TYPE_GEO_COORDINATES: "geo",
};

const EQUALITY: FilterOperatorJson[] = ["FILTER_OPERATOR_EQUAL", "FILTER_OPERATOR_NOT_EQUAL"];
const ORDER: FilterOperatorJson[] = ["FILTER_OPERATOR_GREATER", "FILTER_OPERATOR_GREATER_OR_EQUAL", "FILTER_OPERATOR_LESS", "FILTER_OPERATOR_LESS_OR_EQUAL"];
const LISTS: FilterOperatorJson[] = ["FILTER_OPERATOR_CONTAINS_ANY", "FILTER_OPERATOR_CONTAINS_ALL", "FILTER_OPERATOR_CONTAINS_NONE"];
const NULL: FilterOperatorJson[] = ["FILTER_OPERATOR_IS_NULL"];

export function isList(operator: FilterOperatorJson): boolean {
  return LISTS.includes(operator);
}

/** An operator in words, for a kind of values. */
export function operatorName(operator: FilterOperatorJson, target: Target): string {
  const words = target.kind === "text" && target.operators.includes("FILTER_OPERATOR_LIKE");
  const names: Partial<Record<FilterOperatorJson, string>> = {
    FILTER_OPERATOR_EQUAL: words ? "has the words" : "is",
    FILTER_OPERATOR_NOT_EQUAL: words ? "lacks the words" : "is not",
    FILTER_OPERATOR_GREATER: target.kind === "date" ? "after" : ">",
    FILTER_OPERATOR_GREATER_OR_EQUAL: target.kind === "date" ? "at or after" : "≥",
    FILTER_OPERATOR_LESS: target.kind === "date" ? "before" : "<",
    FILTER_OPERATOR_LESS_OR_EQUAL: target.kind === "date" ? "at or before" : "≤",
    FILTER_OPERATOR_LIKE: "has a word like",
    FILTER_OPERATOR_CONTAINS_ANY: "has any of",
    FILTER_OPERATOR_CONTAINS_ALL: "has all of",
    FILTER_OPERATOR_CONTAINS_NONE: "has none of",
    FILTER_OPERATOR_IS_NULL: "is empty",
    FILTER_OPERATOR_WITHIN_GEO_RANGE: "is within",
  };
  return names[operator] ?? operator;
}

/** What conditions on objects of a collection can compare. */
export function targetsOf(collection: CollectionJson): Target[] {
  const properties = collection.properties ?? [];
  // First what people know an object by.
  const title = titleProperty(collection);
  const ordered = [...properties.filter((each) => each.name === title), ...properties.filter((each) => each.name !== title)];
  const values = ordered.filter((each) => each.indexFilterable !== false).flatMap(propertyTarget);
  const lengths = properties.filter((each) => each.dataType === "DATA_TYPE_TEXT" || each.dataType?.endsWith("_ARRAY")).filter((each) => each.dataType !== "DATA_TYPE_OBJECT_ARRAY");
  return [
    ...values,
    ...lengths.map((each): Target => ({ key: `length:${each.name}`, label: `length of ${each.name}`, kind: "integer", operators: [...EQUALITY, ...ORDER] })),
    { key: "field:OBJECT_FIELD_ID", label: "id", kind: "uuid", operators: [...EQUALITY, "FILTER_OPERATOR_CONTAINS_ANY", "FILTER_OPERATOR_CONTAINS_NONE"] },
    { key: "field:OBJECT_FIELD_CREATION_TIME", label: "created", kind: "date", operators: ORDER },
    { key: "field:OBJECT_FIELD_UPDATE_TIME", label: "last updated", kind: "date", operators: ORDER },
  ];
}

function propertyTarget(property: PropertyJson): Target[] {
  const kind = KINDS[property.dataType ?? "DATA_TYPE_UNSPECIFIED"];
  if (kind === undefined) return [];
  const operators: Record<Kind, FilterOperatorJson[]> = {
    text: [...EQUALITY, "FILTER_OPERATOR_LIKE", ...LISTS, ...(property.tokenization === "TOKENIZATION_FIELD" ? ORDER : []), ...NULL],
    integer: [...EQUALITY, ...ORDER, ...LISTS, ...NULL],
    number: [...EQUALITY, ...ORDER, ...LISTS, ...NULL],
    boolean: [...EQUALITY, ...NULL],
    date: [...ORDER, ...EQUALITY, ...LISTS, ...NULL],
    uuid: [...EQUALITY, ...LISTS, ...NULL],
    geo: ["FILTER_OPERATOR_WITHIN_GEO_RANGE"],
  };
  return [{ key: `property:${property.name}`, label: property.name ?? "", kind, operators: operators[kind] }];
}

export function emptyGroup(): Group {
  return { join: "all", items: [] };
}

export function newCondition(target: Target): Condition {
  const operator = target.operators[0] ?? "FILTER_OPERATOR_EQUAL";
  return { target: target.key, operator, values: target.kind === "boolean" ? ["true"] : [""] };
}

/** How many of the conditions cannot be sent yet. */
export function countIncomplete(group: Group, targets: Target[]): number {
  return group.items.reduce((sum, each) => sum + ("items" in each ? countIncomplete(each, targets) : toCondition(each, targets) === undefined ? 1 : 0), 0);
}

export function countConditions(group: Group): number {
  return group.items.reduce((sum, each) => sum + ("items" in each ? countConditions(each) : 1), 0);
}

/** The filter that the API takes, of all conditions that are complete; undefined if there are none. */
export function toFilter(group: Group, targets: Target[]): FilterJson | undefined {
  const filters = group.items.map((each) => ("items" in each ? toFilter(each, targets) : toCondition(each, targets))).filter((each) => each !== undefined);
  const [first] = filters;
  if (first === undefined) return undefined;
  if (group.join === "none") return { negation: filters.length === 1 ? first : { anyOf: { filters } } };
  if (filters.length === 1) return first;
  return group.join === "all" ? { allOf: { filters } } : { anyOf: { filters } };
}

function toCondition(condition: Condition, targets: Target[]): FilterJson | undefined {
  const target = targets.find((each) => each.key === condition.target);
  const value = target && target.operators.includes(condition.operator) ? toValue(condition, target.kind) : undefined;
  if (value === undefined) return undefined;
  const [, where = "", name = ""] = /^(\w+):(.*)$/s.exec(condition.target) ?? [];
  const what = where === "field" ? { objectField: name as ObjectFieldJson } : where === "length" ? { propertyLength: name } : { property: name };
  return { condition: { ...what, operator: condition.operator, value } };
}

function toValue({ operator, values }: Condition, kind: Kind): FilterValueJson | undefined {
  if (operator === "FILTER_OPERATOR_IS_NULL") return { boolean: values[0] !== "false" };
  if (kind === "geo") {
    const [latitude, longitude, distanceM] = values.map((each) => (each.trim() === "" ? NaN : Number(each)));
    const fits = [latitude, longitude, distanceM].every((each) => Number.isFinite(each)) && (distanceM ?? 0) > 0;
    return fits ? { geoRange: { latitude: latitude ?? 0, longitude: longitude ?? 0, distanceM: distanceM ?? 0 } } : undefined;
  }
  const read = values.filter((each) => each.trim() !== "").map((each) => readOne(each, kind));
  const [first] = read;
  if (first === undefined || read.includes(undefined)) return undefined;
  const all = read as (string | number | boolean)[];
  if (!isList(operator)) {
    if (kind === "boolean") return { boolean: first === true };
    if (kind === "number") return { number: first as number };
    return kind === "integer" ? { integer: String(first) } : { text: String(first) };
  }
  if (kind === "boolean") return { booleans: { values: all as boolean[] } };
  if (kind === "number") return { numbers: { values: all as number[] } };
  return kind === "integer" ? { integers: { values: all.map(String) } } : { texts: { values: all.map(String) } };
}

/** Read a value as it was typed; undefined if it is not of its kind. */
function readOne(typed: string, kind: Kind): string | number | boolean | undefined {
  const value = typed.trim();
  switch (kind) {
    case "boolean":
      return value === "true";
    case "integer":
      return /^[+-]?\d{1,16}$/.test(value) ? Number(value) : undefined;
    case "number":
      return Number.isFinite(Number(value)) ? Number(value) : undefined;
    case "date": {
      // The editor's local time; or RFC 3339, as it is.
      const moment = new Date(value);
      if (Number.isNaN(moment.getTime())) return undefined;
      return /(Z|[+-]\d\d:\d\d)$/i.test(value) ? value : moment.toISOString();
    }
    case "uuid":
      return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value) ? value : undefined;
    default:
      return typed;
  }
}

/** The editor's state for the address; empty for no conditions. */
export function toText(group: Group): string {
  return group.items.length === 0 ? "" : JSON.stringify(group);
}

/** Read the editor's state out of an address, which anyone may have written. */
export function fromText(text: string): Group {
  if (text === "") return emptyGroup();
  try {
    const read = readGroup(JSON.parse(text) as unknown, 0);
    return read ?? emptyGroup();
  } catch {
    return emptyGroup();
  }
}

const MAX_DEPTH = 8;

function readGroup(value: unknown, depth: number): Group | undefined {
  const { join, items } = (value ?? {}) as { join?: unknown; items?: unknown };
  if ((join !== "all" && join !== "any" && join !== "none") || !Array.isArray(items) || depth > MAX_DEPTH) return undefined;
  const read = (items as unknown[]).slice(0, 100).map((each) => readGroup(each, depth + 1) ?? readCondition(each));
  return { join, items: read.filter((each) => each !== undefined) };
}

function readCondition(value: unknown): Condition | undefined {
  const { target, operator, values } = (value ?? {}) as { target?: unknown; operator?: unknown; values?: unknown };
  if (typeof target !== "string" || typeof operator !== "string" || !Array.isArray(values)) return undefined;
  return { target, operator: operator as FilterOperatorJson, values: (values as unknown[]).map(String) };
}
