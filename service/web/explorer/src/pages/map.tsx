/** The map of a collection: its objects as points, near ones close together, and queries among them. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { pictureProperties, smallProperty, useLoaded, type Loaded } from "../collections";
import { MapCanvas, type Scene } from "../map/canvas";
import { colourBy, groups, type Colouring } from "../map/colours";
import { loadMap, mapProperties, nameOf, type MapData, type MapInput, type Method } from "../map/load";
import "../map/map.css";
import { MOST_SHOWN } from "../map/thumbnails";
import { Busy } from "../parts/busy";
import { CollectionPicker, collectionOf, isWhole, useCollections, type Place } from "../parts/collection-picker";
import { DropZone } from "../parts/drop-zone";
import { ErrorNote } from "../parts/error-note";
import { LocalPicture, Picture } from "../parts/picture";
import { Line, Text, count, isolated, short } from "../parts/text";
import { asText } from "../parts/value";
import { fetchPicture, type PictureKey } from "../pictures";
import { usePictureReader, type QueryPicture } from "../query-picture";
import { href, navigate } from "../router";
import { onThemeChange, themeColour } from "../theme";
import type { CollectionJson } from "../types";

const SIZES = [500, 1000, 2000, 5000];
const LISTED = 50;

/** What stands in the address. */
interface MapState extends Place {
  size: number;
  method: Method;
  /** The property that colours points; empty for none. */
  colour: string;
  words: string;
}

function readState(params: URLSearchParams): MapState {
  const of = (name: string) => params.get(name) ?? "";
  const size = Number(of("size"));
  return {
    collection: of("collection"),
    tenant: of("tenant"),
    vector: of("vector"),
    size: SIZES.includes(size) ? size : 2000,
    method: of("method") === "umap" ? "umap" : "pca",
    colour: of("colour"),
    words: of("words"),
  };
}

function go(state: MapState): void {
  const { size, method, ...rest } = state;
  navigate("map", { ...rest, size: size === 2000 ? undefined : size, method: method === "pca" ? undefined : method });
}

export function MapPage({ params }: { params: URLSearchParams }) {
  const state = readState(params);
  const collections = useCollections();
  const chosen = collectionOf(collections.value, state.collection);
  const [columns, setColumns] = useState<MapData["columns"]>();
  return (
    <div class="stack">
      <h1>Map</h1>
      <p class="quiet">Objects whose vectors are alike lie near each other.</p>
      <ErrorNote error={collections.error} onRetry={collections.reload} />
      {collections.value === undefined && collections.error === undefined && <Busy>Loading collections</Busy>}
      {collections.value && <Settings collections={collections.value} state={state} chosen={chosen} columns={columns} />}
      {collections.value?.length === 0 && <p class="note">There are no collections yet. <a href={href("import")}>Import some pictures</a></p>}
      {chosen && !isWhole(chosen, state) && <p class="quiet">Choose a tenant to see its map.</p>}
      {chosen && isWhole(chosen, state) && <Drawn key={`${chosen.name} ${state.tenant} ${state.vector}`} collection={chosen} state={{ ...state, collection: chosen.name ?? "" }} onColumns={setColumns} />}
    </div>
  );
}

function Settings({ collections, state, chosen, columns }: { collections: CollectionJson[]; state: MapState; chosen: CollectionJson | undefined; columns: MapData["columns"] | undefined }) {
  const properties = chosen ? mapProperties(chosen) : [];
  const others = useMemo(() => properties.filter((each) => !groups(columns?.get(each) ?? [])), [chosen, columns]);
  const telling = properties.filter((each) => !others.includes(each));
  return (
    <div class="panel map-settings">
      <CollectionPicker collections={collections} place={state} onChange={(place) => go({ ...state, ...place, colour: place.collection === state.collection ? state.colour : "" })} />
      <div class="fields">
        <label>
          Objects
          <select value={String(state.size)} onChange={(event) => go({ ...state, size: Number(event.currentTarget.value) })}>
            {SIZES.map((each) => <option value={String(each)}>up to {count(each)}</option>)}
          </select>
        </label>
        <label>
          Projection
          <select value={state.method} onChange={(event) => go({ ...state, method: event.currentTarget.value as Method })}>
            <option value="pca">PCA: a quick overview</option>
            <option value="umap">UMAP: groups of neighbours, slower</option>
          </select>
        </label>
        <label>
          Colour
          <select value={state.colour} onChange={(event) => go({ ...state, colour: event.currentTarget.value })}>
            <option value="">one for all</option>
            {telling.map((each) => <option value={each}>by {isolated(each, 40)}</option>)}
            {others.length > 0 && <optgroup label="few objects alike">{others.map((each) => <option value={each}>by {isolated(each, 40)}</option>)}</optgroup>}
          </select>
        </label>
      </div>
    </div>
  );
}

