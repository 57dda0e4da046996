import { useId, useRef, useState } from "preact/hooks";

import { type Found, suffixOf } from "../importing/folder";
import { messageOf } from "../item-failure";
import { Choice } from "../parts/choice";
import { collectionOf, CollectionPicker, isWhole } from "../parts/collection-picker";
import { FilesZone } from "../parts/files-zone";
import { count, Text } from "../parts/text";
import { Typed } from "../parts/typed";
import type { CollectionJson, ListEmbeddersResponseJson } from "../types";
import { readEarlier } from "./drift";
import { type QueryFiles, readQueryFiles } from "./query-files";
import { isAnswered, MAX_LIMIT, MAX_SAMPLE, MAX_WAYS, PRESENT, propertiesOf, type QueryKind, type Way, type Wishes } from "./request";
import type { Given } from "./run";

interface FormProps {
  collections: CollectionJson[];
  server: ListEmbeddersResponseJson;
  wishes: Wishes;
  given: Given;
  running: boolean;
  onChange: (wishes: Wishes) => void;
  onGiven: (change: Given) => void;
  onStart: () => void;
}

/** What is evaluated: where, by which queries, in which ways, and what is measured. */
export function EvaluationForm({ collections, server, wishes, given, running, onChange, onGiven, onStart }: FormProps) {
  const collection = collectionOf(collections, wishes.collection) ?? {};
  const missing = whatIsMissing(wishes, collection, given);
  const set = (change: Partial<Wishes>) => onChange({ ...wishes, ...change });
  return (
    <form class="stack evaluate" onSubmit={(event) => { event.preventDefault(); onStart(); }}>
      <CollectionPicker
        collections={collections}
        place={{ ...wishes, vector: "" }}
        withVector={false}
        onChange={({ collection: name, tenant }) => set({ collection: name, tenant, ...(name === wishes.collection ? {} : { property: "", answerProperty: "", ways: [PRESENT] }) })}
      />
      <Queries wishes={wishes} collection={collection} server={server} given={given} onGiven={onGiven} set={set} />
      <Ways wishes={wishes} collection={collection} server={server} set={set} />
      <Measures wishes={wishes} given={given} set={set} />
      <div class="row">
        <button class="primary" disabled={running || missing !== ""} aria-describedby="evaluate-missing">Evaluate</button>
        <span id="evaluate-missing" class="quiet">{running ? "An evaluation is running." : missing}</span>
      </div>
    </form>
  );
}

/** Why an evaluation cannot begin; empty if it can. */
function whatIsMissing(wishes: Wishes, collection: CollectionJson, { files }: Given): string {
  if (!isWhole(collection.name === undefined ? undefined : collection, { ...wishes, vector: "" })) return "Choose a collection, and its tenant if it has some.";
  if (wishes.by === "captions" && wishes.property === "") return "Choose the property with the captions.";
  if (wishes.by === "queries" && files === undefined) return "Choose or drop a file of queries.";
  const lacking = wishes.by !== "objects" && wishes.ways.some((each) => each.reranker !== "" && each.reads === "");
  return lacking ? "Choose what the reranker reads." : "";
}

type Set = (change: Partial<Wishes>) => void;

const KINDS: [QueryKind, string][] = [
  ["objects", "stored objects, by their own vectors: what the index finds of what is nearest"],
  ["captions", "captions: the text in a property of an object is to find the object itself"],
  ["queries", "queries of a file, with or without known answers"],
];

interface QueriesProps {
  wishes: Wishes;
  collection: CollectionJson;
  server: ListEmbeddersResponseJson;
  given: Given;
  onGiven: (change: Given) => void;
  set: Set;
}

