/** The request that a search is. */

import type { ListObjectsRequestJson, NearInputsJson, SearchObjectsRequestJson, WeightedInputJson } from "../types";
import { toFilter, type Target } from "./filter";
import type { SearchState } from "./state";

export const PAGE = 48;

/** A call of the API: a search, or a listing where there is nothing to look for. */
export type ApiRequest =
  | { method: "SearchObjects"; request: SearchObjectsRequestJson }
  | { method: "ListObjects"; request: ListObjectsRequestJson };

/** Where a page of hits begins. */
export interface Start {
  offset: number;
  pageToken: string;
}

/**
 * The call for a search.
 *
 * @param picture - the picture's content in base64, or what stands for it; undefined if there is no picture.
 */
export function toRequest(state: SearchState, targets: Target[], picture: string | undefined, start: Start = { offset: 0, pageToken: "" }): ApiRequest {
  const filters = toFilter(state.filter, targets);
  const common = {
    collection: state.collection,
    ...(filters ? { filters } : {}),
    ...(state.tenant ? { scope: { tenant: state.tenant } } : {}),
  };
  const query = toQuery(state, picture);
  if (query === undefined) {
    const sort = state.sort ? { sort: [{ property: state.sort, ...(state.descending ? { descending: true } : {}) }] } : {};
    const request = { ...common, ...sort, pageSize: PAGE, ...(start.pageToken ? { pageToken: start.pageToken } : {}) };
    return { method: "ListObjects", request };
  }
  const keywords = "bm25" in query;
  const request = {
    ...common,
    ...query,
    ...(state.vector && !keywords ? { targetVectors: [state.vector] } : {}),
    limit: PAGE,
    ...(start.offset ? { offset: start.offset } : {}),
  };
  return { method: "SearchObjects", request };
}

type Query = Pick<SearchObjectsRequestJson, "nearText" | "nearImage" | "nearObject" | "nearInputs" | "hybrid" | "bm25">;

function toQuery(state: SearchState, picture: string | undefined): Query | undefined {
  const words = state.words.trim();
  const side: WeightedInputJson | undefined = state.like ? { nearObject: { id: state.like } } : picture === undefined ? undefined : { image: { content: picture } };
  if (words === "") {
    if (side === undefined) return undefined;
    return side.nearObject ? { nearObject: side.nearObject } : { nearImage: { image: side.image ?? {} } };
  }
  const inputs = toInputs(state, words, side, picture);
  if (state.alpha < 1) {
    if (state.alpha === 0) return { bm25: { query: words } };
    return { hybrid: { bm25: { query: words }, ...(inputs ? { nearInputs: inputs } : {}), alpha: state.alpha, truncate: true } };
  }
  return inputs ? { nearInputs: inputs } : { nearText: { concepts: [words], truncate: true } };
}

/** Words with a picture or an object; undefined if the words stand alone. A weight of 0 is not allowed, so such an input is left out. */
function toInputs(state: SearchState, words: string, side: WeightedInputJson | undefined, picture: string | undefined): NearInputsJson | undefined {
  if (side === undefined) return undefined;
  if (state.joint && picture !== undefined) return { inputs: [{ textImage: { text: words, image: { content: picture } } }], truncate: true };
  if (state.weight === 0) return undefined;
  if (state.weight === 1) return { inputs: [side] };
  const rounded = (share: number) => Math.round(share * 100) / 100;
  return { inputs: [{ text: words, weight: rounded(1 - state.weight) }, { ...side, weight: rounded(state.weight) }], truncate: true };
}
