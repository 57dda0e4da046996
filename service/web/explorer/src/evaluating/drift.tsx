import { Table } from "../parts/table";
import { count, Text } from "../parts/text";
import { ms } from "../parts/timing";
import type { ChangeJson, DriftJson, EvaluationReportJson } from "../types";

/** An earlier evaluation of a file, to compare with. */
export interface Earlier {
  /** The name of its file. */
  readonly name: string;
  readonly report: EvaluationReportJson;
}

/** Read an evaluation that this page saved, or that `vecgate evaluate --json` printed; throws if it is none. */
export function readEarlier(name: string, text: string): Earlier {
  let found: unknown;
  try {
    found = (JSON.parse(text) as { report?: unknown }).report;
  } catch {
    found = undefined;
  }
  // Whether it can be compared is for the server to say.
  if (typeof found !== "object" || found === null) throw new Error(`${name} has no report to compare with: give an evaluation that was saved here or printed by vecgate evaluate --json.`);
  return { name, report: found };
}

const SHARE = (value: number) => `${(100 * value).toFixed(2)} %`;
const NUMBER = (value: number) => value.toFixed(3);

/** What is compared, and how its values are written. */
const KINDS: Record<string, [name: string, format: (value: number) => string]> = {
  OBJECT_COUNT: ["objects", count],
  MISSING: ["without the vector", SHARE],
  ZERO: ["vectors without direction", SHARE],
  OTHER_LENGTH: ["other number of values", SHARE],
  DOUBLED: ["doubled", SHARE],
  OFF_LENGTH: ["not of unit length", SHARE],
  HUBS: ["hubs", SHARE],
  QUERY_GAP: ["gap between queries and objects", NUMBER],
  LENGTHS: ["mean length", NUMBER],
  CENTRE: ["cosine of the centres", NUMBER],
  DISTRIBUTION: ["difference of the distributions", NUMBER],
  GROUPS: ["share of a group", SHARE],
  SAME_OBJECTS: ["same objects with another vector", SHARE],
  NOT_FOUND: ["not found by their own vectors", SHARE],
  INDEX_RECALL: ["index recall", NUMBER],
  NDCG: ["nDCG", NUMBER],
  RECIPROCAL_RANK: ["MRR", NUMBER],
  RECALL: ["recall", NUMBER],
  MEDIAN_TIME: ["median time of a search", (value) => ms(1000 * value)],
};

const MEASURES = new Set(["INDEX_RECALL", "NDCG", "RECIPROCAL_RANK", "RECALL"]);

function kindOf({ kind }: ChangeJson): string {
  return (kind ?? "").replace("CHANGE_KIND_", "");
}

/** How measures were compared, in words; nothing if there are none, or too few queries. */
export function howCompared({ changes = [] }: DriftJson): string {
  const same = Math.max(0, ...changes.map((each) => each.sameQueries ?? 0));
  if (same > 0) return `${count(same)} queries are the same in both, and were compared one by one.`;
  if (!changes.some((each) => MEASURES.has(kindOf(each)) && each.chance !== undefined)) return "";
  return "Measures were compared as two samples, which shows large changes only: fewer than 30 queries are the same in both, or the earlier evaluation kept no values of them.";
}

/** How an evaluation differs from an earlier one. */
export function DriftTable({ drift: { changes = [] } }: { drift: DriftJson }) {
  return (
    <Table
      caption="Differences from the earlier evaluation"
      head={["Of", "What", "Before", "Now", "Is it chance?"]}
      rows={changes.map((each) => {
        const [name, format] = KINDS[kindOf(each)] ?? ["a change of another version", NUMBER];
        return [<Text clamp={80}>{each.subject || "the collection"}</Text>, each.sameQueries ? `${name}, same queries` : name, each.before === undefined ? "–" : format(Number(each.before)), format(Number(each.now ?? 0)), <Verdict change={each} />];
      })}
    />
  );
}

/** Whether a difference is more than chance, in a word; nothing if there is no chance in it. */
export function verdictOf(change: ChangeJson): "worse" | "better" | "may be chance, or slight" | "may be chance" | "" {
  const measured = MEASURES.has(kindOf(change));
  if (change.real) {
    // Of the same loss only one row has the message.
    return change.message || (measured && Number(change.now ?? 0) < Number(change.before ?? 0)) ? "worse" : "better";
  }
  if (change.chance === undefined) return "";
  return measured ? "may be chance, or slight" : "may be chance";
}

function Verdict({ change }: { change: ChangeJson }) {
  const verdict = verdictOf(change);
  if (!verdict) return <>–</>;
  return <span class={{ worse: "badge bad", better: "badge good" }[verdict as string] ?? "badge"}>{verdict}</span>;
}
