// Prints the path and the id of each path that comes as JSON, and which endings are pictures'.

import { readFileSync } from "node:fs";

import { HEIC_SUFFIXES, normalPath, pictureId, SUFFIXES } from "../../../../../service/web/explorer/src/importing/folder";

const { collection, paths } = JSON.parse(readFileSync(0, "utf8")) as { collection: string; paths: string[] };
const made = paths.map((path) => ({ path: normalPath(path), id: pictureId(collection, path) }));
console.log(JSON.stringify({ made, suffixes: [...SUFFIXES].sort(), heic: [...HEIC_SUFFIXES].sort() }));
