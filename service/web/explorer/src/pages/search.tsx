import type { Ref } from "preact";
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { listEmbedders, pictureProperties, smallProperty, titleProperty, useLoaded } from "../collections";
import { Busy } from "../parts/busy";
import { CollectionPicker, collectionOf, isWhole, useCollections } from "../parts/collection-picker";
import { DropZone } from "../parts/drop-zone";
import { ErrorNote } from "../parts/error-note";
import { Picture } from "../parts/picture";
import { count, short, Text } from "../parts/text";
import { TimingBar } from "../parts/timing";
import { usePictureReader, type QueryPicture } from "../query-picture";
import { href, navigate } from "../router";
import { QuerySide, Share, SortPicker } from "../search/controls";
import { countConditions, emptyGroup, targetsOf } from "../search/filter";
import { FilterEditor } from "../search/filter-editor";
import { HitGrid, type Found } from "../search/hit-grid";
import { toRequest, type ApiRequest } from "../search/request";
import { useSearch, type Results } from "../search/running";
import { PICTURE } from "../search/snippets";
import { SnippetList } from "../search/snippet-list";
import { keepPicture, keptPicture, readState, writeState, type SearchState } from "../search/state";
import type { CollectionJson, JsonValue } from "../types";

/** Search by words, by a picture, by both; without a query, all objects. */
export function SearchPage({ params }: { params: URLSearchParams }) {
  const { value: collections, error, reload } = useCollections();
  if (error !== undefined) return <ErrorNote error={error} onRetry={reload} />;
  if (collections === undefined) return <Busy>Loading the collections</Busy>;
  if (collections.length === 0) return <NoCollections />;
  return <SearchForm collections={collections} state={readState(params)} />;
}

function NoCollections() {
  return (
    <>
      <h1>Search</h1>
      <p>There is no collection yet. <a href={href("import")}>Import</a> a folder of pictures, and search it here.</p>
    </>
  );
}

function SearchForm({ collections, state: given }: { collections: CollectionJson[]; state: SearchState }) {
  const collection = collectionOf(collections, given.collection);
  const state = { ...given, collection: collection?.name ?? given.collection };
  const picture = keptPicture(state.picture);
  const targets = useMemo(() => (collection ? targetsOf(collection) : []), [collection]);
  const [typed, setTyped] = useState(state.words);
  useLayoutEffect(() => setTyped(state.words), [state.words]);
  const box = useRef<HTMLInputElement>(null);
  // What stands in the box counts, sent or not.
  const change = (next: Partial<SearchState>, how?: { replace: boolean }) => navigate("search", writeState({ ...state, words: typed.trim(), ...next }), how);
  // A step to where people are going anyway is no place to go back to.
  const adjust = (next: Partial<SearchState>) => change(next, { replace: true });

  const ready = collection !== undefined && isWhole(collection, state) && (state.picture === "" || picture !== undefined);
  const address = JSON.stringify(writeState(state));
  const search = useSearch(JSON.stringify([state.collection, state.tenant]), `${address} ${ready}`, ready ? (start) => toRequest(state, targets, picture?.content, start) : undefined);
  const { read, fault } = usePictureReader((given) => change({ picture: keepPicture(given), like: "" }));
  // What has the focus is about to go.
  const widen = (next: Partial<SearchState>) => {
    box.current?.focus();
    change(next);
  };

  return (
    <div class="search">
      <h1 class="hidden">Search</h1>
      <section class="query" aria-label="Query">
        <Words state={state} typed={typed} onType={setTyped} box={box} onSearch={(words) => (words === state.words ? search.again() : change({ words }))} />
        <Side state={state} collection={collection} picture={picture} onChange={widen} onPicture={read} />
        <ErrorNote error={fault} />
        <Examples state={state} collection={collection} hits={search.results?.hits ?? []} onChoose={(words) => change({ words })} />
      </section>
      <Options state={state} collections={collections} collection={collection} hasPicture={picture !== undefined} onChange={change} onAdjust={adjust} targets={targets} />
      <section class="results" aria-label="Results">
        {!collection && <p class="note" role="alert">There is no collection <strong><Text>{state.collection}</Text></strong>, or this key may not use it. Choose another.</p>}
        {collection && !isWhole(collection, state) && <p class="note">This collection has tenants. Choose one to see its objects.</p>}
        {!search.results && <ErrorNote error={search.error} onRetry={search.retry} />}
        {collection && ready && (
          <Answer
            state={state}
            collection={collection}
            results={search.results}
            busy={search.busy}
            error={search.error}
            request={toRequest(state, targets, picture && PICTURE)}
            file={picture?.name ?? ""}
            onMore={search.more}
            onRetry={search.retry}
            onChange={widen}
          />
        )}
      </section>
    </div>
  );
}

