import { useEffect, useState } from "preact/hooks";

import { listEmbedders, useLoaded } from "../collections";
import { isLong, REQUEST_FILE, requestText, toCommands } from "../evaluating/commands";
import { EvaluationForm } from "../evaluating/form";
import { Report } from "../evaluating/report";
import { imageProperties, readWishes, toParams, toRequest, unknownInWays, type Wishes } from "../evaluating/request";
import { beginRun, currentRun, type Given, type Run, stopRun, useRun } from "../evaluating/run";
import { whole } from "../measures";
import { Busy } from "../parts/busy";
import { collectionOf, useCollections } from "../parts/collection-picker";
import { Commands } from "../parts/commands";
import { ErrorNote } from "../parts/error-note";
import { count, Text } from "../parts/text";
import { navigate } from "../router";
import { save } from "../saving";
import type { CollectionJson, EvaluationJson, ListEmbeddersResponseJson } from "../types";
import "./evaluate.css";

/** How well a collection is searched: its index against exact search, and hits against known answers. */
export function EvaluatePage({ params }: { params: URLSearchParams }) {
  const collections = useCollections();
  const server = useLoaded(listEmbedders, []);
  const error = collections.error ?? server.error;
  return (
    <>
      <h1>Evaluate</h1>
      <p class="quiet">How well a collection is searched, before its model, its index or the alpha of its searches is changed. It needs the permission admin.</p>
      <ErrorNote error={error} onRetry={() => { collections.reload(); server.reload(); }} />
      {error === undefined && (collections.value === undefined || server.value === undefined) && <Busy />}
      {collections.value?.length === 0 && <p>There is no collection yet, so there is nothing to evaluate.</p>}
      {collections.value !== undefined && collections.value.length > 0 && server.value !== undefined && <Evaluating params={params} collections={collections.value} server={server.value} />}
    </>
  );
}

function Evaluating({ params, collections, server }: { params: URLSearchParams; collections: CollectionJson[]; server: ListEmbeddersResponseJson }) {
  const run = useRun();
  const [given, setGiven] = useState<Given>(() => currentRun()?.given ?? {});
  const [wishes, setWishes] = useState<Wishes>(() => {
    const read = (params.size === 0 ? currentRun()?.wishes : undefined) ?? readWishes(params);
    return { ...read, collection: collectionOf(collections, read.collection)?.name ?? read.collection };
  });
  const [unknown] = useState(() => unknownInWays(params));
  const [begun, setBegun] = useState(0);
  // How far it is, and the button that stops it, are below a form that may be longer than the window.
  useEffect(() => {
    if (begun > 0) document.getElementById("evaluation")?.scrollIntoView({ block: "start" });
  }, [begun]);
  const start = () => {
    const collection = collectionOf(collections, wishes.collection) ?? {};
    navigate("evaluate", toParams(wishes), { replace: true });
    beginRun(wishes, toRequest(wishes, collection, given), given);
    setBegun((before) => before + 1);
  };
  return (
    <>
      {unknown !== "" && <p class="note">This page leaves out what it does not know of the ways in its address: <Text clamp={80}>{unknown}</Text></p>}
      <EvaluationForm collections={collections} server={server} wishes={wishes} given={given} running={run?.state === "running"} onChange={setWishes} onGiven={(change) => setGiven((before) => ({ ...before, ...change }))} onStart={start} />
      {run && <Result run={run} collection={collectionOf(collections, run.wishes.collection) ?? {}} onRetry={() => beginRun(run.wishes, run.request, run.given)} />}
    </>
  );
}

const STAGES: Record<string, string> = {
  EVALUATION_STAGE_SAMPLING: "Choosing objects",
  EVALUATION_STAGE_EMBEDDING: "Embedding queries",
  EVALUATION_STAGE_READING: "Reading all vectors",
  EVALUATION_STAGE_SEARCHING: "Searching",
};

function Result({ run, collection, onRetry }: { run: Run; collection: CollectionJson; onRetry: () => void }) {
  const { wishes, evaluation, state } = run;
  const stage = STAGES[run.progress?.stage ?? ""] ?? "Beginning";
  const said = { running: `${stage}. You can look at other pages meanwhile.`, done: "The evaluation is done.", stopped: "The evaluation was stopped.", failed: "" };
  return (
    <section class="stack evaluation" aria-labelledby="evaluation">
      <h2 id="evaluation">
        Evaluation of <Text clamp={80}>{wishes.collection}</Text>{wishes.tenant && <> for <Text clamp={80}>{wishes.tenant}</Text></>}
      </h2>
      <p role="status">{said[state]}</p>
      {state === "running" && <Progress run={run} stage={stage} />}
      {state === "failed" && <ErrorNote error={run.error} onRetry={onRetry} />}
      {evaluation && <Report run={run} evaluation={evaluation} collection={collection} />}
      <div class="row">
        {evaluation && <button type="button" onClick={() => save("evaluation.json", resultText(evaluation))}>Save as JSON</button>}
        {isLong(run.request) && <button type="button" onClick={() => save(REQUEST_FILE, requestText(run.request))}>Save the request</button>}
      </div>
      <Commands make={() => toCommands(wishes, run.request, run.given, imageProperties(collection))}>
        {isLong(run.request) && <p class="quiet">curl and grpcurl read the request from {REQUEST_FILE}, which is saved here; vecgate reads the files that were given here.</p>}
      </Commands>
    </section>
  );
}

function Progress({ run: { progress = {} }, stage }: { run: Run; stage: string }) {
  const [done, total] = [whole(progress.done), whole(progress.total)];
  return (
    <div class="stack tight">
      <progress aria-label={stage} max={Math.max(1, total)} value={done} />
      <div class="row">
        <button type="button" onClick={stopRun}>Stop</button>
        <span class="quiet">{count(done)} of about {count(total)}</span>
      </div>
    </div>
  );
}

/** Maps from names of vectors or properties, which stay as they are, to numbers; a message is called `weights`, too. */
const MAPS = new Set(["targetWeights", "fieldWeights", "weights"]);

/** The result as `vecgate evaluate --json` writes it: with the names of the proto files. */
function resultText(evaluation: EvaluationJson): string {
  const renamed = (value: unknown, field = ""): unknown => {
    if (Array.isArray(value)) return value.map((each) => renamed(each));
    if (typeof value !== "object" || value === null) return value;
    const parts = Object.entries(value);
    if (MAPS.has(field) && parts.every(([, each]) => typeof each === "number")) return value;
    return Object.fromEntries(parts.map(([name, each]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), renamed(each, name)]));
  };
  return `${JSON.stringify(renamed(evaluation), undefined, 2)}\n`;
}
