/** Where an import goes: a collection with its properties for the picture, the name and the path, and the calls to it. */

import { ApiError, call, pagesOf } from "../api";
import { toBase64 } from "../base64";
import { type Failure, readFailure } from "../item-failure";
import type {
  CollectionJson,
  CreateCollectionRequestJson,
  CreateCollectionResponseJson,
  DataObjectJson,
  EmbedderInfoJson,
  ImportObjectsRequestJson,
  ImportObjectsResponseJson,
  ImportResultJson,
  ListObjectsRequestJson,
  ListObjectsResponseJson,
  ServerLimitsJson,
} from "../types";
import { nameOf } from "./folder";
import type { Bounds, Loaded, Target } from "./importer";

const MIB = 1024 * 1024;
const CALL_BYTES = 4 * MIB;
const CALL_OBJECTS = 100;
/** Of what is in a call beside pictures. */
const FRAME_BYTES = 64 * 1024;
/** The blob property of `vecgate import`, so that both can import into one collection. */
const PICTURE = "image";
const PATH = "path";
const NAME = "name";
/** A name says less of a picture than the picture. */
const NAME_WEIGHT = 0.1;

export const COLLECTION_NAME = /^[A-Z][A-Za-z0-9_]{0,254}$/;

export interface Destination {
  readonly collection: string;
  /** Empty for a collection without tenants. */
  readonly tenant: string;
  /** The blob property. */
  readonly picture: string;
  /** The text property for the file's name without its ending; empty for none. */
  readonly name: string;
  /** The text property for the path in the folder; empty for none. */
  readonly path: string;
}

/** The properties that take a picture. Of a blob hash Weaviate keeps a hash only, so such a one is filled here, and never shown. */
export function fillableProperties({ properties = [] }: CollectionJson): string[] {
  return properties.filter(({ dataType }) => dataType === "DATA_TYPE_BLOB" || dataType === "DATA_TYPE_BLOB_HASH").map(({ name = "" }) => name);
}

export function textProperties({ properties = [] }: CollectionJson): string[] {
  return properties.filter(({ dataType }) => dataType === "DATA_TYPE_TEXT").map(({ name = "" }) => name);
}

/** Returns which properties most likely take what. */
export function guess(collection: CollectionJson): Pick<Destination, "picture" | "name" | "path"> {
  const pictures = fillableProperties(collection);
  const texts = textProperties(collection);
  const embedded = (collection.vectors ?? []).flatMap(({ imageFields = [] }) => imageFields.map(({ name = "" }) => name));
  const firstOf = (known: string[], names: string[]) => names.find((each) => known.includes(each)) ?? "";
  return {
    picture: firstOf(pictures, [PICTURE, ...embedded, ...pictures]),
    name: firstOf(texts, [NAME, "title", "filename"]),
    path: firstOf(texts, [PATH, "file"]),
  };
}

/** Creates a collection with a picture, a name and a path, and one named vector. */
export async function create(name: string, embedder: EmbedderInfoJson, withName: boolean): Promise<CollectionJson> {
  const request: CreateCollectionRequestJson = {
    collection: {
      name,
      properties: [
        { name: PICTURE, dataType: "DATA_TYPE_BLOB", description: "The picture." },
        { name: NAME, dataType: "DATA_TYPE_TEXT", description: "The file's name without its ending." },
        { name: PATH, dataType: "DATA_TYPE_TEXT", description: "Where it was in its folder." },
      ],
      vectors: [
        {
          name: "default",
          embedder: embedder.name ?? "",
          imageFields: [{ name: PICTURE, weight: withName ? 1 - NAME_WEIGHT : 1 }],
          ...(withName ? { textFields: [{ name: NAME, weight: NAME_WEIGHT }] } : {}),
        },
      ],
    },
  };
  const { response } = await call<CreateCollectionRequestJson, CreateCollectionResponseJson>("CollectionService", "CreateCollection", request);
  return response.collection ?? request.collection ?? {};
}

export function boundsOf({ maxObjects, maxRequestBytes }: ServerLimitsJson): Bounds {
  const largest = (Number(maxRequestBytes) || 8 * MIB) - FRAME_BYTES;
  return { maxObjects: Math.min(maxObjects || CALL_OBJECTS, CALL_OBJECTS), targetBytes: Math.min(CALL_BYTES, largest / 4), maxBytes: largest };
}

/** Returns the calls of an import. Imports are bulk work by themselves: they give way to searches. */
export function targetOf(destination: Destination): Target<File> {
  const { collection, tenant } = destination;
  const scope = tenant ? { scope: { tenant } } : {};
  return {
    async stored(ids, signal) {
      const beside = destination.name || destination.path;
      const request: ListObjectsRequestJson = {
        collection,
        pageSize: ids.length,
        filters: { condition: { objectField: "OBJECT_FIELD_ID", operator: "FILTER_OPERATOR_CONTAINS_ANY", value: { texts: { values: [...ids] } } } },
        ...scope,
        ...(beside ? { output: { properties: [beside] } } : {}),
      };
      const found = new Set<string>();
      try {
        for await (const { objects = [] } of pagesOf<ListObjectsRequestJson, ListObjectsResponseJson>("ObjectService", "ListObjects", request, signal)) {
          for (const { id = "" } of objects) found.add(id);
        }
      } catch (error) {
        // Who may only import sends everything, which changes nothing; an import may make the tenant.
        if (!(error instanceof ApiError) || !["permission_denied", "TENANT_NOT_FOUND"].some((each) => each === error.code || each === error.reason)) throw error;
      }
      return found;
    },
    async send(pictures, signal) {
      // A file's name that is too long for the model is no reason to refuse its picture.
      const request: ImportObjectsRequestJson = { collection, objects: pictures.map((each) => objectOf(destination, each)), truncate: true, ...scope };
      const { response } = await call<ImportObjectsRequestJson, ImportObjectsResponseJson>("ObjectService", "ImportObjects", request, { signal });
      return (response.results ?? []).map(failureOf);
    },
    read: toBase64,
  };
}

function objectOf(destination: Destination, { picture, content }: Loaded<File>): DataObjectJson {
  const properties: Record<string, string> = {};
  if (destination.name) properties[destination.name] = nameOf(picture.path);
  if (destination.path) properties[destination.path] = picture.path;
  return { id: picture.id, properties, images: { [destination.picture]: { content } } };
}

function failureOf({ stored, error }: ImportResultJson): Failure | null {
  return stored === undefined ? readFailure(error) : null;
}
