/** The import of this tab. It goes on while other pages are shown. */

import { useEffect, useState } from "preact/hooks";

import { forgetPictures } from "../pictures";
import type { ServerLimitsJson } from "../types";
import { boundsOf, type Destination, targetOf } from "./destination";
import { type Folder, pictureId } from "./folder";
import { Importer, type Progress } from "./importer";

/** How often a page is drawn again while pictures go out. */
const SHOWN_EVERY_MS = 200;

export interface Session {
  readonly importer: Importer<File>;
  readonly destination: Destination;
  readonly folder: Folder;
}

let session: Session | undefined;

export function currentSession(): Session | undefined {
  return session;
}

export function begin(destination: Destination, folder: Folder, limits: ServerLimitsJson, skipStored: boolean): Session {
  const pictures = folder.pictures.map(({ path, file }) => ({ id: pictureId(destination.collection, path), path, file, size: file.size }));
  session = { destination, folder, importer: new Importer(pictures, targetOf(destination), boundsOf(limits), skipStored) };
  run(session);
  return session;
}

/** Starts an import or lets it go on. */
export function run({ importer }: Session): void {
  addEventListener("beforeunload", warn);
  void importer.start().finally(forgetPictures);
}

/** While pictures go out, the browser asks before it leaves the page. */
function warn(event: BeforeUnloadEvent): void {
  if (session?.importer.running) event.preventDefault();
}

export function forget(): void {
  session = undefined;
}

/** Follows an import, a few times in a second. */
export function useProgress(importer: Importer<File>): Progress {
  const [progress, setProgress] = useState(() => importer.progress);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const show = () => {
      timer = undefined;
      setProgress(importer.progress);
    };
    show();
    const end = importer.subscribe(() => (timer ??= setTimeout(show, SHOWN_EVERY_MS)));
    return () => {
      end();
      clearTimeout(timer);
    };
  }, [importer]);
  return progress;
}
