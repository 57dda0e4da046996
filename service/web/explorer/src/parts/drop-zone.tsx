import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";

import { ACCEPTED } from "../raster";
import { Camera } from "./camera";
import { useWindowDrop } from "./window-drop";

/**
 * Take pictures from whoever has some: dropped anywhere on the page, pasted, chosen, or from the camera.
 *
 * What the files are is for the receiver to find out; a name or a type proves nothing.
 */
export function DropZone({ onFiles, multiple = false, children }: { onFiles: (files: File[]) => void; multiple?: boolean; children?: ComponentChildren }) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [camera, setCamera] = useState(false);
  const take = (files: Iterable<File>) => {
    const all = [...files];
    if (all.length > 0) onFiles(multiple ? all : all.slice(0, 1));
  };
  const over = useWindowDrop((dropped) => take(dropped.files));
  useWindowPaste(take);
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

/** Take files that are pasted anywhere. */
function useWindowPaste(take: (files: FileList) => void): void {
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const pasted = (event: ClipboardEvent) => {
      const files = event.clipboardData?.files;
      if (files && files.length > 0) {
        event.preventDefault();
        latest.current(files);
      }
    };
    addEventListener("paste", pasted);
    return () => removeEventListener("paste", pasted);
  }, []);
}
