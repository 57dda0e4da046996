import { useEffect, useRef, useState } from "preact/hooks";

import { listEmbedders, useLoaded } from "../collections";
import { toCsv } from "../csv";
import type { Destination } from "../importing/destination";
import { DestinationForm } from "../importing/destination-form";
import { type Folder, HEIC_SUFFIXES, sortOut } from "../importing/folder";
import type { Importer, Progress } from "../importing/importer";
import { begin, currentSession, forget, run, type Session, useProgress } from "../importing/session";
import type { Failure } from "../item-failure";
import { words } from "../measures";
import { Busy } from "../parts/busy";
import { useCollections } from "../parts/collection-picker";
import { CopyButton } from "../parts/copy-button";
import { ErrorNote } from "../parts/error-note";
import { FilesZone } from "../parts/files-zone";
import { Table } from "../parts/table";
import { count, short, Text } from "../parts/text";
import { href } from "../router";
import type { ServerLimitsJson } from "../types";
import "./import.css";

const SHOWN_FAILURES = 200;
const SHOWN_EXAMPLES = 3;

/** A folder of pictures into a collection. */
export function ImportPage({ params }: { params: URLSearchParams }) {
  const [session, setSession] = useState(currentSession);
  const heading = useRef<HTMLHeadingElement>(null);
  const shown = useRef(session);
  useEffect(() => {
    // The button that had the focus went with what was shown before.
    if (shown.current !== session) heading.current?.focus();
    shown.current = session;
  }, [session]);
  return (
    <>
      <h1 ref={heading} tabIndex={-1}>Import</h1>
      {session === undefined ? (
        <Preparation params={params} onBegun={setSession} />
      ) : (
        <Running
          session={session}
          onForget={() => {
            forget();
            setSession(undefined);
          }}
        />
      )}
    </>
  );
}

function Preparation({ params, onBegun }: { params: URLSearchParams; onBegun: (session: Session) => void }) {
  const server = useLoaded(listEmbedders, []);
  const collections = useCollections();
  const [folder, setFolder] = useState<Folder>();
  const [destination, setDestination] = useState<Destination>();
  const [skipStored, setSkipStored] = useState(true);
  const error = server.error ?? collections.error;
  const place = { collection: params.get("collection") ?? "", tenant: params.get("tenant") ?? "", vector: "" };
  if (error !== undefined) return <ErrorNote error={error} onRetry={() => { server.reload(); collections.reload(); }} />;
  if (server.value === undefined || collections.value === undefined) return <Busy />;
  const limits: ServerLimitsJson = server.value.limits ?? {};
  const missing = whatIsMissing(folder, destination);
  return (
    <form
      class="stack import"
      onSubmit={(event) => {
        event.preventDefault();
        if (folder && destination) onBegun(begin(destination, folder, limits, skipStored));
      }}
    >
      <fieldset class="stack">
        <legend>Pictures</legend>
        <FilesZone choose="Choose pictures" hint="or drop a folder here" onFiles={(files, refused) => setFolder(sortOut(files, refused))} />
        <div aria-live="polite">{folder && <Contents folder={folder} />}</div>
      </fieldset>
      <DestinationForm collections={collections.value} embedders={server.value.embedders ?? []} place={place} onChange={setDestination} onCreated={collections.reload} />
      <fieldset>
        <legend>Pictures that are stored already</legend>
        <div class="row">
          <label class="check"><input type="radio" name="stored" checked={skipStored} onChange={() => setSkipStored(true)} />are passed over</label>
          <label class="check"><input type="radio" name="stored" checked={!skipStored} onChange={() => setSkipStored(false)} />are replaced with all their properties</label>
        </div>
        <p class="quiet">A picture is known by the collection and its path in the folder, as for <code>vecgate import</code>.</p>
      </fieldset>
      <div class="row">
        <button class="primary" disabled={missing !== ""} aria-describedby="import-missing">Import</button>
        <span id="import-missing" class="quiet">{missing}</span>
      </div>
    </form>
  );
}

/** Why an import cannot begin; empty if it can. */
function whatIsMissing(folder: Folder | undefined, destination: Destination | undefined): string {
  if (folder === undefined) return "Choose a folder or pictures first.";
  if (folder.pictures.length === 0) return "Nothing that was chosen is a picture.";
  return destination === undefined ? "Choose where they go: a collection, and its tenant if it has some. A new one has to be created first." : "";
}

/** What a folder has, and what of it is not sent. */
function Contents({ folder }: { folder: Folder }) {
  const others = [...folder.ignored].sort(([, one], [, other]) => other.length - one.length);
  const total = others.reduce((sum, [, paths]) => sum + paths.length, 0);
  return (
    <>
      <p><strong>{count(folder.pictures.length)} {folder.pictures.length === 1 ? "picture" : "pictures"}</strong>, {size(folder.bytes)}</p>
      {total > 0 && (
        <details>
          <summary>{count(total)} other {total === 1 ? "file is" : "files are"} not sent</summary>
          <ul>
            {others.map(([kind, paths]) => (
              <li>
                <Text clamp={80}>{kind}</Text> ({count(paths.length)}): {paths.slice(0, SHOWN_EXAMPLES).map((path, at) => <>{at > 0 && ", "}<Text clamp={80}>{path}</Text></>)}
                {paths.length > SHOWN_EXAMPLES && ` and ${count(paths.length - SHOWN_EXAMPLES)} more`}
                {HEIC_SUFFIXES.has(kind) && "; HEIC is not read: convert it to JPEG or PNG"}
              </li>
            ))}
          </ul>
        </details>
      )}
      {folder.refused.length > 0 && (
        <details open>
          <summary>{count(folder.refused.length)} cannot be imported</summary>
          <ul>{folder.refused.slice(0, SHOWN_FAILURES).map(({ path, reason }) => <li><Text clamp={120}>{path}</Text>: <Text>{reason}</Text></li>)}</ul>
        </details>
      )}
    </>
  );
}

