import assert from "node:assert/strict";
import { test } from "node:test";

import { readCsv } from "../../../../../service/web/explorer/src/csv";
import { howCompared, readEarlier, verdictOf } from "../../../../../service/web/explorer/src/evaluating/drift";
import { readQueryFiles } from "../../../../../service/web/explorer/src/evaluating/query-files";
import { readWishes, toParams } from "../../../../../service/web/explorer/src/evaluating/request";
import { readEnvelopes, withEnvelope } from "../../../../../service/web/explorer/src/envelopes";

const files = (given: Record<string, string>) => Object.entries(given).map(([path, text]) => ({ path, file: new File([text], path) }));
const read = (given: Record<string, string>) => readQueryFiles(files(given), 100);

test("a CSV is read with its quotes, line ends and empty fields", () => {
  const rows = readCsv('\ufeffa,"b ""c"", d",\r\n"two\nlines",x\n\n,');

  assert.deepEqual(rows, [
    { line: 1, fields: ["a", 'b "c", d', ""] },
    { line: 3, fields: ["two\nlines", "x"] },
    { line: 5, fields: ["", ""] },
  ]);
  assert.throws(() => readCsv('a,"b'), /Line 1 is no CSV/);
  assert.throws(() => readCsv('a,b"c"'), /Line 1 is no CSV/);
});

test("queries are those of the command line, with their answers", async () => {
  const lines = '{"text": "a dog", "answers": ["dog", " "]}\n\n{"id": "two", "text": "a cat", "answers": "cat | kitten"}\n';

  const { queries, answered } = await read({ "queries.jsonl": lines });

  assert.equal(answered, true);
  assert.deepEqual(queries, [
    { id: "1", input: { text: "a dog" }, answers: [{ name: "dog", gain: 1 }] },
    { id: "two", input: { text: "a cat" }, answers: [{ name: "cat", gain: 1 }, { name: "kitten", gain: 1 }] },
  ]);
});

test("the file with answers says which queries count, and how good answers are", async () => {
  const { queries } = await read({ "q.csv": "id,text\na,one\nb,two\n", "q.qrels": "a 0 x 3\na 0 y 0\nc 0 x 1\n" });

  assert.deepEqual(queries, [{ id: "a", input: { text: "one" }, answers: [{ name: "x", gain: 3 }] }]);
});

test("what cannot be used is named with its file and line", async () => {
  await assert.rejects(read({ "dog.png": "" }), /None of these files has queries/);
  await assert.rejects(read({ "a.csv": "text\n", "b.csv": "text\n" }), /several files of queries: a.csv, b.csv/);
  await assert.rejects(read({ "a.csv": "text,answer\na,b\n" }), /a.csv: line 2 has answer; the columns are/);
  await assert.rejects(read({ "a.csv": "text\na,b\n" }), /a.csv: line 2 has more fields than the header/);
  await assert.rejects(read({ "a.csv": "id,text\n1,\n" }), /a.csv: line 2 has neither a text nor an image/);
  await assert.rejects(read({ "a.csv": "image\nx/dog.png\n" }), /names the picture x\/dog.png, which is not among the files/);
  await assert.rejects(read({ "a.csv": "image\nb.png\n", "b.png": "x".repeat(100) }), /pictures of a.csv are too large together: the server takes at most 100 bytes/);
  await assert.rejects(read({ "a.jsonl": "{}\n[1]\n" }), /a.jsonl: line 2 is not a JSON object/);
  await assert.rejects(read({ "a.csv": "text\na\n", "a.txt": "1 0 x\n" }), /a.txt: line 1 must be QUERY 0 ANSWER GAIN/);
  await assert.rejects(read({ "a.csv": "text\n" }), /a.csv has no queries/);
});

test("a file that is no evaluation is named", () => {
  assert.throws(() => readEarlier("a.json", "{"), /a.json has no report to compare with/);
  assert.throws(() => readEarlier("a.json", "[]"), /a.json has no report to compare with/);
});

test("an address says what is evaluated, and leaves out what is usual", () => {
  const address = "collection=A&by=captions&property=name&sample=50&ways=present%3Bvector%3Dnew%2Calpha%3D0.5%3Bef%3D64%2Creranker%3Dr%2Crerank-text%3Dname&change-ef=yes";
  const params = Object.entries(toParams(readWishes(new URLSearchParams(address)))).filter(([, value]) => value !== "");

  assert.equal(new URLSearchParams(params.map(([name, value]) => [name, String(value)])).toString(), address);
  assert.deepEqual(Object.values(toParams(readWishes(new URLSearchParams()))).filter((each) => each !== ""), []);
});

test("messages are whole however their bytes arrive", async () => {
  const bytes = new Uint8Array(await new Blob([withEnvelope('{"a":"é"}'), withEnvelope("{}")]).arrayBuffer());
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const each of bytes) controller.enqueue(Uint8Array.of(each));
      controller.close();
    },
  });

  const seen: string[] = [];
  for await (const { text } of readEnvelopes(stream)) seen.push(text);

  assert.deepEqual(seen, ['{"a":"é"}', "{}"]);
});

test("whether measures were compared query by query is said where any were compared", () => {
  const recall = { kind: "CHANGE_KIND_INDEX_RECALL", chance: 0.5 } as const;

  assert.match(howCompared({ changes: [recall, { ...recall, sameQueries: 1198 }] }), /^1,198 queries are the same/);
  assert.match(howCompared({ changes: [recall] }), /^Measures were compared as two samples/);
  assert.equal(howCompared({ changes: [{ kind: "CHANGE_KIND_INDEX_RECALL" }, { kind: "CHANGE_KIND_HUBS", chance: 1 }] }), "");
});

test("a loss is worse also where the row of the same queries has its message", () => {
  const recall = { kind: "CHANGE_KIND_RECALL", chance: 0.0001, real: true, before: 0.9, now: 0.8 } as const;
  const hubs = { kind: "CHANGE_KIND_HUBS", chance: 0.0001, real: true, before: 0.2, now: 0.1 } as const;

  const verdicts = [{ ...recall, message: "m" }, recall, { ...recall, now: 0.95 }, hubs, { ...recall, real: false }, { ...hubs, real: false }].map(verdictOf);

  assert.deepEqual(verdicts, ["worse", "worse", "better", "better", "may be chance, or slight", "may be chance"]);
  assert.equal(verdictOf({ kind: "CHANGE_KIND_CENTRE", now: 1 }), "");
});
