/** What the server holds: all collections, or one of them with its schema. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

import { isCancelled, pagesOf } from "../api";
import { getCollection, listCollections, listTenants, typeName, useLoaded } from "../collections";
import { messageOf } from "../item-failure";
import { whole } from "../measures";
import { useMissing, type Missing } from "../missing";
import { Busy } from "../parts/busy";
import { Copyable } from "../parts/copyable";
import { ErrorNote } from "../parts/error-note";
import { Fact, Facts } from "../parts/facts";
import { Table } from "../parts/table";
import { count, short, Text } from "../parts/text";
import { Typed } from "../parts/typed";
import { href, navigate } from "../router";
import type {
  AliasJson,
  CollectionJson,
  ListAliasesRequestJson,
  ListAliasesResponseJson,
  PropertyJson,
  VectorConfigJson,
  WeightedFieldJson,
} from "../types";
import "./collections.css";

/** Collections that are counted at the same time. */
const AT_ONCE = 4;
/** A list of more is cut: it would be of no use, and each is counted. */
const SHOWN_TENANTS = 200;

export function CollectionsPage({ params }: { params: URLSearchParams }) {
  const name = params.get("collection") ?? "";
  return name === "" ? <List /> : <One key={name} name={name} tenant={params.get("tenant") ?? ""} />;
}

async function listAliases(signal: AbortSignal): Promise<AliasJson[]> {
  const found: AliasJson[] = [];
  const pages = pagesOf<ListAliasesRequestJson, ListAliasesResponseJson>("CollectionService", "ListAliases", { pageSize: 1000 }, signal);
  for await (const { aliases = [] } of pages) found.push(...aliases);
  return found;
}

function List() {
  const { value: collections, error, reload } = useLoaded(listCollections, []);
  const { value: aliases } = useLoaded(listAliases, []);
  const counts = useCounts(collections);
  const [filter, setFilter] = useState("");
  const fitting = (collections ?? []).filter((each) => (each.name ?? "").toLowerCase().includes(filter.toLowerCase()));
  return (
    <>
      <h1>Collections</h1>
      <ErrorNote error={error} onRetry={reload} />
      {collections === undefined && error === undefined && <Busy />}
      {collections?.length === 0 && (
        <p class="note">There are no collections. <a href={href("import")}>Import some pictures</a>, or create one with <code>vecgate collections create</code>.</p>
      )}
      {collections !== undefined && collections.length > 0 && (
        <>
          <div class="row head">
            {collections.length > 8 && <label>Find by name<input type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} /></label>}
            <span class="quiet" role="status">{count(fitting.length)} {fitting.length === 1 ? "collection" : "collections"}</span>
            <button type="button" onClick={reload}>Load again</button>
          </div>
          <div class="cards">
            {fitting.map((each) => <Card key={each.name} collection={each} objects={counts[each.name ?? ""]} aliases={aliasesOf(aliases, each)} />)}
          </div>
        </>
      )}
    </>
  );
}

function aliasesOf(aliases: AliasJson[] | undefined, collection: CollectionJson): string[] {
  return (aliases ?? []).filter((each) => each.collection === collection.name).map((each) => each.name ?? "");
}

/** A number of objects, or why there is none. */
type Objects = { number: number } | { why: string };

/** Count the objects of all collections, a few collections at a time. */
function useCounts(collections: CollectionJson[] | undefined): Record<string, Objects> {
  const [counts, setCounts] = useState<Record<string, Objects>>({});
  useEffect(() => {
    const stop = new AbortController();
    const left = (collections ?? []).map((each) => each.name ?? "");
    const work = async () => {
      for (let name = left.shift(); name !== undefined && !stop.signal.aborted; name = left.shift()) {
        const found = await objectsOf(name, stop.signal);
        if (stop.signal.aborted) return;
        const counted = name;
        setCounts((before) => ({ ...before, [counted]: found }));
      }
    };
    setCounts({});
    for (let worker = 0; worker < AT_ONCE; worker++) void work();
    return () => stop.abort();
  }, [collections]);
  return counts;
}

