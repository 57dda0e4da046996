import { useEffect, useId, useRef, useState } from "preact/hooks";

import { chosenFiles, droppedFiles, type Found, type Refused } from "../importing/folder";
import { messageOf } from "../item-failure";
import { useWindowDrop } from "./window-drop";

/** Take a folder or files: chosen, or dropped anywhere on the page. */
export function FilesZone({ choose, hint, onFiles }: { choose: string; hint: string; onFiles: (files: Found[], refused: Refused[]) => void }) {
  const id = useId();
  const [reading, setReading] = useState(false);
  const [failure, setFailure] = useState("");
  const latest = useRef<typeof onFiles | null>(onFiles);
  latest.current = onFiles;
  useEffect(() => () => { latest.current = null; }, []);
  const over = useWindowDrop(async (dropped) => {
    setFailure("");
    setReading(true);
    try {
      const { files, refused } = await droppedFiles(dropped.items);
      latest.current?.(files, refused);
    } catch (error) {
      setFailure(messageOf(error));
    } finally {
      setReading(false);
    }
  });
  const chosen = (event: { currentTarget: HTMLInputElement }) => {
    setFailure("");
    const { files } = event.currentTarget;
    if (files && files.length > 0) onFiles(chosenFiles(files), []);
    event.currentTarget.value = "";
  };
  return (
    <div class={over ? "drop over" : "drop"}>
      <input id={`${id}-folder`} class="hidden" type="file" multiple {...{ webkitdirectory: true }} onChange={chosen} />
      <label for={`${id}-folder`} class="button">Choose a folder</label>
      <input id={`${id}-files`} class="hidden" type="file" multiple onChange={chosen} />
      <label for={`${id}-files`} class="button">{choose}</label>
      <span class="quiet" role="status">{reading ? "Reading the folder…" : over ? "Let go to take it" : failure || hint}</span>
    </div>
  );
}
