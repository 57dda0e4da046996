// Tables as CSV (RFC 4180), for spreadsheets and programs.

export type Cell = string | number | null;

// A spreadsheet takes a text that begins so for a formula, and file names come from anywhere.
const FORMULA = /^[=+\-@\t\r]/;
const NEEDS_QUOTES = /[",\r\n]/;

/** Returns rows as CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front. */
export function toCsv(rows: readonly (readonly Cell[])[]): string {
  return rows.map((row) => row.map(field).join(",") + "\r\n").join("");
}

function field(cell: Cell): string {
  if (cell === null) return "";
  if (typeof cell === "number") return String(cell);
  const text = FORMULA.test(cell) ? `'${cell}` : cell;
  return NEEDS_QUOTES.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A row, and the number of the line on which it ends. */
export interface Row {
  readonly line: number;
  readonly fields: string[];
}

// A field in quotes, in which two quotes are one, or a plain one; and what ends it.
const FIELD = /("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n|$)/y;

/** Returns the rows of a CSV; empty lines are none. Throws where a quote is not closed or stands within a field. */
export function readCsv(text: string): Row[] {
  const rows: Row[] = [];
  let [line, fields] = [1, [] as string[]];
  FIELD.lastIndex = text.startsWith("\ufeff") ? 1 : 0;
  while (FIELD.lastIndex < text.length || fields.length > 0) {
    const found = FIELD.exec(text);
    if (!found) throw new Error(`Line ${line} is no CSV: a quote is not closed, or stands within a field.`);
    const [, value = "", end = ""] = found;
    fields.push(value.startsWith('"') ? value.slice(1, -1).replaceAll('""', '"') : value);
    line += value.split("\n").length - 1;
    if (end === ",") continue;
    if (fields.length > 1 || fields[0] !== "") rows.push({ line, fields });
    fields = [];
    line += 1;
  }
  return rows;
}