/** The map with what is beside it. */
function Drawn({ collection, state, onColumns }: { collection: CollectionJson; state: MapState; onColumns: (columns: MapData["columns"]) => void }) {
  const [picture, setPicture] = useState<QueryPicture>();
  const [selected, setSelected] = useState<number>();
  const [seen, setSeen] = useState<number[]>([]);
  const map = useRef<MapCanvas | undefined>(undefined);
  const { data, loaded } = useMap(collection, state, picture);
  useEffect(() => data && onColumns(data.columns), [data]);
  const plain = useThemeColour("accent");
  const colouring = useMemo(() => data && colourBy(state.colour ? data.columns.get(state.colour) : undefined, data.ids.length, plain), [data, state.colour, plain]);
  const pictures = usePictureKeys(collection, state.tenant);
  const scene = useMemo<Scene | undefined>(() => {
    if (!data || !colouring) return undefined;
    const loadPicture = pictures && (async (point: number, signal: AbortSignal) => {
      const found = await fetchPicture(pictures(data.ids[point] ?? ""), signal);
      return "picture" in found ? found.picture : undefined;
    });
    return { data, colouring, loadPicture };
  }, [data, colouring, pictures]);
  const empty = data?.total === 0;
  return (
    <div class="map-page">
      <div class="stack">
        <ErrorNote error={loaded.error} onRetry={loaded.reload} />
        {empty && <p class="note">There are no objects to show. <a href={href("import", { collection: collection.name, tenant: state.tenant })}>Import some pictures</a></p>}
        <div class="map-frame" hidden={empty}>
          <Canvas scene={scene} map={map} label={`Map of ${collection.name ?? ""}`} onSelect={setSelected} onView={setSeen} />
          {loaded.value === undefined && loaded.error === undefined && (
            <div class="map-wait"><Busy>{state.method === "umap" ? "UMAP takes up to two minutes" : "Drawing the map"}</Busy></div>
          )}
          <div class="map-zoom">
            <button type="button" aria-label="Zoom in" onClick={() => map.current?.zoom(1.5)}>+</button>
            <button type="button" aria-label="Zoom out" onClick={() => map.current?.zoom(1 / 1.5)}>−</button>
            <button type="button" aria-label="Show everything" onClick={() => map.current?.fit()}>⤢</button>
          </div>
        </div>
        <p class="quiet" id="map-help" hidden={empty}>Drag to move, turn the wheel or pinch to zoom, tap an object to choose it. Pictures are shown when at most {MOST_SHOWN} objects are in view. On the keyboard: arrows, + and -, 0 for everything, N and P from object to object.</p>
        {data && <Facts data={data} state={state} />}
      </div>
      <div class="map-side">
        <Query state={state} picture={picture} setPicture={setPicture} data={data} onSelect={(point) => map.current?.select(point)} />
        {data && selected !== undefined && <Chosen data={data} index={selected} collection={collection} tenant={state.tenant} picture={pictures} />}
        {data && colouring && state.colour && <Legend colouring={colouring} property={state.colour} />}
        {data && <InView data={data} points={seen} selected={selected} onSelect={(point) => map.current?.select(point)} />}
      </div>
    </div>
  );
}

/** The map, loaded anew when something changes; the last one stays while the next one is on its way. */
function useMap(collection: CollectionJson, state: MapState, picture: QueryPicture | undefined): { data: MapData | undefined; loaded: Loaded<MapData> } {
  const { tenant, vector, size, method, words } = state;
  const inputs: MapInput[] = [
    ...(words.trim() === "" ? [] : [{ name: words.trim(), input: { text: words.trim() } }]),
    ...(picture === undefined ? [] : [{ name: picture.name, input: { image: { content: picture.content } } }]),
  ];
  const loaded = useLoaded((signal) => loadMap({ collection, tenant, vector, size, method, inputs }, signal), [collection, tenant, vector, size, method, words.trim(), picture]);
  const last = useRef<MapData | undefined>(undefined);
  if (loaded.value) last.current = loaded.value;
  return { data: last.current, loaded };
}

/** A colour of the theme, which changes with it. */
function useThemeColour(name: string): string {
  const [colour, setColour] = useState(() => themeColour(name));
  useEffect(() => {
    const stop = new AbortController();
    onThemeChange(() => setColour(themeColour(name)), stop.signal);
    return () => stop.abort();
  }, [name]);
  return colour;
}

/** Which picture an object has; undefined where the collection has no pictures. */
function usePictureKeys(collection: CollectionJson, tenant: string): ((id: string) => PictureKey) | undefined {
  return useMemo(() => {
    const property = pictureProperties(collection)[0];
    if (property === undefined) return undefined;
    const beside = smallProperty(collection);
    return (id: string) => ({ collection: collection.name ?? "", tenant, id, property, beside });
  }, [collection, tenant]);
}

function Canvas({ scene, map, label, onSelect, onView }: {
  scene: Scene | undefined;
  map: { current: MapCanvas | undefined };
  label: string;
  onSelect: (point: number | undefined) => void;
  onView: (points: number[]) => void;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (!canvas.current) return undefined;
    const made = new MapCanvas(canvas.current, { onSelect, onView });
    map.current = made;
    return () => {
      map.current = undefined;
      made.close();
    };
  }, []);
  useEffect(() => {
    if (scene) map.current?.show(scene);
  }, [scene]);
  return <canvas ref={canvas} tabIndex={0} role="application" aria-label={label} aria-describedby="map-help" />;
}