async function objectsOf(name: string, signal: AbortSignal): Promise<Objects> {
  try {
    const found = await getCollection(name, "", signal);
    return found.objectCount === undefined ? { why: "Its tenants hold its objects" } : { number: whole(found.objectCount) };
  } catch (error) {
    return { why: isCancelled(error) ? "" : messageOf(error) };
  }
}

function Card({ collection, objects, aliases }: { collection: CollectionJson; objects: Objects | undefined; aliases: string[] }) {
  const name = collection.name ?? "";
  return (
    <article class="panel" aria-label={name}>
      <h2><a href={href("collections", { collection: name })}><bdi class="text">{short(name)}</bdi></a></h2>
      {collection.description && <p><Text clamp={200}>{collection.description}</Text></p>}
      <p>
        {objects === undefined ? <span class="quiet">counting…</span> : "number" in objects ? <><strong>{count(objects.number)}</strong> {objects.number === 1 ? "object" : "objects"}</> : <span class="quiet"><Text>{objects.why}</Text></span>}
        {collection.multiTenancy?.enabled && <> <span class="badge">tenants</span></>}
        {collection.objectTtl?.enabled && <> <span class="badge">objects expire</span></>}
      </p>
      {aliases.length > 0 && <p class="quiet">Also called <Text clamp={200}>{aliases.join(", ")}</Text></p>}
      <ul class="vectors">
        {(collection.vectors ?? []).map((each) => (
          <li>
            <Text clamp={60}>{each.name ?? ""}</Text> <Bound vector={each} />
            <div class="quiet"><Text clamp={120}>{each.space || "not bound to a space"}</Text>{each.dimension ? `, ${each.dimension} values` : ""}</div>
          </li>
        ))}
      </ul>
      {!collection.multiTenancy?.enabled && <MissingOf name={name} tenant="" objects={objects !== undefined && "number" in objects ? objects.number : undefined} />}
      <Links name={name} tenant="" />
    </article>
  );
}

/** Which embedder of this server fills and searches a named vector. */
function Bound({ vector }: { vector: VectorConfigJson }) {
  if (vector.embedder) return <span class="badge good" title="The embedder"><bdi>{short(vector.embedder, 40)}</bdi></span>;
  return vector.space ? <span class="badge warn">no embedder of this server</span> : <span class="badge">not bound</span>;
}

function Links({ name, tenant }: { name: string; tenant: string }) {
  const place = { collection: name, tenant };
  return (
    <p class="row links">
      <a href={href("search", place)} aria-label={`Search ${short(name, 60)}`}>Search</a>
      <a href={href("map", place)} aria-label={`Map of ${short(name, 60)}`}>Map</a>
      <a href={href("import", place)} aria-label={`Import into ${short(name, 60)}`}>Import</a>
    </p>
  );
}

/** How many objects lack vectors, counted on request. */
function MissingOf({ name, tenant, objects }: { name: string; tenant: string; objects: number | undefined }) {
  const { counted, begin, stop } = useMissing(name, tenant);
  const counting = counted?.state === "counting";
  return (
    <div class="missing-vectors">
      <div class="row">
        {counting ? (
          <button type="button" onClick={stop}>Stop counting</button>
        ) : (
          <button type="button" onClick={begin} aria-label={`${counted ? "Count again" : "Count objects that lack vectors"}: ${short(name, 60)}`}>{counted ? "Count again" : "Count objects that lack vectors"}</button>
        )}
        {counting && <progress aria-label="Objects read" max={Math.max(1, objects ?? 0, counted.seen)} value={counted.seen} />}
      </div>
      <div role="status">{counted && <Counted counted={counted} />}</div>
      {counted?.state === "failed" && <ErrorNote error={counted.error} onRetry={begin} />}
      {counted?.state === "done" && Object.values(counted.missing).some((each) => each > 0) && (
        <Copyable label="the command that fills them in" text={`vecgate objects backfill ${name}${tenant === "" ? "" : ` --tenant ${tenant}`}`} />
      )}
    </div>
  );
}

