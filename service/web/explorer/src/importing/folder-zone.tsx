import { useEffect, useId, useRef, useState } from "preact/hooks";

import { chosenFiles, droppedFiles, type Folder, messageOf, sortOut } from "./folder";

/** Take a folder or files: chosen, or dropped anywhere on the page. */
export function FolderZone({ onFolder }: { onFolder: (folder: Folder) => void }) {
  const id = useId();
  const [over, setOver] = useState(false);
  const [reading, setReading] = useState(false);
  const [failure, setFailure] = useState("");
  const latest = useRef(onFolder);
  latest.current = onFolder;
  useEffect(() => {
    const stop = new AbortController();
    const options = { signal: stop.signal };
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const dragged = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const dropped = async (event: DragEvent) => {
      setOver(false);
      if (!hasFiles(event)) return;
      event.preventDefault();
      setFailure("");
      setReading(true);
      try {
        const { files, refused } = await droppedFiles(event.dataTransfer?.items ?? []);
        if (!stop.signal.aborted) latest.current(sortOut(files, refused));
      } catch (error) {
        setFailure(messageOf(error));
      } finally {
        setReading(false);
      }
    };
    addEventListener("dragover", dragged, options);
    addEventListener("dragleave", (event) => event.relatedTarget === null && setOver(false), options);
    addEventListener("drop", (event) => void dropped(event), options);
    return () => stop.abort();
  }, []);
  const chosen = (event: { currentTarget: HTMLInputElement }) => {
    setFailure("");
    const { files } = event.currentTarget;
    if (files && files.length > 0) onFolder(sortOut(chosenFiles(files)));
    event.currentTarget.value = "";
  };
  return (
    <div class={over ? "drop over" : "drop"}>
      <input id={`${id}-folder`} class="hidden" type="file" multiple {...{ webkitdirectory: true }} onChange={chosen} />
      <label for={`${id}-folder`} class="button">Choose a folder</label>
      <input id={`${id}-files`} class="hidden" type="file" multiple onChange={chosen} />
      <label for={`${id}-files`} class="button">Choose pictures</label>
      <span class="quiet" role="status">{reading ? "Reading the folder…" : over ? "Let go to take it" : failure || "or drop a folder here"}</span>
    </div>
  );
}
