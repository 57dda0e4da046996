import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { hasKey } from "../api";
import { Copyable } from "./copyable";

/** A way to make a request, and the command or program for it. */
export interface Command {
  readonly name: string;
  readonly text: string;
  /** Whether it calls over gRPC. */
  readonly grpc: boolean;
}

/** A request as commands or programs. Written only when somebody wants to see them. */
export function Commands({ make, children }: { make: () => readonly Command[]; children?: ComponentChildren }) {
  const [open, setOpen] = useState(false);
  const [chosen, setChosen] = useState(0);
  const commands = open ? make() : [];
  const shown = commands[chosen];
  return (
    <details class="snippets" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>This request as a command or a program</summary>
      {shown && (
        <>
          <div class="row" role="group" aria-label="Kind">
            {commands.map(({ name }, at) => <button type="button" aria-pressed={at === chosen} onClick={() => setChosen(at)}>{name}</button>)}
          </div>
          <Copyable label={`${shown.name} request`} text={shown.text} />
          {shown.grpc && <p class="quiet">50070 is the gRPC port unless the server has another.</p>}
          {hasKey() && <p class="quiet">The key is in the variable VECGATE_API_KEY.</p>}
          {children}
        </>
      )}
    </details>
  );
}
