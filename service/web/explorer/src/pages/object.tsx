import { call } from "../api";
import { fromBase64, toFloats } from "../base64";
import { getCollection, listEmbedders, pictureProperties, titleProperty, typeName, useLoaded } from "../collections";
import { Busy } from "../parts/busy";
import { Copyable } from "../parts/copyable";
import { ErrorNote } from "../parts/error-note";
import { LocalPicture } from "../parts/picture";
import { Table } from "../parts/table";
import { count, short, Text } from "../parts/text";
import { asText, Value } from "../parts/value";
import { VectorStrip } from "../parts/vector-strip";
import { showable } from "../raster";
import { href } from "../router";
import type {
  CollectionJson,
  DataObjectJson,
  GetObjectRequestJson,
  GetObjectResponseJson,
  HitJson,
  JsonValue,
  ListEmbeddersResponseJson,
  SearchObjectsRequestJson,
  SearchObjectsResponseJson,
  VectorConfigJson,
} from "../types";

interface Whole {
  collection: CollectionJson;
  object: DataObjectJson;
  /** The embedders by their spaces. */
  embedders: ListEmbeddersResponseJson;
}

/** Everything that is stored of one object. */
export function ObjectPage({ params }: { params: URLSearchParams }) {
  const of = (name: string) => params.get(name) ?? "";
  const [collection, tenant, id] = [of("collection"), of("tenant"), of("id")];
  const { value, error, reload } = useLoaded((signal) => load(collection, tenant, id, signal), [collection, tenant, id]);
  if (error !== undefined) {
    return (
      <>
        <h1>Object</h1>
        <ErrorNote error={error} onRetry={reload} />
        <p><a href={href("search", { collection, tenant })}>Search the collection</a></p>
      </>
    );
  }
  return value === undefined ? <Busy>Loading the object</Busy> : <Shown whole={value} tenant={tenant} />;
}

async function load(name: string, tenant: string, id: string, signal: AbortSignal): Promise<Whole> {
  const scope = tenant ? { scope: { tenant } } : {};
  const [collection, embedders] = await Promise.all([getCollection(name, tenant, signal), listEmbedders(signal)]);
  const output = {
    properties: storedProperties(collection),
    images: pictureProperties(collection),
    vectors: (collection.vectors ?? []).map((each) => each.name ?? ""),
  };
  const { response } = await call<GetObjectRequestJson, GetObjectResponseJson>("ObjectService", "GetObject", { collection: name, id, ...scope, output }, { signal });
  return { collection, object: response.object ?? {}, embedders };
}

/** All but blobs. Hashes of blobs come only where they are named, and then all others have to be named, too. */
function storedProperties(collection: CollectionJson): string[] {
  const properties = (collection.properties ?? []).filter((each) => each.dataType !== "DATA_TYPE_BLOB" && each.dataType !== undefined && each.dataType !== "DATA_TYPE_UNSPECIFIED");
  return properties.some((each) => each.dataType === "DATA_TYPE_BLOB_HASH") ? properties.map((each) => each.name ?? "") : [];
}

function Shown({ whole: { collection, object, embedders }, tenant }: { whole: Whole; tenant: string }) {
  const { id = "", images = {}, vectors = {} } = object;
  const properties = (object.properties ?? {}) as Record<string, JsonValue>;
  const title = titleProperty(collection);
  const name = collection.name ?? "";
  const heading = title === undefined ? id : asText(properties[title] ?? id);
  return (
    <article class="object">
      <p class="quiet"><a href={href("search", { collection: name, tenant })}><bdi class="text">{short(name, 80)}</bdi></a>{tenant && <>, tenant <Text clamp={80}>{tenant}</Text></>}</p>
      <h1><Text clamp={120}>{heading}</Text></h1>
      <div class="row">
        <a class="button primary" href={href("search", { collection: name, tenant, like: id })}>More like this</a>
      </div>
      <div class="columns">
        {pictureProperties(collection).length > 0 && (
          <div class="stack">
            {pictureProperties(collection).map((each) => <Image property={each} content={images[each]?.content} title={heading} />)}
          </div>
        )}
        <div class="stack">
          <section>
            <h2>Properties</h2>
            <Properties collection={collection} properties={properties} />
          </section>
          <section>
            <h2>Vectors</h2>
            <div class="stack">
              {(collection.vectors ?? []).map((each) => <NamedVector config={each} data={vectors[each.name ?? ""]?.data} embedders={embedders} />)}
            </div>
          </section>
          <section>
            <h2>Identity</h2>
            <Copyable label="id" text={id} />
            <Times collection={collection} vectors={Object.keys(vectors)} tenant={tenant} id={id} />
          </section>
        </div>
      </div>
    </article>
  );
}

function Image({ property, content, title }: { property: string; content: string | undefined; title: string }) {
  const bytes = content ? fromBase64(content) : undefined;
  const blob = bytes && showable(bytes);
  return (
    <figure>
      {blob ? <LocalPicture blob={blob} alt={short(title)} /> : <span class="picture"><span class="missing">{bytes ? "not a picture that browsers show" : "no picture"}</span></span>}
      <figcaption class="quiet"><Text clamp={60}>{property}</Text>{blob && <>, {blob.type.replace("image/", "").toUpperCase()}</>}{bytes && <>, {count(bytes.length)} bytes</>}</figcaption>
    </figure>
  );
}