function Counted({ counted }: { counted: Missing }) {
  const read = `${count(counted.seen)} ${counted.seen === 1 ? "object" : "objects"} read`;
  const lacking = Object.entries(counted.missing).filter(([, each]) => each > 0);
  const how = counted.state === "counting" ? " so far" : counted.state === "done" ? "" : ", then stopped";
  return (
    <>
      <p class="quiet">{read}{how}.</p>
      {lacking.length === 0 ? (
        counted.state === "done" && counted.seen > 0 && <p>All have all their vectors.</p>
      ) : (
        <ul>{lacking.map(([vector, each]) => <li><strong>{count(each)}</strong> lack <Text clamp={60}>{vector}</Text></li>)}</ul>
      )}
    </>
  );
}

/** A collection's own page. */
function One({ name, tenant }: { name: string; tenant: string }) {
  const { value: collection, error, reload } = useLoaded((signal) => getCollection(name, tenant, signal), [name, tenant]);
  const { value: aliases } = useLoaded(listAliases, []);
  return (
    <>
      <p><a href={href("collections")}>All collections</a></p>
      <h1><Text clamp={120}>{name}</Text></h1>
      <ErrorNote error={error} onRetry={reload} />
      {collection === undefined && error === undefined && <Busy />}
      {collection !== undefined && <Details collection={collection} tenant={tenant} aliases={aliasesOf(aliases, collection)} onReload={reload} />}
    </>
  );
}

function Details({ collection, tenant, aliases, onReload }: { collection: CollectionJson; tenant: string; aliases: string[]; onReload: () => void }) {
  const name = collection.name ?? "";
  const tenants = collection.multiTenancy?.enabled === true;
  const objects = collection.objectCount === undefined ? undefined : whole(collection.objectCount);
  const embedded = new Set((collection.vectors ?? []).flatMap((each) => [...(each.imageFields ?? []), ...(each.textFields ?? [])]).map((each) => each.name ?? ""));
  return (
    <>
      {collection.description && <p><Text>{collection.description}</Text></p>}
      <Links name={name} tenant={tenant} />
      {tenants && <Tenants collection={name} tenant={tenant} />}
      <Facts>
        <Fact name={tenant === "" ? "Objects" : "Objects of this tenant"}>{objects === undefined ? "held by its tenants" : count(objects)}</Fact>
        {aliases.length > 0 && <Fact name="Also called"><Text clamp={400}>{aliases.join(", ")}</Text></Fact>}
        <Fact name="Default vector"><Text>{collection.defaultVector || "none: searches name one"}</Text></Fact>
        {collection.objectTtl?.enabled && <Fact name="Objects expire">{expiry(collection)}</Fact>}
        {collection.reranker?.module && <Fact name="Reranked by"><Text>{collection.reranker.module}</Text></Fact>}
        {tenants && <Fact name="New tenants">{collection.multiTenancy?.autoTenantCreation ? "are made by imports" : "are made by hand"}</Fact>}
        {collection.replication?.factor !== undefined && <Fact name="Replicas">{collection.replication.factor}</Fact>}
        {collection.sharding?.actualCount !== undefined && <Fact name="Shards">{collection.sharding.actualCount}</Fact>}
      </Facts>
      <p><button type="button" onClick={onReload}>Load again</button></p>
      <h2>Vectors</h2>
      <Table
        caption="Named vectors"
        head={["Name", "Space", "Values", "Embedder", "Made of", "Index", "Distance"]}
        rows={(collection.vectors ?? []).map((each) => vectorRow(each, each.name === collection.defaultVector))}
      />
      {(!tenants || tenant !== "") && <MissingOf name={name} tenant={tenant} objects={objects} />}
      <h2>Properties</h2>
      <Table
        caption="Properties"
        head={["Name", "Type", "Found by", "Tokenization", "Description"]}
        rows={(collection.properties ?? []).flatMap((each) => propertyRows(each, "", embedded))}
      />
      <h2>Schema</h2>
      <details class="schema">
        <summary>As JSON</summary>
        <Copyable label="the schema" text={JSON.stringify(collection, null, 2)} />
      </details>
    </>
  );
}

const SINCE: Record<string, string> = { _creationTimeUnix: "their creation", _lastUpdateTimeUnix: "their last update" };

function expiry({ objectTtl }: CollectionJson): string {
  const since = objectTtl?.deleteOn ?? "";
  return `${count(objectTtl?.defaultTtlSeconds)} s after ${SINCE[since] ?? `the date in ${since}`}`;
}

