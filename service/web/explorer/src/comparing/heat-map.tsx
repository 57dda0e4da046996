import { Line, Text } from "../parts/text";
import type { Comparison, Side } from "./comparison";
import { best, columnOf, rangeOf } from "./cosines";
import type { Outcome } from "./embed";
import { colourOf } from "./scale";
import { Thumbnail } from "./thumbnail";

const DIGITS = 3;
const LEGEND_STEPS = 32;

/** The cosines of one embedder as a table whose cells have colours, with what the colours mean. */
export function HeatMap({ comparison, side }: { comparison: Comparison; side: Side }) {
  const { texts, pictures } = comparison;
  const range = rangeOf(side.matrix);
  const ofRows = side.matrix.map(best);
  const ofColumns = pictures.map((_, column) => best(columnOf(side.matrix, column)));
  const name = side.embedder.name ?? "";
  return (
    <figure class="heat">
      <figcaption>
        <strong><Line>{name}</Line></strong> <span class="quiet"><Line>{side.embedder.model ?? ""}</Line></span>
      </figcaption>
      {!side.reads.text && <p class="note">This embedder does not read texts.</p>}
      {!side.reads.picture && <p class="note">This embedder does not read pictures.</p>}
      <div class="scroll" tabIndex={0} role="region" aria-label={`Table by ${name}`}>
        <table>
          <caption class="hidden">Cosines of texts, in rows, and pictures, in columns, by {name}</caption>
          <thead>
            <tr>
              <td />
              {pictures.map((picture, column) => (
                <th scope="col" class={failed(side.pictures[column]) ? "failed" : undefined}>
                  <Thumbnail picture={picture} />
                  <Line clamp={40}>{picture.name}</Line>
                  <Failure outcome={side.pictures[column]} />
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {texts.map((text, row) => (
              <tr>
                <th scope="row"><Text clamp={120}>{text.key}</Text><Failure outcome={side.texts[row]} /></th>
                {pictures.map((_, column) => (
                  <Cell
                    value={side.matrix[row]?.[column] ?? null}
                    range={range}
                    bestOfRow={ofRows[row] === column && pictures.length > 1}
                    bestOfColumn={ofColumns[column] === row && texts.length > 1}
                    pending={!side.texts[row] || !side.pictures[column]}
                  />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {range && <Legend {...range} />}
    </figure>
  );
}

function failed(outcome: Outcome | undefined): boolean {
  return outcome !== undefined && "failure" in outcome;
}

function Failure({ outcome }: { outcome: Outcome | undefined }) {
  return outcome && "failure" in outcome ? <span class="failure"><Text clamp={120}>{outcome.failure}</Text></span> : null;
}

interface Range {
  least: number;
  largest: number;
}

function Cell({ value, range, bestOfRow, bestOfColumn, pending }: { value: number | null; range: Range | null; bestOfRow: boolean; bestOfColumn: boolean; pending: boolean }) {
  if (value === null || range === null) {
    return <td class="none"><span aria-hidden="true">{pending ? "…" : "–"}</span><span class="hidden">{pending ? "not there yet" : "none"}</span></td>;
  }
  const { background, text } = colourOf(range.largest > range.least ? (value - range.least) / (range.largest - range.least) : 1);
  return (
    <td style={{ background, color: text }} data-cosine={value}>
      {value.toFixed(DIGITS)}
      {bestOfRow && <Mark sign="▸" meaning="best picture of its text" />}
      {bestOfColumn && <Mark sign="▴" meaning="best text of its picture" />}
    </td>
  );
}

function Mark({ sign, meaning }: { sign: string; meaning: string }) {
  return (
    <span class="mark" title={meaning}>
      <span aria-hidden="true">{sign}</span>
      <span class="hidden">, {meaning}</span>
    </span>
  );
}

function Legend({ least, largest }: Range) {
  return (
    <p class="legend quiet">
      <span>{least.toFixed(DIGITS)}</span>
      <span class="bar" aria-hidden="true">
        {Array.from({ length: LEGEND_STEPS }, (_, at) => <span style={{ background: colourOf(at / (LEGEND_STEPS - 1)).background }} />)}
      </span>
      <span>{largest.toFixed(DIGITS)}</span>
      <span>▸ best picture of its text</span>
      <span>▴ best text of its picture</span>
    </p>
  );
}
