import { useRef, useState } from "preact/hooks";

/** A command or a program, to read and to copy. */
export function Copyable({ label, text }: { label: string; text: string }) {
  const code = useRef<HTMLPreElement>(null);
  const [said, setSaid] = useState("");
  const copy = async () => {
    setSaid((await copyText(text, code.current)) ? "Copied" : "Select and copy it by hand");
    setTimeout(() => setSaid(""), 2000);
  };
  return (
    <div class="copyable">
      <pre ref={code} tabIndex={0} aria-label={label}><bdi dir="ltr">{text}</bdi></pre>
      <button type="button" onClick={() => void copy()} aria-label={`Copy ${label}`}>Copy</button>
      <span class="quiet" role="status">{said}</span>
    </div>
  );
}

/** Copy a text, and return whether the browser let it; if not, what is shown of it is selected. */
export async function copyText(text: string, shown: HTMLElement | null = null): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, other machines' pages have no clipboard, but they are asked what the old command shall copy.
    if (shown) getSelection()?.selectAllChildren(shown);
    const give = (event: ClipboardEvent) => {
      event.clipboardData?.setData("text/plain", text);
      event.preventDefault();
    };
    document.addEventListener("copy", give);
    const copied = document.execCommand("copy");
    document.removeEventListener("copy", give);
    return copied;
  }
}
