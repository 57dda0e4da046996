import { useState } from "preact/hooks";

import { copyText } from "./copyable";

/** Copy a text that is made when somebody asks for it, such as a long table. */
export function CopyButton({ label, make }: { label: string; make: () => string }) {
  const [said, setSaid] = useState("");
  const copy = async () => {
    setSaid((await copyText(make())) ? "Copied" : "This browser lets no page copy");
    setTimeout(() => setSaid(""), 2000);
  };
  return (
    <span class="copy">
      <button type="button" onClick={() => void copy()}>{label}</button>
      <span class="quiet" role="status">{said}</span>
    </span>
  );
}
