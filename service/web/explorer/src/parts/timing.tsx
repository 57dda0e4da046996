import type { Timing } from "../api";

/** Milliseconds as people read them. */
export function ms(value: number): string {
  return value < 10 ? `${value.toFixed(1)} ms` : value < 10_000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** How long the parts of a call took, as words and as a bar. */
export function TimingBar({ timing }: { timing: Timing }) {
  const total = timing.parts.find((each) => each.name === "total")?.ms;
  const parts = timing.parts.filter((each) => each.name !== "total");
  const named = parts.reduce((sum, each) => sum + each.ms, 0);
  const whole = Math.max(total ?? 0, named);
  const shown = total === undefined || total - named < 0.05 ? parts : [...parts, { name: "other", ms: total - named }];
  return (
    <span class="timing">
      {whole > 0 && (
        <span class="bar" aria-hidden="true">
          {shown.map((each, at) => <span class={`part part${at % 4}`} style={{ flexGrow: String(each.ms / whole) }} />)}
        </span>
      )}
      <span>
        {whole > 0 && <>{ms(whole)} on the server{shown.length > 0 && <> ({shown.map((each) => `${each.name} ${ms(each.ms)}`).join(", ")})</>}, </>}
        {ms(timing.roundTripMs)} in all
      </span>
    </span>
  );
}
