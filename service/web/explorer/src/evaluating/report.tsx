import type { ComponentChildren } from "preact";

import { pictureProperties, smallProperty } from "../collections";
import { seconds, whole } from "../measures";
import { Fact, Facts } from "../parts/facts";
import { LocalPicture, Picture } from "../parts/picture";
import { Table } from "../parts/table";
import { count, short, Text } from "../parts/text";
import { ms } from "../parts/timing";
import { href } from "../router";
import type { AlphaSuggestionJson, CollectionJson, EfSuggestionJson, EstimateJson, EvaluationJson, FoundObjectsJson, JsonFloat, QueryResultJson, SystemResultJson } from "../types";
import { DriftTable, howCompared } from "./drift";
import { Bars, Curve, type Point } from "./plots";
import type { Run } from "./run";

const MEASURES: Record<string, string> = {
  EVALUATION_MEASURE_INDEX_RECALL: "index recall",
  EVALUATION_MEASURE_NDCG: "nDCG",
  EVALUATION_MEASURE_RECIPROCAL_RANK: "MRR",
  EVALUATION_MEASURE_RECALL: "recall",
};

function measureName(measure: string | undefined): string {
  return MEASURES[measure ?? ""] ?? "a measure of another version";
}

function share(value: JsonFloat | undefined): string {
  return Number(value ?? 0).toFixed(3);
}

function signed(value: JsonFloat | undefined): string {
  const words = share(value);
  return Number(words) === 0 ? share(0) : Number(words) > 0 ? `+${words}` : words;
}

function interval({ low, high }: EstimateJson = {}): string {
  return `${share(low)} to ${share(high)}`;
}

function time(duration: string | undefined): string {
  return ms(1000 * seconds(duration));
}

/** What an evaluation found: the server's numbers, as plots and tables. */
export function Report({ run, evaluation, collection }: { run: Run; evaluation: EvaluationJson; collection: CollectionJson }) {
  const systems = evaluation.systems ?? [];
  const findings = evaluation.findings ?? [];
  return (
    <>
      <Facts>
        <Fact name="Queries">{count(evaluation.queryCount)}</Fact>
        <Fact name="Objects">{count(evaluation.objectCount)}</Fact>
        <Fact name="Hits that count">{count(evaluation.limit)}</Fact>
        <Fact name="Searches">{count(evaluation.searches)}</Fact>
        <Fact name="Embedded inputs">{count(evaluation.embeddedInputs)}{whole(evaluation.embeddedInputs) > 0 && ` in ${time(evaluation.embeddingTime)}`}</Fact>
        <Fact name="Time in all">{time(evaluation.time)}</Fact>
      </Facts>
      <Part title="What to look at">
        {findings.length === 0 ? (
          <p>Nothing stands out.</p>
        ) : (
          <ul class="findings">
            {findings.map(({ system, message, fault }) => <li class={fault ? "note fault" : "note"}>{system && <><strong><Text clamp={80}>{system}</Text></strong>: </>}<Text>{message ?? ""}</Text></li>)}
          </ul>
        )}
      </Part>
      <Part title="Measures">
        <div class="halves">
          {kindsOf(systems).map((kind) => <Bars title={measureName(kind)} bars={barsOf(systems, kind)} most={1} />)}
          <Times systems={systems} />
        </div>
        <p class="quiet">The thin lines are intervals: they hold the mean in 95 of 100 cases. For times, they end where 95 of 100 searches do.</p>
        <Systems systems={systems} />
      </Part>
      <Comparisons evaluation={evaluation} />
      {evaluation.ef && <BestEf found={evaluation.ef} />}
      {evaluation.alpha && <BestAlpha found={evaluation.alpha} />}
      {evaluation.drift && (
        <Part title="Against the earlier evaluation">
          <p>Since {new Date(evaluation.drift.since ?? "").toLocaleString()}. {howCompared(evaluation.drift)}</p>
          <DriftTable drift={evaluation.drift} />
        </Part>
      )}
      <Vectors evaluation={evaluation} />
      <Queries run={run} evaluation={evaluation} collection={collection} />
    </>
  );
}

function Part({ title, children }: { title: string; children: ComponentChildren }) {
  return <section aria-label={title}><h3>{title}</h3>{children}</section>;
}

function kindsOf(systems: SystemResultJson[]): string[] {
  const found = new Set(systems.flatMap(({ measures = [] }) => measures.map((each) => String(each.measure))));
  return Object.keys(MEASURES).filter((each) => found.has(each));
}