function vectorRow(vector: VectorConfigJson, isDefault: boolean): ComponentChildren[] {
  return [
    <><Text clamp={60}>{vector.name ?? ""}</Text>{isDefault && <> <span class="badge">default</span></>}{vector.native && <> <span class="badge">also Weaviate's own</span></>}</>,
    <div class="space"><Text clamp={120}>{vector.space || "not bound"}</Text>{vector.model && vector.model !== vector.space && <div class="quiet"><Text clamp={120}>{vector.model}</Text></div>}</div>,
    vector.dimension || "unknown",
    <Bound vector={vector} />,
    <Fields vector={vector} />,
    indexName(vector),
    word(vector.index?.distance, "DISTANCE_") || "unknown",
  ];
}

function Fields({ vector }: { vector: VectorConfigJson }) {
  const fields = [...(vector.imageFields ?? []), ...(vector.textFields ?? [])];
  if (fields.length === 0) return <span class="quiet">vectors of the caller only</span>;
  return (
    <>
      <Text>{fields.map(fieldName).join(", ")}</Text>
      {vector.combination === "COMBINATION_JOINT_INPUT" && <div class="quiet">as one input</div>}
    </>
  );
}

function fieldName(field: WeightedFieldJson): string {
  return field.weight === undefined ? (field.name ?? "") : `${field.name ?? ""} (${Number(Number(field.weight).toPrecision(4))})`;
}

const INDEXES = ["hnsw", "flat", "dynamic", "hfresh"] as const;

/** The index and what makes its vectors smaller. */
function indexName({ index }: VectorConfigJson): string {
  const type = INDEXES.find((each) => index?.[each] !== undefined);
  const quantizer = Object.keys(index?.quantizer ?? {}).find((each) => each !== "none");
  return [type ?? "unknown", quantizer].filter((each) => each !== undefined).join(", ");
}

/** A value of an enum as a word: DISTANCE_L2_SQUARED is "l2-squared". */
function word(value: string | undefined, prefix: string): string {
  return (value ?? "").replace(prefix, "").replace("UNSPECIFIED", "").toLowerCase().replaceAll("_", "-");
}

function propertyRows(property: PropertyJson, within: string, embedded: ReadonlySet<string>): ComponentChildren[][] {
  const name = `${within}${property.name ?? ""}`;
  const uses = [property.indexFilterable && "filters", property.indexSearchable && "keywords", property.indexRangeFilters && "ranges", embedded.has(name) && "vectors"].filter(Boolean);
  return [
    [
      <Text clamp={120}>{name}</Text>,
      typeName(property) || "unknown",
      uses.length > 0 ? uses.join(", ") : <span class="quiet">{within === "" ? "nothing" : ""}</span>,
      word(property.tokenization, "TOKENIZATION_"),
      property.description ? <Text clamp={200}>{property.description}</Text> : "",
    ],
    ...(property.nestedProperties ?? []).flatMap((each) => propertyRows(each, `${name}.`, embedded)),
  ];
}

/** Choose the tenant whose objects are counted. */
function Tenants({ collection, tenant }: { collection: string; tenant: string }) {
  const { value: tenants, error, reload } = useLoaded((signal) => listTenants(collection, signal), [collection]);
  const shown = (tenants ?? []).slice(0, SHOWN_TENANTS);
  const choose = (name: string) => navigate("collections", { collection, tenant: name });
  return (
    <div class="fields tenants">
      <ErrorNote error={error} onRetry={reload} />
      <label>
        Tenant
        <Typed list="tenants" value={tenant} placeholder="choose or type one" autocomplete="off" onChange={(text) => choose(text.trim())} />
      </label>
      <datalist id="tenants">{shown.map((each) => <option value={each.name} />)}</datalist>
      {tenants !== undefined && <span class="quiet">{count(tenants.length)}{tenants.length >= 1000 ? " or more" : ""} {tenants.length === 1 ? "tenant" : "tenants"}, {count(tenants.filter((each) => each.activityStatus === "TENANT_ACTIVITY_STATUS_ACTIVE").length)} active</span>}
    </div>
  );
}