function Running({ session, onForget }: { session: Session; onForget: () => void }) {
  const { importer, destination, folder } = session;
  const progress = useProgress(importer);
  const { phase, failed, left, total } = progress;
  const done = total - left;
  const search = href("search", { collection: destination.collection, tenant: destination.tenant });
  const going = phase === "running" || phase === "waiting";
  return (
    <section class="stack import" aria-label="Import">
      <p>
        Into <a href={search}><bdi class="text">{short(destination.collection, 80)}</bdi></a>
        {destination.tenant && <> for <Text clamp={80}>{destination.tenant}</Text></>}
      </p>
      <progress max={total} value={done} aria-label="Pictures that are done">{done} of {total}</progress>
      <p class="row">
        <strong>{count(done)} of {count(total)}</strong>
        <Counts progress={progress} />
        {phase === "running" && progress.perSecond > 0 && <span class="quiet">{progress.perSecond.toFixed(1)} a second</span>}
        {phase === "running" && progress.leftS !== null && <span class="quiet">{words.span(progress.leftS)} left</span>}
      </p>
      <State progress={progress} />
      {progress.trouble && !(going && phase === "running") && <Trouble progress={progress} importer={importer} />}
      <p class="row">
        {going && <button type="button" onClick={() => importer.stop()}>Stop</button>}
        {!going && left > 0 && <button type="button" class="primary" onClick={() => run(session)}>Go on</button>}
        {!going && failed > 0 && (
          <button
            type="button"
            onClick={() => {
              importer.retryFailed();
              run(session);
            }}
          >
            Try those that failed again
          </button>
        )}
        {!going && <button type="button" onClick={onForget}>Import something else</button>}
        {!going && <a class="button" href={search}>Search in it</a>}
      </p>
      <Failures importer={importer} failed={failed} />
      <details><summary>What was chosen</summary><Contents folder={folder} /></details>
    </section>
  );
}

function Counts({ progress: { stored, skipped, failed } }: { progress: Progress }) {
  return (
    <>
      <span class="badge good">{count(stored)} stored</span>
      {skipped > 0 && <span class="badge">{count(skipped)} stored before</span>}
      {failed > 0 && <span class="badge bad">{count(failed)} failed</span>}
    </>
  );
}

/** What happens now, for those who listen, too; counts change too often for that. */
function State({ progress: { phase, failed } }: { progress: Progress }) {
  const said = {
    ready: "",
    running: "Pictures are being sent. You can look at other pages meanwhile; do not close this tab.",
    waiting: "The import waits, and goes on by itself.",
    stopped: "The import has stopped. It can go on here, or after the same folder is chosen again: what is stored is passed over.",
    done: failed > 0 ? "The import is done, but some pictures failed." : "The import is done.",
  };
  return <p role="status">{said[phase]}</p>;
}

function Trouble({ progress, importer }: { progress: Progress; importer: Importer<File> }) {
  const { trouble, phase, resumesAt } = progress;
  if (trouble === null) return null;
  return (
    <div class="note error">
      <p><Text>{trouble.message}</Text> {trouble.reason && <code>{trouble.reason}</code>}</p>
      {phase === "waiting" && (
        <p class="row">
          <span class="quiet">Next try at {new Date(resumesAt).toLocaleTimeString()}</span>
          <button type="button" onClick={() => importer.tryNow()}>Try now</button>
        </p>
      )}
    </div>
  );
}

function Failures({ importer, failed }: { importer: Importer<File>; failed: number }) {
  if (failed === 0) return null;
  const all = [...importer.failures].map(([at, failure]) => ({ path: importer.pictures[at]?.path ?? "", failure }));
  const reason = ({ reason, message }: Failure) => [reason, message].filter((each) => each !== "").join(": ");
  return (
    <>
      <div class="row">
        <h2>Failed</h2>
        <CopyButton label="Copy as CSV" make={() => toCsv([["path", "reason"], ...all.map(({ path, failure }) => [path, reason(failure)])])} />
      </div>
      <Table caption="Pictures that failed" head={["Picture", "Reason"]} rows={all.slice(0, SHOWN_FAILURES).map(({ path, failure }) => [<Text clamp={120}>{path}</Text>, <Text>{reason(failure)}</Text>])} />
      {all.length > SHOWN_FAILURES && <p class="quiet">and {count(all.length - SHOWN_FAILURES)} more; the copy has all of them</p>}
    </>
  );
}

function size(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB"];
  const power = bytes < 1000 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), units.length - 1);
  return `${(bytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}
