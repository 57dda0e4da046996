// Embeds a text and an image, imports both and searches: ADDRESS IMAGE
import { readFileSync } from "node:fs";
import { credentials, type ServiceError } from "@grpc/grpc-js";

import { EmbeddingServiceClient, EmbedInputsRequest, type EmbedInputsResponse } from "./generated/vecgate/v1/embedding_service.js";
import { ImportObjectsRequest, type ImportObjectsResponse, ObjectServiceClient } from "./generated/vecgate/v1/object_service.js";
import { SearchObjectsRequest, type SearchObjectsResponse, SearchServiceClient } from "./generated/vecgate/v1/search_service.js";

const [address, file] = process.argv.slice(2);
const options = { "grpc.max_receive_message_length": 64 << 20 };
const insecure = credentials.createInsecure();
const embedding = new EmbeddingServiceClient(address, insecure, options);
const objects = new ObjectServiceClient(address, insecure, options);
const search = new SearchServiceClient(address, insecure, options);
const image = { content: readFileSync(file) };

type Call<Response> = (callback: (error: ServiceError | null, response: Response) => void) => unknown;

function answer<Response>(call: Call<Response>): Promise<Response> {
  return new Promise((resolve, reject) => call((error, response) => (error ? reject(error) : resolve(response))));
}

// Little-endian float32, one after the other. The copy is needed, because a Buffer can begin at any byte.
function floats(data: Buffer): number[] {
  return [...new Float32Array(Uint8Array.from(data).buffer)];
}

const embedRequest = EmbedInputsRequest.fromPartial({
  inputs: [{ content: { $case: "text", value: "a dog" } }, { content: { $case: "image", value: image } }],
});
const embedded = await answer<EmbedInputsResponse>((callback) => embedding.embedInputs(embedRequest, callback));
const vectors = embedded.results.map(({ outcome }) =>
  outcome?.$case === "embedding" ? floats(outcome.value.vector!.data) : [],
);

const importRequest = ImportObjectsRequest.fromPartial({
  collection: "Pictures",
  objects: [{ properties: { title: "a dog" }, images: { image } }],
});
const imported = await answer<ImportObjectsResponse>((callback) => objects.importObjects(importRequest, callback));
for (const { outcome } of imported.results) {
  if (outcome?.$case === "error") throw new Error(outcome.value.message);
}

const searchRequest = SearchObjectsRequest.fromPartial({
  collection: "Pictures",
  query: { $case: "nearText", value: { concepts: ["a dog"] } },
  limit: 1,
});
const searched = await answer<SearchObjectsResponse>((callback) => search.searchObjects(searchRequest, callback));

const stored = imported.results.map(({ id }) => id);
const found = searched.hits.map(({ object }) => object!.id);
console.log(JSON.stringify({ vectors, stored, found }));
for (const client of [embedding, objects, search]) client.close();
