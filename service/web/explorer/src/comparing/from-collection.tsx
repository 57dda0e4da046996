import { useState } from "preact/hooks";

import { call } from "../api";
import { fromBase64 } from "../base64";
import { pictureProperties, titleProperty, useLoaded } from "../collections";
import { Busy } from "../parts/busy";
import { CollectionPicker, collectionOf, isWhole, type Place, useCollections } from "../parts/collection-picker";
import { ErrorNote } from "../parts/error-note";
import { Picture } from "../parts/picture";
import { Line, short } from "../parts/text";
import type { CollectionJson, DataObjectJson, GetObjectRequestJson, GetObjectResponseJson, ListObjectsRequestJson, ListObjectsResponseJson } from "../types";

const PAGE = 24;

/** Take pictures of a collection's objects. */
export function FromCollection({ onPicture }: { onPicture: (blob: Blob, name: string) => void }) {
  const { value: collections, error, reload } = useCollections();
  const [place, setPlace] = useState<Place>({ collection: "", tenant: "", vector: "" });
  const chosen = collectionOf(collections?.filter((each) => pictureProperties(each).length > 0), place.collection);
  if (error !== undefined) return <ErrorNote error={error} onRetry={reload} />;
  if (collections === undefined) return <Busy />;
  const withPictures = collections.filter((each) => pictureProperties(each).length > 0);
  if (withPictures.length === 0) return <p class="quiet">No collection has pictures.</p>;
  return (
    <>
      <CollectionPicker collections={withPictures} place={place} onChange={setPlace} withVector={false} />
      {chosen && isWhole(chosen, place) && <Objects key={`${chosen.name}/${place.tenant}`} collection={chosen} tenant={place.tenant} onPicture={onPicture} />}
    </>
  );
}

function Objects({ collection, tenant, onPicture }: { collection: CollectionJson; tenant: string; onPicture: (blob: Blob, name: string) => void }) {
  const [tokens, setTokens] = useState([""]);
  const [failure, setFailure] = useState<unknown>();
  const name = collection.name ?? "";
  const property = pictureProperties(collection)[0] ?? "";
  const title = titleProperty(collection);
  const pageToken = tokens.at(-1) ?? "";
  const scope = tenant ? { scope: { tenant } } : {};
  const { value, error, reload } = useLoaded(
    async (signal) => {
      const request: ListObjectsRequestJson = { collection: name, pageSize: PAGE, pageToken, ...scope, ...(title ? { output: { properties: [title] } } : {}) };
      return (await call<ListObjectsRequestJson, ListObjectsResponseJson>("ObjectService", "ListObjects", request, { signal })).response;
    },
    [pageToken],
  );
  const titleOf = (object: DataObjectJson) => {
    const found = title ? (object.properties as Record<string, unknown> | undefined)?.[title] : undefined;
    return typeof found === "string" && found !== "" ? found : (object.id ?? "");
  };
  const take = async (object: DataObjectJson) => {
    setFailure(undefined);
    try {
      const request: GetObjectRequestJson = { collection: name, id: object.id ?? "", ...scope, output: { images: [property], ...(title ? { properties: [title] } : {}) } };
      const { response } = await call<GetObjectRequestJson, GetObjectResponseJson>("ObjectService", "GetObject", request);
      const content = response.object?.images?.[property]?.content;
      if (!content) throw new Error("this object has no picture");
      onPicture(new Blob([fromBase64(content)]), titleOf(object));
    } catch (thrown) {
      setFailure(thrown);
    }
  };
  return (
    <>
      <ErrorNote error={error ?? failure} onRetry={error === undefined ? undefined : reload} />
      {value === undefined && error === undefined && <Busy />}
      <ul class="choices">
        {(value?.objects ?? []).map((object) => (
          <li key={object.id}>
            <button type="button" title={`Add ${short(titleOf(object), 80)}`} onClick={() => void take(object)}>
              <Picture collection={name} tenant={tenant} id={object.id ?? ""} property={property} beside={title} alt="" />
              <span class="hidden">Add </span><Line clamp={40}>{titleOf(object)}</Line>
            </button>
          </li>
        ))}
      </ul>
      <p class="row">
        <button type="button" disabled={tokens.length < 2} onClick={() => setTokens(tokens.slice(0, -1))}>Previous</button>
        <button type="button" disabled={!value?.nextPageToken} onClick={() => setTokens([...tokens, value?.nextPageToken ?? ""])}>Next</button>
      </p>
    </>
  );
}