function Queries({ wishes, collection, server, given, onGiven, set }: QueriesProps) {
  const { files, earlier } = given;
  const [failure, setFailure] = useState("");
  const name = useId();
  const take = async (dropped: Found[]) => {
    setFailure("");
    try {
      const saved = dropped.find(({ path }) => suffixOf(path) === ".json");
      if (saved) onGiven({ earlier: readEarlier(saved.path, await saved.file.text()) });
      const others = dropped.filter((each) => each !== saved);
      if (others.length === 0) return;
      set({ by: "queries" });
      onGiven({ files: undefined });
      const most = Number(server.limits?.maxRequestBytes) || Infinity;
      onGiven({ files: await readQueryFiles(others, most) });
    } catch (error) {
      setFailure(messageOf(error));
    }
  };
  return (
    <fieldset class="stack">
      <legend>Search by</legend>
      <div>
        {KINDS.map(([kind, words]) => (
          <label class="check wide"><input type="radio" name={name} checked={wishes.by === kind} onChange={() => set({ by: kind })} /><span>{words}</span></label>
        ))}
      </div>
      <div class="fields">
        {wishes.by === "captions" && <Choice label="Property with the captions" none="choose one" names={propertiesOf(collection, "DATA_TYPE_TEXT")} value={wishes.property} onChange={(property) => set({ property })} />}
        {wishes.by !== "queries" && <NumberField label="Objects, chosen from all over the collection" value={wishes.sample} min={1} max={MAX_SAMPLE} onChange={(sample) => set({ sample })} />}
        {wishes.by === "queries" && files?.answered && (
          <Choice
            label="Answers are"
            none="ids of objects"
            names={propertiesOf(collection, "DATA_TYPE_TEXT", "DATA_TYPE_INT", "DATA_TYPE_UUID")}
            value={wishes.answerProperty}
            onChange={(answerProperty) => set({ answerProperty })}
          />
        )}
      </div>
      <FilesZone
        choose="Choose files"
        hint="or drop here: a CSV or JSONL of queries with its pictures; a saved evaluation, to compare with it"
        onFiles={(dropped) => void take(dropped)}
      />
      <div aria-live="polite">
        {failure && <p class="fault"><Text>{failure}</Text></p>}
        {files && <Contents files={files} />}
        {earlier && (
          <p class="row">
            <span>Compared with the evaluation in <Text clamp={80}>{earlier.name}</Text></span>
            <button type="button" class="link" onClick={() => onGiven({ earlier: undefined })}>Do not compare</button>
          </p>
        )}
      </div>
    </fieldset>
  );
}

function Contents({ files }: { files: QueryFiles }) {
  return (
    <p>
      <strong>{count(files.queries.length)} {files.queries.length === 1 ? "query" : "queries"}</strong> in <Text clamp={80}>{files.name}</Text>
      {files.qrels ? <>, answers in <Text clamp={80}>{files.qrels}</Text></> : files.answered ? ", with answers" : ", without answers"}
    </p>
  );
}

function Ways({ wishes, collection, server, set }: { wishes: Wishes; collection: CollectionJson; server: ListEmbeddersResponseJson; set: Set }) {
  const add = useRef<HTMLButtonElement>(null);
  const change = (at: number, way: Way) => set({ ways: wishes.ways.map((each, number) => (number === at ? way : each)) });
  return (
    <fieldset class="stack">
      <legend>Ways to search</legend>
      <p class="quiet">
        All are compared with the first one. {wishes.by === "objects" ? "Alpha and rerankers need queries with words. " : ""}
        {wishes.changeEf ? "" : "To measure several values of ef, allow below that it is changed."}
      </p>
      <ol class="ways">
        {wishes.ways.map((way, at) => (
          <li>
            <div class="fields" role="group" aria-label={`Way ${at + 1}`}>
              <WayFields way={way} wishes={wishes} collection={collection} server={server} onChange={(changed) => change(at, changed)} />
            </div>
            {wishes.ways.length > 1 && (
              <button
                type="button"
                class="plain"
                aria-label={`Remove way ${at + 1}`}
                onClick={() => {
                  set({ ways: wishes.ways.filter((_, number) => number !== at) });
                  add.current?.focus();
                }}
              >
                ×
              </button>
            )}
          </li>
        ))}
      </ol>
      <div class="row">
        <button type="button" ref={add} disabled={wishes.ways.length >= MAX_WAYS} onClick={() => set({ ways: [...wishes.ways, PRESENT] })}>Add a way</button>
      </div>
    </fieldset>
  );
}

