/** What a search is: all of it stands in the address, but for the picture, which stays in the memory of the page. */

import type { QueryPicture } from "../query-picture";
import { fromText, toText, type Group } from "./filter";

export interface SearchState {
  collection: string;
  tenant: string;
  vector: string;
  words: string;
  /** The name of a picture in memory; empty for none. */
  picture: string;
  /** The id of an object to search by; not together with a picture. */
  like: string;
  /** The share of the picture or the object beside words, 0 to 1. */
  weight: number;
  /** Whether words and picture are one input, for models that read both together. */
  joint: boolean;
  /** The share of the vectors beside keywords, 0 to 1. */
  alpha: number;
  filter: Group;
  /** Without a query: the property to sort by; empty for the order of ids. */
  sort: string;
  descending: boolean;
}

export function readState(params: URLSearchParams): SearchState {
  const of = (name: string) => params.get(name) ?? "";
  const share = (name: string, otherwise: number) => {
    const value = Number(params.get(name) ?? otherwise);
    return value >= 0 && value <= 1 ? value : otherwise;
  };
  return {
    collection: of("collection"),
    tenant: of("tenant"),
    vector: of("vector"),
    words: of("words"),
    picture: of("picture"),
    like: of("picture") === "" ? of("like") : "",
    weight: share("weight", 0.5),
    joint: of("joint") === "yes",
    alpha: share("alpha", 1),
    filter: fromText(of("filter")),
    sort: of("sort"),
    descending: of("descending") === "yes",
  };
}

export function writeState(state: SearchState): Record<string, string | undefined> {
  return {
    collection: state.collection,
    tenant: state.tenant,
    vector: state.vector,
    words: state.words,
    picture: state.picture,
    like: state.like,
    weight: state.weight === 0.5 ? undefined : String(state.weight),
    joint: state.joint ? "yes" : undefined,
    alpha: state.alpha === 1 ? undefined : String(state.alpha),
    filter: toText(state.filter),
    sort: state.sort,
    descending: state.descending ? "yes" : undefined,
  };
}

const PICTURES_KEPT = 20;
const pictures = new Map<string, QueryPicture>();
let pictureCount = 0;

/** Keep a picture, and return its name for the address, which no other picture ever has: addresses outlive this memory. */
export function keepPicture(picture: QueryPicture): string {
  const name = `${Date.now().toString(36)}-${++pictureCount}`;
  pictures.set(name, picture);
  for (const oldest of pictures.keys()) {
    if (pictures.size <= PICTURES_KEPT) break;
    pictures.delete(oldest);
  }
  return name;
}

export function keptPicture(name: string): QueryPicture | undefined {
  return pictures.get(name);
}
