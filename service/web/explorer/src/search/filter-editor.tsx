import { useId, useRef } from "preact/hooks";

import { short } from "../parts/text";
import { Typed } from "../parts/typed";
import { countIncomplete, emptyGroup, isList, newCondition, operatorName, type Condition, type Group, type Kind, type Target } from "./filter";

const JOINS: Record<Group["join"], string> = { all: "all of these", any: "any of these", none: "none of these" };
const MAX_DEPTH = 4;

/** Conditions on the properties of a collection, in groups. */
export function FilterEditor({ group, targets, onChange }: { group: Group; targets: Target[]; onChange: (group: Group) => void }) {
  const incomplete = countIncomplete(group, targets);
  return (
    <div class="filter">
      <GroupEditor group={group} targets={targets} depth={0} onChange={onChange} />
      <p class="quiet" role="status">{incomplete > 0 ? `${incomplete === 1 ? "A condition is" : `${incomplete} conditions are`} not complete, and does not count yet.`.replace("are not complete, and does", "are not complete, and do") : ""}</p>
    </div>
  );
}

interface GroupProps {
  group: Group;
  targets: Target[];
  depth: number;
  onChange: (group: Group) => void;
  onRemove?: () => void;
}

function GroupEditor({ group, targets, depth, onChange, onRemove }: GroupProps) {
  const id = useId();
  const [first] = targets;
  const add = useRef<HTMLButtonElement>(null);
  // What has the focus is about to go.
  const remove = (at: number) => {
    add.current?.focus();
    replace(at, undefined);
  };
  const replace = (at: number, item: Condition | Group | undefined) =>
    onChange({ ...group, items: group.items.flatMap((each, index) => (index !== at ? [each] : item === undefined ? [] : [item])) });
  return (
    <div class={depth > 0 ? "group" : undefined} role="group" aria-label={depth > 0 ? "Group of conditions" : "Conditions"}>
      {(depth > 0 || group.items.length > 1 || group.join !== "all") && (
        <div class="row">
          <label for={id} class="hidden">How the conditions are joined</label>
          <select id={id} value={group.join} onChange={(event) => onChange({ ...group, join: event.currentTarget.value as Group["join"] })}>
            {Object.entries(JOINS).map(([join, name]) => <option value={join}>{name}</option>)}
          </select>
          {onRemove && <button type="button" class="plain" aria-label="Remove this group" onClick={onRemove}>✕</button>}
        </div>
      )}
      {group.items.map((item, at) =>
        "items" in item ? (
          <GroupEditor group={item} targets={targets} depth={depth + 1} onChange={(changed) => replace(at, changed)} onRemove={() => remove(at)} />
        ) : (
          <ConditionEditor condition={item} targets={targets} onChange={(changed) => replace(at, changed)} onRemove={() => remove(at)} />
        ),
      )}
      <div class="row">
        <button type="button" ref={add} disabled={!first} onClick={() => first && onChange({ ...group, items: [...group.items, newCondition(first)] })}>Add a condition</button>
        {depth < MAX_DEPTH && group.items.length > 0 && (
          <button type="button" class="plain" disabled={!first} onClick={() => first && onChange({ ...group, items: [...group.items, { ...emptyGroup(), join: "any", items: [newCondition(first)] }] })}>Add a group</button>
        )}
      </div>
    </div>
  );
}

interface ConditionProps {
  condition: Condition;
  targets: Target[];
  onChange: (condition: Condition) => void;
  onRemove: () => void;
}

function ConditionEditor({ condition, targets, onChange, onRemove }: ConditionProps) {
  const target = targets.find((each) => each.key === condition.target);
  const retarget = (key: string) => {
    const next = targets.find((each) => each.key === key);
    if (!next) return;
    // What was typed stays where it can mean the same.
    const same = next.kind === target?.kind;
    onChange({ ...newCondition(next), ...(same && next.operators.includes(condition.operator) ? { operator: condition.operator } : {}), ...(same ? { values: condition.values } : {}) });
  };
  return (
    <div class="condition">
      <select class="target" aria-label="Property" value={condition.target} onChange={(event) => retarget(event.currentTarget.value)}>
        {!target && <option value={condition.target}>{short(condition.target, 40)} (unknown)</option>}
        {targets.map((each) => <option value={each.key}>{short(each.label, 60)}</option>)}
      </select>
      <button type="button" class="plain" aria-label="Remove this condition" onClick={onRemove}>✕</button>
      {target && (
        <select aria-label="Comparison" value={condition.operator} onChange={(event) => onChange({ ...condition, operator: event.currentTarget.value as Condition["operator"] })}>
          {target.operators.map((each) => <option value={each}>{operatorName(each, target)}</option>)}
        </select>
      )}
      {target && <ValueEditor condition={condition} kind={target.kind} onChange={(values) => onChange({ ...condition, values })} />}
    </div>
  );
}

const PLACEHOLDERS: Record<Kind, string> = { boolean: "", date: "", geo: "", integer: "whole number", number: "number", text: "text", uuid: "00000000-0000-0000-0000-000000000000" };

/** What a condition compares with, typed by its kind. */
function ValueEditor({ condition, kind, onChange }: { condition: Condition; kind: Kind; onChange: (values: string[]) => void }) {
  const { operator, values } = condition;
  const [value = ""] = values;
  if (kind === "boolean" || operator === "FILTER_OPERATOR_IS_NULL") {
    return (
      <select class="value" aria-label="Value" value={value === "false" ? "false" : "true"} onChange={(event) => onChange([event.currentTarget.value])}>
        <option value="true">{kind === "boolean" && operator !== "FILTER_OPERATOR_IS_NULL" ? "true" : "yes"}</option>
        <option value="false">{kind === "boolean" && operator !== "FILTER_OPERATOR_IS_NULL" ? "false" : "no"}</option>
      </select>
    );
  }
  if (kind === "geo") {
    const change = (at: number, text: string) => onChange([0, 1, 2].map((index) => (index === at ? text : (values[index] ?? ""))));
    return (
      <div class="value geo">
        {["latitude", "longitude", "metres"].map((name, at) => (
          <Typed type="number" step="any" aria-label={name} placeholder={name} value={values[at] ?? ""} onChange={(text) => change(at, text)} />
        ))}
      </div>
    );
  }
  if (isList(operator)) {
    return (
      <Typed class="value" aria-label="Values, one on each line" placeholder="one on each line" rows={3} value={values.join("\n")} onChange={(text) => onChange(text.split("\n"))} />
    );
  }
  const common = { class: "value", "aria-label": "Value", value, onChange: (text: string) => onChange([text]) };
  if (kind === "date") return <Typed {...common} type="datetime-local" step={1} />;
  if (kind === "integer" || kind === "number") return <Typed {...common} type="number" step={kind === "integer" ? 1 : "any"} placeholder={PLACEHOLDERS[kind]} />;
  return <Typed {...common} type="text" placeholder={PLACEHOLDERS[kind]} autocomplete="off" />;
}
