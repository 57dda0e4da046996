import { useEffect, useState } from "preact/hooks";

import { listEmbedders, useLoaded } from "../collections";
import { type Comparison, linesOf, MAX_PICTURES, MAX_TEXTS, type PictureItem, pictureItem, type Side, textItem, useComparing } from "../comparing/comparison";
import { type Agreement, agreement } from "../comparing/cosines";
import { FromCollection } from "../comparing/from-collection";
import { HeatMap } from "../comparing/heat-map";
import { Thumbnail } from "../comparing/thumbnail";
import { toCsv } from "../csv";
import { Busy } from "../parts/busy";
import { CopyButton } from "../parts/copy-button";
import { DropZone } from "../parts/drop-zone";
import { ErrorNote } from "../parts/error-note";
import { Table } from "../parts/table";
import { isolated, Line, short, Text } from "../parts/text";
import { navigate } from "../router";
import type { EmbedderInfoJson, ListEmbeddersResponseJson, PurposeJson } from "../types";
import "./compare.css";

/** Longer texts are not part of the address. */
const ADDRESS_CHARACTERS = 2000;
/** Pictures outlive a look at another page. */
let keptPictures: readonly PictureItem[] = [];

/** Texts against pictures: the cosine of each pair, by one embedder or two. */
export function ComparePage({ params }: { params: URLSearchParams }) {
  const { value, error, reload } = useLoaded(listEmbedders, []);
  return (
    <>
      <h1>Compare</h1>
      <p class="quiet">How near each text is to each picture: the cosine of their vectors.</p>
      <ErrorNote error={error} onRetry={reload} />
      {value === undefined && error === undefined && <Busy />}
      {value !== undefined && <Comparer params={params} server={value} />}
    </>
  );
}

function Comparer({ params, server }: { params: URLSearchParams; server: ListEmbeddersResponseJson }) {
  const embedders = server.embedders ?? [];
  const [text, setText] = useState(params.get("texts") ?? "");
  const [pictures, setPictures] = useState(keptPictures);
  const [first, setFirst] = useState(params.get("embedder") ?? embedders[0]?.name ?? "");
  const [second, setSecond] = useState(params.get("beside") ?? "");
  const [purpose, setPurpose] = useState<PurposeJson>(params.get("texts-are") === "documents" ? "PURPOSE_DOCUMENT" : "PURPOSE_QUERY");
  const { comparison, progress, error, start, cancel } = useComparing();
  useEffect(() => void (keptPictures = pictures), [pictures]);

  const lines = linesOf(text);
  const named = (name: string) => embedders.find((each) => each.name === name);
  const chosen = [named(first), second === first ? undefined : named(second)].filter((each) => each !== undefined);
  const missing = [lines.length === 0 && "a text", pictures.length === 0 && "a picture", chosen.length === 0 && "an embedder"].filter(Boolean);
  const add = async (files: readonly { blob: Blob; name: string }[]) => {
    const items = await Promise.all(files.slice(0, MAX_PICTURES).map(({ blob, name }) => pictureItem(blob, name)));
    setPictures((before) => [...before, ...items].slice(0, MAX_PICTURES));
  };
  const run = () => {
    const documents = purpose === "PURPOSE_DOCUMENT" ? "documents" : "";
    navigate("compare", { texts: text.length <= ADDRESS_CHARACTERS ? text : "", embedder: first, beside: second, "texts-are": documents }, { replace: true });
    start({ texts: lines.slice(0, MAX_TEXTS).map(textItem), pictures, embedders: chosen, purpose, limits: server.limits ?? {} });
  };
  return (
    <form class="stack compare" onSubmit={(event) => { event.preventDefault(); run(); }}>
      <div class="halves">
        <label>
          Texts, one a line
          <textarea rows={8} value={text} onInput={(event) => setText(event.currentTarget.value)} placeholder={"a dog\na cup of coffee"} />
          {lines.length > MAX_TEXTS && <span>Only the first {MAX_TEXTS} texts are compared.</span>}
        </label>
        <Pictures pictures={pictures} onAdd={(files) => void add(files)} onChange={setPictures} />
      </div>
      <div class="fields">
        <EmbedderPicker label="Embedder" embedders={embedders} value={first} onChange={setFirst} />
        {embedders.length > 1 && <EmbedderPicker label="Second embedder" none="none" embedders={embedders.filter((each) => each.name !== first)} value={second === first ? "" : second} onChange={setSecond} />}
        <label>
          Texts are read as
          <select value={purpose} title="Models such as CLIP read both in the same way" onChange={(event) => setPurpose(event.currentTarget.value as PurposeJson)}>
            <option value="PURPOSE_QUERY">queries</option>
            <option value="PURPOSE_DOCUMENT">documents</option>
          </select>
        </label>
      </div>
      <div class="row">
        <button class="primary" disabled={progress !== undefined || missing.length > 0} aria-describedby="compare-missing">Compare</button>
        {progress && <button type="button" onClick={cancel}>Cancel</button>}
        <span id="compare-missing" class="quiet">{missing.length > 0 && `Still needed: ${missing.join(", ")}.`}</span>
      </div>
      {progress && <Busy>{progress.done} of {progress.of} inputs are embedded</Busy>}
      <ErrorNote error={error} onRetry={run} />
      {comparison && <Results comparison={comparison} />}
      <p class="hidden" role="status">{comparison && !progress ? `${comparison.texts.length} texts and ${comparison.pictures.length} pictures are compared` : ""}</p>
    </form>
  );
}

