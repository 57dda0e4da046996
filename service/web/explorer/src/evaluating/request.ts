/** What an evaluation measures: as the form has it, as its address has it, and as the request that it is. */

import type { CollectionJson, EvaluateCollectionRequestJson, EvaluatedSystemJson, WrittenQueryJson } from "../types";
import type { Given } from "./run";

export type QueryKind = "objects" | "captions" | "queries";

/** A way to search; what is empty is as the collection has it. */
export interface Way {
  readonly vector: string;
  readonly alpha: string;
  readonly ef: string;
  readonly reranker: string;
  /** The property that the reranker reads. */
  readonly reads: string;
}

export const PRESENT: Way = { vector: "", alpha: "", ef: "", reranker: "", reads: "" };

export interface Wishes {
  readonly collection: string;
  readonly tenant: string;
  readonly by: QueryKind;
  /** The property with the captions. */
  readonly property: string;
  readonly sample: number;
  /** The property whose values name the answers to the queries of a file; empty for ids of objects. */
  readonly answerProperty: string;
  readonly limit: number;
  readonly ways: readonly Way[];
  readonly indexRecall: boolean;
  /** Of a larger collection, not all vectors are read, and nothing is measured. */
  readonly maxObjects: number;
  readonly changeEf: boolean;
  readonly suggest: boolean;
  readonly wantedRecall: number;
}

export const DEFAULTS = { sample: 200, limit: 10, "max-objects": 1_000_000, "wanted-recall": 0.95 };
export const MAX_SAMPLE = 1000;
export const MAX_LIMIT = 100;
export const MAX_WAYS = 20;

const KINDS: readonly QueryKind[] = ["objects", "captions", "queries"];

export function readWishes(params: URLSearchParams): Wishes {
  const number = (name: keyof typeof DEFAULTS) => Number(params.get(name)) || DEFAULTS[name];
  const by = params.get("by") as QueryKind;
  const ways = writtenWays(params).slice(0, MAX_WAYS).map(readWay);
  return {
    collection: params.get("collection") ?? "",
    tenant: params.get("tenant") ?? "",
    by: KINDS.includes(by) ? by : "objects",
    property: params.get("property") ?? "",
    sample: number("sample"),
    answerProperty: params.get("answers") ?? "",
    limit: number("limit"),
    ways: ways.length > 0 ? ways : [PRESENT],
    indexRecall: params.get("index-recall") !== "no",
    maxObjects: number("max-objects"),
    changeEf: params.get("change-ef") === "yes",
    suggest: params.get("suggest") === "yes",
    wantedRecall: number("wanted-recall"),
  };
}

/** The parameters of the address; defaults are left out. */
export function toParams(wishes: Wishes): Record<string, string | number | undefined> {
  const unless = (name: keyof typeof DEFAULTS, value: number) => (value === DEFAULTS[name] ? {} : { [name]: value });
  return {
    collection: wishes.collection,
    tenant: wishes.tenant,
    by: wishes.by === "objects" ? "" : wishes.by,
    property: wishes.by === "captions" ? wishes.property : "",
    ...unless("sample", wishes.sample),
    answers: wishes.answerProperty,
    ...unless("limit", wishes.limit),
    ways: isPresent(wishes.ways) ? "" : wishes.ways.map((each) => wayWords(each)).join(";"),
    "index-recall": wishes.indexRecall ? "" : "no",
    "change-ef": wishes.changeEf ? "yes" : "",
    suggest: wishes.suggest ? "yes" : "",
    ...unless("wanted-recall", wishes.wantedRecall),
    ...unless("max-objects", wishes.maxObjects),
  };
}

/** A way in the words of `vecgate evaluate --system`. */
export function wayWords(way: Way, images: ReadonlySet<string> = new Set()): string {
  const parts = [
    ["vector", way.vector],
    ["alpha", way.alpha],
    ["ef", way.ef],
    ["reranker", way.reranker],
    [images.has(way.reads) ? "rerank-image" : "rerank-text", way.reranker && way.reads],
  ];
  return parts.flatMap(([key, value]) => (value ? [`${key}=${value}`] : [])).join(",") || "present";
}

const KEYS = new Set(["vector", "alpha", "ef", "reranker", "rerank-text", "rerank-image"]);