interface WordsProps {
  state: SearchState;
  typed: string;
  onType: (words: string) => void;
  box: Ref<HTMLInputElement>;
  onSearch: (words: string) => void;
}

function Words({ state, typed, onType, box, onSearch }: WordsProps) {
  const beside = state.picture !== "" || state.like !== "";
  return (
    <form
      class="words"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        onSearch(typed.trim());
      }}
    >
      <input
        ref={box}
        type="search"
        name="words"
        aria-label="Search by words"
        placeholder={beside ? "Add words to the picture" : "What are you looking for?"}
        autocomplete="off"
        enterkeyhint="search"
        value={typed}
        onInput={(event) => {
          onType(event.currentTarget.value);
          // The cross in the field empties it.
          if (event.currentTarget.value === "" && state.words !== "") onSearch("");
        }}
      />
      <button type="submit" class="primary">Search</button>
    </form>
  );
}

interface SideProps {
  state: SearchState;
  collection: CollectionJson | undefined;
  picture: QueryPicture | undefined;
  onChange: (change: Partial<SearchState>) => void;
  onPicture: (file: File) => void;
}

/** The picture or the object beside the words, or the place where one can be dropped. */
function Side({ state, collection, picture, onChange, onPicture }: SideProps) {
  const given = state.picture !== "" || state.like !== "";
  const [property] = collection ? pictureProperties(collection) : [];
  const like = collection && state.like !== "" && (
    <>
      {property && <span class="thumb"><Picture collection={state.collection} tenant={state.tenant} id={state.like} property={property} beside={smallProperty(collection)} alt="The object that is searched by" /></span>}
      <span>like <a href={href("object", { collection: state.collection, tenant: state.tenant, id: state.like })}>this object</a></span>
    </>
  );
  return (
    <div class="beside">
      {given && <QuerySide picture={picture} gone={state.picture !== "" && !picture} like={like} onRemove={() => onChange({ picture: "", like: "" })} />}
      <DropZone onFiles={([file]) => file && onPicture(file)}>{given ? "or drop or paste another" : "or drop or paste one anywhere"}</DropZone>
    </div>
  );
}

/** Words that find something among the sample pictures of the demo. */
const DEMO_WORDS = ["birthday party", "something cold to drink", "red heart", "a wild animal", "bad weather"];

/** A few words to begin with. */
function Examples({ state, collection, hits, onChoose }: { state: SearchState; collection: CollectionJson | undefined; hits: Found[]; onChoose: (words: string) => void }) {
  const [titles, setTitles] = useState<string[]>([]);
  useEffect(() => setTitles([]), [state.collection]);
  useEffect(() => {
    // Kept, so that the row does not change under the hand of somebody who tries one after the other.
    if (collection && titles.length === 0) setTitles(exampleWords(collection, hits));
  }, [collection, hits]);
  if (titles.length === 0) return null;
  return (
    <p class="examples">
      <span class="quiet">Try</span>
      {titles.map((each) => <button type="button" onClick={() => onChoose(each)}><bdi>{each}</bdi></button>)}
    </p>
  );
}

