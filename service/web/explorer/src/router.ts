/** Pages by the part of the address behind #, so that the page works under every path: #/search?words=dog. */

import { useEffect, useState } from "preact/hooks";

export interface Route {
  page: string;
  params: URLSearchParams;
}

export function readRoute(): Route {
  const [path = "", query = ""] = split(location.hash.replace(/^#\/?/, ""));
  return { page: path, params: new URLSearchParams(query) };
}

function split(text: string): [string, string] {
  const at = text.indexOf("?");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

export type Params = Record<string, string | number | undefined>;

/** The address of a page; parameters that are empty or undefined are left out. */
export function href(page: string, params: Params = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return `#/${page}${text === "" ? "" : `?${text}`}`;
}

/** Which place in the browser's history is shown, by a number that it keeps, and how far down each place was left. */
let shown = numberOfPlace();
const left = new Map<number, number>();
// The browser would scroll before there is anything to scroll to.
history.scrollRestoration = "manual";
window.addEventListener("hashchange", () => {
  // The page that is left is still there.
  left.set(shown, scrollY);
  shown = numberOfPlace();
});

function numberOfPlace(): number {
  const known: unknown = history.state;
  if (typeof known === "number") return known;
  const made = newNumber();
  history.replaceState(made, "");
  return made;
}

function newNumber(): number {
  return Date.now() + Math.random();
}

/** The number of the place in the browser's history that is shown. Back and forward lead to the same number again. */
export function place(): number {
  return shown;
}

/** Scroll to where this place in the history was left; to the top if it is new. */
export function scrollToPlace(): void {
  scrollTo(0, left.get(shown) ?? 0);
}

/**
 * Go to a page. With `replace`, the browser's back button skips the present state.
 *
 * The page has heard of it when this returns. The browser's own event comes later, and what people do until then would
 * be reckoned from the old address.
 */
export function navigate(page: string, params: Params = {}, { replace = false } = {}): void {
  const target = href(page, params);
  if (target === location.hash) return;
  if (replace) history.replaceState(shown, "", target);
  else history.pushState(newNumber(), "", target);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute(): Route {
  const [route, setRoute] = useState(readRoute);
  useEffect(() => {
    const follow = () => setRoute(readRoute());
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, []);
  return route;
}
