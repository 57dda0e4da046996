import type { ComponentChildren } from "preact";

/** A table that scrolls by itself where the screen is narrow. */
export function Table({ caption, head, rows }: { caption: string; head: ComponentChildren[]; rows: ComponentChildren[][] }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="hidden">{caption}</caption>
        <thead>
          <tr>{head.map((each) => <th scope="col">{each}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr>{row.map((each, at) => (at === 0 ? <th scope="row">{each}</th> : <td>{each}</td>))}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