function WayFields({ way, wishes, collection, server, onChange }: { way: Way; wishes: Wishes; collection: CollectionJson; server: ListEmbeddersResponseJson; onChange: (way: Way) => void }) {
  const set = (change: Partial<Way>) => onChange({ ...way, ...change });
  const worded = wishes.by !== "objects";
  const rerankers = (server.rerankers ?? []).map((each) => each.name ?? "");
  return (
    <>
      <Choice label="Named vector" none="default" names={(collection.vectors ?? []).map((each) => each.name ?? "")} value={way.vector} onChange={(vector) => set({ vector })} />
      {worded && <Optional label="Alpha, for words and vector" none="vector alone" value={way.alpha} min={0} max={1} step="any" onChange={(alpha) => set({ alpha })} />}
      {wishes.changeEf && wishes.indexRecall && <Optional label="ef of the index" none="as it is" value={way.ef} min={1} max={4096} step={1} onChange={(ef) => set({ ef })} />}
      {worded && rerankers.length > 0 && <Choice label="Reranker" none="none" names={rerankers} value={way.reranker} onChange={(reranker) => set({ reranker })} />}
      {worded && way.reranker !== "" && <Choice label="The reranker reads" none="choose a property" names={propertiesOf(collection, "DATA_TYPE_TEXT", "DATA_TYPE_BLOB")} value={way.reads} onChange={(reads) => set({ reads })} />}
    </>
  );
}

function Measures({ wishes, given, set }: { wishes: Wishes; given: Given; set: Set }) {
  const answered = isAnswered(wishes, given);
  return (
    <fieldset class="stack">
      <legend>What is measured</legend>
      <div>
        <label class="check wide"><input type="checkbox" checked={wishes.indexRecall} onChange={(event) => set({ indexRecall: event.currentTarget.checked })} /><span>Compare the index with exact search. It reads all vectors of the collection.</span></label>
        <label class="check wide"><input type="checkbox" checked={wishes.changeEf} onChange={(event) => set({ changeEf: event.currentTarget.checked })} /><span>Change the ef of the index while it is measured, for everybody's searches. It is set back.</span></label>
        <label class="check wide">
          <input type="checkbox" checked={wishes.suggest} disabled={!answered && !wishes.changeEf} onChange={(event) => set({ suggest: event.currentTarget.checked })} />
          <span>Suggest an ef (if it may be changed) and an alpha (if answers are known).</span>
        </label>
      </div>
      <div class="fields">
        <NumberField label="Hits that count" value={wishes.limit} min={1} max={MAX_LIMIT} onChange={(limit) => set({ limit })} />
        {wishes.suggest && wishes.changeEf && <NumberField label="Index recall that the ef is to reach" value={wishes.wantedRecall} min={0.01} max={1} step="any" onChange={(wantedRecall) => set({ wantedRecall })} />}
        {wishes.indexRecall && <NumberField label="Read no larger collection than" value={wishes.maxObjects} min={1} max={10_000_000} onChange={(maxObjects) => set({ maxObjects })} />}
      </div>
    </fieldset>
  );
}

interface NumberProps {
  label: string;
  value: number;
  min: number;
  max: number;
  step?: number | "any";
  onChange: (value: number) => void;
}

function NumberField({ label, value, min, max, step = 1, onChange }: NumberProps) {
  return (
    <label>
      {label}
      <Typed type="number" required value={Number.isNaN(value) ? "" : String(value)} min={min} max={max} step={step} onChange={(text) => onChange(text === "" ? NaN : Number(text))} />
    </label>
  );
}

function Optional({ label, none, value, min, max, step, onChange }: Omit<NumberProps, "value" | "onChange"> & { none: string; value: string; onChange: (value: string) => void }) {
  return (
    <label>
      {label}
      <Typed type="number" placeholder={none} value={value} min={min} max={max} step={step} onChange={onChange} />
    </label>
  );
}
