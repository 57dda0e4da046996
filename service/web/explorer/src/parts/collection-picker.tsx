import { useId } from "preact/hooks";

import { listCollections, listTenants, useLoaded, type Loaded } from "../collections";
import type { CollectionJson } from "../types";
import { ErrorNote } from "./error-note";
import { isolated, short } from "./text";
import { Typed } from "./typed";

/** Where to look: a collection, of it perhaps a tenant and a named vector. */
export interface Place {
  collection: string;
  /** Empty for a collection without tenants. */
  tenant: string;
  /** Empty for the collection's default. */
  vector: string;
}

/** The collections, loaded once for a page. */
export function useCollections(): Loaded<CollectionJson[]> {
  return useLoaded(listCollections, []);
}

/** The collection that a place means; without a name the first one. */
export function collectionOf(collections: CollectionJson[] | undefined, name: string): CollectionJson | undefined {
  return collections?.find((each) => each.name === name) ?? (name === "" ? collections?.[0] : undefined);
}

/** Whether a place names a tenant where its collection needs one. */
export function isWhole(collection: CollectionJson | undefined, place: Place): boolean {
  return collection !== undefined && (place.tenant !== "" || !collection.multiTenancy?.enabled);
}

/** Choose a collection, a tenant where it has tenants, and a named vector where it has several. */
export function CollectionPicker({
  collections,
  place,
  onChange,
  withVector = true,
}: {
  collections: CollectionJson[];
  place: Place;
  onChange: (place: Place) => void;
  withVector?: boolean;
}) {
  const id = useId();
  const chosen = collectionOf(collections, place.collection);
  const vectors = chosen?.vectors ?? [];
  return (
    <div class="fields">
      <label for={`${id}-collection`}>
        Collection
        <select id={`${id}-collection`} value={chosen?.name ?? place.collection} onChange={(event) => onChange({ collection: event.currentTarget.value, tenant: "", vector: "" })}>
          {!chosen && <option value={place.collection}>{place.collection === "" ? "none" : `${isolated(place.collection, 60)} (unknown)`}</option>}
          {collections.map((each) => <option value={each.name}>{short(each.name ?? "", 60)}</option>)}
        </select>
      </label>
      {chosen?.multiTenancy?.enabled && (
        <TenantPicker collection={chosen.name ?? ""} tenant={place.tenant} onChange={(tenant) => onChange({ ...place, collection: chosen.name ?? "", tenant })} />
      )}
      {withVector && vectors.length > 1 && (
        <label for={`${id}-vector`}>
          Named vector
          <select id={`${id}-vector`} value={place.vector} onChange={(event) => onChange({ ...place, collection: chosen?.name ?? "", vector: event.currentTarget.value })}>
            <option value="">{chosen?.defaultVector ? `default (${isolated(chosen.defaultVector, 40)})` : "choose one"}</option>
            {vectors.map((each) => <option value={each.name}>{short(each.name ?? "", 60)}</option>)}
          </select>
        </label>
      )}
    </div>
  );
}

function TenantPicker({ collection, tenant, onChange }: { collection: string; tenant: string; onChange: (tenant: string) => void }) {
  const id = useId();
  const { value: tenants = [], error } = useLoaded((signal) => listTenants(collection, signal), [collection]);
  return (
    <>
      <label for={id}>
        Tenant
        <Typed id={id} list={`${id}-list`} value={tenant} placeholder="choose or type one" autocomplete="off" onChange={(text) => onChange(text.trim())} />
        <datalist id={`${id}-list`}>{tenants.map((each) => <option value={each.name} />)}</datalist>
      </label>
      <ErrorNote error={error} />
    </>
  );
}
