/** A request as a command or a program that anybody can copy: for curl, grpcurl and Python. */

import { base } from "../api";
import { ascii, GRPC_ADDRESS, KEY_HEADER, shell } from "../shell";
import type { FilterJson, FilterOperatorJson, FilterValueJson, HybridJson, NearInputsJson, SearchObjectsRequestJson, WeightedInputJson } from "../types";
import type { ApiRequest } from "./request";

/** Stands for the picture's base64 in a request; nothing else in it can look the same, because within a text the quotes around it are escaped. */
export const PICTURE = "PICTURE-IN-BASE64";
const IN_JSON = `"content":"${PICTURE}"`;

export interface Snippets {
  curl: string;
  grpcurl: string;
  python: string;
}

/**
 * Write a request in three ways.
 *
 * @param file - the name of the picture's file; empty without a picture.
 * @param withKey - whether the server needs a key. It is a variable in commands, and never written out.
 */
export function toSnippets(call: ApiRequest, file: string, withKey: boolean): Snippets {
  const service = call.method === "SearchObjects" ? "vecgate.v1.SearchService" : "vecgate.v1.ObjectService";
  const secure = base.protocol === "https:";
  const name = plainName(file);
  const json = ascii(JSON.stringify(call.request));
  const parts = json.split(IN_JSON);
  const piped = parts.length === 2 ? `${withPicture(parts, name)} | ` : "";
  return {
    curl: `${piped}curl -sS ${shell(new URL(`${service}/${call.method}`, base).href)} \\\n  -H 'content-type: application/json'${withKey ? ` \\\n  -H ${KEY_HEADER}` : ""} \\\n  --data-binary ${piped ? "@-" : shell(json)}`,
    grpcurl: `${piped}grpcurl ${secure ? "" : "-plaintext "}${withKey ? `-H ${KEY_HEADER} ` : ""}\\\n  -d ${piped ? "@" : shell(json)} \\\n  ${GRPC_ADDRESS} ${service}/${call.method}`,
    python: toPython(call, name, GRPC_ADDRESS, secure, withKey),
  };
}

/** A command that prints the request with the picture's bytes in it. An argument could not hold a picture. */
function withPicture([before = "", after = ""]: string[], name: string): string {
  return `{ printf %s ${shell(`${before}"content":"`)}; base64 < ${shell(name)} | tr -d '\\n'; printf %s ${shell(`"${after}`)}; }`;
}

/** A name that is safe to show and to use: names can hold anything, also marks that turn the direction of the text. */
function plainName(file: string): string {
  const ending = /\.(\w{2,5})$/.exec(file)?.[1] ?? "png";
  return /^[\w][\w. -]{0,80}$/.test(file) ? file : `picture.${ending}`;
}

/** A string of Python: JSON's escapes are Python's, too. */
function py(text: string): string {
  return ascii(JSON.stringify(text));
}

function toPython(call: ApiRequest, name: string, address: string, secure: boolean, withKey: boolean): string {
  const used = new Set(["Client"]);
  const use = (name: string) => {
    used.add(name);
    return name;
  };
  const { request } = call;
  const options: string[] = [];
  if (call.method === "SearchObjects") options.push(...queryOptions(call.request, name, use));
  if (request.filters) options.push(`filters=${filterCode(request.filters, use)}`);
  if (call.method === "SearchObjects") {
    if (call.request.targetVectors?.[0]) options.push(`target_vector=${py(call.request.targetVectors[0])}`);
    options.push(`limit=${call.request.limit}`);
    if (call.request.offset) options.push(`offset=${call.request.offset}`);
  } else {
    const [sort] = call.request.sort ?? [];
    if (sort) options.push(`sort=${py((sort.descending ? "-" : "") + (sort.property ?? ""))}`);
    options.push(`page_size=${call.request.pageSize}`);
  }
  if (request.scope?.tenant) options.push(`tenant=${py(request.scope.tenant)}`);
  const client = [py(address), ...(secure ? ["credentials=grpc.ssl_channel_credentials()"] : []), ...(withKey ? ['api_key=os.environ["VECGATE_API_KEY"]'] : [])];
  const listing = call.method === "ListObjects";
  const standard = [...(listing ? ["from itertools import islice"] : []), ...(used.has("Path") ? ["from pathlib import Path"] : []), ...(used.has("UUID") ? ["from uuid import UUID"] : [])];
  const ours = [...used].filter((each) => each !== "Path" && each !== "UUID" && !each.startsWith("OBJECT_FIELD")).sort();
  const fields = [...used].filter((each) => each.startsWith("OBJECT_FIELD")).sort();
  const found = `client.${listing ? "list_objects" : "search"}(\n        ${[py(request.collection ?? ""), ...options].join(",\n        ")},\n    )`;
  return [
    ...(withKey ? ["import os"] : []),
    ...standard,
    ...(withKey || standard.length > 0 ? [""] : []),
    ...(secure ? ["import grpc"] : []),
    `from vecgate.client import ${ours.join(", ")}`,
    ...(fields.length > 0 ? [`from vecgate.v1.filter_pb2 import ${fields.join(", ")}`] : []),
    "",
    `with Client(${client.join(", ")}) as client:`,
    `    found = ${found}`,
    ...(call.method === "ListObjects"
      ? [`    for each in islice(found, ${call.request.pageSize}):`, "        print(each.id, each.properties)"]
      : ["    for hit in found.hits:", `        print(${"bm25" in request || "hybrid" in request ? "hit.score" : "hit.distance"}, hit.object.id, hit.object.properties)`]),
  ].join("\n");
}

