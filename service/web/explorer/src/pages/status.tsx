/** What the server is doing, as it does it. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError, call } from "../api";
import { listEmbedders } from "../collections";
import { counted, levels, mean, means, quantile, quantiles, rates, seconds, shares, sumOf, WINDOW_MS, whole, withSample, words, type Sample, type Values } from "../measures";
import { Busy } from "../parts/busy";
import { Charts, type ChartSpec } from "../parts/chart";
import { ErrorNote } from "../parts/error-note";
import { Fact, Facts } from "../parts/facts";
import { Meter } from "../parts/meter";
import { Table } from "../parts/table";
import { count, Text } from "../parts/text";
import { useClock, usePolled, type Polled } from "../polling";
import { href } from "../router";
import type {
  ClientStatusJson,
  EmbedderInfoJson,
  EmbedderStatusJson,
  GetServerStatusRequestJson,
  GetServerStatusResponseJson,
  HistogramJson,
  ListCollectionsRequestJson,
  ListCollectionsResponseJson,
  ListEmbeddersResponseJson,
  RerankerInfoJson,
  RerankerStatusJson,
} from "../types";
import "./status.css";

const EVERY_MS = 2000;

interface Seen {
  listed: ListEmbeddersResponseJson;
  /** Undefined if the caller may not see it. */
  status: GetServerStatusResponseJson | undefined;
  /** Whether Weaviate answers; undefined if the caller may not know. */
  storeAnswers: boolean | undefined;
}

/** Whether the key may see the server's status is asked once for each key. */
let mayNotSee = false;
window.addEventListener("keychange", () => (mayNotSee = false));

async function look(signal: AbortSignal): Promise<Seen> {
  const [listed, status] = await Promise.all([listEmbedders(signal), getStatus(signal)]);
  return { listed, status, storeAnswers: status ? status.storeAvailable === true : await storeAnswers(signal) };
}

async function getStatus(signal: AbortSignal): Promise<GetServerStatusResponseJson | undefined> {
  if (mayNotSee) return undefined;
  try {
    return (await call<GetServerStatusRequestJson, GetServerStatusResponseJson>("AdminService", "GetServerStatus", {}, { signal })).response;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "permission_denied") throw error;
    mayNotSee = true;
    return undefined;
  }
}

/** Those who may not see the status see that Weaviate is down by what else needs it. */
async function storeAnswers(signal: AbortSignal): Promise<boolean | undefined> {
  try {
    await call<ListCollectionsRequestJson, ListCollectionsResponseJson>("CollectionService", "ListCollections", { pageSize: 1 }, { signal });
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.reason === "STORE_UNAVAILABLE") return false;
    if (error.code === "permission_denied") return undefined;
    throw error;
  }
}

export function StatusPage({ params: _ }: { params: URLSearchParams }) {
  const polled = usePolled(look, EVERY_MS);
  const samples = useSamples(polled.value?.status);
  const { value: seen } = polled;
  return (
    <>
      <h1>Status</h1>
      <Link polled={polled} />
      {seen === undefined && polled.error === undefined && <Busy>Asking the server</Busy>}
      {seen !== undefined && (
        <>
          {polled.error !== undefined && <p class="quiet">What follows is the last answer.</p>}
          {seen.status ? <Server status={seen.status} samples={samples} /> : <MayNotSee />}
          <Embedders listed={seen.listed} samples={samples} />
          <Weaviate seen={seen} samples={samples} />
          <Rerankers listed={seen.listed} samples={samples} />
          {seen.status && <Clients samples={samples} clients={seen.status.clients ?? []} />}
          {seen.status && <Failures status={seen.status} />}
        </>
      )}
    </>
  );
}

/** The answers of the last two minutes, for charts. */
function useSamples(status: GetServerStatusResponseJson | undefined): Sample[] {
  const kept = useRef<Sample[]>([]);
  const last = useRef<GetServerStatusResponseJson | undefined>(undefined);
  if (status !== undefined && status !== last.current) kept.current = withSample(kept.current, status);
  if (status === undefined) kept.current = [];
  last.current = status;
  return kept.current;
}

