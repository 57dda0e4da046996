import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";

import { LocalPicture } from "../parts/picture";
import { Line, short } from "../parts/text";
import type { QueryPicture } from "../query-picture";
import type { CollectionJson } from "../types";
import type { SearchState } from "./state";

const STILL_MS = 300;

/** A share from 0 to 1. It counts when it stays for a moment, so that not every step searches. */
export function Share({ label, ends, value, onChange, help }: { label: string; ends: [string, string]; value: number; onChange: (value: number) => void; help: string }) {
  const id = useId();
  const [shown, setShown] = useState(value);
  const latest = useRef(onChange);
  latest.current = onChange;
  // At once: an effect that waits for the next frame would undo, or leave out, a move that comes before it.
  useLayoutEffect(() => setShown(value), [value]);
  useLayoutEffect(() => {
    if (shown === value) return undefined;
    const timer = setTimeout(() => latest.current(shown), STILL_MS);
    return () => clearTimeout(timer);
  }, [shown, value]);
  return (
    <div class="share">
      <label for={id}>{label} <output for={id}>{shown.toFixed(2)}</output></label>
      <input id={id} type="range" min={0} max={1} step={0.05} value={shown} title={help} aria-describedby={`${id}-ends`} onInput={(event) => setShown(Number(event.currentTarget.value))} />
      <span id={`${id}-ends`} class="ends"><span>{ends[0]}</span><span>{ends[1]}</span></span>
    </div>
  );
}

/** The picture or the object that is searched by. */
export function QuerySide({ picture, gone, like, onRemove }: { picture: QueryPicture | undefined; gone: boolean; like: preact.ComponentChildren; onRemove: () => void }) {
  return (
    <div class="side">
      {like}
      {picture && (
        <>
          <span class="thumb">{picture.shown ? <LocalPicture blob={picture.shown} alt="The picture that is searched by" /> : <span class="missing">no preview</span>}</span>
          <Line clamp={60}>{picture.name}</Line>
        </>
      )}
      {gone && <span class="quiet">The picture of this search is not kept; choose it again.</span>}
      <button type="button" class="plain" aria-label="Remove the picture from the search" onClick={onRemove}>✕</button>
    </div>
  );
}

/** What objects are sorted by where there is no query. */
export function SortPicker({ state, collection, onChange }: { state: SearchState; collection: CollectionJson; onChange: (change: Partial<SearchState>) => void }) {
  const sortable = (collection.properties ?? []).filter((each) => !/BLOB|OBJECT|GEO|UNSPECIFIED/.test(each.dataType ?? "UNSPECIFIED"));
  const id = useId();
  return (
    <div class="row">
      <label for={id}>
        Sorted by
        <select id={id} value={state.sort} onChange={(event) => onChange({ sort: event.currentTarget.value })}>
          <option value="">id</option>
          {sortable.map((each) => <option value={each.name}>{short(each.name ?? "", 60)}</option>)}
        </select>
      </label>
      {state.sort !== "" && (
        <label class="check"><input type="checkbox" checked={state.descending} onChange={(event) => onChange({ descending: event.currentTarget.checked })} /> largest first</label>
      )}
    </div>
  );
}
