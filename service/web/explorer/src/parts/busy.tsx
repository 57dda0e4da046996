import type { ComponentChildren } from "preact";

/** Something is on its way. Screen readers hear it, too. */
export function Busy({ children = "Loading" }: { children?: ComponentChildren }) {
  return (
    <p class="busy" role="status">
      <span class="spinner" aria-hidden="true" />
      {children}…
    </p>
  );
}