function estimateOf({ measures = [] }: SystemResultJson, kind: string): EstimateJson | undefined {
  const found = measures.find((each) => each.measure === kind);
  return found && (found.estimate ?? {});
}

function barsOf(systems: SystemResultJson[], kind: string) {
  return systems.flatMap((each) => {
    const value = estimateOf(each, kind);
    if (value === undefined) return [];
    const { mean = 0, low = 0, high = 0 } = value;
    return [{ name: each.system?.name ?? "", value: Number(mean), low: Number(low), high: Number(high), words: share(mean) }];
  });
}

function Times({ systems }: { systems: SystemResultJson[] }) {
  const bars = systems.map(({ system, medianTime, p95Time }) => {
    const [median, p95] = [seconds(medianTime), seconds(p95Time)];
    return { name: system?.name ?? "", value: median, low: median, high: p95, words: ms(1000 * median) };
  });
  return <Bars title="median time of a search" bars={bars} most={Math.max(...bars.map((each) => each.high))} />;
}

function Systems({ systems }: { systems: SystemResultJson[] }) {
  const kinds = kindsOf(systems);
  return (
    <Table
      caption="Measures of each way to search, with their intervals"
      head={["Way", "Vector", ...kinds.map(measureName), "Mean time", "Median", "95 of 100 within", "Searches", "Not found by their own vectors"]}
      rows={systems.map((each) => [
        <Text clamp={80}>{each.system?.name ?? ""}</Text>,
        <Text clamp={80}>{each.system?.targetVector ?? ""}</Text>,
        ...kinds.map((kind) => {
          const value = estimateOf(each, kind);
          return value === undefined ? "–" : <>{share(value.mean)} <span class="quiet">{interval(value)}</span></>;
        }),
        time(each.meanTime),
        time(each.medianTime),
        time(each.p95Time),
        count(each.searches),
        count(each.lostObjects),
      ])}
    />
  );
}

function Comparisons({ evaluation: { comparisons = [], systems = [] } }: { evaluation: EvaluationJson }) {
  if (comparisons.length === 0) return null;
  return (
    <Part title="Differences">
      <p>Against <Text clamp={80}>{systems[0]?.system?.name ?? ""}</Text>, query by query:</p>
      <Table
        caption="Differences from the first way"
        head={["Way", "Measure", "Difference", "Is it chance?"]}
        rows={comparisons.map(({ system, measure, difference = {}, chance, real }) => [
          <Text clamp={80}>{system ?? ""}</Text>,
          measureName(measure),
          <>{signed(difference.mean)} <span class="quiet">{interval(difference)}</span></>,
          <>{real ? Number(difference.mean ?? 0) < 0 ? <span class="badge bad">worse</span> : <span class="badge good">better</span> : <span class="badge">may be chance</span>} <span class="quiet">chance alone: {(100 * Number(chance ?? 0)).toFixed(1)} %</span></>,
        ])}
      />
    </Part>
  );
}

function BestEf({ found }: { found: EfSuggestionJson }) {
  const tried = (found.tried ?? []).map(({ ef, recall }) => ({ at: ef ?? 0, value: Number(recall ?? 0) }));
  const wanted = Number(found.wantedRecall ?? 0);
  return (
    <Part title="Suggested ef">
      <p>
        {found.reached ? <>The smallest ef for an index recall of {wanted} is <strong>{found.ef}</strong>.</> : <>No ef of up to {found.ef} reaches an index recall of {wanted}.</>}
        {" "}Queries that did not choose it reach {share(found.recall?.mean)} with it ({interval(found.recall)}).
      </p>
      <Curve title="Index recall by ef" points={tried} wanted={wanted} />
      <Numbers caption="Values of ef that were tried" head={["ef", "Index recall"]} points={tried} />
    </Part>
  );
}

function BestAlpha({ found }: { found: AlphaSuggestionJson }) {
  const tried = (found.tried ?? []).map(({ alpha, ndcg }) => ({ at: Number(alpha ?? 0), value: Number(ndcg ?? 0) }));
  return (
    <Part title="Suggested alpha">
      <p>The best alpha is <strong>{Number(found.alpha ?? 0)}</strong>. Queries that did not choose it have an nDCG of {share(found.ndcg?.mean)} ({interval(found.ndcg)}).</p>
      <Curve title="nDCG by alpha" points={tried} />
      <Numbers caption="Alphas that were tried" head={["alpha", "nDCG"]} points={tried} />
    </Part>
  );
}

