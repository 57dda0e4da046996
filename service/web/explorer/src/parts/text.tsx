import { useState } from "preact/hooks";

const CLAMPED_CHARACTERS = 400;

/** Count with separators, as people read numbers. */
export function count(value: number | string | undefined): string {
  return Number(value ?? 0).toLocaleString("en");
}

/**
 * Text that somebody else wrote: names, properties, messages.
 *
 * Its direction marks end with it, it breaks wherever the line ends, and a long one is cut until somebody asks for all of it.
 */
export function Text({ children, clamp = CLAMPED_CHARACTERS }: { children: string; clamp?: number }) {
  const [whole, setWhole] = useState(false);
  if (children.length <= clamp) return <bdi class="text">{children}</bdi>;
  return (
    <>
      <bdi class={whole ? "text whole" : "text"} tabIndex={whole ? 0 : undefined}>
        {whole ? children : `${cut(children, clamp)}…`}
      </bdi>{" "}
      <button type="button" class="link" aria-expanded={whole} onClick={() => setWhole(!whole)}>
        {whole ? "Show less" : `Show all ${count(children.length)} characters`}
      </button>
    </>
  );
}

/** Text that somebody else wrote, in one line without a button: captions, options of a list. */
export function Line({ children, clamp = 120 }: { children: string; clamp?: number }) {
  return <bdi class="line">{short(children, clamp)}</bdi>;
}

/** A text cut to a number of characters. */
export function short(text: string, clamp = 120): string {
  return text.length <= clamp ? text : `${cut(text, clamp)}…`;
}

/** A text of others within a longer one where no element can stand, as in an option: its direction marks end with it. */
export function isolated(text: string, clamp = 120): string {
  return `\u2068${short(text, clamp)}\u2069`;
}

function cut(text: string, length: number): string {
  // Not within a pair of surrogates.
  return text.slice(0, length).replace(/[\ud800-\udbff]$/, "");
}
