import "./chart.css";

const HIGH = 0.8;

interface MeterProps {
  label: string;
  /** For screen readers, where the label alone does not say of what. */
  name?: string;
  value: number;
  most: number;
  format: (value: number) => string;
}

/** How much of what is allowed is used. */
export function Meter({ label, name = label, value, most, format }: MeterProps) {
  const share = most > 0 ? value / most : 0;
  const text = `${format(value)} of ${format(most)}`;
  return (
    <div class={share >= 1 ? "meter full" : share >= HIGH ? "meter high" : "meter"}>
      <div class="words" aria-hidden="true"><span>{label}</span><span>{text}</span></div>
      <div class="bar" role="meter" aria-label={name} aria-valuemin={0} aria-valuemax={most} aria-valuenow={Math.min(value, most)} aria-valuetext={text}>
        <div style={{ width: `${Math.min(100, share * 100)}%` }} />
      </div>
    </div>
  );
}
