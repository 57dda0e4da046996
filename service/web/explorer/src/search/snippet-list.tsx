import { useState } from "preact/hooks";

import { hasKey } from "../api";
import { Copyable } from "../parts/copyable";
import type { ApiRequest } from "./request";
import { toSnippets, type Snippets } from "./snippets";

const LABELS: Record<keyof Snippets, string> = { curl: "curl", grpcurl: "grpcurl", python: "Python" };

/** The request that is shown, as a command or a program. Written only when somebody wants to see it. */
export function SnippetList({ request, file }: { request: ApiRequest; file: string }) {
  const [open, setOpen] = useState(false);
  const [way, setWay] = useState<keyof Snippets>("curl");
  const snippets = open ? toSnippets(request, file, hasKey()) : undefined;
  return (
    <details class="snippets" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>This request as a command or a program</summary>
      {snippets && (
        <>
          <div class="row" role="group" aria-label="Kind">
            {(Object.keys(LABELS) as (keyof Snippets)[]).map((each) => (
              <button type="button" aria-pressed={each === way} onClick={() => setWay(each)}>{LABELS[each]}</button>
            ))}
          </div>
          <Copyable label={`${LABELS[way]} request`} text={snippets[way]} />
          {way !== "curl" && <p class="quiet">50070 is the gRPC port unless the server has another.</p>}
          {hasKey() && <p class="quiet">The key is in the variable VECGATE_API_KEY.</p>}
          {file !== "" && <p class="quiet">The picture is read from a file beside.</p>}
        </>
      )}
    </details>
  );
}
