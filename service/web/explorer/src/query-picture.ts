/** A picture that somebody gives to search by, or to place on a map. */

import { useEffect, useRef, useState } from "preact/hooks";

import { toBase64 } from "./base64";
import { listEmbedders } from "./collections";
import { short } from "./parts/text";
import { mostPictureBytes, tooLarge } from "./picture-size";
import { rasterType, showable } from "./raster";

/** A picture as a query; it stays in the memory of the page. */
export interface QueryPicture {
  name: string;
  /** In base64. */
  content: string;
  /** What <img> may show of it; undefined if browsers do not show its format. */
  shown: Blob | undefined;
}

/** What the server takes; without bounds where it does not say, because the search itself will. */
async function mostBytes(): Promise<number> {
  try {
    const { limits = {}, embedders = [] } = await listEmbedders();
    return mostPictureBytes(limits, embedders);
  } catch {
    return Infinity;
  }
}

/** Read a file as a query; throws if the server takes no picture of this size, or it is not a picture that the server reads. */
async function readPicture(file: File): Promise<QueryPicture> {
  const most = await mostBytes();
  if (file.size > most) throw new Error(`${short(file.name)} ${tooLarge(file.size, most)}.`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes.length === 0) throw new Error(`${short(file.name)} is empty.`);
  if (rasterType(bytes) === undefined) {
    throw new Error(`${short(file.name)} is not a picture that the server reads. It reads JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF.`);
  }
  return { name: file.name, content: await toBase64(file), shown: showable(bytes) };
}

/** Reads files as queries: of several the last one counts, and none after the page is left. `fault` says why it was not taken. */
export function usePictureReader(take: (picture: QueryPicture) => void): { read: (file: File) => void; fault: unknown } {
  const [fault, setFault] = useState<unknown>();
  const last = useRef<File | undefined>(undefined);
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => () => { last.current = undefined; }, []);
  const read = (file: File) => {
    setFault(undefined);
    last.current = file;
    const ifLast = <Value>(use: (value: Value) => void) => (value: Value) => { if (last.current === file) use(value); };
    readPicture(file).then(ifLast((picture) => latest.current(picture)), ifLast(setFault));
  };
  return { read, fault };
}
