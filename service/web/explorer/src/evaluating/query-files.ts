/** Files of queries as `vecgate evaluate --queries` reads them: a CSV or JSONL, pictures that it names, and answers in TREC's form. */

import { toBase64 } from "../base64";
import { readCsv } from "../csv";
import { type Found, SUFFIXES, suffixOf } from "../importing/folder";
import { base64Bytes } from "../importing/importer";
import { count } from "../parts/text";
import { showable } from "../raster";
import type { AnswerJson, InputJson, WrittenQueryJson } from "../types";

/** Queries of files, and what the page shows of them. */
export interface QueryFiles {
  /** The name of the CSV or JSONL. */
  readonly name: string;
  /** The name of the file with answers; empty if they are in the queries. */
  readonly qrels: string;
  readonly queries: WrittenQueryJson[];
  readonly answered: boolean;
  /** What the browser shows of the queries' pictures, by the ids of the queries. */
  readonly pictures: ReadonlyMap<string, Blob>;
}

const COLUMNS = ["answers", "id", "image", "text"];
export const MAX_QUERIES = 1000;

type Answers = ReadonlyMap<string, ReadonlyMap<string, number>>;
type Records = [line: number, record: Record<string, unknown>][];

/**
 * Read the queries in files, of which one is a CSV or JSONL; throws with what is wrong, and where.
 *
 * @param mostBytes - of a request, in which all queries go together.
 */
export async function readQueryFiles(files: readonly Found[], mostBytes: number): Promise<QueryFiles> {
  const of = (take: (suffix: string) => boolean) => files.filter(({ path }) => take(suffixOf(path)));
  const [source, ...others] = of((suffix) => suffix === ".csv" || suffix === ".jsonl");
  if (!source) throw new Error("None of these files has queries: give a CSV or JSONL with the columns text, image, id and answers.");
  if (others.length > 0) throw new Error(`There are several files of queries: ${[source, ...others].map(({ path }) => path).join(", ")}. Give one.`);
  const [qrels] = of((suffix) => suffix !== ".csv" && suffix !== ".jsonl" && !SUFFIXES.has(suffix));
  const known = qrels && readQrels(qrels.path, await qrels.file.text());
  const records = readRecords(source.path, await source.file.text());
  const pictures = new Map(of((suffix) => SUFFIXES.has(suffix)).map(({ path, file }) => [path, file]));
  const shown = new Map<string, Blob>();
  const queries: WrittenQueryJson[] = [];
  let bytes = 0;
  for (const [line, record] of records) {
    const where = `${source.path}: line ${line}`;
    const id = String(record["id"] || line);
    const answers = known ? (known.get(id) ?? new Map<string, number>()) : ownAnswers(record["answers"]);
    // As on the command line, the file with answers says which queries count.
    if (known && answers.size === 0) continue;
    const picture = pictureOf(where, source.path, String(record["image"] ?? ""), pictures);
    if (picture) {
      bytes += base64Bytes(picture.size);
      if (bytes > mostBytes) throw new Error(`The pictures of ${source.path} are too large together: the server takes at most ${count(mostBytes)} bytes in one call. Give fewer or smaller ones.`);
      const visible = showable(new Uint8Array(await picture.arrayBuffer()));
      if (visible) shown.set(id, visible);
    }
    queries.push({ id, input: await toInput(where, String(record["text"] ?? ""), picture), answers: [...answers].map(([name, gain]): AnswerJson => ({ name, gain })) });
  }
  if (queries.length === 0) throw new Error(`${source.path} has no queries${qrels ? ` that have answers in ${qrels.path}` : ""}.`);
  if (queries.length > MAX_QUERIES) throw new Error(`${source.path} has ${queries.length} queries, and the server takes at most ${MAX_QUERIES}.`);
  return { name: source.path, qrels: qrels?.path ?? "", queries, answered: queries.some((each) => (each.answers ?? []).length > 0), pictures: shown };
}

async function toInput(where: string, text: string, picture: File | undefined): Promise<InputJson> {
  if (picture === undefined) {
    if (text === "") throw new Error(`${where} has neither a text nor an image.`);
    return { text };
  }
  const image = { content: await toBase64(picture) };
  return text === "" ? { image } : { textImage: { text, image } };
}

/** The picture that a query names by its path from the folder of the queries. */
function pictureOf(where: string, source: string, name: string, pictures: ReadonlyMap<string, File>): File | undefined {
  if (name === "") return undefined;
  const folder = source.slice(0, source.lastIndexOf("/") + 1);
  // Files that are chosen one by one come without their folders.
  const found = pictures.get(folder + name) ?? pictures.get(name.slice(name.lastIndexOf("/") + 1));
  if (!found) throw new Error(`${where} names the picture ${name}, which is not among the files. Give the pictures together with the queries, or their folder.`);
  return found;
}

function readRecords(path: string, text: string): Records {
  const found = suffixOf(path) === ".csv" ? csvRecords(path, text) : jsonRecords(path, text);
  for (const [line, record] of found) {
    const others = Object.keys(record).filter((each) => !COLUMNS.includes(each));
    if (others.length > 0) throw new Error(`${path}: line ${line} has ${others.sort().join(", ")}; the columns are ${COLUMNS.join(", ")}.`);
  }
  return found;
}

function csvRecords(path: string, text: string): Records {
  const [head, ...rows] = readCsv(text);
  if (!head) return [];
  const long = rows.find(({ fields }) => fields.length > head.fields.length);
  if (long) throw new Error(`${path}: line ${long.line} has more fields than the header.`);
  return rows.map(({ line, fields }) => [line, Object.fromEntries(head.fields.map((name, at) => [name, fields[at] ?? ""]))]);
}

function jsonRecords(path: string, text: string): Records {
  return text.split("\n").flatMap((each, at): Records => {
    if (each.trim() === "") return [];
    let record: unknown;
    try {
      record = JSON.parse(each);
    } catch {
      throw new Error(`${path}: line ${at + 1} is not JSON.`);
    }
    if (typeof record !== "object" || record === null || Array.isArray(record)) throw new Error(`${path}: line ${at + 1} is not a JSON object.`);
    return [[at + 1, record as Record<string, unknown>]];
  });
}

function ownAnswers(value: unknown): ReadonlyMap<string, number> {
  const names = Array.isArray(value) ? value : String(value ?? "").split("|");
  return new Map(names.map((each) => String(each).trim()).filter((each) => each !== "").map((each) => [each, 1]));
}

/** Read answers in TREC's form: QUERY 0 ANSWER GAIN. */
function readQrels(path: string, text: string): Answers {
  const found = new Map<string, Map<string, number>>();
  text.split("\n").forEach((line, at) => {
    const fields = line.split(/\s+/).filter((each) => each !== "");
    if (fields.length === 0) return;
    const [query = "", , answer = "", gain = ""] = fields;
    if (fields.length !== 4 || !/^-?\d+$/.test(gain)) throw new Error(`${path}: line ${at + 1} must be QUERY 0 ANSWER GAIN, such as: 12 0 cat.jpg 1.`);
    if (Number(gain) > 0) found.set(query, (found.get(query) ?? new Map<string, number>()).set(answer, Number(gain)));
  });
  return found;
}
