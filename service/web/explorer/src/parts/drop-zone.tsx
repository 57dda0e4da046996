import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";

import { ACCEPTED } from "../raster";
import { Camera } from "./camera";

/**
 * Take pictures from whoever has some: dropped anywhere on the page, pasted, chosen, or from the camera.
 *
 * What the files are is for the receiver to find out; a name or a type proves nothing.
 */
export function DropZone({ onFiles, multiple = false, children }: { onFiles: (files: File[]) => void; multiple?: boolean; children?: ComponentChildren }) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const [camera, setCamera] = useState(false);
  const take = (files: Iterable<File>) => {
    const all = [...files];
    if (all.length > 0) onFiles(multiple ? all : all.slice(0, 1));
  };
  useWindowFiles(take, setOver);
  const picked = (event: { currentTarget: HTMLInputElement }) => {
    take(event.currentTarget.files ?? []);
    event.currentTarget.value = ""; // The same file may come again.
  };
  return (
    <div class={over ? "drop over" : "drop"}>
      <input ref={input} id={id} class="hidden" type="file" accept={ACCEPTED} multiple={multiple} onChange={picked} />
      <label for={id} class="button">{multiple ? "Choose pictures" : "Choose a picture"}</label>
      {hasTouch() ? (
        <>
          <input id={`${id}-camera`} class="hidden" type="file" accept="image/*" capture="environment" onChange={picked} />
          <label for={`${id}-camera`} class="button">Camera</label>
        </>
      ) : (
        "mediaDevices" in navigator && <button type="button" onClick={() => setCamera(true)}>Camera</button>
      )}
      <span class="quiet">{over ? "Let go to use it" : (children ?? "or drop or paste one here")}</span>
      {camera && <Camera onClose={() => setCamera(false)} onPicture={(file) => take([file])} />}
    </div>
  );
}

/** Phones have a camera of their own behind a file input. */
function hasTouch(): boolean {
  return matchMedia("(pointer: coarse)").matches;
}

/** Take files that are dropped or pasted anywhere, so that nobody has to aim. */
function useWindowFiles(take: (files: Iterable<File>) => void, setOver: (over: boolean) => void): void {
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const stop = new AbortController();
    const on = <Name extends keyof WindowEventMap>(name: Name, listener: (event: WindowEventMap[Name]) => void) =>
      window.addEventListener(name, listener, { signal: stop.signal });
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const accept = (event: DragEvent) => {
      // Otherwise the browser leaves the page and shows the file.
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    on("dragenter", accept);
    on("dragover", accept);
    on("dragleave", (event) => event.relatedTarget === null && setOver(false));
    on("drop", (event) => {
      setOver(false);
      if (!hasFiles(event)) return;
      event.preventDefault();
      latest.current(event.dataTransfer?.files ?? []);
    });
    on("paste", (event) => {
      const files = event.clipboardData?.files;
      if (files && files.length > 0) {
        event.preventDefault();
        latest.current(files);
      }
    });
    return () => stop.abort();
  }, []);
}
