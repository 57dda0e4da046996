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

/** Go to a page. With `replace`, the browser's back button skips the present state. */
export function navigate(page: string, params: Params = {}, { replace = false } = {}): void {
  const target = href(page, params);
  if (target === location.hash) return;
  if (replace) {
    history.replaceState(null, "", target);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = target;
  }
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