/** Whether the server answers, and when it is asked again. */
function Link({ polled }: { polled: Polled<Seen> }) {
  const { error, failingSince, nextAt, again, recoveries } = polled;
  const now = useClock(failingSince !== undefined);
  const [back, setBack] = useState(false);
  useEffect(() => {
    if (recoveries === 0) return undefined;
    setBack(true);
    const timer = setTimeout(() => setBack(false), 10_000);
    return () => clearTimeout(timer);
  }, [recoveries]);
  const away = failingSince !== undefined;
  const left = nextAt === undefined ? 0 : Math.max(0, Math.ceil((nextAt - now) / 1000));
  return (
    <>
      <p class="quiet" role="status">
        {away ? `No answer since ${new Date(failingSince).toLocaleTimeString()}.` : back ? "The server answers again." : `Updated every ${EVERY_MS / 1000} seconds while this page is in view; charts begin when it is opened. Times are means, and what 95 of 100 stay below (p95).`}
      </p>
      {away && (
        <>
          <ErrorNote error={error} />
          <p class="row">
            <button type="button" onClick={again}>Try now</button>
            <span class="quiet">{nextAt === undefined ? "It is not asked again by itself." : left > 0 ? `Asked again in ${left} s.` : "Asking…"}</span>
          </p>
        </>
      )}
    </>
  );
}

function MayNotSee() {
  return (
    <p class="note">
      Queues, times and quotas are for keys with the permission <code>admin</code>. What any key may see is below.
    </p>
  );
}

const SERVICE = "vecgate.v1.";

/** The times of some methods together. */
function timesOf(...names: string[]): (status: GetServerStatusResponseJson) => HistogramJson | undefined {
  return (status) => sumOf((status.methods ?? []).filter((each) => names.includes(each.name ?? "")).map((each) => each.seconds));
}

const searching = timesOf(`${SERVICE}SearchService/SearchObjects`);
const embedding = timesOf(`${SERVICE}EmbeddingService/EmbedInputs`, "POST /v1/embeddings");
const importing = timesOf(`${SERVICE}ObjectService/ImportObjects`);

function meanAndTail(samples: Sample[], of: (status: GetServerStatusResponseJson) => HistogramJson | undefined): { name: string; values: Values }[] {
  return [
    { name: "mean", values: means(samples, of) },
    { name: "p95", values: quantiles(samples, 0.95, of) },
  ];
}

function timesIn(samples: Sample[]): number[] {
  return samples.map((each) => each.at);
}

function Server({ status, samples }: { status: GetServerStatusResponseJson; samples: Sample[] }) {
  const up = (Date.parse(status.observeTime ?? "") - Date.parse(status.startTime ?? "")) / 1000;
  const calls = (each: GetServerStatusResponseJson) => (each.methods ?? []).reduce((sum, method) => sum + whole(method.seconds?.count), 0);
  const charts: ChartSpec[] = [
    { title: "Calls", lines: [{ name: "calls", values: rates(samples, calls) }], format: words.rate },
    { title: "Search", lines: meanAndTail(samples, searching), format: words.time },
    { title: "Embedding", lines: meanAndTail(samples, embedding), format: words.time },
    { title: "Import", lines: meanAndTail(samples, importing), format: words.time },
    { title: "CPU", lines: [{ name: "cores", values: rates(samples, (each) => seconds(each.cpuTime)) }], format: (value) => `${value.toFixed(2)} cores` },
    { title: "Memory", lines: [{ name: "memory", values: levels(samples, (each) => each.residentBytes) }], format: words.bytes, binary: true },
  ];
  return (
    <section aria-labelledby="server" class="panel">
      <h2 id="server">Server</h2>
      <Facts>
        <Fact name="Release">{status.release}</Fact>
        <Fact name="Up for">{words.span(up)}</Fact>
        <Fact name="Processes">{status.workers}</Fact>
        <Fact name="HTTP requests in progress">{count(status.httpRequestsInFlight)}</Fact>
      </Facts>
      <div class="meters">
        <Meter label="gRPC calls in progress" value={whole(status.callsInFlight)} most={whole(status.maxCalls)} format={count} />
        {whole(status.maxCacheBytes) > 0 && <Meter label="Cache of vectors" value={whole(status.cacheBytes)} most={whole(status.maxCacheBytes)} format={words.bytes} />}
      </div>
      <Charts caption="the server" charts={charts} times={timesIn(samples)} />
    </section>
  );
}

function Embedders({ listed, samples }: { listed: ListEmbeddersResponseJson; samples: Sample[] }) {
  const infos = listed.embedders ?? [];
  return (
    <section aria-labelledby="embedders">
      <h2 id="embedders">Embedders</h2>
      <div class="stack">
        {infos.map((info, at) => <Embedder key={info.name} info={info} first={at === 0 && infos.length > 1} samples={samples} />)}
      </div>
    </section>
  );
}

