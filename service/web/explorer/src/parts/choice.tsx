import { short } from "./text";

/** Choose a name of several, or none where `none` has words for that. */
export function Choice({ label, names, value, onChange, none }: { label: string; names: string[]; value: string; onChange: (name: string) => void; none?: string }) {
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {none !== undefined && <option value="">{none}</option>}
        {!names.includes(value) && value !== "" && <option value={value}>{short(value, 60)} (unknown)</option>}
        {names.map((each) => <option value={each}>{short(each, 60)}</option>)}
      </select>
    </label>
  );
}