function exampleWords(collection: CollectionJson, hits: Found[]): string[] {
  const names = (collection.properties ?? []).map((each) => each.name);
  if (collection.name === "Pictures" && names.includes("path") && hits.length > 0) return DEMO_WORDS;
  const title = titleProperty(collection);
  const words = hits.map((each) => (each.object.properties as Record<string, JsonValue> | undefined)?.[title ?? ""]);
  return [...new Set(words.filter((each) => typeof each === "string" && each.length > 0 && each.length <= 30) as string[])].slice(0, 4);
}

interface OptionsProps {
  state: SearchState;
  collections: CollectionJson[];
  collection: CollectionJson | undefined;
  hasPicture: boolean;
  targets: ReturnType<typeof targetsOf>;
  onChange: (change: Partial<SearchState>) => void;
  /** As onChange, for what people move step by step. */
  onAdjust: (change: Partial<SearchState>) => void;
}

/** Where to look, how the parts of the query count, and which objects. */
function Options({ state, collections, collection, hasPicture, targets, onChange, onAdjust }: OptionsProps) {
  const filterSection = useRef<HTMLElement>(null);
  const removeAll = () => {
    filterSection.current?.querySelector<HTMLElement>(".filter > [role=group] > .row:last-child > button")?.focus();
    onAdjust({ filter: emptyGroup() });
  };
  const wide = useMedia("(min-width: 1000px)");
  const id = useId();
  const hasWords = state.words !== "";
  const beside = hasPicture || state.like !== "";
  const conditions = countConditions(state.filter);
  const summary = [collection ? short(collection.name ?? "", 40) : "", conditions > 0 ? `${conditions} ${conditions === 1 ? "condition" : "conditions"}` : ""].filter((each) => each !== "").join(", ");
  return (
    <aside class="options" aria-label="Options">
      <details key={String(wide)} open={wide}>
        <summary class={wide ? "hidden" : undefined}>Options <span class="quiet"><bdi>{summary}</bdi></span></summary>
        <div class="panel stack">
          <CollectionPicker collections={collections} place={state} onChange={(place) => onChange(place.collection === state.collection ? place : { ...place, like: "", filter: emptyGroup(), sort: "", descending: false })} />
          {hasWords && (
            <Share label="Keywords or meaning (alpha)" ends={["keywords", "meaning"]} value={state.alpha} onChange={(alpha) => onAdjust({ alpha })} help="1 searches by vectors alone, 0 by keywords alone, and between them by both (hybrid)" />
          )}
          {hasWords && beside && state.alpha > 0 && (
            <>
              {!(state.joint && hasPicture) && (
                <Share label={hasPicture ? "Words or picture" : "Words or object"} ends={["words", hasPicture ? "picture" : "object"]} value={state.weight} onChange={(weight) => onAdjust({ weight })} help="How much each counts in the query's vector" />
              )}
              {hasPicture && collection && <Joint state={state} collection={collection} onChange={onChange} />}
            </>
          )}
          {hasWords && beside && state.alpha === 0 && <p class="quiet">With keywords alone the {hasPicture ? "picture" : "object"} does not count.</p>}
          {collection && !hasWords && !beside && <SortPicker state={state} collection={collection} onChange={onChange} />}
          <section aria-labelledby={`${id}-filter`} ref={filterSection}>
            <div class="row between">
              <h2 id={`${id}-filter`} class="small">Filter</h2>
              {conditions > 0 && <button type="button" class="link" onClick={removeAll}>Remove all</button>}
            </div>
            <FilterEditor group={state.filter} targets={targets} onChange={(filter) => onAdjust({ filter })} />
          </section>
        </div>
      </details>
    </aside>
  );
}

/** For models that read a text and a picture together. */
function Joint({ state, collection, onChange }: { state: SearchState; collection: CollectionJson; onChange: (change: Partial<SearchState>) => void }) {
  const { value } = useLoaded(listEmbedders, []);
  const vectors = collection.vectors ?? [];
  const vector = vectors.find((each) => each.name === (state.vector || collection.defaultVector)) ?? vectors[0];
  const embedder = value?.embedders?.find((each) => each.space === vector?.space);
  if (!embedder?.modalities?.includes("MODALITY_TEXT_IMAGE") && !state.joint) return null;
  return <label class="check"><input type="checkbox" checked={state.joint} onChange={(event) => onChange({ joint: event.currentTarget.checked })} /> read words and picture as one input</label>;
}

