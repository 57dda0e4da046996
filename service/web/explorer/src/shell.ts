/** What commands are made of that anybody can copy. */

import { base } from "./api";

/** Where gRPC is, unless the server has another port for it. */
export const GRPC_ADDRESS = `${base.hostname}:50070`;
/** The key is a variable in commands, and never written out. */
export const KEY_HEADER = '"authorization: Bearer $VECGATE_API_KEY"';

/** Quote for a POSIX shell. */
export function shell(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** JSON or a string of Python, without letters that a terminal or a page could show as something else. */
export function ascii(json: string): string {
  return json.replace(/[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g, (each) =>
    `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