/** What the map shows, and how it came about. */
function Facts({ data, state }: { data: MapData; state: MapState }) {
  const all = data.ids.length === data.total;
  const shares = data.explained.map((each) => Math.round(100 * each));
  return (
    <p class="quiet" role="status">
      {all ? `All ${count(data.total)} objects.` : `${count(data.ids.length)} of ${count(data.total)} objects.`}
      {data.missing > 0 && ` ${count(data.missing)} were left out, because they lack the vector.`}
      {state.method === "pca" && shares.length === 2 && ` The plane shows ${(shares[0] ?? 0) + (shares[1] ?? 0)} % of how the vectors differ.`}
      {" Vector "}<Text clamp={60}>{data.vector}</Text>
      {data.space && <>, space <Text clamp={100}>{data.space}</Text></>}
      {data.embedder && <>, query embedded by <Text clamp={60}>{data.embedder.name ?? ""}</Text></>}
      {`. ${Math.round(data.timing.roundTripMs)} ms.`}
    </p>
  );
}

/** Words and a picture to place on the map. */
function Query({ state, picture, setPicture, data, onSelect }: {
  state: MapState;
  picture: QueryPicture | undefined;
  setPicture: (picture: QueryPicture | undefined) => void;
  data: MapData | undefined;
  onSelect: (point: number) => void;
}) {
  const [words, setWords] = useState(state.words);
  useLayoutEffect(() => setWords(state.words), [state.words]);
  const { read, fault } = usePictureReader(setPicture);
  return (
    <section class="panel map-query" aria-label="Query">
      <h2>Place a query</h2>
      <p class="quiet">See where words or a picture of yours lie among the objects.</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          go({ ...state, words });
        }}
      >
        <label>
          Words
          <input type="search" value={words} onInput={(event) => setWords(event.currentTarget.value)} />
        </label>
        <button type="submit" class="primary">Place</button>
        <DropZone onFiles={([file]) => file && read(file)} />
        {picture && (
          <div class="shown">
            {picture.shown && <LocalPicture blob={picture.shown} alt="" />}
            <Line>{picture.name}</Line>
            <button type="button" onClick={() => setPicture(undefined)}>Remove</button>
          </div>
        )}
        <ErrorNote error={fault} />
      </form>
      {data?.placed.map((each) => (
        <>
          <h3>Nearest to <Line clamp={60}>{each.name}</Line></h3>
          <ol class="map-list">
            {each.nearest.map((point) => (
              <li><button type="button" onClick={() => onSelect(point)}><Line>{nameOf(data, point)}</Line></button></li>
            ))}
          </ol>
        </>
      ))}
    </section>
  );
}

function Chosen({ data, index, collection, tenant, picture }: {
  data: MapData;
  index: number;
  collection: CollectionJson;
  tenant: string;
  picture: ((id: string) => PictureKey) | undefined;
}) {
  const id = data.ids[index];
  if (id === undefined) return null;
  const name = nameOf(data, index);
  const values = [...data.columns].map(([property, column]) => [property, column[index] ?? null] as const).filter(([, value]) => value !== null);
  return (
    <section class="panel map-chosen" aria-label="Chosen object" aria-live="polite">
      <h2><Text clamp={120}>{name}</Text></h2>
      {picture && <Picture {...picture(id)} alt={short(name, 60)} />}
      <dl class="map-values">
        {values.map(([property, value]) => (
          <>
            <dt><Line>{property}</Line></dt>
            <dd><Text clamp={200}>{asText(value)}</Text></dd>
          </>
        ))}
      </dl>
      <p class="row">
        <a href={href("object", { collection: collection.name, tenant, id })}>Open the object</a>
        <a href={href("search", { collection: collection.name, tenant, vector: data.vector, like: id })}>More like this</a>
      </p>
    </section>
  );
}

function Legend({ colouring, property }: { colouring: Colouring; property: string }) {
  return (
    <section class="panel" aria-label="Legend">
      <h2><Line clamp={40}>{property}</Line></h2>
      <ul class="map-legend">
        {colouring.legend.map((each) => (
          <li>
            <span class="map-swatch" style={{ background: each.colour }} aria-hidden="true" />
            <Line clamp={60}>{each.label}</Line>
            <span class="quiet">{count(each.count)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** The objects in view as a list, for those who do not see the map. */
function InView({ data, points, selected, onSelect }: { data: MapData; points: number[]; selected: number | undefined; onSelect: (point: number) => void }) {
  return (
    <section class="panel" aria-label="Objects in view">
      <h2>In view: {count(points.length)}</h2>
      <ol class="map-list">
        {points.slice(0, LISTED).map((point) => (
          <li key={data.ids[point]}>
            <button type="button" aria-pressed={point === selected} onClick={() => onSelect(point)}><Line>{nameOf(data, point)}</Line></button>
          </li>
        ))}
      </ol>
      {points.length > LISTED && <p class="quiet">The {LISTED} nearest to the middle are listed.</p>}
    </section>
  );
}
