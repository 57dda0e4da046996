import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

/**
 * Take what is dropped anywhere on the page, so that nobody has to aim; return whether files are over the page.
 *
 * main.tsx keeps the browser from showing the files itself.
 */
export function useWindowDrop(take: (dropped: DataTransfer) => void): boolean {
  const [over, setOver] = useState(false);
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const stop = new AbortController();
    const options = { signal: stop.signal };
    const filesIn = (event: DragEvent) => (event.dataTransfer?.types.includes("Files") ? event.dataTransfer : null);
    addEventListener("dragover", (event) => filesIn(event) && setOver(true), options);
    addEventListener("dragleave", (event) => event.relatedTarget === null && setOver(false), options);
    addEventListener("drop", (event) => {
      setOver(false);
      const dropped = filesIn(event);
      if (dropped) latest.current(dropped);
    }, options);
    // The pointer moves only when nothing is dragged, whatever the browser told of its end.
    addEventListener("pointermove", () => setOver(false), options);
    return () => stop.abort();
  }, []);
  useLayoutEffect(() => {
    // Browsers lose what is dropped onto an element that was replaced a moment ago, as by a picture that has come. So the
    // whole page is one target.
    document.documentElement.classList.toggle("dropping", over);
    return () => document.documentElement.classList.remove("dropping");
  }, [over]);
  return over;
}
