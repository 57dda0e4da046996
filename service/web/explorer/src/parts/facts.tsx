import type { ComponentChildren } from "preact";

import "./facts.css";

/** Short facts side by side, each with its name above it. */
export function Facts({ children }: { children: ComponentChildren }) {
  return <dl class="short-facts">{children}</dl>;
}

export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return <div><dt>{name}</dt><dd>{children}</dd></div>;
}