interface AnswerProps {
  state: SearchState;
  collection: CollectionJson;
  results: Results | undefined;
  busy: boolean;
  error: unknown;
  request: ApiRequest;
  file: string;
  onMore: () => void;
  onRetry: () => void;
  onChange: (change: Partial<SearchState>) => void;
}

function Answer({ state, collection, results, busy, error, request, file, onMore, onRetry, onChange }: AnswerProps) {
  const properties = pictureProperties(collection);
  const [chosen, setChosen] = useState("");
  const picture = properties.includes(chosen) ? chosen : properties[0];
  const listing = request.method === "ListObjects";
  const likeHref = (id: string) => href("search", writeState({ ...state, words: "", picture: "", like: id, alpha: 1 }));
  return (
    <>
      <div class="answer">
        <p role="status" aria-live="polite">{busy ? "Searching…" : results && <Summary results={results} listing={listing} />}</p>
        {properties.length > 1 && (
          <label class="inline">Picture <select value={picture} onChange={(event) => setChosen(event.currentTarget.value)}>{properties.map((each) => <option value={each}>{short(each, 40)}</option>)}</select></label>
        )}
      </div>
      <SnippetList request={request} file={file} />
      {results && results.hits.length === 0 && !busy && <Nothing state={state} onChange={onChange} />}
      {results && <div class={busy ? "waiting" : undefined}><HitGrid hits={results.hits} collection={collection} tenant={state.tenant} picture={picture} likeHref={likeHref} /></div>}
      {!results && busy && <Busy>Searching</Busy>}
      {results && error !== undefined && <div class="more"><ErrorNote error={error} onRetry={onRetry} /></div>}
      {results?.next && error === undefined && <p class="more"><button type="button" aria-disabled={busy} onClick={() => busy || onMore()}>{busy ? "Loading…" : "Show more"}</button></p>}
    </>
  );
}

/** How many, by which embedder, in which space, and how long it took. */
function Summary({ results, listing }: { results: Results; listing: boolean }) {
  const number = results.hits.length;
  const noun = listing ? (number === 1 ? "object" : "objects") : number === 1 ? "hit" : "hits";
  return (
    <>
      <strong>{results.next ? "The first " : ""}{count(number)} {noun}</strong>
      {results.embedders.map((each) => (
        <span class="by"> by the embedder <Text clamp={60}>{each.name ?? ""}</Text> <span class="quiet" title="Vectors of one space can be compared with each other, and with no others">in the space <code><Text clamp={80}>{each.space ?? ""}</Text></code></span></span>
      ))}
      {results.timing && <> <TimingBar timing={results.timing} /></>}
    </>
  );
}

function Nothing({ state, onChange }: { state: SearchState; onChange: (change: Partial<SearchState>) => void }) {
  const filtered = countConditions(state.filter) > 0;
  return (
    <div class="note">
      <p><strong>Nothing was found.</strong></p>
      {filtered && <p>No object fits the filter and the query. <button type="button" class="link" onClick={() => onChange({ filter: emptyGroup() })}>Search without the filter</button></p>}
      {!filtered && state.words !== "" && state.alpha === 0 && <p>No object has these keywords. <button type="button" class="link" onClick={() => onChange({ alpha: 1 })}>Search by their meaning</button></p>}
      {!filtered && state.words === "" && <p>The collection has no objects yet. <a href={href("import", { collection: state.collection })}>Import some</a></p>}
    </div>
  );
}

function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const follow = () => setMatches(list.matches);
    list.addEventListener("change", follow);
    return () => list.removeEventListener("change", follow);
  }, [query]);
  return matches;
}