function Properties({ collection, properties }: { collection: CollectionJson; properties: Record<string, JsonValue> }) {
  const shown = (collection.properties ?? []).filter((each) => each.dataType !== "DATA_TYPE_BLOB");
  const unknown = Object.keys(properties).filter((name) => !shown.some((each) => each.name === name));
  if (shown.length + unknown.length === 0) return <p class="quiet">The collection has no properties but pictures.</p>;
  const rows = [
    ...shown.map((each) => [<Text clamp={80}>{each.name ?? ""}</Text>, <Value value={properties[each.name ?? ""]} />, <span class="quiet">{typeName(each)}</span>]),
    ...unknown.map((each) => [<Text clamp={80}>{each}</Text>, <Value value={properties[each]} />, ""]),
  ];
  return <Table caption="Properties" head={["Property", "Value", "Type"]} rows={rows} />;
}

/** A vector as a strip, and where it belongs. */
function NamedVector({ config, data, embedders }: { config: VectorConfigJson; data: string | undefined; embedders: ListEmbeddersResponseJson }) {
  const values = data ? toFloats(data) : undefined;
  const embedder = embedders.embedders?.find((each) => each.space !== undefined && each.space === config.space);
  const norm = values && Math.sqrt(values.reduce((sum, each) => sum + each * each, 0));
  const name = config.name ?? "";
  return (
    <div class="panel vector">
      <div class="row between">
        <h3><Text clamp={80}>{name}</Text></h3>
        {values ? <span class="badge good">stored</span> : <span class="badge bad">missing</span>}
      </div>
      {values && norm !== undefined ? (
        <>
          <VectorStrip values={values} label={`${values.length} values of the vector ${short(name, 40)}, length ${norm.toFixed(3)}`} />
          <p class="quiet">{count(values.length)} values from {least(values)} to {most(values)}, length {norm.toFixed(3)}</p>
        </>
      ) : (
        <p>Searches of this named vector do not find the object. It has nothing to embed for it, or its embedder was down; BackfillVectors adds what can be embedded.</p>
      )}
      <dl class="facts">
        <div><dt>Space</dt><dd>{config.space ? <code><Text>{config.space}</Text></code> : "unknown: another program made these vectors"}</dd></div>
        <div><dt>Model at creation</dt><dd>{config.model ? <Text clamp={80}>{config.model}</Text> : "unknown"}</dd></div>
        <div><dt>Embedder now</dt><dd>{embedder ? <><Text clamp={80}>{embedder.name ?? ""}</Text> <Health health={embedder.health} /></> : <span class="badge warn">this server has none of this space</span>}</dd></div>
        <div><dt>Made of</dt><dd><Text>{madeOf(config)}</Text></dd></div>
      </dl>
    </div>
  );
}

function Health({ health }: { health: string | undefined }) {
  return health === "EMBEDDER_HEALTH_READY" ? <span class="badge good">ready</span> : <span class="badge bad">unavailable</span>;
}

function madeOf(config: VectorConfigJson): string {
  const fields = [...(config.imageFields ?? []), ...(config.textFields ?? [])];
  const parts = fields.map((each) => (each.weight === undefined ? `${each.name}` : `${each.name} (weight ${Number(Number(each.weight).toPrecision(4))})`));
  if (parts.length === 0) return "vectors that callers send";
  return parts.join(", ") + (config.combination === "COMBINATION_JOINT_INPUT" ? ", read as one input" : "");
}

function least(values: Float32Array): string {
  return values.reduce((found, each) => Math.min(found, each), Infinity).toFixed(3);
}

function most(values: Float32Array): string {
  return values.reduce((found, each) => Math.max(found, each), -Infinity).toFixed(3);
}

/** When it was created and updated. Only searches say it, so the object is searched by itself. */
function Times({ collection, vectors, tenant, id }: { collection: CollectionJson; vectors: string[]; tenant: string; id: string }) {
  const [vector] = vectors;
  const { value } = useLoaded((signal) => findTimes(collection.name ?? "", vector, tenant, id, signal), [collection, vector, tenant, id]);
  if (!value?.creationTime) return null;
  return (
    <dl class="facts">
      <div><dt>Created</dt><dd><Moment text={value.creationTime} /></dd></div>
      {value.updateTime && <div><dt>Last updated</dt><dd><Moment text={value.updateTime} /></dd></div>}
    </dl>
  );
}

async function findTimes(collection: string, vector: string | undefined, tenant: string, id: string, signal: AbortSignal): Promise<HitJson | undefined> {
  if (vector === undefined) return undefined;
  const request: SearchObjectsRequestJson = {
    collection,
    nearObject: { id },
    targetVectors: [vector],
    filters: { condition: { objectField: "OBJECT_FIELD_ID", operator: "FILTER_OPERATOR_EQUAL", value: { text: id } } },
    limit: 1,
    returnTimes: true,
    ...(tenant ? { scope: { tenant } } : {}),
  };
  const { response } = await call<SearchObjectsRequestJson, SearchObjectsResponseJson>("SearchService", "SearchObjects", request, { signal });
  return response.hits?.[0];
}

function Moment({ text }: { text: string }) {
  return <time dateTime={text}>{new Date(text).toLocaleString()}</time>;
}
