import { hasKey } from "../api";
import { Commands } from "../parts/commands";
import type { ApiRequest } from "./request";
import { toSnippets } from "./snippets";

/** The request that is shown, as a command or a program. */
export function SnippetList({ request, file }: { request: ApiRequest; file: string }) {
  const make = () => {
    const { curl, grpcurl, python } = toSnippets(request, file, hasKey());
    return [
      { name: "curl", text: curl, grpc: false },
      { name: "grpcurl", text: grpcurl, grpc: true },
      { name: "Python", text: python, grpc: true },
    ];
  };
  return <Commands make={make}>{file !== "" && <p class="quiet">The picture is read from its file, in the folder where this runs.</p>}</Commands>;
}
