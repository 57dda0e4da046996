import { useEffect, useLayoutEffect, useState } from "preact/hooks";

import { Choice } from "../parts/choice";
import { CollectionPicker, collectionOf, isWhole, type Place } from "../parts/collection-picker";
import { ErrorNote } from "../parts/error-note";
import type { CollectionJson, EmbedderInfoJson } from "../types";
import { COLLECTION_NAME, create, type Destination, fillableProperties, guess, textProperties } from "./destination";

interface Props {
  collections: CollectionJson[];
  embedders: EmbedderInfoJson[];
  /** Of a link. */
  place: Place;
  /** A destination; undefined while something is missing. */
  onChange: (destination: Destination | undefined) => void;
  /** A collection was made; afterwards it is one of `collections`. */
  onCreated: (name: string) => void;
}

/** Choose where pictures go, or make a collection for them. */
export function DestinationForm({ collections, embedders, place: given, onChange, onCreated }: Props) {
  const [place, setPlace] = useState(given);
  const fitting = collections.filter((each) => fillableProperties(each).length > 0);
  const [making, setMaking] = useState(fitting.length === 0);
  const chosen = collectionOf(fitting, place.collection);
  const [fields, setFields] = useState(chosen ? guess(chosen) : undefined);
  const whole = !making && chosen !== undefined && isWhole(chosen, place);
  useLayoutEffect(() => setFields(chosen ? guess(chosen) : undefined), [chosen?.name]);
  useEffect(() => {
    onChange(whole && fields?.picture ? { collection: chosen.name ?? "", tenant: place.tenant, ...fields } : undefined);
  }, [whole, chosen?.name, place.tenant, fields]);
  return (
    <fieldset class="stack">
      <legend>Into</legend>
      <div class="row">
        <label class="check"><input type="radio" name="into" checked={!making} disabled={fitting.length === 0} onChange={() => setMaking(false)} />an existing collection</label>
        <label class="check"><input type="radio" name="into" checked={making} onChange={() => setMaking(true)} />a new collection</label>
      </div>
      {making ? (
        <NewCollection
          embedders={embedders}
          onCreated={(name) => {
            setPlace({ collection: name, tenant: "", vector: "" });
            setMaking(false);
            onCreated(name);
          }}
        />
      ) : (
        <>
          <CollectionPicker collections={fitting} place={place} onChange={setPlace} withVector={false} />
          {chosen && fields && (
            <div class="fields">
              <Choice label="The picture goes into" names={fillableProperties(chosen)} value={fields.picture} onChange={(picture) => setFields({ ...fields, picture })} />
              <Choice label="The file's name goes into" none="nothing" names={textProperties(chosen)} value={fields.name} onChange={(name) => setFields({ ...fields, name })} />
              <Choice label="Its path goes into" none="nothing" names={textProperties(chosen)} value={fields.path} onChange={(path) => setFields({ ...fields, path })} />
            </div>
          )}
        </>
      )}
    </fieldset>
  );
}

function NewCollection({ embedders, onCreated }: { embedders: EmbedderInfoJson[]; onCreated: (name: string) => void }) {
  const reading = embedders.filter(({ modalities = [] }) => modalities.includes("MODALITY_IMAGE"));
  const [name, setName] = useState("");
  const [chosen, setChosen] = useState(reading[0]?.name ?? "");
  const [withName, setWithName] = useState(true);
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const embedder = reading.find((each) => each.name === chosen);
  const readsTexts = embedder?.modalities?.includes("MODALITY_TEXT") ?? false;
  const valid = COLLECTION_NAME.test(name);
  if (embedder === undefined) return <p class="note">No embedder of this server reads pictures.</p>;
  const make = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await create(name, embedder, withName && readsTexts);
      onCreated(name);
    } catch (thrown) {
      setError(thrown);
      setBusy(false);
    }
  };
  return (
    <>
      <div class="fields">
        <label>
          Name
          <input
            value={name}
            maxLength={255}
            placeholder="Holidays"
            autocomplete="off"
            spellcheck={false}
            aria-invalid={name !== "" && !valid}
            aria-describedby="collection-name"
            onInput={(event) => setName(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key !== "Enter") return;
              event.preventDefault();
              if (valid && !busy) void make();
            }}
          />
        </label>
        <Choice label="Embedder" names={reading.map((each) => each.name ?? "")} value={chosen} onChange={setChosen} />
        <div><button type="button" disabled={!valid || busy} onClick={() => void make()}>Create</button></div>
      </div>
      <p id="collection-name" class="quiet">A capital letter, then letters, digits and _. It gets the properties image, name and path, and one vector.</p>
      {readsTexts && (
        <label class="check"><input type="checkbox" checked={withName} onChange={(event) => setWithName(event.currentTarget.checked)} />The file's name is a small part of the vector</label>
      )}
      <ErrorNote error={error} />
    </>
  );
}