/** What the address says of its ways and readWishes does not read, in the address's words. */
export function unknownInWays(params: URLSearchParams): string {
  const ways = writtenWays(params);
  const parts = ways.slice(0, MAX_WAYS).flatMap((each) => (each === "present" ? [] : each.split(",")));
  const unknown = parts.filter((each) => !each.includes("=") || !KEYS.has(keyOf(each)));
  return [...unknown, ...ways.slice(MAX_WAYS)].join(", ");
}

function writtenWays(params: URLSearchParams): string[] {
  return (params.get("ways") ?? "").split(";").filter((each) => each !== "");
}

function keyOf(part: string): string {
  return part.slice(0, Math.max(0, part.indexOf("=")));
}

function readWay(text: string): Way {
  const parts = new Map(text.split(",").map((each) => [keyOf(each), each.slice(each.indexOf("=") + 1)]));
  const of = (key: string) => parts.get(key) ?? "";
  return { vector: of("vector"), alpha: of("alpha"), ef: of("ef"), reranker: of("reranker"), reads: of("rerank-text") || of("rerank-image") };
}

/** Whether the answers to the queries are known. */
export function isAnswered({ by }: Wishes, { files }: Given): boolean {
  return by === "captions" || (by === "queries" && files?.answered === true);
}

/** Leave out of a way what the form does not offer with such queries. */
function offered(way: Way, { by, changeEf, indexRecall }: Wishes): Way {
  return {
    ...way,
    ef: changeEf && indexRecall ? way.ef : "",
    ...(by === "objects" ? { alpha: "", reranker: "", reads: "" } : {}),
  };
}

/** The ways that are compared: what the form does not show of them is not part of them. */
export function waysOf(wishes: Wishes): Way[] {
  return wishes.ways.map((each) => offered(each, wishes));
}

/** Whether nothing is compared, and nothing set. */
export function isPresent(ways: readonly Way[]): boolean {
  return ways.length === 1 && ways.every((each) => wayWords(each) === "present");
}

/** The request of an evaluation, by the names in its collection. */
export function toRequest(wishes: Wishes, collection: CollectionJson, given: Given): EvaluateCollectionRequestJson {
  const images = imageProperties(collection);
  const ways = waysOf(wishes);
  const suggestAlpha = wishes.suggest && isAnswered(wishes, given);
  return {
    collection: wishes.collection,
    ...queriesOf(wishes, given.files?.queries ?? []),
    ...(isPresent(ways) ? {} : { systems: ways.map((each) => toSystem(each, images)) }),
    limit: wishes.limit,
    ...(wishes.indexRecall ? {} : { skipIndexRecall: true }),
    ...(wishes.maxObjects === DEFAULTS["max-objects"] ? {} : { maxObjects: wishes.maxObjects }),
    ...(wishes.changeEf ? { allowEfChange: true } : {}),
    ...(wishes.suggest && wishes.changeEf ? { wantedRecall: wishes.wantedRecall } : {}),
    ...(suggestAlpha ? { suggestAlpha } : {}),
    ...(given.earlier ? { earlier: given.earlier.report } : {}),
    ...(wishes.tenant ? { scope: { tenant: wishes.tenant } } : {}),
  };
}

function queriesOf(wishes: Wishes, queries: WrittenQueryJson[]): Pick<EvaluateCollectionRequestJson, "objects" | "captions" | "queries"> {
  if (wishes.by === "captions") return { captions: { property: wishes.property, sampleSize: wishes.sample } };
  if (wishes.by === "objects") return { objects: { sampleSize: wishes.sample } };
  return { queries: { queries, ...(wishes.answerProperty ? { answerProperty: wishes.answerProperty } : {}) } };
}

function toSystem(way: Way, images: ReadonlySet<string>): EvaluatedSystemJson {
  const reads = images.has(way.reads) ? { rerankImageProperty: way.reads } : { rerankProperty: way.reads };
  return {
    ...(way.vector ? { targetVector: way.vector } : {}),
    ...(way.alpha ? { alpha: Number(way.alpha) } : {}),
    ...(way.ef ? { ef: Number(way.ef) } : {}),
    ...(way.reranker ? { reranker: way.reranker, ...reads } : {}),
  };
}

/** The blob properties of a collection. */
export function imageProperties(collection: CollectionJson): ReadonlySet<string> {
  return new Set(propertiesOf(collection, "DATA_TYPE_BLOB"));
}

/** The properties of some types, by name. */
export function propertiesOf(collection: CollectionJson, ...types: string[]): string[] {
  return (collection.properties ?? []).filter((each) => types.includes(each.dataType ?? "")).map((each) => each.name ?? "");
}
