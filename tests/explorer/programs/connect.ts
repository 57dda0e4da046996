// Calls a server from a page by connect-web, as a program of someone else's would.
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { CollectionService } from "./generated/vecgate/v1/collection_service_pb";
import { EmbeddingService } from "./generated/vecgate/v1/embedding_service_pb";
import { SearchService } from "./generated/vecgate/v1/search_service_pb";

const TRANSPORTS: Record<string, (baseUrl: string, interceptors: Interceptor[]) => Transport> = {
  "connect-json": (baseUrl, interceptors) => createConnectTransport({ baseUrl, interceptors, useBinaryFormat: false }),
  "connect-binary": (baseUrl, interceptors) => createConnectTransport({ baseUrl, interceptors, useBinaryFormat: true }),
  "connect-get": (baseUrl, interceptors) => createConnectTransport({ baseUrl, interceptors, useHttpGet: true }),
  "grpc-web": (baseUrl, interceptors) => createGrpcWebTransport({ baseUrl, interceptors }),
};

async function search(wire: string, baseUrl: string, collection: string, text: string, key: string) {
  const withKey: Interceptor = (next) => (request) => {
    if (key) request.header.set("authorization", `Bearer ${key}`);
    return next(request);
  };
  const transport = TRANSPORTS[wire](baseUrl, [withKey]);
  try {
    const { embedders } = await createClient(EmbeddingService, transport).listEmbedders({});
    const { collections } = await createClient(CollectionService, transport).listCollections({});
    const { embedder, hits } = await createClient(SearchService, transport).searchObjects({
      collection,
      query: { case: "nearText", value: { concepts: [text] } },
      limit: 5,
    });
    return {
      embedders: embedders.map((each) => each.name),
      collections: collections.map((each) => each.name),
      embedder: embedder?.name,
      ids: hits.map((hit) => hit.object?.id),
    };
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    return { code: Code[error.code], message: error.rawMessage };
  }
}

Object.assign(globalThis, { search });