function Embedder({ info, first, samples }: { info: EmbedderInfoJson; first: boolean; samples: Sample[] }) {
  const name = info.name ?? "";
  const of = (status: GetServerStatusResponseJson | undefined) => status?.embedders?.find((each) => each.name === name);
  const status = of(samples.at(-1)?.status);
  return (
    <article class="panel" aria-label={`Embedder ${name}`}>
      <h3><Text>{name}</Text> {first && <span class="badge">default</span>} <Health info={info} breakerOpen={status?.breakerOpen === true} /></h3>
      {info.healthDetail && <p class="fault"><Text>{info.healthDetail}</Text></p>}
      <Facts>
        <Fact name="Model"><Text>{info.model || "not known yet"}</Text></Fact>
        <Fact name="Space"><Text>{info.space || "not known yet"}</Text></Fact>
        <Fact name="Dimension">{info.dimension || "not known yet"}</Fact>
        <Fact name="Reads">{kinds(info.modalities)}</Fact>
        {status && <Fact name="Batches running">{count(status.runningBatches)}</Fact>}
        {status && <Fact name="Breaker opened">{times(status.breakerOpenings)}</Fact>}
        {status && <Fact name="Inputs embedded">{count(status.embeddedInputs)}</Fact>}
        {status && whole(status.rejectedInputs) > 0 && <Fact name="Inputs refused">{count(status.rejectedInputs)}</Fact>}
        {status && whole(status.failedInputs) > 0 && <Fact name="Inputs failed">{count(status.failedInputs)}</Fact>}
        {status && whole(status.refusedCalls) > 0 && <Fact name="Calls without room">{count(status.refusedCalls)}</Fact>}
      </Facts>
      {status && <EmbedderMeters status={status} />}
      {status && <Charts caption={`embedder ${name}`} charts={embedderCharts(samples, (each) => of(each) ?? {}, status)} times={timesIn(samples)} />}
    </article>
  );
}

function EmbedderMeters({ status }: { status: EmbedderStatusJson }) {
  const waited = seconds(status.oldestWait);
  return (
    <div class="meters">
      <Meter label={waited > 0 ? `Queue, the oldest since ${words.time(waited)}` : "Queue"} value={whole(status.queuedInputs)} most={whole(status.maxQueuedInputs)} format={count} />
      <Meter label="Bytes in the queue" value={whole(status.queuedBytes)} most={whole(status.maxQueuedBytes)} format={words.bytes} />
    </div>
  );
}

function embedderCharts(samples: Sample[], of: (status: GetServerStatusResponseJson) => EmbedderStatusJson, latest: EmbedderStatusJson): ChartSpec[] {
  const cached = (status: GetServerStatusResponseJson) => whole(of(status).cacheHits) + whole(of(status).cacheJoins);
  const size = means(samples, (each) => of(each).batchFill).map((each) => (each === null ? null : each * whole(latest.maxBatch)));
  return [
    { title: "Inputs", lines: [{ name: "embedded", values: rates(samples, (each) => of(each).embeddedInputs) }], format: words.rate },
    { title: "In the queue", lines: [{ name: "inputs", values: levels(samples, (each) => of(each).queuedInputs) }], format: count },
    { title: "Wait", lines: meanAndTail(samples, (each) => of(each).queueSeconds), format: words.time },
    { title: "Batch", lines: meanAndTail(samples, (each) => of(each).backendSeconds), format: words.time },
    { title: "Inputs in a batch", lines: [{ name: "inputs", values: size }], format: words.number, most: whole(latest.maxBatch) || undefined },
    { title: "From the cache", lines: [{ name: "share", values: shares(samples, cached, (each) => of(each).cacheMisses) }], format: words.share, most: 1 },
  ];
}

function Health({ info, breakerOpen }: { info: EmbedderInfoJson | RerankerInfoJson; breakerOpen: boolean }) {
  if (breakerOpen) return <span class="badge bad">breaker open</span>;
  if (info.health === "EMBEDDER_HEALTH_READY") return <span class={info.healthDetail ? "badge warn" : "badge good"}>ready</span>;
  return <span class="badge bad">unavailable</span>;
}

function kinds(modalities: string[] | undefined): string {
  return (modalities ?? []).map((each) => each.replace("MODALITY_", "").toLowerCase().replace("text_image", "text with image")).join(", ");
}

function times(value: string | number | undefined): string {
  const number = whole(value);
  return number === 0 ? "never" : number === 1 ? "once" : `${count(number)} times`;
}

