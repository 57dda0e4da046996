import { useEffect, useId, useRef, useState } from "preact/hooks";

import { useWindowDrop } from "../parts/window-drop";
import { chosenFiles, droppedFiles, type Folder, messageOf, sortOut } from "./folder";

/** Take a folder or files: chosen, or dropped anywhere on the page. */
export function FolderZone({ onFolder }: { onFolder: (folder: Folder) => void }) {
  const id = useId();
  const [reading, setReading] = useState(false);
  const [failure, setFailure] = useState("");
  const latest = useRef<typeof onFolder | null>(onFolder);
  latest.current = onFolder;
  useEffect(() => () => { latest.current = null; }, []);
  const over = useWindowDrop(async (dropped) => {
    setFailure("");
    setReading(true);
    try {
      const { files, refused } = await droppedFiles(dropped.items);
      latest.current?.(sortOut(files, refused));
    } catch (error) {
      setFailure(messageOf(error));
    } finally {
      setReading(false);
    }
  });
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
