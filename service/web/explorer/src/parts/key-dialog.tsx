import { useState } from "preact/hooks";

import { setKey, type ApiError } from "../api";
import { Dialog } from "./dialog";
import { ErrorNote } from "./error-note";

/** Ask for an API key. It stays in this page's memory: no storage, no cookie, no address has it. */
export function KeyDialog({ error, onDone }: { error: ApiError | undefined; onDone: (given: boolean) => void }) {
  const [value, setValue] = useState("");
  return (
    <Dialog title="API key" onClose={() => onDone(false)}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setKey(value);
          onDone(true);
        }}
      >
        <ErrorNote error={error} />
        <label>
          Key or token
          <input type="password" name="key" autocomplete="off" spellcheck={false} autofocus required value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        </label>
        <p class="quiet">It is kept in the memory of this page only, and is gone when the page is closed or loaded again.</p>
        <div class="row">
          <button type="submit" class="primary">Use this key</button>
          <button type="button" onClick={() => onDone(false)}>Cancel</button>
        </div>
      </form>
    </Dialog>
  );
}