function Weaviate({ seen, samples }: { seen: Seen; samples: Sample[] }) {
  const store = seen.status?.store;
  const answers = seen.storeAnswers;
  const of = (...names: string[]) => (status: GetServerStatusResponseJson) =>
    sumOf((status.store?.operations ?? []).filter((each) => names.includes(each.name ?? "")).map((each) => each.seconds));
  const failures = (status: GetServerStatusResponseJson) => (status.store?.operations ?? []).reduce((sum, each) => sum + whole(each.failures), 0);
  const charts: ChartSpec[] = [
    { title: "Search", lines: meanAndTail(samples, of("search")), format: words.time },
    { title: "Read", lines: meanAndTail(samples, of("get_object", "get_objects")), format: words.time },
    { title: "Write", lines: meanAndTail(samples, of("put_objects")), format: words.time },
    { title: "No answer", lines: [{ name: "failures", values: rates(samples, failures) }], format: words.rate },
  ];
  return (
    <section aria-labelledby="weaviate" class="panel">
      <h2 id="weaviate">
        Weaviate{" "}
        {answers === undefined ? <span class="badge">not shown to this key</span> : answers ? <span class="badge good">answers</span> : <span class="badge bad">does not answer</span>}
      </h2>
      <p><a href={href("collections")}>Collections</a> <span class="quiet">have their objects counted, and those that lack vectors.</span></p>
      {store?.fault && <p class="fault"><Text>{store.fault}</Text></p>}
      {store && (
        <>
          {store.version && <Facts><Fact name="Version"><Text>{store.version}</Text></Fact></Facts>}
          <Charts caption="Weaviate" charts={charts} times={timesIn(samples)} />
          {(store.nodes ?? []).length > 0 && (
            <Table
              caption="Weaviate's nodes"
              head={["Node", "State", "Version"]}
              rows={(store.nodes ?? []).map((each) => [
                <Text>{each.name ?? ""}</Text>,
                <span class={each.status === "HEALTHY" ? "badge good" : "badge bad"}>{(each.status ?? "").toLowerCase()}</span>,
                <Text>{each.version ?? ""}</Text>,
              ])}
            />
          )}
          <Operations caption="What Weaviate was asked for since the start" rows={(store.operations ?? []).map((each) => ({ name: each.name ?? "", histogram: each.seconds, failures: whole(each.failures) }))} />
        </>
      )}
    </section>
  );
}

function Operations({ caption, rows }: { caption: string; rows: { name: string; histogram: HistogramJson | undefined; failures: number }[] }) {
  if (rows.length === 0) return null;
  const time = (value: number | null) => (value === null ? "–" : words.time(value));
  return (
    <details class="numbers">
      <summary>{caption}</summary>
      <Table
        caption={caption}
        head={["Operation", "Calls", "Mean", "p50", "p95", "Not answered"]}
        rows={rows.map(({ name, histogram, failures }) => {
          const all = counted(histogram);
          return [name, count(all.count), time(mean(all)), time(quantile(all, 0.5)), time(quantile(all, 0.95)), count(failures)];
        })}
      />
    </details>
  );
}

function Rerankers({ listed, samples }: { listed: ListEmbeddersResponseJson; samples: Sample[] }) {
  const infos = listed.rerankers ?? [];
  if (infos.length === 0) return null;
  return (
    <section aria-labelledby="rerankers">
      <h2 id="rerankers">Rerankers</h2>
      <div class="stack">{infos.map((info) => <Reranker key={info.name} info={info} samples={samples} />)}</div>
    </section>
  );
}

function Reranker({ info, samples }: { info: RerankerInfoJson; samples: Sample[] }) {
  const of = (status: GetServerStatusResponseJson | undefined): RerankerStatusJson | undefined => status?.rerankers?.find((each) => each.name === info.name);
  const status = of(samples.at(-1)?.status);
  const charts: ChartSpec[] = [
    { title: "Hits scored", lines: [{ name: "scored", values: rates(samples, (each) => of(each)?.scoredPassages) }], format: words.rate },
    { title: "Call", lines: meanAndTail(samples, (each) => of(each)?.seconds), format: words.time },
  ];
  return (
    <article class="panel" aria-label={`Reranker ${info.name ?? ""}`}>
      <h3><Text>{info.name ?? ""}</Text> <Health info={info} breakerOpen={status?.breakerOpen === true} /></h3>
      {info.healthDetail && <p class="fault"><Text>{info.healthDetail}</Text></p>}
      <Facts>
        <Fact name="Model"><Text>{info.model || "not known yet"}</Text></Fact>
        <Fact name="Reads">{kinds(info.modalities)}</Fact>
        {status && <Fact name="Hits failed">{count(status.failedPassages)}</Fact>}
      </Facts>
      {status && (
        <>
          <div class="meters">
            <Meter label="Searches waiting" value={whole(status.waitingCalls)} most={whole(status.maxWaitingCalls)} format={count} />
            <Meter label="Searches running" value={whole(status.runningCalls)} most={whole(status.callSlots)} format={count} />
          </div>
          <Charts caption={`reranker ${info.name ?? ""}`} charts={charts} times={timesIn(samples)} />
        </>
      )}
    </article>
  );
}

