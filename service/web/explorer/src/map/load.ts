/** The map of a collection, as the server makes it. */

import { call, type Timing } from "../api";
import { toFloats } from "../base64";
import { titleProperty } from "../collections";
import type { CollectionJson, EmbedderRefJson, InputJson, JsonValue, ProjectObjectsRequestJson, ProjectObjectsResponseJson } from "../types";

/** How vectors become points. */
export type Method = "pca" | "umap";

export interface MapRequest {
  collection: CollectionJson;
  tenant: string;
  vector: string;
  size: number;
  method: Method;
  /** What to place among the points. */
  inputs: MapInput[];
}

/** A query: what the server gets, and how the page names it. */
export interface MapInput {
  name: string;
  input: InputJson;
}

/** A query on the map. */
export interface Placed {
  name: string;
  x: number;
  y: number;
  /** Indexes of the nearest objects, the nearest one first. */
  nearest: number[];
}

/** Objects as points. */
export interface MapData {
  ids: string[];
  xs: Float32Array;
  ys: Float32Array;
  /** Of each property one value for each id. */
  columns: Map<string, JsonValue[]>;
  /** The property that names objects best; undefined if there is none. */
  title: string | undefined;
  placed: Placed[];
  total: number;
  missing: number;
  /** The share of the variance along x and along y; empty where a method has no such share. */
  explained: number[];
  vector: string;
  space: string;
  embedder: EmbedderRefJson | undefined;
  timing: Timing;
}

const COLOURS = new Set([
  "DATA_TYPE_TEXT",
  "DATA_TYPE_TEXT_ARRAY",
  "DATA_TYPE_INT",
  "DATA_TYPE_NUMBER",
  "DATA_TYPE_BOOLEAN",
  "DATA_TYPE_DATE",
]);
const MOST_PROPERTIES = 12;

/** The properties to fetch: the one that names objects, and those that can colour them. */
export function mapProperties(collection: CollectionJson): string[] {
  const title = titleProperty(collection);
  const colours = (collection.properties ?? []).filter((each) => COLOURS.has(each.dataType ?? "")).map((each) => each.name ?? "");
  return [...new Set([...(title === undefined ? [] : [title]), ...colours])].slice(0, MOST_PROPERTIES);
}

export async function loadMap(wanted: MapRequest, signal: AbortSignal): Promise<MapData> {
  const { response, timing } = await call<ProjectObjectsRequestJson, ProjectObjectsResponseJson>(
    "SearchService",
    "ProjectObjects",
    {
      collection: wanted.collection.name ?? "",
      sampleSize: wanted.size,
      method: wanted.method === "umap" ? "PROJECTION_METHOD_UMAP" : "PROJECTION_METHOD_PCA",
      properties: mapProperties(wanted.collection),
      ...(wanted.vector ? { targetVector: wanted.vector } : {}),
      ...(wanted.tenant ? { scope: { tenant: wanted.tenant } } : {}),
      ...(wanted.inputs.length > 0 ? { inputs: wanted.inputs.map((each) => each.input), truncate: true } : {}),
    },
    { signal },
  );
  const ids = response.ids ?? [];
  return {
    ids,
    ...toPoints(response.coordinates ?? ""),
    columns: new Map((response.properties ?? []).map((each) => [each.name ?? "", (each.values ?? []) as JsonValue[]])),
    title: titleProperty(wanted.collection),
    placed: (response.inputs ?? []).map((each, at) => ({
      name: wanted.inputs[at]?.name ?? "",
      x: Number(each.x ?? 0),
      y: Number(each.y ?? 0),
      nearest: each.nearest ?? [],
    })),
    total: Number(response.totalCount ?? 0),
    missing: response.missingCount ?? 0,
    explained: (response.explainedVariance ?? []).map(Number),
    vector: response.targetVector ?? "",
    space: response.space ?? "",
    embedder: response.embedder,
    timing,
  };
}

/** Read the points: x and y of each, one after the other. */
function toPoints(content: string): { xs: Float32Array; ys: Float32Array } {
  const values = toFloats(content);
  return { xs: values.filter((_, at) => at % 2 === 0), ys: values.filter((_, at) => at % 2 === 1) };
}

/** What an object is called on the map. */
export function nameOf(data: MapData, index: number): string {
  const title = data.title === undefined ? undefined : data.columns.get(data.title)?.[index];
  return typeof title === "string" && title.trim() !== "" ? title : (data.ids[index] ?? "");
}
