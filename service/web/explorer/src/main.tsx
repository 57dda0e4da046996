/** The explorer: a frame with the navigation, and in it one page at a time. */

// First, so that pages' own styles come after it and win.
import "./style.css";

import { render, type ComponentType } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { hasKey, onKeyNeeded, setKey, type ApiError } from "./api";
import { CollectionsPage } from "./pages/collections";
import { ComparePage } from "./pages/compare";
import { EvaluatePage } from "./pages/evaluate";
import { ImportPage } from "./pages/import";
import { MapPage } from "./pages/map";
import { ObjectPage } from "./pages/object";
import { SearchPage } from "./pages/search";
import { StatusPage } from "./pages/status";
import { ErrorBoundary } from "./parts/error-boundary";
import { KeyDialog } from "./parts/key-dialog";
import { short } from "./parts/text";
import { forgetPictures } from "./pictures";
import { href, scrollToPlace, useRoute } from "./router";
import { forgetRun } from "./evaluating/run";
import { forgetResults } from "./search/running";
import { applyTheme, keepTheme, readTheme, type Theme } from "./theme";

interface Page {
  title: string;
  component: ComponentType<{ params: URLSearchParams }>;
}

const PAGES: Record<string, Page> = {
  search: { title: "Search", component: SearchPage },
  map: { title: "Map", component: MapPage },
  compare: { title: "Compare", component: ComparePage },
  evaluate: { title: "Evaluate", component: EvaluatePage },
  import: { title: "Import", component: ImportPage },
  collections: { title: "Collections", component: CollectionsPage },
  status: { title: "Status", component: StatusPage },
};

/** Pages that others lead to. */
const INNER: Record<string, Page> = {
  object: { title: "Object", component: ObjectPage },
};

function pageOf(pages: Record<string, Page>, name: string): Page | undefined {
  return Object.hasOwn(pages, name) ? pages[name] : undefined;
}

function App() {
  const { page: name, params } = useRoute();
  const shown = pageOf(PAGES, name) ?? pageOf(INNER, name);
  const main = useRef<HTMLElement>(null);
  const nav = useRef<HTMLElement>(null);
  const first = useRef(true);
  const title = [short(params.get("words") ?? "", 60), shown?.title ?? "Search", "Vecgate"].filter((each) => each !== "").join(" · ");
  useEffect(() => void (document.title = title), [title]);
  useEffect(() => {
    // A reader of the screen begins with the new page, and not where the old one was left.
    if (!first.current) main.current?.focus({ preventScroll: true });
    if (!first.current) scrollToPlace();
    first.current = false;
    nav.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [shown]);
  const keys = useKeyChanges();
  useEffect(() => {
    if (keys > 0 && document.activeElement === document.body) main.current?.focus({ preventScroll: true });
  }, [keys]);
  const { component: Shown } = shown ?? (PAGES["search"] as Page);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>Skip to content</a>
      <header>
        <a class="brand" href={href("search")}><img src="explorer/icon.svg" alt="" width={24} height={24} /> Vecgate</a>
        <nav aria-label="Pages" ref={nav}>
          {Object.entries(PAGES).map(([path, each]) => (
            <a href={href(path)} aria-current={each.component === Shown ? "page" : undefined}>{each.title}</a>
          ))}
        </nav>
        <Switches />
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <ErrorBoundary key={`${name} ${keys}`}><Shown params={params} /></ErrorBoundary>
      </main>
    </>
  );
}

/** How many times the key has changed. What one key may see is not for the next, so pages begin anew. */
function useKeyChanges(): number {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    const forget = () => {
      forgetPictures();
      forgetResults();
      forgetRun();
      setChanges((before) => before + 1);
    };
    window.addEventListener("keychange", forget);
    return () => window.removeEventListener("keychange", forget);
  }, []);
  return changes;
}

const THEMES: Record<Theme, { next: Theme; label: string; sign: string }> = {
  auto: { next: "light", label: "as the system", sign: "◐" },
  light: { next: "dark", label: "light", sign: "☀" },
  dark: { next: "auto", label: "dark", sign: "☾" },
};

/** The theme and the key. */
function Switches() {
  const [theme, setTheme] = useState(readTheme);
  const { next, label, sign } = THEMES[theme];
  const key = useKeyDialog();
  return (
    <div class="switches">
      <button type="button" class="plain" aria-label={`Theme: ${label}. Change it`} title={`Theme: ${label}`} onClick={() => { setTheme(next); keepTheme(next); }}>
        <span aria-hidden="true">{sign}</span>
      </button>
      <button type="button" class="plain" onClick={key.change}>{key.has ? "Forget key" : "Key"}</button>
      {key.asking && <KeyDialog error={key.error} onDone={key.done} />}
    </div>
  );
}

/** One dialog for all calls that need a key at the same time. */
function useKeyDialog() {
  const [error, setError] = useState<ApiError>();
  const [asking, setAsking] = useState(false);
  const [has, setHas] = useState(hasKey);
  const waiting = useRef<((given: boolean) => void)[]>([]);
  const done = useCallback((given: boolean) => {
    setAsking(false);
    setHas(hasKey());
    waiting.current.splice(0).forEach((each) => each(given));
  }, []);
  useEffect(() => {
    onKeyNeeded((refusal) => {
      setError(refusal);
      setAsking(true);
      return new Promise((resolve) => waiting.current.push(resolve));
    });
  }, []);
  const change = () => {
    setError(undefined);
    if (has) {
      setKey("");
      setHas(false);
    } else {
      setAsking(true);
    }
  };
  return { error, asking, has, done, change };
}

// Otherwise the browser leaves the page for a file that is dropped where nothing takes it. A drop that comes right after
// the pointer has entered an element, as when a picture has just been put under it, is refused unless dragenter is taken.
for (const name of ["dragenter", "dragover", "drop"] as const) {
  window.addEventListener(name, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
}
applyTheme(readTheme());
render(<App />, document.body);