type Use = (name: string) => string;

function queryOptions(request: SearchObjectsRequestJson, name: string, use: Use): string[] {
  if (request.nearText) return [`text=${py(request.nearText.concepts?.[0] ?? "")}`, ...(request.nearText.truncate ? ["truncate=True"] : [])];
  if (request.nearImage) return [`image=${use("Path")}(${py(name)})`];
  if (request.nearObject) return [`query=${use("near_object")}(${py(request.nearObject.id ?? "")})`];
  if (request.nearInputs) return [`query=${inputsCode(request.nearInputs, name, use)}`];
  if (request.bm25) return [`query=${use("bm25")}(${py(request.bm25.query ?? "")})`];
  return request.hybrid ? [`query=${hybridCode(request.hybrid, name, use)}`] : [];
}

function hybridCode(query: HybridJson, name: string, use: Use): string {
  const near = query.nearInputs ? [inputsCode(query.nearInputs, name, use)] : [];
  const truncate = query.truncate ? ["truncate=True"] : [];
  return `${use("hybrid")}(${[py(query.bm25?.query ?? ""), ...near, `alpha=${query.alpha}`, ...truncate].join(", ")})`;
}

function inputsCode(query: NearInputsJson, name: string, use: Use): string {
  const inputs = query.inputs ?? [];
  const weights = inputs.some((each) => each.weight !== undefined) ? [`weights=(${inputs.map((each) => each.weight ?? 1).join(", ")})`] : [];
  return `${use("near_inputs")}(${[...inputs.map((each) => inputCode(each, name, use)), ...weights, ...(query.truncate ? ["truncate=True"] : [])].join(", ")})`;
}

function inputCode(input: WeightedInputJson, name: string, use: Use): string {
  if (input.text !== undefined) return py(input.text);
  if (input.nearObject) return `${use("UUID")}(${py(input.nearObject.id ?? "")})`;
  if (input.textImage) return `${use("TextImage")}(${py(input.textImage.text ?? "")}, ${use("Path")}(${py(name)}))`;
  return `${use("Path")}(${py(name)})`;
}

const COMPARISONS: Partial<Record<FilterOperatorJson, string>> = {
  FILTER_OPERATOR_EQUAL: "==",
  FILTER_OPERATOR_NOT_EQUAL: "!=",
  FILTER_OPERATOR_GREATER: ">",
  FILTER_OPERATOR_GREATER_OR_EQUAL: ">=",
  FILTER_OPERATOR_LESS: "<",
  FILTER_OPERATOR_LESS_OR_EQUAL: "<=",
};

const METHODS: Partial<Record<FilterOperatorJson, string>> = {
  FILTER_OPERATOR_LIKE: "like",
  FILTER_OPERATOR_CONTAINS_ANY: "contains_any",
  FILTER_OPERATOR_CONTAINS_ALL: "contains_all",
  FILTER_OPERATOR_CONTAINS_NONE: "contains_none",
};

function filterCode(filter: FilterJson, use: Use): string {
  const several = (name: string, filters: FilterJson[] = []) => `${use(name)}(${filters.map((each) => filterCode(each, use)).join(", ")})`;
  if (filter.allOf) return several("all_of", filter.allOf.filters);
  if (filter.anyOf) return several("any_of", filter.anyOf.filters);
  if (filter.negation) return several("negate", [filter.negation]);
  const { property, propertyLength, objectField, operator = "FILTER_OPERATOR_UNSPECIFIED", value = {} } = filter.condition ?? {};
  const what = objectField ? `object_field=${use(String(objectField))}` : propertyLength !== undefined ? `${py(propertyLength)}, length=True` : py(property ?? "");
  const left = `${use("where")}(${what})`;
  if (operator === "FILTER_OPERATOR_IS_NULL") return `${left}.is_null(${value.boolean === false ? "null=False" : ""})`;
  if (value.geoRange) return `${left}.within_geo_range(${value.geoRange.latitude}, ${value.geoRange.longitude}, ${value.geoRange.distanceM})`;
  const comparison = COMPARISONS[operator];
  return comparison ? `(${left} ${comparison} ${valueCode(value)})` : `${left}.${METHODS[operator]}(${valueCode(value)})`;
}

function valueCode(value: FilterValueJson): string {
  const list = (values: string[] = []) => `[${values.join(", ")}]`;
  if (value.text !== undefined) return py(value.text);
  if (value.integer !== undefined) return String(value.integer);
  if (value.number !== undefined) return float(value.number);
  if (value.boolean !== undefined) return truth(value.boolean);
  if (value.texts) return list(value.texts.values?.map(py));
  if (value.integers) return list(value.integers.values?.map(String));
  if (value.numbers) return list(value.numbers.values?.map(float));
  return list(value.booleans?.values?.map(truth));
}

function truth(value: boolean): string {
  return value ? "True" : "False";
}

function float(value: number | string): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
}