function Clients({ clients, samples }: { clients: ClientStatusJson[]; samples: Sample[] }) {
  return (
    <section aria-labelledby="clients" class="panel">
      <h2 id="clients">Clients</h2>
      {clients.length === 0 ? (
        <p class="quiet">This server has no list of clients: everybody may use it, without a quota.</p>
      ) : (
        <Table
          caption="What clients use, and what they may"
          head={["Client", "Calls", "Inputs", "Bytes", "In flight", "Next call"]}
          rows={clients.map((each) => clientRow(each, samples))}
        />
      )}
    </section>
  );
}

function clientRow(client: ClientStatusJson, samples: Sample[]): ComponentChildren[] {
  const of = (status: GetServerStatusResponseJson) => status.clients?.find((each) => each.name === client.name);
  // Of the whole time that is shown, so that single calls do not make the numbers jump.
  const now = (value: (each: ClientStatusJson) => string | number | undefined) => {
    const [first, last] = [samples[0], samples.at(-1)];
    if (first === undefined || last === undefined || last.at === first.at) return 0;
    return Math.max(0, whole(value(of(last.status) ?? {})) - whole(value(of(first.status) ?? {}))) / ((last.at - first.at) / 1000);
  };
  const refused = whole(client.refusedCalls);
  const wait = seconds(client.retryDelay);
  return [
    <Text>{client.name ?? ""}</Text>,
    <>{count(client.calls)}{refused > 0 && <div class="fault">{count(refused)} refused</div>}</>,
    <Use total={count(client.inputs)} rate={words.rate(now((each) => each.inputs))} used={client.usedInputs} most={client.maxInputsPerSecond} format={words.number} label={`Quota of inputs of ${client.name ?? ""}`} />,
    <Use total={words.bytes(whole(client.requestBytes))} rate={words.bytesRate(now((each) => each.requestBytes))} used={client.usedBytes} most={client.maxBytesPerSecond} format={words.bytes} label={`Quota of bytes of ${client.name ?? ""}`} />,
    client.maxInputsInFlight === undefined ? (
      count(client.inputsInFlight)
    ) : (
      <Meter label="Inputs" name={`Inputs of ${client.name ?? ""} in flight`} value={whole(client.inputsInFlight)} most={whole(client.maxInputsInFlight)} format={count} />
    ),
    wait > 0 ? <span class="badge bad">in {words.time(wait)}</span> : <span class="badge good">now</span>,
  ];
}

interface UseProps {
  label: string;
  total: string;
  rate: string;
  used: number | string | undefined;
  most: number | string | undefined;
  format: (value: number) => string;
}

/** What was used, and how much of the quota is used up: one second's worth may be, before calls are refused. */
function Use({ label, total, rate, used, most, format }: UseProps) {
  return (
    <div class="use">
      <div>{total}</div>
      <div class="quiet">{rate} in the last {WINDOW_MS / 60_000} min</div>
      {most === undefined ? <div class="quiet">no quota</div> : <Meter label="Quota" name={label} value={Number(used ?? 0)} most={Number(most)} format={format} />}
    </div>
  );
}

function Failures({ status }: { status: GetServerStatusResponseJson }) {
  const failures = (status.failures ?? []).filter((each) => whole(each.count) > 0).sort((one, other) => whole(other.count) - whole(one.count));
  return (
    <section aria-labelledby="failures" class="panel">
      <h2 id="failures">Failures since the start</h2>
      {failures.length === 0 ? (
        <p class="quiet">None.</p>
      ) : (
        <Table
          caption="Failed calls by reason"
          head={["Reason", "Whose fault", "Calls"]}
          rows={failures.map((each) => [<code>{each.reason}</code>, BLAME[each.blame ?? ""] ?? each.blame, count(each.count)])}
        />
      )}
    </section>
  );
}

const BLAME: Record<string, string> = { caller: "the caller's", upstream: "a NIM's, a model's or Weaviate's", server: "Vecgate's" };
