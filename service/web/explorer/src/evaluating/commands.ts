/** An evaluation as commands that anybody can copy. */

import { base, hasKey } from "../api";
import { headOf } from "../envelopes";
import type { Command } from "../parts/commands";
import { ascii, GRPC_ADDRESS, KEY_HEADER, shell } from "../shell";
import type { EvaluateCollectionRequestJson } from "../types";
import { DEFAULTS, isPresent, type Wishes, wayWords, waysOf } from "./request";
import type { Given } from "./run";

/** The name of the file with a request that is too long for a command. */
export const REQUEST_FILE = "evaluation-request.json";
const METHOD = "vecgate.v1.EvaluationService/EvaluateCollection";

/** A request as its file and its commands have it: nothing in it looks like something else. */
export function requestText(request: EvaluateCollectionRequestJson): string {
  return ascii(JSON.stringify(request));
}

/** Whether a request may be too long for a command, and is read from a file. */
export function isLong(request: EvaluateCollectionRequestJson): boolean {
  return request.queries !== undefined || request.earlier !== undefined;
}

/** Write an evaluation as commands; queries of files are read from files. */
export function toCommands(wishes: Wishes, request: EvaluateCollectionRequestJson, given: Given, images: ReadonlySet<string>): Command[] {
  const text = requestText(request);
  const isFile = isLong(request);
  const key = hasKey() ? `-H ${KEY_HEADER} ` : "";
  const plain = base.protocol === "https:" ? "" : "-plaintext ";
  const head = [...headOf(new TextEncoder().encode(text).length)].map((each) => `\\${each.toString(8).padStart(3, "0")}`).join("");
  const content = isFile ? `cat ${REQUEST_FILE}` : `printf %s ${shell(text)}`;
  return [
    // The messages of the answer have heads of their own, which are left out.
    {
      name: "curl",
      grpc: false,
      text: `{ printf '${head}'; ${content}; } | curl -sS ${shell(new URL(METHOD, base).href)} \\\n  -H 'content-type: application/connect+json' ${key}--data-binary @- \\\n  | LC_ALL=C tr -c '[:print:]' '\\n' | sed -n 's/^.\\{0,4\\}{"/{"/p'`,
    },
    { name: "grpcurl", grpc: true, text: `grpcurl ${plain}${key}-d ${isFile ? "@" : shell(text)} \\\n  ${GRPC_ADDRESS} ${METHOD}${isFile ? ` < ${REQUEST_FILE}` : ""}` },
    { name: "vecgate", grpc: true, text: commandLine(wishes, given, images) },
  ];
}

function commandLine(wishes: Wishes, { files, earlier }: Given, images: ReadonlySet<string>): string {
  const ways = waysOf(wishes);
  const queries = {
    objects: [["--sample", wishes.sample]],
    captions: [["--caption-field", wishes.property], ["--sample", wishes.sample]],
    queries: [["--queries", fileName(files?.name ?? "", "queries.csv")], ["--qrels", files?.qrels && fileName(files.qrels, "answers.qrels")], ["--answer-property", wishes.answerProperty]],
  }[wishes.by];
  const options = [
    ["--tenant", wishes.tenant],
    ...queries,
    ["--against", earlier && fileName(earlier.name, "evaluation.json")],
    ["--limit", wishes.limit],
    ...(isPresent(ways) ? [] : ways.map((each) => ["--system", wayWords(each, images)])),
    ["--max-objects", wishes.maxObjects !== DEFAULTS["max-objects"] && wishes.maxObjects],
    ["--wanted-recall", wishes.suggest && wishes.changeEf && wishes.wantedRecall],
  ].flatMap(([name, value]) => (value ? [`${name} ${shell(ascii(String(value)))}`] : []));
  const flags = [!wishes.indexRecall && "--no-index-recall", wishes.changeEf && "--allow-change-ef", wishes.suggest && "--suggest"].filter(Boolean);
  const tls = base.protocol === "https:" ? "--tls " : "";
  return `vecgate --address ${GRPC_ADDRESS} ${tls}evaluate ${shell(ascii(wishes.collection))}${[...options, ...flags].map((each) => ` \\\n  ${each}`).join("")}`;
}

/** A file's name where it is safe to show and to use. */
function fileName(path: string, other: string): string {
  return /^[\w][\w. /-]{0,120}$/.test(path) ? path : other;
}
