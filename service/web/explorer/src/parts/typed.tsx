import { useLayoutEffect, useState } from "preact/hooks";

interface Props {
  value: string;
  onChange: (value: string) => void;
  "aria-label"?: string;
  class?: string;
  placeholder?: string;
  /** Lines of a field with several of them, which takes none of what follows. */
  rows?: number;
  type?: "datetime-local" | "number" | "text";
  id?: string;
  list?: string;
  autocomplete?: "off";
  required?: boolean;
  min?: number | undefined;
  max?: number | undefined;
  step?: number | "any" | undefined;
}

/** A field that counts when people leave it. Until then what they type stays, although the page is drawn anew meanwhile, as for an answer. */
export function Typed({ value, onChange, rows, ...rest }: Props) {
  const [typed, setTyped] = useState(value);
  useLayoutEffect(() => setTyped(value), [value]);
  const field = {
    value: typed,
    onInput: (event: { currentTarget: { value: string } }) => setTyped(event.currentTarget.value),
    onChange: (event: { currentTarget: { value: string } }) => onChange(event.currentTarget.value),
  };
  if (rows === undefined) return <input type="text" {...rest} {...field} />;
  const { "aria-label": label, class: name, placeholder } = rest;
  return <textarea aria-label={label} class={name} placeholder={placeholder} rows={rows} {...field} />;
}
