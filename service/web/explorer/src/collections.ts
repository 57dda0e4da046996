/** The collections of the server, and what their properties are good for. */

import { useEffect, useState } from "preact/hooks";

import { call, isCancelled, pagesOf } from "./api";
import type {
  CollectionJson,
  GetCollectionRequestJson,
  GetCollectionResponseJson,
  ListCollectionsRequestJson,
  ListCollectionsResponseJson,
  ListEmbeddersRequestJson,
  ListEmbeddersResponseJson,
  ListTenantsRequestJson,
  ListTenantsResponseJson,
  PropertyJson,
  TenantJson,
} from "./types";

/** What is loaded for a page: the value, or the error, or neither yet. */
export interface Loaded<Value> {
  value: Value | undefined;
  error: unknown;
  reload: () => void;
}

/** Load something when the page is shown, and again when one of the keys changes. */
export function useLoaded<Value>(load: (signal: AbortSignal) => Promise<Value>, keys: unknown[]): Loaded<Value> {
  const [state, setState] = useState<{ value?: Value; error?: unknown }>({});
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    setState((before) => (round > 0 && before.value !== undefined ? { value: before.value } : {}));
    load(stop.signal).then(
      (value) => !stop.signal.aborted && setState({ value }),
      (error: unknown) => !stop.signal.aborted && !isCancelled(error) && setState({ error }),
    );
    return () => stop.abort();
  }, [...keys, round]);
  return { value: state.value, error: state.error, reload: () => setRound((before) => before + 1) };
}

/** All collections that the caller may see, by name. */
export async function listCollections(signal: AbortSignal): Promise<CollectionJson[]> {
  const found: CollectionJson[] = [];
  const pages = pagesOf<ListCollectionsRequestJson, ListCollectionsResponseJson>("CollectionService", "ListCollections", { pageSize: 1000 }, signal);
  for await (const { collections = [] } of pages) found.push(...collections);
  return found;
}

/** A collection with the number of its objects, or of one tenant's objects. */
export async function getCollection(name: string, tenant: string, signal: AbortSignal): Promise<CollectionJson> {
  const request: GetCollectionRequestJson = { name, ...(tenant === "" ? {} : { scope: { tenant } }) };
  return (await call<GetCollectionRequestJson, GetCollectionResponseJson>("CollectionService", "GetCollection", request, { signal })).response.collection ?? {};
}

/** The first tenants of a collection; a list is for choosing, and more are typed. */
export async function listTenants(collection: string, signal: AbortSignal): Promise<TenantJson[]> {
  const { response } = await call<ListTenantsRequestJson, ListTenantsResponseJson>(
    "CollectionService",
    "ListTenants",
    { collection, pageSize: 1000 },
    { signal },
  );
  return response.tenants ?? [];
}

export async function listEmbedders(signal?: AbortSignal): Promise<ListEmbeddersResponseJson> {
  return (await call<ListEmbeddersRequestJson, ListEmbeddersResponseJson>("EmbeddingService", "ListEmbedders", {}, signal ? { signal } : {})).response;
}

/** The blob properties, those first that vectors are made of. */
export function pictureProperties(collection: CollectionJson): string[] {
  const embedded = (collection.vectors ?? []).flatMap((each) => (each.imageFields ?? []).map((field) => field.name));
  const blobs = (collection.properties ?? []).filter((each) => each.dataType === "DATA_TYPE_BLOB").map((each) => each.name ?? "");
  return [...blobs.filter((each) => embedded.includes(each)), ...blobs.filter((each) => !embedded.includes(each))];
}

const TITLES = ["title", "name", "caption", "label", "headline", "description", "text", "path", "file"];

/** The property that names an object best; undefined if it has no text. */
export function titleProperty(collection: CollectionJson): string | undefined {
  const texts = (collection.properties ?? []).filter((each) => each.dataType === "DATA_TYPE_TEXT").map((each) => each.name ?? "");
  return TITLES.map((title) => texts.find((each) => each.toLowerCase() === title)).find((each) => each !== undefined) ?? texts[0];
}

const SMALL = new Set(["DATA_TYPE_INT", "DATA_TYPE_NUMBER", "DATA_TYPE_BOOLEAN", "DATA_TYPE_DATE", "DATA_TYPE_UUID", "DATA_TYPE_GEO_COORDINATES"]);

/** A property with small values, to fetch beside a picture: see `PictureKey.beside`. */
export function smallProperty(collection: CollectionJson): string | undefined {
  const properties = collection.properties ?? [];
  return (properties.find((each) => SMALL.has(each.dataType ?? "")) ?? properties.find((each) => each.dataType === "DATA_TYPE_TEXT"))?.name;
}

const TYPE = /^DATA_TYPE_/;

/** A property's type as Weaviate writes it: "text[]". */
export function typeName(property: PropertyJson): string {
  const words = (property.dataType ?? "").replace(TYPE, "").toLowerCase();
  return words.replace(/_array$/, "[]").replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
}