function EmbedderPicker({ label, embedders, value, onChange, none }: { label: string; embedders: EmbedderInfoJson[]; value: string; onChange: (name: string) => void; none?: string }) {
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {none !== undefined && <option value="">{none}</option>}
        {embedders.map((each) => (
          <option value={each.name}>
            {isolated(each.name ?? "", 40)} · {isolated(each.model ?? "", 40)}{each.health === "EMBEDDER_HEALTH_UNAVAILABLE" ? " (unavailable)" : ""}
          </option>
        ))}
      </select>
    </label>
  );
}

function Pictures({ pictures, onAdd, onChange }: { pictures: readonly PictureItem[]; onAdd: (files: { blob: Blob; name: string }[]) => void; onChange: (pictures: readonly PictureItem[]) => void }) {
  const [opened, setOpened] = useState(false);
  return (
    <div class="stack tight">
      <span class="quiet">Pictures</span>
      <DropZone multiple onFiles={(files) => onAdd(files.map((file) => ({ blob: file, name: file.name })))}>or drop or paste some here</DropZone>
      {pictures.length > 0 && (
        <ul class="thumbnails" aria-label="Pictures to compare">
          {pictures.map((each, at) => (
            <li key={`${each.key} ${at}`}>
              <Thumbnail picture={each} />
              <Line clamp={40}>{each.name}</Line>
              <button type="button" class="plain" aria-label={`Remove ${short(each.name, 60)}`} onClick={() => onChange(pictures.filter((other) => other !== each))}>×</button>
            </li>
          ))}
        </ul>
      )}
      {pictures.length > 1 && <p class="row"><span class="quiet">{pictures.length} of at most {MAX_PICTURES}</span><button type="button" class="link" onClick={() => onChange([])}>Remove all</button></p>}
      <details onToggle={(event) => setOpened(event.currentTarget.open)}>
        <summary>From a collection</summary>
        {opened && <FromCollection onPicture={(blob, name) => onAdd([{ blob, name }])} />}
      </details>
    </div>
  );
}

function Results({ comparison }: { comparison: Comparison }) {
  const [one, other] = comparison.sides;
  return (
    <section class="stack" aria-label="Cosines">
      <div class="row">
        <h2>Cosines</h2>
        <CopyButton label="Copy as CSV" make={() => asCsv(comparison)} />
      </div>
      <div class={other ? "halves" : ""}>
        {comparison.sides.map((side) => <HeatMap comparison={comparison} side={side} />)}
      </div>
      {one && other && <Agreements comparison={comparison} one={one} other={other} />}
    </section>
  );
}

/** Whether two embedders put the pictures of each text into the same order; their cosines themselves cannot be compared. */
function Agreements({ comparison, one, other }: { comparison: Comparison; one: Side; other: Side }) {
  const all = comparison.texts.map((_, row) => agreement(one.matrix[row] ?? [], other.matrix[row] ?? []));
  const judged = all.filter((each) => each.sameBest !== null);
  const correlations = all.map((each) => each.correlation).filter((each) => each !== null);
  if (judged.length === 0) return null;
  const same = judged.filter((each) => each.sameBest).length;
  const mean = correlations.reduce((sum, each) => sum + each, 0) / correlations.length;
  return (
    <>
      <h2>Do they agree?</h2>
      <p>
        The same best picture for {same} of {judged.length} {judged.length === 1 ? "text" : "texts"}.
        {correlations.length > 0 && ` Rank correlation of the pictures (Spearman, 1 is the same order, -1 the reverse): ${mean.toFixed(2)} on average.`}
      </p>
      <Table
        caption="Agreement for each text"
        head={["Text", "Rank correlation", "Same best picture"]}
        rows={comparison.texts.map((text, row) => [<Text clamp={120}>{text.key}</Text>, ...agreementCells(all[row])])}
      />
    </>
  );
}

function agreementCells(found: Agreement | undefined): string[] {
  return [
    found?.correlation == null ? "–" : found.correlation.toFixed(2),
    found?.sameBest == null ? "–" : found.sameBest ? "yes" : "no",
  ];
}

function asCsv({ texts, pictures, sides }: Comparison): string {
  const rows = sides.flatMap((side) => texts.map((text, row) => [side.embedder.name ?? "", text.key, ...(side.matrix[row] ?? [])]));
  return toCsv([["embedder", "text", ...pictures.map((each) => each.name)], ...rows]);
}
