// Which files of a folder are pictures, and their paths and ids: the same as those of `vecgate import`.

import { messageOf } from "../item-failure";
import { uuid5 } from "./uuid5";

/** The endings of pictures' names. A file with another one is not sent. */
export const SUFFIXES: ReadonlySet<string> = new Set([
  ...[".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo"],
  ...[".png", ".apng"],
  ...[".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".avifs"],
]);
export const HEIC_SUFFIXES: ReadonlySet<string> = new Set([".heic", ".heics", ".heif", ".heifs", ".hif"]);

// Part of every id: with another one an import here and one by the command line would store everything twice.
const NAMESPACE = "6f0c9a52-3f7e-5d0b-9a39-0b5f6a0f4c1e";

/** What is read of a file. A File has more, and nothing of it is read before its turn. */
export interface FileLike {
  readonly name: string;
  readonly size: number;
}

/** A file and where it is in the folder. */
export interface Found<F extends FileLike = File> {
  readonly path: string;
  readonly file: F;
}

/** A path that cannot be imported, and why. */
export interface Refused {
  readonly path: string;
  readonly reason: string;
}

/** The files of a folder, sorted out. */
export interface Folder<F extends FileLike = File> {
  readonly pictures: readonly Found<F>[];
  readonly refused: readonly Refused[];
  /** Paths of files that are no pictures, by the ending of their names. */
  readonly ignored: ReadonlyMap<string, readonly string[]>;
  /** Bytes of the pictures. */
  readonly bytes: number;
}

/** Returns a path in one spelling on every system: forward slashes, composed letters, and as text. */
export function normalPath(path: string): string {
  return asText(path).replaceAll("\\", "/").normalize("NFC").replace(/^\.\//, "");
}

function asText(path: string): string {
  return path.replace(/\p{Surrogate}/gu, (found) => {
    const code = found.charCodeAt(0);
    const isByte = code >= 0xdc80 && code <= 0xdcff;
    return isByte ? `%${hex(code & 0xff, 2)}` : `%u${hex(code, 4)}`;
  });
}

function hex(code: number, digits: number): string {
  return code.toString(16).toUpperCase().padStart(digits, "0");
}

/** Returns a picture's id: the same for the same collection and path, here and on the command line. */
export function pictureId(collection: string, path: string): string {
  return uuid5(NAMESPACE, `${collection}/${normalPath(path)}`);
}

/** Returns the ending of a path's name in lower case, with its dot; empty without one. Dots in front are no ending. */
export function suffixOf(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1).replace(/^\.+/, "");
  const dot = name.lastIndexOf(".");
  return dot < 0 ? "" : name.slice(dot).toLowerCase();
}

/** Returns the name of a path's file without its ending. */
export function nameOf(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return name.slice(0, name.length - suffixOf(path).length);
}

/** Sorts out the files of a folder. Two paths that are one in another spelling would be one object: the second is refused. */
export function sortOut<F extends FileLike>(files: readonly Found<F>[], refused: readonly Refused[] = []): Folder<F> {
  const pictures = new Map<string, Found<F>>();
  const all = [...refused];
  const ignored = new Map<string, string[]>();
  let bytes = 0;
  for (const { path, file } of [...files].sort((one, other) => (one.path < other.path ? -1 : 1))) {
    const suffix = suffixOf(path);
    const normal = normalPath(path);
    const other = pictures.get(normal);
    if (!SUFFIXES.has(suffix)) {
      const kind = suffix || "no suffix";
      const names = ignored.get(kind);
      if (names === undefined) ignored.set(kind, [path]);
      else names.push(path);
    } else if (other !== undefined) {
      all.push({ path, reason: `its path is that of ${other.path}, spelled in another way; rename one` });
    } else {
      pictures.set(normal, { path: normal, file });
      bytes += file.size;
    }
  }
  return { pictures: [...pictures.values()], refused: all, ignored, bytes };
}

/** Returns chosen files with their paths in the chosen folder; files that were chosen by themselves have their names. */
export function chosenFiles(files: Iterable<File>): Found[] {
  return Array.from(files, (file) => {
    const path = file.webkitRelativePath;
    return { path: path ? path.slice(path.indexOf("/") + 1) : file.name, file };
  });
}

/**
 * Returns dropped files with their paths, and those of folders. Of a single folder they are relative to it, of several
 * things to where these lie. Must be called while the drop is handled: after that the browser forgets what was dropped.
 */
export async function droppedFiles(items: Iterable<DataTransferItem>): Promise<{ files: Found[]; refused: Refused[] }> {
  const entries = Array.from(items, (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const only = entries.length === 1 && entries[0]!.isDirectory ? entries[0]!.fullPath : "";
  const found = { files: [] as Found[], refused: [] as Refused[] };
  const left = entries.reverse();
  for (let entry = left.pop(); entry !== undefined; entry = left.pop()) {
    const path = entry.fullPath.slice(only.length + 1);
    try {
      if (entry.isDirectory) left.push(...(await entriesOf(entry as FileSystemDirectoryEntry)));
      else found.files.push({ path, file: await fileOf(entry as FileSystemFileEntry) });
    } catch (error) {
      found.refused.push({ path, reason: `it cannot be read: ${messageOf(error)}` });
    }
  }
  return found;
}

async function entriesOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  // A reader gives some at a time, and none after the last one.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed));
    if (some.length === 0) return all;
    for (const each of some) all.push(each);
  }
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((done, failed) => entry.file(done, failed));
}