/** The numbers of a curve, for those who ask. */
function Numbers({ caption, head, points }: { caption: string; head: string[]; points: Point[] }) {
  return (
    <details class="numbers">
      <summary>Numbers</summary>
      <Table caption={caption} head={head} rows={points.map(({ at, value }) => [at, share(value)])} />
    </details>
  );
}

function Vectors({ evaluation: { vectors = [] } }: { evaluation: EvaluationJson }) {
  if (vectors.length === 0) return null;
  return (
    <Part title="Vectors">
      <p class="quiet">How many objects have what is wrong: no vector, one of zeros, one of another model's length, the same one as another object, or one that is not of unit length. Hubs are near to very many queries. The gap is how far queries as a whole lie from objects.</p>
      <Table
        caption="What reading all vectors showed"
        head={["Vector", "Objects", "Missing", "Without direction", "Other number of values", "Doubled", "Not of unit length", "Hubs", "Gap to the queries"]}
        rows={vectors.map((each) => [
          <Text clamp={80}>{each.name ?? ""}</Text>,
          ...[each.objects, each.missing, each.zero, each.otherLength, each.doubled, each.offLength, each.hubs].map(count),
          each.queryGap === undefined ? "–" : share(each.queryGap),
        ])}
      />
    </Part>
  );
}

interface QueriesProps {
  run: Run;
  evaluation: EvaluationJson;
  collection: CollectionJson;
}

function Queries({ run, evaluation, collection }: QueriesProps) {
  const { queries = [], systems = [] } = evaluation;
  if (queries.length === 0) return null;
  const title = systems.length > 1 ? "Queries that win and lose most" : "Queries that go worst";
  return (
    <Part title={title}>
      <p class="quiet">Numbers are the {measureName(evaluation.mainMeasure)} of each query.</p>
      <ol class="queries">
        {queries.map((query) => (
          <li class="panel">
            <QueryHead query={query} run={run} collection={collection} />
            {(query.found ?? []).map((found, at) => (
              <Hits name={systems[at]?.system?.name ?? ""} found={found} answers={answersOf(run, query)} run={run} collection={collection} />
            ))}
          </li>
        ))}
      </ol>
    </Part>
  );
}

/** The objects that a query should find, as far as their ids are known. */
function answersOf({ wishes, request }: Run, { id = "" }: QueryResultJson): ReadonlySet<string> {
  if (wishes.by === "captions") return new Set([id]);
  if (wishes.by === "objects" || wishes.answerProperty !== "") return new Set();
  const answers = request.queries?.queries?.find((each) => each.id === id)?.answers ?? [];
  return new Set(answers.map((each) => (each.name ?? "").toLowerCase()));
}

function QueryHead({ query: { id = "", text = "", stored }, run, collection }: { query: QueryResultJson; run: Run; collection: CollectionJson }) {
  const picture = run.given.files?.pictures.get(id);
  return (
    <div class="query-head">
      {stored ? <StoredObject id={id} run={run} collection={collection} /> : picture && <div class="tile"><LocalPicture blob={picture} alt="The picture that is searched by" /></div>}
      <p>{text ? <strong><Text clamp={200}>{text}</Text></strong> : stored ? "Searched by the vector of this object" : <>Searched by the picture of <Text clamp={80}>{id}</Text></>}</p>
    </div>
  );
}

function Hits({ name, found, answers, run, collection }: { name: string; found: FoundObjectsJson; answers: ReadonlySet<string>; run: Run; collection: CollectionJson }) {
  const ids = found.ids ?? [];
  return (
    <div class="found">
      <p><Text clamp={80}>{name}</Text> {found.value !== undefined && <strong class="number">{share(found.value)}</strong>}</p>
      {ids.length === 0 && <p class="quiet">nothing</p>}
      <ol aria-label={`Found by ${short(name, 60)}`}>
        {ids.map((id) => <li><StoredObject id={id} run={run} collection={collection} isAnswer={answers.has(id)} /></li>)}
      </ol>
    </div>
  );
}

function StoredObject({ id, run, collection, isAnswer = false }: { id: string; run: Run; collection: CollectionJson; isAnswer?: boolean }) {
  const [property] = pictureProperties(collection);
  const { collection: name, tenant } = run.wishes;
  return (
    <a class={isAnswer ? "tile wanted" : "tile"} href={href("object", { collection: name, tenant, id })} aria-label={`Object ${id}${isAnswer ? ", which is an answer" : ""}`}>
      {property ? <Picture collection={name} tenant={tenant} id={id} property={property} beside={smallProperty(collection)} alt="" /> : <code>{id.slice(0, 8)}</code>}
      {isAnswer && <span class="badge good">answer</span>}
    </a>
  );
}
